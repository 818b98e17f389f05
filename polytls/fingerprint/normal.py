"""Whether two clients send the same ClientHello: everything in it, but for what is fresh every time.

Theory of operation
-------------------
Fingerprints hash a selection. To say that a hello is *exactly* a client's, all of it has to be compared,
and what no two hellos of a client share has to be masked, no more than that. `normalise` makes one
comparable value of one or more hellos of a client:

* random and session id by length; key shares by group and length; ticket, cookie and PSK by length;
* a GREASE value by its place, and the equalities among them (the group's is the key share's; the two
  extensions' are not equal);
* the server's name by being there; padding by its rule, since its length follows the name's;
* ECH by its shape: what may be drawn (AEAD, payload length) as the set of what was;
* the order of extensions as the set of orders seen: more than one, and the client permutes. Trust anchors
  likewise.

`difference` compares two of them, in words. What is drawn compares as "was that one of the expected?", so
the expected side should be the one with many samples; BoringSSL's payload lengths and NSS's two AEADs are
known whole as soon as one of them is seen.

This is the judge of what the program sends, so it shares nothing with the code that makes hellos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from polytls.wire import iana
from polytls.wire.client_hello import HelloError
from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from polytls.wire.client_hello import ClientHello

GREASE = "GREASE"

_Value = TypeVar("_Value")

_ECH_FAMILIES = (
    # BoringSSL draws one of four lengths; its AEAD is the processor's, the same every time.
    (frozenset({144, 176, 208, 240}), frozenset[int]()),
    # NSS computes the length (239 for an ordinary name) and draws one of two AEADs.
    (frozenset({239}), frozenset({1, 3})),
)

_PADDED_BYTES = 512
_MIN_PADDED_BYTES = 256  # RFC 7685 §4
_HANDSHAKE_HEADER_BYTES = 4
_X25519 = 0x001D
_HYBRID_KEYS = {0x11EC: slice(-32, None), 0x6399: slice(0, 32)}
"""Where a hybrid share has its X25519 key (draft-ietf-tls-ecdhe-mlkem; draft-tls-westerbaan-xyber768d00)."""

_NOT_NEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class EchShape:
    """encrypted_client_hello without its contents. Sets hold what was seen, and what is drawn with it."""

    sort: str
    enc_bytes: int
    aeads: frozenset[int]
    payloads: frozenset[int]


@dataclass(frozen=True, slots=True)
class NormalHello:
    """Hellos of one client, as far as they are not fresh. Names are those of `polytls.wire.iana`.

    `orders` are extensions by name, GREASE as such, without padding and pre_shared_key, which are in `tail`.
    `bodies` pairs a name with the texts of its body that were seen: one, unless the body changes.
    """

    samples: int
    permuted: bool
    record_version: str
    legacy_version: str
    session_id_bytes: frozenset[int]
    cipher_suites: tuple[str, ...]
    compression_methods: tuple[int, ...]
    orders: frozenset[tuple[str, ...]]
    tail: tuple[str, ...]
    bodies: tuple[tuple[str, frozenset[str]], ...]
    anchor_orders: frozenset[tuple[str, ...]]
    ech: EchShape | None
    padding: frozenset[str]
    equalities: frozenset[str]
    """Sentences about values that are equal, true in every sample."""

    def body(self, name: str) -> frozenset[str]:
        """The texts of the body of this extension; empty where it is absent."""
        return dict(self.bodies).get(name, frozenset())


def normalise(hellos: Sequence[ClientHello], *, permuted: bool | None = None) -> NormalHello:
    """One value for hellos of one client. `permuted` says what is known; None: by the orders seen.

    Raises `HelloError` for no hello, a malformed one, or hellos that are plainly not one client's.
    """
    if not hellos:
        raise HelloError("there is no ClientHello to normalise")
    first = hellos[0]
    # A PSK comes and goes with sessions, and padding with lengths.
    orders = frozenset(tuple(map(_extension, _entries(hello))) for hello in hellos)
    return NormalHello(
        samples=len(hellos),
        permuted=len(orders) > 1 if permuted is None else permuted,
        record_version=_one("record version", (_version(hello.record_version) for hello in hellos)),
        legacy_version=_one("legacy version", (_version(hello.legacy_version) for hello in hellos)),
        session_id_bytes=frozenset(len(hello.session_id) for hello in hellos),
        cipher_suites=_one(
            "list of cipher suites", (_names(iana.cipher_suite_name, h.cipher_suites) for h in hellos)
        ),
        compression_methods=_one(
            "list of compression methods", (hello.compression_methods for hello in hellos)
        ),
        orders=orders,
        tail=tuple(map(iana.extension_name, _tail(first))),
        bodies=_bodies(hellos),
        anchor_orders=frozenset(_anchors(hello) for hello in hellos),
        ech=_ech(hellos),
        padding=frozenset(map(_padding, hellos)),
        equalities=frozenset.intersection(*(frozenset(_equalities(hello)) for hello in hellos)),
    )


def difference(expected: NormalHello, actual: NormalHello) -> list[str]:
    """Where `actual` is not what `expected` is, a sentence each; empty where they are the same client."""
    found: list[str] = []

    def compare(what: str, wanted: object, got: object) -> None:
        if wanted != got:
            found.append(f"{what}: {got}, expected {wanted}")

    compare("record version", expected.record_version, actual.record_version)
    compare("legacy version", expected.legacy_version, actual.legacy_version)
    compare("bytes of session id", _sorted(expected.session_id_bytes), _sorted(actual.session_id_bytes))
    found += _lists("cipher suites", expected.cipher_suites, actual.cipher_suites)
    compare("compression methods", expected.compression_methods, actual.compression_methods)
    found += _order_difference(expected, actual)
    for name in sorted({name for name, _ in (*expected.bodies, *actual.bodies)}):
        wanted, got = expected.body(name), actual.body(name)
        if wanted and got and not got <= wanted:  # absence is told by the order
            compare(name, _either(wanted), _either(got - wanted))
    found += _anchor_difference(expected, actual)
    found += _ech_difference(expected.ech, actual.ech)
    found += _padding_difference(expected, actual)
    found += [f"not so: {text}" for text in sorted(expected.equalities - actual.equalities)]
    found += [f"unexpected: {text}" for text in sorted(actual.equalities - expected.equalities)]
    return found


def _order_difference(expected: NormalHello, actual: NormalHello) -> list[str]:
    wanted, got = min(expected.orders), min(actual.orders)
    if "pre_shared_key" in (*expected.tail, *actual.tail) and expected.tail[-1:] != actual.tail[-1:]:
        psk = [f"last extension: {actual.tail[-1:]}, expected {expected.tail[-1:]}"]
    else:
        psk = []
    if not expected.permuted:
        for order in sorted(actual.orders):
            if order not in expected.orders:
                return [*psk, *_lists("extensions", wanted, order)]
        return psk
    if sorted(wanted) != sorted(got):
        return [*psk, *_lists("extensions, sorted", tuple(sorted(wanted)), tuple(sorted(got)))]
    places = {_places(order) for order in expected.orders}
    if any(_places(order) not in places for order in actual.orders):
        return [*psk, "extensions: the GREASE ones are not where they are expected"]
    if actual.samples > 1 and len(actual.orders) == 1 and not actual.permuted:
        return [*psk, "extensions: in the same order each time, expected a new one"]
    return psk


def _anchor_difference(expected: NormalHello, actual: NormalHello) -> list[str]:
    """The contents are compared as a body; here it is whether their order stays."""
    wanted, got = len(expected.anchor_orders) > 1, len(actual.anchor_orders) > 1
    if wanted and not got and actual.samples > 1:
        return ["trust_anchors: in the same order each time, expected a new one"]
    if got and not wanted and expected.samples > 1:
        return ["trust_anchors: in another order each time, expected the same"]
    if not wanted and not got and expected.anchor_orders != actual.anchor_orders:
        return _lists("trust_anchors", min(expected.anchor_orders), min(actual.anchor_orders))
    return []


def _ech_difference(expected: EchShape | None, actual: EchShape | None) -> list[str]:
    if expected is None or actual is None:
        return []  # told by the order
    found = []
    if (expected.sort, expected.enc_bytes) != (actual.sort, actual.enc_bytes):
        found.append(
            f"encrypted_client_hello: {actual.sort} with a key of {actual.enc_bytes} bytes, "
            f"expected {expected.sort} with {expected.enc_bytes}"
        )
    for what, wanted, got in (
        ("AEAD", expected.aeads, actual.aeads),
        ("bytes of payload", expected.payloads, actual.payloads),
    ):
        if not got <= wanted:
            found.append(
                f"encrypted_client_hello: {what} {_either(got - wanted)}, expected {_either(wanted)}"
            )
    return found


def _padding_difference(expected: NormalHello, actual: NormalHello) -> list[str]:
    # Hellos that are too long for padding, or too short, say nothing about the rule.
    wanted, got = expected.padding - {_NOT_NEEDED}, actual.padding - {_NOT_NEEDED}
    if wanted and got and not got <= wanted:
        return [f"padding: {_either(got - wanted)}, expected {_either(wanted)}"]
    return []


def _lists(what: str, expected: tuple[str, ...], actual: tuple[str, ...]) -> list[str]:
    """What is missing, what is too much, else the first place that differs."""
    if expected == actual:
        return []
    found = []
    rest, missing = list(actual), []
    for name in expected:
        if name in rest:
            rest.remove(name)
        else:
            missing.append(name)
    if missing:
        found.append(f"{what}: lacks {', '.join(missing)}")
    if rest:
        found.append(f"{what}: has {', '.join(rest)}, which is not expected")
    if not found:
        at = next(
            index for index, pair in enumerate(zip(expected, actual, strict=True)) if pair[0] != pair[1]
        )
        found.append(f"{what}: {actual[at]} at place {at + 1}, expected {expected[at]}")
    return found


def _either(values: Iterable[object]) -> str:
    return " or ".join(map(str, _sorted(values)))


def _sorted(values: Iterable[object]) -> list[object]:
    return sorted(values, key=lambda value: (str(type(value)), len(str(value)), str(value)))


def _one(what: str, values: Iterable[_Value]) -> _Value:
    distinct = list(dict.fromkeys(values))
    if len(distinct) != 1:
        raise HelloError(f"these hellos are not one client's: the {what} differs")
    return distinct[0]


def _names(name: Callable[[int], str], values: Iterable[int]) -> tuple[str, ...]:
    return tuple(map(name, values))


def _version(version: int | None) -> str:
    return "-" if version is None else iana.version_name(version)


def _entries(hello: ClientHello) -> tuple[int, ...]:
    return tuple(number for number in hello.extension_types if number not in _TAIL)


def _tail(hello: ClientHello) -> tuple[int, ...]:
    return tuple(number for number in hello.extension_types if number in _TAIL)


def _extension(number: int) -> str:
    return GREASE if is_grease(number) else iana.extension_name(number)


def _places(order: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(index for index, name in enumerate(order) if name == GREASE)


def _bodies(hellos: Sequence[ClientHello]) -> tuple[tuple[str, frozenset[str]], ...]:
    found: dict[str, set[str]] = {}
    for hello in hellos:
        grease = 0
        for extension in hello.extensions:
            if extension.type in _TAIL or extension.type == ExtensionType.ENCRYPTED_CLIENT_HELLO:
                continue
            name = _extension(extension.type)
            if name == GREASE:
                grease += 1
                name = f"{GREASE} {grease}"
            show = _BODIES.get(extension.type)
            text = show(hello) if show is not None else extension.body.hex() or "empty"
            found.setdefault(name, set()).add(text)
    return tuple((name, frozenset(texts)) for name, texts in sorted(found.items()))


def _length(extension: ExtensionType) -> Callable[[ClientHello], str]:
    return lambda hello: f"{len(hello.extension(extension) or b'')} bytes"


def _anchors(hello: ClientHello) -> tuple[str, ...]:
    body = hello.extension(ExtensionType.TRUST_ANCHORS)
    if body is None:
        return ()
    try:
        cursor = Cursor(body)
        inner = Cursor(cursor.vec16())
        cursor.finish()
        found = []
        while inner.remaining:
            found.append(inner.vec8().hex())
    except CursorError as problem:
        raise HelloError(f"the trust_anchors extension is malformed: {problem}") from None
    return tuple(found)


def _ech(hellos: Sequence[ClientHello]) -> EchShape | None:
    shapes = [
        _ech_shape(body)
        for hello in hellos
        if (body := hello.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO))
    ]
    if not shapes:
        return None
    sort, enc = _one("form of encrypted_client_hello", (shape[:2] for shape in shapes))
    aeads = frozenset(shape[2] for shape in shapes)
    payloads = frozenset(shape[3] for shape in shapes)
    for family, drawn in _ECH_FAMILIES:
        if payloads <= family:
            payloads = family
            aeads = aeads | drawn if aeads <= drawn else aeads
    return EchShape(sort, enc, aeads, payloads)


def _ech_shape(body: bytes) -> tuple[str, int, int, int]:
    """draft-ietf-tls-esni §5: type, KDF, AEAD, config_id, enc, payload."""
    try:
        cursor = Cursor(body)
        sort, kdf, aead, _ = cursor.u8(), cursor.u16(), cursor.u16(), cursor.u8()
        enc, payload = cursor.vec16(), cursor.vec16()
        cursor.finish()
    except CursorError as problem:
        raise HelloError(f"the encrypted_client_hello extension is malformed: {problem}") from None
    return f"type {sort}, KDF {kdf}", len(enc), aead, len(payload)


def _padding(hello: ClientHello) -> str:
    """RFC 7685 §4: a message of 256 to 511 bytes becomes one of 512, by an extension of at least 4 bytes."""
    fixed = _HANDSHAKE_HEADER_BYTES + 2 + 32 + 1 + len(hello.session_id) + 2 + 2 * len(hello.cipher_suites)
    fixed += 1 + len(hello.compression_methods) + 2
    rest = fixed + sum(4 + len(item.body) for item in hello.extensions if item.type != ExtensionType.PADDING)
    padding = hello.extension(ExtensionType.PADDING)
    short = _MIN_PADDED_BYTES <= rest < _PADDED_BYTES
    if padding is None:
        return "none" if short else _NOT_NEEDED
    if any(padding):
        return "of bytes other than zero"
    room = _PADDED_BYTES - rest - 4
    last = [number for number in hello.extension_types if number != ExtensionType.PRE_SHARED_KEY][-1]
    if short and len(padding) in {max(room, 0), max(room, 1)} and last == ExtensionType.PADDING:
        return "to 512 bytes, last"
    return f"of {len(padding)} bytes in a hello of {rest}"


def _equalities(hello: ClientHello) -> list[str]:
    found = []
    groups = [group for group in hello.supported_groups if is_grease(group)]
    shares = {share.group: share.key_exchange for share in hello.key_shares}
    greased = [group for group in shares if is_grease(group)]
    if groups and groups == greased:
        found.append("the GREASE group is that of the GREASE key share")
    extensions = [number for number in hello.extension_types if is_grease(number)]
    if len(extensions) > len(set(extensions)):  # the parser refuses it; kept for hellos made otherwise
        found.append("the GREASE extensions are the same")
    for hybrid, part in _HYBRID_KEYS.items():
        if hybrid in shares and shares[hybrid][part] == shares.get(_X25519):
            found.append("the X25519 key share is the key in the hybrid one")
    return found


_TAIL = frozenset({ExtensionType.PADDING.value, ExtensionType.PRE_SHARED_KEY.value})

_BODIES: dict[int, Callable[[ClientHello], str]] = {
    ExtensionType.SERVER_NAME.value: lambda hello: "a host name" if hello.sni else "empty",
    ExtensionType.ALPN.value: lambda hello: ", ".join(name.decode("latin-1") for name in hello.alpn),
    ExtensionType.SUPPORTED_GROUPS.value: lambda hello: ", ".join(
        _names(iana.group_name, hello.supported_groups)
    ),
    ExtensionType.SIGNATURE_ALGORITHMS.value: lambda hello: ", ".join(
        _names(iana.signature_scheme_name, hello.signature_algorithms)
    ),
    ExtensionType.SIGNATURE_ALGORITHMS_CERT.value: lambda hello: ", ".join(
        _names(iana.signature_scheme_name, hello.signature_algorithms_cert)
    ),
    ExtensionType.DELEGATED_CREDENTIAL.value: lambda hello: ", ".join(
        _names(iana.signature_scheme_name, hello.delegated_credentials)
    ),
    ExtensionType.SUPPORTED_VERSIONS.value: lambda hello: ", ".join(
        _names(iana.version_name, hello.supported_versions)
    ),
    ExtensionType.KEY_SHARE.value: lambda hello: ", ".join(
        f"{iana.group_name(share.group)}:{len(share.key_exchange)}" for share in hello.key_shares
    ),
    ExtensionType.TRUST_ANCHORS.value: lambda hello: ", ".join(sorted(_anchors(hello))),
    ExtensionType.SESSION_TICKET.value: _length(ExtensionType.SESSION_TICKET),
    ExtensionType.COOKIE.value: _length(ExtensionType.COOKIE),
}
