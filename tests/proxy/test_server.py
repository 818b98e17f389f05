"""What holds for all tunnels: the limit, the drain, one record each, and that nothing ends the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from polytls.app import App
from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.proxy import server, session
from tests.proxy.harness import (
    HANG_SECONDS,
    Origin,
    Proxy,
    ask,
    client_context,
    client_hello,
    connect_head,
    dial,
    read_all,
    read_head,
    read_reply,
    tunnel,
)

if TYPE_CHECKING:
    import concurrent.futures
    from pathlib import Path

    from polytls.settings import Settings

Start = Callable[..., Proxy]


def stopping(proxy: Proxy, drain_seconds: float) -> concurrent.futures.Future[None]:
    """Begin to stop, and do not wait."""
    future = asyncio.run_coroutine_threadsafe(proxy.app.stop(drain_seconds), proxy._loop)
    # Once this has run, so has the beginning of the drain.
    proxy.call(lambda: None)
    return future


def test_one_more_than_the_limit_is_503(
    start: Start, passthrough_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(passthrough_settings, limits={"tunnels": 2})
    with tunnel(proxy, "a.test", plain_echo.port), tunnel(proxy, "b.test", plain_echo.port):
        reply = ask(proxy, connect_head("c.test", plain_echo.port))
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "1"
        assert reply.body.startswith(b"polytls: too_many_tunnels: 2 tunnels are open")
        record = proxy.record()
        assert (record.outcome, record.side, record.stage) == ("too_many_tunnels", "proxy", "limits")
    assert {proxy.record().outcome for _ in range(2)} == {"completed"}
    with tunnel(proxy, "c.test", plain_echo.port):  # there is room again
        pass
    assert proxy.record().outcome == "completed"


def test_a_drain_lets_tunnels_end_and_turns_away_new_ones(
    start: Start, passthrough_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(passthrough_settings)
    with tunnel(proxy, "a.test", plain_echo.port) as connection, dial(proxy) as late:
        late.sendall(b"CONNECT b.test:443 HTTP/1.1\r\n")  # its head is not whole yet
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        stopped = stopping(proxy, HANG_SECONDS)
        late.sendall(b"\r\n")
        reply = read_reply(late)
        assert reply.status == 503
        assert reply.body.startswith(b"polytls: draining: ")
        assert reply.headers["Retry-After"] == "5"
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert not stopped.done()
        connection.sendall(b"y")  # the tunnel goes on
        assert connection.recv(1) == b"y"
    stopped.result(HANG_SECONDS)
    assert {proxy.record().outcome, proxy.record().outcome} == {"draining", "completed"}


def test_who_is_in_the_backlog_when_a_drain_begins_is_told_so(
    start: Start, passthrough_settings: Settings
) -> None:
    proxy = start(passthrough_settings)
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(20)]
        for client in clients:
            client.settimeout(HANG_SECONDS)
            client.sendall(connect_head("a.test", 443))
        server = proxy.app.server
        assert server is not None

        async def listen_and_drain() -> None:
            server.listen(os.dup(listener.fileno()))
            await server.drain(HANG_SECONDS)

        proxy.run(listen_and_drain())
        replies = [read_reply(client) for client in clients]
    assert {reply.status for reply in replies} == {503}
    assert {proxy.record().outcome for _ in clients} == {"draining"}


def test_what_succeeds_in_the_moment_of_the_end_leads_nowhere(
    start: Start, mitm_settings: Settings, tls_echo: Origin
) -> None:
    """The look at the hello is over, natively, and nobody has been told yet: too late to be cancelled."""
    proxy = start(mitm_settings)
    engine, server = proxy.app.engine, proxy.app.server
    assert engine is not None
    assert server is not None
    with tunnel(proxy, "origin.test", tls_echo.port) as connection:

        def end() -> None:
            # On the event loop, which therefore takes no completion meanwhile.
            connection.sendall(client_hello("origin.test"))
            while engine.stats().operations:
                time.sleep(0.001)
            server.end()

        proxy.call(end)
        assert proxy.record().outcome == "drained"
        assert read_all(connection) == b""


@pytest.mark.parametrize("by_signal", [False, True])
def test_when_the_time_is_over_tunnels_are_ended_and_on_record(
    start: Start,
    mitm_settings: Settings,
    root_pem: Path,
    tls_echo: Origin,
    plain_echo: Origin,
    by_signal: bool,
) -> None:
    proxy = start(mitm_settings)
    with contextlib.ExitStack() as stack:
        relaying = stack.enter_context(tunnel(proxy, "origin.test", tls_echo.port))
        tls = client_context(root_pem).wrap_socket(relaying, server_hostname="origin.test")
        stack.callback(tls.close)
        tls.sendall(b"abc")
        assert tls.recv(3) == b"abc"
        # And two in the middle of something: no hello yet, and no answer from upstream.
        waiting = stack.enter_context(tunnel(proxy, "waiting.test", plain_echo.port))
        stopped = stopping(proxy, HANG_SECONDS if by_signal else 0.05)
        if by_signal:
            proxy.call(proxy.app.end)
        stopped.result(HANG_SECONDS)
        assert read_all(tls) == b""
        assert read_all(waiting) == b""
    records = {record.host: record for record in (proxy.record(), proxy.record())}
    assert proxy.no_more_records()
    assert {record.outcome for record in records.values()} == {"drained"}
    assert {record.side for record in records.values()} == {"proxy"}
    assert (records["origin.test"].stage, records["waiting.test"].stage) == ("relay", "hello")
    assert (records["origin.test"].bytes_up, records["origin.test"].bytes_down) == (3, 3)


def test_a_tunnel_that_resolves_is_ended_too(start: Start, passthrough_settings: Settings) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def lookup(host: str) -> list[str]:
        asked.set()
        assert go_on.wait(HANG_SECONDS)
        return ["127.0.0.1"]

    proxy = start(passthrough_settings, lookup=lookup)
    with dial(proxy) as connection:
        connection.sendall(connect_head("slow.test", 443))
        assert asked.wait(HANG_SECONDS)
        proxy.stop()
        go_on.set()
        assert read_all(connection) == b""
    record = proxy.record()
    assert (record.outcome, record.stage, record.host) == ("drained", "connect", "slow.test")


def test_stopping_without_tunnels_is_quick_and_may_be_repeated(
    start: Start, passthrough_settings: Settings
) -> None:
    proxy = start(passthrough_settings)
    proxy.run(proxy.app.stop(HANG_SECONDS * 100))
    proxy.run(proxy.app.stop(0))


def test_a_defect_is_one_tunnels_alone(
    start: Start, passthrough_settings: Settings, plain_echo: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start(passthrough_settings)
    lead = session.lead

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(session, "lead", broken)
    reply = ask(proxy, connect_head("a.test", 443))
    assert reply.status == 500
    assert (
        reply.body == b"polytls: internal: a defect of PolyTLS (ZeroDivisionError); its log has the details\n"
    )
    record = proxy.record()
    assert (record.outcome, record.side, record.reply) == ("internal", "proxy", 500)
    assert len(proxy.reports) == 1
    assert "ZeroDivisionError: unforeseen" in proxy.reports[0]
    assert "Traceback" in proxy.reports[0]
    monkeypatch.setattr(session, "lead", lead)
    with tunnel(proxy, "a.test", plain_echo.port):
        pass
    assert proxy.record().outcome == "completed"


def test_a_tunnel_that_fails_in_the_turn_in_which_it_was_set_off_has_one_record(
    start: Start, passthrough_settings: Settings, nobody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that has looked a name up sets the rest off and is done. In a slow turn of the event loop the
    engine tells of the rest's failure, and another task leads the tunnel, before the end of the first is
    told."""
    proxy = start(passthrough_settings, lookup=lambda _: ["127.0.0.1"])
    dial_at = session._dial_at

    def slowly(course: session.Course, *args: Any) -> session.Rest | None:
        rest = dial_at(course, *args)
        while course.tunnel.relaying:
            course.engine._drain()
        return rest

    monkeypatch.setattr(session, "_dial_at", slowly)
    for _ in range(3):
        assert ask(proxy, connect_head("a.test", nobody)).status == 502
        assert proxy.record().outcome == "connect_refused"
    server_ = proxy.app.server
    assert server_ is not None
    assert proxy.call(lambda: (server_.tracker.admitted, len(server_.tracker.live))) == (0, 0)
    assert proxy.no_more_records()


