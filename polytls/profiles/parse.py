"""One ``[profiles.NAME]`` table and its base -> one `HelloSpec`.

A table with ``[hello]`` is exact and complete: it has no base, and of the knobs only those that are no part
of a hello (`EXACT_KEYS`). Any other table holds overrides. Over an exact base they are edits of its hello
(`polytls.profiles.overrides`), over a base by knobs they are the knobs themselves.

What a table of overrides does not name comes from the base. Two knobs may depend on each other: a
key share must be one of the groups, and in their order (BoringSSL asks both); an ALPS protocol must be one of
the ALPN protocols. The rule for those is the same everywhere: what the table itself writes must agree, or it
is an error; what it inherits is narrowed to what still fits. So ``base = "chrome"`` with
``alpn_protos = ["http/1.1"]`` also loses ALPS and its HTTP/2 first flight, silently and as meant.

``[http2]`` may stand beside either sort: over a base it is an edit of the base's, else it is complete.

Pure: which table is whose base is the catalog's business.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polytls.errors import ProfileError
from polytls.profiles.boringssl import GROUPS, VERSIONS
from polytls.profiles.knobs import KNOBS, parse_description
from polytls.profiles.spec import HelloSpec, canonical_name
from polytls.profiles.wording import WrongValueError, key_path, shown, type_of, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polytls.profiles.exact import ExactHello

STRUCTURE_KEYS = ("base", "aliases", "override")
"""Keys of a table that say how it relates to other profiles; the rest are knobs."""

ALLOWED_KEYS = (*STRUCTURE_KEYS, *(knob.key for knob in KNOBS), "hello", "http2")

OPTIONAL_KEYS = (*STRUCTURE_KEYS, "description", "hello", "http2")
"""What a table without a base may leave out."""

EXACT_KEYS = (
    "aliases",
    "override",
    "description",
    "captured_from",
    "captured_on",
    "unlike_capture",
    "session_resumption",
    "hello",
    "http2",
)
"""What a table with ``[hello]`` may hold."""


def parse_profile(name: str, table: Mapping[str, object], base: HelloSpec | None, source: str) -> HelloSpec:
    """The profile `name`. A table with ``[hello]`` is complete, whatever the base; else, without a base it
    must hold every knob.

    Raises `ProfileError` naming `source` (a file), the key path and what is allowed.
    """
    if "hello" in table:
        return _with_http2(_exact(name, table, source), table, None)
    return _with_http2(_by_knobs(name, table, base, source), table, base)


def _by_knobs(name: str, table: Mapping[str, object], base: HelloSpec | None, source: str) -> HelloSpec:
    """A profile without ``[hello]``."""
    _check_keys(name, table, base, source)
    written = _written(name, table, source)
    about: dict[str, Any] = {"name": name, "source": source, "base": base.name if base else None}
    if base is not None and base.exact is not None:
        return _edited(base, base.exact, about, written)
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


def _with_http2(spec: HelloSpec, table: Mapping[str, object], base: HelloSpec | None) -> HelloSpec:
    """The spec with the first flight of its table and its base."""
    inherited = base.http2 if base is not None else None
    if "http2" not in table:
        return replace(spec, http2=inherited if _H2 in spec.alpn else None)
    from polytls.profiles import http2_toml

    path = _path(spec.name, "http2")
    flight = http2_toml.parse_http2(table["http2"], path, spec.source, inherited)
    if _H2 not in spec.alpn:
        problem = f"has no meaning for a profile that does not offer {_H2} by ALPN; allowed: to leave it out"
        raise ProfileError(spec.source, path, problem)
    return replace(spec, http2=flight)


_H2 = "h2"  # as `polytls.profiles.http2.H2`, which is needed where a profile has a flight only


def _written(name: str, table: Mapping[str, object], source: str) -> dict[str, Any]:
    """The knobs of a table, by field."""
    written: dict[str, Any] = {}
    for knob in KNOBS:
        if knob.key in table:
            try:
                written[knob.field] = knob.parse(table[knob.key])
            except WrongValueError as problem:
                raise ProfileError(source, _path(name, knob.key), str(problem)) from None
    return written


def _exact(name: str, table: Mapping[str, object], source: str) -> HelloSpec:
    """A profile with ``[hello]``."""
    # Half of the profile format, and needed where a profile is exact only.
    from polytls.profiles import derive, exact_toml, template

    for key in table:
        if key not in EXACT_KEYS:
            problem = unknown("key", key, EXACT_KEYS)
            if key in ALLOWED_KEYS:
                problem = (
                    f"has no meaning beside [hello], which is complete; allowed: {', '.join(EXACT_KEYS)}"
                )
            raise ProfileError(source, _path(name, key), problem)
    knobs = _written(name, {key: value for key, value in table.items() if key not in _CAPTURE_FIELDS}, source)
    words = {key: _words(name, key, table[key], source) for key in _CAPTURE_FIELDS if key in table}
    hello = exact_toml.parse_hello(table["hello"], _path(name, "hello"), source)
    about: dict[str, Any] = {"name": name, "source": source, "resumption": True, **knobs, **words}
    return HelloSpec(**derive.fields(hello), **about, exact=hello, template=template.compile_template(hello))


_CAPTURE_FIELDS = ("captured_from", "captured_on", "unlike_capture")


def _words(name: str, key: str, value: object, source: str) -> str:
    try:
        return parse_description(str(value) if isinstance(value, datetime.date) else value)
    except WrongValueError as problem:
        raise ProfileError(source, _path(name, key), str(problem)) from None


def _edited(
    base: HelloSpec, exact: ExactHello, about: Mapping[str, Any], written: Mapping[str, Any]
) -> HelloSpec:
    """The exact base with the knobs of a table worked into its hello."""
    from polytls.profiles import derive, overrides, template
    from polytls.profiles.exact import InexactError

    name, source = about["name"], about["source"]
    keys = {knob.field: knob.key for knob in KNOBS}
    # The base's words are about the base.
    words = {"description": "", **dict.fromkeys(_CAPTURE_FIELDS, "")}
    own = {field: written[field] for field in ("description", "resumption") if field in written}
    try:
        hello = overrides.edited(exact, written)
        spec = replace(base, **about, **{**derive.fields(hello), **words, **own}, exact=hello)
        if not written.keys().isdisjoint(_TOGETHER):
            _check_together(spec)
        return replace(spec, template=template.compile_template(hello))
    except overrides.KnobError as problem:
        raise ProfileError(source, _path(name, keys[problem.field]), str(problem)) from None
    except _DisagreementError as problem:
        raise ProfileError(source, _path(name, problem.key), str(problem)) from None
    except InexactError as problem:
        # Which knob it was cannot be told from the hello; what is wrong can.
        raise ProfileError(source, _path(name), f"does not fit its base {base.name}: {problem}") from None


_TOGETHER = frozenset({"groups", "key_shares", "alpn", "alps"})
"""Fields that must agree with each other."""


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


def parse_override(name: str, table: Mapping[str, object], source: str) -> bool:
    """Whether a table stands in for the built-in profile of its name. Raises `ProfileError`."""
    value = table.get("override", False)
    if not isinstance(value, bool):
        raise ProfileError(source, _path(name, "override"), f"is {type_of(value)}; allowed: true, false")
    return value


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
