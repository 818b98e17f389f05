"""Tunnels from CONNECT to their end, where the mode makes no difference or is passthrough: connecting,
relaying both ways, half-close, limits on time, and what the record says."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from tests.proxy.harness import (
    HANG_SECONDS,
    Origin,
    Proxy,
    ask,
    connect_head,
    echo,
    read_all,
    read_head,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from polytls.settings import Settings


@pytest.fixture
def silence() -> Iterator[int]:
    """A port that does not answer: its queue is full, so that Linux drops further SYNs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_bytes_go_both_ways_and_are_counted(passthrough: Proxy, plain_echo: Origin) -> None:
    data = os.urandom(3_000_017)
    with tunnel(passthrough, "origin.test", plain_echo.port) as connection:
        sender = threading.Thread(target=_send_and_end, args=(connection, data))
        sender.start()
        assert read_all(connection) == data
        sender.join()
    record = passthrough.record()
    assert (record.outcome, record.side, record.detail) == ("completed", None, None)
    assert (record.bytes_up, record.bytes_down) == (len(data), len(data))
    assert (record.host, record.port, record.mode) == ("origin.test", plain_echo.port, "passthrough")
    assert (record.profile, record.sni, record.client_tls, record.upstream_tls) == (None, None, None, None)
    assert record.upstream == f"127.0.0.1:{plain_echo.port}"
    assert record.reply == 200
    timings = record.timings
    for step in (timings.head, timings.resolve, timings.connect, timings.first_byte, timings.relay):
        assert step is not None
        assert timings.total is not None
        assert 0 <= step <= timings.total
    assert timings.hello is None


def _send_and_end(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def test_a_client_that_has_ended_still_gets_its_answer(
    passthrough: Proxy, origins: Callable[..., Origin]
) -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        connection.sendall(b"got %d" % len(read_all(connection)))

    origin = origins(answer_at_the_end)
    with tunnel(passthrough, "origin.test", origin.port) as connection:
        connection.sendall(b"x" * 1000)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"got 1000"
    assert passthrough.record().outcome == "completed"


def test_an_upstream_that_has_ended_still_gets_bytes(
    passthrough: Proxy, origins: Callable[..., Origin]
) -> None:
    received: list[bytes] = []
    done = threading.Event()

    def end_first(connection: socket.socket) -> None:
        connection.sendall(b"that was all")
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))
        done.set()

    origin = origins(end_first)
    with tunnel(passthrough, "origin.test", origin.port) as connection:
        assert read_all(connection) == b"that was all"
        connection.sendall(b"late")
        connection.shutdown(socket.SHUT_WR)
        assert done.wait(HANG_SECONDS)
    assert received == [b"late"]
    assert passthrough.record().outcome == "completed"


def test_a_server_may_speak_first(passthrough: Proxy, origins: Callable[..., Origin]) -> None:
    origin = origins(lambda connection: connection.sendall(b"220 ready\r\n"))
    with tunnel(passthrough, "origin.test", origin.port) as connection:
        assert read_all(connection) == b"220 ready\r\n"
    assert passthrough.record().bytes_down == 11


def test_many_tunnels_at_once(passthrough: Proxy, plain_echo: Origin) -> None:
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(tunnel(passthrough, "origin.test", plain_echo.port)) for _ in range(50)
        ]
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
        for number, connection in enumerate(connections):
            assert connection.recv(10) == b"%d" % number
    records = [passthrough.record() for _ in range(50)]
    assert {record.outcome for record in records} == {"completed"}
    assert len({record.id for record in records}) == 50


