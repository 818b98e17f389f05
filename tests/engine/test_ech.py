"""Real ECH: the outer hello is the profile's, the inner one is what its client would seal, and Go takes it.

What was sent is opened here with the server's key (tests.peers.ech): nothing is taken from the server's word.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from polytls.fingerprint.normal import difference, normalise
from polytls.wire.iana import ExtensionType, is_grease
from tests.engine.dialer import dialing
from tests.engine.ech_bench import FEW, KNOBS, PUBLIC, Bench, Seen
from tests.golden.known import NAMES, as_said, expected
from tests.golden.recorder import GROUPS, HOST
from tests.peers import servers
from tests.peers.ech import AES_256_GCM, ECH, EchKey, u16, unknown_config, vec
from tests.peers.shim import Tap

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

NSS = ("firefox-",)
"""tor-14.5 is an imitation's, which is BoringSSL."""
SNI, VERSIONS, PSK = ExtensionType.SERVER_NAME, ExtensionType.SUPPORTED_VERSIONS, ExtensionType.PRE_SHARED_KEY
PADDING = ExtensionType.PADDING
BEFORE_TLS13 = frozenset({11, 17, 22, 23, 35, 13172, 65281})
"""Of no use to a server that can only choose TLS 1.3 (RFC 8446 §4.2)."""
NO_SESSIONS = ("tor-14.5", "go-1.26")


def inner_types(name: str, outer: ClientHello) -> list[int]:
    """What the profile's client seals, by the hello it shows: what differs first, then the rest in order."""
    shown = [n for n in outer.extension_types if n not in BEFORE_TLS13 and n != PADDING]
    first = [number for number in shown if number in (SNI, VERSIONS, ECH)]
    if name.startswith(NSS):
        first = [ECH, *(number for number in first if number != ECH)]
    return first + [number for number in shown if number not in (SNI, VERSIONS, ECH, PSK)]


def outer_problems(name: str, outer: ClientHello) -> list[str]:
    """How the outer hello is not the profile's, what ECH itself takes up aside."""
    wanted, got = expected(name), normalise([outer])
    padded = "padding"  # a longer hello needs none, and its length is not the name's
    found = [text for text in difference(wanted, got) if text not in as_said(name)]
    return [text for text in found if "encrypted_client_hello" not in text and padded not in text.lower()]


def check(name: str, seen: Seen) -> None:
    assert seen.facts.ech_accepted, name
    for opened in seen.opened:
        outer, inner = opened.outer, opened.inner
        assert (outer.sni, inner.sni) == (PUBLIC.encode(), HOST.encode()), name
        assert outer.random != inner.random
        psk = [PSK] if seen.facts.resumed else []
        assert list(inner.extension_types) == inner_types(name, outer) + psk, name
        assert inner.extension(ECH) == b"\1"
        assert [v for v in inner.supported_versions if not is_grease(v)] == [0x0304]
        sealed = outer.cipher_suites
        if not name.startswith(NSS):
            sealed = tuple(n for n in sealed if n >> 8 == 0x13 or is_grease(n))
        assert inner.cipher_suites == sealed, name
        assert inner.key_shares == outer.key_shares
        compressed = [n for n in outer.extension_types if n in opened.compressed]
        assert len(compressed) == len(opened.compressed) == len(inner.extensions) - 3 - len(psk)
        # RFC 9849 §6.1.2: what is sealed never shows in the clear.
        assert HOST.encode() not in b"".join(item.body for item in outer.extensions)
        if psk:
            ticket = inner.extension(PSK)
            assert outer.extension(PSK) != ticket
            assert (outer.extension(PSK) is not None) == name.startswith(NSS), name


def test_every_profile_is_accepted_and_keeps_itself(ech_bench: Bench) -> None:
    key = EchKey(PUBLIC, maximum_name_length=32)
    for name, (seen,) in ech_bench.accepted([*NAMES, KNOBS], key).items():
        check(name, seen)
        if name != KNOBS:
            assert outer_problems(name, seen.opened[0].outer) == [], name
        if name.startswith(NSS):
            assert seen.opened[0].payload_bytes % 32 == 15
        else:
            assert seen.opened[0].payload_bytes % 32 == 16


def test_after_a_hello_retry_request(ech_bench: Bench) -> None:
    key = EchKey(PUBLIC)
    for name, (seen,) in ech_bench.accepted([*FEW, KNOBS], key, curves=[GROUPS["secp384r1"]]).items():
        assert seen.facts.retried, name
        assert len(seen.opened) == 2, name
        check(name, seen)
        first, second = seen.opened
        assert first.inner.random == second.inner.random
        assert [share.group for share in second.inner.key_shares] == [GROUPS["secp384r1"]]


@pytest.mark.parametrize("curves", [(), (GROUPS["secp384r1"],)], ids=["at once", "after a retry"])
def test_sessions_are_resumed_inside(ech_bench: Bench, curves: tuple[int, ...]) -> None:
    names = [name for name in (*FEW, KNOBS) if name not in NO_SESSIONS]
    options = {"curves": list(curves)} if curves else {}
    for name, seen in ech_bench.accepted(names, EchKey(PUBLIC), times=2, **options).items():
        assert [one.facts.resumed for one in seen] == [False, True], name
        for one in seen:
            check(name, one)


def test_another_aead_and_a_list_of_which_the_last_is_known(ech_bench: Bench) -> None:
    """RFC 9849 §4: unknown versions and mandatory extensions make a config useless, not a list."""
    key = EchKey(PUBLIC, aeads=[AES_256_GCM])
    mandatory = EchKey("other.test", config_id=7, extensions=u16(0x8001) + vec(b""))
    number = EchKey("192.0.2.1", config_id=8)
    configs = vec(unknown_config() + mandatory.config + number.config + key.config)

    async def main() -> bytes:
        with (
            servers.go_ech(ech_bench.certificates, ech_bench.directory, keys=[key.option()]) as port,
            Tap(("127.0.0.1", port)) as tap,
        ):
            async with dialing() as dialer:
                spec = ech_bench.catalog.require("chrome", source="test", key="")
                done = await dialer.fetch(
                    spec, ech_bench.context("chrome"), HOST, tap.port, ech_configs=configs
                )
                assert done.facts.ech_accepted
            return tap.connections[0][0].parsed.extension(ECH) or b""

    body = asyncio.run(main())
    assert int.from_bytes(body[3:5], "big") == AES_256_GCM
