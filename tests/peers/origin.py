"""A TLS origin that tells each client what its ClientHello looked like.

Theory of operation
-------------------
Before Python's `ssl` (OpenSSL) sees a connection, its first record is peeked at: the raw ClientHello, as it
was on the wire. Every answer is JSON about it (`Seen.as_json`), over HTTP/1.1 with keep-alive or, where it
was agreed on, HTTP/2. One thread for each connection: plain blocking code, and nothing here is fast.

Paths: ``/bytes/N`` gives N bytes of `pattern`; a POST to anywhere is answered with its length and SHA-256; a
request with ``Upgrade:`` is answered 101 and everything after it comes back; anything else gives the JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.fingerprint.report import FingerprintReport, fingerprint
from polytls.wire.client_hello import ClientHello, parse_client_hello

if TYPE_CHECKING:
    from pathlib import Path

    import h2.connection

HANG_SECONDS = 60.0
"""No wait of a test that passes comes near it."""
_CHUNK_BYTES = 1 << 16
_PATTERN = hashlib.shake_256(b"polytls").digest(_CHUNK_BYTES)

Handler = Callable[["ssl.SSLSocket", "Seen"], None]


def pattern(size: int) -> bytes:
    """`size` bytes that do not look alike from one place to the next."""
    return (_PATTERN * (size // _CHUNK_BYTES + 1))[:size]


@dataclass(frozen=True)
class Seen:
    """One connection as the origin saw it: the ClientHello's records, and what was agreed on."""

    raw_hello: bytes
    negotiated_alpn: str | None
    negotiated_version: str
    negotiated_cipher: str

    @property
    def hello(self) -> ClientHello:
        return parse_client_hello(self.raw_hello)

    @property
    def report(self) -> FingerprintReport:
        return fingerprint(self.hello)

    def as_json(self) -> bytes:
        facts = self.report.as_dict()
        facts["negotiated_alpn"] = self.negotiated_alpn
        facts["negotiated_version"] = self.negotiated_version
        facts["negotiated_cipher"] = self.negotiated_cipher
        return json.dumps(facts).encode()


