"""Knobs written over an exact base: each is an edit of the base's `ExactHello`.

A knob replaces one list, or adds or drops one extension, and leaves all else as it is. Lists keep the GREASE
values at their head and end. `cipher_list` leaves the TLS 1.3 suites and the SCSVs. What the base does not
send is put last (before a closing GREASE extension): the client has no place for it, and there it disturbs
nothing. ``grease = true`` puts GREASE where BoringSSL has it. Where `max_tls` is TLS1.2, all that belongs to
TLS 1.3 goes. What a knob says that the base does already is no edit.

So ``base = "firefox-155"`` with ``alpn_protos = ["http/1.1"]`` is Firefox in every other byte.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from polytls.profiles.bodies import SIMPLE
from polytls.profiles.boringssl import CIPHERS, GROUPS, VERSIONS
from polytls.profiles.derive import versions
from polytls.profiles.exact import (
    GREASE,
    HYBRIDS,
    TLS13,
    Body,
    Ech,
    Entry,
    ExactHello,
    Numbers,
    Protocols,
    Raw,
)
from polytls.profiles.libraries import BORINGSSL_ECH_PAYLOADS
from polytls.profiles.wording import WrongValueError
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TLS12 = 0x0303
_POST_QUANTUM = frozenset({*HYBRIDS, 0x0202})
_SCSV = frozenset({0x00FF, 0x5600})  # RFC 5746 §3.3, RFC 7507
_ALPS = (ExtensionType.APPLICATION_SETTINGS.value, ExtensionType.APPLICATION_SETTINGS_OLD.value)
_TLS13_ONLY = frozenset(
    {
        *_ALPS,
        ExtensionType.COMPRESS_CERTIFICATE.value,
        ExtensionType.DELEGATED_CREDENTIAL.value,
        ExtensionType.SUPPORTED_VERSIONS.value,  # without it the hello says TLS 1.2 (RFC 8446 §4.2.1)
        ExtensionType.COOKIE.value,
        ExtensionType.PSK_KEY_EXCHANGE_MODES.value,
        49,  # post_handshake_auth
        ExtensionType.SIGNATURE_ALGORITHMS_CERT.value,
        ExtensionType.KEY_SHARE.value,
        ExtensionType.TRUST_ANCHORS.value,
        ExtensionType.ENCRYPTED_CLIENT_HELLO.value,
    }
)
_GREASED_LISTS = (
    ExtensionType.SUPPORTED_GROUPS,
    ExtensionType.KEY_SHARE,
    ExtensionType.SUPPORTED_VERSIONS,
)
"""BoringSSL puts a GREASE value at the head of these, and of the cipher suites (RFC 8701 §3.1)."""


def edited(hello: ExactHello, written: Mapping[str, object]) -> ExactHello:
    """The hello with every knob of `written` (by the field of `HelloSpec` that it sets) worked in.

    Raises `KnobError` for a knob that cannot be.
    """
    for field, edit in _EDITS.items():
        if field in written:
            try:
                hello = edit(hello, written[field])
            except WrongValueError as problem:
                raise KnobError(field, str(problem)) from None
    low, high = versions(hello)
    try:
        return _versions(
            hello, cast(int, written.get("min_tls", low)), cast(int, written.get("max_tls", high))
        )
    except WrongValueError as problem:
        raise KnobError("min_tls" if "min_tls" in written else "max_tls", str(problem)) from None


class KnobError(Exception):
    """A knob does not fit the exact base. `field` is the one of `HelloSpec`; `str()` is the problem."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def regreased(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    """`new` with the GREASE values that `old` has at its head and its end."""
    head = old[:1] == (GREASE,)
    end = len(old) > 1 and old[-1] == GREASE
    return (*((GREASE,) * head), *new, *((GREASE,) * end))


def _grease(hello: ExactHello, value: object) -> ExactHello:
    if value == hello.grease:
        return hello
    plain = tuple(
        replace(entry, body=Numbers(_plain(entry.body.values))) if isinstance(entry.body, Numbers) else entry
        for entry in hello.extensions
        if entry.type != GREASE
    )
    if not value:
        return replace(hello, cipher_suites=_plain(hello.cipher_suites), extensions=plain)
    greased = tuple(
        replace(entry, body=Numbers((GREASE, *entry.body.values)))
        if isinstance(entry.body, Numbers) and entry.type in _GREASED_LISTS
        else entry
        for entry in plain
    )
    ends = Entry(GREASE, fixed=True), Entry(GREASE, Raw(b"\0"), fixed=True)
    return replace(
        hello,
        cipher_suites=(GREASE, *hello.cipher_suites),
        extensions=(ends[0], *greased, ends[1]),
    )


def _permute(hello: ExactHello, value: object) -> ExactHello:
    return replace(hello, permute=cast(bool, value))


def _alpn(hello: ExactHello, value: object) -> ExactHello:
    names = cast("tuple[str, ...]", value)
    hello = _with_list(hello, ExtensionType.ALPN, Protocols(names) if names else None)
    for alps in _ALPS:  # what is inherited is narrowed to what still fits
        kept = tuple(name for name in hello.protocols(alps) if name in names)
        if hello.entry(alps) is not None:
            hello = _with_list(hello, alps, Protocols(kept) if kept else None)
    return hello


def _alps(hello: ExactHello, value: object) -> ExactHello:
    names = cast("tuple[str, ...]", value)
    alps = next((number for number in _ALPS if hello.entry(number) is not None), _ALPS[0])
    return _with_list(hello, alps, Protocols(names) if names else None)


def _alps_code_point(hello: ExactHello, value: object) -> ExactHello:
    wanted = _ALPS[0] if value else _ALPS[1]
    entries = (replace(entry, type=wanted) if entry.type in _ALPS else entry for entry in hello.extensions)
    return replace(hello, extensions=tuple(entries))


def _groups(hello: ExactHello, value: object) -> ExactHello:
    groups = cast("tuple[int, ...]", value)
    old = hello.numbers(ExtensionType.SUPPORTED_GROUPS)
    hello = _with_list(hello, ExtensionType.SUPPORTED_GROUPS, Numbers(regreased(old, groups)))
    if hello.entry(ExtensionType.KEY_SHARE) is None:
        return hello
    shares = hello.numbers(ExtensionType.KEY_SHARE)
    kept = tuple(group for group in groups if group in shares) or groups[:1]
    return _with_shares(hello, kept)


def _key_shares(hello: ExactHello, value: object) -> ExactHello:
    shares = cast("tuple[int, ...] | None", value)
    return _with_shares(hello, _library_shares(hello) if shares is None else shares)


def _library_shares(hello: ExactHello) -> tuple[int, ...]:
    """BoringSSL's choice: the first group, and the first of the other sort, post-quantum or not."""
    known = {entry.id for entry in GROUPS.entries}
    groups = [group for group in hello.numbers(ExtensionType.SUPPORTED_GROUPS) if group in known]
    other = (group for group in groups if (group in _POST_QUANTUM) != (groups[0] in _POST_QUANTUM))
    return (*groups[:1], *itertools.islice(other, 1))


