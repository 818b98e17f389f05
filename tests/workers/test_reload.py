"""SIGHUP to a proxy of several workers: read once, taken by all, and by those that come later."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine.roots import system_bundle
from polytls.settings import Settings
from polytls.workers.order import Change, Refusal, Wishes, receive_wishes, send_change
from tests.peers.serve import Serve
from tests.proxy.harness import Origin, echo
from tests.workers.harness import RefusedError, descriptors_of, open_tunnel, ping, until, workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def origin() -> Iterator[Origin]:
    found = Origin(echo)
    yield found
    found.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "polytls.toml"
    write(file, "a")
    return file


@pytest.fixture
def served(tmp_path: Path, file: Path) -> Iterator[Serve]:
    with Serve(tmp_path, "--workers", "2", "--config", str(file)) as found:
        yield found


def write(file: Path, name: str, more: str = "") -> None:
    """Only this name leads anywhere: `localhost` is the resolver's, and "x.y" no other's."""
    file.write_text(
        f'[proxy]\n{more}\nmitm.enabled = false\nupstream.resolve = {{ "{name}.lab.test" = "127.0.0.1" }}\n'
    )


def works(served: Serve, host: str, port: int) -> bool:
    """Whether 64 tunnels do, so that each worker has some."""
    for _ in range(64):
        try:
            with contextlib.closing(open_tunnel(served, host, port)) as tunnel:
                assert ping(tunnel)
        except RefusedError:
            return False
    return True


def reload(served: Serve, number: int) -> None:
    served.signal(signal.SIGHUP)
    for worker in (1, 2):
        wait_for(served, f"polytls: worker {worker}: reloaded: changed proxy.upstream.resolve", number)


def wait_for(served: Serve, text: str, number: int) -> None:
    for _ in until(text):
        if served.notes.count(text) >= number:
            return


def test_all_take_it_and_who_comes_later_has_it(served: Serve, file: Path, origin: Origin) -> None:
    assert works(served, "a.lab.test", origin.port)
    under_way = open_tunnel(served, "a.lab.test", origin.port)
    write(file, "b")
    reload(served, 1)
    assert works(served, "b.lab.test", origin.port)
    assert ping(under_way)
    under_way.close()
    # What an answer has not reached yet would be offered to it anew: either way it is the new one.
    killed, _ = workers_of(served)
    os.kill(killed, signal.SIGKILL)
    served.wait_for_note("was killed by SIGKILL; it is started again")
    for _ in until("two workers"):
        now = workers_of(served)
        if len(now) == 2 and killed not in now:
            break
    assert works(served, "b.lab.test", origin.port)
    write(file, "c")
    reload(served, 2)
    assert works(served, "c.lab.test", origin.port)


def test_a_wrong_one_is_told_of_once_and_changes_nothing(served: Serve, file: Path, origin: Origin) -> None:
    write(file, "b", "nothing = true")
    served.signal(signal.SIGHUP)
    served.wait_for_note("polytls: not reloaded, the configuration stays as it was: ")
    write(file, "b", 'listen.address = "127.0.0.1:1"\nlisten.backlog = 5')
    served.signal(signal.SIGHUP)
    served.wait_for_note("a restart is needed to change proxy.listen.backlog")
    assert served.notes.count("not reloaded") == 2
    assert works(served, "a.lab.test", origin.port)


def test_reloads_leave_no_descriptor(served: Serve, file: Path, origin: Origin) -> None:
    write(file, "b")
    reload(served, 1)
    before = [descriptors_of(pid) for pid in (served.pid, *workers_of(served))]
    for number in range(2, 12):
        write(file, "ab"[number % 2])
        write(file, f"n{number}")
        reload(served, number)
    assert works(served, "n11.lab.test", origin.port)
    for _ in until(before):
        if [descriptors_of(pid) for pid in (served.pid, *workers_of(served))] <= before:
            return


def test_a_quick_series_leaves_all_with_one_configuration(tmp_path: Path, file: Path, origin: Origin) -> None:
    """What only workers find wrong comes last, while they have not even begun with the first."""
    _write_mitm(file, "a")
    with Serve(tmp_path, "--workers", "2", "--config", str(file)) as served:
        workers = workers_of(served)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        for name in ("b", "c", "d"):
            _write_mitm(file, name, 'upstream.ca_file = "/nowhere"' if name == "d" else "")
            taken_up = _sleeps(served.pid)
            served.signal(signal.SIGHUP)
            for _ in until(name):
                if _sleeps(served.pid) > taken_up:
                    break
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        wait_for(served, "not reloaded, the configuration stays as it was: /nowhere", 2)
        os.kill(workers[0], signal.SIGKILL)
        served.wait_for_note("was killed by SIGKILL; it is started again")
        for _ in until("two workers"):
            if len(now := workers_of(served)) == 2 and workers[0] not in now:
                break
        assert [works(served, f"{name}.lab.test", origin.port) for name in "abcd"].count(True) == 1


def test_a_configuration_by_which_none_can_start_is_mended(
    tmp_path: Path, file: Path, origin: Origin
) -> None:
    """What it needs is gone, and with it the workers: there is nobody who could take another."""
    roots = tmp_path / "roots.pem"
    shutil.copy(system_bundle(), roots)
    _write_mitm(file, "a", f'upstream.ca_file = "{roots}"')
    with Serve(tmp_path, "--workers", "2", "--config", str(file)) as served:
        roots.unlink()
        for pid in workers_of(served):
            os.kill(pid, signal.SIGKILL)
        wait_for(served, "roots.pem: trusted roots cannot be read", 2)
        _write_mitm(file, "b")
        served.signal(signal.SIGHUP)
        for _ in until("tunnels"):
            with contextlib.suppress(ConnectionError):
                if works(served, "b.lab.test", origin.port):
                    break


def _write_mitm(file: Path, name: str, more: str = "") -> None:
    relay = 'mitm.non_tls = "relay"'
    file.write_text(f'[proxy]\n{relay}\n{more}\nupstream.resolve = {{ "{name}.lab.test" = "127.0.0.1" }}\n')


def _sleeps(pid: int) -> int:
    """How often a process has gone to sleep so far: once more, and it has dealt with a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def test_one_more_signal_at_the_very_end_changes_nothing(tmp_path: Path, file: Path) -> None:
    served = Serve(tmp_path, "--workers", "2", "--config", str(file))
    served.signal(signal.SIGTERM)
    while not served.ended():
        served.signal(signal.SIGHUP)
    assert served.stop() == 0


def test_while_they_stop_it_is_let_be(tmp_path: Path, file: Path, origin: Origin) -> None:
    served = Serve(tmp_path, "--workers", "2", "--config", str(file), "--drain-timeout", "600")
    with served, contextlib.closing(open_tunnel(served, "a.lab.test", origin.port)) as tunnel:
        served.signal(signal.SIGTERM)
        served.wait_for_note("stopping; ")
        write(file, "b")
        served.signal(signal.SIGHUP)
        assert ping(tunnel)
    assert "reloaded" not in served.notes


def test_wishes_come_in_order_whatever_there_is_to_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert receive_wishes(theirs) == Wishes(0, (), ended=False)
        large = Settings(profile_tables={"x": {"y": "z" * 900_000}})
        for sent in (Change(1, large, {}), Refusal("wrong"), Change(2, large, {})):
            send_change(ours, sent)
        ours.send(b"s")
        found: list[Change | Refusal] = []
        stops = 0
        while not stops:
            wishes = receive_wishes(theirs)
            assert not wishes.ended
            found += wishes.changes
            stops += wishes.stops
        assert found == [Change(1, large, {}), Refusal("wrong"), Change(2, large, {})]
        ours.close()
        assert receive_wishes(theirs).ended
