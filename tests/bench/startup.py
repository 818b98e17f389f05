"""How long PolyTLS takes to say its version, and from its start to the end of the first tunnel.

Reported, not asserted: files may have to come from a disk. The first of several starts is left out for that
reason; the root CA exists by then.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.loadgen import run_load
from tests.bench.measure import Bench, Sample
from tests.bench.spawn import BenchError, free_port, running
from tests.bench.subjects import ALL, command_of

_TIMES = 5


def measure_start(bench: Bench) -> Iterator[Sample]:
    """One sample a start. Raises `BenchError`."""
    polytls = Path(sys.executable).with_name("polytls")
    directory = bench.scratch / "start"
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(_TIMES + 1):
        values = {
            "python_ms": _milliseconds([sys.executable, "-c", ""]),
            "version_ms": _milliseconds([str(polytls), "--version"]),
            "first_tunnel_ms": _first_tunnel(bench, directory),
        }
        if number > 0:
            yield Sample("start", "polytls-x25519", number - 1, values, 1, 0)


def _milliseconds(command: list[str]) -> float:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{command[0]} failed: {done.stderr.decode(errors='replace')[-200:]}")
    return (time.monotonic() - began) * 1000


def _first_tunnel(bench: Bench, directory: Path) -> float:
    subject, port = ALL["polytls-x25519"], free_port()
    command = command_of(subject, port, bench.origin, bench.programs, directory)
    began = time.monotonic()
    with running(subject.name, command, port, directory):
        aim = ["--proxy", f"127.0.0.1:{port}", "--origin", bench.origin.address, "--connect-by-name"]
        report = run_load(bench.load_program, [*aim, "--count", "1"])
        took = (time.monotonic() - began) * 1000
    if report.tunnels.ok != 1:
        raise BenchError(f"the first tunnel failed: {dict(report.tunnels.failures)}")
    return took
