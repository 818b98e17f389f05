"""What a client's second hello has otherwise than its first: of a retried handshake, or of a resumed session.

Theory of operation ------------------- A second hello is compared with the one before it, for nearly all of
it is the same: `changes` says what is not, `difference` compares two such values in words. Two pairs of
hellos of one client have the same changes, whatever server they were sent to, so that what depends on
servers is left out: the length of tickets and of what grows with them (PSK, ECH), and padding but for being
there. A client that permutes keeps its order in a retried handshake (RFC 8446 §4.1.2), but the places of
what is new in it say nothing.

GREASE values and ECH are drawn anew with the random, so that they are only looked at where that was kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.wire import iana
from polytls.wire.cursor import Cursor, CursorError
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytls.wire.client_hello import ClientHello, Extension

_LEFT_OUT = frozenset(
    {
        ExtensionType.PADDING.value,
        ExtensionType.PRE_SHARED_KEY.value,
        ExtensionType.ENCRYPTED_CLIENT_HELLO.value,
    }
)
"""Of their bodies only what is said below is compared."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names are those of `polytls.wire.iana`, GREASE extensions are ``GREASE 1`` and ``GREASE 2``.

    `kept` are the things that are equal in both hellos, in words. `added` are extensions with their place,
    ``cookie behind key_share``; `changed` are extensions whose body says something else, with its text.
    """

    kept: frozenset[str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: frozenset[str]
    padded: bool


def changes(first: ClientHello, second: ClientHello, *, permuted: bool) -> Changes:
    """`permuted`: the client permutes, so that places say nothing."""
    old, new = _named(first), _named(second)
    common = [name for name in old if name in new]
    kept = _kept(first, second)
    if common == [name for name in new if name in old]:
        kept.add("the order of extensions")
    names = list(new)
    added = []
    for place, name in enumerate(names):
        if name not in old and new[name].type != ExtensionType.PADDING:
            where = (
                ""
                if permuted and name != names[-1]
                else f" behind {names[place - 1] if place else 'nothing'}"
            )
            added.append(f"{name}{where}{_sizes(new[name])}")
    return Changes(
        kept=frozenset(kept),
        added=tuple(sorted(added)),
        removed=tuple(name for name in old if name not in new and old[name].type != ExtensionType.PADDING),
        changed=frozenset(
            f"{name} {_text(second, new[name])}"
            for name in common
            if new[name].type not in _LEFT_OUT and _text(first, old[name]) != _text(second, new[name])
        ),
        padded=second.extension(ExtensionType.PADDING) is not None,
    )


def difference(expected: Changes, actual: Changes) -> list[str]:
    """Where a second hello is not what is expected of it, a sentence each."""
    found = [f"not kept: {what}" for what in sorted(expected.kept - actual.kept)]
    found += [f"kept, which is not expected: {what}" for what in sorted(actual.kept - expected.kept)]
    found += _lists("has no new", expected.added, actual.added)
    found += _lists("has a new", actual.added, expected.added)
    found += _lists("still has", expected.removed, actual.removed)
    found += _lists("lacks", actual.removed, expected.removed)
    if expected.changed != actual.changed:
        texts = [", ".join(sorted(side)) or "nothing" for side in (actual.changed, expected.changed)]
        found.append(f"changed: {texts[0]}, expected {texts[1]}")
    if expected.padded != actual.padded:
        found.append("is padded, which is not expected" if actual.padded else "is not padded")
    return found


def _lists(what: str, some: Sequence[str], others: Sequence[str]) -> list[str]:
    return [f"{what} {name}" for name in some if name not in others]


def _kept(first: ClientHello, second: ClientHello) -> set[str]:
    """What is the same, order of extensions aside."""

    def body(hello: ClientHello, number: int) -> bytes | None:
        return hello.extension(number)

    looked_at: dict[str, Callable[[ClientHello], object]] = {
        "the random": lambda hello: hello.random,
        "the session id": lambda hello: hello.session_id,
        "the list of cipher suites": lambda hello: tuple(map(_degreased, hello.cipher_suites)),
        "the record version": lambda hello: hello.record_version,
        "the key shares": lambda hello: body(hello, ExtensionType.KEY_SHARE),
    }
    if first.random == second.random:
        looked_at |= {
            "encrypted_client_hello": lambda hello: body(hello, ExtensionType.ENCRYPTED_CLIENT_HELLO),
            "every GREASE value": lambda hello: (
                tuple(filter(is_grease, hello.cipher_suites)),
                tuple(filter(is_grease, hello.extension_types)),
                tuple(filter(is_grease, hello.supported_groups)),
            ),
        }
    return {what for what, of in looked_at.items() if of(first) == of(second)}


def _named(hello: ClientHello) -> dict[str, Extension]:
    """The extensions by name, in order."""
    found: dict[str, Extension] = {}
    greases = 0
    for item in hello.extensions:
        greases += is_grease(item.type)
        found[f"GREASE {greases}" if is_grease(item.type) else iana.extension_name(item.type)] = item
    return found


def _text(hello: ClientHello, item: Extension) -> str:
    """A body, but for what is fresh in it."""
    match item.type:
        case ExtensionType.KEY_SHARE:
            return ", ".join(
                f"{iana.group_name(share.group)}:{len(share.key_exchange)}" for share in hello.key_shares
            )
        case ExtensionType.SUPPORTED_GROUPS:
            return ", ".join(map(iana.group_name, hello.supported_groups))
        case ExtensionType.SUPPORTED_VERSIONS:
            return ", ".join(map(iana.version_name, hello.supported_versions))
        case ExtensionType.SIGNATURE_ALGORITHMS:
            return ", ".join(map(iana.signature_scheme_name, hello.signature_algorithms))
        case ExtensionType.SESSION_TICKET:
            return "with a ticket" if item.body else "empty"
        case _:
            return item.body.hex()


def _sizes(item: Extension) -> str:
    """Of a PSK, how many there are: their lengths are the server's. Of a cookie, nothing."""
    if item.type != ExtensionType.PRE_SHARED_KEY:
        return ""
    try:
        identities, count = Cursor(Cursor(item.body).vec16()), 0
        while identities.remaining:
            identities.vec16()
            identities.take(4)
            count += 1
    except CursorError:
        return " (malformed)"
    return f" ({count})"


def _degreased(value: int) -> int:
    return 0x0A0A if is_grease(value) else value
