"""docker/compose.yaml, run by Docker Compose itself against podman's socket: the proxy and the collector.

Compose is a client and runs anywhere: it is looked for as the variable DOCKER_COMPOSE, then as
`docker-compose`; it can be built from its Go module. The images of Prometheus, Jaeger and Grafana are in a
registry alone, so these three are left out here. The collector's is made of the program that
`tests.docker.test_collector` runs, under the name that compose.yaml asks for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ruamel.yaml import YAML

from tests.docker.dockerfile import DOCKER
from tests.docker.engine import BUILD_SECONDS, IMAGE, CannotTryError, Engine
from tests.docker.trial import NAME, holds
from tests.otlp.collector import NoCollectorError, find
from tests.peers.serve import clean_environment

SECONDS = 60.0
PROJECT = "polytls-image-try"
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def prepare() -> None:
    """Build the collector while there is a network; `compose` says where that failed."""
    with contextlib.suppress(NoCollectorError):
        find()


def compose(engine: Engine, directory: Path) -> None:
    """Start proxy and collector as compose.yaml has them, and follow a tunnel. Raises `CannotTryError`."""
    program = os.environ.get("DOCKER_COMPOSE") or shutil.which("docker-compose")
    if program is None:
        raise CannotTryError("there is no docker-compose, and DOCKER_COMPOSE names none")
    services = YAML(typ="safe").load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    engine("tag", IMAGE, services["proxy"]["image"])
    _collector_image(engine, services["collector"]["image"])
    with _socket(engine, directory) as url:
        run = _Compose(program, url)
        try:
            _follow(engine, run)
        finally:
            run("down", "--volumes", check=False)


def _follow(engine: Engine, run: _Compose) -> None:
    run("config", "--quiet")
    holds(True, "docker compose reads compose.yaml")
    run("up", "--no-build", "--pull", "never", "--detach", "proxy", "collector")
    _until(
        lambda: run("exec", "-T", "proxy", "polytls", "check", "--local", check=False).returncode == 0, run
    )
    holds(True, "the proxy of compose.yaml gets healthy")
    said = _said(
        "curl",
        "--silent",
        "--proxytunnel",
        "--proxy",
        "http://127.0.0.1:8080",
        "--write-out",
        "%{http_connect}",
        "https://127.0.0.1:1/",
    )
    holds(said == "502", f"it answers on the host's loopback (an origin that is down: {said})")
    places = {line.split()[3] for line in _said("ss", "-Hltn").splitlines()}
    holds({place for place in places if place.endswith(":8080")} == {"127.0.0.1:8080"}, "and nowhere else")
    address = engine("inspect", "--format", _ADDRESS, f"{PROJECT}-collector-1").strip()
    metrics = f"http://{address}:8889/metrics"
    _until(lambda: 'polytls_outcome="connect_refused"' in _said("curl", "--silent", metrics), run)
    holds(True, "the collector of compose.yaml shows Prometheus that tunnel")
    run("stop")
    code = engine("inspect", "--format", "{{.State.ExitCode}}", f"{PROJECT}-proxy-1").strip()
    holds(code == "0", "docker compose stop ends it with exit status 0")


def _said(*command: str) -> str:
    """What a command of this machine says, however it ends."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=clean_environment()
    ).stdout


def _until(what: Callable[[], bool], run: _Compose) -> None:
    """Ask until it is so: there is nothing to wait on."""
    deadline = time.monotonic() + SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit(f"image-try: FAILED: it took too long: {run('logs').stdout}")
        time.sleep(0.2)


class _Compose:
    """The client, for our file, in a project of its own."""

    def __init__(self, program: str, url: str) -> None:
        self._command = [program, "-p", PROJECT, "-f", str(DOCKER / "compose.yaml")]
        self._environ = {**os.environ, "DOCKER_HOST": url}

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=self._environ,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode != 0:
            raise SystemExit(f"image-try: FAILED: compose {' '.join(arguments)}: {done.stderr}")
        return done


def _collector_image(engine: Engine, name: str) -> None:
    try:
        program = find()
    except NoCollectorError as error:
        raise CannotTryError(str(error)) from None
    with tempfile.TemporaryDirectory(dir=engine.home) as directory:
        (Path(directory) / "Dockerfile").write_text(
            f'FROM {engine.base()}\nCOPY otelcol /otelcol\nUSER 10001\nENTRYPOINT ["/otelcol"]\n',
            encoding="utf-8",
        )
        shutil.copy(program, directory)
        engine(
            "build", "--isolation", "chroot", "--pull=never", "--tag", name, directory, seconds=BUILD_SECONDS
        )


@contextlib.contextmanager
def _socket(engine: Engine, directory: Path) -> Iterator[str]:
    """Podman's socket, which speaks Docker's protocol."""
    engine.run("rm", "--force", NAME)
    path = directory / "podman.sock"
    environ = {**os.environ, "CONTAINERS_CONF": str(engine.configuration(directory))}
    service = subprocess.Popen(
        engine.command("system", "service", "--time", "0", f"unix://{path}"),
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not path.exists():
            if service.poll() is not None or time.monotonic() > deadline:
                raise CannotTryError("podman's service did not start")
            time.sleep(0.05)
        yield f"unix://{path}"
    finally:
        service.terminate()
        service.wait(SECONDS)
