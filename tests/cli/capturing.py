"""A verb of ours that captures, in a process of its own, on a port that it tells on stderr."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.capture.hellos import REPOSITORY
from tests.peers.serve import HANG_SECONDS, clean_environment

_ANNOUNCED = re.compile(r"capturing on \S+:(\d+),")


class Capturing:
    """`polytls VERB … --listen 127.0.0.1:0`, listening when it is made."""

    def __init__(self, *args: str | Path, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polytls", *map(str, args), "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that what is not read here is there for `end`
            cwd=cwd,
            env={**clean_environment(), "PYTHONPATH": str(REPOSITORY)},
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline().decode()
        announced = _ANNOUNCED.search(line)
        assert announced, line
        self.port = int(announced.group(1))

    def __enter__(self) -> Capturing:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Wait for its end, or ask for it: exit code, stdout, stderr."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=HANG_SECONDS)
        return self.process.returncode, (out or b"").decode(), err.decode()