def origin_context(
    certificate: Path,
    *,
    alpn: Sequence[str] = ("h2", "http/1.1"),
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """A server context; no `alpn`: no ALPN. `certificate` holds the key too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.minimum_version, context.maximum_version = minimum, maximum
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Origin:
    """Listens on a free port of `host` from the start, until `close`. `seen` holds every connection whose
    handshake was completed, `failures` what the other ones ended in."""

    def __init__(
        self, context: ssl.SSLContext, handler: Handler | None = None, *, host: str = "127.0.0.1"
    ) -> None:
        self._context = context
        self._handler = handler or serve_http
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.seen: queue.SimpleQueue[Seen] = queue.SimpleQueue()
        self.failures: queue.SimpleQueue[OSError] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="origin", daemon=True)
        self._thread.start()

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and cut what is still open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(HANG_SECONDS)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        # `plain` keeps a descriptor of its own, so that `close` can cut the connection whatever TLS does.
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw = _peek_record(plain)
            plain.settimeout(HANG_SECONDS)
            with self._context.wrap_socket(plain.dup(), server_side=True) as connection:
                cipher, version = connection.cipher(), connection.version()
                assert cipher is not None
                assert version is not None
                seen = Seen(raw, connection.selected_alpn_protocol(), version, cipher[0])
                self.seen.put(seen)
                self._handler(connection, seen)
        except OSError as error:  # SSLError is one, too
            self.failures.put(error)
        finally:
            with self._lock:
                self._open.discard(plain)
            plain.close()


def _peek_record(connection: socket.socket) -> bytes:
    """The first TLS record, left where it is. Every client here puts its whole ClientHello into one.

    MSG_WAITALL needs a socket without a timeout; who sends half a record and stays is cut by `Origin.close`.
    """
    head = connection.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL)
    if len(head) < 5 or head[0] != 22:
        raise OSError("the client does not begin with a TLS handshake")
    size = 5 + int.from_bytes(head[3:5], "big")
    return connection.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)


def serve_http(connection: ssl.SSLSocket, seen: Seen) -> None:
    """HTTP/2 where it was agreed on, else HTTP/1.1."""
    if seen.negotiated_alpn == "h2":
        _Http2(connection, seen).run()
    else:
        _serve_http1(connection, seen)


def end_in_order(connection: ssl.SSLSocket) -> None:
    """close_notify both ways."""
    with contextlib.suppress(OSError):
        connection.unwrap()


def _answer(path: str, body: Body, seen: Seen) -> Iterator[bytes]:
    """The body of the answer, in pieces."""
    if path.startswith("/bytes/"):
        left = int(path.removeprefix("/bytes/"))
        while left > 0:
            yield _PATTERN[: min(left, _CHUNK_BYTES)]
            left -= _CHUNK_BYTES
    elif body.size:
        yield json.dumps({"size": body.size, "sha256": body.hash.hexdigest()}).encode()
    else:
        yield seen.as_json()


class Body:
    """A request's body: counted and hashed, not kept."""

    def __init__(self) -> None:
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.hash.update(data)


def _serve_http1(connection: ssl.SSLSocket, seen: Seen) -> None:
    reader = connection.makefile("rb")
    with reader:
        while request := reader.readline():
            _method, path, _version = request.decode("ascii").split()
            headers: dict[str, str] = {}
            while (line := reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if headers.get("expect") == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if "upgrade" in headers:
                answer = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {headers['upgrade']}\r\n"
                connection.sendall(answer.encode() + b"Connection: Upgrade\r\n\r\n")
                while data := reader.read1(_CHUNK_BYTES):
                    connection.sendall(data)
                break
            body = Body()
            left = int(headers.get("content-length", "0"))
            while left > 0 and (data := reader.read1(min(left, _CHUNK_BYTES))):
                body.add(data)
                left -= len(data)
            pieces = list(_answer(path, body, seen))
            size = sum(map(len, pieces))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for piece in pieces:
                connection.sendall(piece)
            if headers.get("connection", "").lower() == "close":
                break
    end_in_order(connection)


class _Http2:
    """One HTTP/2 connection, on the `h2` package's state machine."""

    def __init__(self, connection: ssl.SSLSocket, seen: Seen) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        self._socket = connection
        self._seen = seen
        self._h2: h2.connection.H2Connection = H2Connection(H2Configuration(client_side=False))
        self._paths: dict[int, str] = {}
        self._bodies: dict[int, Body] = {}
        self._to_send: dict[int, bytes] = {}

    def run(self) -> None:
        from h2 import events

        self._h2.initiate_connection()
        # The windows of RFC 9113 §6.9.2 are too small for uploads to be quick.
        self._h2.increment_flow_control_window(1 << 24)
        self._flush()
        while data := self._socket.recv(_CHUNK_BYTES):
            for event in self._h2.receive_data(data):
                match event:
                    case events.RequestReceived(stream_id=number, headers=headers):
                        assert number is not None
                        fields = dict(headers or ())
                        self._paths[number] = fields[b":path"].decode("ascii")
                        self._bodies[number] = Body()
                    case events.DataReceived(stream_id=number, data=piece, flow_controlled_length=size):
                        assert number is not None
                        self._bodies[number].add(piece or b"")
                        self._h2.acknowledge_received_data(size or 0, number)
                    case events.StreamEnded(stream_id=number):
                        assert number is not None
                        pieces = _answer(self._paths.pop(number), self._bodies.pop(number), self._seen)
                        self._h2.send_headers(number, [(":status", "200")])
                        self._to_send[number] = b"".join(pieces)
                    case events.StreamReset(stream_id=number):
                        self._to_send.pop(number or 0, None)
            self._send_what_fits()
            self._flush()
        end_in_order(self._socket)

    def _send_what_fits(self) -> None:
        for number, data in list(self._to_send.items()):
            left = data
            while left and (room := self._h2.local_flow_control_window(number)):
                size = min(room, self._h2.max_outbound_frame_size, len(left))
                self._h2.send_data(number, left[:size])
                left = left[size:]
            if left:
                self._to_send[number] = left
            else:
                self._h2.end_stream(number)
                del self._to_send[number]

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
