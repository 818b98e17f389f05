"""One measurement of one subject: the load is run while the kernel's counters are read around it.

Definitions
-----------
CPU a tunnel: CPU of the proxy's process tree, divided by the tunnels that ended as meant.
Added latency: from connect() to the first byte of the answer, through the proxy less direct, both quantiles
of tunnels that took turns in one run.
CPU a GB: of 10^9 body bytes, both directions counted. MB/s: 10^6 body bytes by the time from the end of the
handshake to the last byte.
KB a tunnel: private memory of the process tree while all are held less that after a warm-up of 100 tunnels,
by their number.
Other: what the machine did beside proxy, origin and client, in cores; read a result with much of it with
care.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.loadgen import Percentiles, Report, Tunnels, parse_report, run_load
from tests.bench.machine import busy_seconds, cpu_seconds, main_thread_seconds, memory
from tests.bench.rows import Kind, Row
from tests.bench.spawn import BenchError, Origin, Running

if TYPE_CHECKING:
    from tests.bench.subjects import Subject

GB = 1e9
_WARM_TUNNELS = 100
_SETTLE_S = 1.0  # after a start or many handshakes, until memory is what it stays
_IDLE_S = 1.5  # over which an idle proxy's CPU is read
_HOLD_LIMIT_S = 120.0
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement found: values by metric, and how many tunnels failed in what way."""

    row: str
    subject: str
    round: int
    values: Mapping[str, float]
    ok: int
    failed: int
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the programs, the origin and the scratch directory are; how long a run takes."""

    programs: Path
    origin: Origin
    scratch: Path
    seconds: float

    @property
    def load_program(self) -> Path:
        return self.programs / "bench-load"


@dataclass(slots=True)
class Spent:
    """CPU seconds beside a run."""

    proxy: float = 0.0
    main_thread: float = 0.0
    origin: float = 0.0
    other_share: float = 0.0
    client: float = 0.0


def aim(bench: Bench, subject: Subject | None, proxy: Running | None, row: Row) -> list[str]:
    """The load generator's arguments for this row and proxy."""
    arguments = ["--origin", bench.origin.address, *row.load]
    if proxy is None:
        arguments = [word for word in arguments if word != "--compare-direct"]
    else:
        arguments += ["--proxy", f"127.0.0.1:{proxy.port}"]
    if subject is not None and subject.by_name:
        arguments.append("--connect-by-name")
    if row.own_names:
        # Each run begins where no run before has been.
        arguments += ["--first-name", str(next(_names) * 10_000_000)]
    return arguments


def measure(bench: Bench, row: Row, number: int, subject: Subject | None, proxy: Running | None) -> Sample:
    """A fast row. Raises `BenchError`."""
    name = subject.name if subject else "direct"
    arguments = aim(bench, subject, proxy, row)
    spent = Spent()
    if row.kind is Kind.BUSY:
        with downloading(bench, arguments), spending(bench, proxy, spent):
            report = run_load(bench.load_program, [*arguments, "--seconds", str(bench.seconds)])
    else:
        with spending(bench, proxy, spent):
            report = run_load(bench.load_program, [*arguments, "--seconds", str(bench.seconds)])
    tunnels = report.tunnels
    values = values_of(row.kind, report, spent)
    return Sample(row.name, name, number, values, tunnels.ok, tunnels.failed, tunnels.failures)


@contextmanager
def spending(bench: Bench, proxy: Running | None, spent: Spent) -> Iterator[None]:
    """Reads the kernel's counters around what is done inside, into `spent`."""
    pids = proxy.pids() if proxy else ()
    before = cpu_seconds(pids), cpu_seconds(bench.origin.pids()), busy_seconds(), time.monotonic()
    python_before = main_thread_seconds(proxy.pid) if proxy else 0.0
    yield
    elapsed = time.monotonic() - before[3]
    spent.proxy = cpu_seconds(proxy.pids() if proxy else ()) - before[0]
    spent.main_thread = (main_thread_seconds(proxy.pid) if proxy else 0.0) - python_before
    spent.origin = cpu_seconds(bench.origin.pids()) - before[1]
    spent.other_share = (busy_seconds() - before[2] - spent.proxy - spent.origin) / elapsed


