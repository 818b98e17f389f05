"""Encrypted ClientHello from the other side: configs with their keys, and a look inside what was sent.

`Sealed` undoes what a client did (RFC 9849 §5, RFC 9180 §5 to §7), from a connection's bytes alone, so
that the inner hello can be compared with what its profile says, whoever the server was.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from polytls.wire.client_hello import ClientHello, parse_client_hello, parse_client_hello_message
from polytls.wire.cursor import Cursor
from polytls.wire.ech import HKDF_SHA256, VERSION, X25519
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from tests.golden.recorder import SentHello

ECH = ExtensionType.ENCRYPTED_CLIENT_HELLO
OUTER_EXTENSIONS = 0xFD00
AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305 = 1, 2, 3

_KEY_BYTES = {AES_128_GCM: 16, AES_256_GCM: 32, CHACHA20_POLY1305: 32}
_RECORD_HEADER_BYTES = 5
_HANDSHAKE_HEADER_BYTES = 4


def vec(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


def u16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


class EchKey:
    """A key pair and its config. `config` is an ECHConfig, `config_list` the list with it alone."""

    def __init__(
        self,
        public_name: str,
        *,
        config_id: int = 1,
        maximum_name_length: int = 0,
        aeads: Sequence[int] = (AES_128_GCM, CHACHA20_POLY1305),
        extensions: bytes = b"",
    ) -> None:
        self._key = X25519PrivateKey.generate()
        self.private = self._key.private_bytes_raw()
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        suites = b"".join(u16(HKDF_SHA256, aead) for aead in aeads)
        contents = (
            bytes((config_id,))
            + u16(X25519)
            + vec(self.public)
            + vec(suites)
            + bytes((maximum_name_length,))
            + vec(public_name.encode(), 1)
            + vec(extensions)
        )
        self.config = u16(VERSION) + vec(contents)
        self.config_list = vec(self.config)

    @classmethod
    def stored(cls, private: bytes, config: bytes) -> EchKey:
        """One that was made before."""
        key = cls.__new__(cls)
        key._key = X25519PrivateKey.from_private_bytes(private)
        key.private = private
        key.public = key._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        key.config, key.config_list = config, vec(config)
        return key

    def option(self, *, retry: bool = True) -> dict[str, Any]:
        """As `servers.go_ech` takes it."""
        return {"config": self.config.hex(), "private": self.private.hex(), "retry": retry}

    def shared_secret(self, enc: bytes) -> bytes:
        """RFC 9180 §4.1, Decap."""
        dh = self._key.exchange(X25519PublicKey.from_public_bytes(enc))
        suite = b"KEM" + u16(X25519)
        return _expand(suite, _extract(suite, b"", b"eae_prk", dh), b"shared_secret", enc + self.public, 32)


@dataclass(frozen=True)
class Opened:
    """One ClientHello with what was sealed in it. `compressed`: the types that the inner hello takes from the
    outer one. `payload_bytes` is the length of what was sealed, tag included."""

    outer: ClientHello
    inner: ClientHello
    compressed: tuple[int, ...]
    payload_bytes: int


class Sealed:
    """The hellos of one connection, the first and perhaps the second, opened by `key`."""

    def __init__(self, key: EchKey, hellos: Sequence[SentHello]) -> None:
        self._key = key
        self._number = 0
        self._aead: tuple[Any, bytes] | None = None
        self.opened = [self._open(hello.records) for hello in hellos]

    def _open(self, records: bytes) -> Opened:
        message = message_of(records)
        outer = parse_client_hello(records)
        body = outer.extension(ECH)
        assert body is not None
        cursor = Cursor(body)
        assert cursor.u8() == 0, "an outer one"
        kdf, aead, _config_id, enc, payload = (
            cursor.u16(),
            cursor.u16(),
            cursor.u8(),
            cursor.vec16(),
            cursor.vec16(),
        )
        cursor.finish()
        assert kdf == HKDF_SHA256
        assert message.count(payload) == 1
        if self._aead is None:
            self._aead = _schedule(self._key, enc, aead)
        else:
            assert enc == b"", "the second hello goes on with the first one's key (RFC 9849 §6.1.5)"
        cipher, base = self._aead
        nonce = (int.from_bytes(base, "big") ^ self._number).to_bytes(12, "big")
        self._number += 1
        encoded = cipher.decrypt(nonce, payload, message.replace(payload, bytes(len(payload))))
        inner, compressed = _decoded(encoded, outer)
        return Opened(outer, inner, compressed, len(payload))


def message_of(records: bytes) -> bytes:
    """The ClientHello in some records, without its handshake header."""
    message, position = b"", 0
    while position < len(records):
        end = position + _RECORD_HEADER_BYTES + int.from_bytes(records[position + 3 : position + 5], "big")
        message += records[position + _RECORD_HEADER_BYTES : end]
        position = end
    return message[_HANDSHAKE_HEADER_BYTES:]


def _decoded(encoded: bytes, outer: ClientHello) -> tuple[ClientHello, tuple[int, ...]]:
    """RFC 9849 §5.1: EncodedClientHelloInner to ClientHelloInner."""
    cursor = Cursor(encoded)
    head = cursor.take(2 + 32)
    assert cursor.vec8() == b"", "the session id is the outer one's"
    suites, methods, extensions = cursor.vec16(), cursor.vec8(), Cursor(cursor.vec16())
    padding = cursor.take(cursor.remaining)
    assert padding == bytes(len(padding))
    rebuilt = b""
    compressed: tuple[int, ...] = ()
    while extensions.remaining:
        number, body = extensions.u16(), extensions.vec16()
        if number != OUTER_EXTENSIONS:
            rebuilt += u16(number) + vec(body)
            continue
        compressed = Cursor(Cursor(body).vec8()).u16s()
        in_order = [item for item in outer.extensions if item.type in compressed]
        assert tuple(item.type for item in in_order) == compressed, "in the outer one's order"
        rebuilt += b"".join(u16(item.type) + vec(item.body) for item in in_order)
    message = head + vec(outer.session_id, 1) + vec(suites) + vec(methods, 1) + vec(rebuilt)
    return parse_client_hello_message(message), compressed


def _schedule(key: EchKey, enc: bytes, aead: int) -> tuple[Any, bytes]:
    """RFC 9180 §5.1, mode_base: the cipher and the base nonce."""
    suite = b"HPKE" + u16(X25519, HKDF_SHA256, aead)
    psk_hash = _extract(suite, b"", b"psk_id_hash", b"")
    info_hash = _extract(suite, b"", b"info_hash", b"tls ech\0" + key.config)
    context = b"\0" + psk_hash + info_hash
    secret = _extract(suite, key.shared_secret(enc), b"secret", b"")
    secret_key = _expand(suite, secret, b"key", context, _KEY_BYTES[aead])
    cipher = ChaCha20Poly1305(secret_key) if aead == CHACHA20_POLY1305 else AESGCM(secret_key)
    return cipher, _expand(suite, secret, b"base_nonce", context, 12)


def _extract(suite: bytes, salt: bytes, label: bytes, data: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + data, hashlib.sha256)


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = u16(length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labelled + b"\1", hashlib.sha256)[:length]


def unknown_config() -> bytes:
    """An ECHConfig of a version that does not exist."""
    return u16(0xFE99) + vec(os.urandom(20))
