"""What an `ExactHello` means for the rest of the program, in the terms of the knobs.

The engine takes from the template what it will accept of a server. The fields of a `HelloSpec` beside it are
for whatever asks a profile what it offers: ALPN is narrowed by them, ALPS configured, sessions kept, lists of
profiles printed. They are the exact hello's as far as knobs can say it: what BoringSSL does not implement
is left out, what is listed twice is listed once, GREASE is only a flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polytls.profiles.boringssl import CERT_COMPRESSION, CIPHERS, GROUPS, SIGALGS, Names
from polytls.profiles.exact import GREASE
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polytls.profiles.exact import ExactHello

_LOWEST, _HIGHEST = 0x0301, 0x0304
_TLS12 = 0x0303


def fields(hello: ExactHello) -> dict[str, Any]:
    """The fields of `HelloSpec` that a profile decides, but for `resumption`."""
    types = {entry.type for entry in hello.extensions}
    new_alps = ExtensionType.APPLICATION_SETTINGS.value in types
    alps = ExtensionType.APPLICATION_SETTINGS if new_alps else ExtensionType.APPLICATION_SETTINGS_OLD
    low, high = versions(hello)
    return {
        "grease": hello.grease,
        "permute_extensions": hello.permute,
        "alpn": hello.protocols(ExtensionType.ALPN),
        "groups": _known(GROUPS, hello.numbers(ExtensionType.SUPPORTED_GROUPS)),
        "key_shares": _known(GROUPS, hello.numbers(ExtensionType.KEY_SHARE)),
        "cipher_list": tuple(CIPHERS.name_of(suite) for suite in _known(CIPHERS, hello.cipher_suites)),
        "sigalgs": _known(SIGALGS, hello.numbers(ExtensionType.SIGNATURE_ALGORITHMS)),
        "ocsp_stapling": ExtensionType.STATUS_REQUEST.value in types,
        "signed_cert_timestamps": ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP.value in types,
        "cert_compression": _known(CERT_COMPRESSION, hello.numbers(ExtensionType.COMPRESS_CERTIFICATE)),
        "min_tls": low,
        "max_tls": high,
        "ech_grease": ExtensionType.ENCRYPTED_CLIENT_HELLO.value in types,
        "alps": hello.protocols(alps),
        "alps_new_codepoint": new_alps or ExtensionType.APPLICATION_SETTINGS_OLD.value not in types,
        "session_tickets": ExtensionType.SESSION_TICKET.value in types,
    }


def versions(hello: ExactHello) -> tuple[int, int]:
    """The lowest and highest version offered; TLS 1.2 alone where the hello does not list them."""
    offered = [
        version
        for version in hello.numbers(ExtensionType.SUPPORTED_VERSIONS)
        if version != GREASE and _LOWEST <= version <= _HIGHEST
    ]
    return (min(offered), max(offered)) if offered else (_TLS12, _TLS12)


def _known(names: Names, numbers: Iterable[int]) -> tuple[int, ...]:
    known = {entry.id for entry in names.entries}
    return tuple(dict.fromkeys(number for number in numbers if number in known))
