"""The first ClientHello of every exact built-in profile, as it arrives: the captured client's, and fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine import ClientContext, Trust
from polytls.wire.client_hello import ClientHello
from polytls.wire.iana import ExtensionType, is_grease
from tests.engine.dialer import dialing
from tests.golden.known import NAMES, expected, greases, permutes, problems
from tests.golden.recorder import HOST, Answer, Recorder

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

CONNECTIONS = 8
"""A GREASE value is one of 16: eight that are the same by chance come once in 268 million times."""

Hellos = Mapping[str, list[ClientHello]]

each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def hellos(catalog: Catalog, authority: Authority, trust: Trust) -> Hellos:
    """What arrived of every profile, all handshakes to their end."""
    certificate: Path = authority.issue(HOST)

    async def main() -> Hellos:
        with Recorder(Answer.FULL, certificate) as recorder:
            async with dialing() as dialer:
                for name in NAMES:
                    spec = catalog.require(name, source="test", key="")
                    context = ClientContext(spec, trust, verify_chain=True, verify_host=True)
                    for _ in range(CONNECTIONS):
                        fetched = await dialer.fetch(spec, context, HOST, recorder.port)
                        assert fetched.head.startswith(b"HTTP/1.1 200 "), name
            taken = recorder.connections
        assert [len(sent) for sent in taken] == [1] * len(NAMES) * CONNECTIONS
        parsed = [sent[0].parsed for sent in taken]
        starts = range(0, len(parsed), CONNECTIONS)
        return {name: parsed[start : start + CONNECTIONS] for name, start in zip(NAMES, starts, strict=True)}

    return asyncio.run(main())


@each
def test_it_is_the_captured_clients(hellos: Hellos, name: str) -> None:
    assert problems(name, hellos[name]) == []


@each
def test_what_is_drawn_is_drawn_anew(hellos: Hellos, name: str) -> None:
    sent = hellos[name]
    assert len({hello.random for hello in sent}) == CONNECTIONS
    ids = {hello.session_id for hello in sent}
    assert len(ids) == CONNECTIONS or ids == {b""}
    keys: dict[int, set[bytes]] = {}
    for hello in sent:
        for share in hello.key_shares:
            keys.setdefault(0 if is_grease(share.group) else share.group, set()).add(share.key_exchange)
    assert {len(seen) for group, seen in keys.items() if group} <= {CONNECTIONS}
    ech = [body for hello in sent if (body := hello.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO))]
    assert len({body[5:] for body in ech}) == len(ech)
    assert len({body[8:40] for body in ech}) == len(ech)  # its key
    assert len({body[42:] for body in ech}) == len(ech)  # its payload


@each
def test_every_grease_value_is_drawn(hellos: Hellos, name: str) -> None:
    places = list(zip(*(greases(hello) for hello in hellos[name]), strict=True))
    assert all(len(set(values)) > 1 for values in places)
    first = hellos[name][0]
    assert bool(places) == any(map(is_grease, (*first.cipher_suites, *first.extension_types)))


def test_grease_values_are_drawn_independently(hellos: Hellos) -> None:
    """But for the two extensions, which may not be the same, and the group, which is the key share's."""
    sent = hellos["chrome-133"]
    places = list(zip(*(greases(hello) for hello in sent), strict=True))
    assert len(set(places)) == len(places)
    for hello in sent:
        extensions = [number for number in hello.extension_types if is_grease(number)]
        assert len(set(extensions)) == 2
        (group,) = filter(is_grease, hello.supported_groups)
        assert hello.key_shares[0].group == group


@each
def test_a_client_that_permutes_is_permuted_and_no_other(hellos: Hellos, name: str) -> None:
    orders = {
        tuple(0 if is_grease(n) else n for n in hello.extension_types if n != 21) for hello in hellos[name]
    }
    assert len(orders) == (CONNECTIONS if permutes(name) else 1)
    assert expected(name).permuted == permutes(name)


def test_every_payload_length_and_aead_of_ech_is_drawn(hellos: Hellos) -> None:
    """Over the profiles of one family together, one of 4 lengths is missed once in 10^30 times."""

    def drawn(prefix: str) -> set[tuple[int, int]]:
        bodies = [
            body
            for name, sent in hellos.items()
            if name.startswith(prefix)
            for hello in sent
            if (body := hello.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO))
        ]
        return {(int.from_bytes(body[3:5], "big"), int.from_bytes(body[40:42], "big")) for body in bodies}

    assert drawn("chrom") == {(1, length) for length in (144, 176, 208, 240)}
    assert drawn("firefox") == {(aead, 239) for aead in (1, 3)}
