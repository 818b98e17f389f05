"""A tunnel that is set off whole, for the hello its client sent the last time: what is gained, and that no
decision is ever applied to another hello. That a rule for ECH holds for every tunnel of a client, also those
after the first: tests/e2e/test_ech.py."""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from polytls.errors import Stage
from polytls.events import Timings
from polytls.settings import NonTls, Settings, SniPolicy
from tests.proxy.harness import (
    HANG_SECONDS,
    HOST,
    REQUEST,
    Origin,
    Proxy,
    alert_of,
    answer_to,
    answer_to_hello,
    client_context,
    client_hello,
    connect_head,
    dial,
    hello_http,
    read_all,
    read_head,
    server_context,
    tls_tunnel,
    tunnel,
)

if TYPE_CHECKING:
    from pathlib import Path

    from polytls.events import TunnelRecord

Start = Callable[..., Proxy]
Origins = Callable[..., Origin]


@pytest.fixture
def proxy(start: Start, mitm_settings: Settings, root_pem: Path, tls_http: Origin) -> Proxy:
    """One whose clients have sent h2 and http/1.1, and the right name, so far."""
    proxy = start(mitm_settings)
    assert answer_to(proxy, root_pem, tls_http.port, alpn=("h2", "http/1.1")).endswith(b"hi\n")
    assert proxy.record().outcome == "completed"
    return proxy


class Holding:
    """An origin that reads nothing until it is told to, and says whether it was sent anything."""

    def __init__(self, origins: Origins, context: ssl.SSLContext) -> None:
        self.arrived: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._go_on: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._context = context
        self.port = origins(self._handle).port

    def _handle(self, connection: socket.socket) -> None:
        self.arrived.put(connection)
        self._go_on.get(timeout=HANG_SECONDS)
        with self._context.wrap_socket(connection, server_side=True) as tls:
            hello_http(tls)

    def wait(self) -> socket.socket:
        """Until a connection is there, and bytes on it."""
        connection = self.arrived.get(timeout=HANG_SECONDS)
        connection.recv(1, socket.MSG_PEEK)
        return connection

    def go_on(self) -> None:
        self._go_on.put(None)


@pytest.fixture
def holding(origins: Origins, certificate: Path) -> Iterator[Holding]:
    held = Holding(origins, server_context(certificate))
    yield held
    held.go_on()


def _tasks(proxy: Proxy) -> list[bool]:
    """Of every live tunnel: is there a task that leads it?"""
    server = proxy.app.server
    assert server is not None
    return proxy.call(lambda: [task is not None for task in server.tracker.live.values()])


@pytest.mark.parametrize(
    ("fields", "whole"),
    [((), True), (("User-Agent: another",), False), (("X-PolyTLS-Upstream-Profile: mirror",), False)],
)
def test_the_second_tunnel_of_a_client_needs_no_task(
    proxy: Proxy, root_pem: Path, holding: Holding, fields: tuple[str, ...], whole: bool
) -> None:
    context = client_context(root_pem, ("h2", "http/1.1"))
    with tunnel(proxy, HOST, holding.port, *fields) as connection:
        connection.sendall(client_hello(HOST, ("h2", "http/1.1")))
        holding.wait()  # upstream's handshake is under way
        assert _tasks(proxy) == [not whole]
        connection.close()
    holding.go_on()
    proxy.record()
    with tls_tunnel(proxy, HOST, _after(holding), context, *fields) as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    assert proxy.record().outcome == "completed"


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02"])
def test_a_hello_that_does_not_come_is_relayed_only_if_it_has_not_begun(
    start: Start, mitm_settings: Settings, root_pem: Path, tls_http: Origin, plain_echo: Origin, begun: bytes
) -> None:
    proxy = start(mitm_settings, mitm={"non_tls": NonTls.RELAY}, timeouts={"hello": 0.2})
    assert answer_to(proxy, root_pem, tls_http.port).endswith(b"hi\n")
    assert proxy.record().mode == "mitm"
    with tunnel(proxy, HOST, plain_echo.port) as connection:
        connection.sendall(begun)
        if begun:
            assert read_all(connection) == b""
        else:
            server = proxy.app.server
            assert server is not None
            while proxy.call(lambda: [one.stage for one in server.tracker.live]) != [Stage.RELAY]:
                pass
            connection.sendall(b"late")
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b"late"
    record = proxy.record()
    assert (record.outcome, record.mode) == (
        ("hello_timeout", "mitm") if begun else ("completed", "passthrough")
    )


def _after(holding: Holding) -> int:
    holding.go_on()
    return holding.port


@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2",), ("http/1.1", "h2")])
def test_other_protocols_than_the_last_time(
    proxy: Proxy, root_pem: Path, origins: Origins, certificate: Path, offered: tuple[str, ...]
) -> None:
    origin = origins(hello_http, server_context(certificate, alpn=("http/1.1", "h2")))
    agreed = {(): None, ("h2",): "h2"}.get(offered, "http/1.1")
    for again in (offered, offered, ("h2", "http/1.1"), offered):
        assert answer_to(proxy, root_pem, origin.port, alpn=again).endswith(b"hi\n")
        record = proxy.record()
        assert record.outcome == "completed"
        assert record.client_tls is not None
        assert record.upstream_tls is not None
        if again == offered:
            assert record.client_tls.alpn == agreed
            assert record.upstream_tls.alpn == (agreed or "http/1.1")


