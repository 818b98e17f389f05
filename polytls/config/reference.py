"""The schema as documents: config/polytls.toml and the table of docs/configuration.md.

Both files are kept equal to what this module writes, by a test. After a change of the schema::

    python -m polytls.config.reference toml > config/polytls.toml
    python -m polytls.config.reference markdown   # the table, to be pasted into docs/configuration.md
"""

from __future__ import annotations

import sys
import textwrap
from itertools import groupby

from polytls.config.schema import KEYS, Key

COMMENT_COLUMNS = 100

_HEAD = """\
# PolyTLS: every setting, with its default, its unit and what is allowed.
#
# Read with `polytls serve --config config/polytls.toml`. Without a file these defaults apply. A key that
# is commented out has no default; what it shows is an example. Environment variables (such as
# POLYTLS_PROXY__LISTEN__ADDRESS) override the file, options of the command line override both.
# Durations are seconds, with or without a fraction. See docs/configuration.md.
"""

_PROFILES = """\
# Profiles of your own, and changes to built-in ones; docs/profiles.md has every knob. A table without
# `base` begins from the built-in profile of its name, else from "default".
#
# [profiles."lab-http1"]
# base = "firefox"
# alpn_protos = ["http/1.1"]
"""


def as_toml() -> str:
    """The text of config/polytls.toml."""
    parts = [_HEAD]
    for table, keys in groupby((key for key in KEYS if not key.kind.merges), _table_of):
        parts.append("\n".join([f"[{table}]", *(_entry(key) for key in keys)]) + "\n")
        parts += [_open_table(key) for key in KEYS if key.kind.merges and _table_of(key) == table]
    return "\n".join([*parts, _PROFILES])


def as_markdown() -> str:
    """The table of keys: path, default, what is allowed, option, what it does."""
    rows = ["| key | default | allowed | option | what it does |", "|---|---|---|---|---|"]
    for key in KEYS:
        default = "unset" if key.default is None else f"`{key.kind.show(key.default)}`"
        option = f"`{key.option}`" if key.option else ""
        rows.append(f"| `{key.path}` | {default} | {key.kind.expects} | {option} | {key.doc} |")
    return "\n".join(rows) + "\n"


def _table_of(key: Key) -> str:
    return key.path.rpartition(".")[0]


def _entry(key: Key) -> str:
    name = key.path.rpartition(".")[2]
    if key.default is None:
        return f"{_comment(key)}\n# {name} = {key.example}"
    return f"{_comment(key)}\n{name} = {key.kind.show(key.default)}"


def _open_table(key: Key) -> str:
    return f"{_comment(key)}\n[{key.path}]\n# {key.example}\n"


def _comment(key: Key) -> str:
    option = f" Option: {key.option}." if key.option else ""
    lines = [*_wrapped(key.doc), *_wrapped(f"Allowed: {key.kind.expects}.{option}")]
    return "\n".join(f"# {line}" for line in lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COMMENT_COLUMNS - 2, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    sys.stdout.write(as_toml() if sys.argv[1:] == ["toml"] else as_markdown())