def values_of(kind: Kind, report: Report, spent: Spent) -> dict[str, float]:
    """The metrics of a fast row; pure."""
    tunnels = report.tunnels
    other = max(0.0, spent.other_share - report.client_cpu_s / max(report.wall_s, 1e-9))
    values = {"other_share": other, "per_second": tunnels.per_second}
    if tunnels.ok == 0:
        return values
    if kind is Kind.BULK:
        moved = tunnels.bytes_down + tunnels.bytes_up
        values["cpu_s_per_gb"] = spent.proxy / (moved / GB)
        values["mb_s"] = moved / 1e6 / tunnels.talking_s
        values["origin_s_per_gb"] = spent.origin / (moved / GB)
        return values
    values["cpu_ms"] = spent.proxy * 1000 / tunnels.ok
    values["main_thread_ms"] = spent.main_thread * 1000 / tunnels.ok
    values["origin_ms"] = spent.origin * 1000 / tunnels.ok
    values["client_ms"] = report.client_cpu_s * 1000 / tunnels.ok
    name = "round_trip" if kind is Kind.MESSAGES else "first_byte"
    values |= quantiles(tunnels, report.direct if report.through else None, name)
    return values


def quantiles(tunnels: Tunnels, direct: Tunnels | None, name: str) -> dict[str, float]:
    """p50 and p99 in ms, and what they are above direct's, where those took turns."""
    own, other = tunnels.times[name], direct.times[name] if direct else None
    if own is None:
        return {}
    values = {"p50_ms": own.p50, "p99_ms": own.p99}
    if other is not None:
        values |= added(own, other)
    return values


def added(own: Percentiles, direct: Percentiles) -> dict[str, float]:
    return {"added_p50_ms": own.p50 - direct.p50, "added_p99_ms": own.p99 - direct.p99}


@contextmanager
def downloading(bench: Bench, arguments: Sequence[str]) -> Iterator[None]:
    """One stream at full speed the same way, from before the measurement until after it."""
    through = [word for word in arguments if word != "--compare-direct"]
    alone = _last_wins([*through, "--sizes", "1024m", "--at-once", "1", "--seconds", "3600"])
    command = [str(bench.load_program), *alone, "--max-seconds", "60"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.2)  # until it is under way; nothing is judged by it
        if process.poll() is not None:
            raise BenchError("the download beside the measurement ended early")
        yield
    finally:
        process.kill()
        process.wait()


def measure_held(bench: Bench, row: Row, number: int, subject: Subject, proxy: Running) -> Sample:
    """A held row; `proxy` is fresh. Raises `BenchError`."""
    count = min(row.tunnels, subject.max_tunnels)
    time.sleep(_SETTLE_S)
    base = memory(proxy.pids())
    warm_up = [*aim(bench, subject, proxy, row), "--count", str(_WARM_TUNNELS), "--first-name", "900000000"]
    run_load(bench.load_program, _last_wins(warm_up))
    time.sleep(_SETTLE_S)
    warm = memory(proxy.pids())
    with holding(bench, [*aim(bench, subject, proxy, row), "--count", str(count)]) as held:
        time.sleep(_SETTLE_S)
        cpu, began = cpu_seconds(proxy.pids()), time.monotonic()
        time.sleep(_IDLE_S)
        idle_ms = (cpu_seconds(proxy.pids()) - cpu) * 1000 / (time.monotonic() - began)
        full = memory(proxy.pids())
    time.sleep(_SETTLE_S)
    after = memory(proxy.pids())
    report = held.report()
    tunnels = report.tunnels
    values = {
        "held": report.held,
        "alive": report.held_alive,
        "base_mb": base.pss_kb / 1024,
        "held_mb": full.pss_kb / 1024,
        "after_mb": after.pss_kb / 1024,
        "kb_per_tunnel": (full.private_kb - warm.private_kb) / max(1, report.held),
        "idle_cpu_ms_per_s": idle_ms,
        "start_ms": proxy.started_s * 1000,
    }
    lost = count - report.held_alive
    return Sample(row.name, subject.name, number, values, report.held_alive, lost, tunnels.failures)


def _last_wins(words: Sequence[str]) -> list[str]:
    """The load generator takes an option's first value; here the last one given shall count."""
    found: dict[str, list[str]] = {}
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word
            found[option] = []
        else:
            found[option].append(word)
    return [part for option, rest in found.items() for part in (option, *rest)]


class Held:
    """Tunnels that are open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said = ""

    def release(self) -> None:
        """Every tunnel answers once more, then closes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._said = self._process.stdout.read()
        self._process.wait(_HOLD_LIMIT_S)

    def report(self) -> Report:
        return parse_report(self._said)


@contextmanager
def holding(bench: Bench, arguments: Sequence[str]) -> Iterator[Held]:
    """The load generator with all its tunnels open. Raises `BenchError`."""
    command = [
        str(bench.load_program),
        *arguments,
        "--mix",
        "hold",
        "--hold-stdin",
        "--max-seconds",
        str(_HOLD_LIMIT_S),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said.startswith("READY "):
                raise BenchError(f"the load generator could not hold tunnels: {said[:300]!r}")
            held = Held(process)
            yield held
            held.release()
        finally:
            process.kill()
