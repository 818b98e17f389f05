"""`make`: its list of targets, and what it says on a machine where something is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # `make test` is what runs this test; its own flags must not reach the inner one.
    return subprocess.run(
        [
            "env",
            "-u",
            "MAKEFLAGS",
            "-u",
            "MFLAGS",
            "-u",
            "MAKELEVEL",
            "make",
            "--no-print-directory",
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_lists_its_targets() -> None:
    listed = [line.split()[0] for line in make().stdout.splitlines()]
    assert {"build", "run", "test", "demo", "check", "native-test", "clean"} <= set(listed)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "does not run; install Python 3.10 or newer"),
        ('case "$2" in *version_info*) exit 1;; esac', "is older than 3.10"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "cannot make virtual environments"),
    ],
)
def test_says_which_python_is_needed(tmp_path: Path, script: str | None, message: str) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)
    done = make("tools", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"polytls: error: {python} {message}" in done.stderr


def test_says_when_there_is_no_compiler(tmp_path: Path) -> None:
    done = make("tools", "CXX=/nowhere/c++")
    assert done.returncode != 0
    assert "polytls: error: no C++ compiler was found" in done.stderr


def test_says_what_fuzzing_needs() -> None:
    done = make("fuzz-build", "FUZZ_CXX=/nowhere/clang++")
    assert done.returncode != 0
    assert "polytls: error: /nowhere/clang++ cannot build with libFuzzer; install Clang" in done.stderr


def test_says_when_there_is_no_valgrind() -> None:
    done = make("valgrind", "VALGRIND=/nowhere/valgrind")
    assert done.returncode != 0
    assert "polytls: error: valgrind was not found" in done.stderr
