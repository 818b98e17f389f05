"""What test_coexistence.py runs: a TLS handshake or a signature by each library, then by all at once.

Arguments: a directory for certificates, and the modules to import, in order.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

for name in sys.argv[2:]:
    importlib.import_module(name)

import ssl  # noqa: E402 - the order above is what is tested

import grpc  # noqa: E402
from cryptography.exceptions import InvalidSignature  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, padding  # noqa: E402

from polytls.app import App  # noqa: E402
from polytls.settings import (  # noqa: E402
    Address,
    CertificateSettings,
    ListenSettings,
    Settings,
    UpstreamSettings,
)
from tests.peers.certificates import Authority, rsa_key  # noqa: E402
from tests.peers.clients import connect  # noqa: E402
from tests.peers.origin import Origin, origin_context  # noqa: E402

HOST = "origin.lab.test"
METHOD = "/polytls.Test/Reverse"


def by_ssl(certificate: Path, root: Path) -> None:
    """OpenSSL talks to OpenSSL."""
    client_context = ssl.create_default_context(cafile=str(root))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=HOST)
    server = origin_context(certificate).wrap_bio(to_server, to_client, server_side=True)
    pending = [client, server]
    while pending:
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert client.version() == "TLSv1.3"


def by_cryptography() -> None:
    key, message = rsa_key(), b"message"
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    curve_key = ec.generate_private_key(ec.SECP256R1())
    try:
        curve_key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return
    raise AssertionError("a signature of another key was accepted")


class _Reverse(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: grpc.HandlerCallDetails) -> object:
        assert details.method == METHOD
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request[::-1])


def by_grpc(certificate: Path, root: Path) -> None:
    """gRPC's BoringSSL talks to itself, over TLS on a free port."""
    pem = certificate.read_bytes()
    split = pem.index(b"-----BEGIN PRIVATE KEY")
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_Reverse()])
    credentials = grpc.ssl_server_credentials([(pem[split:], pem[:split])])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    trusted = grpc.ssl_channel_credentials(root.read_bytes())
    named = (("grpc.ssl_target_name_override", HOST), ("grpc.enable_http_proxy", 0))
    with grpc.secure_channel(f"127.0.0.1:{port}", trusted, named) as channel:
        assert channel.unary_unary(METHOD)(b"abc", timeout=30) == b"cba"
    server.stop(None).wait()


async def by_engine(certificate: Path, root: Path, directory: Path) -> None:
    """A whole proxy: OpenSSL, through BoringSSL on both its sides, to OpenSSL."""
    settings = Settings(
        listen=ListenSettings(Address("127.0.0.1", 0)),
        upstream=UpstreamSettings(ca_file=root, default_profile="chrome", resolve=((HOST, "127.0.0.1"),)),
        certificate=CertificateSettings(ca_key_path=directory / "ca.key", ca_cert_path=directory / "ca.pem"),
    )
    app = App(settings, sink=lambda _event: None)
    try:
        address = await app.start()
        with Origin(origin_context(certificate)) as origin:
            plain = await connect((address.host, address.port), HOST, origin.port)
            context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
            reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname=HOST)
            writer.write(b"GET /bytes/3 HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert len(await reader.readexactly(3)) == 3
            writer.close()
    finally:
        await app.stop(0)


async def all_at_once(certificate: Path, root: Path, directory: Path) -> None:
    await asyncio.gather(
        by_engine(certificate, root, directory),
        asyncio.to_thread(by_ssl, certificate, root),
        asyncio.to_thread(by_cryptography),
        asyncio.to_thread(by_grpc, certificate, root),
    )


def main(directory: Path) -> None:
    authority = Authority(directory)
    certificate = authority.issue(HOST)
    by_ssl(certificate, authority.pem)
    print("ssl")
    by_cryptography()
    print("cryptography")
    by_grpc(certificate, authority.pem)
    print("grpc")
    asyncio.run(by_engine(certificate, authority.pem, directory))
    print("engine")
    asyncio.run(all_at_once(certificate, authority.pem, directory))
    print("all at once")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
