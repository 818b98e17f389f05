"""A TLS 1.3 server by hand: for answers that no server at hand gives (RFC 8446; suite and group are fixed).

It is a good one but for what `Answers` adds: extensions in any message, a compressed certificate (RFC 8879),
ALPS (draft-vvv-tls-alps §4). Each connection is a thread: a handshake, one request, one small answer. What a
client says in its own encrypted flight is kept, as are the alerts it sends instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from polytls.wire.client_hello import ClientHello, parse_client_hello
from tests.golden.recorder import sent_hellos
from tests.peers.certificates import der_pair
from tests.peers.serve import HANG_SECONDS

if TYPE_CHECKING:
    from typing_extensions import Self

Extensions = Sequence[tuple[int, bytes]]

CLIENT_HELLO, SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE = 1, 2, 8, 11
CERTIFICATE_VERIFY, FINISHED, COMPRESSED_CERTIFICATE = 15, 20, 25
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _DATA = 20, 21, 22, 23
_AES_128_GCM_SHA256 = b"\x13\x01"
_X25519 = 29
_ECDSA_SECP256R1_SHA256 = b"\4\3"
_SIGNED = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"  # RFC 8446 §4.4.3
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Answers:
    """What is added. `compression` is an algorithm's number and what does it; `delegated` a key on P-256
    that signs CertificateVerify in place of the certificate's (RFC 9345)."""

    server_hello: Extensions = ()
    encrypted_extensions: Extensions = ()
    certificate: Extensions = ()
    compression: tuple[int, Callable[[bytes], bytes]] | None = None
    delegated: ec.EllipticCurvePrivateKey | None = None


@dataclass
class Seen:
    """Of one client: its hello, the handshake messages (type, body) of its encrypted flight, its alerts."""

    hello: ClientHello
    flight: list[tuple[int, bytes]] = field(default_factory=list)
    alerts: list[int] = field(default_factory=list)


