"""A worker's place, who sits in it, and how that one ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

from polytls.workers.order import Answers


@dataclass(slots=True)
class Seat:
    """A worker's number and socket, and who sits there now."""

    number: int
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None
    channel: socket.socket | None = None
    answers: Answers = field(default_factory=Answers)
    listens: bool = False
    started: float = 0.0  # monotonic
    due: float | None = None  # when it is to be filled again
    pauses: int = 0
    problem: str | None = None  # what its last occupant could not do
    answered: int = 0  # the offer that its occupant has answered, or was never made

    @property
    def serves(self) -> bool:
        """Whoever sits there takes connections."""
        return self.listens and self.channel is not None

    def fill_now(self) -> None:
        """Do not wait any longer, if nobody sits there."""
        if self.due is not None:
            self.due = time.monotonic()

    @property
    def name(self) -> str:
        process = "" if self.process is None else f" (process {self.process.pid})"
        return f"worker {self.number}{process}"


def await_end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Its exit code, after so many seconds at the latest: then it is killed."""
    try:
        return process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def manner(code: int, seat: Seat) -> str | None:
    """How a process ended, as a clause; None: well."""
    if seat.problem is not None:
        return f"could not start: {seat.problem}"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with code {code}" if code else None
