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
        return {**{knob.key: knob.show(spec) for knob in KNOBS}, **_http2_table(spec)}
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
        **_http2_table(spec),
    }


def _http2_table(spec: HelloSpec) -> dict[str, object]:
    if spec.http2 is None:
        return {}
    from polytls.profiles import http2_toml

    return {"http2": http2_toml.as_table(spec.http2)}


def as_toml(spec: HelloSpec) -> str:
    """The spec as a ``[profiles.NAME]`` table, ending in a line break; a comment speaks of HTTP/2."""
    lines = [f"[{key_path('profiles', spec.name)}]"]
    tables = ("hello", "http2")
    lines += [f"{key} = {_value(value)}" for key, value in as_table(spec).items() if key not in tables]
    text = "\n".join(lines) + "\n"
    if spec.exact is not None:
        from polytls.profiles import exact_toml

        text += f"\n[{key_path('profiles', spec.name, 'hello')}]\n{exact_toml.as_toml(spec.exact)}"
    return text + _http2_toml(spec)


def _http2_toml(spec: HelloSpec) -> str:
    """The ``[http2]`` table where there is one, and what it is worth; nothing for a client without HTTP/2."""
    from polytls.profiles.http2 import H2

    if H2 not in spec.alpn:
        return ""
    if spec.http2 is None:
        return f"\n# How this client begins HTTP/2 is not known. {_RELAYED}\n"
    from polytls.profiles import http2_toml

    head = f"# {_RELAYED}\n# This is what the profile's own would be: {spec.http2.akamai}\n"
    return f"\n{head}[{key_path('profiles', spec.name, 'http2')}]\n{http2_toml.as_toml(spec.http2)}"


_RELAYED = "Relayed HTTP/2 keeps the first flight of the client in front of the proxy."


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
