"""Provides BoringSSL's static libraries and prints the directory they are in.

Theory of operation
-------------------
Run by `native/CMakeLists.txt` while it configures, and by `make build` before anything else, so that
the one long step is visible; whoever comes second finds the cached result in milliseconds. Standard
output is the directory (`lib/`, `include/`, `source/`) and nothing else; progress and errors go to
standard error. A failure is one sentence and exit status 1.

Steps, each skipped where the cache has its result: download and verify, unpack, apply patches, compile.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from provision import source as sources
from provision.errors import ProvisionError
from provision.library import (
    SANITIZERS,
    Cache,
    cache_directory,
    compile_libraries,
    key_of,
    library_facts,
    report,
)
from provision.patch import apply_patches, ordered_patches
from provision.toolchain import find_toolchain, require_supported_platform

_HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _options(arguments)
    try:
        require_supported_platform()
        cache = Cache(cache_directory(os.environ))
        # The compiler is looked for first: it is what a fresh machine most often lacks.
        toolchain = find_toolchain(cc=options.cc, cxx=options.cxx, cmake=options.cmake, ninja=options.ninja)
        source = provide_source(cache, _HERE, os.environ.get(sources.SOURCE_VARIABLE))
        if options.source_only:
            print(source)
            return 0
        facts = library_facts(source, _HERE, toolchain, options.sanitize, os.environ)
        library = cache.entry(
            f"boringssl-{key_of(facts)}",
            lambda empty: compile_libraries(source, _HERE, toolchain, options.sanitize, empty),
        )
    except ProvisionError as error:
        report(f"error: {error}")
        return 1
    print(library)
    return 0


def provide_source(cache: Cache, build_files: Path, checkout: str | None) -> Path:
    """The patched source tree: of the named checkout, else of the pinned source distribution."""
    patches = ordered_patches(build_files / "patches")
    pin = sources.read_pin(build_files / "requirements.txt")
    checkout_path = Path(checkout).expanduser().absolute() if checkout else None
    origin = sources.checkout_identity(checkout_path) if checkout_path else pin.sha256

    def make(empty: Path) -> None:
        if checkout_path:
            report(f"taking BoringSSL from {checkout_path}")
            sources.copy_checkout(checkout_path, empty)
        else:
            sources.unpack(_archive(cache, pin, build_files), empty)
        apply_patches(patches, empty)

    facts = {"origin": origin, "patches": [(path.name, path.read_text("utf-8")) for path in patches]}
    return cache.entry(f"source-{key_of(facts)}", make)


def _archive(cache: Cache, pin: sources.Pin, build_files: Path) -> Path:
    """The verified archive, downloaded unless the cache has it."""

    def make(empty: Path) -> None:
        report(f"downloading BoringSSL's source, {pin.archive}")
        sources.download(pin, empty, build_files / "inert_backend")

    archive = cache.entry(f"download-{pin.sha256[:20]}", make) / pin.archive
    sources.verify(archive, pin.sha256)
    return archive


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sanitize", choices=SANITIZERS, default="", help="build with these sanitizers")
    parser.add_argument("--source-only", action="store_true", help="stop at the patched source and print it")
    parser.add_argument("--cc", help="the C compiler (default: CC, else cc, gcc or clang)")
    parser.add_argument("--cxx", help="the C++ compiler (default: CXX, else c++, g++ or clang++)")
    parser.add_argument("--cmake", help="the CMake to use (default: beside this Python, else on PATH)")
    parser.add_argument("--ninja", help="the Ninja to use (default: beside this Python, else on PATH)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
