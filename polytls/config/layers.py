"""The three places settings come from, each read into the same shape.

A layer is a list of `Given`: a key of the schema, the raw value, and the words an error uses for where it
stood. Here unknown keys are found; values are converted and layered in `polytls.config.load`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.config.schema import BY_ENV, BY_PATH, ENV_PREFIX, KEYS, PROFILES_TABLE, Key
from polytls.errors import ConfigError, ProfileError
from polytls.profiles.wording import key_path, nearest, type_of, unknown

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1 << 20
"""A configuration is a few KB; a megabyte is some other file."""

MAX_DEPTH = 32
"""Of tables and arrays in one another: the deepest that mean something, a profile's, have some five. Much
deeper ones would be too deep for what compares and copies them."""

_TABLES = frozenset(
    tuple(key.path.split(".")[:depth]) for key in KEYS for depth in range(key.path.count(".") + 1)
)
"""The path of every table that holds a key or another such table; () is the file."""

_ENV_TABLE = ENV_PREFIX + "PROXY"
_SINGLE_SCORES = {name.replace("__", "_"): name for name in BY_ENV}


@dataclass(frozen=True, slots=True)
class Given:
    """A value for a key, as a layer wrote it, and where."""

    key: Key
    value: object
    source: str


def read_file(path: Path) -> dict[str, object]:
    """The TOML file as nested tables. Raises `ConfigError` where it is not readable or not TOML."""
    source = str(path)
    if path.suffix.lower() != ".toml":
        raise ConfigError(source, "", "is not a .toml file; the configuration is TOML only")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as problem:  # ValueError: a path with a NUL
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise ConfigError(
            source, "", f"cannot be read ({reason}); check the path and its permissions"
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(source, "", f"is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    return parse_toml(raw, source)


def parse_toml(raw: bytes, source: str) -> dict[str, object]:
    """The bytes of a TOML file as nested tables. Raises `ConfigError` with line and column."""
    try:
        table = tomllib.loads(raw.decode("utf-8"))
        if _is_deeper(table, MAX_DEPTH):
            raise RecursionError
        return table
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise ConfigError(source, "", f"is not UTF-8 (at line {line}); save it as UTF-8") from None
    except ValueError as problem:  # TOMLDecodeError, or an integer of thousands of digits
        raise ConfigError(source, "", f"is not valid TOML: {problem}") from None
    except RecursionError:
        raise ConfigError(source, "", "is not valid: arrays or tables are nested too deeply") from None


def _is_deeper(table: object, depth: int) -> bool:
    """Whether more than so many tables and arrays are in one another."""
    if not isinstance(table, (dict, list)):
        return False
    values = table.values() if isinstance(table, dict) else table
    return depth == 0 or any(_is_deeper(value, depth - 1) for value in values)


def from_table(table: Mapping[str, object], source: str) -> Iterator[Given]:
    """What a parsed file sets, the profile tables aside. Raises `ConfigError` at an unknown key."""
    yield from _walk(table, (), source)


def profile_tables(table: Mapping[str, object], source: str) -> dict[str, dict[str, object]]:
    """The ``[profiles.NAME]`` tables of a parsed file, unread. Raises `ProfileError`."""
    tables = table.get(PROFILES_TABLE, {})
    if not isinstance(tables, Mapping):
        problem = f"is {type_of(tables)}; allowed: tables [profiles.NAME]"
        raise ProfileError(source, PROFILES_TABLE, problem)
    tables = {name: table for name, table in tables.items() if not _is_setting(name)}
    for name, profile in tables.items():
        if not isinstance(profile, Mapping):
            path = key_path(PROFILES_TABLE, name)
            raise ProfileError(source, path, f"is {type_of(profile)}; allowed: a table of knobs")
    return {name: dict(profile) for name, profile in tables.items()}


def from_env(env: Mapping[str, str]) -> Iterator[Given]:
    """What the environment sets. An empty variable counts as not set.

    Other variables may begin with POLYTLS_ (those of the build do), so what counts as a misspelt setting is
    a name that begins with POLYTLS_PROXY, holds a double underscore, or lacks only the doubling.
    """
    for name, text in env.items():
        if name in BY_ENV:
            if text:
                key = BY_ENV[name]
                yield Given(key, key.kind.from_text(text), f"environment variable {name}")
        elif _meant_as_setting(name):
            raise ConfigError(f"environment variable {key_path(name)}", "", _unknown_variable(name))


def from_overrides(overrides: Mapping[str, object]) -> Iterator[Given]:
    """What the command line sets: key path -> text, or a value as TOML has it, or a list of texts where
    an option is repeatable. Raises `ConfigError` for a path that is not in the schema."""
    for path, value in overrides.items():
        key = BY_PATH.get(path)
        if key is None:
            raise ConfigError("command line", key_path(*path.split(".")), unknown("key", path, BY_PATH))
        source = f"option {key.option}" if key.option else "command line"
        yield Given(key, key.kind.from_text(value) if isinstance(value, str) else value, source)


def _walk(table: Mapping[str, object], at: tuple[str, ...], source: str) -> Iterator[Given]:
    for name, value in table.items():
        here = (*at, name)
        path = ".".join(here)
        # A quoted key may hold dots itself: `"proxy.mode" = ...` is not `proxy.mode = ...`.
        if path in BY_PATH and "." not in name:
            yield Given(BY_PATH[path], value, source)
        elif at == (PROFILES_TABLE,):
            continue  # a profile
        elif here == (PROFILES_TABLE,) and not isinstance(value, Mapping):
            continue  # `profile_tables` says what is wrong
        elif here in _TABLES:
            if not isinstance(value, Mapping):
                problem = f"is {type_of(value)}; allowed: a table [{path}]"
                raise ConfigError(source, key_path(*here), problem)
            yield from _walk(value, here, source)
        else:
            raise ConfigError(source, key_path(*here), _unknown_key(here))


def _is_setting(name: str) -> bool:
    return "." not in name and f"{PROFILES_TABLE}.{name}" in BY_PATH


def _unknown_key(here: tuple[str, ...]) -> str:
    *at, name = here
    depth = len(at)
    parts = [key.path.split(".") for key in KEYS]
    siblings = list(dict.fromkeys(path[depth] for path in parts if path[:depth] == at and len(path) > depth))
    elsewhere = [key.path for key in KEYS if key.path.split(".")[-1] == name]
    if elsewhere and nearest(name, siblings) is None:
        return f"unknown key (did you mean {' or '.join(elsewhere)}?); allowed: {', '.join(siblings)}"
    return unknown("key", name, siblings)


def _meant_as_setting(name: str) -> bool:
    if not name.startswith(ENV_PREFIX):
        return False
    return name.startswith(_ENV_TABLE) or "__" in name or name in _SINGLE_SCORES


def _unknown_variable(name: str) -> str:
    if name.startswith(f"{ENV_PREFIX}{PROFILES_TABLE.upper()}__"):
        return (
            "profiles cannot be set by variables, but for POLYTLS_PROFILES__DIRECTORY; write them in the"
            " configuration file, or in files of that directory"
        )
    guess = _SINGLE_SCORES.get(name) or nearest(name, BY_ENV)
    hint = f" (did you mean {guess}?)" if guess else ""
    return f"unknown variable{hint}; allowed: {ENV_PREFIX} and a key path, __ for each dot"
