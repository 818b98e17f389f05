"""The ``[hello]`` table of a profile <-> `ExactHello`.

Theory of operation
-------------------
The table is written to be read and compared by people: a list has its names in the order of the wire, and
`extensions` is the order of the hello, one entry a line. An entry is

* a bare name, ``"extended_master_secret"``, where there is nothing else to say;
* a name with its body in words, ``{ supported_groups = ["GREASE", "x25519"] }``;
* ``{ id = 0x1234, body = "00ff" }`` for anything else, by number or name, the body in hexadecimal;
* ``"GREASE"``, or ``{ id = "GREASE", body = "00" }``: fixed in its place always.

The markers ``fixed = true`` and ``full_only = true`` stand beside the body. What is read is checked
(`exact.check`), so that a hello from here can be compiled; what is written reads back as an equal hello.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from polytls.errors import ProfileError
from polytls.profiles import bodies, vocabulary
from polytls.profiles.bodies import CODECS, SIMPLE, extension_type_of, extension_word
from polytls.profiles.exact import (
    BUILTIN,
    GREASE,
    NEVER_ENTRIES,
    Entry,
    ExactHello,
    InexactError,
    Padding,
    Raw,
    check,
)
from polytls.profiles.wording import WrongValueError, key_path, nearest, shown, type_of, unknown
from polytls.wire import iana

if TYPE_CHECKING:
    from collections.abc import Mapping

NEEDED_KEYS = ("cipher_suites", "extensions")

_QUIRKS = ("reuse_x25519", "new_shares_on_cookie", "late_change_cipher_spec", "keep_session_id")
"""What few clients do: written where it is true."""

KEYS = (
    "record_version",
    "cipher_suites",
    "compression_methods",
    "permute",
    "padding",
    *_QUIRKS,
    "extensions",
)

MARKERS = ("fixed", "full_only")

_LINE_CHARS = 100
"""Longer arrays are written one item a line."""

_FORMS = 'a name, { name = body }, or { id = number or name, body = "hexadecimal" }'


def parse_hello(table: object, path: str, source: str) -> ExactHello:
    """The hello of a ``[hello]`` table found at the key path `path` of `source`.

    Raises `ProfileError` naming the source, the key path and what is allowed.
    """
    if not isinstance(table, dict):
        raise ProfileError(source, path, f"is {type_of(table)}; allowed: a table")
    key = path
    try:
        for key in table:
            if key not in KEYS:
                raise WrongValueError(unknown("key", key, KEYS))
        for key in NEEDED_KEYS:
            if key not in table:
                raise WrongValueError(f"is left out; allowed: a table with {', '.join(NEEDED_KEYS)}")
        values: dict[str, object] = {}
        for key, value in table.items():
            if key != "extensions":
                values[key] = _READERS[key](value)
    except WrongValueError as problem:
        raise ProfileError(source, f"{path}.{key_path(key)}", str(problem)) from None
    entries = _entries(table["extensions"], f"{path}.extensions", source)
    hello = ExactHello(extensions=entries, **values)  # type: ignore[arg-type] # each by its reader
    try:
        check(hello)
    except InexactError as problem:
        place = "" if problem.position is None else f"[{problem.position}]"
        raise ProfileError(source, f"{path}.{problem.key}{place}", str(problem)) from None
    return hello


def as_table(hello: ExactHello) -> dict[str, object]:
    """The hello as a TOML table, in the order in which it is written. Defaults are left out."""
    table: dict[str, object] = {
        "record_version": vocabulary.RECORD_VERSION_WORDS.word(hello.record_version),
        "cipher_suites": [vocabulary.CIPHER_WORDS.word(suite) for suite in hello.cipher_suites],
        "compression_methods": [
            vocabulary.COMPRESSION_WORDS.word(item) for item in hello.compression_methods
        ],
        "permute": hello.permute,
        "padding": hello.padding.value,
    }
    for key in _QUIRKS:
        if getattr(hello, key):
            table[key] = True
    table["extensions"] = [_entry_item(entry) for entry in hello.extensions]
    return table


def as_toml(hello: ExactHello) -> str:
    """The lines of the table, without its header, ending in a line break."""
    lines = []
    for key, value in as_table(hello).items():
        one_each = key in ("cipher_suites", "extensions")
        lines.append(f"{key} = {toml_array(value) if one_each and isinstance(value, list) else toml(value)}")
    return "\n".join(lines) + "\n"


def toml(value: object) -> str:
    """A value on one line. Arrays of strings that are longer are broken, also inside an inline table."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key_path(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    # Strings, booleans and integers are written alike in JSON and TOML; DEL is not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_array(items: list[object]) -> str:
    """An array with one item a line."""
    return "[\n" + "".join(f"  {_item(item)},\n" for item in items) + "]"


def _item(value: object) -> str:
    text = toml(value)
    if len(text) <= _LINE_CHARS or not isinstance(value, dict):
        return text
    # TOML 1.0 breaks lines inside an inline table only within its arrays.
    (key, items), *rest = value.items()
    if not isinstance(items, list):
        return text
    broken = "[\n" + "".join(f"    {line},\n" for line in _filled(items)) + "  ]"
    tail = "".join(f", {key_path(name)} = {toml(item)}" for name, item in rest)
    return f"{{ {key_path(key)} = {broken}{tail} }}"


