"""The knobs of a profile: one descriptor for each key a ``[profiles.NAME]`` table may hold.

`KNOBS` is the whole format: reading (`polytls.profiles.parse`), showing (`polytls.profiles.show`) and the
table in docs/profiles.md all come from it. A knob converts one TOML value to one field of `HelloSpec`
and back. What ties two knobs together (a key share must be one of the groups) is in `parse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.profiles.boringssl import (
    CERT_COMPRESSION,
    CIPHERS,
    GROUPS,
    SIGALGS,
    TLS13_SUITES,
    VERSIONS,
    Names,
)
from polytls.profiles.wording import WrongValueError, shown, type_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytls.profiles.spec import HelloSpec

MAX_PROTOCOLS = 16
"""Browsers send two; the bound keeps the extension, and so the hello, of a sane size."""

MAX_PROTOCOL_BYTES = 255
"""RFC 7301 §3.1: a protocol name is 1 to 255 bytes."""

MAX_DESCRIPTION_CHARS = 200
"""One line in a list of profiles."""

LIBRARY_DEFAULT = "default"
"""The value of `key_shares` that leaves the choice to BoringSSL."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One key. `parse` turns a TOML value into the value of `field` or raises `WrongValueError`; `show`
    goes back. `form` says what may be written, in the words of the reference table."""

    key: str
    field: str
    form: str
    doc: str
    parse: Callable[[object], object]
    show: Callable[[HelloSpec], object]


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"is {type_of(value)}; allowed: true, false")
    return value


def parse_description(value: object) -> str:
    """One line of words. Raises `WrongValueError`."""
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION_CHARS or not value.isprintable():
        raise WrongValueError(
            f"got {shown(value)}; allowed: one line of at most {MAX_DESCRIPTION_CHARS} characters"
        )
    return value


def parse_protocols(value: object) -> tuple[str, ...]:
    """Protocol names, as ALPN and ALPS have them. Raises `WrongValueError`."""
    allowed = (
        f"an array of at most {MAX_PROTOCOLS} protocol names, 1 to {MAX_PROTOCOL_BYTES} ASCII bytes each"
    )
    if not isinstance(value, (list, tuple)):
        raise WrongValueError(f"is {type_of(value)}; allowed: {allowed}")
    for item in value:
        if not isinstance(item, str) or not 1 <= len(item) <= MAX_PROTOCOL_BYTES:
            raise WrongValueError(f"holds {shown(item)}; allowed: {allowed}")
        if not (item.isascii() and item.isprintable()):
            raise WrongValueError(f"holds {shown(item)}; allowed: {allowed}")
    if len(value) > MAX_PROTOCOLS or len(set(value)) != len(value):
        raise WrongValueError(f"is too long or names a protocol twice; allowed: {allowed}")
    return tuple(value)


def _some(names: Names, value: object) -> tuple[int, ...]:
    """At least one: BoringSSL reads an empty list of these as its own default, which no one meant."""
    entries = names.parse(value)
    if not entries:
        raise WrongValueError(f"is empty; allowed: {', '.join(names.names())}")
    return tuple(entry.id for entry in entries)


def _key_shares(value: object) -> tuple[int, ...] | None:
    if value == LIBRARY_DEFAULT:
        return None
    return tuple(entry.id for entry in GROUPS.parse(value))


def _ciphers(value: object) -> tuple[str, ...]:
    try:
        entries = CIPHERS.parse(value)
    except WrongValueError as problem:
        if any(suite in str(problem) for suite in TLS13_SUITES):
            raise WrongValueError(
                f"{problem}; the TLS 1.3 suites are fixed and are not listed here"
            ) from None
        raise
    if not entries:
        raise WrongValueError(f"is empty; allowed: {', '.join(CIPHERS.names())}")
    return tuple(entry.name for entry in entries)


def _cert_compression(value: object) -> tuple[int, ...]:
    return tuple(entry.id for entry in CERT_COMPRESSION.parse(value))


def _version(value: object) -> int:
    if not isinstance(value, str):
        raise WrongValueError(f"is {type_of(value)}; allowed: {', '.join(VERSIONS.names())}")
    entry = VERSIONS.find(value)
    if entry is None:
        raise WrongValueError(f"{shown(value)}: {unknown(VERSIONS.what, value, VERSIONS.names())}")
    return entry.id


def _named(names: Names, ids: tuple[int, ...]) -> list[str]:
    return [names.name_of(number) for number in ids]


def _shown_key_shares(spec: HelloSpec) -> object:
    return LIBRARY_DEFAULT if spec.key_shares is None else _named(GROUPS, spec.key_shares)


_NAMES_FORM = '"A:B:C" or ["A", "B", "C"]'
_FLAG_FORM = "true, false"

KNOBS: tuple[Knob, ...] = (
    Knob(
        "description",
        "description",
        "string",
        "One line for `polytls profiles list`.",
        parse_description,
        lambda s: s.description,
    ),
    Knob(
        "grease",
        "grease",
        _FLAG_FORM,
        "GREASE values (RFC 8701) among cipher suites, groups, key shares, versions and extensions.",
        _flag,
        lambda s: s.grease,
    ),
    Knob(
        "permute_extensions",
        "permute_extensions",
        _FLAG_FORM,
        "A new order of extensions for every connection; false: BoringSSL's fixed order.",
        _flag,
        lambda s: s.permute_extensions,
    ),
    Knob(
        "alpn_protos",
        "alpn",
        "array of protocol names",
        "Protocols offered by ALPN (RFC 7301), preferred first; empty: no ALPN extension.",
        parse_protocols,
        lambda s: list(s.alpn),
    ),
    Knob(
        "alps_protos",
        "alps",
        "array of protocol names",
        "Protocols of the application_settings extension, each one of `alpn_protos`; empty: no extension.",
        parse_protocols,
        lambda s: list(s.alps),
    ),
    Knob(
        "alps_use_new_codepoint",
        "alps_new_codepoint",
        _FLAG_FORM,
        "ALPS as extension 0x44cd; false: the old 0x4469.",
        _flag,
        lambda s: s.alps_new_codepoint,
    ),
    Knob(
        "curves_list",
        "groups",
        _NAMES_FORM,
        "Supported groups, preferred first.",
        lambda value: _some(GROUPS, value),
        lambda s: _named(GROUPS, s.groups),
    ),
    Knob(
        "key_shares",
        "key_shares",
        f'{_NAMES_FORM}, or "{LIBRARY_DEFAULT}"',
        "Groups that get a key share in the first hello, in the order of `curves_list`.",
        _key_shares,
        _shown_key_shares,
    ),
    Knob(
        "cipher_list",
        "cipher_list",
        _NAMES_FORM,
        "TLS 1.2 cipher suites, preferred first. The three TLS 1.3 suites always come before them.",
        _ciphers,
        lambda s: list(s.cipher_list),
    ),
    Knob(
        "sigalgs_list",
        "sigalgs",
        _NAMES_FORM,
        "Signature algorithms accepted, preferred first.",
        lambda value: _some(SIGALGS, value),
        lambda s: _named(SIGALGS, s.sigalgs),
    ),
    Knob(
        "enable_ocsp_stapling",
        "ocsp_stapling",
        _FLAG_FORM,
        "The status_request extension.",
        _flag,
        lambda s: s.ocsp_stapling,
    ),
    Knob(
        "enable_signed_cert_timestamps",
        "signed_cert_timestamps",
        _FLAG_FORM,
        "The signed_certificate_timestamp extension.",
        _flag,
        lambda s: s.signed_cert_timestamps,
    ),
    Knob(
        "cert_compression",
        "cert_compression",
        _NAMES_FORM,
        "Certificate compression algorithms (RFC 8879), in order; empty: no extension.",
        _cert_compression,
        lambda s: _named(CERT_COMPRESSION, s.cert_compression),
    ),
    Knob(
        "min_tls",
        "min_tls",
        ", ".join(f'"{name}"' for name in VERSIONS.names()),
        "The lowest version offered and accepted.",
        _version,
        lambda s: VERSIONS.name_of(s.min_tls),
    ),
    Knob(
        "max_tls",
        "max_tls",
        ", ".join(f'"{name}"' for name in VERSIONS.names()),
        "The highest version offered and accepted.",
        _version,
        lambda s: VERSIONS.name_of(s.max_tls),
    ),
    Knob(
        "enable_ech_grease",
        "ech_grease",
        _FLAG_FORM,
        "A GREASE encrypted_client_hello extension (TLS 1.3 only).",
        _flag,
        lambda s: s.ech_grease,
    ),
    Knob(
        "session_tickets",
        "session_tickets",
        _FLAG_FORM,
        "The session_ticket extension, and with it TLS 1.2 tickets.",
        _flag,
        lambda s: s.session_tickets,
    ),
    Knob(
        "session_resumption",
        "resumption",
        _FLAG_FORM,
        "Upstream sessions are kept and resumed, for each profile and host:port.",
        _flag,
        lambda s: s.resumption,
    ),
)
