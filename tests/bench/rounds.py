"""The order of measurements: rounds that visit all subjects, each in another order (A B C, B C A, ...).

So a ratio is taken between neighbours in time, and what disturbs the machine for longer disturbs all of them.
A budget bounds the whole: what does not fit in is left out, and said so.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tests.bench.measure import Bench, Sample, measure, measure_held
from tests.bench.rows import Kind, Row
from tests.bench.spawn import BenchError, Running
from tests.bench.subjects import ALL, Subject, available, started


class Budget:
    """Seconds that are left for all."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def present(row: Row) -> tuple[Subject, ...]:
    """The row's subjects that can be measured on this machine."""
    return tuple(ALL[name] for name in row.subjects if available(ALL[name]) is None)


def rotated(items: Sequence[Subject | None], by: int) -> list[Subject | None]:
    """The same in an order that begins elsewhere."""
    at = by % len(items) if items else 0
    return [*items[at:], *items[:at]]


def run_fast(bench: Bench, rows: Sequence[Row], rounds: int, budget: Budget) -> Iterator[Sample]:
    """Rows whose subjects stay up for all of them."""
    subjects = {subject.name: subject for row in rows for subject in present(row)}
    with contextlib.ExitStack() as stack:
        up: dict[str, Running] = {}
        for subject in subjects.values():
            try:
                up[subject.name] = stack.enter_context(
                    started(subject, bench.origin, bench.programs, bench.scratch)
                )
            except BenchError as error:
                say(f"{subject.name} is left out: {error}")
        for number in range(rounds):
            for row in rows:
                order: list[Subject | None] = [s for s in present(row) if s.name in up]
                if row.direct:
                    order.append(None)
                for one in rotated(order, number):
                    once = functools.partial(measure, bench, row, number, one, up[one.name] if one else None)
                    yield from guarded(row.name, number, one.name if one else "direct", budget, once)


def run_held(bench: Bench, rows: Sequence[Row], budget: Budget) -> Iterator[Sample]:
    """Rows that each need a fresh subject; one round."""
    for row in rows:
        for subject in present(row):

            def once(row: Row = row, subject: Subject = subject) -> Sample:
                with started(subject, bench.origin, bench.programs, bench.scratch) as proxy:
                    return measure_held(bench, row, 0, subject, proxy)

            yield from guarded(row.name, 0, subject.name, budget, once)


def guarded(
    row: str, number: int, subject: str, budget: Budget, once: Callable[[], Sample]
) -> Iterator[Sample]:
    """One measurement, if there is time for it; one that fails is a sample with an error."""
    if budget.left() < 0:
        say(f"# {row} {subject}: left out, the time is up")
        return
    try:
        sample = once()
    except BenchError as error:
        sample = Sample(row, subject, number, {}, 0, 0, error=str(error))
    say(f"# round {number + 1} {row} {subject}: {line_of(sample)}")
    yield sample


def line_of(sample: Sample) -> str:
    """One measurement for people who wait."""
    if sample.error:
        return sample.error
    values = ", ".join(f"{name} {value:.3g}" for name, value in sample.values.items())
    failed = f", FAILED {sample.failed} {dict(sample.failures)}" if sample.failed else ""
    return f"{sample.ok} ok{failed}; {values}"


def split_rows(rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Fast rows, held rows, and those with a way of their own. Rows with a collector are in none."""
    rows = [row for row in rows if not row.collector]
    special = (Kind.PROFILES, Kind.THREADS)
    return (
        [row for row in rows if row.kind is not Kind.HELD and row.kind not in special],
        [row for row in rows if row.kind is Kind.HELD],
        [row for row in rows if row.kind in special],
    )
