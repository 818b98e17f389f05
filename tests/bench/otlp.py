"""What telemetry costs: proxies that export over HTTP beside one that does not, in turns within a round.

The collector is a process of its own on 127.0.0.1, and its CPU is not the proxy's. Exporting goes on when a
tunnel has ended, so CPU is read until the collector has all that the load brought about, and at least until
what waits for company in a batch has been sent; for the plain one just as long. The settings are those that a
user gets, `sampling` aside.

What is lost costs nothing, so nothing may be: a measurement whose tunnels the collector did not get is none.
Metrics are sent once a minute and when the proxy ends; only then can it be seen that they counted all.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.bench.collector import Collector, Counts, collector
from tests.bench.loadgen import run_load
from tests.bench.machine import memory
from tests.bench.measure import Bench, Sample, Spent, aim, measure, spending, values_of
from tests.bench.rounds import Budget, guarded, present, rotated, say
from tests.bench.rows import Kind, Row
from tests.bench.spawn import BenchError
from tests.bench.subjects import Subject, started

if TYPE_CHECKING:
    from tests.bench.loadgen import Report
    from tests.bench.spawn import Running

_WARM_TUNNELS = 100
_BATCHED_S = 1.4  # a batch that is not full waits 1 s, `plan.DELAY_SECONDS`; then it is encoded
_SETTLE_S = 1.0  # after a start, until memory is what it stays
_EXPORTED_S = 30.0  # for all to arrive, on a machine that is busy
_LOOK_EVERY_S = 0.02

SENDS = MappingProxyType(
    {"polytls-otlp-1.0": ("traced", "logged"), "polytls-otlp-0.1": ("logged",), "polytls-metrics": ()}
)
"""By subject, the counts of the collector that go up with every tunnel at once."""


def run_otlp(bench: Bench, rows: Sequence[Row], rounds: int, budget: Budget) -> Iterator[Sample]:
    """The rows with a collector. Raises `BenchError` when that does not start."""
    rows = [row for row in rows if len(present(row)) == len(row.subjects)]  # the plain one alone says nothing
    if not rows or budget.left() < 0:
        return
    with collector() as found:
        for row in rows:
            if row.kind is Kind.BASE:
                yield from _base(bench, row, found, budget)
        fast = [row for row in rows if row.kind is not Kind.BASE]
        if fast:
            yield from _Rounds(bench, found, budget).run(fast, rounds)


class _Rounds:
    """Rows whose subjects stay up for all of them."""

    def __init__(self, bench: Bench, found: Collector, budget: Budget) -> None:
        self._bench = bench
        self._collector = found
        self._budget = budget
        self._tunnels: Counter[str] = Counter()  # through each subject

    def run(self, rows: Sequence[Row], rounds: int) -> Iterator[Sample]:
        bench, url = self._bench, self._collector.url
        subjects = {subject.name: subject for row in rows for subject in present(row)}
        with contextlib.ExitStack() as stack:
            up = {
                subject.name: stack.enter_context(
                    started(subject, bench.origin, bench.programs, bench.scratch, collector=url)
                )
                for subject in subjects.values()
            }
            for name, proxy in up.items():
                self._load(rows[0], subjects[name], proxy, "--count", str(_WARM_TUNNELS))
            time.sleep(_BATCHED_S)
            for number in range(rounds):
                for row in rows:
                    for subject in rotated(present(row), number):
                        assert subject is not None
                        yield from self._once(row, number, subject, up[subject.name])
        yield from self._uncounted(rows[0], rounds)

    def _once(self, row: Row, number: int, subject: Subject, proxy: Running) -> Iterator[Sample]:
        def once() -> Sample:
            if row.kind is Kind.LATENCY:
                return measure(self._bench, row, number, subject, proxy)
            return self._exported(row, number, subject, proxy)

        yield from guarded(row.name, number, subject.name, self._budget, once)

    def _exported(self, row: Row, number: int, subject: Subject, proxy: Running) -> Sample:
        """CPU until all is exported. Raises `BenchError` where something does not arrive."""
        before, began, spent = self._collector.counts(subject.name), time.monotonic(), Spent()
        with spending(self._bench, proxy, spent):
            report = self._load(row, subject, proxy, "--seconds", str(self._bench.seconds))
            tunnels = report.tunnels
            wait_exported(self._collector, subject.name, before, tunnels.ok)
        elapsed = time.monotonic() - began
        values = values_of(row.kind, report, spent)
        values["other_share"] = max(0.0, spent.other_share - report.client_cpu_s / elapsed)
        after = self._collector.counts(subject.name)
        if subject.name in SENDS and tunnels.ok:
            values["spans_per_tunnel"] = (after.spans - before.spans) / tunnels.ok
            values["requests"] = after.requests - before.requests
        return Sample(row.name, subject.name, number, values, tunnels.ok, tunnels.failed, tunnels.failures)

    def _load(self, row: Row, subject: Subject, proxy: Running, *arguments: str) -> Report:
        report = run_load(self._bench.load_program, [*aim(self._bench, subject, proxy, row), *arguments])
        self._tunnels[subject.name] += report.tunnels.ok
        return report

    def _uncounted(self, row: Row, number: int) -> Iterator[Sample]:
        """Errors, once the proxies have ended: tunnels that are missing in their last metrics."""
        for name in SENDS:
            counted, tunnels = self._collector.counts(name).counted, self._tunnels[name]
            if counted < tunnels:
                error = f"its metrics counted {counted} of {tunnels} tunnels"
                say(f"# {row.name} {name}: {error}")
                yield Sample(row.name, name, number, {}, 0, 0, error=error)


def wait_exported(found: Collector, name: str, before: Counts, tunnels: int) -> None:
    """Until the collector has so many more than `before`, and batches are empty. Raises `BenchError`."""
    began = time.monotonic()
    time.sleep(_BATCHED_S)
    for count in SENDS.get(name, ()):
        while (arrived := getattr(found.counts(name), count) - getattr(before, count)) < tunnels:
            if time.monotonic() - began > _EXPORTED_S:
                raise BenchError(f"the collector got {arrived} of {tunnels} tunnels ({count})")
            time.sleep(_LOOK_EVERY_S)


def _base(bench: Bench, row: Row, found: Collector, budget: Budget) -> Iterator[Sample]:
    """One after the other, since pages that several share would count for a part each."""
    for subject in present(row):

        def once(subject: Subject = subject) -> Sample:
            with started(subject, bench.origin, bench.programs, bench.scratch, collector=found.url) as proxy:
                time.sleep(_SETTLE_S)
                base = memory(proxy.pids())
                arguments = [*aim(bench, subject, proxy, row), "--count", str(_WARM_TUNNELS)]
                tunnels = run_load(bench.load_program, arguments).tunnels
                time.sleep(_BATCHED_S)
                warm = memory(proxy.pids())
            values = {"base_mb": base.pss_kb / 1024, "warm_mb": warm.pss_kb / 1024}
            return Sample(row.name, subject.name, 0, values, tunnels.ok, tunnels.failed, tunnels.failures)

        yield from guarded(row.name, 0, subject.name, budget, once)
