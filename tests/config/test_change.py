"""What a reload cannot take, key by key."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from polytls.config.change import changed_keys, require_takeable
from polytls.config.load import layer_settings
from polytls.errors import UserError
from polytls.settings import Settings

OTHER: dict[str, object] = {
    "proxy.listen.address": "127.0.0.1:9",
    "proxy.listen.backlog": 7,
    "proxy.timeouts.head": 7,
    "proxy.timeouts.connect": 7,
    "proxy.certificate.ca_key_path": "x",
    "proxy.certificate.root_key": "ecdsa",
    "proxy.certificate.leaf_days": 7,
    "proxy.mitm.enabled": False,
    "proxy.upstream.ca_file": "x.pem",
    "engine.threads": 2,
    "engine.workers": 2,
    "log.format": "json",
    "log.fingerprint": True,
    "telemetry.endpoint": "http://127.0.0.1:4318",
    "telemetry.sampling": 0.5,
    "profiles.directory": "x",
}
RESTART = ("proxy.listen.", "proxy.timeouts.head", "engine.", "log.format", "telemetry.")
ROOT = ("proxy.certificate.ca_", "proxy.certificate.root_key")


def settings_with(**values: object) -> Settings:
    return layer_settings({}, "test", {}, values).settings


@pytest.mark.parametrize("root_loaded", [True, False])
@pytest.mark.parametrize("path", OTHER)
def test_which_keys_need_a_restart(path: str, root_loaded: bool) -> None:
    before, now = Settings(), settings_with(**{path: OTHER[path]})
    assert changed_keys(before, now) == [path]
    if path.startswith(RESTART) or (root_loaded and path.startswith(ROOT)):
        with pytest.raises(UserError, match=f"a restart is needed to change {path}"):
            require_takeable(before, now, root_loaded=root_loaded, most_tunnels=20_000)
    else:
        require_takeable(before, now, root_loaded=root_loaded, most_tunnels=20_000)


def test_all_of_them_are_named() -> None:
    now = settings_with(**{path: OTHER[path] for path in ("log.format", "engine.threads")})
    with pytest.raises(UserError, match=r"change engine\.threads, log\.format"):
        require_takeable(Settings(), now, root_loaded=True, most_tunnels=20_000)


def test_tunnels_up_to_what_it_was_started_for() -> None:
    before = settings_with(**{"proxy.limits.tunnels": 5})
    for tunnels in (1, 6, 10):
        now = settings_with(**{"proxy.limits.tunnels": tunnels})
        require_takeable(before, now, root_loaded=True, most_tunnels=10)
    now = settings_with(**{"proxy.limits.tunnels": 11})
    with pytest.raises(UserError, match=r"proxy\.limits\.tunnels \(above 10, which it was started with\)"):
        require_takeable(before, now, root_loaded=True, most_tunnels=10)


def test_every_section_is_looked_at() -> None:
    """A setting that no key leads to would change unnoticed."""
    sections = {field.name for field in fields(Settings)} - {"profile_tables", "source"}
    from polytls.config.schema import KEYS

    for section in sections:
        inside = {field.name for field in fields(getattr(Settings(), section))}
        assert inside == {key.field.split(".")[1] for key in KEYS if key.field.startswith(f"{section}.")}


def test_where_a_value_came_from_is_no_change() -> None:
    settings = replace(Settings(), source=str(Path("elsewhere.toml")))
    assert changed_keys(Settings(), settings) == []
