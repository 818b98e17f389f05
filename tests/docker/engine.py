"""Podman for `image_try`, with a storage of its own, and a base image where no registry can be reached.

Nothing of the machine's own containers is seen or touched: images, containers and volumes live below the
user's cache, and stay there, so that a second build has its layers. What podman is started with besides is
what a plain machine lacks (no systemd, a limit on open files that may not be raised), never what would
make the container freer than docker/compose.yaml has it.

The base is what the Dockerfile's BASE names. Where a registry answers it is that very image (`pull`). Else it
is a Debian of the same release, made by debootstrap from the machine's mirror and tagged by that name: the
same packages from the same archive, with documentation and caches that the published image leaves out.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.docker.dockerfile import DOCKER, ROOT, stages

IMAGE = "polytls:try"
BUILD_SECONDS = 3600.0
COMMAND_SECONDS = 120.0
PROCESSES = 1000
_SUITES = {"12": "bookworm", "13": "trixie", "14": "forky"}
"""debootstrap knows releases by name; tags of the image count them."""


class CannotTryError(Exception):
    """What is missing here, in a sentence."""


class Engine:
    """Podman with its storage in the user's cache. Raises `CannotTryError` where it cannot work."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise CannotTryError("it needs root, for debootstrap and for podman without a user's namespaces")
        podman = shutil.which("podman")
        if podman is None:
            raise CannotTryError("podman is not installed (Debian, Ubuntu: apt-get install podman runc)")
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polytls" / "image-try"
        base.mkdir(parents=True, exist_ok=True)
        self.home = base  # no RUN may mount at a directory above: buildah 1.28 would empty the step's root
        self._podman = [podman, "--root", str(base / "storage"), "--runroot", "/run/polytls-image-try"]
        self._podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        self._runtime = shutil.which("runc")  # crun, podman's default, wants cgroups of version 2, and alone
        if self._runtime is not None:
            self._podman += ["--runtime", self._runtime]

    def __call__(self, *arguments: str, check: bool = True, seconds: float = COMMAND_SECONDS) -> str:
        """The standard output of a podman command. Raises `subprocess.CalledProcessError` with `check`."""
        return self.run(*arguments, check=check, seconds=seconds).stdout

    def run(
        self, *arguments: str, check: bool = False, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """A podman command, its outputs kept apart."""
        command = self.command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def command(self, *arguments: str) -> list[str]:
        """The words of a podman command."""
        return [*self._podman, *arguments]

    def configuration(self, directory: Path) -> Path:
        """A file for CONTAINERS_CONF, which gives podman's service what commands get as options."""
        path = directory / "containers.conf"
        ulimits = ", ".join(f'"{each}"' for each in limits() if each != "--ulimit")
        runtime = f'runtime = "{self._runtime}"\n' if self._runtime else ""
        engine = f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n{runtime}'
        path.write_text(f"[containers]\ndefault_ulimits = [{ulimits}]\n{engine}", encoding="utf-8")
        return path

    def version(self) -> str:
        return self("--version").strip()

    def inspect(self) -> Any:
        """What the image's configuration says."""
        return json.loads(self("image", "inspect", IMAGE))[0]

    def base(self) -> str:
        """What the Dockerfile begins at."""
        arguments, _ = stages((DOCKER / "Dockerfile").read_text(encoding="utf-8"))
        return arguments["BASE"]

    def build(self, *, pull: bool) -> str:
        """Build docker/Dockerfile as it is. What it began at, in words."""
        base = self.base()
        began_at = f"{base} of a registry" if pull else self._debootstrapped(base)
        command = [*self._podman, "build", "--file", str(DOCKER / "Dockerfile"), "--tag", IMAGE]
        # Steps are run by chroot, in the network of the machine. HEALTHCHECK is of Docker's format alone.
        command += ["--isolation", "chroot", "--format", "docker", f"--pull={'always' if pull else 'never'}"]
        command += _of_pip()
        done = subprocess.run([*command, str(ROOT)], timeout=BUILD_SECONDS, check=False)
        if done.returncode != 0:
            raise RuntimeError("the image was not built: podman says above why")
        return began_at

    def _debootstrapped(self, base: str) -> str:
        name, _, tag = base.partition(":")
        number = tag.partition("-")[0]
        if name != "debian" or number not in _SUITES:
            raise CannotTryError(f"{base} is no release of Debian that debootstrap could make")
        told = f"Debian {number} made by debootstrap, tagged as {base}"
        full = f"docker.io/library/{base}"  # what podman makes of a name without a registry
        if self.run("image", "exists", full).returncode == 0:
            return told
        debootstrap = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if debootstrap is None:
            raise CannotTryError("debootstrap is not installed (Debian, Ubuntu: apt-get install debootstrap)")
        with tempfile.TemporaryDirectory(dir=self.home) as directory:
            command = [debootstrap, "--variant=minbase", _SUITES[number], directory]
            done = subprocess.run(command, timeout=BUILD_SECONDS, check=False, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                raise CannotTryError("debootstrap could not make a base: is a Debian mirror reachable?")
            archive = Path(directory).with_suffix(".tar")
            try:
                subprocess.run(
                    ["tar", "-C", directory, "--exclude=./var/cache/apt/archives/*.deb", "-cf", archive, "."],
                    check=True,
                    timeout=COMMAND_SECONDS,
                )
                self("import", str(archive), full, seconds=BUILD_SECONDS)
            finally:
                archive.unlink(missing_ok=True)
        return told


def limits() -> list[str]:
    """Limits that this machine grants: podman would ask for more than an unprivileged root may have."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ["--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={PROCESSES}:{PROCESSES}"]


def _of_pip() -> list[str]:
    """What pip is told on this machine, as the Dockerfile wants to be told it."""
    found: list[str] = []
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT"):
        if os.environ.get(name):
            found += ["--build-arg", f"{name}={os.environ[name]}"]
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        found += ["--secret", f"id=ca,src={certificates}"]
    return found
