"""The cache of built libraries: keys, concurrency, and whole entries or none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from provision.errors import ProvisionError
from provision.library import Cache, cache_directory, key_of, library_facts
from provision.toolchain import Toolchain, find_toolchain, require_supported_platform

BORINGSSL = Path(__file__).parents[2] / "native" / "boringssl"


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_directory({}) == Path("/home/somebody/.cache/polytls")
    assert cache_directory({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/polytls")
    assert cache_directory({"XDG_CACHE_HOME": "relative"}) == Path("/home/somebody/.cache/polytls")
    assert cache_directory({"XDG_CACHE_HOME": "/xdg", "POLYTLS_CACHE_DIR": "~/mine"}) == Path(
        "/home/somebody/mine"
    )


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "not" / "yet")
    assert cache.entry("thing", lambda empty: (empty / "made").touch()) == cache.root / "thing"
    assert (cache.entry("thing", lambda _: pytest.fail("made twice")) / "made").is_file()


def test_a_failed_entry_leaves_nothing(tmp_path: Path) -> None:
    def fail(empty: Path) -> None:
        (empty / "half").touch()
        raise ProvisionError("it broke")

    cache = Cache(tmp_path)
    with pytest.raises(ProvisionError, match="it broke"):
        cache.entry("thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]
    cache.entry("thing", lambda _: None)


def test_concurrent_builds_make_an_entry_once(tmp_path: Path) -> None:
    builders = 8
    together, made = threading.Barrier(builders), []

    def make(empty: Path) -> None:
        made.append(empty)
        (empty / "whole").touch()

    def build() -> None:
        together.wait()
        assert (Cache(tmp_path).entry("thing", make) / "whole").is_file()

    threads = [threading.Thread(target=build) for _ in range(builders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_says_what_to_do_with_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProvisionError, match=r"cannot be written .* set POLYTLS_CACHE_DIR"):
        Cache(tmp_path / "file" / "cache").entry("thing", lambda _: None)


def compiler(path: Path, version: str) -> str:
    answer = f'case $1 in -dumpmachine) echo machine;; *) echo "$(basename "$0") ({version})";; esac'
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def key(
    tmp_path: Path, *, cxx: str = "c++", version: str = "12.2", sanitize: str = "", flags: str = ""
) -> str:
    toolchain = Toolchain(
        (compiler(tmp_path / "cc", "12.2"),), (compiler(tmp_path / cxx, version),), "cmake", "ninja"
    )
    environment = {"CXXFLAGS": flags, "UNRELATED": flags}
    return key_of(library_facts(Path("source-1"), BORINGSSL, toolchain, sanitize, environment))


def test_the_key_depends_on_what_decides_the_result(tmp_path: Path) -> None:
    keys = {
        key(tmp_path),
        key(tmp_path, version="13.1"),
        key(tmp_path, sanitize="thread"),
        key(tmp_path, flags="-march=native"),
    }
    assert len(keys) == 4
    assert key(tmp_path, cxx="g++") == key(tmp_path), "one compiler under two names"


def test_a_named_compiler_may_have_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = compiler(tmp_path / "ccache", "1")
    monkeypatch.setenv("CXX", f"{wrapper} g++ -m64")
    assert find_toolchain().cxx == (wrapper, "g++", "-m64")


@pytest.mark.parametrize(("variable", "language"), [("CC", "C"), ("CXX", r"C\+\+")])
def test_names_a_compiler_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, variable: str, language: str
) -> None:
    monkeypatch.setenv(variable, "/nowhere/compiler")
    with pytest.raises(
        ProvisionError, match=rf"The {language} compiler /nowhere/compiler was not found; install"
    ):
        find_toolchain()


def test_names_a_compiler_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "c++").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (tmp_path / "c++").chmod(0o755)
    broken = Toolchain((str(tmp_path / "c++"),), (str(tmp_path / "c++"),), "cmake", "ninja")
    with pytest.raises(ProvisionError, match="does not run; install one"):
        broken.identity()


@pytest.mark.parametrize(
    ("system", "machine"), [("Windows", "AMD64"), ("Linux", "riscv64"), ("FreeBSD", "x86_64")]
)
def test_refuses_an_unsupported_platform(system: str, machine: str) -> None:
    with pytest.raises(ProvisionError, match=f"cannot be built on {system} {machine}; use Linux"):
        require_supported_platform(system, machine)
