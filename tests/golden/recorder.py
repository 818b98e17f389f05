"""A TLS server on 127.0.0.1 that keeps every byte a client sends, so that its ClientHellos can be stored.

Theory of operation
-------------------
`Recorder` accepts connections on a port of its own, a thread each. TLS runs over memory buffers, so what is
read from the socket *is* the record, and nothing has to sit between client and server. A connection is
answered in one of four ways (`Answer`): in full without tickets, so that every hello is a first one; in full
after a HelloRetryRequest to a group that clients offer without a share for it; with a HelloRetryRequest that
has a cookie; or in full with tickets, so that the next connection resumes.

The cookie is ours because Python's `ssl` cannot send one: the server writes that one message by hand, takes
the second hello and hangs up. Everywhere else the answer is a small page after which the connection ends, so
that the next request makes the next connection; a browser comes again by itself (the page says so).

HTTP/1.1 is all that is spoken: ALPN's answer is not in any hello. A client that cannot be told which address
a name has may send CONNECT first; that part is not recorded.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.cursor import CursorError

HOST = "golden.test"
"""The server name of every capture: a reserved top-level domain (RFC 6761), eleven bytes."""

GROUPS = {"secp384r1": 24, "secp521r1": 25, "prime256v1": 23}
"""OpenSSL's names of groups to ask for, and their numbers: many clients offer them, few with a share."""

_PAGE = b'<!doctype html><meta http-equiv="refresh" content="0"><title>.</title>\n'
_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE)
)
_PATIENCE_SECONDS = 20.0  # of one read; only a client that hangs gets there
_LINGER_SECONDS = 2.0  # a client's own goodbye, after ours
_READ_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 16

_RECORD_HEADER_BYTES = 5
_CHANGE_CIPHER_SPEC, _HANDSHAKE = 20, 22  # RFC 8446 §5.1
_CLIENT_HELLO, _SERVER_HELLO = 1, 2  # RFC 8446 §4
_COOKIE, _SUPPORTED_VERSIONS, _KEY_SHARE = 44, 43, 51  # RFC 8446 §4.2
_TLS12, _TLS13 = 0x0303, 0x0304
_TLS13_SUITES = frozenset({0x1301, 0x1302, 0x1303})
# RFC 8446 §4.1.3: the SHA-256 of "HelloRetryRequest".
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_COOKIE_BYTES = 32

_T = TypeVar("_T")


class Answer(Enum):
    """How a connection is answered."""

    FULL = "full"
    RETRY = "retry"
    COOKIE = "cookie"
    TICKETS = "tickets"


@dataclass(frozen=True)
class SentHello:
    """One ClientHello: the TLS records that carried it, and whether a ChangeCipherSpec came right before."""

    records: bytes
    after_change_cipher_spec: bool

    @property
    def parsed(self) -> ClientHello:
        return parse_client_hello(self.records)


def sent_hellos(sent: bytes) -> list[SentHello]:
    """The ClientHellos at the head of what a client sent; whatever else follows is not looked at."""
    found: list[SentHello] = []
    position, changed = 0, False
    while position + _RECORD_HEADER_BYTES < len(sent):
        kind = sent[position]
        end = _record_end(sent, position)
        if kind == _CHANGE_CIPHER_SPEC:
            position, changed = end, True
            continue
        if kind != _HANDSHAKE or sent[position + _RECORD_HEADER_BYTES] != _CLIENT_HELLO:
            break
        message = sent[position + _RECORD_HEADER_BYTES : end]
        start = position
        while end < len(sent) and len(message) < 4 + int.from_bytes(message[1:4], "big"):
            following = _record_end(sent, end)
            message += sent[end + _RECORD_HEADER_BYTES : following]
            end = following
        if end > len(sent) or len(message) < 4 + int.from_bytes(message[1:4], "big"):
            break  # not all of it is there yet
        found.append(SentHello(sent[start:end], changed))
        position, changed = end, False
    return found


def record_types(sent: bytes) -> list[int]:
    """The content type of each record (RFC 8446 §5.1), as far as they are whole."""
    found, position = [], 0
    while position + _RECORD_HEADER_BYTES <= len(sent) and _record_end(sent, position) <= len(sent):
        found.append(sent[position])
        position = _record_end(sent, position)
    return found


def _record_end(sent: bytes, position: int) -> int:
    return position + _RECORD_HEADER_BYTES + int.from_bytes(sent[position + 3 : position + 5], "big")


@dataclass
class _Connection:
    """A socket whose incoming bytes are kept."""

    socket: socket.socket
    kept: bytearray = field(default_factory=bytearray)

    def receive(self) -> bytes:
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise EOFError("the client has gone")
        self.kept += data
        return data


