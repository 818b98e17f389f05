"""MITM mode on a live proxy: what the client's hello must satisfy, and what becomes of one that does not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from polytls.settings import AlpnPolicy, NonTls, Settings, SniPolicy
from tests.proxy.harness import (
    HOST,
    REQUEST,
    Origin,
    Proxy,
    alert_of,
    answer_to_hello,
    client_context,
    client_hello,
    read_all,
    tls_tunnel,
    tunnel,
)

if TYPE_CHECKING:
    from pathlib import Path


Start = Callable[..., Proxy]
Origins = Callable[..., Origin]


@pytest.mark.parametrize("sni", ["evil.test", "a.origin.test", "origin.tes"])
def test_another_server_name_is_unrecognized(mitm: Proxy, tls_echo: Origin, sni: str) -> None:
    assert alert_of(answer_to_hello(mitm, tls_echo.port, client_hello(sni))) == 112
    record = mitm.record()
    assert (record.outcome, record.side, record.stage) == ("sni_mismatch", "client", "hello")
    assert record.sni == sni
    assert record.upstream_tls is None  # nothing was sent upstream


def test_the_server_name_is_compared_without_case(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    context = client_context(root_pem)
    with tls_tunnel(mitm, "ORIGIN.test", tls_http.port, context, server_name="Origin.Test") as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    assert mitm.record().outcome == "completed"


def test_no_server_name_is_accepted_or_refused_as_the_settings_say(
    start: Start, mitm: Proxy, mitm_settings: Settings, root_pem: Path, tls_http: Origin
) -> None:
    context = client_context(root_pem)
    context.check_hostname = False
    with tunnel(mitm, HOST, tls_http.port) as connection, context.wrap_socket(connection) as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    assert mitm.record().sni is None
    strict = start(mitm_settings, mitm={"sni": SniPolicy.REQUIRE})
    assert alert_of(answer_to_hello(strict, tls_http.port, client_hello(None))) == 112
    assert strict.record().outcome == "sni_missing"


def test_nothing_in_common_is_no_application_protocol(mitm: Proxy, tls_echo: Origin) -> None:
    assert alert_of(answer_to_hello(mitm, tls_echo.port, client_hello(HOST, ("imap",)))) == 120
    record = mitm.record()
    assert (record.outcome, record.stage) == ("alpn_mismatch", "alpn")
    assert record.upstream_tls is None


def test_a_strict_profile_that_the_client_cannot_follow_fails_closed(
    start: Start, mitm_settings: Settings, root_pem: Path, tls_echo: Origin
) -> None:
    proxy = start(mitm_settings, mitm={"alpn": AlpnPolicy.STRICT})
    assert alert_of(answer_to_hello(proxy, tls_echo.port, client_hello(HOST, ("http/1.1",)))) == 120
    record = proxy.record()
    assert record.outcome == "alpn_mismatch"
    assert record.upstream_tls is not None
    assert record.upstream_tls.alpn == "h2"  # upstream was offered the whole list
    assert alert_of(answer_to_hello(proxy, tls_echo.port, client_hello(HOST))) == 120
    proxy.record()


def test_a_client_that_does_not_speak_tls_is_closed_or_reset(
    start: Start, mitm: Proxy, mitm_settings: Settings, plain_echo: Origin
) -> None:
    assert answer_to_hello(mitm, plain_echo.port, b"GET / HTTP/1.1\r\n\r\n") == b""
    record = mitm.record()
    assert (record.outcome, record.side, record.stage) == ("not_tls", "client", "hello")
    resetting = start(mitm_settings, mitm={"non_tls": NonTls.RESET})
    with pytest.raises(ConnectionResetError):
        answer_to_hello(resetting, plain_echo.port, b"GET / HTTP/1.1\r\n\r\n")
    assert resetting.record().outcome == "not_tls"


def test_a_client_that_does_not_speak_tls_is_relayed_where_the_settings_say_so(
    start: Start, mitm_settings: Settings, plain_echo: Origin, origins: Origins
) -> None:
    proxy = start(mitm_settings, mitm={"non_tls": NonTls.RELAY}, timeouts={"hello": 0.2})
    with tunnel(proxy, HOST, plain_echo.port) as connection:
        connection.sendall(b"SSH-2.0-x\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"SSH-2.0-x\r\n"
    record = proxy.record()
    assert (record.outcome, record.mode, record.bytes_up) == ("completed", "passthrough", 11)
    speaks_first = origins(lambda connection: connection.sendall(b"220 ready\r\n"))
    with tunnel(proxy, HOST, speaks_first.port) as connection:
        assert read_all(connection) == b"220 ready\r\n"
    assert proxy.record().mode == "passthrough"
    # What is TLS is still looked at, and half of a hello is no way around that.
    assert answer_to_hello(proxy, plain_echo.port, client_hello("evil.test")[:50]) == b""
    record = proxy.record()
    assert (record.outcome, record.mode) == ("hello_timeout", "mitm")
    assert alert_of(answer_to_hello(proxy, plain_echo.port, client_hello("evil.test"))) == 112
    assert proxy.record().outcome == "sni_mismatch"


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
def test_a_slow_hello_is_cut(start: Start, mitm_settings: Settings, plain_echo: Origin, begun: bytes) -> None:
    proxy = start(mitm_settings, timeouts={"hello": 0.2})
    assert answer_to_hello(proxy, plain_echo.port, begun) == b""
    record = proxy.record()
    assert (record.outcome, record.reply) == ("hello_timeout", 200)


def test_a_malformed_hello_is_closed(mitm: Proxy, plain_echo: Origin) -> None:
    hello = bytearray(client_hello(HOST))
    hello[9] = 0xFF  # the handshake message's version: not 3.x
    hello[43] = 0xFF  # the session id's length: longer than 32
    assert answer_to_hello(mitm, plain_echo.port, bytes(hello)) == b""
    assert mitm.record().outcome == "hello_malformed"


def test_a_hello_that_is_too_large_is_closed(mitm: Proxy, plain_echo: Origin) -> None:
    length = 0xFFFFFF
    record = b"\x16\x03\x01\x40\x00" + b"\x01" + length.to_bytes(3, "big") + b"\x00" * (0x4000 - 4)
    with tunnel(mitm, HOST, plain_echo.port) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(record * 8)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection) == b""
    assert mitm.record().outcome == "hello_too_large"


def test_a_client_that_leaves_before_its_hello(mitm: Proxy, plain_echo: Origin) -> None:
    with tunnel(mitm, HOST, plain_echo.port):
        pass
    record = mitm.record()
    assert (record.outcome, record.side) == ("client_closed", "client")
