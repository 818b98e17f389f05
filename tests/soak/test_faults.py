"""Faults under the whole proxy: system calls that fail, descriptors that run out, clocks, stalls, names.

Whatever is struck: the tunnel ends, soon, in exactly one record with a kind that says what it was, and never
"internal"; a tunnel beside it goes on and loses no byte; nothing is left (conftest.py).
"""

from __future__ import annotations

import errno
import resource
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.soak import driver
from tests.soak.clients import attempt, conversation, difference, outcomes
from tests.soak.driver import SHORT, Driven, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.spawn import Origin

HOST = "get-1.origin.test"
MOST_STEPS = 200
STALL_SECONDS = 1.0
DAY = 86_400

HARMLESS = [
    (driver.RECV, (errno.EINTR, errno.EAGAIN, SHORT)),
    (driver.SEND, (errno.EINTR, errno.EAGAIN, SHORT)),
    (driver.EPOLL_WAIT, (errno.EINTR,)),
    (driver.WRITE, (errno.EINTR,)),
    (driver.READ, (errno.EAGAIN,)),
    (driver.SETSOCKOPT, (errno.ENOMEM,)),
    (
        driver.ACCEPT4,
        (errno.ECONNABORTED, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
    ),
]
HARD = [
    (driver.RECV, (errno.ECONNRESET, errno.ENOMEM)),
    (driver.SEND, (errno.ECONNRESET, errno.EPIPE, errno.ENOBUFS)),
    (driver.SOCKET, (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)),
    (driver.CONNECT, (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL)),
    (driver.EPOLL_CTL, (errno.ENOMEM, errno.ENOSPC)),
    (driver.GETSOCKOPT, (errno.ENOBUFS,)),
]
_NAMES = {number: name for name, number in vars(driver).items() if name.isupper() and isinstance(number, int)}


def _cases(table: list[tuple[int, tuple[int, ...]]]) -> list[object]:
    return [
        pytest.param(call, error, id=f"{_NAMES[call]}-{errno.errorcode.get(error, 'short')}")
        for call, errors in table
        for error in errors
    ]


def _sweep(subject: Driven, port: int, call: int, error: int) -> list[tuple[int, str, dict[str, int]]]:
    """Strike the first such call of a tunnel, then the second, and so on, while there is one to strike. What
    became of each: the step, the client's word, the records. Another tunnel stands meanwhile."""
    found = []
    with conversation(subject, "pingpong-1.origin.test", port) as beside:
        beside.get(5000, 3)
        for step in range(MOST_STEPS):
            before = subject.ask("light")
            subject.faults(Rule(call, error, after=step, count=1))
            said = attempt(subject, HOST, port)
            struck = subject.faults()
            beside.get(5000, step)
            after = _quiet(subject)
            assert not struck or after["engine"]["impossible"] == 0
            found.append((step, said, difference(before, after)))
            if not struck:
                return found
    raise AssertionError("the faults do not end")


def _quiet(subject: Driven) -> dict[str, Any]:
    """The counts once the tunnel beside is alone again."""
    deadline = time.monotonic() + 10.0
    while True:
        stats = subject.ask("light")
        if stats["live"] == 1 or time.monotonic() > deadline:
            return stats


@pytest.mark.parametrize(("call", "error"), _cases(HARMLESS))
def test_what_a_kernel_may_do_harms_nothing(struck: Driven, upstream: Origin, call: int, error: int) -> None:
    for step, said, records in _sweep(struck, upstream.port, call, error):
        assert (said, records) == ("ok", {"completed": 1}), step


@pytest.mark.parametrize(("call", "error"), _cases(HARD))
def test_what_fails_is_told(struck: Driven, upstream: Origin, call: int, error: int) -> None:
    found = _sweep(struck, upstream.port, call, error)
    assert any(said != "ok" for _, said, _ in found), "nothing was ever struck"
    for step, said, records in found:
        assert "internal" not in records, (step, said)
        # A client that could not even be watched for is let go, without a tunnel.
        assert sum(records.values()) == 1 or (call in (driver.EPOLL_CTL, driver.RECV) and not records), (
            step,
            said,
            records,
        )
        if records == {"completed": 1} and call not in (driver.RECV, driver.SEND):
            assert said == "ok", step
    assert found[-1][1:] == ("ok", {"completed": 1})
    assert struck.ask("light")["internal"] == []


def test_descriptors_that_run_out(start: Callable[..., Driven], upstream: Origin) -> None:
    """Really, by the limit: who cannot be accepted waits, who cannot be connected for is told, and all goes
    on."""
    subject = start(threads=2)
    with conversation(subject, "pingpong-1.origin.test", upstream.port) as beside:
        limits = resource.prlimit(subject.pid, resource.RLIMIT_NOFILE)
        used = subject.ask("stats")["descriptors"]
        said: list[str] = []
        # Room for one more client, and none for its upstream; the others cannot even be accepted.
        resource.prlimit(subject.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        clients = [
            threading.Thread(target=lambda: said.append(attempt(subject, HOST, upstream.port)))
            for _ in range(6)
        ]
        for client in clients:
            client.start()
        while not subject.ask("light")["engine"]["accept_errors"]:
            beside.get(1000, 1)
        resource.prlimit(subject.pid, resource.RLIMIT_NOFILE, limits)
        for client in clients:
            client.join()
        beside.get(5000, 2)
        assert set(said) <= {"ok", "refused 503"}, said
        assert said.count("ok") >= 4
        assert attempt(subject, HOST, upstream.port) == "ok"
    ended = outcomes(subject.snapshot())
    assert set(ended) <= {"completed", "out_of_sockets"}


@pytest.mark.parametrize("seconds", [3600, -3600, 400 * DAY, -400 * DAY])
def test_a_wall_clock_that_jumps(start: Callable[..., Driven], upstream: Origin, seconds: int) -> None:
    """Tunnels that stand do not notice. Certificates are valid or not by the new time, and again by the
    old."""
    subject = start(faults=True)
    with conversation(subject, "pingpong-1.origin.test", upstream.port) as beside:
        beside.get(1000, 1)
        subject.ask("clock", seconds=seconds)
        beside.get(1000, 2)
        said = attempt(subject, "get-2.origin.test", upstream.port)
        if abs(seconds) < DAY:
            assert said == "ok"
        subject.ask("clock", seconds=0)
        beside.get(1000, 3)
        assert attempt(subject, "get-3.origin.test", upstream.port) == "ok"
    ended = outcomes(subject.snapshot())
    # A chain that verified a moment ago may still count as verified; our own root is not valid before it
    # was made.
    assert set(ended) <= {"completed", "certificate_expired", "certificate_not_yet_valid", "leaf_failed"}, (
        ended
    )
    assert sum(ended.values()) == 3


def test_a_proxy_that_is_stopped_for_a_while(start: Callable[..., Driven], upstream: Origin) -> None:
    """SIGSTOP, SIGCONT: time passed, nothing else did. What waited goes on, what came meanwhile is served."""
    subject = start(faults=True)
    said: list[str] = []
    with conversation(subject, "pingpong-1.origin.test", upstream.port) as beside:
        beside.get(1000, 1)
        subject.pause()
        clients = [
            threading.Thread(target=lambda: said.append(attempt(subject, HOST, upstream.port)))
            for _ in range(8)
        ]
        for client in clients:
            client.start()
        time.sleep(STALL_SECONDS)  # what is tested is that so much time passes
        subject.go_on()
        for client in clients:
            client.join()
        beside.get(50_000, 2)
    assert said == ["ok"] * 8
    assert outcomes(subject.snapshot()) == {"completed": 9}


def test_a_resolver_that_fails_or_hangs(start: Callable[..., Driven], upstream: Origin) -> None:
    subject = start()
    with conversation(subject, "pingpong-1.origin.test", upstream.port) as beside:
        waiting = [
            threading.Thread(target=attempt, args=(subject, f"hole-{i}.hang.test", upstream.port))
            for i in range(5)
        ]
        for client in waiting:
            client.start()
        assert attempt(subject, "get-1.broken.test", upstream.port) == "refused 502"
        assert attempt(subject, "get-1.nowhere.test", upstream.port) == "refused 502"
        assert attempt(subject, HOST, upstream.port) == "ok"
        beside.get(1000, 1)
        for client in waiting:
            client.join()
    subject.ask("let_go")
    assert outcomes(subject.snapshot()) == {
        "completed": 2,
        "resolve_failed": 1,
        "name_not_found": 1,
        "resolve_timeout": 5,
    }
