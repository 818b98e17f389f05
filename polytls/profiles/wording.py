"""The words of a configuration error, shared by the two readers of TOML (profiles and settings).

A converter that is handed a wrong value raises `WrongValueError` with the problem alone; whoever called it
knows the source and the key path and makes a `ConfigError` or `ProfileError` of the two. Everything shown
to the user goes through here, so that a hostile or merely enormous value makes a short, printable sentence.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SHOWN_CHARS = 60
"""A value or key longer than this is cut: an error has to stay one readable sentence."""

MAX_COMPARED_CHARS = 64
"""No real key or name is longer, and `difflib` takes quadratic time."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class WrongValueError(Exception):
    """A value is not allowed. `str()` is the problem, to be placed after the source and the key path."""


def key_path(*parts: str) -> str:
    """The dotted key path as TOML would write it: ``profiles."safari-26.2".grease``."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else _quoted(part) for part in parts)


def shown(value: object) -> str:
    """A value as the user wrote it, or what sort of thing it is where that would be long."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    if isinstance(value, (int, float)):
        return str(value)
    return type_of(value)


def type_of(value: object) -> str:
    """The TOML type of a value, with its article."""
    if isinstance(value, bool):
        return "a boolean"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, "a string"),
        (int, "an integer"),
        (float, "a float"),
        (dict, "a table"),
        ((list, tuple), "an array"),
        ((datetime.date, datetime.time), "a date or time"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "a value of another type")


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The problem with a word that is not among the known ones, with the nearest of them."""
    known = tuple(known)
    guess = nearest(word, known)
    hint = f" (did you mean {_quoted(guess)}?)" if guess else ""
    return f"unknown {what}{hint}; allowed: {', '.join(known)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, whatever its case; None where nothing is near."""
    if len(word) > MAX_COMPARED_CHARS:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def _quoted(text: str) -> str:
    cut = text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
    # Printable text stays as it is; anything that could disturb a terminal or a log line is escaped.
    return json.dumps(cut, ensure_ascii=not cut.isprintable())
