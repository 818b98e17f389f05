"""Rows with an order of their own: every exact profile, and the curve over threads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from polytls.profiles import Catalog
from tests.bench.loadgen import run_load
from tests.bench.measure import Bench, Sample, Spent, aim, measure, spending, values_of
from tests.bench.rounds import Budget, guarded
from tests.bench.rows import Kind, Row
from tests.bench.subjects import ALL, Subject, started

if TYPE_CHECKING:
    from tests.bench.spawn import Running

PROFILE_SECONDS = 0.4
YARDSTICK_EVERY = 6  # profiles; so that each has one near
DEAREST = 3  # profiles, measured again
DEAREST_ROUNDS = 4
THREADS = (1, 2, 4)
HEADER = "X-PolyTLS-Upstream-Profile"
PROFILE_PREFIX = "profile:"


def exact_profiles() -> list[str]:
    """The names of all built-in profiles whose hello is a template."""
    return [spec.name for spec in Catalog.load({}, "bench").specs() if spec.template is not None]


def run_special(bench: Bench, row: Row, budget: Budget) -> Iterator[Sample]:
    """A row whose kind is one of these."""
    yield from _profiles(bench, row, budget) if row.kind is Kind.PROFILES else _threads(bench, row, budget)


def _profiles(bench: Bench, row: Row, budget: Budget) -> Iterator[Sample]:
    """The yardstick, some profiles, the yardstick, and so on; each stretch is one round.

    The most of many single measurements is as likely a disturbed one, so those that seem dearest are measured
    again, each beside a yardstick of its own.
    """
    yardstick, polytls = ALL[row.reference], ALL[row.subjects[0]]
    with (
        started(yardstick, bench.origin, bench.programs, bench.scratch) as reference,
        started(polytls, bench.origin, bench.programs, bench.scratch) as proxy,
    ):
        short = dataclasses.replace(bench, seconds=PROFILE_SECONDS)

        def yardstick_of(at: int) -> Iterator[Sample]:
            return guarded(
                row.name, at, row.reference, budget, lambda: measure(short, row, at, yardstick, reference)
            )

        def profile_of(at: int, name: str) -> Iterator[Sample]:
            return guarded(
                row.name, at, PROFILE_PREFIX + name, budget, lambda: _profile(short, row, at, name, proxy)
            )

        names = exact_profiles()
        below, ratios = 0.0, dict[str, float]()
        for number, name in enumerate(names):
            at = number // YARDSTICK_EVERY
            if number % YARDSTICK_EVERY == 0:
                for sample in yardstick_of(at):
                    below = sample.values.get("cpu_ms", 0.0)
                    yield sample
            for sample in profile_of(at, name):
                ratios[name] = sample.values.get("cpu_ms", 0.0) / below if below else 0.0
                yield sample
        dearest = sorted(ratios, key=ratios.__getitem__)[-DEAREST:]
        for at, name in enumerate(dearest * DEAREST_ROUNDS, len(names)):  # rounds that are none of the above
            yield from yardstick_of(at)
            yield from profile_of(at, name)


def _profile(bench: Bench, row: Row, at: int, name: str, proxy: Running) -> Sample:
    arguments = [*aim(bench, ALL[row.subjects[0]], proxy, row), "--connect-field", f"{HEADER}: {name}"]
    run_load(bench.load_program, [*arguments, "--count", "16"])  # reads the profile, mints the leaf
    spent = Spent()
    with spending(bench, proxy, spent):
        report = run_load(bench.load_program, [*arguments, "--seconds", str(bench.seconds)])
    tunnels = report.tunnels
    values = values_of(Kind.TUNNELS, report, spent)
    return Sample(row.name, PROFILE_PREFIX + name, at, values, tunnels.ok, tunnels.failed, tunnels.failures)


def _threads(bench: Bench, row: Row, budget: Budget) -> Iterator[Sample]:
    """Each number of threads with a fresh proxy; values say what bounds them besides.

    `bound_cores`: tunnels a second that all cores could do, were proxy, origin and client all that they did.
    `bound_gil`: tunnels a second at which the first thread, the event loop's, has nothing left.
    """
    cores = len(os.sched_getaffinity(0))
    for count in THREADS:
        subject = ALL[row.subjects[0]].with_arguments(f"{row.subjects[0]}/{count}", f"--threads {count}")

        def once(subject: Subject = subject) -> Sample:
            with started(subject, bench.origin, bench.programs, bench.scratch) as proxy:
                measure(bench, row, 0, subject, proxy)  # warms it
                sample = measure(bench, row, 0, subject, proxy)
            values = dict(sample.values)
            if "cpu_ms" in values:
                together = values["cpu_ms"] + values["origin_ms"] + values["client_ms"]
                values["bound_cores"] = cores * 1000 / together
                values["bound_gil"] = 1000 / max(values["main_thread_ms"], 1e-9)
            return dataclasses.replace(sample, values=values)

        yield from guarded(row.name, 0, subject.name, budget, once)
