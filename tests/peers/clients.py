"""Clients as raw as a test needs them: sockets and Python's `ssl`, through a CONNECT tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.peers.serve import HANG_SECONDS, Serve


def connect_head(host: str, port: int, *fields: str) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "\r\n".join((f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", "")).encode()


def read_head(connection: socket.socket) -> bytes:
    """Bytes to the first empty line; byte by byte, so that nothing of what follows is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        head += byte
    return head


def read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    while part := connection.recv(1 << 16):
        data += part
    return bytes(data)


@contextlib.contextmanager
def tunnel(proxy: Serve, host: str, port: int, *fields: str) -> Iterator[socket.socket]:
    """A socket after the 200."""
    with socket.create_connection(proxy.host_and_port, timeout=HANG_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(connect_head(host, port, *fields))
        head = read_head(connection)
        assert head.startswith(b"HTTP/1.1 200 "), head
        yield connection


async def connect(proxy: tuple[str, int], host: str, port: int) -> socket.socket:
    """A socket after the 200, for `asyncio.open_connection` to begin TLS on."""
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_INET)
    connection.setblocking(False)
    try:
        await loop.sock_connect(connection, proxy)
        await loop.sock_sendall(connection, connect_head(host, port))
        # Nothing follows the 200 until the client begins: whatever is there is all of the head.
        head = b""
        while not head.endswith(b"\r\n\r\n") and (data := await loop.sock_recv(connection, 1024)):
            head += data
        assert head.startswith(b"HTTP/1.1 200 "), head
    except BaseException:
        connection.close()
        raise
    return connection


def client_context(
    root_pem: Path,
    *,
    alpn: Sequence[str] = (),
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ciphers: str | None = None,
) -> ssl.SSLContext:
    """Trusts `root_pem` alone."""
    context = ssl.create_default_context(cafile=str(root_pem))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ciphers:
        context.set_ciphers(ciphers)
    return context


@contextlib.contextmanager
def tls_tunnel(
    proxy: Serve, host: str, port: int, context: ssl.SSLContext, *fields: str, server_name: str | None = None
) -> Iterator[ssl.SSLSocket]:
    """A TLS connection through the proxy, for `host` (or `server_name`)."""
    with (
        tunnel(proxy, host, port, *fields) as plain,
        context.wrap_socket(plain, server_hostname=server_name or host) as secure,
    ):
        yield secure


def alert_of(error: ssl.SSLError) -> str:
    """The alert that OpenSSL says it got, such as "tlsv1 unrecognized name"."""
    return str(error).rpartition("] ")[2].partition(" (_ssl.c")[0]


def memory_client(
    context: ssl.SSLContext, server_name: str
) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO, bytes]:
    """A client without a socket, and the ClientHello that it would send first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return client, incoming, outgoing, outgoing.read()
