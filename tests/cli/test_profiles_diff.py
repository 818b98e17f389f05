"""`polytls profiles diff`: names, files and captures on either side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polytls.cli import main
from polytls.profiles.catalog import builtin_table
from tests.capture.hellos import CHROME, GOLDENS, OPENSSL, REPOSITORY

Capsys = pytest.CaptureFixture[str]
GOLDEN = str(GOLDENS / "chrome-131.json")


@pytest.mark.parametrize(
    ("a", "b"), [("chrome-131", GOLDEN), (GOLDEN, "CHROME-131"), ("chrome", "chrome"), ("default", "default")]
)
def test_the_same(a: str, b: str, capsys: Capsys) -> None:
    assert main(["profiles", "diff", a, b]) == 0
    assert capsys.readouterr().out.endswith("\nno difference\n")


def test_a_built_ins_own_file_is_the_built_in(capsys: Capsys) -> None:
    path = REPOSITORY / "polytls" / "profiles" / "builtin" / "chrome-131.toml"
    assert builtin_table("chrome-131")
    assert main(["profiles", "diff", str(path), "chrome-131"]) == 0
    assert "no difference" in capsys.readouterr().out


def test_what_differs_is_side_by_side_and_the_exit_code(capsys: Capsys) -> None:
    assert main(["profiles", "diff", "chrome-131", "curl"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["chrome-131", "curl"]
    assert "cipher suites" in lines
    assert "legacy version" not in lines
    assert main(["profiles", "diff", "chrome-131", "curl", "--all"]) == 1
    assert "legacy version" in capsys.readouterr().out.splitlines()


def test_json(capsys: Capsys) -> None:
    assert main(["profiles", "diff", "chrome-131", "default", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    alpn = next(section for section in found["sections"] if "application_layer" in section["what"])
    assert alpn["rows"] == [
        {"a": "h2", "b": None, "same": False},
        {"a": "http/1.1", "b": "http/1.1", "same": True},
    ]


def test_profiles_of_a_configuration(tmp_path: Path, capsys: Capsys) -> None:
    config = tmp_path / "own.toml"
    config.write_text('[profiles.own]\nbase = "chrome-131"\n[profiles.two]\nbase = "own"\nalpn_protos = []\n')
    assert main(["profiles", "diff", "own", "chrome-131", "--config", str(config)]) == 0
    assert main(["profiles", "diff", "own", "two", "--config", str(config)]) == 1
    capsys.readouterr()
    assert main(["profiles", "diff", str(config), "chrome"]) == 2
    assert "has 2 profiles (own, two); give it by --config" in capsys.readouterr().err


def test_mistakes(tmp_path: Path, capsys: Capsys) -> None:
    many = tmp_path / "many.bin"
    many.write_bytes(CHROME[0] + OPENSSL[0])
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[profiles]\nx = 1\n")
    empty = tmp_path / "empty.toml"
    empty.write_text("profiles = 1\n")
    for a, says in (
        ("-", "can be one of A and B"),
        ("chrome-13", 'command line: A, B: "chrome-13": unknown profile (did you mean '),
        ("./chrome", "./chrome: there is no such file"),
        (str(many), "holds 2 clients, and one is needed"),
        (str(wrong), f"{wrong}: profiles.x: is an integer"),
        (str(empty), "has no profile in [profiles]"),
    ):
        assert main(["profiles", "diff", a, "-" if a == "-" else "chrome"]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