def test_ipv6_literal_and_ipv6_listener(
    start: Callable[..., Proxy], passthrough_settings: Settings, origins: Callable[..., Origin]
) -> None:
    from polytls.settings import Address

    try:
        origin = origins(echo, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    proxy = start(passthrough_settings, listen={"address": Address("::1", 0)})
    with tunnel(proxy, "::1", origin.port) as connection:
        connection.sendall(b"six")
        assert connection.recv(3) == b"six"
    record = proxy.record()
    assert (record.outcome, record.host, record.upstream) == ("completed", "::1", f"[::1]:{origin.port}")
    assert record.client.startswith("[::1]:")


def test_the_second_address_is_dialled_where_the_first_refuses(
    start: Callable[..., Proxy], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(passthrough_settings, lookup=lambda host: ["127.0.0.2", "127.0.0.1"])
    with tunnel(proxy, "origin.test", plain_echo.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    assert proxy.record().upstream == f"127.0.0.1:{plain_echo.port}"


def test_refused_is_502(mitm: Proxy, passthrough: Proxy, nobody: int) -> None:
    for proxy in (mitm, passthrough):
        reply = ask(proxy, connect_head("origin.test", nobody))
        assert reply.status == 502
        assert reply.body.startswith(b"polytls: connect_refused: ")
        assert f"127.0.0.1:{nobody}" in reply.body.decode()
        record = proxy.record()
        assert (record.outcome, record.side, record.stage) == ("connect_refused", "upstream", "connect")


def test_a_connect_timeout_is_504(
    start: Callable[..., Proxy], passthrough_settings: Settings, silence: int
) -> None:
    proxy = start(passthrough_settings, timeouts={"connect": 0.2})
    reply = ask(proxy, connect_head("origin.test", silence))
    assert reply.status == 504
    assert reply.body.startswith(b"polytls: connect_timeout: ")
    assert proxy.record().outcome == "connect_timeout"


def test_a_name_that_is_not_there_is_502(start: Callable[..., Proxy], passthrough_settings: Settings) -> None:
    def lookup(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    proxy = start(passthrough_settings, lookup=lookup)
    for _ in range(2):  # the second from the cache
        reply = ask(proxy, connect_head("gone.test", 443))
        assert reply.status == 502
        assert reply.body.startswith(b"polytls: name_not_found: gone.test has no address")
        record = proxy.record()
        assert (record.outcome, record.side, record.stage) == ("name_not_found", "upstream", "connect")


def test_a_dead_resolver_is_504_and_stalls_nobody_else(
    start: Callable[..., Proxy], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    go_on = threading.Event()

    def lookup(host: str) -> list[str]:
        if host == "dead.test":
            assert go_on.wait(HANG_SECONDS)
        return ["127.0.0.1"]

    proxy = start(passthrough_settings, lookup=lookup, timeouts={"resolve": 0.3})
    replies = []
    asking = threading.Thread(target=lambda: replies.append(ask(proxy, connect_head("dead.test", 443))))
    asking.start()
    with tunnel(proxy, "alive.test", plain_echo.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    asking.join(HANG_SECONDS)
    go_on.set()
    assert replies[0].status == 504
    assert replies[0].body.startswith(b"polytls: resolve_timeout: ")
    assert {proxy.record().outcome for _ in range(2)} == {"completed", "resolve_timeout"}


def test_lab_names_are_dialled_where_the_settings_say(
    start: Callable[..., Proxy], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    target = f"127.0.0.1:{plain_echo.port}"
    mapped = start(passthrough_settings, lookup=_no_lookup, upstream={"resolve": (("*.lab.test", target),)})
    forced = start(passthrough_settings, lookup=_no_lookup, upstream={"default_upstream": target})
    for proxy in (mapped, forced):
        with tunnel(proxy, "a.lab.test", 443) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        record = proxy.record()
        assert (record.host, record.port, record.upstream) == ("a.lab.test", 443, target)


def _no_lookup(host: str) -> list[str]:
    raise AssertionError(f"{host} was looked up")


def test_an_idle_tunnel_is_closed(
    start: Callable[..., Proxy], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(passthrough_settings, timeouts={"idle": 0.2})
    with tunnel(proxy, "origin.test", plain_echo.port) as connection:
        assert read_all(connection) == b""
    record = proxy.record()
    assert (record.outcome, record.side, record.stage) == ("idle_timeout", "proxy", "relay")


def test_a_tunnel_lives_so_long_and_no_longer(
    start: Callable[..., Proxy], passthrough_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(passthrough_settings, timeouts={"lifetime": 0.2})
    ended = contextlib.suppress(OSError)  # its end may reach us in the middle of a write
    with tunnel(proxy, "origin.test", plain_echo.port) as connection, ended:
        while True:
            connection.sendall(b"x")
            if not connection.recv(1):
                break
    assert proxy.record().outcome == "lifetime"


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_whose_end_was_reset_is_on_record(passthrough: Proxy, origins: Callable[..., Origin]) -> None:
    reading = threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.recv(1)
        reading.set()
        connection.recv(1)

    by_client = origins(wait)
    with tunnel(passthrough, "origin.test", by_client.port) as connection:
        connection.sendall(b"x")
        assert reading.wait(HANG_SECONDS)
        _reset(connection)
        record = passthrough.record()
    assert (record.outcome, record.side, record.stage) == ("client_reset", "client", "relay")

    def reset_when_asked(connection: socket.socket) -> None:
        connection.recv(1)
        _reset(connection)

    by_upstream = origins(reset_when_asked)
    with tunnel(passthrough, "origin.test", by_upstream.port) as connection:
        connection.sendall(b"x")
        with contextlib.suppress(ConnectionResetError):
            read_all(connection)
        record = passthrough.record()
    assert (record.outcome, record.side, record.stage) == ("upstream_reset", "upstream", "relay")


def test_a_head_after_the_tunnel_has_begun_is_payload(passthrough: Proxy, plain_echo: Origin) -> None:
    with tunnel(passthrough, "origin.test", plain_echo.port) as connection:
        head = connect_head("other.test", 443)
        connection.sendall(head)
        assert read_head(connection) == head
    assert passthrough.record().host == "origin.test"
