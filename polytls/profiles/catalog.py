"""All the profiles there are: the built-in ones, those of the configuration and those of a directory.

A name is looked up in lower case, first among the profiles of one's own and their aliases, then among the
built-in ones, then among theirs. A profile of one's own may take the name of a built-in one (or of its alias)
and then stands in for it, beginning from it; in a file of the profile directory, and for an alias anywhere,
only with ``override = true`` (`polytls.profiles.entries` has the rules).

Where a table's values come from, in this order:

1. ``base = "NAME"``: that profile, built-in or one's own, by name or alias;
2. no base, but a built-in profile of the same name: that one;
3. else the profile ``default``, as configured where it is.

Inside its own table a name means the built-in profile, so ``[profiles.chrome]`` with ``base = "chrome"`` is
no cycle. Built-ins have no base: each file says everything about one client, and overriding one profile
never changes another built-in. Chains are followed without recursion, from file to file; cycles are errors.

A built-in is read when it is first asked for, and kept: a proxy uses one or two of some sixty. Their names
and aliases are known without reading any, from `polytls.profiles.index`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

from polytls.errors import ProfileError
from polytls.profiles.entries import MIRROR, Entry, check_names, entries_of, located
from polytls.profiles.index import BUILTINS
from polytls.profiles.parse import parse_base, parse_profile
from polytls.profiles.wording import key_path, shown, unknown

if TYPE_CHECKING:
    from polytls.profiles.spec import HelloSpec
    from polytls.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_NAME = "default"
"""The profile used where none is chosen, and the base of tables that name none."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every profile by name, and the aliases. Immutable; made anew when the configuration changes.

    `find`, `require` and `specs` read built-in files; a broken one is a `ProfileError`.
    """

    _builtins: _Builtins
    _configured: Mapping[str, HelloSpec]
    _aliases: Mapping[str, str]
    _entries: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, tables: Mapping[str, object], source: str, files: Iterable[Entry] = ()) -> Catalog:
        """The built-in profiles, the ``[profiles.NAME]`` tables of the file `source`, a directory's `files`.

        Raises `ProfileError` for the first thing that is wrong in a table.
        """
        return cls._of((*entries_of(tables, source), *files))

    @classmethod
    def of_settings(cls, settings: Settings) -> Catalog:
        """All that a configuration names. Reads its profile directory. Raises `ProfileError`."""
        directory = settings.profiles.directory
        files: Iterable[Entry] = ()
        if directory is not None:
            from polytls.profiles.directory import read_directory

            files = read_directory(directory)
        return cls.load(settings.profile_tables, settings.source, files)

    @classmethod
    def _of(cls, entries: tuple[Entry, ...]) -> Catalog:
        builtins = _Builtins()
        check_names(entries, {**{name: name for name in BUILTINS}, **builtins.aliases})
        resolver = _Resolver(builtins, {entry.name: entry for entry in entries})
        specs, aliases = MappingProxyType(resolver.specs()), MappingProxyType(resolver.aliases())
        return cls(builtins, specs, aliases, entries)

    def beside(self, entry: Entry) -> Catalog:
        """These profiles and one of another file, which goes before all that is called like it.

        Raises `ProfileError`.
        """
        others = (
            replace(other, aliases=tuple(alias for alias in other.aliases if alias != entry.name))
            for other in self._entries
            if other.name != entry.name and other.source != entry.source
        )
        return self._of((*others, replace(entry, aliases=(), override=True)))

    def knows(self, name: str) -> bool:
        """Whether `find` has a profile for this name. Reads nothing."""
        lower = name.lower()
        lower = self._aliases.get(lower, lower)
        return lower in self._configured or lower in BUILTINS

    def find(self, name: str) -> HelloSpec | None:
        """The profile with this name or alias, in any case; None where there is none."""
        lower = name.lower()
        return self._named(self._aliases.get(lower, lower))

    def require(self, name: str, *, source: str, key: str) -> HelloSpec:
        """The profile with this name, or a `ProfileError` that blames `key` in `source`."""
        spec = self.find(name)
        if spec is None:
            raise ProfileError(
                source, key, f"{shown(name)}: {unknown('profile', name, (*self.names(), MIRROR))}"
            )
        return spec

    def names(self) -> tuple[str, ...]:
        """Every name that `find` knows, aliases too, sorted."""
        return tuple(sorted({*self._configured, *BUILTINS, *self._aliases}))

    def specs(self) -> tuple[HelloSpec, ...]:
        """Every profile once, sorted by name."""
        reachable = {*self._configured, *BUILTINS} - self._aliases.keys()
        found = (self._named(name) for name in sorted(reachable))
        return tuple(spec for spec in found if spec is not None)

    def aliases_of(self, spec: HelloSpec) -> tuple[str, ...]:
        """The other names of a profile, sorted."""
        return tuple(sorted(alias for alias, name in self._aliases.items() if name == spec.name))

    @property
    def configured(self) -> tuple[str, ...]:
        """The names of the profiles of one's own."""
        return tuple(self._configured)

    def _named(self, name: str) -> HelloSpec | None:
        return self._configured.get(name) or self._builtins.find(name)


