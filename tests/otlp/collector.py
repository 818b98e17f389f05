"""The real OpenTelemetry Collector, built from its Go module, as a test peer.

Theory of operation ------------------- `collector/` holds a main program with the Collector's own OTLP
receiver and file exporter, and pins every module it needs. It is built once, into the user's cache, under a
name that is a hash of those files: later runs need neither network nor Go. Where it can be had neither from
the cache nor by building, `find` says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.otlp.exported import Exported
from tests.otlp.receiver import free_port
from tests.peers.serve import HANG_SECONDS, clean_environment

SOURCE = Path(__file__).with_name("otelcol")
BUILD_SECONDS = 900.0
"""A cold build compiles some 400 packages: two minutes on two cores, and downloads before that."""
_GO_PLACES = ("/usr/local/go/bin",)
_START_ATTEMPTS = 3  # a free port may be taken by somebody else before the Collector has it

_CONFIG = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{http}"}}
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
exporters:
  file: {{path: "{path}", flush_interval: 100ms}}
service:
  telemetry:
    logs: {{level: info}}
    metrics: {{level: none}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
    logs: {{receivers: [otlp], exporters: [file]}}
"""


class NoCollectorError(Exception):
    """There is none here, for the reason that the message tells."""


@cache
def find() -> Path:
    """The program of a Collector, built if need be from its Go module. Raises `NoCollectorError`."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    program = Path(base) / "polytls" / f"otelcol-{digest.hexdigest()[:20]}" / "otelcol"
    if not program.exists():
        _build(program)
    return program


def _build(program: Path) -> None:
    if os.environ.get("POLYTLS_NO_COLLECTOR"):
        raise NoCollectorError("POLYTLS_NO_COLLECTOR is set")
    go = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", ""), *_GO_PLACES)))
    if go is None:
        raise NoCollectorError("Go is not installed, and no Collector is cached")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        built = Path(directory) / "otelcol"
        command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(built), "."]
        try:
            done = subprocess.run(
                command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NoCollectorError(f"building the Collector took longer than {BUILD_SECONDS:g} s") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it did not say why"])[-1].strip()
            raise NoCollectorError(f"the Collector cannot be built here: {reason}")
        built.replace(program)


class Collector:
    """A running Collector, OTLP over HTTP and gRPC on free ports of 127.0.0.1, writing into `directory`."""

    kind = "OpenTelemetry Collector"

    def __init__(self, directory: Path) -> None:
        program = find()
        self.path = directory / "exported.jsonl"
        self._log = directory / "collector.log"
        for _ in range(_START_ATTEMPTS):
            self.http_port, self.grpc_port = free_port(), free_port()
            config = directory / "collector.yaml"
            config.write_text(
                _CONFIG.format(http=self.http_port, grpc=self.grpc_port, path=self.path), encoding="utf-8"
            )
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [str(program), "--config", f"file:{config}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=clean_environment(),
                )
            if self._is_ready():
                return
        raise RuntimeError(f"the Collector did not start: {self._log.read_text()}")

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(HANG_SECONDS)

    def exported(self) -> Exported:
        """What is in its file so far. A line that is not whole yet is left for later."""
        found = Exported()
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    found.add(json.loads(line))
        return found

    def wait(self, enough: Callable[[Exported], object]) -> Exported:
        """Wait until what is in its file is `enough`. There is nothing to wait on but the file itself."""
        deadline = time.monotonic() + HANG_SECONDS
        while not enough(found := self.exported()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not enough was exported: {found}; {self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return found

    def _is_ready(self) -> bool:
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if b"Everything is ready" in self._log.read_bytes():
                return True
            time.sleep(0.02)
        self.close()
        return False
