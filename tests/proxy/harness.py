"""What tests of a live proxy are made of: a proxy in a thread, origins in threads, clients as raw as needed.

Nothing here sleeps: clients wait for bytes, tests wait for records. Every wait has a deadline that only a
hang reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polytls.app import App
from polytls.events import TunnelRecord, note_of
from polytls.settings import Address, ListenSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from polytls.events import Event

T = TypeVar("T")
HOST = "origin.test"
REQUEST = b"GET / HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n"

HANG_SECONDS = 30.0
"""No wait of a test that passes comes near it."""

Handler = Callable[[socket.socket], None]


# Certificates of origins


class OriginCA:
    """A certificate authority for origins, in `directory`. `pem` is its certificate's file."""

    def __init__(self, directory: Path, name: str = "Origin CA") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        now = datetime.now(timezone.utc)
        builder = _builder(
            self._name, self._name, self._key, now - timedelta(days=2), now + timedelta(days=2)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = directory / "origin-ca.pem"
        self.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        host: str,
        *,
        from_days: float = -1,
        to_days: float = 1,
        self_signed: bool = False,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Path:
        """A PEM file with certificate and key for `host`, valid between the days from now."""
        now = datetime.now(timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        issuer, signer = (subject, key) if self_signed else (self._name, self._key)
        first, last = now + timedelta(days=from_days), now + timedelta(days=to_days)
        builder = _builder(subject, issuer, key, first, last)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        self._count += 1
        path = self._directory / f"origin-{self._count}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, first: datetime, last: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )


def _general_name(host: str) -> x509.GeneralName:
    import ipaddress

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


# Origins


class Origin:
    """A server on 127.0.0.1 (or `host`) that gives every connection to `handler`, in a thread of its own,
    after a TLS handshake where there is a `context`. `failures` holds what went wrong there."""

    def __init__(
        self, handler: Handler, context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1"
    ) -> None:
        self._handler = handler
        self._context = context
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port: int = self._listener.getsockname()[1]
        self.failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HANG_SECONDS)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                self._start(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        plain.settimeout(HANG_SECONDS)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True)
                self._open.add(connection)
            self._handler(connection)
        except (OSError, ssl.SSLError) as error:
            self.failures.put(error)
        finally:
            self._open.discard(plain)
            self._open.discard(connection)
            connection.close()
            plain.close()


def server_context(
    certificate: Path, *, alpn: tuple[str, ...] = (), maximum: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if maximum is not None:
        context.maximum_version = maximum
    return context


def echo(connection: socket.socket) -> None:
    """Send back what comes, to its end; then end."""
    while data := connection.recv(65536):
        connection.sendall(data)
    if isinstance(connection, ssl.SSLSocket):
        with contextlib.suppress(OSError, ssl.SSLError):
            connection.unwrap()
    else:
        connection.shutdown(socket.SHUT_WR)


def hello_http(connection: socket.socket) -> None:
    """Answer one request in HTTP/1.1."""
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n")
    if isinstance(connection, ssl.SSLSocket):
        with contextlib.suppress(OSError, ssl.SSLError):
            connection.unwrap()


# The proxy


def with_settings(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """A copy with fields changed, section by section: ``with_settings(s, timeouts={"head": 1.0})``."""
    parts = {
        name: dataclasses.replace(getattr(settings, name), **fields) for name, fields in sections.items()
    }
    return dataclasses.replace(settings, **parts)


def every_name_is_local(_host: str) -> list[str]:
    return ["127.0.0.1"]


class Proxy:
    """A proxy on a free port, its event loop in a thread. Every name resolves to 127.0.0.1, unless said."""

    def __init__(self, settings: Settings, lookup: Callable[[str], list[str]] = every_name_is_local) -> None:
        host = settings.listen.address.host
        settings = dataclasses.replace(settings, listen=ListenSettings(Address(host, 0)))
        self.records: queue.SimpleQueue[TunnelRecord] = queue.SimpleQueue()
        self.reports: list[str] = []
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stopped = False

        async def make() -> App:
            return App(settings, sink=self._take, lookup=lookup)

        self.app = self.run(make())
        try:
            self.address: Address = self.run(self.app.start())
        except BaseException:
            self.stop()
            raise

    def _take(self, event: Event) -> None:
        if isinstance(event, TunnelRecord):
            self.records.put(event)
        elif (text := note_of(event)) is not None:
            self.reports.append(text)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the proxy's event loop and wait for the outcome."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(HANG_SECONDS)

    def call(self, function: Callable[[], T]) -> T:
        """Call on the proxy's event loop."""

        async def call() -> T:
            return function()

        return self.run(call())

    def record(self) -> TunnelRecord:
        """The next tunnel's record, when it has ended."""
        return self.records.get(timeout=HANG_SECONDS)

    def no_more_records(self) -> bool:
        return self.records.empty()

    def stop(self, drain_seconds: float = 0.0) -> None:
        if self._stopped:
            return
        self._stopped = True
        self.run(self.app.stop(drain_seconds))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG_SECONDS)
        self._loop.close()


# Clients


def dial(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection((proxy.address.host, proxy.address.port), timeout=HANG_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect_head(host: str, port: int, *fields: str) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "\r\n".join((f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", "")).encode()


def read_head(connection: socket.socket) -> bytes:
    """Bytes to the first empty line, byte by byte so that nothing of what follows is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def read_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ssl.SSLEOFError):
        while part := connection.recv(65536):
            data += part
    return data


@dataclass(frozen=True)
class Reply:
    """An HTTP reply, read to the end of the connection."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_reply(connection: socket.socket) -> Reply:
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Reply(int(status_line.split()[1]), headers, body)


def ask(proxy: Proxy, head: bytes) -> Reply:
    """Send a head, read the whole reply."""
    with dial(proxy) as connection:
        connection.sendall(head)
        return read_reply(connection)


@contextlib.contextmanager
def tunnel(proxy: Proxy, host: str, port: int, *fields: str) -> Iterator[socket.socket]:
    """A tunnel, after its 200."""
    with dial(proxy) as connection:
        connection.sendall(connect_head(host, port, *fields))
        assert read_head(connection) == b"HTTP/1.1 200 Connection Established\r\n\r\n"
        yield connection


def client_context(cafile: Path, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cafile))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextlib.contextmanager
def tls_tunnel(
    proxy: Proxy, host: str, port: int, context: ssl.SSLContext, *fields: str, server_name: str | None = None
) -> Iterator[ssl.SSLSocket]:
    """A tunnel in which the client's handshake is done."""
    with (
        tunnel(proxy, host, port, *fields) as connection,
        context.wrap_socket(connection, server_hostname=server_name or host) as tls,
    ):
        yield tls


def client_hello(server_name: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """The bytes of a ClientHello, as Python's ssl sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def alert_of(data: bytes) -> int | None:
    """The number of the one fatal alert record in clear that is all of `data`; None where it is not that."""
    if len(data) == 7 and data[0] == 21 and data[3:6] == b"\x00\x02\x02":
        return data[6]
    return None


# What a client gets


def answer_to(
    proxy: Proxy,
    root_pem: Path,
    port: int,
    *,
    host: str = HOST,
    alpn: tuple[str, ...] = (),
    ask: bytes = REQUEST,
) -> bytes:
    """What a client that trusts the proxy gets for a request."""
    with tls_tunnel(proxy, host, port, client_context(root_pem, alpn)) as tls:
        tls.sendall(ask)
        return read_all(tls)


def answer_to_hello(proxy: Proxy, port: int, data: bytes, *, host: str = HOST) -> bytes:
    """What comes back, to the end, for bytes sent into a tunnel."""
    with tunnel(proxy, host, port) as connection:
        connection.sendall(data)
        return read_all(connection)