def test_a_defect_while_telling_still_ends_in_a_record(
    start: Start, passthrough_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start(passthrough_settings)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(server, "tell", broken)
    with dial(proxy) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_all(connection) == b""
    assert proxy.record().outcome == "not_connect"  # the first failure is the one that counts
    assert "ZeroDivisionError" in proxy.reports[0]


def test_a_sink_that_fails_does_not_end_the_server(
    passthrough_settings: Settings, plain_echo: Origin
) -> None:
    calls: list[int] = []
    seen = threading.Event()

    def sink(record: object) -> None:
        calls.append(1)
        seen.set()
        raise ZeroDivisionError("unforeseen")

    proxy = Proxy(passthrough_settings)
    try:
        server = proxy.app.server
        assert server is not None
        server._sink = sink
        for _ in range(2):
            seen.clear()
            with tunnel(proxy, "a.test", plain_echo.port):
                pass
            assert seen.wait(HANG_SECONDS)
        proxy.call(lambda: None)
        assert len(calls) == len(proxy.reports) == 2
    finally:
        proxy.stop()


def test_two_proxies_cannot_have_one_address(start: Start, passthrough_settings: Settings) -> None:
    import dataclasses

    from polytls.settings import ListenSettings
    from polytls.started import ListenError

    first = start(passthrough_settings)
    taken = dataclasses.replace(passthrough_settings, listen=ListenSettings(first.address))

    async def second() -> None:
        app = App(taken, sink=lambda event: None)
        try:
            await app.start()
        finally:
            await app.stop(0)

    with pytest.raises(ListenError) as caught:
        asyncio.run(second())
    assert caught.value.address == first.address


def test_a_tunnel_keeps_its_first_failure() -> None:
    from polytls.events import TunnelRecord
    from polytls.proxy.tracker import Tunnel

    record = TunnelRecord(1, "127.0.0.1:1", 0.0)
    tunnel_ = Tunnel(None, None, record, 0, True)  # type: ignore[arg-type]
    tunnel_.fail(ProxyError(Side.CLIENT, Stage.HEAD, Kind.NOT_CONNECT, "first"))
    tunnel_.fail(ProxyError(Side.PROXY, Stage.RELAY, Kind.INTERNAL, "second"))
    assert (record.outcome, record.detail) == ("not_connect", "first")


def test_a_client_that_does_not_read_its_refusal_holds_nothing_up(passthrough: Proxy) -> None:
    with dial(passthrough) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert passthrough.record().outcome == "not_connect"
        assert read_head(connection).startswith(b"HTTP/1.1 405 ")
        connection.shutdown(socket.SHUT_RDWR)
