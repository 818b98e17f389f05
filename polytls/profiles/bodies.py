"""Extension bodies: bytes <-> values <-> what a person writes in a profile.

Theory of operation
-------------------
`CODECS` has one descriptor for each extension whose body is more than bytes to a reader. A codec goes four
ways: TOML value to `Body` and back, body to bytes and back. Reading a profile, writing one, compiling it and
learning it from a capture all go through here, so that a new extension is one line.

`SIMPLE` extensions are written as their bare name: their body is empty, or always the same. Anything else
is `Raw`: a number or name with a body in hexadecimal.

What decodes must encode to the same bytes; where it does not (a list with a trailing byte, say) the body
stays `Raw`, and is reproduced as it is. GREASE values are `GREASE` in the lists that have a slot for them,
and plain numbers elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from polytls.profiles.exact import BUILTIN, GREASE, Anchors, Body, Ech, Limit, Numbers, Protocols, Raw
from polytls.profiles.knobs import parse_protocols
from polytls.profiles.vocabulary import (
    AEAD_WORDS,
    COMPRESSOR_WORDS,
    GREASE_WORD,
    GROUP_WORDS,
    MODE_WORDS,
    POINT_WORDS,
    SCHEME_WORDS,
    VERSION_WORDS,
    Vocabulary,
    read_array,
    read_numbers,
)
from polytls.profiles.wording import WrongValueError, shown, type_of
from polytls.wire import iana
from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_ECH_PAYLOAD_BYTES = 4096
"""Real ones have about 240, with a PSK about 530."""

MIN_ECH_PAYLOAD_BYTES = 17
"""A ciphertext of one byte and its 16-byte tag (RFC 9180 §7.3)."""

MAX_PSK_STEP_BYTES = 255
"""One byte in the template; NSS pads by 32."""

MIN_RECORD_LIMIT_BYTES = 64
"""RFC 8449 §4."""

_DOTTED = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")
_MAX_ARC_BITS = 28  # four base-128 digits; real private enterprise numbers have three


@dataclass(frozen=True, slots=True)
class Codec:
    """One extension with a typed body. `key` is its word in a profile.

    `read` raises `WrongValueError`; `decode` raises `CursorError` (the body is not of this form).
    """

    type: int
    key: str
    form: str
    read: Callable[[object], Body]
    show: Callable[[Body], object]
    encode: Callable[[Body], bytes]
    decode: Callable[[bytes], Body]


def decode_body(extension_type: int, data: bytes) -> Body:
    """The typed value of a captured body, `Raw` where it has none or its form is unusual."""
    codec = CODECS.get(extension_type)
    if codec is None or (extension_type in BUILTIN and extension_type not in _DECODED_BUILTINS):
        return Raw() if extension_type in BUILTIN else Raw(data)
    try:
        body = codec.decode(data)
        same = codec.encode(body) == _with_one_grease(extension_type, data)
    except (CursorError, UnicodeDecodeError):
        return Raw(data)
    return body if same else Raw(data)


def read_table(value: object, keys: Mapping[str, bool]) -> dict[str, object]:
    """A TOML table with these keys (and whether each is needed) and no others. Raises `WrongValueError`."""
    allowed = f"a table of {', '.join(keys)}"
    if not isinstance(value, dict):
        raise WrongValueError(f"is {type_of(value)}; allowed: {allowed}")
    for key in value:
        if key not in keys:
            raise WrongValueError(f"has an unknown key {shown(key)}; allowed: {allowed}")
    missing = [key for key, needed in keys.items() if needed and key not in value]
    if missing:
        raise WrongValueError(f"leaves out {', '.join(missing)}; allowed: {allowed}")
    return dict(value)


def read_integer(value: object, least: int, most: int, what: str = "") -> int:
    """An integer between two bounds. Raises `WrongValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise WrongValueError(f"{what} is {shown(value)}; allowed: {least} to {most}".lstrip())
    return value


def _with_one_grease(extension_type: int, data: bytes) -> bytes:
    """The body with its GREASE values replaced by `GREASE`, where its list has a slot for them."""
    if extension_type not in GREASE_LISTS:
        return data
    start = GREASE_LISTS[extension_type]
    words = [data[offset : offset + 2] for offset in range(start, len(data), 2)]
    greased = [
        GREASE.to_bytes(2, "big") if len(word) == 2 and iana.is_grease(int.from_bytes(word, "big")) else word
        for word in words
    ]
    return data[:start] + b"".join(greased)


def _sized(width: int, data: bytes) -> bytes:
    if len(data) >= 1 << 8 * width:
        raise WrongValueError(f"is {len(data)} bytes long; allowed: less than {1 << 8 * width}")
    return len(data).to_bytes(width, "big") + data


def _list(extension: ExtensionType, key: str, vocabulary: Vocabulary, prefix: int, width: int) -> Codec:
    """The codec of a list of numbers: `prefix` bytes of length, then `width` bytes a number."""

    def decode(data: bytes) -> Body:
        cursor = Cursor(data)
        inner = Cursor(cursor.vec16() if prefix == 2 else cursor.vec8())
        cursor.finish()
        values = inner.u16s() if width == 2 else tuple(inner.take(inner.remaining))
        return Numbers(tuple(GREASE if vocabulary.grease and iana.is_grease(v) else v for v in values))

    def encode(body: Body) -> bytes:
        values = cast(Numbers, body).values
        return _sized(prefix, b"".join(value.to_bytes(width, "big") for value in values))

    def read(value: object) -> Body:
        body = Numbers(read_numbers(vocabulary, value))
        encode(body)  # refuses what does not fit its length
        return body

    return Codec(
        extension.value,
        key,
        f"array of {vocabulary.what}s",
        read,
        lambda body: [vocabulary.word(number) for number in cast(Numbers, body).values],
        encode,
        decode,
    )


def _protocols(extension: ExtensionType, key: str) -> Codec:
    def decode(data: bytes) -> Body:
        cursor = Cursor(data)
        inner = Cursor(cursor.vec16())
        cursor.finish()
        names: list[str] = []
        while inner.remaining:
            names.append(inner.vec8().decode("ascii"))
        if not names:
            raise CursorError("there is no protocol in the list")
        try:
            return Protocols(parse_protocols(names))
        except WrongValueError as problem:
            raise CursorError(str(problem)) from None

    def encode(body: Body) -> bytes:
        names = cast(Protocols, body).names
        return _sized(2, b"".join(_sized(1, name.encode("ascii")) for name in names))

    def read(value: object) -> Body:
        names = parse_protocols(value)
        if not names:
            raise WrongValueError("is empty; allowed: at least one protocol name")
        return Protocols(names)

    return Codec(
        extension.value,
        key,
        "array of protocol names",
        read,
        lambda body: list(cast(Protocols, body).names),
        encode,
        decode,
    )


def _limit() -> Codec:
    def read(value: object) -> Body:
        return Limit(read_integer(value, MIN_RECORD_LIMIT_BYTES, 0xFFFF))

    def decode(data: bytes) -> Body:
        cursor = Cursor(data)
        limit = cursor.u16()
        cursor.finish()
        if limit < MIN_RECORD_LIMIT_BYTES:
            raise CursorError(f"a limit of {limit} bytes is not allowed")
        return Limit(limit)

    return Codec(
        ExtensionType.RECORD_SIZE_LIMIT.value,
        "record_size_limit",
        "bytes",
        read,
        lambda body: cast(Limit, body).bytes,
        lambda body: cast(Limit, body).bytes.to_bytes(2, "big"),
        decode,
    )


def _anchors() -> Codec:
    def decode(data: bytes) -> Body:
        cursor = Cursor(data)
        inner = Cursor(cursor.vec16())
        cursor.finish()
        ids: list[bytes] = []
        while inner.remaining:
            ids.append(inner.vec8())
        return Anchors(tuple(ids))

    def encode(body: Body) -> bytes:
        return _sized(2, b"".join(_sized(1, anchor) for anchor in cast(Anchors, body).ids))

    def read(value: object) -> Body:
        items = read_array(value, "an array of trust anchors")
        body = Anchors(tuple(_anchor_bytes(item) for item in items))
        encode(body)
        return body

    return Codec(
        ExtensionType.TRUST_ANCHORS.value,
        "trust_anchors",
        'array of identifiers ("44947.2.1")',
        read,
        lambda body: [_anchor_word(anchor) for anchor in cast(Anchors, body).ids],
        encode,
        decode,
    )


def _anchor_bytes(word: object) -> bytes:
    """An identifier from its dotted form: a relative OID (X.690 §8.20), or hexadecimal after ``0x``."""
    allowed = 'identifiers as "44947.2.1" or "0x" and hexadecimal digits'
    if isinstance(word, str) and len(word) <= 2 + 2 * 0xFF:
        if _DOTTED.fullmatch(word):
            return b"".join(_arc(int(arc)) for arc in word.split("."))
        if word.startswith("0x"):
            data = _unhex(word[2:])
            if data is not None and 1 <= len(data) <= 0xFF:
                return data
    raise WrongValueError(f"holds {shown(word)}; allowed: {allowed}")


def _anchor_word(anchor: bytes) -> str:
    arcs: list[int] = []
    value = 0
    for byte in anchor:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    dotted = ".".join(map(str, arcs))
    usual = arcs and all(arc.bit_length() <= _MAX_ARC_BITS for arc in arcs)
    # Only the shortest form of each arc reads back as the same bytes.
    return dotted if usual and b"".join(map(_arc, arcs)) == anchor else f"0x{anchor.hex()}"


def _arc(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def _ech() -> Codec:
    keys = {"aeads": True, "payloads": True, "psk_step": False}

    def read(value: object) -> Body:
        table = read_table(value, keys)
        payloads = tuple(
            read_integer(item, MIN_ECH_PAYLOAD_BYTES, MAX_ECH_PAYLOAD_BYTES, "a payload's length in bytes")
            for item in read_array(table["payloads"], "an array of lengths in bytes")
        )
        step = read_integer(table.get("psk_step", 0), 0, MAX_PSK_STEP_BYTES, "psk_step")
        aeads = read_numbers(AEAD_WORDS, table["aeads"])
        unknown = [aead for aead in aeads if aead not in AEAD_WORDS.names]
        if unknown or not aeads or not payloads:
            allowed = f"aeads of {', '.join(AEAD_WORDS.names.values())}, and payloads"
            raise WrongValueError(f"names no AEAD, an unknown one, or no payload; allowed: {allowed}")
        return Ech(aeads, payloads, step)

    def show(body: Body) -> object:
        ech = cast(Ech, body)
        table: dict[str, object] = {
            "aeads": [AEAD_WORDS.word(aead) for aead in ech.aeads],
            "payloads": list(ech.payloads),
        }
        return {**table, "psk_step": ech.psk_step} if ech.psk_step else table

    return Codec(
        ExtensionType.ENCRYPTED_CLIENT_HELLO.value,
        "encrypted_client_hello",
        "{ aeads = […], payloads = [bytes, …], psk_step = bytes }",
        read,
        show,
        lambda _: b"",
        lambda _: Raw(),
    )


def _unhex(digits: str) -> bytes | None:
    # `bytes.fromhex` would also take spaces.
    return bytes.fromhex(digits) if re.fullmatch(r"([0-9a-fA-F]{2})*", digits) else None


def read_hex(value: object) -> bytes:
    """A body in hexadecimal. Raises `WrongValueError`."""
    data = _unhex(value) if isinstance(value, str) and len(value) <= 2 * 0xFFFF else None
    if data is None:
        raise WrongValueError(f"body is {shown(value)}; allowed: a string of hexadecimal digits, two a byte")
    return data


def _by_type(codecs: Iterable[Codec]) -> dict[int, Codec]:
    return {codec.type: codec for codec in codecs}


CODECS: Mapping[int, Codec] = _by_type(
    (
        _list(ExtensionType.SUPPORTED_GROUPS, "supported_groups", GROUP_WORDS, 2, 2),
        _list(ExtensionType.EC_POINT_FORMATS, "ec_point_formats", POINT_WORDS, 1, 1),
        _list(ExtensionType.SIGNATURE_ALGORITHMS, "signature_algorithms", SCHEME_WORDS, 2, 2),
        _list(ExtensionType.SIGNATURE_ALGORITHMS_CERT, "signature_algorithms_cert", SCHEME_WORDS, 2, 2),
        _list(ExtensionType.DELEGATED_CREDENTIAL, "delegated_credential", SCHEME_WORDS, 2, 2),
        _list(ExtensionType.SUPPORTED_VERSIONS, "supported_versions", VERSION_WORDS, 1, 2),
        _list(ExtensionType.PSK_KEY_EXCHANGE_MODES, "psk_key_exchange_modes", MODE_WORDS, 1, 1),
        _list(ExtensionType.COMPRESS_CERTIFICATE, "compress_certificate", COMPRESSOR_WORDS, 1, 2),
        _list(ExtensionType.KEY_SHARE, "key_share", GROUP_WORDS, 2, 2),
        _protocols(ExtensionType.ALPN, "alpn"),
        _protocols(ExtensionType.APPLICATION_SETTINGS, "application_settings"),
        _protocols(ExtensionType.APPLICATION_SETTINGS_OLD, "application_settings_old"),
        _limit(),
        _anchors(),
        _ech(),
    )
)

GREASE_LISTS: Mapping[int, int] = {
    ExtensionType.SUPPORTED_GROUPS.value: 2,
    ExtensionType.SIGNATURE_ALGORITHMS.value: 2,
    ExtensionType.SIGNATURE_ALGORITHMS_CERT.value: 2,
    ExtensionType.DELEGATED_CREDENTIAL.value: 2,
    ExtensionType.SUPPORTED_VERSIONS.value: 1,
}
"""Lists that may hold GREASE, with the offset of their first number in the body."""

_DECODED_BUILTINS = frozenset(
    {
        ExtensionType.ALPN.value,
        ExtensionType.APPLICATION_SETTINGS.value,
        ExtensionType.APPLICATION_SETTINGS_OLD.value,
    }
)
"""Written by BoringSSL, but what for is in the captured body. (Key shares and ECH are learned elsewhere.)"""

SIMPLE: Mapping[int, bytes] = {
    ExtensionType.SERVER_NAME.value: b"",
    ExtensionType.SESSION_TICKET.value: b"",
    ExtensionType.RENEGOTIATION_INFO.value: b"",
    ExtensionType.COOKIE.value: b"",
    ExtensionType.EXTENDED_MASTER_SECRET.value: b"",
    ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP.value: b"",
    22: b"",  # encrypt_then_mac (RFC 7366)
    49: b"",  # post_handshake_auth (RFC 8446 §4.2.6)
    ExtensionType.STATUS_REQUEST.value: bytes(
        (1, 0, 0, 0, 0)
    ),  # OCSP, no responders, no extensions (RFC 6066)
}
"""Extensions written as a bare name, with the body they have (empty too where BoringSSL writes it)."""


def extension_word(extension_type: int) -> str:
    """The word for an extension in a profile."""
    if extension_type == GREASE:
        return GREASE_WORD
    codec = CODECS.get(extension_type)
    return codec.key if codec else iana.EXTENSIONS.get(extension_type) or f"{extension_type:#06x}"


def extension_type_of(word: str) -> int | None:
    """The number of an extension by its word here or its IANA name, any case; None for an unknown one."""
    lower = word.lower()
    if lower == GREASE_WORD.lower():
        return GREASE
    for codec in CODECS.values():
        if codec.key == lower:
            return codec.type
    return iana.extension_number(lower)
