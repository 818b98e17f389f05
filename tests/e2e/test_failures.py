"""The failure table (docs/architecture.md, section 6) from a real client's side.

Each row: what curl or OpenSSL is shown, and what the record says. Every origin here is wrong in one way.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.certificates import CLIENT_AUTH, Authority
from tests.peers.clients import alert_of, client_context, read_all, tls_tunnel, tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS, Record, Serve, assert_went_well
from tests.peers.tools import curl, fetch, require, run_curl, s_server

WRONG: dict[str, dict[str, Any]] = {
    "certificate_expired": {"from_days": -3, "to_days": -1},
    "certificate_not_yet_valid": {"from_days": 1, "to_days": 3},
    "certificate_self_signed": {"self_signed": True},
    "certificate_wrong_usage": {"usage": (CLIENT_AUTH,)},
}


def _assert_ended(record: Record, kind: str, side: str, stage: str) -> None:
    assert (record["outcome"], record["side"], record["stage"]) == (kind, side, stage), record
    assert record["detail"]
    assert record["bytes_up"] == record["bytes_down"] == 0


def _assert_page(proxy: Serve, host: str, port: int, kind: str) -> None:
    """curl sees a page by HTTPS, as if from the origin, that names the kind; the CONNECT itself went well."""
    shown = fetch(proxy, "--http1.1", f"https://{host}:{port}/some/page")
    assert shown.status == 502
    assert shown.body.startswith(f"polytls: {kind}: ".encode()), shown.body
    record = proxy.records(host)[0]
    _assert_ended(record, kind, "upstream", "upstream_tls")
    assert record["reply"] == 200


@pytest.mark.parametrize("kind", WRONG)
def test_a_certificate_that_is_wrong(mitm: Serve, authority: Authority, host: str, kind: str) -> None:
    certificate = authority.issue("*.lab.test", **WRONG[kind])
    with Origin(origin_context(certificate)) as origin:
        _assert_page(mitm, host, origin.port, kind)
        # curl offers h2 as well by default; it is shown the page all the same, over HTTP/1.1.
        assert fetch(mitm, "--http2", f"https://{host}:{origin.port}/").status == 502


def test_a_self_signed_certificate_that_is_no_ca(mitm: Serve, authority: Authority, host: str) -> None:
    """As Go's generate_cert makes it: OpenSSL's rules do not count it as its own issuer, people do."""
    with Origin(origin_context(authority.issue(host, self_signed=True, cert_sign=False))) as origin:
        _assert_page(mitm, host, origin.port, "certificate_self_signed")


@pytest.mark.parametrize("name", ["a_b.lab.test", "_x.lab.test"])
def test_a_name_with_an_underscore_under_a_wildcard(mitm: Serve, authority: Authority, name: str) -> None:
    """curl takes it when it asks the origin itself, though host names have no underscores."""
    with Origin(origin_context(authority.issue("*.lab.test"))) as origin:
        assert fetch(mitm, f"https://{name}:{origin.port}/").status == 200


def test_a_certificate_for_another_host(mitm: Serve, authority: Authority, host: str) -> None:
    with Origin(origin_context(authority.issue("elsewhere.test"))) as origin:
        _assert_page(mitm, host, origin.port, "certificate_wrong_host")


def test_a_certificate_of_a_root_that_is_not_trusted(mitm: Serve, host: str, tmp_path: Path) -> None:
    certificate = Authority(tmp_path, "Nobody's").issue("*.lab.test")
    with Origin(origin_context(certificate)) as origin:
        _assert_page(mitm, host, origin.port, "certificate_unknown_root")


def test_a_key_that_may_not_sign(mitm: Serve, authority: Authority, host: str) -> None:
    """In TLS 1.3 alone: in TLS 1.2 OpenSSL does not even choose such a certificate."""
    certificate = authority.issue("*.lab.test", digital_signature=False)
    with Origin(origin_context(certificate)) as origin:
        _assert_page(mitm, host, origin.port, "certificate_wrong_usage")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_old_version_for_a_profile_that_lists_none(
    serve: Callable[..., Serve], tmp_path: Path, authority: Authority, host: str, version: str
) -> None:
    """A hello of TLS 1.2 has no list of versions: it offers 1.2, and nothing below."""
    config = tmp_path / "old.toml"
    config.write_text('[profiles.twelve]\nbase = "firefox-155"\nmax_tls = "TLS1.2"\n', encoding="utf-8")
    proxy = serve("--config", str(config), "--profile", "twelve")
    certificate = authority.issue(host, use_rsa=True)
    with s_server(certificate, "-www", version, "-cipher", "ALL:@SECLEVEL=0") as port:
        _assert_page(proxy, host, port, "upstream_protocol_version")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_origin_that_is_too_old(mitm: Serve, certificate: Path, host: str, version: str) -> None:
    with s_server(certificate, "-www", version, "-cipher", "ALL:@SECLEVEL=0") as port:
        _assert_page(mitm, host, port, "upstream_protocol_version")


def test_an_origin_with_no_cipher_in_common(mitm: Serve, certificate: Path, host: str) -> None:
    with s_server(certificate, "-www", "-tls1_2", "-cipher", "ECDHE-ECDSA-CAMELLIA128-SHA256") as port:
        _assert_page(mitm, host, port, "upstream_alert")


def test_an_origin_without_tls(mitm: Serve, host: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with _tcp(answer) as port:
        _assert_page(mitm, host, port, "upstream_not_tls")


def test_an_origin_that_hangs_up(mitm: Serve, host: str) -> None:
    with _tcp(lambda connection: connection.recv(4096)) as port:
        _assert_page(mitm, host, port, "upstream_closed")


def test_an_origin_that_resets(mitm: Serve, host: str) -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with _tcp(reset) as port:
        _assert_page(mitm, host, port, "upstream_closed")


def test_a_head_request_gets_the_header_alone(mitm: Serve, authority: Authority, host: str) -> None:
    with Origin(origin_context(authority.issue("elsewhere.test"))) as origin:
        done = run_curl(mitm, "--http1.1", "--head", f"https://{host}:{origin.port}/")
    assert b"502 Bad Gateway" in done.stdout


def test_a_client_that_cannot_read_the_page_gets_an_alert(
    mitm: Serve, authority: Authority, host: str
) -> None:
    context = client_context(mitm.root_pem, alpn=("h2",))
    with Origin(origin_context(authority.issue("elsewhere.test"))) as origin:
        assert _alert(mitm, host, origin.port, context) == "sslv3 alert handshake failure"
    _assert_ended(mitm.record(host), "certificate_wrong_host", "upstream", "upstream_tls")


def test_the_lab_need_not_verify(
    serve: Callable[..., Serve], authority: Authority, host: str, tmp_path: Path
) -> None:
    lab = serve("--upstream-insecure-skip-verify")
    lab.wait_for_note("for the lab only")
    stranger = Authority(tmp_path, "Nobody's")
    certificates = [authority.issue("*.lab.test", **wrong) for wrong in WRONG.values()]
    certificates += [stranger.issue("*.lab.test"), authority.issue("elsewhere.test")]
    for count, certificate in enumerate(certificates, 1):
        with Origin(origin_context(certificate)) as origin:
            assert fetch(lab, f"https://{host}:{origin.port}/").status == 200
            assert_went_well(lab.records(host, count)[-1])


def test_the_lab_need_not_verify_the_name(
    serve: Callable[..., Serve], authority: Authority, host: str, tmp_path: Path
) -> None:
    config = tmp_path / "lab.toml"
    config.write_text("[proxy.upstream]\nverify_hostname = false\n")
    lab = serve("--config", str(config))
    with Origin(origin_context(authority.issue("elsewhere.test"))) as origin:
        assert fetch(lab, f"https://{host}:{origin.port}/").status == 200
    with Origin(origin_context(Authority(tmp_path, "Nobody's").issue(host))) as origin:
        assert fetch(lab, f"https://{host}:{origin.port}/").status == 502
    assert lab.records(host, 2)[1]["outcome"] == "certificate_unknown_root"


# The client's side of the table


def test_another_server_name_than_the_connect_host(mitm: Serve, origin: Origin, host: str) -> None:
    context = client_context(mitm.root_pem)
    assert _alert(mitm, host, origin.port, context, server_name="elsewhere.test") == "tlsv1 unrecognized name"
    record = mitm.record(host)
    _assert_ended(record, "sni_mismatch", "client", "hello")
    assert record["sni"] == "elsewhere.test"
    assert record["upstream_tls"] is None


def test_no_server_name(mitm: Serve, serve: Callable[..., Serve], origin: Origin, host: str) -> None:
    """Accepted by default, and refused with --sni require."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(mitm.root_pem)
    with tunnel(mitm, host, origin.port) as plain, context.wrap_socket(plain) as connection:
        assert ("DNS", host) in connection.getpeercert()["subjectAltName"]  # type: ignore[index]
    assert mitm.record(host)["sni"] is None
    strict = serve("--sni", "require")
    with tunnel(strict, host, origin.port) as plain, pytest.raises(ssl.SSLError) as caught:
        context.wrap_socket(plain)
    assert alert_of(caught.value) == "tlsv1 unrecognized name"
    _assert_ended(strict.record(host), "sni_missing", "client", "hello")


