"""The kinds of values a setting may have: how each is read, and how it is described.

A kind reads a TOML value (`parse`) and, for the environment and the command line, turns text into a TOML
value first (`from_text`), so that a value means the same wherever it comes from. `expects` says what is
allowed, with range and unit, in the words of the errors, of config/polytls.toml and of
docs/configuration.md alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from polytls.config.endpoints import (
    COLLECTOR_FORM,
    LISTEN_FORM,
    RESOLVE_NAME_FORM,
    RESOLVE_TARGET_FORM,
    UPSTREAM_FORM,
    collector,
    listen_address,
    resolve_entry,
    resolve_name,
    resolve_target,
    upstream_authority,
)
from polytls.profiles.spec import canonical_name
from polytls.profiles.wording import WrongValueError, key_path, shown, type_of

_INTEGER_TEXT = re.compile(r"-?[0-9]{1,18}")
_NUMBER_TEXT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
MAX_LABEL = 128
"""Of a name that everything exported carries along."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _same(text: str) -> object:
    return text


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    `parse`: TOML value -> setting, or `WrongValueError`. `from_text`: text -> TOML value, or the text
    itself where it is none, for `parse` to refuse. `show`: setting -> TOML source, for the documents.
    `merges`: a later layer adds to an earlier one (tables) instead of replacing it.
    """

    expects: str
    parse: Callable[[object], object]
    show: Callable[[object], str] = json.dumps
    from_text: Callable[[str], object] = _same
    merges: bool = False


def flag() -> Kind:
    """true or false."""

    def parse(value: object) -> object:
        if not isinstance(value, bool):
            raise _wrong(value, expects)
        return value

    expects = "true or false"
    words = {"true": True, "false": False}
    return Kind(expects, parse, from_text=lambda text: words.get(text, text))


def integer(lowest: int, highest: int, unit: str) -> Kind:
    """A whole number in a closed range."""

    def parse(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise _wrong(value, expects)
        return value

    expects = f"a whole number of {unit} from {lowest} to {highest}"
    return Kind(expects, parse, from_text=lambda t: int(t) if _INTEGER_TEXT.fullmatch(t) else t)


def seconds(lowest: float, highest: float, note: str = "") -> Kind:
    """A duration in a closed range, with or without a fraction. The range also keeps out nan and inf."""

    def parse(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(value, expects)
        if not lowest <= value <= highest:
            raise _wrong(value, expects)
        return float(value)

    expects = f"seconds from {lowest:g} to {highest:.0f}" + (f" ({note})" if note else "")
    return Kind(
        expects,
        parse,
        show=lambda value: f"{value:g}" if value != 0 else "0",
        from_text=lambda text: float(text) if _NUMBER_TEXT.fullmatch(text) else text,
    )


def share() -> Kind:
    """A part of the whole."""

    def parse(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise _wrong(value, expects)
        return float(value)

    expects = "a share from 0 to 1"
    return Kind(
        expects,
        parse,
        show=lambda value: f"{value:g}",
        from_text=lambda text: float(text) if _NUMBER_TEXT.fullmatch(text) else text,
    )


def label() -> Kind:
    """A short name that is printed and exported."""

    def parse(value: object) -> object:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_LABEL or not value.isprintable():
            raise _wrong(value, expects)
        return value

    expects = f"1 to {MAX_LABEL} printable characters"
    return Kind(expects, parse)


def collector_url() -> Kind:
    """The base URL of an OpenTelemetry collector. Credentials do not belong there: URLs end up in logs."""
    return Kind(COLLECTOR_FORM, _text(collector, COLLECTOR_FORM))


def choice(kind: type[Enum]) -> Kind:
    """One of the values of an enum of strings."""

    def parse(value: object) -> object:
        for member in kind:
            if isinstance(value, str) and value == member.value:
                return member
        raise _wrong(value, expects)

    expects = " or ".join(json.dumps(member.value) for member in kind)
    return Kind(
        expects, parse, show=lambda value: json.dumps(value.value if isinstance(value, Enum) else value)
    )


def explicit_mode() -> Kind:
    """`proxy.mode`: one value, kept for the day there are two."""

    def parse(value: object) -> object:
        if value != "explicit":
            raise WrongValueError(
                f"got {shown(value)}: transparent mode is not supported, clients must use CONNECT; "
                f"allowed: {expects}"
            )
        return value

    expects = '"explicit"'
    return Kind(expects, parse)


def path() -> Kind:
    """A file. Relative paths are taken from the current directory, as on the command line."""

    def parse(value: object) -> object:
        text = str(value) if isinstance(value, (str, Path)) else ""
        if not text or "\0" in text:
            raise _wrong(value, expects)
        return Path(text)

    expects = "a path, relative to the current directory"
    return Kind(expects, parse, show=lambda value: json.dumps(str(value)))


def variable_name() -> Kind:
    """The name of an environment variable. The value is not repeated in the error: whoever writes the
    secret itself here must not find it in a log."""

    def parse(value: object) -> object:
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            raise WrongValueError(f"does not hold one; allowed: {expects}")
        return value

    expects = "the name of an environment variable (letters, digits, underscores), not the secret itself"
    return Kind(expects, parse)


def profile_name() -> Kind:
    """The name of a profile, in lower case. Whether there is such a profile is the catalog's to say."""

    def parse(value: object) -> object:
        name = canonical_name(value) if isinstance(value, str) else None
        if name is None:
            raise _wrong(value, expects)
        return name

    expects = "the name or alias of a profile"
    return Kind(expects, parse)


