"""A ClientHello -> a value, with everything that a fingerprint can see.

Theory of operation
-------------------
`parse_client_hello` undoes the record layer (RFC 8446 §5.1), then `parse_client_hello_message` reads the
message (§4.1.2). Order is kept everywhere, and extension bodies are kept as bytes: the types that we
understand are decoded when asked for, by the properties of `ClientHello`, so that a hello with one odd
body still parses and still has a shape.

What is held: every length fits its container exactly, and no extension type occurs twice (§4.2), so that
looking one up has one answer. What is not held: lower bounds such as "at least one cipher suite", the rules
about which extension needs which, and extensions' order. This is a reader of what clients send, and an odd
client is the interesting one; the engine, which answers hellos, holds those rules.

The caller bounds the size of what it passes in: the engine refuses hellos beyond its own limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from polytls.errors import PolytlsError
from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RECORD_BYTES = 1 << 14
"""RFC 8446 §5.1: the longest fragment of an unprotected record."""

MAX_SESSION_ID_BYTES = 32
"""RFC 8446 §4.1.2."""

RANDOM_BYTES = 32

_HANDSHAKE_RECORD = 22  # RFC 8446 §5.1
_CLIENT_HELLO = 1  # RFC 8446 §4
_HANDSHAKE_HEADER_BYTES = 4
_RECORD_MAJOR_VERSION = 3  # every SSL 3.0 and TLS record starts so (RFC 8446 §5.1, appendix D)
_HOST_NAME = 0  # RFC 6066 §3

_T = TypeVar("_T")


class HelloError(PolytlsError, ValueError):
    """The bytes are not a ClientHello, or a part of it is malformed. The message says which part."""


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as sent: its type's number, and its body without the two length bytes."""

    type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class KeyShare:
    """One key share: the group's number and the public value (RFC 8446 §4.2.8)."""

    group: int
    key_exchange: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """One ClientHello, in the order of the wire.

    `record_version` is that of the first record, None where the message came without records.
    `cipher_suites` are numbers, SCSVs and GREASE included. A hello without an extensions block and one with
    an empty block both have no `extensions`.

    The properties decode extensions: an absent one is None or an empty tuple, a malformed one raises
    `HelloError`. GREASE values (RFC 8701) are kept.
    """

    record_version: int | None
    legacy_version: int
    random: bytes = field(repr=False)
    session_id: bytes = field(repr=False)
    cipher_suites: tuple[int, ...]
    compression_methods: tuple[int, ...]
    extensions: tuple[Extension, ...]

    def extension(self, extension_type: int) -> bytes | None:
        """The body of the extension of this type, None where it is absent."""
        for extension in self.extensions:
            if extension.type == extension_type:
                return extension.body
        return None

    @property
    def extension_types(self) -> tuple[int, ...]:
        return tuple(extension.type for extension in self.extensions)

    @property
    def sni(self) -> bytes | None:
        """The host name of server_name (RFC 6066 §3), as sent."""
        return self._decode(ExtensionType.SERVER_NAME, _server_name, None)

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """The protocols offered (RFC 7301 §3.1), most wanted first."""
        return self._decode(ExtensionType.ALPN, _protocols, ())

    @property
    def supported_groups(self) -> tuple[int, ...]:
        """RFC 8446 §4.2.7."""
        return self._decode(ExtensionType.SUPPORTED_GROUPS, _u16s_after_u16, ())

    @property
    def point_formats(self) -> tuple[int, ...]:
        """RFC 8422 §5.1.2."""
        return self._decode(ExtensionType.EC_POINT_FORMATS, _u8s_after_u8, ())

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """RFC 8446 §4.2.3."""
        return self._decode(ExtensionType.SIGNATURE_ALGORITHMS, _u16s_after_u16, ())

    @property
    def signature_algorithms_cert(self) -> tuple[int, ...]:
        """RFC 8446 §4.2.3."""
        return self._decode(ExtensionType.SIGNATURE_ALGORITHMS_CERT, _u16s_after_u16, ())

    @property
    def delegated_credentials(self) -> tuple[int, ...]:
        """The signature schemes accepted of delegated credentials (RFC 9345 §4.1.1)."""
        return self._decode(ExtensionType.DELEGATED_CREDENTIAL, _u16s_after_u16, ())

    @property
    def supported_versions(self) -> tuple[int, ...]:
        """RFC 8446 §4.2.1."""
        return self._decode(ExtensionType.SUPPORTED_VERSIONS, _u16s_after_u8, ())

    @property
    def key_shares(self) -> tuple[KeyShare, ...]:
        """RFC 8446 §4.2.8."""
        return self._decode(ExtensionType.KEY_SHARE, _key_shares, ())

    @property
    def psk_key_exchange_modes(self) -> tuple[int, ...]:
        """RFC 8446 §4.2.9."""
        return self._decode(ExtensionType.PSK_KEY_EXCHANGE_MODES, _u8s_after_u8, ())

    @property
    def certificate_compression(self) -> tuple[int, ...]:
        """The algorithms of compress_certificate (RFC 8879 §3)."""
        return self._decode(ExtensionType.COMPRESS_CERTIFICATE, _u16s_after_u8, ())

    @property
    def record_size_limit(self) -> int | None:
        """In bytes (RFC 8449 §4)."""
        return self._decode(ExtensionType.RECORD_SIZE_LIMIT, Cursor.u16, None)

    def _decode(self, extension: ExtensionType, read: Callable[[Cursor], _T], absent: _T) -> _T:
        body = self.extension(extension.value)
        if body is None:
            return absent
        return _read(body, f"the {extension.name.lower()} extension", read)