class Server:
    """Answers until left. `port` is where; `answers` may be changed between connections."""

    def __init__(self, certificate: Path, answers: Answers | None = None) -> None:
        """`certificate`: an ECDSA one on P-256, with its key, in a PEM file."""
        self.answers = answers or Answers()
        self.seen: list[Seen] = []
        self._leaf, key = der_pair(certificate)
        loaded = serialization.load_der_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(HANG_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # left
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            client.settimeout(HANG_SECONDS)
            data = b""
            while not (hellos := sent_hellos(data)):
                data += _received(client)
            records = hellos[0].records
            seen = Seen(parse_client_hello(records))
            self.seen.append(seen)
            message = b"".join(body for _, body in _split(records))
            _Connection(client, data[len(records) :], seen).serve(
                message, self.answers, self._leaf, self._key
            )


class _Keys:
    """One direction's, for one epoch (RFC 8446 §7.3)."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._aead = AESGCM(_expand(secret, b"key", b"", 16))
        self._iv = _expand(secret, b"iv", b"", 12)
        self._number = 0

    def _nonce(self) -> bytes:
        number, self._number = self._number, self._number + 1
        return bytes(a ^ b for a, b in zip(self._iv, number.to_bytes(12, "big"), strict=True))

    def seal(self, kind: int, data: bytes) -> bytes:
        head = bytes((_DATA, 3, 3)) + _u16(len(data) + 17)
        return head + self._aead.encrypt(self._nonce(), data + bytes((kind,)), head)

    def open(self, body: bytes) -> tuple[int, bytes]:
        head = bytes((_DATA, 3, 3)) + _u16(len(body))
        plain = self._aead.decrypt(self._nonce(), body, head).rstrip(b"\0")
        return plain[-1], plain[:-1]


class _Connection:
    def __init__(self, client: socket.socket, taken: bytes, seen: Seen) -> None:
        self._client = client
        self._taken = taken
        self._seen = seen
        self._transcript = b""

    def serve(self, hello: bytes, answers: Answers, leaf: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        """The whole conversation."""
        self._transcript = hello
        private = x25519.X25519PrivateKey.generate()
        theirs = next(share.key_exchange for share in self._seen.hello.key_shares if share.group == _X25519)
        shared = private.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
        share = _u16(_X25519) + _vec16(private.public_key().public_bytes(*_RAW))
        extensions = [(43, b"\3\4"), (51, share), *answers.server_hello]
        body = b"\3\3" + os.urandom(32) + _vec8(self._seen.hello.session_id) + _AES_128_GCM_SHA256 + b"\0"
        answer = self._hash(SERVER_HELLO, body + _extensions(extensions))
        secret = _extract(_derived(_extract(bytes(32), bytes(32))), shared)
        reads = _Keys(_expand(secret, b"c hs traffic", self._digest(), 32))
        writes = _Keys(_expand(secret, b"s hs traffic", self._digest(), 32))
        flight = self._flight(answers, leaf, key, writes.secret)
        plain = bytes((_HANDSHAKE, 3, 3)) + _vec16(answer) + b"\x14\3\3\0\1\1"
        self._client.sendall(plain + writes.seal(_HANDSHAKE, flight))
        master = _extract(_derived(secret), bytes(32))
        app_reads = _Keys(_expand(master, b"c ap traffic", self._digest(), 32))
        app_writes = _Keys(_expand(master, b"s ap traffic", self._digest(), 32))
        self._read_flight(reads)
        request = b""
        while b"\r\n\r\n" not in request:
            request += self._read(app_reads, _DATA)
        self._client.sendall(app_writes.seal(_DATA, _RESPONSE) + app_writes.seal(_ALERT, b"\1\0"))
        self._client.shutdown(socket.SHUT_WR)
        while self._client.recv(_READ_BYTES):
            pass

    def _flight(self, answers: Answers, leaf: bytes, key: ec.EllipticCurvePrivateKey, secret: bytes) -> bytes:
        """EncryptedExtensions to Finished."""
        flight = self._hash(ENCRYPTED_EXTENSIONS, _extensions(answers.encrypted_extensions))
        body = b"\0" + _vec24(_vec24(leaf) + _extensions(answers.certificate))
        if answers.compression is None:
            flight += self._hash(CERTIFICATE, body)
        else:
            number, compress = answers.compression
            small = _u16(number) + len(body).to_bytes(3, "big") + _vec24(compress(body))
            flight += self._hash(COMPRESSED_CERTIFICATE, small)
        signature = (answers.delegated or key).sign(_SIGNED + self._digest(), ec.ECDSA(hashes.SHA256()))
        flight += self._hash(CERTIFICATE_VERIFY, _ECDSA_SECP256R1_SHA256 + _vec16(signature))
        proof = hmac.digest(_expand(secret, b"finished", b"", 32), self._digest(), "sha256")
        return flight + self._hash(FINISHED, proof)

    def _read_flight(self, keys: _Keys) -> None:
        messages = b""
        while not any(kind == FINISHED for kind, _ in self._seen.flight):
            messages += self._read(keys, _HANDSHAKE)
            while len(messages) >= 4 and len(messages) >= 4 + int.from_bytes(messages[1:4], "big"):
                end = 4 + int.from_bytes(messages[1:4], "big")
                self._seen.flight.append((messages[0], messages[4:end]))
                messages = messages[end:]

    def _read(self, keys: _Keys, wanted: int) -> bytes:
        """The next record's content. EOFError for an alert, which is kept."""
        while True:
            while not (found := _split(self._taken)):
                self._taken += _received(self._client)
            kind, body = found[0]
            self._taken = self._taken[5 + len(body) :]
            if kind == _CHANGE_CIPHER_SPEC:
                continue
            if kind == _DATA:
                kind, body = keys.open(body)
            if kind == _ALERT:
                self._seen.alerts.append(body[1])
            if kind != wanted:
                raise EOFError("the client says something else")
            return body

    def _hash(self, kind: int, body: bytes) -> bytes:
        message = bytes((kind,)) + _vec24(body)
        self._transcript += message
        return message

    def _digest(self) -> bytes:
        return hashlib.sha256(self._transcript).digest()


def _received(client: socket.socket) -> bytes:
    data = client.recv(_READ_BYTES)
    if not data:
        raise EOFError("the client has gone")
    return data


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each whole record."""
    found, position = [], 0
    while position + 5 <= len(data):
        end = position + 5 + int.from_bytes(data[position + 3 : position + 5], "big")
        if end > len(data):
            break
        found.append((data[position], data[position + 5 : end]))
        position = end
    return found


def _extract(salt: bytes, key: bytes) -> bytes:
    return hmac.digest(salt, key, "sha256")


def _derived(secret: bytes) -> bytes:
    return _expand(secret, b"derived", hashlib.sha256(b"").digest(), 32)


def _expand(secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1), for what fits one block."""
    info = _u16(size) + _vec8(b"tls13 " + label) + _vec8(context)
    return hmac.digest(secret, info + b"\1", "sha256")[:size]


def _extensions(listed: Extensions) -> bytes:
    return _vec16(b"".join(_u16(number) + _vec16(body) for number, body in listed))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vec8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _vec24(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data