@pytest.mark.parametrize("sni", ["evil.test", "origin.tes", "origin.test.evil.test"])
def test_another_name_than_the_hosts_is_refused_all_the_same(
    proxy: Proxy, root_pem: Path, tls_http: Origin, sni: str
) -> None:
    for _ in range(2):  # a hello that was refused is no habit
        refused = answer_to_hello(proxy, tls_http.port, client_hello(sni, ("h2", "http/1.1")))
        assert alert_of(refused) == 112
        record = proxy.record()
        assert (record.outcome, record.stage, record.sni) == ("sni_mismatch", "hello", sni)
        assert record.upstream_tls is None  # nothing was sent upstream
    assert answer_to(proxy, root_pem, tls_http.port, alpn=("h2", "http/1.1")).endswith(b"hi\n")
    assert proxy.record().sni == HOST


def test_no_name_where_there_always_was_one(
    start: Start, mitm_settings: Settings, root_pem: Path, tls_http: Origin
) -> None:
    proxy = start(mitm_settings, mitm={"sni": SniPolicy.REQUIRE})
    assert answer_to(proxy, root_pem, tls_http.port).endswith(b"hi\n")
    assert proxy.record().outcome == "completed"
    assert alert_of(answer_to_hello(proxy, tls_http.port, client_hello(None))) == 112
    assert proxy.record().outcome == "sni_missing"


def test_a_client_that_cannot_use_the_leaf_of_the_last_time(
    proxy: Proxy, root_pem: Path, tls_http: Origin
) -> None:
    keys = []
    for ciphers in (None, "ECDHE-RSA-AES128-GCM-SHA256", None):
        context = client_context(root_pem, ("h2", "http/1.1"))
        if ciphers is not None:
            context.set_ciphers(ciphers)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        with tls_tunnel(proxy, HOST, tls_http.port, context) as tls:
            der = tls.getpeercert(binary_form=True)
            tls.sendall(REQUEST)
            assert read_all(tls).endswith(b"hi\n")
        assert der is not None
        keys.append(isinstance(x509.load_der_x509_certificate(der).public_key(), rsa.RSAPublicKey))
        assert proxy.record().outcome == "completed"
    assert keys == [False, True, False]


def test_bytes_that_are_no_tls_are_relayed_where_the_settings_say_so(
    start: Start, mitm_settings: Settings, root_pem: Path, tls_http: Origin, plain_echo: Origin
) -> None:
    proxy = start(mitm_settings, mitm={"non_tls": NonTls.RELAY})
    assert answer_to(proxy, root_pem, tls_http.port).endswith(b"hi\n")
    assert proxy.record().mode == "mitm"
    with tunnel(proxy, HOST, plain_echo.port) as connection:
        connection.sendall(b"EHLO, whoever that is\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"EHLO, whoever that is\r\n"
    record = proxy.record()
    assert (record.outcome, record.mode) == ("completed", "passthrough")


def test_the_record_of_either_way_has_the_same(proxy: Proxy, root_pem: Path, tls_http: Origin) -> None:
    records: list[TunnelRecord] = []
    for fields in ((), ("User-Agent: never seen",)):  # at once; step by step
        context = client_context(root_pem, ("h2", "http/1.1"))
        with tls_tunnel(proxy, HOST, tls_http.port, context, *fields) as tls:
            tls.sendall(REQUEST)
            assert read_all(tls).endswith(b"hi\n")
        records.append(proxy.record())
    one, other = records
    for name in (
        "outcome",
        "mode",
        "profile",
        "host",
        "port",
        "sni",
        "reply",
        "ech",
        "client_tls",
        "upstream_tls",
    ):
        assert getattr(one, name) == getattr(other, name)
    took = [
        {name for name in Timings.__slots__ if getattr(record.timings, name) is not None}
        for record in records
    ]
    assert took[0] == took[1]


def test_a_drain_ends_what_was_set_off(proxy: Proxy, holding: Holding) -> None:
    with tunnel(proxy, HOST, holding.port) as connection:
        connection.sendall(client_hello(HOST, ("h2", "http/1.1")))
        holding.wait()
        assert _tasks(proxy) == [False]
        proxy.stop()
        assert read_all(connection) in (b"", b"\x15\x03\x03\x00\x02\x02\x50")
    record = proxy.record()
    assert (record.outcome, record.stage) == ("drained", "upstream_tls")


def test_a_client_that_leaves_before_its_hello(proxy: Proxy, plain_echo: Origin) -> None:
    with dial(proxy) as connection:
        connection.sendall(connect_head(HOST, plain_echo.port))
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
    record = proxy.record()
    assert (record.outcome, record.side, record.stage) == ("client_closed", "client", "hello")