def _with_shares(hello: ExactHello, shares: tuple[int, ...]) -> ExactHello:
    old = hello.numbers(ExtensionType.KEY_SHARE)
    new = regreased(old, shares)
    hello = _with_list(hello, ExtensionType.KEY_SHARE, Numbers(new))
    return replace(hello, reuse_x25519=hello.reuse_x25519 and set(_plain(old)) <= set(new))


def _ciphers(hello: ExactHello, value: object) -> ExactHello:
    ids = {entry.name: entry.id for entry in CIPHERS.entries}
    tls12 = tuple(ids[name] for name in cast("tuple[str, ...]", value))
    old = hello.cipher_suites
    tls13 = tuple(suite for suite in _plain(old) if suite >> 8 == 0x13)
    signals = tuple(suite for suite in old if suite in _SCSV)
    return replace(hello, cipher_suites=regreased(old, (*tls13, *tls12, *signals)))


def _sigalgs(hello: ExactHello, value: object) -> ExactHello:
    old = hello.numbers(ExtensionType.SIGNATURE_ALGORITHMS)
    new = regreased(old, cast("tuple[int, ...]", value))
    return _with_list(hello, ExtensionType.SIGNATURE_ALGORITHMS, Numbers(new))


def _cert_compression(hello: ExactHello, value: object) -> ExactHello:
    algorithms = cast("tuple[int, ...]", value)
    return _with_list(hello, ExtensionType.COMPRESS_CERTIFICATE, Numbers(algorithms) if algorithms else None)


