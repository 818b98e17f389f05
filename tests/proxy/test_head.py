"""The request head, on a live proxy: what is refused and how, the limits, and bytes that come early."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polytls.wire.connect import MAX_HEAD_BYTES, MAX_HEADERS
from tests.proxy.harness import (
    Origin,
    Proxy,
    ask,
    connect_head,
    dial,
    read_all,
    read_head,
    read_reply,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytls.settings import Settings


@pytest.mark.parametrize(
    ("head", "status", "kind"),
    [
        (b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 405, "not_connect"),
        (b"CONNECT example.com HTTP/1.1\r\n\r\n", 400, "bad_authority"),
        (b"CONNECT example.com:0 HTTP/1.1\r\n\r\n", 400, "bad_authority"),
        (b"CONNECT ::1:443 HTTP/1.1\r\n\r\n", 400, "bad_authority"),
        (b"CONNECT  example.com:443 HTTP/1.1\r\n\r\n", 400, "malformed_head"),
        (b"CONNECT example.com:443 HTTP/1.1\nHost: x\n\n", 400, "malformed_head"),
        (b"CONNECT example.com:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_head"),
        (
            b"CONNECT example.com:443 HTTP/1.1\r\nX-PolyTLS-Upstream-Profile: nope\r\n\r\n",
            400,
            "unknown_profile",
        ),
    ],
)
def test_a_head_that_will_not_do_is_told_why(
    mitm: Proxy, passthrough: Proxy, head: bytes, status: int, kind: str
) -> None:
    for proxy in (mitm, passthrough):
        reply = ask(proxy, head)
        assert reply.status == status
        assert reply.body.startswith(f"polytls: {kind}: ".encode())
        assert reply.headers["Connection"] == "close"
        record = proxy.record()
        assert (record.outcome, record.side, record.stage) == (kind, "client", "head")
        assert record.reply == status
        assert record.timings.head is not None
        assert record.timings.total is not None


def test_what_is_allowed_is_said(mitm: Proxy) -> None:
    assert ask(mitm, b"GET / HTTP/1.1\r\n\r\n").headers["Allow"] == "CONNECT"
    mitm.record()
    reply = ask(mitm, b"CONNECT a.test:1 HTTP/1.1\r\nX-PolyTLS-Upstream-Profile: nope\r\n\r\n")
    for name in ("chrome", "firefox", "safari"):
        assert name in reply.body.decode()
    mitm.record()


def _head_of(size: int, port: int) -> bytes:
    head = connect_head("origin.test", port, "X-Filler: ")
    return head.replace(b"X-Filler: ", b"X-Filler: " + b"x" * (size - len(head)))


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_head_may_be_16_kib(passthrough: Proxy, plain_echo: Origin, over: int) -> None:
    head = _head_of(MAX_HEAD_BYTES + over, plain_echo.port)
    assert len(head) == MAX_HEAD_BYTES + over
    with dial(passthrough) as connection:
        connection.sendall(head)
        if over <= 0:
            assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        else:
            reply = read_reply(connection)
            assert reply.status == 431
            assert reply.body.startswith(b"polytls: head_too_large: ")
    assert passthrough.record().outcome == ("completed" if over <= 0 else "head_too_large")


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_head_may_have_64_fields(passthrough: Proxy, plain_echo: Origin, over: int) -> None:
    fields = [f"X-{number}: y" for number in range(MAX_HEADERS - 1 + over)]  # and Host
    with dial(passthrough) as connection:
        connection.sendall(connect_head("origin.test", plain_echo.port, *fields))
        if over <= 0:
            assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        else:
            reply = read_reply(connection)
            assert reply.status == 431
            assert reply.body.startswith(b"polytls: too_many_headers: ")
    assert passthrough.record().outcome == ("completed" if over <= 0 else "too_many_headers")


@pytest.mark.parametrize("begun", [b"", b"CONNECT origin.test:443 HT"])
def test_a_slow_head_is_cut(
    start: Callable[..., Proxy], passthrough_settings: Settings, begun: bytes
) -> None:
    proxy = start(passthrough_settings, timeouts={"head": 0.2})
    reply = ask(proxy, begun)
    assert reply.status == 408
    assert reply.body.startswith(b"polytls: head_timeout: ")
    assert proxy.record().outcome == "head_timeout"


def test_a_client_that_leaves_before_its_head_is_whole_is_on_record(passthrough: Proxy) -> None:
    with dial(passthrough) as connection:
        connection.sendall(b"CONNECT ")
    record = passthrough.record()
    assert (record.outcome, record.reply, record.host) == ("head_closed", None, None)


def test_a_connection_without_a_byte_is_a_health_check(
    start: Callable[..., Proxy], passthrough_settings: Settings
) -> None:
    proxy = start(passthrough_settings)
    for _ in range(2):
        dial(proxy).close()
    rude = dial(proxy)
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.close()
    ask(proxy, b"GET / HTTP/1.1\r\n\r\n")
    assert proxy.record().outcome == "not_connect"
    proxy.stop()
    assert proxy.no_more_records()
    server = proxy.app.server
    assert server is not None
    assert server.tracker.unspoken == 3
    assert server.tracker.outcomes == {"not_connect": 1}


def test_bytes_that_come_with_the_head_are_the_tunnels(passthrough: Proxy, plain_echo: Origin) -> None:
    early = bytes(range(256)) * 100
    with dial(passthrough) as connection:
        connection.sendall(connect_head("origin.test", plain_echo.port) + early)
        connection.shutdown(socket.SHUT_WR)
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        assert read_all(connection) == early
    record = passthrough.record()
    assert (record.outcome, record.bytes_up, record.bytes_down) == ("completed", len(early), len(early))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_head_may_come_in_pieces(passthrough: Proxy, plain_echo: Origin, size: int) -> None:
    head = connect_head("origin.test", plain_echo.port)
    with dial(passthrough) as connection:
        for at in range(0, len(head), size):
            connection.sendall(head[at : at + size])
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
    assert passthrough.record().outcome == "completed"


_OUTCOMES = {
    "completed",
    "head_closed",
    "not_connect",
    "malformed_head",
    "bad_authority",
    "unknown_profile",
    "too_many_headers",
    "connect_refused",
    "connect_unreachable",
    "client_reset",
    "upstream_reset",
}


@st.composite
def mutated_heads(draw: st.DrawFn) -> bytes:
    """A good head with some bytes changed, removed, doubled or inserted. Nobody listens on its port."""
    head = bytearray(connect_head("origin.test", 1, "X-PolyTLS-Upstream-Profile: chrome", "Cookie: a=b"))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(head) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                head[at] = draw(st.integers(0, 255))
            case 1:
                del head[at : at + draw(st.integers(1, 9))]
            case 2:
                head[at:at] = draw(st.binary(min_size=1, max_size=9))
            case _:
                head[at:at] = head[at : at + draw(st.integers(1, 40))]
        if not head:
            break
    return bytes(head)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=mutated_heads(), whole=st.booleans())
def test_any_head_is_parsed_or_refused_and_the_server_goes_on(
    passthrough: Proxy, plain_echo: Origin, head: bytes, whole: bool
) -> None:
    with dial(passthrough) as connection:
        try:
            for at in range(0, len(head), len(head) if whole else 1) if head else ():
                connection.sendall(head[at : at + len(head)] if whole else head[at : at + 1])
            connection.shutdown(socket.SHUT_WR)
            answer = read_all(connection)
        except (BrokenPipeError, ConnectionResetError, OSError):
            answer = None  # it answered and left while we were still talking
    if head:
        record = passthrough.record()
        assert record.outcome in _OUTCOMES, record
        if answer and record.reply not in (None, 200):
            assert answer.startswith(f"HTTP/1.1 {record.reply} ".encode())
            assert f"polytls: {record.outcome}: ".encode() in answer
    with tunnel(passthrough, "origin.test", plain_echo.port) as other:
        other.sendall(b"still here")
        assert other.recv(10) == b"still here"
    assert passthrough.record().outcome == "completed"
