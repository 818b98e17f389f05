"""Every captured client: learned, written, read, compiled and expanded again, it is the same client.

The captures are in tests/golden/clients. Nothing native takes part: `expand` writes the hellos that the
engine would write from the template.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.normal import NormalHello, difference, normalise
from polytls.profiles.catalog import Catalog, builtin_table
from polytls.profiles.exact import Padding
from polytls.profiles.exact_toml import as_toml, parse_hello
from polytls.profiles.index import BUILTINS
from polytls.profiles.learn import learn
from polytls.profiles.parse import parse_aliases
from polytls.profiles.template import compile_template
from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.iana import ExtensionType, is_grease
from tests.golden.profiles import CLIENTS, PROFILES, Build, builds, capture, files, samples
from tests.profiles.expand import Connection, client_hello, parse

if TYPE_CHECKING:
    from polytls.profiles.exact import ExactHello

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHARED = Path(__file__).resolve().parents[3] / "shared" / "goldens"
NAMES = sorted(path.stem for path in CLIENTS.glob("*.json"))
CATALOG = Catalog.load({}, "none")
SAMPLES = 24
"""Enough that each of four ECH lengths is drawn, but for once in a thousand: the seed is fixed."""

ANCHORS_STAY = "trust_anchors: in the same order each time, expected a new one"

FIREFOX_IS_REAL = [
    "encrypted_client_hello: AEAD 3, expected 1",
    "encrypted_client_hello: bytes of payload 239, expected 144 or 176 or 208 or 240",
    "unexpected: the X25519 key share is the key in the hybrid one",
]


def expanded(hello: ExactHello, count: int = SAMPLES) -> list[ClientHello]:
    template = parse(compile_template(hello))
    alps = (ExtensionType.APPLICATION_SETTINGS, ExtensionType.APPLICATION_SETTINGS_OLD)
    connection = Connection(
        "golden.test",
        hello.protocols(ExtensionType.ALPN),
        next((hello.protocols(number) for number in alps if hello.entry(number)), ()),
    )
    random = Random(9)
    return [parse_client_hello(client_hello(template, connection, random)) for _ in range(count)]


def golden(name: str) -> list[ClientHello]:
    return [parse_client_hello(sample) for sample in samples(name)]


def normal(name: str) -> NormalHello:
    return normalise(golden(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_is_what_was_captured(name: str) -> None:
    learned = learn(samples(name)).hello
    read = parse_hello(tomllib.loads(as_toml(learned)), "hello", "learned.toml")
    assert read == learned
    ours = expanded(read)
    expected = [ANCHORS_STAY] if name.startswith("chrome-152") else []
    assert difference(normal(name), normalise(ours)) == expected
    assert difference(normalise(ours), normal(name)) == [
        text.replace(
            "in the same order each time, expected a new one", "in another order each time, expected the same"
        )
        for text in expected
    ]


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_are_the_captured_ones(name: str) -> None:
    theirs, ours = golden(name), expanded(learn(samples(name)).hello)
    # A client that pads now and then (chrome-120) has two.
    assert {ja4(hello).ja4 for hello in theirs} <= {ja4(hello).ja4 for hello in ours}
    assert capture(name)["ja4"] in {ja4(hello).ja4 for hello in ours}
    assert {ja3(hello).ja3n_hash for hello in theirs} <= {ja3(hello).ja3n_hash for hello in ours}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_fresh_is_fresh(name: str) -> None:
    ours = expanded(learn(samples(name)).hello)
    assert len({hello.random for hello in ours}) == SAMPLES
    assert len({share.key_exchange for hello in ours for share in hello.key_shares}) >= SAMPLES


@pytest.mark.parametrize("build", builds(), ids=lambda build: build.name)
def test_a_builtin_differs_from_its_capture_only_as_it_says(build: Build) -> None:
    spec = CATALOG.require(build.name, source="test", key="")
    assert spec.exact is not None
    assert spec.template == compile_template(spec.exact)
    imitated = capture(build.name)["imitation"]
    expected = FIREFOX_IS_REAL if imitated and build.name.startswith("firefox") else []
    expected = [ANCHORS_STAY] if build.name.startswith("chrome-152") else expected
    assert difference(normal(build.name), normalise(expanded(spec.exact))) == expected
    # Of some, only what they say when they are asked again is deliberate.
    only_again = build.name.startswith(("safari-27", "tor-"))
    assert (bool(expected) or only_again) == bool(build.known)
    assert spec.unlike_capture == (build.known.why if build.known else "")


def test_the_builtins_are_current() -> None:
    for path, text in files():
        assert path.read_text(encoding="utf-8") == text, "run: python -m tests.golden.profiles"


def test_the_index_names_every_file_and_alias() -> None:
    found = {path.stem for path in (PROFILES / "builtin").glob("*.toml")}
    assert set(BUILTINS) == found
    for name in found:
        table = builtin_table(name)
        assert parse_aliases(name, table, "test") == BUILTINS[name]
    aliases = [alias for names in BUILTINS.values() for alias in names]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & found


def test_real_firefox_is_what_the_profile_says() -> None:
    firefox = CATALOG.require("firefox", source="test", key="").exact
    assert firefox is not None
    assert firefox.ech is not None
    assert (firefox.ech.aeads, firefox.ech.payloads, firefox.ech.psk_step) == ((1, 3), (239,), 32)
    ticket = firefox.entry(ExtensionType.SESSION_TICKET)
    assert ticket is not None
    assert ticket.full_only
    types = [entry.type for entry in firefox.extensions]
    assert types.index(ExtensionType.COOKIE) == types.index(ExtensionType.SIGNATURE_ALGORITHMS) + 1
    for hello in expanded(firefox, 2):
        shares = {share.group: share.key_exchange for share in hello.key_shares}
        assert shares[0x11EC][-32:] == shares[0x1D]


def real(*kinds: str) -> list[str]:
    """Captures of real clients that have second hellos of these kinds."""
    return [
        name
        for name in NAMES
        if not capture(name)["imitation"] and all(capture(name)[kind] for kind in kinds)
    ]


def pair(name: str, kind: str) -> tuple[ClientHello, ClientHello]:
    stored = capture(name)[kind][0]
    first, second = (parse_client_hello(bytes.fromhex(stored[side])) for side in ("first", "second"))
    return first, second


@pytest.mark.parametrize("name", real("retry_cookie"))
def test_the_place_of_a_cookie_is_the_clients(name: str) -> None:
    hello = learn(samples(name)).hello
    _, second = pair(name, "retry_cookie")
    places = [number for number in second.extension_types if number != ExtensionType.PADDING]
    if not hello.permute:  # else it is anywhere
        assert [entry.type for entry in hello.extensions] == places


@pytest.mark.parametrize("name", real("retry"))
def test_a_retried_hello_is_padded_where_the_clients_is(name: str) -> None:
    _, second = pair(name, "retry")
    padded = second.extension(ExtensionType.PADDING) is not None
    assert padded == (learn(samples(name)).hello.padding is Padding.OPENSSL)


@pytest.mark.parametrize("name", real("resumed"))
def test_a_resumed_hello_leaves_out_what_the_clients_does(name: str) -> None:
    hello = learn(samples(name)).hello
    first, second = pair(name, "resumed")
    lasting = {number for number in first.extension_types if not is_grease(number) and number != 21}
    gone = lasting - set(second.extension_types)
    assert gone == {entry.type for entry in hello.extensions if entry.full_only}
    psk = second.extension(ExtensionType.PRE_SHARED_KEY)
    if psk is not None and hello.ech is not None and hello.ech.psk_step:
        step, whole = hello.ech.psk_step, len(psk) + 4
        body = second.extension(ExtensionType.ENCRYPTED_CLIENT_HELLO)
        assert body is not None
        grown = hello.ech.payloads[0] + -(-whole // step) * step
        assert int.from_bytes(body[40:42], "big") == grown


def test_the_imitated_firefox_put_right_is_the_real_one() -> None:
    spec = CATALOG.require("firefox-153", source="test", key="")
    assert spec.exact is not None
    assert difference(normal("firefox-esr-153"), normalise(expanded(spec.exact))) == []
    assert spec.template == CATALOG.require("firefox-esr-153", source="test", key="").template


def shared(name: str) -> dict[str, Any]:
    path = SHARED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"captures of real browsers are not beside the repository: {path} is absent")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    ("name", "browser", "left_out"),
    [
        ("chrome-143-macos-arm64", "chrome", {41}),  # resumed there
        ("firefox-145-macos-arm64", "firefox", set()),
        ("safari-26.2-macos-arm64", "safari", set()),
    ],
)
def test_dated_names_are_near_the_real_browsers(name: str, browser: str, left_out: set[int]) -> None:
    seen = shared(f"real-{browser}")["tls"]
    _, ciphers, extensions, groups, _ = seen["ja3"].split(",")
    spec = CATALOG.require(name, source="test", key="")
    assert spec.exact is not None
    ours = expanded(spec.exact, 1)[0]
    _, our_ciphers, our_extensions, our_groups, _ = ja3(ours).ja3.split(",")
    assert our_ciphers == ciphers
    assert our_groups == groups
    assert ja4(ours).ja4_r.split("_")[-1] == seen["ja4_r"].split("_")[-1]
    missing = set(extensions.split("-")) - set(our_extensions.split("-")) - set(map(str, left_out))
    assert not missing
    # The real Firefox was seen in a private window, which has no sessions to resume.
    extra = set(our_extensions.split("-")) - set(extensions.split("-"))
    assert extra == ({"35", "45"} if browser == "firefox" else set())
    if browser == "safari":
        assert our_extensions == extensions
        assert ja4(ours).ja4 == seen["ja4"]