def _versions(hello: ExactHello, low: int, high: int) -> ExactHello:
    """The hello with the versions from `high` down to `low`."""
    if (low, high) == versions(hello):
        return hello
    if low > high:
        problem = (
            f"{VERSIONS.name_of(low)} is above max_tls {VERSIONS.name_of(high)}; allowed: at most max_tls"
        )
        raise WrongValueError(problem)
    if high < TLS13:
        # Without supported_versions a hello says TLS 1.2 (RFC 8446 §4.2.1), and BoringSSL no less.
        if (low, high) != (_TLS12, _TLS12):
            problem = (
                "without TLS1.3 an exact profile offers TLS1.2 alone; allowed: TLS1.2, or TLS1.3 above it"
            )
            raise WrongValueError(problem)
        return _tls12(hello)
    old = hello.numbers(ExtensionType.SUPPORTED_VERSIONS)
    new = tuple(range(high, low - 1, -1))
    return _with_list(hello, ExtensionType.SUPPORTED_VERSIONS, Numbers(regreased(old, new)))


def _tls12(hello: ExactHello) -> ExactHello:
    """The hello without TLS 1.3: its suites go, and every extension that means nothing without it."""
    return replace(
        hello,
        cipher_suites=tuple(suite for suite in hello.cipher_suites if suite >> 8 != 0x13),
        extensions=tuple(entry for entry in hello.extensions if entry.type not in _TLS13_ONLY),
        reuse_x25519=False,
    )


def _presence(extension: ExtensionType, body: Body) -> Callable[[ExactHello, object], ExactHello]:
    """The edit of a knob that says whether an extension is sent; `body` where the base did not send it."""

    def edit(hello: ExactHello, value: object) -> ExactHello:
        if value and hello.entry(extension) is not None:
            return hello
        return _with_list(hello, extension, body if value else None)

    return edit


def _with_list(hello: ExactHello, extension: int, body: Body | None) -> ExactHello:
    """The hello with this body in the extension's place, or at the end; None drops the extension."""
    if body is None:
        return _without(hello, extension)
    if hello.entry(extension) is None:
        entries = hello.extensions
        end = len(entries) - (entries[-1:] != () and entries[-1].type == GREASE)
        return replace(hello, extensions=(*entries[:end], Entry(extension, body), *entries[end:]))

    def changed(entry: Entry) -> Entry:
        return replace(entry, body=body) if entry.type == extension else entry

    return replace(hello, extensions=tuple(map(changed, hello.extensions)))


def _without(hello: ExactHello, extension: int) -> ExactHello:
    return replace(hello, extensions=tuple(entry for entry in hello.extensions if entry.type != extension))


def _plain(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if value != GREASE)


_EDITS: Mapping[str, Callable[[ExactHello, object], ExactHello]] = {
    "grease": _grease,
    "permute_extensions": _permute,
    "alps_new_codepoint": _alps_code_point,
    "alpn": _alpn,
    "alps": _alps,
    "groups": _groups,
    "key_shares": _key_shares,
    "cipher_list": _ciphers,
    "sigalgs": _sigalgs,
    "ocsp_stapling": _presence(ExtensionType.STATUS_REQUEST, Raw(SIMPLE[ExtensionType.STATUS_REQUEST])),
    "signed_cert_timestamps": _presence(ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP, Raw()),
    "cert_compression": _cert_compression,
    "ech_grease": _presence(ExtensionType.ENCRYPTED_CLIENT_HELLO, Ech((1,), BORINGSSL_ECH_PAYLOADS)),
    "session_tickets": _presence(ExtensionType.SESSION_TICKET, Raw()),
}
"""By field of `HelloSpec`, in the order in which they are worked in: what `alpn` takes from ALPS, `alps` may
put back. The two bounds of the version go last, together."""
