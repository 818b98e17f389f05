"""The captures in clients/: each can be read, says what we compute of it, and is fresh where it must be."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.iana import ExtensionType, is_grease
from tests.golden.recorder import GROUPS
from tests.golden.shape import changes, describe

CLIENTS = Path(__file__).parent / "clients"
FILES = sorted(CLIENTS.glob("*.json"))
SECOND_HELLOS = ("retry", "retry_cookie", "resumed")
HOST = b"golden.test"
MAX_FILE_BYTES = 40_000
"""They are part of every clone."""


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _hello(records: str) -> ClientHello:
    return parse_client_hello(bytes.fromhex(records))


each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_there_are_captures_of_every_kind() -> None:
    imitations = [_load(path)["imitation"] for path in FILES]
    assert len(imitations) > 50
    assert imitations.count(False) >= 10


@each
def test_the_file_says_what_it_is(path: Path) -> None:
    capture = _load(path)
    assert capture["name"] == path.stem
    assert capture["host"].encode() == HOST
    assert capture["client"].startswith("curl_cffi ") == capture["imitation"]
    assert capture["taken"] >= 8
    assert len(capture["samples"]) == 3
    assert path.stat().st_size <= MAX_FILE_BYTES


@each
def test_every_hello_is_read_to_its_last_byte(path: Path) -> None:
    capture = _load(path)
    hellos = [
        *capture["samples"],
        *(pair[side] for kind in SECOND_HELLOS for pair in capture[kind] for side in pair),
    ]
    for records in hellos:
        raw = bytes.fromhex(records)
        assert _hello(records).sni == HOST
        position = 0
        while position < len(raw):  # nothing but the hello's own records was stored
            assert raw[position] == 22
            position += 5 + int.from_bytes(raw[position + 3 : position + 5], "big")
        assert position == len(raw)


@each
def test_the_stored_fingerprints_are_ours(path: Path) -> None:
    capture = _load(path)
    first, *_ = hellos = [_hello(sample) for sample in capture["samples"]]
    found = ja4(first)
    assert (capture["ja3"], capture["ja3n"]) == (ja3(first).ja3_hash, ja3(first).ja3n_hash)
    assert (capture["ja4"], capture["ja4_r"], capture["ja4_o"]) == (found.ja4, found.ja4_r, found.ja4_o)
    for hello in hellos:
        # Where padding comes and goes, there are two.
        assert ja4(hello).ja4 in capture["varies"].get("ja4", [capture["ja4"]])
        if ja4(hello).ja4 == capture["ja4"]:
            assert (ja3(hello).ja3n_hash, ja4(hello).ja4_r) == (capture["ja3n"], capture["ja4_r"])


@each
def test_the_stored_samples_show_the_invariants(path: Path) -> None:
    capture = _load(path)
    invariants, varies = describe([bytes.fromhex(sample) for sample in capture["samples"]])
    stored, stored_varies = capture["invariants"], capture["varies"]
    always, texts = stored.pop("bodies"), invariants.pop("bodies")
    stored.pop("padding")
    for name in stored.keys() - {"extensions"}:
        assert invariants[name] == stored[name], name
    # Three of many may agree where the many did not: in a body, or in padding's being there.
    assert set(stored["extensions"]) <= set(invariants["extensions"])
    optional = set(stored_varies.get("optional_extensions", ())) - texts.keys()
    assert {key: text for key, text in always.items() if key not in optional}.items() <= texts.items()
    for key, seen in varies["bodies"].items():
        assert set(seen) <= set(stored_varies["bodies"][key]), key
    assert varies["shuffled"].items() <= stored_varies["shuffled"].items()
    assert varies["extension_order"] == stored_varies["extension_order"]


@each
def test_the_stored_pairs_show_the_changes(path: Path) -> None:
    capture = _load(path)
    for kind in SECOND_HELLOS:
        for pair in capture[kind]:
            found = changes(bytes.fromhex(pair["first"]), bytes.fromhex(pair["second"]))
            for name, value in found.items():
                assert value in capture[f"{kind}_changes"][name], (kind, name)


@each
def test_what_must_be_fresh_is_fresh(path: Path) -> None:
    capture = _load(path)
    hellos = [_hello(sample) for sample in capture["samples"]]
    hellos += [_hello(pair["first"]) for kind in SECOND_HELLOS for pair in capture[kind]]
    for one, other in itertools.combinations(hellos, 2):
        assert one.random != other.random
        assert one.session_id != other.session_id or not one.session_id
        ours = {share.key_exchange for share in one.key_shares if len(share.key_exchange) > 1}
        assert ours.isdisjoint(share.key_exchange for share in other.key_shares)
        if one.extension(0xFE0D):
            assert one.extension(0xFE0D) != other.extension(0xFE0D)
    if any(map(is_grease, hellos[0].cipher_suites)):
        assert len({hello.cipher_suites for hello in hellos}) > 1
    if capture["varies"]["extension_order"]:
        assert len({hello.extension_types for hello in hellos}) > 1


@each
def test_a_second_hello_is_what_its_server_asked_for(path: Path) -> None:
    capture = _load(path)
    for pair in capture["retry"]:
        second = _hello(pair["second"])
        assert [share.group for share in second.key_shares] == [GROUPS[capture["retry_group"]]]
    for pair in capture["retry_cookie"]:
        assert _hello(pair["first"]).extension(ExtensionType.COOKIE) is None
        echoed = _hello(pair["second"]).extension(ExtensionType.COOKIE)
        # RFC 8446 §4.2.2: it must be there. Imitations with a fixed list of extensions forget it.
        assert echoed or capture["imitation"]
    for pair in capture["resumed"]:
        first, second = _hello(pair["first"]), _hello(pair["second"])
        assert first.extension(ExtensionType.PRE_SHARED_KEY) is None
        assert second.extension_types[-1] == ExtensionType.PRE_SHARED_KEY  # RFC 8446 §4.2.11: the last
