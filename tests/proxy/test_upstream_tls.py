"""MITM mode on a live proxy: what can go wrong with upstream's handshake, and the page that says why."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.proxy.harness import (
    HOST,
    Origin,
    OriginCA,
    Proxy,
    alert_of,
    answer_to,
    answer_to_hello,
    client_context,
    client_hello,
    echo,
    hello_http,
    read_all,
    server_context,
    tunnel,
)

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from polytls.events import TunnelRecord
    from polytls.settings import Settings

Start = Callable[..., Proxy]
Origins = Callable[..., Origin]


def _assert_page(proxy: Proxy, root_pem: Path, port: int, kind: str, *, host: str = HOST) -> TunnelRecord:
    """A client that speaks HTTP/1.1 is told why in a page; one that does not, by an alert."""
    for offered in ((), ("h2", "http/1.1")):
        answer = answer_to(proxy, root_pem, port, host=host, alpn=offered)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in head
        assert b"\r\nConnection: close" in head
        assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
        assert body.startswith(f"polytls: {kind}: ".encode())
        record = proxy.record()
        assert (record.outcome, record.side, record.stage) == (kind, "upstream", "upstream_tls")
        assert record.detail is not None
        assert record.detail in body.decode()
        assert record.client_tls is not None
    assert alert_of(answer_to_hello(proxy, port, client_hello(host, ("h2",)), host=host)) == 40
    record = proxy.record()
    assert record.outcome == kind
    return record


def test_an_expired_certificate(mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins) -> None:
    expired = origins(echo, server_context(origin_ca.issue(HOST, from_days=-2, to_days=-1)))
    _assert_page(mitm, root_pem, expired.port, "certificate_expired")


def test_a_certificate_from_the_future(
    mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins
) -> None:
    early = origins(echo, server_context(origin_ca.issue(HOST, from_days=1, to_days=2)))
    _assert_page(mitm, root_pem, early.port, "certificate_not_yet_valid")


def test_a_self_signed_certificate(
    mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins
) -> None:
    own = origins(echo, server_context(origin_ca.issue(HOST, self_signed=True)))
    _assert_page(mitm, root_pem, own.port, "certificate_self_signed")


def test_an_unknown_root(mitm: Proxy, root_pem: Path, tmp_path: Path, origins: Origins) -> None:
    other = OriginCA(tmp_path, "Some other CA")
    unknown = origins(echo, server_context(other.issue(HOST)))
    _assert_page(mitm, root_pem, unknown.port, "certificate_unknown_root")


def test_a_certificate_for_another_host(
    mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins
) -> None:
    other = origins(echo, server_context(origin_ca.issue("other.test")))
    _assert_page(mitm, root_pem, other.port, "certificate_wrong_host")


def test_a_certificate_for_clients(
    mitm: Proxy, root_pem: Path, origin_ca: OriginCA, origins: Origins
) -> None:
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    wrong = origins(echo, server_context(origin_ca.issue(HOST, usage=usage)))
    _assert_page(mitm, root_pem, wrong.port, "certificate_wrong_usage")


def test_verification_can_be_switched_off_for_the_lab(
    start: Start, mitm_settings: Settings, root_pem: Path, tmp_path: Path, origins: Origins
) -> None:
    other = OriginCA(tmp_path, "Some other CA")
    unknown = origins(hello_http, server_context(other.issue("other.test")))
    proxy = start(mitm_settings, upstream={"insecure_skip_verify": True})
    assert answer_to(proxy, root_pem, unknown.port).endswith(b"hi\n")
    assert proxy.record().outcome == "completed"


def test_host_names_can_be_left_unverified_for_the_lab(
    start: Start,
    mitm_settings: Settings,
    root_pem: Path,
    origin_ca: OriginCA,
    tmp_path: Path,
    origins: Origins,
) -> None:
    proxy = start(mitm_settings, upstream={"verify_hostname": False})
    other_host = origins(hello_http, server_context(origin_ca.issue("other.test")))
    assert answer_to(proxy, root_pem, other_host.port).endswith(b"hi\n")
    assert proxy.record().outcome == "completed"
    unknown = origins(echo, server_context(OriginCA(tmp_path, "Some other CA").issue(HOST)))
    _assert_page(proxy, root_pem, unknown.port, "certificate_unknown_root")


def _alert(number: int) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02" + bytes((number,)))
        read_all(connection)

    return send


def test_upstreams_alert(mitm: Proxy, root_pem: Path, origins: Origins) -> None:
    _assert_page(mitm, root_pem, origins(_alert(40)).port, "upstream_alert")


def test_an_origin_too_old(mitm: Proxy, root_pem: Path, origins: Origins) -> None:
    _assert_page(mitm, root_pem, origins(_alert(70)).port, "upstream_protocol_version")


def test_an_origin_without_tls(mitm: Proxy, root_pem: Path, origins: Origins) -> None:
    def plain_http(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        read_all(connection)

    _assert_page(mitm, root_pem, origins(plain_http).port, "upstream_not_tls")


def test_an_origin_that_hangs_up(mitm: Proxy, root_pem: Path, origins: Origins) -> None:
    _assert_page(mitm, root_pem, origins(lambda connection: connection.recv(65536)).port, "upstream_closed")


def test_an_origin_that_does_not_answer(
    start: Start, mitm_settings: Settings, root_pem: Path, origins: Origins
) -> None:
    silent = origins(read_all)
    proxy = start(mitm_settings, timeouts={"handshake": 0.3})
    _assert_page(proxy, root_pem, silent.port, "upstream_handshake_timeout")


def test_the_page_for_a_head_request(mitm: Proxy, root_pem: Path, origins: Origins) -> None:
    origin = origins(_alert(40))
    answer = answer_to(mitm, root_pem, origin.port, ask=b"HEAD / HTTP/1.1\r\nHost: origin.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: " in answer
    mitm.record()


def test_a_client_that_does_not_want_the_page_changes_nothing(
    mitm: Proxy, origins: Origins, origin_ca: OriginCA
) -> None:
    origin = origins(_alert(40))
    with tunnel(mitm, HOST, origin.port) as connection, pytest.raises(ssl.SSLError):
        client_context(origin_ca.pem).wrap_socket(connection, server_hostname=HOST)
    assert mitm.record().outcome == "upstream_alert"