def test_a_client_that_does_not_trust_the_root(mitm: Serve, origin: Origin, host: str) -> None:
    done = curl("-x", mitm.url, f"https://{host}:{origin.port}/", code=60)
    assert b"certificate" in done.stderr
    record = mitm.record(host)
    _assert_ended(record, "client_rejects_leaf", "client", "client_tls")
    assert "does not trust the root CA" in record["detail"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated:DeprecationWarning")
def test_a_client_that_is_too_old(mitm: Serve, origin: Origin, host: str) -> None:
    context = client_context(mitm.root_pem, ciphers="ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    assert _alert(mitm, host, origin.port, context) == "tlsv1 alert protocol version"
    _assert_ended(mitm.record(host), "client_no_shared_parameters", "client", "client_tls")


def test_a_client_without_tls(mitm: Serve, origin: Origin, host: str) -> None:
    with tunnel(mitm, host, origin.port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection) == b""
    _assert_ended(mitm.record(host), "not_tls", "client", "hello")


# Before the tunnel is open: curl exits with 56 and tells the status


def test_nobody_listens(either: Serve, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = run_curl(either, f"https://{host}:{port}/", code=56)
    assert b"502" in done.stderr
    record = either.record(host)
    _assert_ended(record, "connect_refused", "upstream", "connect")
    assert record["reply"] == 502
    assert f"127.0.0.1:{port}" in record["detail"]


def test_a_name_that_does_not_exist(either: Serve) -> None:
    name = f"{id(either)}.polytls.invalid"  # RFC 6761 §6.4: never resolves
    done = run_curl(either, f"https://{name}/", code=56)
    assert b"502" in done.stderr or b"504" in done.stderr
    record = either.record(name)
    assert record["outcome"] in {"name_not_found", "resolve_failed", "resolve_timeout"}
    assert record["stage"] == "connect"


def test_an_unknown_profile(mitm: Serve, origin: Origin, host: str) -> None:
    wanted = "X-PolyTLS-Upstream-Profile: netscape"
    done = run_curl(mitm, "--proxy-header", wanted, f"https://{host}:{origin.port}/", code=56)
    assert b"400" in done.stderr
    record = mitm.record(host)
    _assert_ended(record, "unknown_profile", "client", "head")
    assert "firefox" in record["detail"]


def test_what_is_no_connect(either: Serve) -> None:
    done = curl("-x", either.url, "-i", "http://plain.lab.test/")
    assert done.stdout.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: CONNECT" in done.stdout
    assert b"polytls: not_connect: " in done.stdout


def test_the_proxy_goes_on_serving(mitm: Serve, origin: Origin, host: str) -> None:
    """After all of the above: nothing is left behind by a tunnel that failed."""
    assert fetch(mitm, f"https://{host}:{origin.port}/").status == 200
    assert "defect" not in mitm.notes


def _alert(
    proxy: Serve, host: str, port: int, context: ssl.SSLContext, *, server_name: str | None = None
) -> str:
    """The alert that ends the client's handshake."""
    with (
        pytest.raises(ssl.SSLError) as caught,
        tls_tunnel(proxy, host, port, context, server_name=server_name),
    ):
        pass
    return alert_of(caught.value)


@contextlib.contextmanager
def _tcp(handler: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that gives its one connection to `handler`, and closes it."""
    require("curl")  # else the one connection never comes
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG_SECONDS)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                handler(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(HANG_SECONDS)
