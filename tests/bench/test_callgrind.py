"""Instruction counts: what they are compared with, and when that fails."""

from __future__ import annotations

import json

import pytest

from tests.bench.callgrind import PATHS, RECORD, compare, key_of, total_of
from tests.bench.spawn import BenchError


@pytest.mark.parametrize(
    ("says", "key"),
    [
        ("c++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright", "m gcc 12"),
        ("g++ (GCC) 14.2.1 20240801 (Red Hat 14.2.1-1)\n", "m gcc 14"),
        ("Debian clang version 14.0.6\n", "m clang 14"),
        ("clang version 18.1.8 (Fedora 18.1.8-1.fc40)\n", "m clang 18"),
    ],
)
def test_a_record_is_kept_by_compiler_and_architecture(says: str, key: str) -> None:
    assert key_of(says, "m") == key


def test_a_compiler_that_says_no_version() -> None:
    with pytest.raises(BenchError, match="no compiler version"):
        key_of("", "m")


def test_growth_fails_beyond_the_tolerance_only() -> None:
    record = {"m gcc 12": {"hello": 1000}}
    for now, fails in ((1050, False), (1051, True), (500, False)):
        (one,) = compare("m gcc 12", {"hello": now}, record)
        assert one.grew_too_much is fails
    (unknown,) = compare("m gcc 13", {"hello": 9999}, record)
    assert not unknown.grew_too_much
    assert str(unknown) == "hello: 9,999 instructions; nothing recorded to compare with"


def test_totals() -> None:
    assert total_of("events: Ir\nsummary: 123456\n") == 123456
    assert total_of("events: Ir\nfn=(1)\ntotals: 77\n") == 77
    for nothing in ("", "summary: 0\n"):
        with pytest.raises(BenchError, match="counted nothing"):
            total_of(nothing)


def test_the_record_names_every_path() -> None:
    for key, counts in json.loads(RECORD.read_text(encoding="utf-8")).items():
        assert set(counts) == set(PATHS), key
        assert all(isinstance(count, int) and count > 0 for count in counts.values())
