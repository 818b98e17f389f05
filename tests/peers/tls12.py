"""The first flight of a TLS 1.2 server, by hand: for answers that no server at hand gives.

It is a good one (RFC 5246 §7.3, RFC 8422 §5.4) but for the extensions it is given: a client that likes them
goes on with its own second flight, which nobody here reads.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from polytls.wire.client_hello import parse_client_hello
from tests.golden.recorder import sent_hellos
from tests.peers.certificates import der_pair
from tests.peers.serve import HANG_SECONDS

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

_SERVER_HELLO, _CERTIFICATE, _SERVER_KEY_EXCHANGE, _SERVER_HELLO_DONE = 2, 11, 12, 14
_TLS12 = b"\3\3"
_ECDHE_ECDSA_AES_128_GCM = b"\xc0\x2b"
_X25519 = b"\0\x1d"
_ECDSA_SECP256R1_SHA256 = b"\4\3"
_NAMED_CURVE = b"\3"
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@contextlib.contextmanager
def answering(
    certificate: Path, extensions: Sequence[tuple[int, bytes]], *, version: int = 0x0303
) -> Iterator[int]:
    """A server on a port of its own: it sends its `flight`, and hangs up when the client has sent its own."""

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(HANG_SECONDS)
            data = b""
            while not (hellos := sent_hellos(data)):
                data += client.recv(1 << 16)
            first = parse_client_hello(hellos[0].records)
            client.sendall(flight(first, certificate, extensions, version=version))
            client.recv(1 << 16)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):  # wakes accept()
                listener.shutdown(socket.SHUT_RDWR)


def flight(
    hello: ClientHello,
    certificate: Path,
    extensions: Sequence[tuple[int, bytes]],
    *,
    version: int = 0x0303,
) -> bytes:
    """ServerHello with `extensions` to ServerHelloDone, a record each. `certificate`: ECDSA, with its key.

    With another `version` than that of TLS 1.2 the ServerHello alone is good.
    """
    leaf, key_der = der_pair(certificate)
    key = serialization.load_der_private_key(key_der, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    random = os.urandom(32)
    listed = b"".join(_u16(number) + _vec16(body) for number, body in extensions)
    chosen = _u16(version) + random + b"\0" + _ECDHE_ECDSA_AES_128_GCM + b"\0" + _vec16(listed)
    share = x25519.X25519PrivateKey.generate().public_key().public_bytes(*_RAW)
    parameters = _NAMED_CURVE + _X25519 + bytes((len(share),)) + share
    signature = key.sign(hello.random + random + parameters, ec.ECDSA(hashes.SHA256()))
    return b"".join(
        (
            _record(_SERVER_HELLO, chosen),
            _record(_CERTIFICATE, _vec24(_vec24(leaf))),
            _record(_SERVER_KEY_EXCHANGE, parameters + _ECDSA_SECP256R1_SHA256 + _vec16(signature)),
            _record(_SERVER_HELLO_DONE, b""),
        )
    )


def _record(kind: int, body: bytes) -> bytes:
    return b"\x16" + _TLS12 + _vec16(bytes((kind,)) + _vec24(body))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _vec24(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data
