"""Layers: which wins, where each value came from, and what is checked once they are together."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.config.load import DEFAULTS, LoadedSettings, layer_settings, load_settings
from polytls.config.schema import KEYS
from polytls.errors import ConfigError, ProfileError
from polytls.settings import Address, LogFormat, Mode, Settings, SniPolicy

BACKLOG = "proxy.listen.backlog"
BACKLOG_ENV = "POLYTLS_PROXY__LISTEN__BACKLOG"


def write(folder: Path, text: str, name: str = "polytls.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults() -> None:
    loaded = load_settings(None, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {DEFAULTS}
    assert set(loaded.origins) == {key.path for key in KEYS} | {"profiles"}


def test_the_example_of_the_specification(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [proxy]
        mode = "explicit"
        [proxy.mitm]
        enabled = false
        [proxy.listen]
        address = "[::1]:8081"
        backlog = 16
        [proxy.upstream]
        default_upstream = "Example.COM:443"
        default_profile = "Chrome"
        ca_file = "./upstream-ca.pem"
        insecure_skip_verify = true
        verify_hostname = false
        [proxy.certificate]
        ca_key_path = "./ca/private.key"
        ca_cert_path = "./ca/certificate.pem"
        cache_ttl = 60
        [profiles."chrome-143-macos-arm64"]
        permute_extensions = true
        """,
    )
    settings = load_settings(path, {}, {}).settings
    assert settings.mode is Mode.PASSTHROUGH
    assert settings.listen.address == Address("::1", 8081)
    assert settings.listen.backlog == 16
    assert settings.upstream.default_upstream == "example.com:443"
    assert settings.upstream.default_profile == "chrome"
    assert settings.upstream.ca_file == Path("upstream-ca.pem")
    assert settings.upstream.insecure_skip_verify
    assert not settings.upstream.verify_hostname
    assert settings.certificate == replace(Settings().certificate, cache_ttl=60.0)
    assert settings.profile_tables == {"chrome-143-macos-arm64": {"permute_extensions": True}}
    assert settings.source == str(path)


def test_a_later_layer_wins_and_the_origin_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "[proxy.listen]\nbacklog = 1\naddress = '127.0.0.1:1'\n[engine]\nthreads = 1")
    env = {BACKLOG_ENV: "2", "POLYTLS_ENGINE__THREADS": "2"}
    loaded = load_settings(path, env, {"engine.threads": "3", "log.format": "json"})
    assert loaded.settings.listen.address.port == 1
    assert loaded.settings.listen.backlog == 2
    assert loaded.settings.engine.threads == 3
    assert loaded.settings.log.format is LogFormat.JSON
    changed = {path: origin for path, origin in loaded.origins.items() if origin != DEFAULTS}
    assert changed == {
        "proxy.listen.address": str(path),
        BACKLOG: f"environment variable {BACKLOG_ENV}",
        "engine.threads": "option --threads",
        "log.format": "option --log-format",
    }


def test_a_value_that_is_overridden_is_checked_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"f\.toml: proxy\.listen\.backlog: got 0"):
        layer_settings({"proxy": {"listen": {"backlog": 0}}}, "f.toml", {BACKLOG_ENV: "2"})


def test_tables_add_up_entry_by_entry() -> None:
    table = {"proxy": {"upstream": {"resolve": {"A.test": "127.0.0.1", "*.b.test": "[::1]:44"}}}}
    env = {"POLYTLS_PROXY__UPSTREAM__RESOLVE": "c.test:::1,a.test:127.0.0.2"}
    loaded = layer_settings(table, "f.toml", env, {"proxy.upstream.resolve": ["d.test:1.2.3.4:5"]})
    assert loaded.settings.upstream.resolve == (
        ("a.test", "127.0.0.2"),
        ("*.b.test", "[::1]:44"),
        ("c.test", "::1"),
        ("d.test", "1.2.3.4:5"),
    )
    origin = loaded.origins["proxy.upstream.resolve"]
    assert origin == "f.toml, environment variable POLYTLS_PROXY__UPSTREAM__RESOLVE, option --resolve"


def test_overrides_take_texts_and_values() -> None:
    given_values: dict[str, object] = {
        "proxy.mitm.enabled": False,
        "proxy.mitm.sni": "require",
        "proxy.certificate.ca_key_path": Path("x") / "private.key",
        "proxy.upstream.insecure_skip_verify": "true",
        "proxy.timeouts.idle": "2.5",
    }
    settings = load_settings(None, {}, given_values).settings
    assert settings.mode is Mode.PASSTHROUGH
    assert settings.mitm.sni is SniPolicy.REQUIRE
    assert settings.certificate.ca_key_path == Path("x/private.key")
    assert settings.upstream.insecure_skip_verify
    assert settings.timeouts.idle == 2.5


def test_profile_tables_are_carried_unread() -> None:
    tables = {"X": {"whatever": [1]}}
    loaded = layer_settings({"profiles": tables}, "f.toml")
    assert loaded.settings.profile_tables == tables
    assert loaded.origins["profiles"] == "f.toml"


