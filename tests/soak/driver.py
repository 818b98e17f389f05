"""Starts a subject (`tests.soak.subject`), asks it, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.spawn import BenchError, stop
from tests.bench.subjects import ROOT
from tests.soak.subject import SETTLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SHIM = ROOT / "build" / "bench" / "bin" / "libpolytls-faults.so"
ANSWER_SECONDS = SETTLE_SECONDS + 30.0
END_SECONDS = 20.0

# native/faults/faults.h
RECV, SEND, ACCEPT4, CONNECT, SOCKET, EPOLL_CTL, EPOLL_WAIT, WRITE, READ, GETSOCKOPT, SETSOCKOPT, SHUTDOWN = (
    range(12)
)
SHORT = -1
ALWAYS = 2**63


@dataclass(frozen=True, slots=True)
class Rule:
    """One of the shim's: `error` (an errno, or SHORT) for one `call` in `one_in`, not the first `after`, at
    most `count` of them."""

    call: int
    error: int
    after: int = 0
    count: int = ALWAYS
    one_in: int = 1
    seed: int = 1


class Driven:
    """A subject that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int, directory: Path) -> None:
        self._process = process
        self.port = port
        self.root = directory / "root.pem"
        self._said = directory / "stderr.txt"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises `BenchError` when there is no answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchError(f"the proxy is gone: {self.said()}") from error
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise BenchError(f"the proxy did not answer {do!r}: {self.said()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def snapshot(self) -> dict[str, Any]:
        return self.ask("snapshot")

    def faults(self, *rules: Rule) -> int:
        """Set the shim's rules; how often those before were met."""
        listed = [[r.call, r.error, r.after, r.count, r.one_in, r.seed] for r in rules]
        return int(self.ask("faults", rules=listed)["struck"])

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def said(self) -> str:
        return self._said.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def driven(
    directory: Path, ca: Path, *, faults: bool = False, wanted: Mapping[str, Any] | None = None
) -> Iterator[Driven]:
    """A subject that trusts the origins of `ca`. Raises `BenchError` when it does not start."""
    directory.mkdir(parents=True, exist_ok=True)
    told = {"directory": str(directory), "ca": str(ca), **(wanted or {})}
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if faults:
        told["shim"] = str(SHIM)
        environment["LD_PRELOAD"] = str(SHIM)
    command: Sequence[str] = [sys.executable, "-m", "tests.soak.subject", json.dumps(told)]
    with (directory / "stderr.txt").open("w") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            bufsize=1,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("READY "):
            raise BenchError(f"the proxy did not start: {(directory / 'stderr.txt').read_text()[-2000:]}")
        yield Driven(process, json.loads(line.removeprefix("READY "))["port"], directory)
    finally:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGCONT)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            assert process.stdin is not None
            process.stdin.close()  # it drains, and ends by itself
            process.wait(END_SECONDS)
        stop(process)