def listen() -> Kind:
    """An address to listen on."""
    return Kind(LISTEN_FORM, _text(listen_address, LISTEN_FORM), show=lambda value: json.dumps(str(value)))


def authority() -> Kind:
    """A host and a port."""
    return Kind(UPSTREAM_FORM, _text(upstream_authority, UPSTREAM_FORM))


def resolve_table() -> Kind:
    """Names and the addresses they are given without DNS, as pairs in the order they were written.

    As text: ``NAME:ADDR`` entries joined by commas; from the command line also a list of such entries.
    """

    def parse(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple(dict(resolve_entry(_string(item, expects)) for item in value).items())
        if not isinstance(value, Mapping):
            raise _wrong(value, expects)
        found: dict[str, str] = {}
        for name, target in value.items():
            canonical = resolve_name(name)
            if canonical in found:
                raise WrongValueError(f"names {shown(canonical)} twice; allowed: each name once")
            if isinstance(target, Mapping):
                raise WrongValueError(f'{key_path(name)} is a table; put a name with dots in quotes: "a.b"')
            found[canonical] = _target(name, target)
        return tuple(found.items())

    expects = f"a table NAME = ADDR; NAME: {RESOLVE_NAME_FORM}; ADDR: {RESOLVE_TARGET_FORM}"
    return Kind(expects, parse, show=_inline_table, from_text=lambda text: text.split(","), merges=True)


def _target(name: str, value: object) -> str:
    try:
        return resolve_target(_string(value, RESOLVE_TARGET_FORM))
    except WrongValueError as problem:
        raise WrongValueError(f"{key_path(name)}: {problem}") from None


def _text(convert: Callable[[str], object], expects: str) -> Callable[[object], object]:
    return lambda value: convert(_string(value, expects))


def _string(value: object, expects: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, expects)
    return value


def _inline_table(value: object) -> str:
    pairs = value if isinstance(value, tuple) else ()
    return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(target)}" for name, target in pairs) + "}"


def _wrong(value: object, expects: str) -> WrongValueError:
    # A value of the wrong type is called by its type: `got an array` says more than its first elements.
    scalar = isinstance(value, (str, bool, int, float))
    return WrongValueError(f"got {shown(value) if scalar else type_of(value)}; allowed: {expects}")
