"""The three sources: files that are not right, unknown keys, misspelt variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.config.layers import (
    MAX_DEPTH,
    MAX_FILE_BYTES,
    from_env,
    from_overrides,
    from_table,
    parse_toml,
    read_file,
)
from polytls.config.schema import KEYS
from polytls.errors import ConfigError


@pytest.mark.parametrize(
    "name", ["polytls.yaml", "polytls.yml", "polytls.json", "polytls", "polytls.toml.bak"]
)
def test_only_toml_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="the configuration is TOML only"):
        read_file(path)


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(tmp_path / "none.toml")
    assert str(caught.value).startswith(
        f"{tmp_path / 'none.toml'}: cannot be read (No such file or directory)"
    )
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(Path("a\0b.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "folder.toml")


@pytest.mark.parametrize(
    ("size", "fits"), [(MAX_FILE_BYTES - 1, True), (MAX_FILE_BYTES, True), (MAX_FILE_BYTES + 1, False)]
)
def test_file_size(tmp_path: Path, size: int, fits: bool) -> None:
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * size)
    if fits:
        assert read_file(path) == {}
    else:
        with pytest.raises(ConfigError, match="is larger than"):
            read_file(path)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a = 1\nb = \n", r"is not valid TOML: .*\(at line 2, column 5\)"),
        (b"a = 1\na = 2\n", r"is not valid TOML: .*line 2"),
        (b"a = 1\n\xff", r"is not UTF-8 \(at line 2\)"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a." * MAX_DEPTH + b"a = 1", "nested too deeply"),
        (b"a." * 2_000 + b"a = 1", "nested too deeply"),
        (b"a = " + b"1" * 5_000, "is not valid TOML"),
    ],
    ids=["syntax", "twice", "encoding", "depth", "tables", "dots", "digits"],
)
def test_what_is_not_toml(raw: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        parse_toml(raw, "f.toml")
    assert caught.value.source == "f.toml"


@given(st.one_of(st.binary(max_size=64), st.text(alphabet="[]{}=.\"'#\n a1-:", max_size=40).map(str.encode)))
def test_any_bytes_give_a_table_or_a_config_error(raw: bytes) -> None:
    try:
        parse_toml(raw, "f.toml")
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            {"proxi": {}},
            (
                'f.toml: proxi: unknown key (did you mean "proxy"?); '
                "allowed: proxy, engine, log, telemetry, profiles"
            ),
        ),
        (
            {"proxy": {"listener": {}}},
            'f.toml: proxy.listener: unknown key (did you mean "listen"?); allowed: mode, ',
        ),
        (
            {"proxy": {"listen": {"adress": 1}}},
            'proxy.listen.adress: unknown key (did you mean "address"?); allowed: ',
        ),
        (
            {"proxy": {"address": 1}},
            "proxy.address: unknown key (did you mean proxy.listen.address?); allowed: mode,",
        ),
        ({"threads": 1}, "threads: unknown key (did you mean engine.threads?); allowed: proxy, engine,"),
        ({"resolve": 1}, "(did you mean proxy.upstream.resolve or proxy.timeouts.resolve?)"),
        ({"proxy": 5}, "f.toml: proxy: is an integer; allowed: a table [proxy]"),
        ({"proxy": {"listen": []}}, "f.toml: proxy.listen: is an array; allowed: a table [proxy.listen]"),
        ({"proxy.mode": "explicit"}, 'f.toml: "proxy.mode": unknown key'),
        ({"proxy": {"listen.backlog": 5}}, 'f.toml: proxy."listen.backlog": unknown key'),
        ({"a\x1b\n": 1}, 'f.toml: "a\\u001b\\n": unknown key'),
    ],
)
def test_unknown_keys(table: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(from_table(table, "f.toml"))
    assert sentence in str(caught.value)


def test_a_secret_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        list(from_table({"proxy": {"certificate": {"ca_key_passphrase": "hunter2"}}}, "f.toml"))
    assert "ca_key_passphrase_env" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_has_its_variable(key: object) -> None:
    assert isinstance(key, type(KEYS[0]))
    (given_value,) = from_env({key.env: "x"})
    assert given_value.key is key
    assert given_value.source == f"environment variable {key.env}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("POLYTLS_PROXY__LISTEN__ADRESS", "(did you mean POLYTLS_PROXY__LISTEN__ADDRESS?)"),
        ("POLYTLS_PROXY_LISTEN_ADDRESS", "(did you mean POLYTLS_PROXY__LISTEN__ADDRESS?)"),
        ("POLYTLS_LOG_FORMAT", "(did you mean POLYTLS_LOG__FORMAT?)"),
        ("POLYTLS_PROXY", "allowed: POLYTLS_ and a key path"),
        ("POLYTLS_ENGINE__SPEED", "allowed: POLYTLS_ and a key path"),
        ("POLYTLS_PROFILES__DIR", "but for POLYTLS_PROFILES__DIRECTORY"),
        ("POLYTLS_PROFILES__CHROME__GREASE", "write them in the configuration file"),
    ],
)
def test_a_misspelt_variable(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(from_env({name: "x"}))
    assert str(caught.value).startswith(f"environment variable {name}: ")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "POLYTLS_BORINGSSL_SOURCE",
        "POLYTLS_CACHE_DIR",
        "POLYTLS_REQUIRE_TOOLS",
        "PATH",
        "XPOLYTLS_PROXY__MODE",
    ],
)
def test_other_variables_are_left_alone(name: str) -> None:
    assert list(from_env({name: "x"})) == []


def test_an_empty_variable_is_not_set() -> None:
    assert list(from_env({"POLYTLS_PROXY__UPSTREAM__CA_FILE": ""})) == []


def test_an_unknown_override() -> None:
    with pytest.raises(ConfigError, match=r"command line: proxy\.listen\.adress: unknown key"):
        list(from_overrides({"proxy.listen.adress": "x"}))