@dataclass(frozen=True, slots=True)
class _Builtins:
    """The built-in profiles, each read once."""

    aliases: Mapping[str, str] = field(
        default_factory=lambda: {alias: name for name, known in BUILTINS.items() for alias in known}
    )
    _read: dict[str, HelloSpec] = field(default_factory=dict)

    def find(self, name: str) -> HelloSpec | None:
        """The built-in of this name; None where there is none. Aliases are names of `aliases` only."""
        if name not in BUILTINS:
            return None
        spec = self._read.get(name)
        if spec is None:
            source = f"built-in {name}.toml"
            spec = self._read[name] = parse_profile(name, builtin_table(name), None, source)
        return spec


def builtin_table(name: str) -> dict[str, object]:
    """The file of a built-in profile, as TOML. FileNotFoundError for a name that is not one."""
    file = resources.files(__package__).joinpath("builtin").joinpath(f"{name}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Bases and aliases of the profiles of one's own, worked out against the built-in ones."""

    builtins: _Builtins
    entries: Mapping[str, Entry]

    def aliases(self) -> dict[str, str]:
        """Alias -> name. One's own come first; a built-in's alias follows its name to who has taken it."""
        own = {alias: entry.name for entry in self.entries.values() for alias in entry.aliases}
        builtin = {alias: own.get(name, name) for alias, name in self.builtins.aliases.items()}
        # A profile of one's own that has an alias's name comes first anyway; it is no longer an alias then.
        return {alias: name for alias, name in {**builtin, **own}.items() if alias not in self.entries}

    def specs(self) -> dict[str, HelloSpec]:
        """Every profile of one's own, with its base worked in."""
        aliases = self.aliases()
        done: dict[str, HelloSpec] = {}
        for name in self.entries:
            base: HelloSpec | None = None
            chain: dict[str, None] = {}  # in order, and quick to search
            current: str | HelloSpec = name
            while isinstance(current, str) and current not in done:
                if current in chain:
                    raise self._cycle([*list(chain)[list(chain).index(current) :], current])
                chain[current] = None
                current = self._base(self.entries[current], aliases)
            base = done[current] if isinstance(current, str) else current
            for link in reversed(chain):
                entry = self.entries[link]
                with located(entry.source, link, whole_file=entry.whole_file):
                    base = done[link] = parse_profile(link, entry.table, base, entry.source)
        return done

    def _cycle(self, names: list[str]) -> ProfileError:
        entry = self.entries[names[0]]
        files = list(dict.fromkeys(self.entries[name].source for name in names))
        where = f", in {', '.join(files)}" if len(files) > 1 else ""
        problem = (
            f"profiles are based on each other ({' -> '.join(names)}{where}); name a base outside the circle"
        )
        return self._blamed(entry, problem)

    def _base(self, entry: Entry, aliases: Mapping[str, str]) -> str | HelloSpec:
        """What an entry begins from: the name of another one, or a built-in profile."""
        with located(entry.source, entry.name, whole_file=entry.whole_file):
            wanted = parse_base(entry.name, entry.table, entry.source)
        if wanted is None:
            own = self._builtin(entry.name)
            if own is not None:
                return own
            wanted = DEFAULT_NAME
        taken = aliases.get(wanted, wanted)
        if taken in self.entries and taken != entry.name:
            return taken
        found = self._builtin(wanted)
        if found is None:
            known = sorted({*self.entries, *BUILTINS, *aliases} - {entry.name})
            raise self._blamed(entry, f"{shown(wanted)}: {unknown('profile', wanted, known)}")
        return found

    def _blamed(self, entry: Entry, problem: str) -> ProfileError:
        path = ("base",) if entry.whole_file else ("profiles", entry.name, "base")
        return ProfileError(entry.source, key_path(*path), problem)

    def _builtin(self, name: str) -> HelloSpec | None:
        return self.builtins.find(self.builtins.aliases.get(name, name))
