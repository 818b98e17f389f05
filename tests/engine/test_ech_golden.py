"""Real ECH is what Chromium and Firefox do: against captures of theirs, opened (tests/golden/ech)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.fingerprint.normal import difference, normalise
from polytls.wire.iana import ExtensionType, is_grease
from tests.golden.recorder import GROUPS, SentHello
from tests.peers.ech import ECH, EchKey, Opened, Sealed

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello
    from tests.engine.ech_bench import Bench

GOLDENS = sorted((Path(__file__).parents[1] / "golden" / "ech").glob("*.json"))
SNI, PSK = ExtensionType.SERVER_NAME, ExtensionType.PRE_SHARED_KEY


@dataclass(frozen=True)
class Golden:
    """What a real browser sent."""

    name: str
    key: EchKey
    first: list[Opened]
    resumed: list[Opened]
    retry: list[Opened]

    @classmethod
    def read(cls, path: Path) -> Golden:
        stored = json.loads(path.read_text("utf-8"))
        key = EchKey.stored(bytes.fromhex(stored["private_key"]), bytes.fromhex(stored["config"]))

        def opened(kind: str, *, together: bool = False) -> list[Opened]:
            hellos = [SentHello(bytes.fromhex(text), False) for text in stored[kind]]
            if together:
                return Sealed(key, hellos).opened
            return [Sealed(key, [hello]).opened[0] for hello in hellos]

        return cls(path.stem, key, opened("first"), opened("resumed"), opened("retry", together=True))


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_the_same_as_the_real_browser(ech_bench: Bench, path: Path) -> None:
    """Chromium's and Firefox's own ECH, opened: outer and inner, first, resumed and after a retry."""
    golden = Golden.read(path)
    seen = ech_bench.accepted([golden.name], golden.key, times=6)[golden.name]
    assert [one.facts.resumed for one in seen] == [False] + 5 * [True]
    (retried,) = ech_bench.accepted([golden.name], golden.key, curves=[GROUPS["secp384r1"]])[golden.name]
    compare(golden.first, [seen[0].opened[0]])
    compare(golden.resumed, [one.opened[0] for one in seen[1:]])
    for theirs, ours in zip(golden.retry, retried.opened, strict=True):
        compare([theirs], [ours])


def compare(theirs: Sequence[Opened], ours: Sequence[Opened]) -> None:
    permuted = is_grease(theirs[0].outer.extension_types[0])  # Chromium
    for side in (lambda one: one.outer, lambda one: without_ech(one.inner)):
        wanted = normalise([side(one) for one in theirs], permuted=permuted)
        got = normalise([side(one) for one in ours], permuted=permuted)
        assert difference(wanted, got) == []
    assert {one.payload_bytes for one in ours} <= {one.payload_bytes for one in theirs}
    for one in ours:  # what is sealed is laid out by one rule, in any order that was drawn
        assert one.inner.extension(ECH) == theirs[0].inner.extension(ECH)
        assert list(one.inner.extension_types) == like(theirs[0], one)


def without_ech(inner: ClientHello) -> ClientHello:
    """It has one byte inside, which `normalise` does not read."""
    return replace(inner, extensions=tuple(item for item in inner.extensions if item.type != ECH))


def like(theirs: Opened, ours: Opened) -> list[int]:
    """The browser's layout of what it seals, read off its own pair of hellos, for the order drawn here."""
    kinds = {kind(n) for n in theirs.inner.extension_types}
    apart = [n for n in theirs.inner.extension_types if n not in theirs.compressed and n != PSK]
    in_place = [n for n in theirs.outer.extension_types if n in apart]
    first = [n for n in ours.outer.extension_types if n in apart]
    if apart != in_place:  # NSS
        first = apart
    rest = [n for n in ours.outer.extension_types if kind(n) in kinds and n not in (*apart, PSK)]
    return first + rest + ([PSK] if PSK in theirs.inner.extension_types else [])


def kind(number: int) -> int:
    return 0x0A0A if is_grease(number) else number
