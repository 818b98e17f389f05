"""Processes under measurement: started, waited for until they can serve, and ended again, always.

Each gets a scratch directory; what it says goes to a file there, which is quoted when it does not come up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import tree

_LOOK_EVERY_S = 0.01
_STOP_S = 12.0  # a drain takes up to 10
_QUOTED = 800  # characters of what a process said before it failed


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that serves."""

    name: str
    pid: int
    port: int
    started_s: float  # from its start until it accepted a connection

    def pids(self) -> tuple[int, ...]:
        return tree(self.pid)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin, and where its root CA is."""

    pid: int
    port: int
    tickets_port: int
    ca: Path
    plain_port: int = 0  # where it speaks no TLS
    rude_port: int = 0  # where it resets

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def pids(self) -> tuple[int, ...]:
        return tree(self.pid)


def free_port() -> int:
    """One that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def origin(program: Path, directory: Path, *arguments: str, within: Sequence[str] = ()) -> Iterator[Origin]:
    """The native origin; `within` goes before its command. Raises `BenchError`."""
    directory.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [*within, program, "--dir", directory, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("READY "):
            raise BenchError(f"the origin did not start: {said!r}")
        ports = json.loads(said.removeprefix("READY "))
        yield Origin(
            process.pid,
            ports["port"],
            ports["tickets_port"],
            directory / "ca.pem",
            ports["plain_port"],
            ports["rude_port"],
        )
    finally:
        stop(process)


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    directory: Path,
    *,
    wait_s: float = 30.0,
    ready: Sequence[str] = (),
) -> Iterator[Running]:
    """`command` once it accepts connections on `port`, or the command `ready` says so by its exit code.

    Raises `BenchError` when it does not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    said = directory / "said.txt"
    environment = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    with (directory / "stdout.txt").open("wb") as out, said.open("wb") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        while not (_succeeds(ready) if ready else accepts(port)):
            if process.poll() is not None or time.monotonic() - began > wait_s:
                quoted = said.read_text(errors="replace")[-_QUOTED:]
                raise BenchError(f"{name} did not listen on port {port}: {quoted}")
            time.sleep(_LOOK_EVERY_S)
        yield Running(name, process.pid, port, time.monotonic() - began)
    finally:
        stop(process)


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End it and what descends from it: by SIGTERM, SIGTERM again, SIGKILL."""
    below = tree(process.pid)[1:] if process.poll() is None else ()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    for number, patience in ((signal.SIGTERM, 1.0), (signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        if process.poll() is not None:
            break
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for pid in below:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