def parse_client_hello(records: bytes) -> ClientHello:
    """Read a ClientHello from the TLS records that carry it, however many they are.

    Records after the one that completes the hello (early data, for one) are not looked at. Raises
    `HelloError` and nothing else.
    """
    record_version, message = _read_records(Cursor(records))
    return parse_client_hello_message(message[_HANDSHAKE_HEADER_BYTES:], record_version=record_version)


def parse_client_hello_message(body: bytes, *, record_version: int | None = None) -> ClientHello:
    """Read the ClientHello structure: the handshake message without its four bytes of type and length.

    Raises `HelloError` and nothing else.
    """

    def read(cursor: Cursor) -> ClientHello:
        return ClientHello(
            record_version=record_version,
            legacy_version=cursor.u16(),
            random=cursor.take(RANDOM_BYTES),
            session_id=_session_id(cursor),
            cipher_suites=Cursor(cursor.vec16()).u16s(),
            compression_methods=tuple(cursor.vec8()),
            extensions=_extensions(cursor),
        )

    return _read(body, "the ClientHello", read)


def _read(data: bytes, what: str, read: Callable[[Cursor], _T]) -> _T:
    """All of `data` as one structure."""
    cursor = Cursor(data)
    try:
        value = read(cursor)
        cursor.finish()
    except CursorError as problem:
        raise HelloError(f"{what} is malformed: {problem}") from None
    return value


def _read_records(cursor: Cursor) -> tuple[int, bytes]:
    """The version of the first record, and the one handshake message, header included."""
    first_version: int | None = None
    message = bytearray()
    while True:
        try:
            version, fragment = _record(cursor)
        except CursorError as problem:
            raise HelloError(f"the ClientHello is cut short: {problem}") from None
        first_version = version if first_version is None else first_version
        message += fragment
        if message[0] != _CLIENT_HELLO:
            raise HelloError(f"the handshake message is of type {message[0]}, not a ClientHello")
        if len(message) < _HANDSHAKE_HEADER_BYTES:
            continue
        whole = _HANDSHAKE_HEADER_BYTES + int.from_bytes(message[1:_HANDSHAKE_HEADER_BYTES], "big")
        if len(message) > whole:
            # RFC 8446 §5.1: no other message may follow before the server has answered.
            raise HelloError(f"{len(message) - whole} bytes follow the ClientHello in its record")
        if len(message) == whole:
            return first_version, bytes(message)


def _record(cursor: Cursor) -> tuple[int, bytes]:
    content_type = cursor.u8()
    if content_type != _HANDSHAKE_RECORD:
        raise HelloError(f"not a TLS handshake record: it starts with byte {content_type:#04x}, not 0x16")
    version = cursor.u16()
    if version >> 8 != _RECORD_MAJOR_VERSION:
        raise HelloError(f"the record's version is {version:#06x}, which is not TLS")
    fragment = cursor.vec16()
    if not 1 <= len(fragment) <= MAX_RECORD_BYTES:
        raise HelloError(f"a handshake record has 1 to {MAX_RECORD_BYTES} bytes, this one {len(fragment)}")
    return version, fragment


def _session_id(cursor: Cursor) -> bytes:
    session_id = cursor.vec8()
    if len(session_id) > MAX_SESSION_ID_BYTES:
        raise CursorError(f"the session id has {len(session_id)} bytes, more than {MAX_SESSION_ID_BYTES}")
    return session_id


def _extensions(cursor: Cursor) -> tuple[Extension, ...]:
    if not cursor.remaining:
        return ()  # RFC 8446 §4.1.2: TLS 1.2 clients may leave the whole block out
    block = Cursor(cursor.vec16())
    extensions: dict[int, Extension] = {}
    while block.remaining:
        extension = Extension(block.u16(), block.vec16())
        if extension.type in extensions:
            raise CursorError(f"extension {extension.type:#06x} is there twice")
        extensions[extension.type] = extension
    return tuple(extensions.values())


def _server_name(cursor: Cursor) -> bytes:
    """The only entry of the list. More names, or of another type, would be an invitation to disagree."""
    names = Cursor(cursor.vec16())
    name_type = names.u8()
    if name_type != _HOST_NAME:
        raise CursorError(f"the name is of type {name_type}, not a host name")
    name = names.vec16()
    names.finish()
    if not name:
        raise CursorError("the host name is empty")
    return name


def _protocols(cursor: Cursor) -> tuple[bytes, ...]:
    names = Cursor(cursor.vec16())
    protocols: list[bytes] = []
    while names.remaining:
        protocols.append(names.vec8())
    return tuple(protocols)


def _key_shares(cursor: Cursor) -> tuple[KeyShare, ...]:
    entries = Cursor(cursor.vec16())
    shares: list[KeyShare] = []
    while entries.remaining:
        shares.append(KeyShare(entries.u16(), entries.vec16()))
    return tuple(shares)


def _u16s_after_u16(cursor: Cursor) -> tuple[int, ...]:
    return Cursor(cursor.vec16()).u16s()


def _u16s_after_u8(cursor: Cursor) -> tuple[int, ...]:
    return Cursor(cursor.vec8()).u16s()


def _u8s_after_u8(cursor: Cursor) -> tuple[int, ...]:
    return tuple(cursor.vec8())
