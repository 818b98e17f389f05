"""All the profiles there are: the built-in ones and those of the configuration.

A name is looked up in lower case, first among the configured profiles, then among the built-in ones,
then among the aliases. A configured profile may take the name of a built-in one (or of its alias) and then
stands in for it, beginning from it.

Where a table's values come from, in this order:

1. ``base = "NAME"``: that profile, built-in or configured, by name or alias;
2. no base, but a built-in profile of the same name: that one;
3. else the profile ``default``, as configured where it is.

Inside its own table a name means the built-in profile, so ``[profiles.chrome]`` with ``base = "chrome"`` is
no cycle. Built-ins have no base: each file says everything about one client, and overriding one profile
never changes another built-in. Chains are followed without recursion; cycles are errors.

A built-in is read when it is first asked for, and kept: a proxy uses one or two of some sixty. Their names
and aliases are known without reading any, from `polytls.profiles.index`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType

from polytls.errors import ProfileError
from polytls.profiles.index import BUILTINS
from polytls.profiles.parse import parse_aliases, parse_base, parse_profile
from polytls.profiles.spec import HelloSpec, canonical_name
from polytls.profiles.wording import key_path, shown, type_of, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_NAME = "default"
"""The profile used where none is chosen, and the base of tables that name none."""

MIRROR = "mirror"
"""The name by which a tunnel asks for its own client's hello to be repeated (`polytls.proxy.mirror`). It is
no profile here, and no profile of one's own can have it."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every profile by name, and the aliases. Immutable; made anew when the configuration changes.

    `find`, `require` and `specs` read built-in files; a broken one is a `ProfileError`.
    """

    _builtins: _Builtins
    _configured: Mapping[str, HelloSpec]
    _aliases: Mapping[str, str]

    @classmethod
    def load(cls, tables: Mapping[str, Mapping[str, object]], source: str) -> Catalog:
        """The built-in profiles and the ``[profiles.NAME]`` tables of the file `source`.

        Raises `ProfileError` for the first thing that is wrong in a table.
        """
        builtins = _Builtins()
        resolver = _Resolver(builtins, _by_name(tables, source), source)
        return cls(builtins, MappingProxyType(resolver.specs()), MappingProxyType(resolver.aliases()))

    def find(self, name: str) -> HelloSpec | None:
        """The profile with this name or alias, in any case; None where there is none."""
        lower = name.lower()
        return self._named(lower) or self._named(self._aliases.get(lower, ""))

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
        found = (self._named(name) for name in sorted({*self._configured, *BUILTINS}))
        return tuple(spec for spec in found if spec is not None)

    def aliases_of(self, spec: HelloSpec) -> tuple[str, ...]:
        """The other names of a profile, sorted."""
        return tuple(sorted(alias for alias, name in self._aliases.items() if name == spec.name))

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


def _by_name(tables: Mapping[str, Mapping[str, object]], source: str) -> dict[str, Mapping[str, object]]:
    """The configured tables by canonical name. Raises `ProfileError`."""
    found: dict[str, Mapping[str, object]] = {}
    for written, table in tables.items():
        path = key_path("profiles", written)
        name = canonical_name(written)
        if name is None:
            allowed = "1 to 64 letters, digits, '.', '_', '-', the first a letter or digit"
            raise ProfileError(source, path, f"is not a profile name; allowed: {allowed}")
        if not isinstance(table, Mapping):
            raise ProfileError(source, path, f"is {type_of(table)}; allowed: a table of knobs")
        if name == MIRROR or MIRROR in parse_aliases(name, table, source):
            raise ProfileError(
                source, path, "is the name by which clients ask for their own hello; allowed: any other"
            )
        if name in found:
            raise ProfileError(source, path, "is defined twice; names differ in more than case")
        found[name] = table
    return found


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Bases and aliases of the configured tables, worked out against the built-in profiles."""

    builtins: _Builtins
    tables: Mapping[str, Mapping[str, object]]
    source: str

    def aliases(self) -> dict[str, str]:
        """Alias -> name. A new alias must be a new name: to change a known one, configure it by name."""
        found = dict(self.builtins.aliases)
        for name, table in self.tables.items():
            for alias in parse_aliases(name, table, self.source):
                if alias in self.tables or alias in BUILTINS or alias in found:
                    path = key_path("profiles", name, "aliases")
                    problem = f"{shown(alias)} already names a profile; allowed: a name not in use"
                    raise ProfileError(self.source, path, problem)
                found[alias] = name
        # A configured profile of an alias's name comes first anyway; it is no longer an alias then.
        return {alias: name for alias, name in found.items() if alias not in self.tables}

    def specs(self) -> dict[str, HelloSpec]:
        """Every configured profile, with its base worked in."""
        aliases = self.aliases()
        done: dict[str, HelloSpec] = {}
        for name in self.tables:
            base: HelloSpec | None = None
            chain: dict[str, None] = {}  # in order, and quick to search
            current: str | HelloSpec = name
            while isinstance(current, str) and current not in done:
                if current in chain:
                    cycle = " -> ".join([*list(chain)[list(chain).index(current) :], current])
                    problem = f"profiles are based on each other ({cycle}); name a base outside the circle"
                    raise ProfileError(self.source, key_path("profiles", current, "base"), problem)
                chain[current] = None
                current = self._base(current, aliases)
            base = done[current] if isinstance(current, str) else current
            for link in reversed(chain):
                base = done[link] = parse_profile(link, self.tables[link], base, self.source)
        return done

    def _base(self, name: str, aliases: Mapping[str, str]) -> str | HelloSpec:
        """What the table `name` begins from: the name of a configured table, or a built-in profile."""
        wanted = parse_base(name, self.tables[name], self.source)
        if wanted is None:
            own = self._builtin(name)
            if own is not None:
                return own
            default = None if DEFAULT_NAME in self.tables else self._builtin(DEFAULT_NAME)
            return default or DEFAULT_NAME
        wanted = aliases.get(wanted, wanted)
        if wanted in self.tables and wanted != name:
            return wanted
        found = self._builtin(wanted)
        if found is None:
            known = sorted({*self.tables, *BUILTINS, *aliases} - {name})
            problem = f"{shown(wanted)}: {unknown('profile', wanted, known)}"
            raise ProfileError(self.source, key_path("profiles", name, "base"), problem)
        return found

    def _builtin(self, name: str) -> HelloSpec | None:
        return self.builtins.find(self.builtins.aliases.get(name, name))
