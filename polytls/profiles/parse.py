"""One ``[profiles.NAME]`` table and its base -> one `HelloSpec`.

A table holds overrides; what it does not name comes from the base. Two knobs may depend on each other: a
key share must be one of the groups, and in their order (BoringSSL asks both); an ALPS protocol must be one of
the ALPN protocols. The rule for those is the same everywhere: what the table itself writes must agree, or it
is an error; what it inherits is narrowed to what still fits. So ``base = "chrome"`` with
``alpn_protos = ["http/1.1"]`` also loses ALPS, silently and as meant.

Pure: which table is whose base is the catalog's business.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polytls.errors import ProfileError
from polytls.profiles.boringssl import GROUPS, VERSIONS
from polytls.profiles.knobs import KNOBS
from polytls.profiles.spec import HelloSpec, canonical_name
from polytls.profiles.wording import WrongValueError, key_path, shown, type_of, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

STRUCTURE_KEYS = ("base", "aliases")
"""Keys of a table that say how it relates to other profiles; the rest are knobs."""

ALLOWED_KEYS = (*STRUCTURE_KEYS, *(knob.key for knob in KNOBS))

OPTIONAL_KEYS = (*STRUCTURE_KEYS, "description")
"""What a table without a base may leave out."""


def parse_profile(name: str, table: Mapping[str, object], base: HelloSpec | None, source: str) -> HelloSpec:
    """The profile `name`. Without a base the table must hold every knob (built-ins do).

    Raises `ProfileError` naming `source` (a file), the key path and what is allowed.
    """
    _check_keys(name, table, base, source)
    written: dict[str, Any] = {}
    for knob in KNOBS:
        if knob.key in table:
            try:
                written[knob.field] = knob.parse(table[knob.key])
            except WrongValueError as problem:
                raise ProfileError(source, _path(name, knob.key), str(problem)) from None
    about: dict[str, Any] = {"name": name, "source": source, "base": base.name if base else None}
    if base is None:
        spec = HelloSpec(**about, **written)
    else:
        written.setdefault("description", "")  # the base's words are about the base
        spec = _narrowed(replace(base, **about, **written), written)
    try:
        _check_together(spec)
    except _DisagreementError as problem:
        raise ProfileError(source, _path(name, problem.key), str(problem)) from None
    return spec


def parse_base(name: str, table: Mapping[str, object], source: str) -> str | None:
    """The base a table names, in lower case; None where it names none. Raises `ProfileError`."""
    value = table.get("base")
    if value is None:
        return None
    base = canonical_name(value) if isinstance(value, str) else None
    if base is None:
        raise ProfileError(source, _path(name, "base"), f"got {shown(value)}; allowed: the name of a profile")
    return base


def parse_aliases(name: str, table: Mapping[str, object], source: str) -> tuple[str, ...]:
    """The other names a table asks for, in lower case. Raises `ProfileError`."""
    value = table.get("aliases", [])
    allowed = "an array of names (letters, digits, '.', '_', '-')"
    if not isinstance(value, (list, tuple)):
        raise ProfileError(source, _path(name, "aliases"), f"is {type_of(value)}; allowed: {allowed}")
    aliases = []
    for item in value:
        alias = canonical_name(item) if isinstance(item, str) else None
        if alias is None:
            raise ProfileError(source, _path(name, "aliases"), f"holds {shown(item)}; allowed: {allowed}")
        aliases.append(alias)
    return tuple(aliases)


class _DisagreementError(Exception):
    """Two knobs do not fit together; `key` is the one to change."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def _path(name: str, *keys: str) -> str:
    return key_path("profiles", name, *keys)


def _check_keys(name: str, table: Mapping[str, object], base: HelloSpec | None, source: str) -> None:
    for key in table:
        if key not in ALLOWED_KEYS:
            raise ProfileError(source, _path(name, key), unknown("key", key, ALLOWED_KEYS))
    missing = [key for key in ALLOWED_KEYS if key not in table and key not in OPTIONAL_KEYS]
    if base is None and missing:
        raise ProfileError(source, _path(name), f"has no base and leaves out {', '.join(missing)}")


def _narrowed(spec: HelloSpec, written: Mapping[str, object]) -> HelloSpec:
    """The spec with what it inherited cut down to what its own groups and protocols still allow."""
    if "groups" in written and "key_shares" not in written and spec.key_shares:
        kept = tuple(group for group in spec.groups if group in spec.key_shares)
        spec = replace(spec, key_shares=kept or None)
    if "alpn" in written and "alps" not in written:
        spec = replace(spec, alps=tuple(name for name in spec.alps if name in spec.alpn))
    return spec


def _check_together(spec: HelloSpec) -> None:
    if spec.min_tls > spec.max_tls:
        low, high = VERSIONS.name_of(spec.min_tls), VERSIONS.name_of(spec.max_tls)
        raise _DisagreementError("min_tls", f"{low} is above max_tls {high}; allowed: at most max_tls")
    groups = ", ".join(GROUPS.name_of(group) for group in spec.groups)
    shares = spec.key_shares or ()
    if tuple(group for group in spec.groups if group in shares) != shares:
        problem = f"are not among the groups of curves_list in its order; allowed: some of {groups}"
        raise _DisagreementError("key_shares", problem)
    stray = [name for name in spec.alps if name not in spec.alpn]
    if stray:
        allowed = ", ".join(spec.alpn) or "none, as alpn_protos is empty"
        raise _DisagreementError(
            "alps_protos", f"{shown(stray[0])} is not in alpn_protos; allowed: {allowed}"
        )
