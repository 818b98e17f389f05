"""`proxy.upstream.ech`: the forms a rule and its file may have, and what a mistake is answered with."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from polytls.config.ech import KEY, read_ech_rules
from polytls.config.load import layer_settings, load_settings
from polytls.errors import ConfigError
from polytls.settings import EchRule
from tests.peers.ech import EchKey

LIST = EchKey("public.test").config_list
TEXT = base64.b64encode(LIST).decode()
USELESS = base64.b64encode(bytes.fromhex("0006fe0a0002abcd")).decode()


def rules(value: object) -> tuple[EchRule, ...]:
    loaded = layer_settings({"proxy": {"upstream": {"ech": value}}}, "x.toml")
    assert loaded.origins[KEY] == "x.toml"
    return loaded.settings.upstream.ech or ()


def problem(value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        rules(value)
    assert str(caught.value).startswith(f"x.toml: {KEY}: ")
    return str(caught.value)


def test_none_by_default() -> None:
    assert load_settings(None, {}, {}).settings.upstream.ech is None


def test_rules() -> None:
    found = rules(
        [
            {"hosts": ["*.Example.com", "a.test"], "config_list": TEXT},
            {"hosts": ["b.test"], "file": "ech/b"},
        ]
    )
    assert found == (
        EchRule(("*.example.com", "a.test"), config_list=LIST),
        EchRule(("b.test",), file=Path("ech/b")),
    )


def test_as_an_array_of_tables(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'[[proxy.upstream.ech]]\nhosts = ["a.test"]\nconfig_list = "{TEXT}"\n')
    assert load_settings(file, {}, {}).settings.upstream.ech == (EchRule(("a.test",), config_list=LIST),)


def test_from_the_environment() -> None:
    env = {"POLYTLS_PROXY__UPSTREAM__ECH": f"*.a.test={TEXT},b.test=@ech/b"}
    assert load_settings(None, env, {}).settings.upstream.ech == (
        EchRule(("*.a.test",), config_list=LIST),
        EchRule(("b.test",), file=Path("ech/b")),
    )
    with pytest.raises(ConfigError, match="environment variable POLYTLS_PROXY__UPSTREAM__ECH"):
        load_settings(None, {"POLYTLS_PROXY__UPSTREAM__ECH": "a.test"}, {})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a.test", "allowed: a list of tables"),
        ({"hosts": ["a.test"]}, "allowed: a list of tables"),
        (["a.test"], "rule 1"),
        ([{"config_list": TEXT}], "has no hosts"),
        ([{"hosts": [], "config_list": TEXT}], "has no hosts"),
        ([{"hosts": "a.test", "config_list": TEXT}], "has no hosts"),
        ([{"hosts": [5], "config_list": TEXT}], "rule 1"),
        ([{"hosts": ["10.0.0.1"], "config_list": TEXT}], "10.0.0.1"),
        ([{"hosts": ["a.test"]}], "needs one of config_list and file"),
        ([{"hosts": ["a.test"], "config_list": TEXT, "file": "x"}], "needs one of config_list and file"),
        ([{"hosts": ["a.test"], "file": ""}], "rule 1"),
        ([{"hosts": ["a.test"], "config_list": "?"}], "is not base64"),
        ([{"hosts": ["a.test"], "config_list": "AAAA"}], "malformed"),
        ([{"hosts": ["a.test"], "config_list": USELESS}], "none of its ECH configs can be used"),
        ([{"hosts": ["a.test"], "config_list": TEXT}, {"hosts": ["a.test"], "configs": TEXT}], "rule 2"),
    ],
)
def test_mistakes(value: object, said: str) -> None:
    assert said in problem(value)


@pytest.mark.parametrize(
    "content",
    [
        LIST,
        TEXT.encode(),
        f"{TEXT[:20]}\n{TEXT[20:]}\n".encode(),
        f"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        f"-----BEGIN ECHCONFIG-----\n{TEXT}\n-----END ECHCONFIG-----\n".encode(),
    ],
    ids=["bytes", "base64", "lines", "PEM"],
)
def test_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "configs"
    file.write_bytes(content)
    found = read_ech_rules(
        [EchRule(("a.test",), file=file), EchRule(("b.test",), config_list=b"2")], "x.toml"
    )
    assert found.find("a.test") == LIST
    assert found.find("b.test") == b"2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "malformed"),
        (b"\xff\xfe", "is not base64"),
        (LIST[:-1], "is not base64"),
        (USELESS.encode(), "none of its ECH configs can be used"),
        (b"A" * (1 << 18), "not base64"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "configs"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_ech_rules([EchRule(("b.test",), config_list=b"2"), EchRule(("a.test",), file=file)], "x.toml")
    assert str(caught.value).startswith(f"x.toml: {KEY}[1].file: {file}")
    assert said in str(caught.value)
