"""Collectors that are absent, slow, refusing, talking nonsense, and back again: tunnels do not notice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.otlp.receiver import Receiver, Stuck, free_port, garbage, refuse
from tests.peers.serve import Serve
from tests.peers.tools import fetch

if TYPE_CHECKING:
    from tests.peers.origin import Origin

TUNNELS = 5
QUICK = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
}
COMPLAINT = "polytls: telemetry: "

Start = Callable[..., Serve]


@pytest.fixture
def start(ca_dir: Path, options: tuple[str, ...]) -> Iterator[Start]:
    started: list[Serve] = []

    def start_one(url: str, **environ: str) -> Serve:
        proxy = Serve(ca_dir, *options, environ={**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **environ})
        started.append(proxy)
        return proxy

    yield start_one
    for proxy in started:
        proxy.stop()


def tunnels(proxy: Serve, origin: Origin, host: str, count: int = TUNNELS) -> None:
    for _ in range(count):
        assert fetch(proxy, f"https://{host}:{origin.port}/").status == 200
    records = proxy.records(host, count)
    assert all(record["outcome"] == "completed" for record in records[-count:])


def complaints(proxy: Serve) -> list[str]:
    return [line for line in proxy.notes.splitlines() if line.startswith(COMPLAINT)]


def stop_within(proxy: Serve, seconds: float) -> None:
    """It ends in order, and does not wait for its collector longer than it may."""
    began = time.monotonic()
    assert proxy.stop() == 0, proxy.notes
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_that_is_not_there(start: Start, origin: Origin, protocol: str) -> None:
    proxy = start(f"http://127.0.0.1:{free_port()}", OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    tunnels(proxy, origin, "absent.lab.test")
    proxy.wait_for_note(COMPLAINT)
    tunnels(proxy, origin, "absent.lab.test")
    stop_within(proxy, 20)
    # One a minute, however many exports failed; and nothing else of what the libraries say.
    assert len(complaints(proxy)) == 1, proxy.notes
    assert "Traceback" not in proxy.notes
    assert all(line.startswith(("PolyTLS", "  ", "polytls: ")) for line in proxy.notes.splitlines()), (
        proxy.notes
    )


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 503])
def test_a_collector_that_refuses(start: Start, origin: Origin, status: int) -> None:
    with Receiver(refuse(status)) as receiver:
        proxy = start(receiver.url)
        tunnels(proxy, origin, "refused.lab.test")
        proxy.wait_for_note(COMPLAINT)
        stop_within(proxy, 20)
        assert len(complaints(proxy)) == 1, proxy.notes


def test_a_collector_that_talks_nonsense(start: Start, origin: Origin) -> None:
    with Receiver(garbage) as receiver:
        proxy = start(receiver.url)
        tunnels(proxy, origin, "nonsense.lab.test")
        proxy.wait_for_note(COMPLAINT)
        stop_within(proxy, 20)
        assert len(complaints(proxy)) == 1, proxy.notes
        assert "Traceback" not in proxy.notes


def test_a_grpc_collector_that_talks_nonsense(start: Start, origin: Origin) -> None:
    with Receiver(garbage) as receiver:  # it speaks HTTP/1.1, if anything
        proxy = start(receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
        tunnels(proxy, origin, "nonsense.lab.test")
        proxy.wait_for_note(COMPLAINT)
        stop_within(proxy, 20)
        assert len(complaints(proxy)) == 1, proxy.notes


def test_a_collector_that_never_answers(start: Start, origin: Origin) -> None:
    stuck = Stuck()
    with Receiver(stuck) as receiver:
        proxy = start(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="60")
        tunnels(proxy, origin, "stuck.lab.test", 1)
        receiver.wait_for_requests(1)
        tunnels(proxy, origin, "stuck.lab.test", TUNNELS + 1)
        # The deadline is the drain time, a second here, and not the collector's minute.
        stop_within(proxy, 15)
        stuck.release()


def test_a_collector_that_takes_connections_and_reads_nothing(start: Start, origin: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = start(f"http://127.0.0.1:{listener.getsockname()[1]}")
        tunnels(proxy, origin, "deaf.lab.test")
        proxy.wait_for_note(COMPLAINT)
        stop_within(proxy, 20)


def test_a_collector_that_comes_back(start: Start, origin: Origin) -> None:
    """What ended while it was away may be lost, and is counted; what ends afterwards arrives."""
    port = free_port()
    proxy = start(f"http://127.0.0.1:{port}")
    tunnels(proxy, origin, "before.lab.test")
    proxy.wait_for_note(COMPLAINT)
    with Receiver(port=port) as receiver:
        tunnels(proxy, origin, "after.lab.test")
        found = receiver.wait(
            lambda exported: (
                sum(span.attributes.get("server.address") == "after.lab.test" for span in exported.spans)
                == TUNNELS
                and exported.last("polytls.tunnels.ended", polytls_outcome="completed") == 2 * TUNNELS
            )
        )
        receiver.wait(lambda exported: sum(log.event == "polytls.tunnel" for log in exported.logs) >= TUNNELS)
        before = sum(span.attributes.get("server.address") == "before.lab.test" for span in found.spans)
        # A batch that came too late to be acknowledged in time is both there and counted as lost.
        receiver.wait(
            lambda exported: (
                (exported.last("polytls.events.dropped", polytls_sink="traces") or 0) >= TUNNELS - before
            )
        )
        assert proxy.stop() == 0


def test_what_waits_for_a_stuck_collector_is_bounded(start: Start, origin: Origin) -> None:
    """A queue of four, and a batch that is under way: the rest is dropped and counted."""
    stuck = Stuck()
    waiting = 4
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": str(waiting), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    with Receiver(stuck) as receiver:
        proxy = start(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="30", OTEL_LOGS_EXPORTER="none", **sizes)
        tunnels(proxy, origin, "first.lab.test", 1)
        receiver.wait_for_requests(1)
        many = 20
        tunnels(proxy, origin, "many.lab.test", many)
        receiver.behave = None
        stuck.release()
        found = receiver.wait(
            lambda exported: (
                exported.last("polytls.events.dropped", polytls_sink="traces") is not None
                and exported.last("polytls.tunnels.ended", polytls_outcome="completed") == many + 1
            )
        )
        dropped = found.last("polytls.events.dropped", polytls_sink="traces")
        assert dropped is not None
        assert dropped >= many - waiting - 1
        receiver.wait(lambda exported: len(exported.tunnels()) + dropped == many + 1)
        assert proxy.stop() == 0


def test_what_waits_is_sent_when_the_proxy_stops(start: Start, origin: Origin) -> None:
    """Nothing is sent before: the delays are longer than the test."""
    with Receiver() as receiver:
        long = "600000"
        proxy = start(
            receiver.url,
            OTEL_BSP_SCHEDULE_DELAY=long,
            OTEL_BLRP_SCHEDULE_DELAY=long,
            OTEL_METRIC_EXPORT_INTERVAL=long,
        )
        tunnels(proxy, origin, "late.lab.test")
        assert receiver.exported().spans == []
        assert proxy.stop() == 0
        found = receiver.exported()
        assert len(found.tunnels()) == TUNNELS
        assert sum(log.event == "polytls.tunnel" for log in found.logs) == TUNNELS
        assert found.last("polytls.tunnels.ended", polytls_outcome="completed") == TUNNELS


def test_tunnels_are_as_quick_with_a_stuck_collector_as_with_a_good_one(start: Start, origin: Origin) -> None:
    """Not a measurement, which a shared machine does not allow: a tunnel that waited for its collector would
    take as long as that collector does, which is for ever."""
    stuck = Stuck()
    with Receiver(stuck) as receiver:
        proxy = start(receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="60")
        tunnels(proxy, origin, "warm.lab.test", 2)
        receiver.wait_for_requests(1)
        threads = [
            threading.Thread(target=tunnels, args=(proxy, origin, f"quick{number}.lab.test", 5))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for number in range(4):
            for record in proxy.records(f"quick{number}.lab.test", 5):
                assert record["seconds"]["total"] < 10
        stop_within(proxy, 15)
        stuck.release()
