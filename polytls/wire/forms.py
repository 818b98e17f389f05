"""Whether the body of a ClientHello's extension has the form that its standard gives it (pure).

Theory of operation
-------------------
`parse_client_hello` keeps bodies as they are, for an odd client is the interesting one. Who is about to send
a body on must look further: a server answers one that has not its form with decode_error, and nobody can
tell whose mistake that was. `has_form` knows the forms of extensions that clients send; a type it does not
know may have any body. Only the form counts: a list of numbers that nobody assigned is one.

Left out are extensions whose body is never sent on (server_name, session_ticket, cookie, pre_shared_key,
early_data, padding, encrypted_client_hello) and trust_anchors, into which the engine looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType

MIN_RECORD_LIMIT_BYTES = 64
"""RFC 8449 §4."""

_OCSP = 1  # RFC 6066 §8
_HIGHEST_FRAGMENT_CODE = 4  # RFC 6066 §4

_Read = Callable[[Cursor], None]


def has_form(extension_type: int, body: bytes) -> bool:
    """Whether `body` has the form of this extension in a ClientHello. True for a type that is not known."""
    read = _FORMS.get(extension_type)
    if read is None:
        return True
    cursor = Cursor(body)
    try:
        read(cursor)
        cursor.finish()
    except CursorError:
        return False
    return True


def _nothing(_: Cursor) -> None:
    """The extension is its own message."""


def _u16s(values: bytes) -> None:
    if not Cursor(values).u16s():
        raise CursorError("the list is empty")


def _u16s_after_u16(cursor: Cursor) -> None:
    _u16s(cursor.vec16())


def _u16s_after_u8(cursor: Cursor) -> None:
    _u16s(cursor.vec8())


def _u8s_after_u8(cursor: Cursor) -> None:
    if not cursor.vec8():
        raise CursorError("the list is empty")


def _names(cursor: Cursor) -> None:
    names = Cursor(cursor.vec16())
    while True:  # one at least, each of one byte at least
        if not names.vec8():
            raise CursorError("a name is empty")
        if not names.remaining:
            return


def _key_shares(cursor: Cursor) -> None:
    shares = Cursor(cursor.vec16())
    while shares.remaining:
        shares.u16()
        if not shares.vec16():
            raise CursorError("a key share is empty")


def _status_request(cursor: Cursor) -> None:
    if cursor.u8() != _OCSP:
        cursor.take(cursor.remaining)  # other types have forms of their own
        return
    responders = Cursor(cursor.vec16())
    while responders.remaining:
        if not responders.vec16():
            raise CursorError("a responder's id is empty")
    cursor.vec16()


def _fragment_code(cursor: Cursor) -> None:
    if not 1 <= cursor.u8() <= _HIGHEST_FRAGMENT_CODE:
        raise CursorError("no such length")


def _record_limit(cursor: Cursor) -> None:
    if cursor.u16() < MIN_RECORD_LIMIT_BYTES:
        raise CursorError("less than a server may accept")


def _srtp(cursor: Cursor) -> None:
    _u16s(cursor.vec16())
    cursor.vec8()


_FORMS: Mapping[int, _Read] = MappingProxyType(
    {
        1: _fragment_code,  # max_fragment_length
        14: _srtp,  # RFC 5764 §4.1.1
        19: _u8s_after_u8,  # client_certificate_type (RFC 7250 §3)
        20: _u8s_after_u8,  # server_certificate_type
        22: _nothing,  # encrypt_then_mac (RFC 7366 §2)
        49: _nothing,  # post_handshake_auth (RFC 8446 §4.2.6)
        13172: _nothing,  # next_protocol_negotiation (draft-agl-tls-nextprotoneg §3)
        ExtensionType.STATUS_REQUEST.value: _status_request,  # RFC 6066 §8
        ExtensionType.SUPPORTED_GROUPS.value: _u16s_after_u16,  # RFC 8446 §4.2.7
        ExtensionType.EC_POINT_FORMATS.value: _u8s_after_u8,  # RFC 8422 §5.1.2
        ExtensionType.SIGNATURE_ALGORITHMS.value: _u16s_after_u16,  # RFC 8446 §4.2.3
        ExtensionType.SIGNATURE_ALGORITHMS_CERT.value: _u16s_after_u16,
        ExtensionType.DELEGATED_CREDENTIAL.value: _u16s_after_u16,  # RFC 9345 §4.1.1
        ExtensionType.ALPN.value: _names,  # RFC 7301 §3.1
        ExtensionType.APPLICATION_SETTINGS.value: _names,  # draft-vvv-tls-alps §4
        ExtensionType.APPLICATION_SETTINGS_OLD.value: _names,
        ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP.value: _nothing,  # RFC 6962 §3.3.1
        ExtensionType.EXTENDED_MASTER_SECRET.value: _nothing,  # RFC 7627 §5.1
        ExtensionType.COMPRESS_CERTIFICATE.value: _u16s_after_u8,  # RFC 8879 §3
        ExtensionType.RECORD_SIZE_LIMIT.value: _record_limit,
        ExtensionType.SUPPORTED_VERSIONS.value: _u16s_after_u8,  # RFC 8446 §4.2.1
        ExtensionType.PSK_KEY_EXCHANGE_MODES.value: _u8s_after_u8,  # RFC 8446 §4.2.9
        ExtensionType.KEY_SHARE.value: _key_shares,  # RFC 8446 §4.2.8
    }
)
