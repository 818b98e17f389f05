"""Builds docker/Dockerfile and runs the image as docker/compose.yaml does: `make image-try`.

What runs is the Dockerfile itself, by podman's builder, and the image as it is; the options are those of
compose.yaml's `proxy`: a read-only root, no capabilities, no new privileges, one volume. No temporary file
system is given besides, as podman would by default. Origin, collector and curl are beside it in a network
of their own that has a loopback and nothing else, so that whatever the image would fetch, it could not.

Each line it prints is a thing that was seen to hold. The first that does not ends it with exit status 1.
Where it cannot be tried, it says why and exits with 0: nothing is wrong then.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.docker.composed import compose, prepare
from tests.docker.dockerfile import DOCKER
from tests.docker.engine import IMAGE, CannotTryError, Engine
from tests.docker.trial import Trial, holds

_INSIDE = "--in-a-network-of-its-own"

_FORBIDDEN = "gcc g++ cc c++ cpp ld as make cmake ninja pip pip3 git"
_KEYS = r"find / -xdev \( -name '*.key' -o -name '*.pem' -o -name '*.crt' -o -name '*.p12' \)"
_PUBLIC = ("certifi/cacert.pem", "grpc/_cython/_credentials/roots.pem", "pip/_vendor/certifi/cacert.pem")


def main() -> int:
    """Build, then run again in a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--pull", action="store_true", help="begin at the published base image")
    parser.add_argument("--write-contents", action="store_true", help="write docker/CONTENTS.md anew")
    parser.add_argument(_INSIDE, dest="inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        engine = Engine()
        if args.inside:
            return _run(engine)
        began_at = engine.build(pull=args.pull)
    except CannotTryError as error:
        print(f"image-try: skipped: {error}")
        return 0
    print(f"\nwith {engine.version()}, from {began_at}")
    _look(engine)
    prepare()
    if args.write_contents:
        (DOCKER / "CONTENTS.md").write_text(_contents(engine), encoding="utf-8")
    command = ["unshare", "--net", sys.executable, "-m", "tests.docker.image_try", _INSIDE]
    return subprocess.run(command, check=False).returncode


def _look(engine: Engine) -> None:
    """What is in the image, without running the proxy."""
    found = engine.inspect()
    config = found["Config"]
    holds(config["User"] == "10001:10001", f"the image's user is {config['User']}")
    holds(config["Entrypoint"] == ["polytls"], "the entry point is the command, without a shell")
    check = found["Healthcheck"]["Test"]
    holds(check == ["CMD", "polytls", "check", "--local"], "the health check is polytls check")
    holds(config["StopSignal"] in ("SIGTERM", "15"), "it is stopped by SIGTERM")
    labels = config["Labels"]
    holds(labels["org.opencontainers.image.title"] == "PolyTLS", "it has its labels")
    print(f"    size: {found['Size'] / 1e6:.0f} MB with its base")
    tools = _shell(engine, f"for each in {_FORBIDDEN}; do command -v $each; done; true")
    holds(not tools, f"none of {_FORBIDDEN} is in it {tools}")
    files = _shell(engine, _KEYS).splitlines()
    own = [path for path in files if not path.endswith(_PUBLIC)]
    holds(not own, f"no key and no certificate is in it but the public roots of certifi and gRPC {own or ''}")
    place = _shell(engine, "ls -A /var/lib/polytls/ca; stat -c '%u:%g %a' /var/lib/polytls/ca")
    holds(place == "10001:10001 700", f"the place of the CA is empty, and its user's alone ({place})")
    version = _shell(engine, "polytls --version; python3 --version")
    holds(version.startswith("polytls "), f"it runs: {', '.join(version.splitlines())}")
    listed = _contents(engine)
    holds("| polytls |" in listed, f"it lists {listed.count(' | ') - 2} packages")


def _shell(engine: Engine, script: str) -> str:
    """What a shell in the image says, as root: it may look everywhere."""
    options = ["run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "sh"]
    return engine(*options, *Trial.LIMITS, IMAGE, "-c", script).strip()


def _contents(engine: Engine) -> str:
    return _shell(engine, "cat /opt/polytls/share/doc/polytls/CONTENTS.md") + "\n"


def _run(engine: Engine) -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with _scratch() as directory, Trial(engine, directory) as trial:
        trial.starts_confined()
        trial.relays()
        trial.exports()
        trial.is_checked()
        trial.stops()
        trial.keeps_its_root()
        trial.takes_profiles()
        trial.takes_a_root_that_is_read_only()
        trial.runs_as_another_user()
        trial.passes_through()
        trial.says_what_is_wrong()
    with _scratch() as directory:
        try:
            compose(engine, directory)
        except CannotTryError as error:
            print(f"--  compose.yaml was not run: {error}")
    print("image-try: everything held")
    return 0


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="polytls-image-try-") as directory:
        path = Path(directory)
        os.chmod(path, 0o755)  # noqa: PTH101 - the container's user has to reach what is mounted
        yield path


if __name__ == "__main__":
    sys.exit(main())