class Recorder:
    """Answers connections in one way until left. `port` is where; `connections` what was sent, in order."""

    def __init__(self, answer: Answer, certificate: Path, group: str | None = None) -> None:
        """`certificate` is a PEM file with its key.

        `group`, one of `GROUPS`, is what a HelloRetryRequest asks for; `Answer.RETRY` needs one.
        """
        self._answer = answer
        self._group = group
        self._context = _context(answer, certificate, group)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._kept: list[_Connection] = []
        self._changed = threading.Condition()
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def connections(self) -> list[list[SentHello]]:
        """The hellos of each connection that sent one, in the order in which they were accepted."""
        return [hellos for hellos in map(sent_hellos, self.sent) if hellos]

    @property
    def sent(self) -> list[bytes]:
        """All that came on each connection, in the order in which they were accepted."""
        with self._changed:
            return [bytes(connection.kept) for connection in self._kept]

    def wait(self, enough: Callable[[list[list[SentHello]]], bool], seconds: float) -> bool:
        """Until `enough(connections)`; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(self.connections), seconds)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # left
            connection = _Connection(client)
            with self._changed:
                self._kept.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: _Connection) -> None:
        # A client may dislike the certificate or just leave: its hello is there all the same.
        with contextlib.suppress(OSError, EOFError, CursorError), connection.socket:
            connection.socket.settimeout(_PATIENCE_SECONDS)
            _skip_connect(connection.socket)
            try:
                if self._answer is Answer.COOKIE:
                    _answer_with_cookie(connection, self._group)
                else:
                    _answer_in_full(connection, self._context)
            finally:
                with self._changed:
                    self._changed.notify_all()


def _context(answer: Answer, certificate: Path, group: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    if answer is Answer.RETRY and group is not None:
        context.set_ecdh_curve(group)
    if answer is not Answer.TICKETS:
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _skip_connect(client: socket.socket) -> None:
    if client.recv(1, socket.MSG_PEEK) != b"C":
        return
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_HEAD_BYTES:
        head += client.recv(1)
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def _answer_in_full(connection: _Connection, context: ssl.SSLContext) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)

    def run(step: Callable[[], _T]) -> _T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                connection.socket.sendall(outgoing.read())
                incoming.write(connection.receive())
            else:
                connection.socket.sendall(outgoing.read())
                return result

    run(tls.do_handshake)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        head += run(lambda: tls.read(_READ_BYTES))
    run(lambda: tls.write(_RESPONSE))
    with contextlib.suppress(ssl.SSLWantReadError):  # our goodbye is written, theirs need not come
        tls.unwrap()
    connection.socket.sendall(outgoing.read())
    connection.socket.shutdown(socket.SHUT_WR)
    connection.socket.settimeout(_LINGER_SECONDS)
    while connection.socket.recv(_READ_BYTES):
        pass


def _answer_with_cookie(connection: _Connection, group: str | None) -> None:
    first = next(_hellos(connection))
    connection.socket.sendall(retry_request(first.parsed, os.urandom(_COOKIE_BYTES), group))
    for _ in itertools.islice(_hellos(connection), 2):
        pass


def _hellos(connection: _Connection) -> Iterator[SentHello]:
    """As they come, from the first on."""
    given = 0
    while True:
        found = sent_hellos(bytes(connection.kept))
        yield from found[given:]
        given = len(found)
        connection.receive()


def retry_request(hello: ClientHello, cookie: bytes, group: str | None) -> bytes:
    """The record of a HelloRetryRequest (RFC 8446 §4.1.4): wants its cookie back, and a share of `group`."""
    suite = next(suite for suite in hello.cipher_suites if suite in _TLS13_SUITES)
    wanted = [(_SUPPORTED_VERSIONS, _u16(_TLS13)), (_COOKIE, _vector(cookie))]
    if group is not None:
        wanted.append((_KEY_SHARE, _u16(GROUPS[group])))
    extensions = b"".join(_u16(number) + _vector(body) for number, body in wanted)
    body = (
        _u16(_TLS12)
        + _RETRY_RANDOM
        + bytes([len(hello.session_id)])
        + hello.session_id
        + _u16(suite)
        + b"\x00"
        + _vector(extensions)
    )
    message = bytes([_SERVER_HELLO]) + len(body).to_bytes(3, "big") + body
    return bytes([_HANDSHAKE]) + _u16(_TLS12) + _vector(message)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vector(body: bytes) -> bytes:
    return _u16(len(body)) + body
