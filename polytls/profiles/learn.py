"""Captured ClientHellos of one client -> `ExactHello`.

Theory of operation
-------------------
Several hellos of one client agree in what the client is, and differ in what is fresh. Each part of a hello
is looked at in turn:

* GREASE by value in ciphers, groups, versions and signature algorithms; extensions of a GREASE type. Their
  values must be equal where the template uses one slot for both (group and key share).
* The order of extensions: where it differs, the client permutes. GREASE extensions must keep their place.
* Key shares by group and length. An X25519 key that stands in the hybrid share as well is reused.
* ECH by shape: AEADs and payload lengths seen. (That a payload is GREASE, and not a real one, cannot be seen;
  the profile offers GREASE either way.)
* Padding by the length of the message: 256 to 511 bytes without padding, or exactly 512 with it.
* Trust anchors that come in another order each time are written sorted, as the real browser sends them.
* Every other body must be the same each time.

What a first hello does not show comes from the library that wrote it (`polytls.profiles.libraries`).
What the engine could not reproduce is refused, all of it at once, by name: `CannotReproduceError`. What is
left out on purpose (a session to resume, early data) and what was supplied is said in `Learned.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytls.profiles import libraries
from polytls.profiles.bodies import CODECS, decode_body
from polytls.profiles.boringssl import GROUPS
from polytls.profiles.exact import (
    BUILTIN,
    GREASE,
    HYBRIDS,
    NEVER_ENTRIES,
    TLS13,
    X25519,
    Anchors,
    Body,
    Ech,
    Entry,
    ExactHello,
    InexactError,
    Numbers,
    Padding,
    Raw,
    check,
)
from polytls.profiles.vocabulary import AEAD_WORDS
from polytls.wire import iana
from polytls.wire.client_hello import ClientHello, HelloError, parse_client_hello
from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from polytls.profiles.libraries import Library
    from polytls.wire.client_hello import KeyShare

PADDED_BYTES = 512
"""RFC 7685 §4, "F5": messages of 256 to 511 bytes are padded to this."""

_MIN_PADDED_BYTES = 256
_HANDSHAKE_HEADER_BYTES = 4
_TLS12 = 0x0303
_SESSION_ID_BYTES = 32
_X25519_BYTES = 32
_OUTER_ECH = 0
_HKDF_SHA256 = 1  # RFC 9180 §7.2
_SHARE_BYTES = {0x11EC: 1216, 0x6399: 1216, 0x001D: 32, 0x0017: 65, 0x0018: 97, 0x0019: 133, 0x0202: 1568}
"""A client's public value in bytes (RFC 8446 §4.2.8.2; draft-ietf-tls-ecdhe-mlkem)."""


class CannotReproduceError(HelloError):
    """The hello holds what the engine cannot send, or what varies in a way that it does not know.

    `parts` has one sentence for each.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__(f"this hello cannot be reproduced: {'; '.join(parts)}")
        self.parts = tuple(parts)


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned, and sentences about what was supplied or left out."""

    hello: ExactHello
    notes: tuple[str, ...] = ()


def learn(samples: Sequence[bytes]) -> Learned:
    """Learn from first hellos of one client, each as TLS records.

    Two samples tell a fixed client from a permuting one in all but a few cases of 10^13; with one sample, the
    order is taken to be fixed. Raises `HelloError` for what is no ClientHello, `CannotReproduceError` for
    one that the engine could not send.
    """
    return learn_parsed([parse_client_hello(sample) for sample in samples])


def learn_parsed(hellos: Sequence[ClientHello]) -> Learned:
    """`learn` from hellos that are parsed already. Raises the same."""
    if not hellos:
        raise HelloError("there is no ClientHello to learn from")
    found = _Findings(hellos, libraries.library_of(hellos[0]))
    hello = found.hello()
    if not found.problems:
        try:
            check(hello)
        except InexactError as problem:
            where = f"extension {problem.position + 1} " if problem.position is not None else ""
            found.problems.append(f"{problem.key}: {where}{problem}")
    if found.problems:
        raise CannotReproduceError(found.problems)
    return Learned(hello, tuple(found.notes))


