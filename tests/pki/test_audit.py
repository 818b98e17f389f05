"""Everything minted is on record before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

import polytls.pki
from polytls.pki.audit import MintEvent
from polytls.pki.cache import LeafCache, _serial_hex
from polytls.pki.leaf import Leaf, LeafKeys, LeafKind

if TYPE_CHECKING:
    from polytls.pki.root import RootCA

WAIT = 30  # seconds
SOURCE = Path(polytls.pki.__file__).parent.parent.parent


def test_each_mint_is_reported_with_its_facts(root: RootCA, keys: LeafKeys) -> None:
    events: list[MintEvent] = []
    cache = LeafCache(root, keys, lambda leaf: leaf, audit=events.append, ttl=60, max_entries=5, days=1)
    leaf = cache.mint("a.example", LeafKind.RSA).result(WAIT)
    cache.mint("a.example", LeafKind.RSA).result(WAIT)  # a hit is no mint
    cache.close()
    assert events == [MintEvent("a.example", LeafKind.RSA, _serial_hex(leaf.serial), leaf.not_after)]
    serial = x509.load_der_x509_certificate(leaf.chain_der[0]).serial_number
    assert int(events[0].serial_hex, 16) == serial


def test_the_record_comes_before_the_use(root: RootCA, keys: LeafKeys) -> None:
    order: list[str] = []

    def build(leaf: Leaf) -> Leaf:
        order.append("built")
        return leaf

    cache = LeafCache(
        root, keys, build, audit=lambda _: order.append("recorded"), ttl=60, max_entries=5, days=1
    )
    cache.mint("a.example", LeafKind.ECDSA).result(WAIT)
    cache.close()
    assert order == ["recorded", "built"]


def test_a_leaf_that_is_not_on_record_is_not_used(root: RootCA, keys: LeafKeys) -> None:
    def full(event: MintEvent) -> None:
        raise OSError("the audit disk is full")

    cache = LeafCache(root, keys, lambda leaf: leaf, audit=full, ttl=60, max_entries=5, days=1)
    with pytest.raises(OSError, match="disk is full"):
        cache.mint("a.example", LeafKind.ECDSA).result(WAIT)
    assert cache.get("a.example", LeafKind.ECDSA) is None
    cache.close()


@pytest.mark.parametrize(("serial", "text"), [(0x1, "01"), (0xAB, "AB"), (0x1AB, "01AB")])
def test_serials_are_whole_octets(serial: int, text: str) -> None:
    assert _serial_hex(serial) == text


def test_a_sink_does_not_load_cryptography() -> None:
    program = "import sys, polytls.pki.audit; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=SOURCE).returncode == 0
