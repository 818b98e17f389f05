"""Tables of profiles as they were written, each with its place, before anything in them is believed.

Theory of operation
-------------------
A profile of one's own is a ``[profiles.NAME]`` table of the configuration, or a file in the profile directory
(`polytls.profiles.directory`). An `Entry` is one of them. `check_names` holds that every name and alias
leads to one profile: two profiles of one's own never share a word, whatever they say; a word of a built-in
profile may be taken by a table of the configuration as its name, by anything else where it says
``override = true``. The errors name both places.

In a file that is one profile as a whole, key paths begin at the file: `located` takes ``profiles.NAME`` off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from polytls.errors import ProfileError
from polytls.profiles.parse import parse_aliases, parse_override
from polytls.profiles.spec import canonical_name
from polytls.profiles.wording import key_path, shown, type_of

MIRROR = "mirror"
"""The name by which a tunnel asks for its own client's hello to be repeated (`polytls.proxy.mirror`). It is
no profile here, and no profile of one's own can have it."""

DIRECTORY = "directory"
"""``[profiles] directory`` is a setting, so that ``[profiles.directory]`` could not be written."""

RESERVED = {
    MIRROR: "is the name by which clients ask for their own hello; allowed: any other",
    DIRECTORY: "is the setting that names the profile directory; allowed: any other name",
}
"""Names that no profile can have, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One table. `name` is canonical, `source` the file as errors name it."""

    name: str
    table: Mapping[str, object]
    source: str
    in_directory: bool = False
    whole_file: bool = False
    """The table is the file, and not one of its ``[profiles.NAME]``."""
    aliases: tuple[str, ...] = field(default=())
    override: bool = False


def entries_of(
    tables: Mapping[str, object], source: str, *, in_directory: bool = False, whole_file: bool = False
) -> tuple[Entry, ...]:
    """The tables by their written names. Raises `ProfileError` for what is no table or no name."""
    found: dict[str, Entry] = {}
    for written, table in tables.items():
        path = "" if whole_file else key_path("profiles", written)
        name = canonical_name(written)
        if name is None:
            allowed = "1 to 64 letters, digits, '.', '_', '-', the first a letter or digit"
            what = f"{shown(written)} is not" if whole_file else "is not"
            raise ProfileError(source, path, f"{what} a profile name; allowed: {allowed}")
        if not isinstance(table, Mapping):
            raise ProfileError(source, path, f"is {type_of(table)}; allowed: a table of knobs")
        with located(source, name, whole_file=whole_file):
            aliases = parse_aliases(name, table, source)
            override = parse_override(name, table, source)
        for word in (name, *aliases):
            if word in RESERVED:
                raise ProfileError(source, path, f"{shown(word)} {RESERVED[word]}")
        if name in found:
            raise ProfileError(source, path, "is defined twice; names differ in more than case")
        found[name] = Entry(name, table, source, in_directory, whole_file, aliases, override)
    return tuple(found.values())


@contextlib.contextmanager
def located(source: str, name: str, *, whole_file: bool) -> Iterator[None]:
    """Errors about the table `name` of `source` with the key path that the file really has."""
    try:
        yield
    except ProfileError as error:
        prefix = key_path("profiles", name)
        if not whole_file or error.source != source or not error.key.startswith(prefix):
            raise
        key = error.key.removeprefix(prefix).removeprefix(".")
        raise ProfileError(source, key, error.problem) from None


def check_names(entries: Iterable[Entry], builtins: Mapping[str, str]) -> None:
    """That no word is anybody's but one's own. `builtins`: every built-in name and alias -> the file's name.

    Raises `ProfileError` at the later of the two.
    """
    entries = tuple(entries)
    owners: dict[str, Entry] = {}
    for entry in entries:
        owner = owners.get(entry.name)
        if owner is not None:
            raise _clash(entry, entry.name, owner)
        if entry.in_directory and entry.name in builtins and not entry.override:
            raise _takes_builtin(entry, entry.name, builtins[entry.name])
        owners[entry.name] = entry
    for entry in entries:
        for alias in entry.aliases:
            owner = owners.get(alias)
            if owner is not None:
                raise _clash(entry, alias, owner)
            if alias in builtins and not entry.override:
                raise _takes_builtin(entry, alias, builtins[alias])
            owners[alias] = entry


def _clash(entry: Entry, word: str, owner: Entry) -> ProfileError:
    if owner.source == entry.source:
        return _error(entry, word, f"{shown(word)} already names a profile; allowed: a name not in use")
    problem = f"{shown(word)} names a profile of {owner.source} as well; allowed: one of the two"
    return _error(entry, word, problem)


def _takes_builtin(entry: Entry, word: str, builtin: str) -> ProfileError:
    problem = (
        f"{shown(word)} already names a profile, the built-in {builtin}.toml; allowed: a name not in use,"
        " or override = true to take its place"
    )
    return _error(entry, word, problem)


def _error(entry: Entry, word: str, problem: str) -> ProfileError:
    keys = ("aliases",) if word != entry.name else ()
    path = (*keys,) if entry.whole_file else ("profiles", entry.name, *keys)
    return ProfileError(entry.source, key_path(*path), problem)
