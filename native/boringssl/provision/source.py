"""Where BoringSSL's source comes from: a pinned source distribution, or a checkout that is named.

Theory of operation
-------------------
`requirements.txt` beside this package is the only place that holds the name, version and SHA-256. The
archive is downloaded by pip, so that whatever index, proxy and certificates the person has set up
apply, and is checked twice: by pip before it looks inside, and here before anything is unpacked. The
package's own build scripts never run (`inert_backend`).

Only the directories that BoringSSL's libraries and its own `ssl_test` need are taken. Members that are
not plain files or that would leave the destination are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from provision.errors import ProvisionError

SOURCE_VARIABLE = "POLYTLS_BORINGSSL_SOURCE"

REQUIRED_DIRECTORIES = ("crypto", "gen", "include", "ssl", "third_party/fiat")
# For BoringSSL's own ssl_test; a checkout may lack it.
OPTIONAL_DIRECTORIES = ("third_party/googletest",)

# An index that cannot be reached should be told in seconds, not after pip's five growing pauses.
_PIP_RETRIES = 2

_PREFIX_IN_ARCHIVE = PurePosixPath("third_party/boringssl-with-bazel")
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$", re.M)
_INSTEAD = f"or name an existing BoringSSL checkout in {SOURCE_VARIABLE}"


@dataclass(frozen=True, slots=True)
class Pin:
    """One exact source distribution. `sha256` is the archive's, in lower-case hexadecimal."""

    name: str
    version: str
    sha256: str
    requirements: Path

    @property
    def archive(self) -> str:
        """The archive's file name on the index."""
        return f"{self.name}-{self.version}.tar.gz"


def read_pin(requirements: Path) -> Pin:
    """The one pinned requirement of the file. Raises ProvisionError unless there is exactly one."""
    found = list(_PIN.finditer(requirements.read_text(encoding="utf-8")))
    if len(found) != 1:
        raise ProvisionError(f"{requirements} must pin exactly one source distribution; restore it.")
    return Pin(found[0]["name"], found[0]["version"], found[0]["sha256"], requirements)


def download(pin: Pin, destination: Path, inert_backend: Path) -> Path:
    """Downloads the pinned archive into `destination` with pip, verified. Returns its path."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary", pin.name, "--require-hashes", "--no-build-isolation"),
        *("--progress-bar", "off", "--retries", str(_PIP_RETRIES)),
        *("--dest", str(destination), "--requirement", str(pin.requirements)),
    ]
    output = _run_pip(command, _pip_environment(inert_backend))
    archive = destination / pin.archive
    if not archive.is_file():
        raise _download_error(pin, output)
    verify(archive, pin.sha256)
    return archive


def verify(archive: Path, sha256: str) -> None:
    """Raises ProvisionError unless the file has that SHA-256."""
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ProvisionError(_wrong_checksum(archive.name))


def unpack(archive: Path, destination: Path) -> None:
    """Takes BoringSSL's directories and the licence out of the verified archive."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            inside = _wanted(PurePosixPath(member.name))
            if inside is None or member.isdir():
                continue
            file = tar.extractfile(member) if member.isreg() else None
            if file is None:
                raise ProvisionError(
                    f"{archive.name} holds {member.name}, which is no plain file; do not use it."
                )
            _write(destination / inside, file)
    _require_complete(destination, archive)


def copy_checkout(checkout: Path, destination: Path) -> None:
    """Copies BoringSSL's directories out of an existing checkout, which is left untouched."""
    _require_complete(checkout, checkout)
    for name in (*REQUIRED_DIRECTORIES, *OPTIONAL_DIRECTORIES):
        if (checkout / name).is_dir():
            shutil.copytree(checkout / name, destination / name)
    if (checkout / "LICENSE").is_file():
        shutil.copyfile(checkout / "LICENSE", destination / "LICENSE")


def checkout_identity(checkout: Path) -> str:
    """A SHA-256 over the names and contents of everything that `copy_checkout` would take."""
    _require_complete(checkout, checkout)
    digest = hashlib.sha256()
    for path in _files_of(checkout):
        digest.update(f"{path.relative_to(checkout).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files_of(checkout: Path) -> Iterator[Path]:
    for name in (*REQUIRED_DIRECTORIES, *OPTIONAL_DIRECTORIES):
        yield from sorted(path for path in (checkout / name).rglob("*") if path.is_file())


def _pip_environment(inert_backend: Path) -> dict[str, str]:
    environment = dict(os.environ)
    # A constraint without a hash, meant for something else, would make pip refuse --require-hashes.
    for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PIP_ONLY_BINARY"):
        environment.pop(name, None)
    paths = [str(inert_backend), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _run_pip(command: list[str], environment: dict[str, str]) -> str:
    """Runs pip, showing its output as it comes, and returns that output."""
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(line, end="", file=sys.stderr, flush=True)
    return "".join(lines)


def _download_error(pin: Pin, output: str) -> ProvisionError:
    if "No module named pip" in output:
        return ProvisionError(
            f"{sys.executable} has no pip to download {pin.archive} with; "
            f"run `{sys.executable} -m ensurepip`, {_INSTEAD}."
        )
    if "DO NOT MATCH THE HASHES" in output:
        return ProvisionError(_wrong_checksum(pin.archive))
    return ProvisionError(
        f"{pin.archive} could not be downloaded from the Python package index (pip's reason is above); "
        f"check the network and pip's index settings, {_INSTEAD}."
    )


def _wrong_checksum(name: str) -> str:
    return (
        f"{name} does not have the pinned SHA-256 and was not used; "
        f"check which package index pip is set to, {_INSTEAD}."
    )


def _wanted(name: PurePosixPath) -> PurePosixPath | None:
    """The path under the destination for a member of the archive, or None to leave it out."""
    inside = PurePosixPath(*name.parts[1:])
    if inside == PurePosixPath("LICENSE"):
        return inside
    if ".." in name.parts or not inside.is_relative_to(_PREFIX_IN_ARCHIVE):
        return None
    inside = inside.relative_to(_PREFIX_IN_ARCHIVE)
    taken = (*REQUIRED_DIRECTORIES, *OPTIONAL_DIRECTORIES)
    return inside if any(inside.is_relative_to(name) for name in taken) else None


def _write(path: Path, file: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        shutil.copyfileobj(file, out)


def _require_complete(tree: Path, named: Path) -> None:
    missing = [name for name in REQUIRED_DIRECTORIES if not (tree / name).is_dir()]
    if missing:
        raise ProvisionError(
            f"{named} is no BoringSSL source (it lacks {', '.join(missing)}); "
            f"name a complete checkout in {SOURCE_VARIABLE}, or unset it."
        )
