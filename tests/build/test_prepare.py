"""`prepare.py` as the build calls it: its answer on standard output, its errors in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PREPARE = Path(__file__).parents[2] / "native" / "boringssl" / "prepare.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_of(PREPARE, *arguments, **environment)


def run_of(prepare: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(prepare), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def without_patches(root: Path) -> Path:
    """A copy of prepare.py and what it needs, for checkouts that are too small for our patches to fit."""
    shutil.copytree(PREPARE.parent, root, ignore=shutil.ignore_patterns("*.patch", "__pycache__"))
    return root / PREPARE.name


def make_checkout(root: Path) -> Path:
    for directory in ("crypto", "gen", "include", "ssl", "third_party/fiat"):
        (root / directory).mkdir(parents=True)
        (root / directory / "file.h").touch()
    return root


def test_finds_what_the_build_made() -> None:
    """The library that this very checkout was built with comes from the cache, silently."""
    done = run()
    assert done.returncode == 0, done.stderr
    library = Path(done.stdout.removesuffix("\n"))
    assert (library / "lib" / "libssl.a").is_file()
    assert (library / "include" / "openssl" / "ssl.h").is_file()
    # BoringSSL's own tests can be built from what is kept.
    assert (library / "source" / "ssl" / "ssl_test.cc").is_file()
    assert done.stderr == ""


def test_takes_a_named_checkout(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    done = run_of(
        without_patches(tmp_path / "boringssl"),
        "--source-only",
        POLYTLS_BORINGSSL_SOURCE=str(checkout),
        POLYTLS_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "ssl" / "file.h").is_file()
    assert Path(done.stdout.strip()).parent == tmp_path / "cache"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CXX": "/nowhere/c++"}, "The C++ compiler /nowhere/c++ was not found; install one"),
        ({"POLYTLS_BORINGSSL_SOURCE": "/nowhere"}, "/nowhere is no BoringSSL source"),
        ({"POLYTLS_CACHE_DIR": "/dev/null/cache"}, "The build cache /dev/null/cache cannot be written"),
    ],
)
def test_a_failure_is_one_sentence(environment: dict[str, str], message: str) -> None:
    done = run(**environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"polytls: error: {message}")


def test_says_where_the_network_is_missing(tmp_path: Path) -> None:
    done = run(POLYTLS_CACHE_DIR=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("polytls: error: grpcio-")
    assert "could not be downloaded from the Python package index" in done.stderr


def test_a_compiler_that_cannot_compile_is_told(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(
        '#!/bin/sh\ncase "$1" in --version|-dumpmachine) echo 1;; *) exit 1;; esac\n', encoding="utf-8"
    )
    compiler.chmod(0o755)
    checkout = make_checkout(tmp_path / "checkout")
    done = run_of(
        without_patches(tmp_path / "boringssl"),
        CC=str(compiler),
        CXX=str(compiler),
        POLYTLS_BORINGSSL_SOURCE=str(checkout),
        POLYTLS_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 1
    assert "polytls: error: BoringSSL could not be compiled" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "cache").glob("boringssl-*"))