@dataclass(slots=True)
class _Findings:
    """The samples, and what was found wrong or worth saying so far."""

    samples: Sequence[ClientHello]
    library: Library
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def hello(self) -> ExactHello:
        """The hello, which is only good where there are no `problems`."""
        first = self.samples[0]
        self._check_fixed_fields()
        orders = [self._order(hello) for hello in self.samples]
        permute = any(order != orders[0] for order in orders)
        self._check_order(orders)
        entries = self._with_cookie([self._entry(number, index) for index, number in enumerate(orders[0])])
        if permute:
            entries = _sorted_between_fixed(entries)
        return ExactHello(
            record_version=first.record_version or 0x0301,
            cipher_suites=_greased(first.cipher_suites),
            compression_methods=first.compression_methods,
            permute=permute,
            padding=self._padding(),
            reuse_x25519=self._reuse(),
            new_shares_on_cookie=self.library.new_shares_on_cookie and _offers_tls13(first),
            late_change_cipher_spec=self.library.late_change_cipher_spec and _offers_tls13(first),
            keep_session_id=self.library.keep_session_id and _offers_tls13(first),
            extensions=tuple(entries),
        )

    def _check_fixed_fields(self) -> None:
        """What comes before the extensions, and what the engine decides by itself."""
        first = self.samples[0]
        for what, values in (
            ("the record's version", [hello.record_version for hello in self.samples]),
            ("the cipher suites", [_greased(hello.cipher_suites) for hello in self.samples]),
            ("the compression methods", [hello.compression_methods for hello in self.samples]),
        ):
            if any(value != values[0] for value in values):
                self.problems.append(f"{what} differ between the samples")
        for hello in self.samples:
            _require_one_grease(hello, self.problems)
        if first.legacy_version != _TLS12:
            name = iana.version_name(first.legacy_version)
            self.problems.append(f"its legacy version is {name}, and the engine sends TLS 1.2")
        wanted = _SESSION_ID_BYTES if _offers_tls13(first) else 0
        if any(len(hello.session_id) != wanted for hello in self.samples):
            lengths = sorted({len(hello.session_id) for hello in self.samples})
            self.problems.append(f"its session id has {lengths[0]} bytes, and the engine sends {wanted}")

    def _order(self, hello: ClientHello) -> tuple[int, ...]:
        """Extension types that become entries; GREASE as one and the same type."""
        return tuple(
            GREASE if is_grease(number) else number
            for number in hello.extension_types
            if number not in NEVER_ENTRIES and number != ExtensionType.COOKIE
        )

    def _check_order(self, orders: Sequence[tuple[int, ...]]) -> None:
        first = orders[0]
        for order in orders:
            if sorted(order) != sorted(first):
                odd = set(order) ^ set(first)
                names = ", ".join(sorted(map(iana.extension_name, odd))) or "GREASE"
                self.problems.append(f"the samples are not alike: {names} is not in all of them")
                break
            if _places(order) != _places(first):
                self.problems.append("the GREASE extensions change their places")
                break
        for hello in self.samples:
            if hello.extension(ExtensionType.COOKIE) is not None:
                self.problems.append("it answers a HelloRetryRequest (cookie); a first hello is needed")
                break
        sent = {number for hello in self.samples for number in hello.extension_types}
        if ExtensionType.PRE_SHARED_KEY in sent:
            self.notes.append("pre_shared_key was left out: the engine offers sessions of its own")
        if ExtensionType.EARLY_DATA in sent:
            self.notes.append("early_data was left out: the proxy has none")

    def _entry(self, number: int, index: int) -> Entry:
        """The entry at a place of the first sample's order."""
        if number == GREASE:
            return Entry(GREASE, Raw(self._grease_body(index)), fixed=True)
        bodies = [body for hello in self.samples if (body := hello.extension(number)) is not None]
        self._check_written(number, bodies)
        if number == ExtensionType.KEY_SHARE:
            return Entry(number, self._shares())
        if number == ExtensionType.ENCRYPTED_CLIENT_HELLO:
            return Entry(number, self.ech(bodies))
        if number == ExtensionType.SESSION_TICKET:
            return Entry(number, full_only=self.library.ticket_full_only)
        return Entry(number, self._body(number, bodies))

    def _grease_body(self, index: int) -> bytes:
        """The body of the GREASE extension at this place, by its rank among them."""
        rank = self._order(self.samples[0])[:index].count(GREASE)
        found = set()
        for hello in self.samples:
            own = [item.body for item in hello.extensions if is_grease(item.type)]
            found.add(own[rank] if rank < len(own) else b"")
        if len(found) > 1:
            self.problems.append("the body of a GREASE extension is different each time")
        return min(found)

    def _check_written(self, number: int, bodies: Sequence[bytes]) -> None:
        """That what BoringSSL will write in this place is what was there."""
        if number == ExtensionType.RENEGOTIATION_INFO and set(bodies) != {b"\0"}:  # RFC 5746 §3.4
            self.problems.append("its renegotiation_info is not that of a first handshake")
        if number == ExtensionType.SERVER_NAME and any(hello.sni is None for hello in self.samples):
            self.problems.append("its server_name is not in all samples")
        if number == ExtensionType.SESSION_TICKET and any(bodies):
            self.notes.append("the session ticket was left out: the engine offers sessions of its own")

    def _body(self, number: int, bodies: Sequence[bytes]) -> Body:
        decoded = [decode_body(number, body) for body in bodies]
        first = decoded[0]
        if all(body == first for body in decoded):
            if number in BUILTIN and number in CODECS and isinstance(first, Raw):
                self.problems.append(f"the body of {iana.extension_name(number)} is malformed")
            return first
        if number == ExtensionType.TRUST_ANCHORS and all(isinstance(body, Anchors) for body in decoded):
            sets = {tuple(sorted(body.ids)) for body in decoded if isinstance(body, Anchors)}
            if len(sets) == 1:
                self.notes.append("trust_anchors come in another order each time; they were sorted")
                return Anchors(sets.pop())
        self.problems.append(f"the body of {iana.extension_name(number)} is different each time")
        return first

    def _shares(self) -> Body:
        known = {entry.id for entry in GROUPS.entries}
        lists = []
        for hello in self.samples:
            lists.append(_greased([share.group for share in hello.key_shares]))
            for share in hello.key_shares:
                if is_grease(share.group):
                    if share.key_exchange != b"\0":
                        self.problems.append("its GREASE key share is not one zero byte")
                elif share.group not in known:
                    name = iana.group_name(share.group)
                    self.problems.append(f"it has a key share of {name}, which the engine cannot make")
                elif len(share.key_exchange) != _SHARE_BYTES[share.group]:
                    self.problems.append(
                        f"its key share of {iana.group_name(share.group)} has the wrong length"
                    )
        if any(groups != lists[0] for groups in lists):
            self.problems.append("its key shares are of different groups each time")
        self.problems[:] = dict.fromkeys(self.problems)
        return Numbers(lists[0])

    def ech(self, bodies: Sequence[bytes]) -> Body:
        shapes = []
        for body in bodies:
            try:
                shapes.append(_ech_shape(body))
            except CursorError:
                self.problems.append(
                    "its encrypted_client_hello is not an outer one with HKDF-SHA256 and X25519"
                )
                return Raw()
        aeads = tuple(sorted({aead for aead, _ in shapes}))
        payloads = tuple(sorted({payload for _, payload in shapes}))
        if any(aead not in AEAD_WORDS.names for aead in aeads):
            self.problems.append("its encrypted_client_hello names an AEAD that the engine does not know")
        family, drawn = libraries.BORINGSSL_ECH_PAYLOADS, libraries.NSS_ECH_AEADS
        if self.library is libraries.NSS and set(aeads) < set(drawn) and not set(payloads) <= set(family):
            self.notes.append("the AEADs of ECH that were not seen are NSS's")
            aeads = drawn
        if set(payloads) < set(family):
            self.notes.append("the lengths of ECH payloads that were not seen are BoringSSL's")
        payloads = family if set(payloads) <= set(family) else payloads
        step = self.library.psk_step if payloads != family else 0
        return Ech(aeads, payloads, step)

    def _with_cookie(self, entries: list[Entry]) -> list[Entry]:
        """The entries with a cookie's place, which every TLS 1.3 client has."""
        if not _offers_tls13(self.samples[0]):
            return entries
        places = {entry.type: at for at, entry in enumerate(entries)}
        index = next((places[number] for number in self.library.cookie_after if number in places), None)
        if index is None:
            # Behind all but a last GREASE extension, which stays last.
            end = len(entries) - (entries[-1].type == GREASE if entries else 0)
            return [*entries[:end], Entry(ExtensionType.COOKIE.value), *entries[end:]]
        return [*entries[: index + 1], Entry(ExtensionType.COOKIE.value), *entries[index + 1 :]]

    def _padding(self) -> Padding:
        """By the messages whose length tells; else as the library does."""
        padded = unpadded = False
        for hello in self.samples:
            match padding_of(hello):
                case True:
                    padded = True
                case False:
                    unpadded = True
                case int(length):
                    self.problems.append(
                        f"it is padded to {length} bytes, and the engine pads to {PADDED_BYTES}"
                    )
        if padded and unpadded:
            self.problems.append("some samples are padded and others, as short, are not")
        if not (padded or unpadded):
            return self.library.padding if self.library.pads_unseen else Padding.NONE
        if not padded:
            return Padding.NONE
        return Padding.BORINGSSL if self.library.padding is Padding.NONE else self.library.padding

    def _reuse(self) -> bool:
        reused = {reuses_x25519(hello) for hello in self.samples}
        if len(reused) > 1:
            self.problems.append("its X25519 key is in the hybrid key share in some samples only")
        return reused == {True}


