"""What has to be new in every ClientHello, and whether it was (pure).

Theory of operation
-------------------
A hello that is exact in every byte is wrong if it is the same twice: an origin sees that no client does that.
`stale` looks at hellos that one profile sent on several connections, for what a real client draws each time:
random, session id, key shares, the key and payload of ECH, GREASE values. Permuted order is compared by
`polytls.fingerprint.normal`, which knows whether the client permutes.

A GREASE value is one of 16, so that few connections may well draw the same: a single place is judged from
`MIN_FOR_ONE_PLACE` hellos on (the chance of a wrong verdict is 16^-7 and less), all places together always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from polytls.wire import iana
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

MIN_FOR_ONE_PLACE = 8

_ECH_HEADER_BYTES = 5  # type, KDF and AEAD, which stay; what follows is fresh


def stale(hellos: Sequence[ClientHello]) -> tuple[str, ...]:
    """What was not new each time, a sentence each; empty where all was, or there is nothing to compare.

    Raises `HelloError` where an extension that is looked into is malformed.
    """
    if len(hellos) < 2:
        return ()
    return (*_repeated(hellos), *_repeated_grease(hellos))


def _repeated(hellos: Sequence[ClientHello]) -> list[str]:
    """What may never come twice."""
    values: dict[str, list[bytes]] = {}
    for hello in hellos:
        values.setdefault("the random", []).append(hello.random)
        if hello.session_id:
            values.setdefault("the session id", []).append(hello.session_id)
        for share in hello.key_shares:
            if not is_grease(share.group):
                what = f"the key share of {iana.group_name(share.group)}"
                values.setdefault(what, []).append(share.key_exchange)
        if body := hello.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO):
            values.setdefault("the contents of encrypted_client_hello", []).append(body[_ECH_HEADER_BYTES:])
    return [f"{what} is not new each time" for what, seen in values.items() if len(set(seen)) < len(seen)]


def _repeated_grease(hellos: Sequence[ClientHello]) -> list[str]:
    drawn = [_grease(hello) for hello in hellos]
    if not drawn[0]:
        return []
    if len({tuple(values.items()) for values in drawn}) == 1:
        return ["the GREASE values are the same each time"]
    if len(hellos) < MIN_FOR_ONE_PLACE:
        return []
    return [
        f"the GREASE value of {place} is the same each time"
        for place in drawn[0]
        if len({values.get(place) for values in drawn}) == 1
    ]


def _grease(hello: ClientHello) -> dict[str, int]:
    """The values by place."""
    places: dict[str, Callable[[ClientHello], Sequence[int]]] = {
        "the cipher suites": lambda hello: hello.cipher_suites,
        "the groups": lambda hello: hello.supported_groups,
        "the key shares": lambda hello: [share.group for share in hello.key_shares],
        "the versions": lambda hello: hello.supported_versions,
        "the signature algorithms": lambda hello: hello.signature_algorithms,
        "the extensions": lambda hello: hello.extension_types,
    }
    found = {}
    for place, values in places.items():
        for number, value in enumerate(filter(is_grease, values(hello))):
            found[place if number == 0 else f"{place} (place {number + 1})"] = value
    return found
