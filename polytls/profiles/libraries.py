"""What a first ClientHello does not show, by the TLS library that wrote it.

Some of what a client does cannot be seen in a first hello: where a cookie goes after a HelloRetryRequest,
whether that hello is padded again, what changes when a session is resumed, which lengths of ECH payload are
drawn now and then. All of these are the library's doing rather than the program's, and libraries are few
and can be told apart. The facts were observed in captures of the libraries' own second hellos.

A wrong guess is harmless for the first hello, which is what it was. Left out: clients that change their
library's behaviour here; none is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.profiles.exact import Padding
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

BORINGSSL_ECH_PAYLOADS = (144, 176, 208, 240)
"""Bytes: 128 to 224 of padded inner hello, in steps of 32, and the tag (BoringSSL, setup_ech_grease)."""

NSS_ECH_AEADS = (1, 3)
"""AES-128-GCM and ChaCha20Poly1305: NSS draws one for each connection; its payload's length is computed."""

_STATUS_REQUEST_V2 = 17
_ENCRYPT_THEN_MAC = 22


@dataclass(frozen=True, slots=True)
class Library:
    """One family. `cookie_after` are the extensions behind which a cookie stands: the first that is there."""

    name: str
    cookie_after: tuple[int, ...]
    padding: Padding
    """The rule that such a client follows where it pads at all."""
    pads_unseen: bool = False
    """Whether it is taken to pad where every hello seen was too long (or too short) to tell."""
    psk_step: int = 0
    ticket_full_only: bool = False
    new_shares_on_cookie: bool = False
    late_change_cipher_spec: bool = False
    keep_session_id: bool = False


_VERSIONS = ExtensionType.SUPPORTED_VERSIONS.value
_SHARES = ExtensionType.KEY_SHARE.value
_SCHEMES = ExtensionType.SIGNATURE_ALGORITHMS.value
_NAME, _RENEGOTIATION = ExtensionType.SERVER_NAME.value, ExtensionType.RENEGOTIATION_INFO.value

BORINGSSL = Library("BoringSSL", (_VERSIONS,), Padding.BORINGSSL, pads_unseen=True)
NSS = Library("NSS", (_SCHEMES,), Padding.BORINGSSL, psk_step=32, ticket_full_only=True)
OPENSSL = Library("OpenSSL", (_SHARES,), Padding.OPENSSL)
GNUTLS = Library(
    "GnuTLS",
    (_NAME, _RENEGOTIATION),
    Padding.OPENSSL,
    late_change_cipher_spec=True,
    keep_session_id=True,
)
JAVA = Library("Java", (_VERSIONS,), Padding.NONE, new_shares_on_cookie=True, late_change_cipher_spec=True)
GO = Library("Go", (_VERSIONS,), Padding.NONE)
OTHER = Library("an unknown library", (_SHARES,), Padding.BORINGSSL)


def library_of(hello: ClientHello) -> Library:
    """The library that wrote a hello, by what only that one does."""
    types = set(hello.extension_types)
    if any(map(is_grease, (*types, *hello.cipher_suites))):
        return BORINGSSL
    if _STATUS_REQUEST_V2 in types:
        return JAVA
    if ExtensionType.RECORD_SIZE_LIMIT in types:
        return NSS if ExtensionType.DELEGATED_CREDENTIAL in types else GNUTLS
    if _ENCRYPT_THEN_MAC in types:
        return OPENSSL
    return GO if ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP in types else OTHER
