"""The certificates that clients are shown, judged by OpenSSL, and what they can be agreed on with."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.peers.clients import client_context, read_all, read_head, tls_tunnel, tunnel
from tests.peers.origin import Origin, Seen, end_in_order, origin_context
from tests.peers.serve import HANG_SECONDS, Serve, assert_went_well
from tests.peers.tools import fetch, require

if TYPE_CHECKING:
    from tests.peers.certificates import Authority

ROOT_BITS = 2048


def _leaf(proxy: Serve, host: str, port: int, context: ssl.SSLContext) -> x509.Certificate:
    with tls_tunnel(proxy, host, port, context) as connection:
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


@pytest.mark.parametrize("literal", [False, True])
def test_openssl_accepts_the_leaf_strictly(
    mitm: Serve, origin: Origin, host: str, tmp_path: Path, literal: bool
) -> None:
    name = "127.0.0.1" if literal else host
    leaf = _leaf(mitm, name, origin.port, client_context(mitm.root_pem))
    pem = tmp_path / "leaf.pem"
    pem.write_text(ssl.DER_cert_to_PEM_cert(leaf.public_bytes(Encoding.DER)))
    named = ["-verify_ip", name] if literal else ["-verify_hostname", name]
    done = subprocess.run(
        [
            require("openssl"),
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-CAfile",
            str(mitm.root_pem),
            *named,
            str(pem),
        ],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    root = x509.load_pem_x509_certificate(mitm.root_pem.read_bytes())
    assert leaf.not_valid_after_utc <= root.not_valid_after_utc
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 397
    key = root.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == ROOT_BITS


def test_one_leaf_for_one_host_however_many_ask_at_once(mitm: Serve, origin: Origin, host: str) -> None:
    serials: set[int] = set()
    context = client_context(mitm.root_pem)

    def ask() -> None:
        serials.add(_leaf(mitm, host, origin.port, context).serial_number)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert len(serials) == 1
    mitm.records(host, 16)
    mitm.wait_for_note(f"leaf for {host} ")
    assert mitm.notes.count(f"leaf for {host} ") == 1


@pytest.mark.parametrize(
    ("ciphers", "kind"),
    [("ECDHE-RSA-AES128-GCM-SHA256", rsa.RSAPublicKey), ("ECDHE+AESGCM", ec.EllipticCurvePublicKey)],
)
def test_a_client_that_knows_rsa_alone_gets_rsa(
    mitm: Serve, origin: Origin, host: str, ciphers: str, kind: type[object]
) -> None:
    context = client_context(mitm.root_pem, maximum=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)
    assert isinstance(_leaf(mitm, host, origin.port, context).public_key(), kind)
    record = mitm.record(host)
    assert record["client_tls"]["version"] == "TLS1.2"
    assert record["upstream_tls"]["version"] == "TLS1.3"


@pytest.mark.parametrize("profile", ["default", "chrome", "firefox", "safari"])
@pytest.mark.parametrize(
    ("client", "upstream"),
    [
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2),
    ],
)
def test_tls_versions_of_the_two_sides_are_independent(
    mitm: Serve,
    certificate: Path,
    host: str,
    profile: str,
    client: ssl.TLSVersion,
    upstream: ssl.TLSVersion,
) -> None:
    def handler(connection: ssl.SSLSocket, _seen: Seen) -> None:
        connection.sendall(read_head(connection))
        end_in_order(connection)

    wanted = f"X-PolyTLS-Upstream-Profile: {profile}"
    context = client_context(mitm.root_pem, maximum=client)
    with (
        Origin(origin_context(certificate, alpn=(), maximum=upstream), handler) as origin,
        tls_tunnel(mitm, host, origin.port, context, wanted) as connection,
    ):
        connection.sendall(b"hello\r\n\r\n")
        assert read_all(connection) == b"hello\r\n\r\n"
        connection.unwrap()
    record = mitm.record(host)
    assert_went_well(record)
    name = {ssl.TLSVersion.TLSv1_2: "TLS1.2", ssl.TLSVersion.TLSv1_3: "TLS1.3"}
    assert record["client_tls"]["version"] == name[client]
    assert record["upstream_tls"]["version"] == name[upstream]


def test_an_origin_with_an_rsa_certificate(mitm: Serve, authority: Authority, host: str) -> None:
    for maximum in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = origin_context(authority.issue("*.lab.test", use_rsa=True), maximum=maximum)
        with Origin(context) as origin:
            assert fetch(mitm, f"https://{host}:{origin.port}/").status == 200


class Parent:
    """A TCP port that leads through a proxy to one host: what comes in goes out by CONNECT."""

    def __init__(self, proxy: Serve, host: str, port: int) -> None:
        self._target = (proxy, host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Parent:
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join(HANG_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        inside, _ = self._listener.accept()
        with inside, tunnel(*self._target) as outside:
            back = threading.Thread(target=_copy, args=(outside, inside))
            back.start()
            _copy(inside, outside)
            back.join(HANG_SECONDS)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # whoever it was has all it wanted


@pytest.mark.parametrize("profile", ["chrome", "firefox", "safari"])
def test_polytls_behind_polytls_agrees_on_the_hybrid_group(
    mitm: Serve, serve: Callable[..., Serve], origin: Origin, host: str, profile: str
) -> None:
    """The one proxy's upstream hello is the other one's client hello: X25519MLKEM768 on both sides of it."""
    options = ("--upstream-ca-file", str(mitm.root_pem), "--profile", profile)
    with Parent(mitm, host, origin.port) as parent:
        outer = serve(*options, "--resolve", f"{host}:127.0.0.1:{parent.port}")
        assert fetch(outer, "--http2", f"https://{host}:{origin.port}/").http == "2"
        upstream = outer.record(host)["upstream_tls"]
    client = mitm.record(host)["client_tls"]
    assert client["group"] == upstream["group"] == "X25519MLKEM768"
    assert client["alpn"] == upstream["alpn"] == "h2"
