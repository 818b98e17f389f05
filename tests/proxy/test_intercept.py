"""MITM mode on a live proxy: both handshakes, the relay, and clients that do not like the leaf."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from polytls.settings import LeafKey, Settings
from tests.proxy.harness import (
    HANG_SECONDS,
    HOST,
    REQUEST,
    Origin,
    OriginCA,
    Proxy,
    answer_to,
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


Start = Callable[..., Proxy]
Origins = Callable[..., Origin]


# When all is well


@pytest.mark.parametrize(
    ("offered", "agreed"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), (("h2",), "h2")]
)
def test_both_sides_agree_on_one_protocol(
    mitm: Proxy, root_pem: Path, tls_echo: Origin, offered: tuple[str, ...], agreed: str
) -> None:
    data = os.urandom(1_000_003)
    with tls_tunnel(mitm, HOST, tls_echo.port, client_context(root_pem, offered)) as tls:
        assert tls.selected_alpn_protocol() == agreed
        assert tls.version() == "TLSv1.3"
        sender = threading.Thread(target=tls.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += tls.recv(65536)
        sender.join()
        with contextlib.suppress(ssl.SSLError, OSError):
            tls.unwrap()
    assert received == data
    record = mitm.record()
    assert (record.outcome, record.truncated) == ("completed", False)
    assert (record.bytes_up, record.bytes_down) == (len(data), len(data))
    assert (record.mode, record.profile, record.sni) == ("mitm", "chrome-152", HOST)
    for side in (record.client_tls, record.upstream_tls):
        assert side is not None
        assert (side.version, side.alpn) == ("TLS1.3", agreed)
        assert side.cipher.startswith("TLS_")
        assert not side.group.startswith("0x")
    timings = record.timings
    for step in (timings.hello, timings.upstream_handshake, timings.client_handshake, timings.relay):
        assert step is not None


def test_without_alpn_both_sides_speak_http11(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    for offered in ((), ("http/1.1",), ("h2", "http/1.1")):
        assert answer_to(mitm, root_pem, tls_http.port, alpn=offered).endswith(b"hi\n")
        record = mitm.record()
        assert record.outcome == "completed"
        assert record.client_tls is not None
        assert record.upstream_tls is not None
        assert record.client_tls.alpn == ("http/1.1" if offered else None)
        assert record.upstream_tls.alpn is None


def test_mirror_is_found_in_any_case(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    field = "X-PolyTLS-Upstream-Profile: Mirror"
    with tls_tunnel(mitm, HOST, tls_http.port, client_context(root_pem), field) as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    assert mitm.record().profile == "mirror"


def test_the_profile_is_the_headers_choice(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    field = "X-PolyTLS-Upstream-Profile: Firefox"
    with tls_tunnel(mitm, HOST, tls_http.port, client_context(root_pem), field) as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    assert mitm.record().profile == "firefox-155"


def test_a_hello_in_the_same_packet_as_the_head(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(root_pem).wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    with dial(mitm) as connection:
        connection.sendall(connect_head(HOST, tls_http.port) + outgoing.read())
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
                break
            incoming.write(connection.recv(65536))
        session.write(REQUEST)
        connection.sendall(outgoing.read())
        answer = b""
        while not answer.endswith(b"hi\n"):
            with contextlib.suppress(ssl.SSLWantReadError):
                answer += session.read(65536)
                continue
            incoming.write(connection.recv(65536))
    assert mitm.record().outcome == "completed"


def test_a_hello_byte_by_byte(mitm: Proxy, root_pem: Path, tls_http: Origin) -> None:
    with tunnel(mitm, HOST, tls_http.port) as connection:
        hello = client_hello(HOST)
        for at in range(len(hello)):
            connection.sendall(hello[at : at + 1])
        assert connection.recv(1) == b"\x16"
    assert mitm.record().outcome in ("client_rejects_leaf", "client_closed")


def test_an_address_is_a_host_too(mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins) -> None:
    origin = origins(hello_http, server_context(origin_ca.issue("127.0.0.1")))
    assert answer_to(mitm, root_pem, origin.port, host="127.0.0.1").endswith(b"hi\n")
    record = mitm.record()
    assert (record.outcome, record.sni, record.host) == ("completed", None, "127.0.0.1")


def test_tls12_on_either_side(
    mitm: Proxy, root_pem: Path, certificate: Path, origins: Origins, tls_http: Origin
) -> None:
    old = origins(hello_http, server_context(certificate, maximum=ssl.TLSVersion.TLSv1_2))
    assert answer_to(mitm, root_pem, old.port).endswith(b"hi\n")
    record = mitm.record()
    assert record.upstream_tls is not None
    assert record.client_tls is not None
    assert (record.client_tls.version, record.upstream_tls.version) == ("TLS1.3", "TLS1.2")
    context = client_context(root_pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_tunnel(mitm, HOST, tls_http.port, context) as tls:
        tls.sendall(REQUEST)
        assert read_all(tls).endswith(b"hi\n")
    record = mitm.record()
    assert record.client_tls is not None
    assert record.client_tls.version == "TLS1.2"


def _key_of_leaf(proxy: Proxy, root_pem: Path, port: int, ciphers: str | None) -> str:
    context = client_context(root_pem)
    if ciphers is not None:  # an RSA-only client, as far as Python lets one be
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    with tls_tunnel(proxy, HOST, port, context) as tls:
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        tls.sendall(REQUEST)
        read_all(tls)
    assert proxy.record().outcome == "completed"
    key = x509.load_der_x509_certificate(der).public_key()
    return "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA"


def test_the_leafs_key_suits_the_client(
    start: Start, mitm_settings: Settings, mitm: Proxy, root_pem: Path, tls_http: Origin
) -> None:
    assert _key_of_leaf(mitm, root_pem, tls_http.port, None) == "ECDSA"
    assert _key_of_leaf(mitm, root_pem, tls_http.port, "ECDHE-RSA-AES128-GCM-SHA256") == "RSA"
    forced = start(mitm_settings, certificate={"leaf_key": LeafKey.RSA})
    assert _key_of_leaf(forced, root_pem, tls_http.port, None) == "RSA"


# The client's handshake


def test_a_client_that_does_not_trust_the_root(mitm: Proxy, tls_http: Origin, origin_ca: OriginCA) -> None:
    with tunnel(mitm, HOST, tls_http.port) as connection, pytest.raises(ssl.SSLCertVerificationError):
        client_context(origin_ca.pem).wrap_socket(connection, server_hostname=HOST)
    record = mitm.record()
    assert (record.outcome, record.side, record.stage) == ("client_rejects_leaf", "client", "client_tls")
    assert record.detail is not None
    assert "the client does not trust the root CA" in record.detail
    assert record.upstream_tls is not None
    assert record.client_tls is None


def test_a_client_that_hangs_up_on_the_certificate(mitm: Proxy, tls_http: Origin) -> None:
    with tunnel(mitm, HOST, tls_http.port) as connection:
        connection.sendall(client_hello(HOST))
        assert connection.recv(5)[0] == 22
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    assert mitm.record().outcome == "client_rejects_leaf"


def test_a_client_that_stops_in_its_handshake(
    start: Start, mitm_settings: Settings, tls_http: Origin
) -> None:
    proxy = start(mitm_settings, timeouts={"handshake": 0.4})
    with tunnel(proxy, HOST, tls_http.port) as connection:
        connection.sendall(client_hello(HOST))
        read_all(connection)
    assert proxy.record().outcome == "client_handshake_timeout"


# The relay


def test_whose_tls_ended_without_saying_so(
    mitm: Proxy, root_pem: Path, certificate: Path, origins: Origins
) -> None:
    def cut(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")  # and closes without close_notify

    origin = origins(cut, server_context(certificate))
    assert answer_to(mitm, root_pem, origin.port).endswith(b"half")
    record = mitm.record()
    assert (record.outcome, record.truncated) == ("completed", True)


def test_leaves_are_minted_once_and_accounted_for(
    start: Start, mitm_settings: Settings, root_pem: Path, tls_http: Origin
) -> None:
    proxy = start(mitm_settings)
    done = threading.Barrier(9)

    def client() -> None:
        answer_to(proxy, root_pem, tls_http.port)
        done.wait(HANG_SECONDS)

    for _ in range(8):
        threading.Thread(target=client, daemon=True).start()
    done.wait(HANG_SECONDS)
    for _ in range(8):
        assert proxy.record().outcome == "completed"
    assert [note for note in proxy.reports if note.startswith("leaf for origin.test (ecdsa), serial ")]
    assert len(proxy.reports) == 1
