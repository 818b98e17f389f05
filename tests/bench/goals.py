"""What was promised, as numbers, and whether a run keeps it.

Each goal names the measurement and a limit. Ratios are between neighbours of one run on one machine, so they
mean something anywhere; absolute goals were set for two cores of a small virtual machine, undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.results import Results
from tests.bench.special import PROFILE_PREFIX

RATIO = "x"
"""The unit of what is compared with a reference."""

TELEMETRY = "OTLP"
"""What was promised of telemetry, in the place of a number."""

Source = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of a promise."""

    promise: str  # its number
    text: str
    source: Source
    limit: float
    unit: str
    at_least: bool = False  # else at most
    asserted: bool = True  # else it is reported alone


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what became of it."""

    goal: Goal
    measured: float | None

    @property
    def met(self) -> bool | None:
        """None: it was not measured."""
        if self.measured is None:
            return None
        if self.goal.at_least:
            return self.measured >= self.goal.limit
        return self.measured <= self.goal.limit

    @property
    def word(self) -> str:
        return {True: "met", False: "not met", None: "not measured"}[self.met]


def value(row: str, subject: str, metric: str) -> Source:
    return lambda results: results.value(row, subject, metric)


def ratio(row: str, subject: str, reference: str, metric: str) -> Source:
    return lambda results: results.ratio(row, subject, reference, metric)


def difference(row: str, subject: str, reference: str, metric: str) -> Source:
    return lambda results: results.difference(row, subject, reference, metric)


def dearest_profile(results: Results) -> float | None:
    """CPU a tunnel of the exact profile that costs most, to the yardstick of its round."""
    row = "mitm.profiles"
    names = [name for name in results.subjects(row) if name.startswith(PROFILE_PREFIX)]
    found = [results.ratio(row, name, "yardstick", "cpu_ms") for name in names]
    return max((one for one in found if one is not None), default=None)


def failures(results: Results) -> float | None:
    """Tunnels through PolyTLS that did not end as meant, of all rows."""
    found = [s.failed for s in results.samples if s.subject.startswith(("polytls", PROFILE_PREFIX))]
    return float(sum(found)) if found else None


_OURS = "polytls-x25519"
_BULK = (
    ("mitm.bulk", "download"),
    ("mitm.bulk-h2", "download over HTTP/2"),
    ("mitm.upload", "upload"),
    ("mitm.both", "both at once"),
)

GOALS: Sequence[Goal] = (
    Goal(
        "1",
        "MITM CPU a tunnel, 32 at a time, to the yardstick",
        ratio("mitm.c32", _OURS, "yardstick", "cpu_ms"),
        1.35,
        RATIO,
    ),
    Goal(
        "1",
        "the same with Chrome's hello",
        ratio("mitm.c32", "polytls-chrome", "yardstick", "cpu_ms"),
        1.6,
        RATIO,
    ),
    Goal("1", "the same with the dearest exact profile", dearest_profile, 1.6, RATIO),
    Goal(
        "1",
        "MITM CPU a tunnel, names never seen, to the yardstick",
        ratio("mitm.cold8", _OURS, "yardstick", "cpu_ms"),
        1.5,
        RATIO,
    ),
    Goal(
        "1",
        "the same with an ECDSA root",
        ratio("mitm.cold8", "polytls-ecdsa-root", "yardstick", "cpu_ms"),
        1.5,
        RATIO,
    ),
    Goal("1", "MITM, one at a time, added p50", value("mitm.c1", _OURS, "added_p50_ms"), 0.7, "ms"),
    Goal("1", "MITM, one at a time, added p99", value("mitm.c1", _OURS, "added_p99_ms"), 1.1, "ms"),
    Goal(
        "1",
        "the same with Chrome's hello, added p50",
        value("mitm.c1", "polytls-chrome", "added_p50_ms"),
        0.7,
        "ms",
    ),
    Goal(
        "1",
        "the same with Chrome's hello, added p99",
        value("mitm.c1", "polytls-chrome", "added_p99_ms"),
        1.1,
        "ms",
    ),
    Goal(
        "1",
        "MITM, 32 at a time, Python's share of CPU a tunnel",
        value("mitm.c32", _OURS, "main_thread_ms"),
        0.08,
        "ms",
    ),
    Goal(
        "2", "passthrough CPU a tunnel, 32 at a time", value("pass.c32", "polytls-pass", "cpu_ms"), 0.25, "ms"
    ),
    Goal(
        "2",
        "passthrough, one at a time, added p50",
        value("pass.c1", "polytls-pass", "added_p50_ms"),
        0.45,
        "ms",
    ),
    *(
        Goal(
            "2",
            f"MITM CPU a GB, {what}, to the yardstick",
            ratio(row, _OURS, "yardstick", "cpu_s_per_gb"),
            1.25,
            RATIO,
        )
        for row, what in _BULK
    ),
    Goal(
        "2",
        "MITM MB/s, download from nginx, to direct",
        ratio("mitm.bulk-nginx", _OURS, "direct", "mb_s"),
        0.9,
        RATIO,
        at_least=True,
    ),
    *(
        Goal(
            "2",
            f"MITM MB/s, {what}, to direct",
            ratio(row, _OURS, "direct", "mb_s"),
            0.9,
            RATIO,
            at_least=True,
        )
        for row, what in _BULK
    ),
    Goal(
        "2",
        "passthrough CPU a GB, download, to the yardstick",
        ratio("pass.bulk", "polytls-pass", "yardstick-pass", "cpu_s_per_gb"),
        1.15,
        RATIO,
    ),
    Goal("2", "1 KB to and fro, added p50", value("mitm.pingpong", _OURS, "added_p50_ms"), 0.06, "ms"),
    Goal(
        "2",
        "one at a time beside a download, added p99",
        value("mitm.busy", _OURS, "added_p99_ms"),
        3.0,
        "ms",
    ),
    Goal(
        "3",
        "idle MITM tunnels held and answering",
        value("mitm.idle", _OURS, "alive"),
        9900,
        "tunnels",
        at_least=True,
    ),
    Goal("3", "memory of one", value("mitm.idle", _OURS, "kb_per_tunnel"), 8, "KB"),
    Goal("3", "CPU of all of them", value("mitm.idle", _OURS, "idle_cpu_ms_per_s"), 1, "ms/s"),
    Goal(
        "3",
        "held with a chain of its own each",
        value("mitm.idle-chains", _OURS, "alive"),
        9900,
        "tunnels",
        at_least=True,
    ),
    Goal(
        "3",
        "memory of one with a chain of its own",
        value("mitm.idle-chains", _OURS, "kb_per_tunnel"),
        8,
        "KB",
    ),
    Goal("3", "CPU of all of them", value("mitm.idle-chains", _OURS, "idle_cpu_ms_per_s"), 1, "ms/s"),
    Goal(
        "3",
        "memory of an idle passthrough tunnel",
        value("pass.idle", "polytls-pass", "kb_per_tunnel"),
        3,
        "KB",
    ),
    Goal("3", "memory at the start (PSS)", value("mitm.idle", _OURS, "base_mb"), 40, "MB"),
    Goal(
        "5",
        "a page of 50 objects over 20 ms and 100 Mbit/s, to direct",
        value("net.page", _OURS, "ratio_to_direct"),
        1.05,
        RATIO,
    ),
    Goal(
        "5",
        "a download of 50 MB over it, to direct",
        value("net.download", _OURS, "ratio_to_direct"),
        1.05,
        RATIO,
    ),
    Goal(
        "6",
        "from the start to the end of the first tunnel",
        value("start", _OURS, "first_tunnel_ms"),
        300,
        "ms",
        asserted=False,
    ),
    Goal("6", "`polytls --version`", value("start", _OURS, "version_ms"), 100, "ms", asserted=False),
    Goal(
        TELEMETRY,
        "CPU a tunnel for OTLP over HTTP, one trace in ten",
        difference("mitm.otlp", "polytls-otlp-0.1", _OURS, "cpu_ms"),
        0.1,
        "ms",
    ),
    Goal(
        TELEMETRY,
        "the same with every trace",
        difference("mitm.otlp", "polytls-otlp-1.0", _OURS, "cpu_ms"),
        0.3,
        "ms",
    ),
    Goal(
        TELEMETRY,
        "memory at the start with OTLP over HTTP (PSS)",
        value("mitm.otlp-base", "polytls-otlp-1.0", "base_mb"),
        50,
        "MB",
    ),
    Goal("1-3", "tunnels through PolyTLS that failed, all rows", failures, 0, "tunnels"),
)


def judge(results: Results) -> list[Verdict]:
    """Every goal, in order."""
    return [Verdict(goal, goal.source(results)) for goal in GOALS]
