"""The cache of built libraries, and the compilation that fills it.

Theory of operation
-------------------
The cache lies outside the work tree, so that a clean clone, a second virtual environment and an
isolated wheel build all find what was compiled once. An entry is a directory whose name ends in a hash
of everything that its contents depend on; it is made under a temporary name and renamed into place, so
an entry that exists is whole. A lock file per entry keeps two builds from compiling the same thing
twice: the second one waits and finds the entry. Entries are never changed; deleting any is harmless.

    downloads/<archive>          the archive as it came, checked each time it is used
    source-<key>/                the source with the patches applied
    boringssl-<key>/lib, include the libraries; `source` links to the tree they were compiled from
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.errors import ProvisionError
from provision.toolchain import FLAG_VARIABLES, Toolchain

CACHE_VARIABLE = "POLYTLS_CACHE_DIR"
SANITIZERS = ("", "address,undefined", "thread", "fuzzer-no-link,address,undefined")

_BUILD_TYPE = "Release"
# Long enough never to collide, short enough for a path.
_KEY_HEX_DIGITS = 20
# Where the output is no terminal, one line in so many of the compiler's progress is shown.
_PROGRESS_EVERY = 25


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of finished entries; made on first use."""

    root: Path

    def entry(self, name: str, make: Callable[[Path], None]) -> Path:
        """The entry `name`, made by `make(empty directory)` if it is not there yet."""
        final = self.root / name
        if final.is_dir():
            return final
        with self._lock(name):
            if final.is_dir():  # another build made it while this one waited
                return final
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.root))
            try:
                make(temporary)
                temporary.chmod(0o755)  # mkdtemp's 0700 would keep a shared cache from being shared
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return final

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / f".{name}.lock").open("wb")
        except OSError as error:
            raise ProvisionError(
                f"The build cache {self.root} cannot be written ({error.strerror}); "
                f"set {CACHE_VARIABLE} to a directory that can."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"waiting for another build of {name} in {self.root}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def cache_directory(environment: Mapping[str, str]) -> Path:
    """POLYTLS_CACHE_DIR, else polytls/ in the user's cache directory (XDG base directory rules)."""
    if named := environment.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    base = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # "All paths set in these environment variables must be absolute": a relative one is ignored.
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "polytls"


def key_of(facts: object) -> str:
    """A short hash of JSON-able facts."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_HEX_DIGITS]


def library_facts(
    source: Path, build_files: Path, toolchain: Toolchain, sanitize: str, environment: Mapping[str, str]
) -> dict[str, object]:
    """Everything that decides what the libraries will be."""
    lists = (build_files / "CMakeLists.txt").read_bytes()
    return {
        "source": source.name,
        "lists": hashlib.sha256(lists).hexdigest(),
        "compilers": toolchain.identity(),
        "flags": {name: environment[name] for name in FLAG_VARIABLES if environment.get(name)},
        "sanitize": sanitize,
        "build_type": _BUILD_TYPE,
    }


def compile_libraries(
    source: Path, build_files: Path, toolchain: Toolchain, sanitize: str, destination: Path
) -> None:
    """Compiles libcrypto.a and libssl.a and lays them out with the headers in `destination`."""
    variant = f" with -fsanitize={sanitize}" if sanitize else ""
    report(f"compiling BoringSSL{variant}; this takes about a minute, once")
    build = destination / "build"
    configure = [
        *(toolchain.cmake, "-S", str(build_files), "-B", str(build), "-G", "Ninja", "--log-level=NOTICE"),
        f"-DCMAKE_MAKE_PROGRAM={toolchain.ninja}",
        f"-DCMAKE_C_COMPILER={';'.join(toolchain.cc)}",
        f"-DCMAKE_CXX_COMPILER={';'.join(toolchain.cxx)}",
        f"-DCMAKE_BUILD_TYPE={_BUILD_TYPE}",
        f"-DBORINGSSL_SOURCE_DIR={source}",
        f"-DPOLYTLS_SANITIZE={sanitize}",
    ]
    _run(configure)
    _run([toolchain.cmake, "--build", str(build)])
    (destination / "lib").mkdir()
    for name in ("libssl.a", "libcrypto.a"):
        shutil.move(build / name, destination / "lib" / name)
    shutil.copytree(source / "include", destination / "include")
    (destination / "source").symlink_to(Path("..", source.name))
    shutil.rmtree(build)


def report(message: str) -> None:
    """One line of progress, on standard error and at once."""
    print(f"polytls: {message}", file=sys.stderr, flush=True)


def _run(command: list[str]) -> None:
    environment = {**os.environ, "NINJA_STATUS": "[%f/%t] "}
    # The compilers are named by the command; CMake must not think about these as well.
    environment.pop("CC", None)
    environment.pop("CXX", None)
    status = _run_shown(command, environment) if sys.stderr.isatty() else _run_thinned(command, environment)
    if status:
        raise ProvisionError(
            f"BoringSSL could not be compiled (the first failing command is above, exit status {status} from "
            f"{shlex.join(command[:2])}); a C11 and C++17 compiler is needed, GCC 9 or Clang 10 or newer."
        )


def _run_shown(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode


def _run_thinned(command: list[str], environment: dict[str, str]) -> int:
    """Runs the command and passes on what it says, but only some of its `[n/m]` lines."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        steps = 0
        for line in process.stdout:
            steps += line.startswith("[")
            if not line.startswith("[") or steps % _PROGRESS_EVERY == 0:
                print(line, end="", file=sys.stderr, flush=True)
    return process.returncode