def _filled(items: list[object]) -> list[str]:
    """The items, as many in a line as fit."""
    lines: list[str] = []
    for item in map(toml, items):
        if lines and len(lines[-1]) + len(item) + 6 <= _LINE_CHARS:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def _entries(value: object, path: str, source: str) -> tuple[Entry, ...]:
    try:
        items = vocabulary.read_array(value, f"an array of extensions, each {_FORMS}")
    except WrongValueError as problem:
        raise ProfileError(source, path, str(problem)) from None
    found: list[Entry] = []
    for position, item in enumerate(items):
        try:
            found.append(_read_entry(item))
        except WrongValueError as problem:
            raise ProfileError(source, f"{path}[{position}]", str(problem)) from None
    return tuple(found)


def _read_entry(item: object) -> Entry:
    if isinstance(item, str):
        return _bare(item)
    if not isinstance(item, dict):
        raise WrongValueError(f"is {type_of(item)}; allowed: {_FORMS}")
    rest = dict(item)
    markers = {key: _flag(rest.pop(key)) for key in MARKERS if key in rest}
    if "id" in rest:
        entry = _by_id(rest)
    elif len(rest) == 1:
        ((word, value),) = rest.items()
        entry = _typed(word, value)
    else:
        raise WrongValueError(f"names {len(rest)} extensions; allowed: {_FORMS}")
    return replace(
        entry, fixed=entry.fixed or markers.get("fixed", False), full_only=markers.get("full_only", False)
    )


def _bare(word: str) -> Entry:
    number = _number(word)
    if number == GREASE:
        return Entry(GREASE, fixed=True)
    if number in NEVER_ENTRIES:
        raise WrongValueError(f"{shown(word)} is {NEVER_ENTRIES[number]}")
    if number not in SIMPLE:
        form = CODECS[number].form if number in CODECS else "hexadecimal"
        raise WrongValueError(f"{shown(word)} needs a body; allowed: {{ {_written(word, number)} }}, {form}")
    return Entry(number, Raw(SIMPLE[number]))


def _written(word: str, number: int) -> str:
    return f"{CODECS[number].key} = body" if number in CODECS else f'id = {shown(word)}, body = "…"'


def _typed(word: str, value: object) -> Entry:
    number = _number(word)
    codec = CODECS.get(number)
    if codec is None:
        problem = (
            f'{shown(word)} has no body in words; allowed: {{ id = {shown(word)}, body = "hexadecimal" }}'
        )
        raise WrongValueError(problem)
    try:
        return Entry(number, codec.read(value))
    except WrongValueError as problem:
        raise WrongValueError(f"{codec.key} {problem}") from None


def _by_id(table: Mapping[str, object]) -> Entry:
    bodies.read_table(table, {"id": True, "body": False})
    written = table["id"]
    number = _number(written) if isinstance(written, str) else bodies.read_integer(written, 0, 0xFFFF, "id")
    data = bodies.read_hex(table.get("body", ""))
    if number == GREASE:
        return Entry(GREASE, Raw(data), fixed=True)
    if iana.is_grease(number):
        raise WrongValueError('id is a GREASE value; allowed: id = "GREASE", drawn afresh')
    if number in CODECS and number in BUILTIN:
        word = CODECS[number].key
        raise WrongValueError(f"{word} is written in words; allowed: {{ {word} = {CODECS[number].form} }}")
    if "body" not in table and number in SIMPLE:
        data = SIMPLE[number]
    return Entry(number, bodies.decode_body(number, data) if number not in BUILTIN else Raw(data))


def _number(word: str) -> int:
    number = extension_type_of(word)
    if number is None:
        known = [*(codec.key for codec in CODECS.values()), *iana.EXTENSIONS.values()]
        guess = nearest(word, known)
        hint = f" (did you mean {shown(guess)}?)" if guess else ""
        raise WrongValueError(f"{shown(word)}: unknown extension{hint}; allowed: {_FORMS}")
    return number


def _entry_item(entry: Entry) -> object:
    word = extension_word(entry.type)
    markers = {"fixed": entry.fixed and entry.type != GREASE, "full_only": entry.full_only}
    written: dict[str, object] = {key: True for key, value in markers.items() if value}
    codec = CODECS.get(entry.type)
    if codec is not None and not isinstance(entry.body, Raw):
        return {codec.key: codec.show(entry.body), **written}
    data = entry.body.data if isinstance(entry.body, Raw) else b""
    usual = b"" if entry.type == GREASE else SIMPLE.get(entry.type)
    if data == usual:
        return {"id": word, **written} if written else word
    number: object = word if extension_type_of(word) == entry.type else entry.type
    return {"id": number, "body": data.hex(), **written}


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"is {type_of(value)}; allowed: true, false")
    return value


def _padding(value: object) -> Padding:
    words = [padding.value for padding in Padding]
    if value not in words:
        raise WrongValueError(f"is {shown(value)}; allowed: {', '.join(words)}")
    return Padding(value)


def _record_version(value: object) -> int:
    number = vocabulary.RECORD_VERSION_WORDS.number(value)
    if number >> 8 != 3:  # RFC 8446 §5.1: every TLS record
        raise WrongValueError(f"is {number:#06x}; allowed: TLS1.0 to TLS1.3, SSL3.0")
    return number


def _compression_methods(value: object) -> tuple[int, ...]:
    methods = vocabulary.read_numbers(vocabulary.COMPRESSION_WORDS, value)
    if len(methods) > 0xFF:
        raise WrongValueError(f"has {len(methods)} items; allowed: at most 255")
    return methods


_READERS = {
    "record_version": _record_version,
    "cipher_suites": lambda value: vocabulary.read_numbers(vocabulary.CIPHER_WORDS, value),
    "compression_methods": _compression_methods,
    "permute": _flag,
    "padding": _padding,
    **dict.fromkeys(_QUIRKS, _flag),
}
