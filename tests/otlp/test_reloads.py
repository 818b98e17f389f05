"""Reloads of a real process, as a collector hears of them: counted by result, and told as events."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from polytls.telemetry.otlp import vocabulary as words
from tests.otlp.receiver import Receiver
from tests.peers.serve import Serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.otlp.exported import Exported

TAKEN = 'resolve = { "a.lab.test" = "127.0.0.1" }'
OTHER = 'resolve = { "b.lab.test" = "127.0.0.1" }'
WRONG = "nothing = true"


def write(file: Path, upstream: str) -> None:
    file.write_text(f"[proxy]\nmitm.enabled = false\n[proxy.upstream]\n{upstream}\n")


def environ_of(receiver: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "200"}


def counted(found: Exported, result: str) -> list[float]:
    """The latest count of each process."""
    last: dict[str, float] = {}
    for point in found.points:
        if point.metric == words.RELOADS.name and point.attributes[words.RESULT] == result:
            last[point.resource["service.instance.id"]] = point.value
    return sorted(last.values())


def counted_once(result: str, found: Exported) -> bool:
    return counted(found, result) == [1]


def test_they_are_counted_by_what_came_of_them(tmp_path: Path) -> None:
    file = tmp_path / "polytls.toml"
    write(file, TAKEN)
    with (
        Receiver() as receiver,
        Serve(tmp_path, "--config", str(file), environ=environ_of(receiver)) as proxy,
    ):
        receiver.wait(
            lambda found: all(counted(found, one) == [0] for one in ("changed", "unchanged", "refused"))
        )
        for upstream, result in ((OTHER, "changed"), (OTHER, "unchanged"), (WRONG, "refused")):
            write(file, upstream)
            proxy.signal(signal.SIGHUP)
            receiver.wait(partial(counted_once, result))
        events = (words.RELOADED_EVENT, words.RELOADED_EVENT, words.NOT_RELOADED_EVENT)
        found = receiver.wait(lambda found: len([log for log in found.logs if log.event in events]) == 3)
        assert [log.event for log in found.logs if log.event in events] == list(events)
        # Lines are for tunnels alone, and there was none; it is notes that say it, whatever the format is.
        assert proxy.all_records() == []
        assert proxy.notes.count("polytls: reloaded: ") == 2
        assert proxy.notes.count("polytls: not reloaded, ") == 1


@pytest.mark.parametrize("wrong", [WRONG, 'default_profile = "nobody"'])
def test_every_worker_counts_its_own(tmp_path: Path, wrong: str) -> None:
    """One that nobody could take, which the supervisor finds out, too."""
    file = tmp_path / "polytls.toml"
    write(file, TAKEN)
    with (
        Receiver() as receiver,
        Serve(tmp_path, "--workers", "2", "--config", str(file), environ=environ_of(receiver)) as proxy,
    ):
        write(file, OTHER)
        proxy.signal(signal.SIGHUP)
        receiver.wait(lambda found: counted(found, "changed") == [1, 1])
        write(file, wrong)
        proxy.signal(signal.SIGHUP)
        found = receiver.wait(
            lambda found: (
                counted(found, "refused") == [1, 1]
                and sum(log.event == words.NOT_RELOADED_EVENT for log in found.logs) == 2
            )
        )
        assert counted(found, "changed") == [1, 1]
        assert proxy.all_records() == []
