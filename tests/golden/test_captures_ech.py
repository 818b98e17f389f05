"""The captures in ech/: each can be opened, and is fresh where it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polytls.wire.iana import ExtensionType
from tests.golden.recorder import HOST, SentHello
from tests.peers.ech import ECH, EchKey, Opened, Sealed

FILES = sorted((Path(__file__).parent / "ech").glob("*.json"))
MAX_FILE_BYTES = 40_000
"""They are part of every clone."""
KEYS = {
    *("name", "client", "captured", "host", "public_name", "private_key", "config"),
    *("first", "resumed", "retry"),
}


def opened(stored: dict[str, Any]) -> list[Opened]:
    key = EchKey.stored(bytes.fromhex(stored["private_key"]), bytes.fromhex(stored["config"]))
    connections = [*([text] for text in stored["first"] + stored["resumed"]), stored["retry"]]
    return [
        one
        for texts in connections
        for one in Sealed(key, [SentHello(bytes.fromhex(text), False) for text in texts]).opened
    ]


def test_both_browsers_are_there() -> None:
    assert {path.stem.partition("-")[0] for path in FILES} == {"chromium", "firefox"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_capture(path: Path) -> None:
    assert path.stat().st_size <= MAX_FILE_BYTES
    stored = json.loads(path.read_text("utf-8"))
    assert set(stored) == KEYS
    assert (stored["name"], stored["host"]) == (path.stem, HOST)
    assert stored["first"]
    assert stored["resumed"]
    assert len(stored["retry"]) == 2
    found = opened(stored)
    for one in found:
        assert one.outer.sni == stored["public_name"].encode()
        assert one.inner.sni == HOST.encode()
        assert one.inner.extension(ECH) == b"\1"
    psk = [one.inner.extension(ExtensionType.PRE_SHARED_KEY) is not None for one in found]
    assert psk == [False] * len(stored["first"]) + [True] * len(stored["resumed"]) + [False] * 2
    randoms = [one.inner.random for one in found] + [one.outer.random for one in found]
    assert len(set(randoms)) == len(randoms) - 2  # both hellos of a pair have the same
