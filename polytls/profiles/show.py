"""A `HelloSpec` back in the form it is written in, for ``polytls profiles show`` and for documents.

What is shown is complete and says the same thing again when it is read: reading it as a table without
a base gives an equal spec.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from polytls.profiles.knobs import KNOBS
from polytls.profiles.wording import key_path

if TYPE_CHECKING:
    from polytls.profiles.spec import HelloSpec

_ONE_LINE_CHARS = 80
"""Longer arrays are written one name a line."""


def as_table(spec: HelloSpec) -> dict[str, object]:
    """The spec as a TOML table that is complete by itself: every knob, in the order of the reference, or for
    an exact profile its hello."""
    if spec.exact is None:
        return {knob.key: knob.show(spec) for knob in KNOBS}
    from polytls.profiles import exact_toml

    words = {
        "description": spec.description,
        "captured_from": spec.captured_from,
        "captured_on": spec.captured_on,
        "unlike_capture": spec.unlike_capture,
    }
    return {
        **{key: text for key, text in words.items() if text},
        "session_resumption": spec.resumption,
        "hello": exact_toml.as_table(spec.exact),
    }


def as_toml(spec: HelloSpec) -> str:
    """The spec as a ``[profiles.NAME]`` table, ending in a line break."""
    lines = [f"[{key_path('profiles', spec.name)}]"]
    lines += [f"{key} = {_value(value)}" for key, value in as_table(spec).items() if key != "hello"]
    text = "\n".join(lines) + "\n"
    if spec.exact is None:
        return text
    from polytls.profiles import exact_toml

    return f"{text}\n[{key_path('profiles', spec.name, 'hello')}]\n{exact_toml.as_toml(spec.exact)}"


def knobs_as_markdown() -> str:
    """The table of knobs in docs/profiles.md, which a test keeps equal to this."""
    rows = ["| key | value | what it does |", "|---|---|---|"]
    rows += [f"| `{knob.key}` | {knob.form} | {knob.doc} |" for knob in KNOBS]
    return "\n".join(rows) + "\n"


def _value(value: object) -> str:
    # Strings, booleans and arrays of strings are written alike in JSON and TOML; DEL is not.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list) and len(text) > _ONE_LINE_CHARS:
        return "[\n" + "".join(f"  {_value(item)},\n" for item in value) + "]"
    return text