def test_the_directory_of_profiles_stands_among_them() -> None:
    loaded = layer_settings({"profiles": {"directory": "own", "lab": {"grease": True}}}, "f.toml")
    assert loaded.settings.profiles.directory == Path("own")
    assert loaded.settings.profile_tables == {"lab": {"grease": True}}
    assert loaded.origins["profiles.directory"] == loaded.origins["profiles"] == "f.toml"
    with pytest.raises(ConfigError, match=r"f\.toml: profiles\.directory: got a table; allowed: a path"):
        layer_settings({"profiles": {"directory": {"grease": True}}}, "f.toml")


@pytest.mark.parametrize(
    ("profiles", "sentence"),
    [
        ([], "f.toml: profiles: is an array; allowed: tables [profiles.NAME]"),
        ({"a.b": 1}, 'f.toml: profiles."a.b": is an integer; allowed: a table of knobs'),
    ],
)
def test_profiles_are_tables_of_tables(profiles: object, sentence: str) -> None:
    with pytest.raises(ProfileError) as caught:
        layer_settings({"profiles": profiles}, "f.toml")
    assert str(caught.value) == sentence


def test_one_passphrase_source() -> None:
    certificate = {"ca_key_passphrase_env": "A", "ca_key_passphrase_file": "b"}
    with pytest.raises(
        ConfigError, match="ca_key_passphrase_file: is set together with ca_key_passphrase_env"
    ):
        layer_settings({"proxy": {"certificate": certificate}}, "f.toml")


@pytest.mark.parametrize(("ttl", "fits"), [(86_399, True), (86_400, True), (86_401, False)])
def test_leaves_are_not_cached_longer_than_they_are_valid(ttl: int, fits: bool) -> None:
    table = {"proxy": {"certificate": {"leaf_days": 1, "cache_ttl": ttl}}}
    if fits:
        assert layer_settings(table, "f.toml").settings.certificate.cache_ttl == ttl
    else:
        with pytest.raises(ConfigError, match="outlives leaf_days"):
            layer_settings(table, "f.toml")


def test_every_field_of_the_settings_has_a_key() -> None:
    sections = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    leaves = [
        f"{section}.{field.name}"
        for section, value in sections.items()
        if is_dataclass(value)
        for field in fields(value)
    ]
    assert sorted(leaves) == sorted(key.field for key in KEYS if key.field)
    assert {name for name, value in sections.items() if not is_dataclass(value)} == {
        "profile_tables",
        "source",
    }


scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.datetimes(), st.dates(), st.times()
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
plausible = st.one_of(
    st.sampled_from(
        ("127.0.0.1:0", "[::1]:443", "a.test:1", "json", "require", "explicit", "true", "\udc80")
    ),
    st.integers(0, 500),
    st.dictionaries(
        st.sampled_from(("a.test", "*.b", "1.2.3.4", "")), st.sampled_from(("::1", "1.1.1.1:1", "x"))
    ),
)


def nested(path: str, value: object) -> dict[str, object]:
    for part in reversed(path.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


near_misses = st.builds(
    nested,
    st.sampled_from([key.path for key in KEYS] + ["proxy", "proxy.x", "profiles.x"]),
    st.one_of(plausible, values),
)
tables = st.one_of(
    near_misses, st.dictionaries(st.sampled_from(("proxy", "engine", "log", "profiles", "x")), values)
)
environments = st.dictionaries(
    st.one_of(
        st.sampled_from([key.env for key in KEYS]),
        st.text(max_size=8).map("POLYTLS_PROXY".__add__),
        st.text(max_size=8),
    ),
    st.one_of(st.text(max_size=12), st.sampled_from(("1", "true", "json", "a.test:::1"))),
    max_size=3,
)
overrides = st.dictionaries(
    st.one_of(st.sampled_from([key.path for key in KEYS]), st.text(max_size=8)),
    st.one_of(plausible, values),
    max_size=2,
)


@given(tables, environments, overrides)
def test_any_input_gives_settings_or_a_config_error(
    table: dict[str, object], env: dict[str, str], given_values: dict[str, object]
) -> None:
    loaded = _loaded(table, env, given_values)
    if isinstance(loaded, ConfigError):
        assert str(loaded).isprintable()
        return
    # Whatever was accepted is of the declared types, so it is a value like any other.
    assert type(loaded.settings.listen.backlog) is int
    assert type(loaded.settings.timeouts.idle) is float
    assert loaded.settings == replace(loaded.settings)
    assert set(loaded.origins) == {key.path for key in KEYS} | {"profiles"}


def _loaded(
    table: dict[str, object], env: dict[str, str], given_values: dict[str, object]
) -> LoadedSettings | ConfigError:
    try:
        return layer_settings(table, "f.toml", env, given_values)
    except ConfigError as error:
        return error
