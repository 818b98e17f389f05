"""Which compiler, CMake and build tool are used, and the words that tell one compiler from another."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from provision.errors import ProvisionError

SUPPORTED_SYSTEMS = ("Linux",)  # the engine needs epoll and eventfd
SUPPORTED_MACHINES = ("x86_64", "aarch64", "arm64")

# What CMake and the compilers read from the environment and what therefore changes the result.
FLAG_VARIABLES = ("CFLAGS", "CXXFLAGS", "ASMFLAGS", "CPPFLAGS", "ARCHFLAGS", "MACOSX_DEPLOYMENT_TARGET")

_C_NAMES = ("cc", "gcc", "clang")
_CXX_NAMES = ("c++", "g++", "clang++")
_NEEDS_COMPILER = (
    "install one (Debian, Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`) "
    "or name it in CC and CXX"
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The tools of one build. `cc` and `cxx` are commands, which may have arguments (`ccache g++`)."""

    cc: tuple[str, ...]
    cxx: tuple[str, ...]
    cmake: str
    ninja: str

    def identity(self) -> tuple[str, ...]:
        """What the compilers say of their version and target; equal words build equal libraries."""
        words = []
        for command in (self.cc, self.cxx):
            # GCC begins with the name it was called by; `cc` and `gcc` are one compiler all the same.
            version = _output_of(command, "--version").removeprefix(Path(command[-1]).name).strip()
            words += [version, _output_of(command, "-dumpmachine")]
        return tuple(words)


def require_supported_platform(system: str | None = None, machine: str | None = None) -> None:
    """Raises ProvisionError where BoringSSL's assembly has no build for this machine."""
    system = system or platform.system()
    machine = machine or platform.machine()
    if system not in SUPPORTED_SYSTEMS or machine not in SUPPORTED_MACHINES:
        raise ProvisionError(
            f"PolyTLS cannot be built on {system} {machine}; "
            "use Linux on x86_64 or 64-bit ARM (a container will do)."
        )


def find_toolchain(
    *, cc: str | None = None, cxx: str | None = None, cmake: str | None = None, ninja: str | None = None
) -> Toolchain:
    """The named tools, else CC and CXX, else the usual names. Raises ProvisionError for a missing one."""
    return Toolchain(
        cc=_compiler("C", cc or os.environ.get("CC"), _C_NAMES),
        cxx=_compiler("C++", cxx or os.environ.get("CXX"), _CXX_NAMES),
        cmake=_tool("cmake", cmake),
        ninja=_tool("ninja", ninja),
    )


def _compiler(language: str, named: str | None, names: tuple[str, ...]) -> tuple[str, ...]:
    if named:
        command = tuple(shlex.split(named))
        found = shutil.which(command[0]) if command else None
        if found is None:
            raise ProvisionError(f"The {language} compiler {named} was not found; {_NEEDS_COMPILER}.")
        return (found, *command[1:])
    for name in names:
        if found := shutil.which(name):
            return (found,)
    raise ProvisionError(f"No {language} compiler was found; {_NEEDS_COMPILER}.")


def _tool(name: str, named: str | None) -> str:
    """The named tool, else the one installed beside this interpreter, else the one on PATH."""
    beside = Path(sys.executable).parent / name
    found = named or shutil.which(str(beside)) or shutil.which(name)
    if not found:
        raise ProvisionError(
            f"{name} was not found; install it with `{sys.executable} -m pip install {name}`."
        )
    return found


def _output_of(command: tuple[str, ...], argument: str) -> str:
    try:
        done = subprocess.run([*command, argument], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProvisionError(
            f"The compiler {shlex.join(command)} does not run; {_NEEDS_COMPILER}."
        ) from error
    return done.stdout.strip()
