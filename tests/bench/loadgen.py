"""Runs the native load generator and reads its report (native/bench/load)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.spawn import BenchError

_GRACE_S = 30.0  # beyond the load generator's own limit


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Tunnels:
    """How the tunnels of one way, through the proxy or direct, have gone."""

    ok: int
    failed: int
    per_second: float
    bytes_down: int
    bytes_up: int
    talking_s: float  # of all tunnels together, from the end of the handshake to the last byte
    h2: int
    resumed: int
    times: Mapping[str, Percentiles | None]  # answered, shaken, first_byte, done, round_trip
    failures: Mapping[str, int]
    behaviours: Mapping[str, tuple[int, int]]  # ok, failed
    samples: Sequence[str]


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the load generator."""

    wall_s: float
    client_cpu_s: float
    overtime: bool
    held: int
    held_lost: int
    held_alive: int
    through: Tunnels | None
    direct: Tunnels | None

    @property
    def tunnels(self) -> Tunnels:
        """Those through the proxy, else the direct ones. Raises `BenchError` when there were none."""
        found = self.through or self.direct
        if found is None:
            raise BenchError("the load generator began no tunnel")
        return found


def run_load(program: Path, arguments: Sequence[str], *, max_seconds: float = 60.0) -> Report:
    """One run. Raises `BenchError`."""
    command = [str(program), *arguments, "--max-seconds", str(max_seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max_seconds + _GRACE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the load generator did not end: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"the load generator failed ({done.returncode}): {done.stderr.strip()[-400:]}")
    return parse_report(done.stdout)


def parse_report(text: str) -> Report:
    """The report on the last line. Raises `BenchError` when it is none."""
    try:
        found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return Report(
            wall_s=found["wall_s"],
            client_cpu_s=found["client_cpu_s"],
            overtime=found["overtime"],
            held=found["held"],
            held_lost=found["held_lost"],
            held_alive=found["held_alive"],
            through=_tunnels(found["through"]),
            direct=_tunnels(found["direct"]),
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"this is no report of the load generator: {text[-200:]!r}") from error


def _tunnels(found: dict[str, Any] | None) -> Tunnels | None:
    if found is None:
        return None
    return Tunnels(
        ok=found["ok"],
        failed=found["failed"],
        per_second=found["per_second"],
        bytes_down=found["bytes_down"],
        bytes_up=found["bytes_up"],
        talking_s=found["talking_s"],
        h2=found["h2"],
        resumed=found["resumed"],
        times={name.removesuffix("_ms"): _percentiles(found[name]) for name in found if name.endswith("_ms")},
        failures=found["failures"],
        behaviours={name: (one["ok"], one["failed"]) for name, one in found["behaviours"].items()},
        samples=found["samples"],
    )


def _percentiles(found: dict[str, Any]) -> Percentiles | None:
    return Percentiles(**found) if found["count"] else None
