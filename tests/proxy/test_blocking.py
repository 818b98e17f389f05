"""Nothing slow on the event loop: tunnels of all kinds, and the loop's thread opens, resolves and writes
nothing.

A log goes to a real pipe, names go to the system's resolver, leaves are minted: all of it on other threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.events import Event, TunnelRecord, note_of
from polytls.proxy.resolve import system_lookup
from polytls.settings import LogFormat, SniPolicy
from polytls.telemetry.log import LineWriter, TunnelLog
from tests.proxy.blocking import Blocking
from tests.proxy.harness import (
    HOST,
    Origin,
    OriginCA,
    Proxy,
    answer_to,
    answer_to_hello,
    ask,
    client_context,
    client_hello,
    connect_head,
    dial,
    read_all,
    server_context,
    tls_tunnel,
    tunnel,
    with_settings,
)

if TYPE_CHECKING:
    from polytls.settings import Settings

NAMES = tuple((f"n{number}.test", "127.0.0.1") for number in range(20))


class Logged:
    """A proxy with the log that `polytls serve` has, into a pipe that is read when all is over."""

    def __init__(self, settings: Settings) -> None:
        self._reading, self._writing = os.pipe()
        fcntl.fcntl(self._writing, 1031, 1 << 20)  # F_SETPIPE_SZ

        def write(data: bytes) -> None:
            os.write(self._writing, data)

        self._log = TunnelLog(write, LogFormat.JSON)
        self._notes = LineWriter(write, str)
        self.proxy = Proxy(settings, system_lookup)
        server = self.proxy.app.server
        assert server is not None
        records = self.proxy.records

        def sink(event: Event) -> None:
            if isinstance(event, TunnelRecord):
                self._log(event)
                records.put(event)
            elif (text := note_of(event)) is not None:
                self._notes.put(lambda: text)

        server._sink = self.proxy.app._sink = sink

    def close(self) -> bytes:
        """Everything that was logged."""
        self.proxy.stop()
        self._log.close()
        self._notes.close()
        os.close(self._writing)
        with os.fdopen(self._reading, "rb") as pipe:
            return pipe.read()


@pytest.fixture
def logged() -> Iterator[Callable[[Settings], Logged]]:
    started: list[Logged] = []

    def start(settings: Settings) -> Logged:
        started.append(Logged(settings))
        return started[-1]

    yield start
    for each in started:
        each.proxy.stop()


def _resolving(settings: Settings) -> Settings:
    # "localhost" and "localhost.invalid" are the resolver's; HOST and NAMES are not.
    return with_settings(settings, upstream={"resolve": ((HOST, "127.0.0.1"), *NAMES)})


def _outcomes(proxy: Proxy, count: int) -> set[str]:
    return {proxy.record().outcome for _ in range(count)}


def test_mitm_tunnels_of_all_kinds(
    logged: Callable[[Settings], Logged],
    mitm_settings: Settings,
    tls_http: Origin,
    tls_echo: Origin,
    origin_ca: OriginCA,
    origins: Callable[..., Origin],
) -> None:
    settings = with_settings(
        _resolving(mitm_settings),
        mitm={"sni": SniPolicy.REQUIRE},
        limits={"tunnels": 4},
        timeouts={"head": 0.3},
    )
    running = logged(settings)
    proxy, root = running.proxy, settings.certificate.ca_cert_path
    local = origins(_hello, server_context(origin_ca.issue("localhost")))
    expired = origins(_hello, server_context(origin_ca.issue(HOST, to_days=-0.5)))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        closed_port = closed.getsockname()[1]
    with Blocking(proxy) as watched:
        # Completed: a leaf that is minted, a leaf that is there, a name that is resolved.
        for _ in range(3):
            assert answer_to(proxy, root, tls_http.port).endswith(b"hi\n")
        assert answer_to(proxy, root, local.port, host="localhost").endswith(b"hi\n")
        # Names never seen, whose origin's certificate is for another one: a leaf and a page each.
        for name, _ in NAMES:
            assert b"certificate_wrong_host" in answer_to(proxy, root, tls_http.port, host=name)
        assert b"certificate_expired" in answer_to(proxy, root, expired.port)
        # Every profile's context is made when it is first asked for, and `mirror` learns.
        for profile in ("firefox", "safari", "curl", "mirror"):
            header = f"X-PolyTLS-Upstream-Profile: {profile}"
            with tls_tunnel(proxy, HOST, tls_echo.port, client_context(root, ("h2",)), header) as tls:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"
        # Turned away and failed, at every stage.
        assert ask(proxy, b"GET / HTTP/1.1\r\n\r\n").status == 405
        assert ask(proxy, b"nonsense\r\n\r\n").status == 400
        assert ask(proxy, connect_head(HOST, 443, "X-PolyTLS-Upstream-Profile: none")).status == 400
        assert ask(proxy, connect_head("name.invalid", 443)).status == 502
        assert ask(proxy, connect_head(HOST, closed_port)).status == 502
        answer_to_hello(proxy, tls_http.port, b"this is no TLS at all")
        answer_to_hello(proxy, tls_http.port, client_hello(None))
        answer_to_hello(proxy, tls_http.port, client_hello("other.test"))
        with tunnel(proxy, HOST, tls_http.port):
            pass  # gone before its hello
        with dial(proxy) as slow:
            assert b"408" in read_all(slow)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(tunnel(proxy, HOST, tls_http.port))
            assert ask(proxy, connect_head(HOST, tls_http.port)).status == 503
        outcomes = _outcomes(proxy, 3 + 1 + 20 + 1 + 4 + 5 + 4 + 1 + 5)
    assert watched.found == [], "\n".join(watched.found)
    assert outcomes == {
        "completed",
        "certificate_wrong_host",
        "certificate_expired",
        "not_connect",
        "malformed_head",
        "unknown_profile",
        "name_not_found",
        "connect_refused",
        "not_tls",
        "sni_missing",
        "sni_mismatch",
        "client_closed",
        "head_timeout",
        "too_many_tunnels",
    }
    log = running.close()
    assert log.count(b'"event":"tunnel"') == 44
    assert log.count(b"leaf for ") >= 22


def _hello(connection: socket.socket) -> None:
    from tests.proxy.harness import hello_http

    hello_http(connection)


def test_passthrough_tunnels(
    logged: Callable[[Settings], Logged], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    running = logged(passthrough_settings)
    with Blocking(running.proxy) as watched:
        for host in ("127.0.0.1", "localhost", "localhost"):
            with tunnel(running.proxy, host, plain_echo.port) as connection:
                connection.sendall(b"x" * 100_000)
                connection.shutdown(socket.SHUT_WR)
                assert len(read_all(connection)) == 100_000
        assert ask(running.proxy, connect_head("name.invalid", 443)).status == 502
        with tunnel(
            running.proxy, "localhost", plain_echo.port, "X-PolyTLS-Upstream-Profile: go"
        ) as connection:
            connection.sendall(b"x")
        outcomes = _outcomes(running.proxy, 5)
    assert watched.found == [], "\n".join(watched.found)
    assert {"completed", "name_not_found"} <= outcomes
    assert running.close().count(b"\n") == 5


def _sleep(_: Path) -> None:
    time.sleep(0)


def _open(path: Path) -> None:
    path.open().close()


def _write(_: Path) -> None:
    os.write(2, b"")


def _stat(path: Path) -> None:
    path.stat()


def _resolve(_: Path) -> None:
    socket.getaddrinfo("127.0.0.1", 1)


def _print(_: Path) -> None:
    print(end="")


def _flush(_: Path) -> None:
    sys.__stderr__.flush()  # type: ignore[union-attr]


def _run(_: Path) -> None:
    subprocess.run(["true"], check=True)


def _import(_: Path) -> None:
    sys.modules.pop("this_is_no_module", None)
    with contextlib.suppress(ImportError):
        import this_is_no_module  # type: ignore[import-not-found]  # noqa: F401


def _connect(_: Path) -> None:
    with socket.socket() as plain, contextlib.suppress(OSError):
        plain.connect(("127.0.0.1", 0))


@pytest.mark.parametrize(
    "slow", [_sleep, _open, _write, _stat, _resolve, _print, _flush, _run, _import, _connect]
)
def test_the_detector_detects(passthrough: Proxy, tmp_path: Path, slow: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.touch()
    with Blocking(passthrough) as watched:
        slow(path)  # on this thread it may
        assert watched.found == [], "\n".join(watched.found)
        passthrough.call(lambda: slow(path))
    assert watched.found
    count = len(watched.found)
    passthrough.call(lambda: slow(path))
    assert len(watched.found) == count
