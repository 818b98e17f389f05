"""What has to be new is missed where it is not; the order and the shape of a hello play no part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polytls.capture.freshness import MIN_FOR_ONE_PLACE, stale
from polytls.wire.client_hello import ClientHello, Extension, parse_client_hello
from polytls.wire.iana import ExtensionType
from tests.capture.hellos import CHROME, GOLDENS, OPENSSL, samples

HELLOS = [parse_client_hello(hello) for hello in CHROME]


def with_body(hello: ClientHello, kind: int, body: bytes) -> ClientHello:
    extensions = [Extension(kind, body) if one.type == kind else one for one in hello.extensions]
    return replace(hello, extensions=tuple(extensions))


def test_real_hellos_are_fresh() -> None:
    for path in GOLDENS.glob("*.json"):
        assert stale([parse_client_hello(hello) for hello in samples(path.stem)]) == (), path.stem
    assert stale(HELLOS[:1]) == ()
    assert stale([]) == ()


def test_one_part_that_comes_twice() -> None:
    first, second = HELLOS[:2]
    shares = first.extension(ExtensionType.KEY_SHARE)
    ech = first.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO)
    assert shares is not None
    assert ech is not None
    assert stale([first, replace(second, random=first.random)]) == ("the random is not new each time",)
    assert stale([first, replace(second, session_id=first.session_id)]) == (
        "the session id is not new each time",
    )
    assert stale([first, with_body(second, ExtensionType.KEY_SHARE, shares)])[:2] == (
        "the key share of X25519MLKEM768 is not new each time",
        "the key share of x25519 is not new each time",
    )
    assert stale([first, with_body(second, ExtensionType.ENCRYPTED_CLIENT_HELLO, ech)]) == (
        "the contents of encrypted_client_hello is not new each time",
    )


def drawn(number: int) -> ClientHello:
    """A hello that is fresh in everything but its GREASE values."""
    hello = parse_client_hello(OPENSSL[number % len(OPENSSL)])
    fresh = number.to_bytes(32, "big")
    keys = b"\x00\x24\x00\x1d\x00\x20" + fresh
    suites = (0x0A0A + 0x1010 * (number % 2), *hello.cipher_suites)
    hello = replace(hello, random=fresh, session_id=fresh, cipher_suites=suites)
    hello = with_body(hello, ExtensionType.KEY_SHARE, keys)
    return with_body(hello, ExtensionType.SUPPORTED_GROUPS, b"\x00\x04\x2a\x2a\x00\x1d")


@pytest.mark.parametrize(
    ("hellos", "found"),
    [
        ([drawn(number) for number in range(MIN_FOR_ONE_PLACE - 1)], ()),
        (
            [drawn(number) for number in range(MIN_FOR_ONE_PLACE)],
            ("the GREASE value of the groups is the same each time",),
        ),
        ([drawn(0), drawn(2)], ("the GREASE values are the same each time",)),
    ],
)
def test_grease(hellos: list[ClientHello], found: tuple[str, ...]) -> None:
    assert stale(hellos) == found