def _require_one_grease(hello: ClientHello, problems: list[str]) -> None:
    """What the template writes from one slot must be one value in the hello."""
    places = {
        "groups and key shares": [*hello.supported_groups, *(share.group for share in hello.key_shares)],
        "cipher suites": hello.cipher_suites,
        "versions": hello.supported_versions,
        "signature algorithms": [
            *hello.signature_algorithms,
            *hello.signature_algorithms_cert,
            *hello.delegated_credentials,
        ],
    }
    for what, values in places.items():
        if len({value for value in values if is_grease(value)}) > 1:
            problem = f"its {what} have different GREASE values"
            if problem not in problems:
                problems.append(problem)


def _greased(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(GREASE if is_grease(value) else value for value in values)


def _sorted_between_fixed(entries: list[Entry]) -> list[Entry]:
    """A permuted client's entries in the order of their numbers: any order is as true, this one compares."""
    movable = iter(sorted((entry for entry in entries if not entry.fixed), key=lambda entry: entry.type))
    return [entry if entry.fixed else next(movable) for entry in entries]


def _places(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(index for index, number in enumerate(order) if number == GREASE)


def _offers_tls13(hello: ClientHello) -> bool:
    return TLS13 in hello.supported_versions


def _ech_shape(body: bytes) -> tuple[int, int]:
    """AEAD and payload length of an outer encrypted_client_hello (draft-ietf-tls-esni §5)."""
    cursor = Cursor(body)
    if cursor.u8() != _OUTER_ECH or cursor.u16() != _HKDF_SHA256:
        raise CursorError("not an outer encrypted_client_hello with HKDF-SHA256")
    aead = cursor.u16()
    cursor.u8()  # config_id
    if len(cursor.vec16()) != _X25519_BYTES:
        raise CursorError("the encapsulated key is not of X25519")
    payload = len(cursor.vec16())
    cursor.finish()
    return aead, payload


def _lengths(hello: ClientHello) -> tuple[int, int | None]:
    """The bytes of the handshake message, and those of its padding's body, None where there is none."""
    fixed = _HANDSHAKE_HEADER_BYTES + 2 + 32 + 1 + len(hello.session_id) + 2 + 2 * len(hello.cipher_suites)
    fixed += 1 + len(hello.compression_methods)
    extensions = sum(4 + len(item.body) for item in hello.extensions)
    padding = hello.extension(ExtensionType.PADDING)
    return fixed + 2 + extensions, None if padding is None else len(padding)


def padding_of(hello: ClientHello) -> bool | int | None:
    """Whether it is padded as the engine can; None: its length cannot tell. A number: padded to that many
    bytes, as the engine cannot."""
    length, padding = _lengths(hello)
    if padding is None:
        return False if _MIN_PADDED_BYTES <= length < PADDED_BYTES else None
    return True if length == PADDED_BYTES or padding <= 1 else length


def ech_of(hello: ClientHello) -> Body | None:
    """What is learned of its encrypted_client_hello; None where there is none that could be."""
    found = _Findings([hello], libraries.library_of(hello))
    body = hello.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO)
    learned = None if body is None else found.ech([body])
    return None if found.problems else learned


def reuses_x25519(hello: ClientHello) -> bool:
    """Whether its X25519 share is the key in its hybrid one (NSS)."""
    shares: dict[int, KeyShare] = {share.group: share for share in hello.key_shares}
    plain = shares.get(X25519)
    for hybrid in HYBRIDS:
        if plain is not None and hybrid in shares:
            key = shares[hybrid].key_exchange
            # ML-KEM comes first in the standard, X25519 in the draft with Kyber.
            part = key[-_X25519_BYTES:] if hybrid == HYBRIDS[0] else key[:_X25519_BYTES]
            return part == plain.key_exchange
    return False
