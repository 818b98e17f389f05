"""`--profiles DIR` and `[profiles] directory`: on every verb that knows profiles, through a running proxy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polytls.cli import main
from polytls.config import load_settings
from tests.capture.hellos import GOLDENS
from tests.golden.known import problems
from tests.golden.recorder import HOST, Answer, Recorder
from tests.peers.certificates import Authority
from tests.peers.serve import Serve
from tests.peers.tools import run_curl

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "profiles"
    found.mkdir()
    (found / "lab.toml").write_text('base = "curl"\ndescription = "Ours"\naliases = ["lab-http1"]\n')
    return found


@pytest.fixture(params=["option", "file", "environment"])
def given(
    request: pytest.FixtureRequest, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The arguments that name the directory, in each way that there is."""
    if request.param == "option":
        return ["--profiles", str(directory)]
    if request.param == "environment":
        monkeypatch.setenv("POLYTLS_PROFILES__DIRECTORY", str(directory))
        return []
    monkeypatch.chdir(tmp_path)  # relative to where the program is started, not to the file
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "polytls.toml"
    config.write_text('[profiles]\ndirectory = "profiles"\n[profiles.office]\nbase = "lab"\n')
    return ["--config", str(config)]


def test_list_show_diff_verify_and_learn(given: list[str], tmp_path: Path, capsys: Capsys) -> None:
    assert main(["profiles", "list", *given]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lab", "lab-http1", "Ours"] in listed
    assert main(["profiles", "show", "LAB-HTTP1", *given]) == 0
    assert capsys.readouterr().out.startswith('[profiles.lab]\ndescription = "Ours"\n')
    assert main(["profiles", "diff", "lab", "curl", *given]) == 0
    own = tmp_path / "own.toml"
    own.write_text('base = "lab"\ngrease = true\n')
    assert main(["profiles", "diff", str(own), "lab", *given]) == 1
    assert main(["profiles", "verify", "lab", "--against", str(GOLDENS), *given]) == 0
    assert "lab  exact  (its own definition)\n" in capsys.readouterr().out
    source = str(GOLDENS / "curl-7.88.json")
    assert main(["profiles", "learn", source, "--name", "lab", *given]) == 0
    captured = capsys.readouterr()
    assert '# "lab" already names a profile of ' in captured.out


def test_a_directory_that_is_wrong_ends_every_verb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chrome.toml").touch()
    wrong = ["--profiles", str(tmp_path)]
    for verb in (
        ["profiles", "list"],
        ["profiles", "show", "firefox"],
        ["profiles", "diff", "chrome", "firefox"],
        ["profiles", "verify"],
        ["profiles", "learn", "x", "--name", "y"],
        ["serve", "--mode", "passthrough"],
    ):
        assert main([*verb, *wrong]) == 2
        said = capfd.readouterr().err
        assert f'{tmp_path / "chrome.toml"}: "chrome" already names a profile, the built-in' in said


def test_the_option_goes_over_the_file(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "polytls.toml"
    config.write_text('[profiles]\ndirectory = "elsewhere"\n')
    loaded = load_settings(config, {}, {"profiles.directory": str(directory)})
    assert loaded.settings.profiles.directory == directory
    assert loaded.settings.profile_tables == {}
    assert loaded.origins["profiles.directory"] == "option --profiles"
    assert load_settings(config, {}, {}).settings.profiles.directory == Path("elsewhere")
    assert load_settings(None, {}, {}).settings.profiles.directory is None


def test_the_running_proxy_has_them_by_header_and_by_default(directory: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(authority.pem))
    (directory / "firefox-155.toml").write_text('override = true\nbase = "java-17"\n')
    with (
        Recorder(Answer.FULL, authority.issue(HOST)) as recorder,
        Serve(tmp_path / "ca", *options, "--profiles", str(directory), "--profile", "lab") as proxy,
    ):
        for header, name in (((), "curl-7.88"), (("firefox",), "java-17"), (("chrome",), "chrome-152")):
            asked = [
                part for word in header for part in ("--proxy-header", f"X-PolyTLS-Upstream-Profile: {word}")
            ]
            before = len(recorder.connections)
            done = run_curl(proxy, *asked, "-o", os.devnull, f"https://{HOST}:{recorder.port}/")
            assert done.returncode == 0
            (hellos,) = recorder.connections[before:]
            assert problems(name, [hellos[0].parsed]) == [], name
