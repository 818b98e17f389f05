"""`ExactHello` -> the template that the native engine writes ClientHellos from.

Theory of operation
-------------------
A template is an `ExactHello` with nothing left to look up: bytes, big-endian, every list with its length in
front. Bodies stand as they go on the wire. Where a GREASE value belongs there is `GREASE`, and a list of
*patches* (offset in the body, slot) says which two bytes take the value drawn for that slot; one patch
serves groups, versions and signature algorithms alike. Bodies that depend on the connection (`exact.BUILTIN`)
are empty: BoringSSL writes them in their place.

The format (number 1) is the one that ``SSL_CLIENT_HELLO_TEMPLATE_parse`` reads; the patches of BoringSSL
describe it. The same hello gives the same bytes always: native contexts and upstream sessions are kept by
them.
"""

from __future__ import annotations

from polytls.profiles.bodies import CODECS, GREASE_LISTS
from polytls.profiles.exact import BUILTIN, GREASE, Body, Entry, ExactHello, Numbers, Padding, Raw, check
from polytls.wire.iana import ExtensionType

FORMAT = 1

FLAG_PERMUTE = 1
FLAG_REUSE_X25519 = 2
FLAG_PAD = 4
FLAG_PAD_AFTER_RETRY = 8
FLAG_PAD_TO_EMPTY = 16
FLAG_NEW_SHARES_ON_COOKIE = 32
FLAG_LATE_CHANGE_CIPHER_SPEC = 64
FLAG_KEEP_SESSION_ID = 128

KIND_RAW = 0
KIND_BUILTIN = 1
KIND_GREASE = 2

ENTRY_FIXED = 1
ENTRY_FULL_ONLY = 2

SLOT_GROUP = 1
SLOT_EXTENSION1 = 2
SLOT_EXTENSION2 = 3
SLOT_VERSION = 4
SLOT_SIGALG = 7

_PADDING_FLAGS = {
    Padding.NONE: 0,
    Padding.BORINGSSL: FLAG_PAD,
    Padding.OPENSSL: FLAG_PAD | FLAG_PAD_AFTER_RETRY | FLAG_PAD_TO_EMPTY,
}

_LIST_SLOTS = {
    ExtensionType.SUPPORTED_GROUPS.value: SLOT_GROUP,
    ExtensionType.SUPPORTED_VERSIONS.value: SLOT_VERSION,
    ExtensionType.SIGNATURE_ALGORITHMS.value: SLOT_SIGALG,
    ExtensionType.SIGNATURE_ALGORITHMS_CERT.value: SLOT_SIGALG,
    ExtensionType.DELEGATED_CREDENTIAL.value: SLOT_SIGALG,
}


def compile_template(hello: ExactHello) -> bytes:
    """The template of a hello. Raises `exact.InexactError` for one that the engine could not honour."""
    check(hello)
    ech = hello.ech
    entries: list[bytes] = []
    grease = 0
    for entry in hello.extensions:
        entries.append(_entry(entry, SLOT_EXTENSION1 + grease))
        grease += entry.type == GREASE
    return b"".join(
        (
            bytes((FORMAT,)),
            hello.record_version.to_bytes(2, "big"),
            bytes((_flags(hello),)),
            _vec16(_u16s(hello.cipher_suites)),
            _vec8(bytes(hello.compression_methods)),
            _vec16(_u16s(hello.numbers(ExtensionType.KEY_SHARE))),
            _vec16(_u16s(ech.aeads if ech else ())),
            _vec16(_u16s(ech.payloads if ech else ())),
            bytes((ech.psk_step if ech else 0,)),
            _vec16(b"".join(entries)),
        )
    )


def _flags(hello: ExactHello) -> int:
    flags = _PADDING_FLAGS[hello.padding]
    flags |= FLAG_PERMUTE if hello.permute else 0
    flags |= FLAG_REUSE_X25519 if hello.reuse_x25519 else 0
    flags |= FLAG_NEW_SHARES_ON_COOKIE if hello.new_shares_on_cookie else 0
    flags |= FLAG_LATE_CHANGE_CIPHER_SPEC if hello.late_change_cipher_spec else 0
    flags |= FLAG_KEEP_SESSION_ID if hello.keep_session_id else 0
    return flags


def _entry(entry: Entry, grease_slot: int) -> bytes:
    flags = (ENTRY_FIXED if entry.fixed else 0) | (ENTRY_FULL_ONLY if entry.full_only else 0)
    kind, slot, body, patches = KIND_RAW, 0, _bytes(entry), _patches(entry.type, entry.body)
    if entry.type == GREASE:
        kind, slot = KIND_GREASE, grease_slot
    elif entry.type in BUILTIN:
        kind, body, patches = KIND_BUILTIN, b"", b""
    return _u16(entry.type) + bytes((kind, slot, flags)) + _vec16(body) + _vec8(patches)


def _bytes(entry: Entry) -> bytes:
    return entry.body.data if isinstance(entry.body, Raw) else CODECS[entry.type].encode(entry.body)


def _patches(extension_type: int, body: Body) -> bytes:
    if extension_type not in GREASE_LISTS or not isinstance(body, Numbers):
        return b""
    start, slot = GREASE_LISTS[extension_type], _LIST_SLOTS[extension_type]
    return b"".join(
        _u16(start + 2 * index) + bytes((slot,)) for index, value in enumerate(body.values) if value == GREASE
    )


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u16s(values: tuple[int, ...]) -> bytes:
    return b"".join(map(_u16, values))


def _vec8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data
