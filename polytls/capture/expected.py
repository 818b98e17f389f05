"""`ExactHello` -> the ClientHellos that it describes, as values to compare with (pure).

Theory of operation
-------------------
A profile without a capture beside it can still be held against itself: what the engine sent against what
the profile's file says. `hellos_of` writes that down as parsed hellos with stand-ins for what is fresh
(zeros, numbers, one GREASE value), one for each thing that may be drawn, so that
`polytls.fingerprint.normal` can make of them what it makes of captured ones. It goes from the file's own
values to parsed values; the template, the engine and the record layer, which are what is being verified,
have no part in it.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from polytls.fingerprint.normal import NormalHello, normalise
from polytls.profiles.bodies import CODECS
from polytls.profiles.exact import (
    GREASE,
    HYBRIDS,
    TLS13,
    X25519,
    Ech,
    Entry,
    ExactHello,
    Numbers,
    Padding,
    Raw,
)
from polytls.wire.client_hello import RANDOM_BYTES, ClientHello, Extension
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "golden.test"
"""The server name of comparisons, as in the goldens (RFC 6761 reserves the domain)."""

_TLS12 = 0x0303
_SESSION_ID_BYTES = 32
_X25519_BYTES = 32
_SHARE_BYTES = {0x11EC: 1216, 0x6399: 1216, 0x001D: 32, 0x0017: 65, 0x0018: 97, 0x0019: 133, 0x0202: 1568}
_HANDSHAKE_HEADER_BYTES = 4
_PADDED_BYTES, _MIN_PADDED_BYTES = 512, 256  # RFC 7685 §4
_PSK_AND_COOKIE = frozenset({ExtensionType.COOKIE.value, ExtensionType.PRE_SHARED_KEY.value})


def expected_normal(hello: ExactHello, *, host: bytes) -> NormalHello:
    """What first hellos for `host` (a name) have to be."""
    return normalise(hellos_of(hello, host=host), permuted=hello.permute)


def hellos_of(hello: ExactHello, *, host: bytes) -> list[ClientHello]:
    """First hellos for `host` in the profile's order: one for each AEAD and payload length of its ECH, else
    one."""
    ech = hello.ech
    drawn = product(ech.aeads, ech.payloads) if ech is not None else [(0, 0)]
    return [_hello(hello, host, aead, payload) for aead, payload in drawn]


def _hello(hello: ExactHello, host: bytes, aead: int, payload: int) -> ClientHello:
    extensions: list[Extension] = []
    grease = 0
    for entry in hello.extensions:
        if entry.type in _PSK_AND_COOKIE:
            continue
        number = entry.type
        if number == GREASE:
            number, grease = GREASE + 0x1010 * grease, grease + 1  # two of them are never the same
        extensions.append(Extension(number, _body(hello, entry, host, aead, payload)))
    tls13 = TLS13 in hello.numbers(ExtensionType.SUPPORTED_VERSIONS)
    session_id = bytes(_SESSION_ID_BYTES) if tls13 else b""
    head = 2 + RANDOM_BYTES + 1 + len(session_id) + 2 + 2 * len(hello.cipher_suites)
    head += 1 + len(hello.compression_methods) + 2
    extensions += _padding(hello.padding, _HANDSHAKE_HEADER_BYTES + head, extensions)
    return ClientHello(
        record_version=hello.record_version,
        legacy_version=_TLS12,
        random=bytes(RANDOM_BYTES),
        session_id=session_id,
        cipher_suites=hello.cipher_suites,
        compression_methods=hello.compression_methods,
        extensions=tuple(extensions),
    )


def _body(hello: ExactHello, entry: Entry, host: bytes, aead: int, payload: int) -> bytes:
    match entry.type:
        case ExtensionType.SERVER_NAME:
            return _vec16(b"\0" + _vec16(host))
        case ExtensionType.RENEGOTIATION_INFO:
            return b"\0"
        case ExtensionType.KEY_SHARE:
            return _shares(hello)
        case _:
            pass
    if isinstance(entry.body, Ech):
        return b"\0\0\1" + _u16(aead) + b"\0" + _vec16(bytes(_X25519_BYTES)) + _vec16(bytes(payload))
    return entry.body.data if isinstance(entry.body, Raw) else CODECS[entry.type].encode(entry.body)


def _shares(hello: ExactHello) -> bytes:
    entry = hello.entry(ExtensionType.KEY_SHARE)
    groups = entry.body.values if entry is not None and isinstance(entry.body, Numbers) else ()
    shares = b""
    for group in groups:
        if group == GREASE:
            key = b"\0"
        elif group in HYBRIDS:
            key = bytes(_SHARE_BYTES[group])
        else:
            # The hybrid share's key is zeros; this one is the same, or is not.
            same = group == X25519 and hello.reuse_x25519
            key = (b"\0" if same else b"\1") * _SHARE_BYTES[group]
        shares += _u16(group) + _vec16(key)
    return _vec16(shares)


def _padding(rule: Padding, head: int, extensions: Sequence[Extension]) -> list[Extension]:
    length = head + sum(4 + len(extension.body) for extension in extensions)
    if rule is Padding.NONE or not _MIN_PADDED_BYTES <= length < _PADDED_BYTES:
        return []
    least = 0 if rule is Padding.OPENSSL else 1
    return [Extension(ExtensionType.PADDING, bytes(max(_PADDED_BYTES - length - 4, least)))]


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data
