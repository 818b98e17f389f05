"""What an error shows stays short and printable."""

from __future__ import annotations

import datetime

import pytest

from polytls.profiles.wording import (
    MAX_COMPARED_CHARS,
    MAX_SHOWN_CHARS,
    key_path,
    nearest,
    shown,
    type_of,
    unknown,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ('"', '"\\""'),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("\udc80", '"\\udc80"'),
        ("ü", '"ü"'),
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        pytest.param(10**5000, "an integer of more than 64 bits", id="huge"),
        ([], "an array"),
        ({}, "a table"),
        (datetime.date(2025, 1, 1), "a date or time"),
        (None, "a value of another type"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("length", [MAX_SHOWN_CHARS - 1, MAX_SHOWN_CHARS, MAX_SHOWN_CHARS + 1])
def test_long_values_are_cut(length: int) -> None:
    text = shown("x" * length)
    assert len(text) == min(length, MAX_SHOWN_CHARS) + 2
    assert ("…" in text) == (length > MAX_SHOWN_CHARS)


def test_a_boolean_is_not_an_integer() -> None:
    assert type_of(True) == "a boolean"


def test_keys_are_quoted_where_toml_would() -> None:
    assert key_path("profiles", "safari-26.2", "grease") == 'profiles."safari-26.2".grease'
    assert key_path("a", "") == 'a.""'


def test_the_nearest_word_ignores_case_and_length_has_a_bound() -> None:
    assert nearest("p-256", ("P-256", "P-384")) == "P-256"
    assert nearest("zzz", ("P-256",)) is None
    assert nearest("a" * MAX_COMPARED_CHARS, ("a" * MAX_COMPARED_CHARS,)) is not None
    assert nearest("a" * (MAX_COMPARED_CHARS + 1), ("a" * (MAX_COMPARED_CHARS + 1),)) is None


def test_unknown_without_a_guess_still_lists_what_is_allowed() -> None:
    assert unknown("key", "zzz", iter(("a", "b"))) == "unknown key; allowed: a, b"
