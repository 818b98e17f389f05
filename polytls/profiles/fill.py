"""What a fingerprint's text tells, and a base for all that it does not -> `ExactHello`.

Theory of operation
-------------------
A JA3 or raw JA4 text is a few lists of a ClientHello. A hello that has it is made by taking a whole one, the
*base*, and putting the text's lists into it: cipher suites, extensions, and groups and point formats (JA3) or
signature algorithms, the highest version and the first protocol (JA4). All else is the base's: GREASE in the
places where it has it, key shares, the bodies of extensions, what second hellos do. An extension that the
base lacks is taken from the next like profile that has it; where nobody has, it is sent empty.

Where a text is sorted, the base's order is kept, and what the base lacks comes last. Where it is in wire
order the profile has that one order, also over a base that permutes: another order would be another text.

Every such decision is said in `Learned.notes`, with whose values were taken: half of such a profile is a
guess. `nearest` ranks the profiles by how much of a text they have already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from polytls.fingerprint.ja4 import protocol_ends
from polytls.profiles.bodies import SIMPLE, extension_word
from polytls.profiles.boringssl import GROUPS
from polytls.profiles.exact import (
    GREASE,
    HYBRIDS,
    NEVER_ENTRIES,
    TLS13,
    X25519,
    Entry,
    ExactHello,
    Numbers,
    Padding,
    Protocols,
    Raw,
    check,
)
from polytls.profiles.learn import Learned
from polytls.profiles.overrides import regreased
from polytls.wire import iana
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from polytls.fingerprint.texts import Told
    from polytls.profiles.spec import HelloSpec

_ALPS = (ExtensionType.APPLICATION_SETTINGS, ExtensionType.APPLICATION_SETTINGS_OLD)
_PROTOCOLS = {"h2": ("h2", "http/1.1"), "h1": ("http/1.1",)}
"""By the ends of the first name: what clients offer that begin so."""

_TLS12 = 0x0303
_POST_QUANTUM = frozenset({*HYBRIDS, 0x0202})
_NEEDED_FOR_TLS13 = (
    ExtensionType.SUPPORTED_GROUPS,
    ExtensionType.SIGNATURE_ALGORITHMS,
    ExtensionType.KEY_SHARE,
)


class UnfillableError(Exception):
    """No hello with this text can be made. The sentence says why."""


def nearest(told: Told, specs: Iterable[HelloSpec]) -> list[tuple[float, HelloSpec]]:
    """The exact profiles with how alike each is to a text, 0 to 1, the likest first.

    Of equals, the last by name in the order of people: of several builds of a client, the newest.
    """
    ranked = [(_likeness(told, spec.exact), spec) for spec in specs if spec.exact is not None]
    return sorted(ranked, key=lambda pair: (pair[0], _natural(pair[1].name)), reverse=True)


def fill(told: Told, base: HelloSpec, donors: Sequence[HelloSpec] = ()) -> Learned:
    """A hello with this text. `base` is exact; `donors`, likest first, have what it lacks.

    Raises `UnfillableError`, or `InexactError` for a hello that the engine could not send.
    """
    assert base.exact is not None, "a base by knobs has no hello to be filled in"
    filling = _Filling(told, base.name, base.exact, donors)
    hello = filling.hello()
    check(hello)
    return Learned(hello, tuple(filling.notes))


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """For sorting: numbers by their value."""
    parts = "".join(char if char.isdigit() else f" {char} " for char in name).split()
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _likeness(told: Told, hello: ExactHello) -> float:
    types = [entry.type for entry in hello.extensions if entry.type not in (GREASE, ExtensionType.COOKIE)]
    wanted = [number for number in told.extensions if number not in NEVER_ENTRIES]
    suites = _plain(hello.cipher_suites)
    scores = [_alike(told.cipher_suites, suites, told.ordered), _alike(wanted, types, in_order=False)]
    if told.ordered and not hello.permute:
        scores.append(_alike(wanted, types, in_order=True))
    if told.groups is not None:
        scores.append(_alike(told.groups, _plain(hello.numbers(ExtensionType.SUPPORTED_GROUPS)), True))
    if told.signature_algorithms is not None:
        own = _plain(hello.numbers(ExtensionType.SIGNATURE_ALGORITHMS))
        scores.append(_alike(told.signature_algorithms, own, in_order=True))
    return sum(scores) / len(scores)


def _alike(one: Sequence[int], other: Sequence[int], in_order: bool) -> float:
    if in_order:
        return SequenceMatcher(None, one, other, autojunk=False).ratio()
    first, second = Counter(one), Counter(other)
    both = sum((first | second).values())
    return sum((first & second).values()) / both if both else 1.0


@dataclass(slots=True)
class _Filling:
    """One text being filled in. `notes` are what was decided so far."""

    told: Told
    name: str
    base: ExactHello
    donors: Sequence[HelloSpec]
    notes: list[str] = field(default_factory=list)
    borrowed: list[str] = field(default_factory=list)

    def hello(self) -> ExactHello:
        """The hello, not checked yet."""
        suites = self._suites()
        entries = self._entries()
        entries = [self._listed(entry) for entry in entries]
        entries = self._agreeing(entries, suites)
        hello = replace(
            self.base,
            cipher_suites=regreased(self.base.cipher_suites, suites),
            permute=self.base.permute and not self.told.ordered,
            padding=self._padding(),
            extensions=self._with_grease(self._with_cookie(entries)),
        )
        shares = hello.numbers(ExtensionType.KEY_SHARE)
        reused = X25519 in shares and any(hybrid in shares for hybrid in HYBRIDS)
        self._say_what_was_filled(hello)
        return replace(hello, reuse_x25519=self.base.reuse_x25519 and reused)

    def _suites(self) -> tuple[int, ...]:
        """The text's suites, in its order, or else in the base's."""
        if self.told.ordered:
            return self.told.cipher_suites
        ordered, new = _in_order_of(_plain(self.base.cipher_suites), self.told.cipher_suites)
        if new:
            names = ", ".join(map(iana.cipher_suite_name, new))
            self.notes.append(f"cipher suites that {self.name} lacks were put last (of their sort): {names}")
        at = max((place for place, suite in enumerate(ordered, 1) if _is_tls13(suite)), default=0)
        first, rest = [list(filter(_is_tls13, new)), [suite for suite in new if not _is_tls13(suite)]]
        return (*ordered[:at], *first, *ordered[at:], *rest)

    def _entries(self) -> list[Entry]:
        """The text's extensions with somebody's bodies, in its order, or else in the base's."""
        types: Sequence[int] = [number for number in self.told.extensions if number not in NEVER_ENTRIES]
        if not self.told.ordered:
            own = [entry.type for entry in self.base.extensions]
            ordered, new = _in_order_of(own, types)
            types = [*ordered, *new]
            if new:
                names = ", ".join(map(extension_word, new))
                self.notes.append(f"extensions that {self.name} lacks were put last: {names}")
        for number in (ExtensionType.PRE_SHARED_KEY, ExtensionType.EARLY_DATA):
            if number in self.told.extensions:
                word = iana.extension_name(number)
                self.notes.append(
                    f"{word} is not in a first hello of the engine's: the text is of a resumed connection"
                )
        return [self._entry(number) for number in types]

    def _entry(self, number: int) -> Entry:
        entry = self.base.entry(number)
        if entry is not None:
            if not isinstance(entry.body, Raw) or (entry.body.data and number not in SIMPLE):
                self.borrowed.append(extension_word(number))
            return entry
        if number in SIMPLE:
            return Entry(number, Raw(SIMPLE[number]))
        for donor in self.donors:
            entry = donor.exact.entry(number) if donor.exact is not None else None
            if entry is not None:
                self.notes.append(f"{extension_word(number)}, which {self.name} lacks, is as in {donor.name}")
                return entry
        self.notes.append(
            f"{extension_word(number)} is sent with an empty body: no profile has it, and servers may mind"
        )
        return Entry(number)

    def _listed(self, entry: Entry) -> Entry:
        """The entry with the text's list, where it tells one."""
        lists = {
            ExtensionType.SUPPORTED_GROUPS.value: self.told.groups,
            ExtensionType.EC_POINT_FORMATS.value: self.told.point_formats,
            ExtensionType.SIGNATURE_ALGORITHMS.value: self.told.signature_algorithms,
        }
        values = lists.get(entry.type)
        if values is None:
            return entry
        word = extension_word(entry.type)
        if word in self.borrowed:
            self.borrowed.remove(word)
        old = entry.body.values if isinstance(entry.body, Numbers) else ()
        return replace(entry, body=Numbers(regreased(old, values)))

    def _agreeing(self, entries: list[Entry], suites: Sequence[int]) -> list[Entry]:
        """The entries with bodies that fit each other."""
        bodies = {entry.type: entry.body for entry in entries}
        groups = self._groups(_values(bodies.get(ExtensionType.SUPPORTED_GROUPS.value)))
        protocols = self._protocols(bodies.get(ExtensionType.ALPN.value))
        changed: dict[int, Numbers | Protocols] = {}
        if groups:
            changed[ExtensionType.SUPPORTED_GROUPS.value] = Numbers(groups)
        if ExtensionType.SUPPORTED_VERSIONS.value in bodies:
            old = _values(bodies[ExtensionType.SUPPORTED_VERSIONS.value])
            can = all(number.value in bodies for number in _NEEDED_FOR_TLS13)
            can = can and any(map(_is_tls13, suites))
            changed[ExtensionType.SUPPORTED_VERSIONS.value] = Numbers(self._versions(old, can))
        if ExtensionType.KEY_SHARE.value in bodies:
            shares = self._shares(_values(bodies[ExtensionType.KEY_SHARE.value]), groups)
            changed[ExtensionType.KEY_SHARE.value] = Numbers(shares)
        if ExtensionType.ALPN.value in bodies:
            changed[ExtensionType.ALPN.value] = Protocols(protocols)
        for alps in _ALPS:
            body = bodies.get(alps.value)
            if isinstance(body, Protocols):
                if not protocols:
                    raise UnfillableError(
                        f"{extension_word(alps)} is for protocols of alpn, which is not there"
                    )
                kept = tuple(name for name in body.names if name in protocols) or protocols[:1]
                changed[alps.value] = Protocols(kept)
        return [replace(entry, body=changed.get(entry.type, entry.body)) for entry in entries]

    def _versions(self, old: tuple[int, ...], can_13: bool) -> tuple[int, ...]:
        highest = self.told.version or (TLS13 if can_13 else _TLS12)
        kept = tuple(version for version in old if version == GREASE or version <= highest)
        if highest not in kept:
            kept = (*kept[: kept[:1] == (GREASE,)], highest, *kept[kept[:1] == (GREASE,) :])
        if self.told.version is None and TLS13 in old and TLS13 not in kept:
            self.notes.append("TLS 1.3 is not offered: the text lacks a suite or an extension that it needs")
        return kept

    def _groups(self, groups: tuple[int, ...]) -> tuple[int, ...]:
        """The text's, or the base's without what would be too long for a hello that is padded."""
        small = tuple(group for group in groups if group not in _POST_QUANTUM)
        if self.told.groups is not None or not self._is_short() or small == groups or not _plain(small):
            return groups
        self.notes.append(f"post-quantum groups of {self.name} were left out: with one, nothing is padded")
        return small

    def _is_short(self) -> bool:
        """A hello with padding has at most 512 bytes, and a post-quantum share more (RFC 7685 §4)."""
        return ExtensionType.PADDING in self.told.extensions

    def _shares(self, old: tuple[int, ...], groups: tuple[int, ...]) -> tuple[int, ...]:
        known = {entry.id for entry in GROUPS.entries}
        if self._is_short():
            known -= _POST_QUANTUM
        possible = [group for group in groups if group in known]
        kept = tuple(share for share in old if share in groups and (share == GREASE or share in known))
        if _plain(kept) or not possible:
            if not possible:
                self.notes.append("there is no key share: the engine can make none of the groups")
            return kept
        share = X25519 if X25519 in possible else possible[0]
        self.notes.append(f"the key share is of {iana.group_name(share)}: {self.name} has none that fits")
        return (*kept, share)

    def _protocols(self, body: object) -> tuple[str, ...]:
        old = body.names if isinstance(body, Protocols) else ()
        ends = self.told.alpn
        if ends is None or _begin_so(old, ends):
            return old
        for donor in self.donors:
            names = donor.exact.protocols(ExtensionType.ALPN) if donor.exact is not None else ()
            if _begin_so(names, ends):
                self.notes.append(f"alpn is as in {donor.name}: the first protocol of {self.name} is another")
                return names
        found = _PROTOCOLS.get(ends)
        if found is None:
            raise UnfillableError(
                f"which protocol begins and ends as {ends!a} is not known; name a --base that offers it"
            )
        return found

    def _padding(self) -> Padding:
        if ExtensionType.PADDING not in self.told.extensions:
            return Padding.NONE
        return Padding.BORINGSSL if self.base.padding is Padding.NONE else self.base.padding

    def _with_cookie(self, entries: list[Entry]) -> list[Entry]:
        """A cookie's place, behind what it is behind in the base; else last."""
        cookie = self.base.entry(ExtensionType.COOKIE)
        versions = next((e.body for e in entries if e.type == ExtensionType.SUPPORTED_VERSIONS), None)
        if TLS13 not in _values(versions):
            return entries
        cookie = cookie or Entry(ExtensionType.COOKIE.value)
        own = [entry.type for entry in self.base.extensions]
        before = own[own.index(cookie.type) - 1] if cookie.type in own[1:] else None
        places = [entry.type for entry in entries]
        at = places.index(before) + 1 if before in places else len(entries)
        return [*entries[:at], cookie, *entries[at:]]

    def _with_grease(self, entries: list[Entry]) -> tuple[Entry, ...]:
        """The base's GREASE extensions: at the head those that lead it, the others at the end."""
        own = self.base.extensions
        lead = 0
        while lead < len(own) and own[lead].type == GREASE:
            lead += 1
        tail = [entry for entry in own[lead:] if entry.type == GREASE]
        return (*own[:lead], *entries, *tail)

    def _say_what_was_filled(self, hello: ExactHello) -> None:
        form = self.told.form
        bodies = ", ".join(self.borrowed) or "none"
        grease = "with GREASE where it has it" if hello.grease else "without GREASE, as it is"
        first = [f"{form} does not tell, and {self.name} supplied: bodies of extensions ({bodies});"]
        first.append("record version, compression methods, what second hellos do;")
        filled = [" ".join([*first, grease])]
        if not self.told.ordered:
            order = "permuted for every connection" if hello.permute else "fixed"
            filled.append(
                f"{form} is sorted: cipher suites and extensions have the order of {self.name} ({order})"
            )
        elif self.base.permute:
            filled.append(
                f"{self.name} permutes its extensions; {form} has one order, and the profile keeps to it"
            )
        self.notes[:0] = filled


def _in_order_of(own: Sequence[int], wanted: Sequence[int]) -> tuple[list[int], list[int]]:
    """What of `wanted` is in `own`, in its order, and what is not. What is there twice stays so."""
    left = Counter(wanted)
    ordered = []
    for value in own:
        if left[value] > 0:
            left[value] -= 1
            ordered.append(value)
    new = []
    for value in wanted:
        if left[value] > 0:
            left[value] -= 1
            new.append(value)
    return ordered, new


def _is_tls13(suite: int) -> bool:
    return suite >> 8 == 0x13


def _begin_so(protocols: Sequence[str], ends: str) -> bool:
    return bool(protocols) and protocol_ends(protocols[0].encode("ascii")) == ends


def _plain(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(value for value in values if value != GREASE)


def _values(body: object) -> tuple[int, ...]:
    return body.values if isinstance(body, Numbers) else ()
