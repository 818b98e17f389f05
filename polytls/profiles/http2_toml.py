"""The ``[http2]`` table of a profile <-> `Http2`.

Theory of operation
-------------------
`settings` has one entry a setting, in order: ``{ HEADER_TABLE_SIZE = 65536 }``, ``{ "0x1234" = 1 }`` for one
without a name, ``"GREASE"`` for one that is drawn. What a client does not send is left out, and so are a
`stream` of 1 and increments of 0.

A table over a base writes what is different: each key replaces the base's, ``priority = false`` says that
the HEADERS frame has none. Without a base's flight `settings` and `pseudo_headers` are needed. What is read
is checked; what is written reads back as an equal value.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polytls.errors import ProfileError
from polytls.profiles import bodies
from polytls.profiles.exact_toml import toml, toml_array
from polytls.profiles.http2 import (
    GREASE_SETTING,
    MAX_U31,
    MAX_U32,
    MAX_WEIGHT,
    PSEUDO_HEADERS,
    SETTING_NAMES,
    FlightError,
    Http2,
    Priority,
    PriorityFrame,
    Setting,
    check,
    is_grease_setting,
    setting_name,
)
from polytls.profiles.vocabulary import GREASE_WORD, read_array
from polytls.profiles.wording import WrongValueError, key_path, nearest, shown, type_of, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEYS = (
    "settings",
    "window_update",
    "priority_frames",
    "stream",
    "priority",
    "pseudo_headers",
    "stream_window_update",
)
NEEDED_KEYS = ("settings", "pseudo_headers")

_HEX_ID = re.compile(r"0x[0-9a-fA-F]{1,4}")
_SETTING_FORM = '{ HEADER_TABLE_SIZE = 65536 }, { "0x1234" = 1 } or "GREASE"'
_PRIORITY_KEYS = {"exclusive": True, "depends_on": True, "weight": True}
_NUMBERS = {name.lower(): number for number, name in SETTING_NAMES.items()}


def parse_http2(table: object, path: str, source: str, base: Http2 | None = None) -> Http2:
    """The first flight of an ``[http2]`` table found at the key path `path` of `source`, over that of a base.

    Raises `ProfileError` naming the source, the key path and what is allowed.
    """
    if not isinstance(table, dict):
        raise ProfileError(source, path, f"is {type_of(table)}; allowed: a table")
    key = ""
    values: dict[str, Any] = {}
    try:
        for key, value in table.items():
            if key not in KEYS:
                raise WrongValueError(unknown("key", key, KEYS))
            values[key] = _READERS[key](value)
        for key in NEEDED_KEYS:
            if base is None and key not in table:
                raise WrongValueError(f"is left out; allowed: a table with {', '.join(NEEDED_KEYS)}")
        flight = Http2(**values) if base is None else replace(base, **values)
        check(flight)
    except WrongValueError as problem:
        raise ProfileError(source, f"{path}.{key_path(key)}", str(problem)) from None
    except FlightError as problem:
        raise ProfileError(source, f"{path}.{problem.key}", str(problem)) from None
    return flight


def as_table(flight: Http2) -> dict[str, object]:
    """The flight as a TOML table, in the order of the frames. What is not sent is left out."""
    table: dict[str, object] = {"settings": [_setting_item(one) for one in flight.settings]}
    if flight.window_update:
        table["window_update"] = flight.window_update
    if flight.priority_frames:
        table["priority_frames"] = [
            {"stream": one.stream, **_priority_item(one.priority)} for one in flight.priority_frames
        ]
    if flight.stream != 1:
        table["stream"] = flight.stream
    if flight.priority is not None:
        table["priority"] = _priority_item(flight.priority)
    table["pseudo_headers"] = list(flight.pseudo_headers)
    if flight.stream_window_update:
        table["stream_window_update"] = flight.stream_window_update
    return table


def as_toml(flight: Http2) -> str:
    """The lines of the table, without its header, ending in a line break."""
    lines = []
    for key, value in as_table(flight).items():
        one_each = key in ("settings", "priority_frames") and isinstance(value, list)
        lines.append(f"{key} = {toml_array(value) if one_each and isinstance(value, list) else toml(value)}")
    return "\n".join(lines) + "\n"


def _setting_item(one: Setting) -> object:
    return GREASE_WORD if one == GREASE_SETTING else {setting_name(one.id): one.value}


def _priority_item(priority: Priority) -> dict[str, object]:
    return {
        "exclusive": priority.exclusive,
        "depends_on": priority.depends_on,
        "weight": priority.weight,
    }


def _settings(value: object) -> tuple[Setting, ...]:
    return tuple(_setting(item) for item in read_array(value, f"an array of settings, each {_SETTING_FORM}"))


def _setting(item: object) -> Setting:
    if isinstance(item, str) and item.lower() == GREASE_WORD.lower():
        return GREASE_SETTING
    if not isinstance(item, dict) or len(item) != 1:
        what = shown(item) if isinstance(item, str) else type_of(item)
        raise WrongValueError(f"holds {what}; allowed: {_SETTING_FORM}")
    ((word, value),) = item.items()
    return Setting(_setting_id(word), bodies.read_integer(value, 0, MAX_U32, shown(word)))


def _setting_id(word: str) -> int:
    number = _NUMBERS.get(word.lower())
    if number is None and _HEX_ID.fullmatch(word):
        number = int(word, 16)
        if is_grease_setting(number):
            raise WrongValueError(f'holds {shown(word)}, a reserved identifier; allowed: "GREASE"')
    if number is None:
        guess = nearest(word, SETTING_NAMES.values())
        hint = f" (did you mean {shown(guess)}?)" if guess else ""
        raise WrongValueError(f"{shown(word)}: unknown setting{hint}; allowed: {_SETTING_FORM}")
    return number


def _increment(value: object) -> int:
    return bodies.read_integer(value, 0, MAX_U31)


def _stream(value: object) -> int:
    return bodies.read_integer(value, 1, MAX_U31)


def _priority(value: object) -> Priority | None:
    if value is False:
        return None
    return _read_priority(bodies.read_table(value, _PRIORITY_KEYS))


def _read_priority(table: Mapping[str, object]) -> Priority:
    exclusive = table["exclusive"]
    if not isinstance(exclusive, bool):
        raise WrongValueError(f"exclusive is {type_of(exclusive)}; allowed: true, false")
    return Priority(
        exclusive,
        bodies.read_integer(table["depends_on"], 0, MAX_U31, "depends_on"),
        bodies.read_integer(table["weight"], 1, MAX_WEIGHT, "weight"),
    )


def _priority_frames(value: object) -> tuple[PriorityFrame, ...]:
    items = read_array(value, "an array of tables of stream, exclusive, depends_on, weight")
    frames = []
    for item in items:
        table = bodies.read_table(item, {"stream": True, **_PRIORITY_KEYS})
        stream = bodies.read_integer(table["stream"], 1, MAX_U31, "stream")
        frames.append(PriorityFrame(stream, _read_priority(table)))
    return tuple(frames)


def _pseudo_headers(value: object) -> tuple[str, ...]:
    names = []
    for item in read_array(value, f"an array of {', '.join(PSEUDO_HEADERS)}"):
        if not isinstance(item, str) or item not in PSEUDO_HEADERS:
            raise WrongValueError(f"holds {shown(item)}; allowed: {', '.join(PSEUDO_HEADERS)}")
        names.append(item)
    return tuple(names)


_READERS: Mapping[str, Callable[[object], object]] = {
    "settings": _settings,
    "window_update": _increment,
    "priority_frames": _priority_frames,
    "stream": _stream,
    "priority": _priority,
    "pseudo_headers": _pseudo_headers,
    "stream_window_update": _increment,
}
