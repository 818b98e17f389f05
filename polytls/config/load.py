"""Layers of settings -> one `Settings`, and where each value came from.

Defaults, then the file, then the environment, then the command line, then the standard OTEL_* variables for
the few keys that they name: a later layer replaces what an earlier one set, except for tables
(`proxy.upstream.resolve`), to which it adds entry by entry. Every value of every layer is checked, also one
that is replaced: a mistake does not wait until the layer above it is gone. What ties two settings together is
checked last, on the outcome.

The result is `Settings` or `ConfigError`, whatever the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from polytls.config.layers import Given, from_env, from_overrides, from_table, profile_tables, read_file
from polytls.config.otel import otel_values
from polytls.config.schema import BY_PATH, KEYS, PROFILES_TABLE
from polytls.errors import ConfigError
from polytls.profiles.wording import WrongValueError
from polytls.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULTS = "defaults"
"""The origin of a value that no layer sets."""

_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings and, for each key path of the schema (and ``profiles``), what set it last: ``defaults``,
    the file, ``environment variable NAME`` or ``option --NAME``. A table that several layers added to
    names them all, joined by commas."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]
) -> LoadedSettings:
    """Read `path` (None: no file), then `env` and `overrides` on top of it.

    `overrides` maps key paths (``proxy.listen.address``) to texts, TOML values, or lists of texts for
    repeatable options. Raises `ConfigError` (`ProfileError` for the shape of ``[profiles]``) with
    source, key path and what is allowed. What the profile tables mean is not looked into.
    """
    table = {} if path is None else read_file(path)
    return layer_settings(table, DEFAULTS if path is None else str(path), env, overrides)


def layer_settings(
    table: Mapping[str, object],
    source: str,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> LoadedSettings:
    """As `load_settings`, for a file that is parsed already; `source` is its name. Pure."""
    profiles = profile_tables(table, source)
    values = {key.path: key.default for key in KEYS}
    origins = dict.fromkeys(values, DEFAULTS)
    standard = (Given(*given) for given in otel_values(env or {}))
    for layer in (from_table(table, source), from_env(env or {}), from_overrides(overrides or {}), standard):
        for given in layer:
            _apply(given, values, origins)
    origins[PROFILES_TABLE] = source if profiles else DEFAULTS
    settings = replace(_built(values), profile_tables=profiles, source=source)
    _check_together(settings, origins)
    return LoadedSettings(settings, origins)


def _apply(given: Given, values: dict[str, object], origins: dict[str, str]) -> None:
    path = given.key.path
    try:
        value = given.key.kind.parse(given.value)
    except WrongValueError as problem:
        raise ConfigError(given.source, path, str(problem)) from None
    before: Any = values[path]
    if given.key.kind.merges and before:
        merged: Any = value
        values[path] = tuple({**dict(before), **dict(merged)}.items())
        origins[path] = f"{origins[path]}, {given.source}"
    else:
        values[path] = value
        origins[path] = given.source


def _built(values: Mapping[str, object]) -> Settings:
    sections: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        field = BY_PATH[path].field
        if field:
            section, name = field.split(".")
            sections.setdefault(section, {})[name] = value
    settings: Any = Settings()
    parts = {name: replace(getattr(settings, name), **fields) for name, fields in sections.items()}
    built: Settings = replace(settings, **parts)
    return built


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    certificate = settings.certificate
    if certificate.ca_key_passphrase_env is not None and certificate.ca_key_passphrase_file is not None:
        path = "proxy.certificate.ca_key_passphrase_file"
        problem = "is set together with ca_key_passphrase_env; allowed: one of the two"
        raise ConfigError(origins[path], path, problem)
    if certificate.cache_ttl > certificate.leaf_days * _DAY_SECONDS:
        path = "proxy.certificate.cache_ttl"
        problem = (
            f"cache_ttl ({certificate.cache_ttl:g} s) outlives leaf_days ({certificate.leaf_days} d); "
            f"allowed: at most leaf_days x {_DAY_SECONDS} s"
        )
        raise ConfigError(origins[path], path, problem)
