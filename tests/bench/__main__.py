"""`make bench`: measures PolyTLS beside the yardstick and its peers, and says which goals are met.

Everything stays on 127.0.0.1, or in network namespaces of its own, and is bounded in time. Results go to
build/bench/results.json and report.md; --write-docs puts them into docs/performance.md as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import document, network, otlp, results, rounds, special, startup, table
from tests.bench.goals import Verdict, judge
from tests.bench.machine import this_machine
from tests.bench.measure import Bench, Sample
from tests.bench.nginx import nginx
from tests.bench.rows import ROWS, Kind, Row, selected
from tests.bench.spawn import BenchError, origin
from tests.bench.subjects import ALL, ROOT, available, version_of

OUTPUT = ROOT / "build" / "bench"
DOCUMENT = ROOT / "docs" / "performance.md"
BUDGET_S = 560.0  # all of it in ten minutes, with what ends after the budget


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all that was asked for was measured; 1: something could not be; 2: nothing could."""
    options = _options(arguments)
    try:
        if options.render:
            found = results.read(options.render)
        else:
            found = run(options)
            OUTPUT.mkdir(parents=True, exist_ok=True)
            results.write(found, OUTPUT / "results.json", {"goals": _as_json(judge(found))})
        verdicts = judge(found)
        report = table.report(found, verdicts)
        (OUTPUT / "report.md").write_text(report, encoding="utf-8")
        print(report)
        if options.write_docs:
            document.write_document(DOCUMENT, report, document.plots(found))
    except (BenchError, results.FormatError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 2
    met = [verdict.met for verdict in verdicts]
    print(f"goals: {met.count(True)} met, {met.count(False)} not met, {met.count(None)} not measured")
    return 1 if any(sample.error for sample in found.samples) else 0


def run(options: argparse.Namespace) -> results.Results:
    """Measure. Raises `BenchError`."""
    names = selected(options.only or ())
    if not (options.programs / "bench-load").exists():
        raise BenchError(f"there are no programs in {options.programs}; build them with `make bench-build`")
    machine, began = this_machine(), time.monotonic()
    rounds.say(f"# {machine}")
    peers = [subject for subject in ALL.values() if subject.peer]
    notes = [f"{subject.name}: {why}" for subject in ALL.values() if (why := available(subject))]
    scratch = Path(tempfile.mkdtemp(prefix="polytls-bench-"))
    scratch.chmod(0o755)  # nginx's worker is another user
    try:
        with origin(options.programs / "bench-origin", scratch / "origin") as upstream:
            bench = Bench(options.programs, upstream, scratch, options.seconds)
            samples = tuple(_measure(bench, names, options, notes))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results.Results(
        taken=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        machine=str(machine),
        cores=machine.cores,
        commit=_commit(),
        versions={peer.name: version for peer in peers if (version := version_of(peer))},
        seconds=time.monotonic() - began,
        notes=tuple(notes),
        samples=samples,
    )


def _measure(
    bench: Bench, names: frozenset[str], options: argparse.Namespace, notes: list[str]
) -> Iterator[Sample]:
    budget = rounds.Budget(options.budget)
    fast, held, others = rounds.split_rows([row for row in ROWS if row.name in names])
    from_nginx = [row for row in fast if row.nginx]
    yield from rounds.run_fast(bench, [row for row in fast if not row.nginx], options.rounds, budget)
    yield from _reported(_from_nginx(bench, from_nginx, options.rounds, budget), "nginx", notes)
    if "start" in names:
        yield from _reported(_told(startup.measure_start(bench)), "start", notes)
    if any(journey.row in names for journey in network.JOURNEYS):
        if (why := network.why_not()) is not None:
            notes.append(f"net.*: {why}")
        elif budget.left() < 0:
            notes.append("net.*: the time was up")
        else:
            found = network.measure_network(bench.programs, bench.scratch, names)
            yield from _reported(_told(found), "net", notes)
    with_collector = [row for row in ROWS if row.name in names and row.collector]
    yield from _reported(otlp.run_otlp(bench, with_collector, options.rounds, budget), "mitm.otlp", notes)
    # The dearest come last: they are what a slow machine leaves out.
    for kind in (Kind.THREADS, Kind.HELD, Kind.PROFILES):
        if kind is Kind.HELD:
            yield from rounds.run_held(bench, held, budget)
        for row in others:
            if row.kind is kind:
                yield from special.run_special(bench, row, budget)
    if budget.left() < 0:
        notes.append("some measurements: the time was up")


def _from_nginx(bench: Bench, rows: Sequence[Row], rounds_: int, budget: rounds.Budget) -> Iterator[Sample]:
    if rows:
        with nginx(bench.programs / "bench-origin", bench.scratch / "nginx") as upstream:
            other = dataclasses.replace(bench, origin=upstream)
            yield from rounds.run_fast(other, rows, rounds_, budget)


def _reported(samples: Iterator[Sample], what: str, notes: list[str]) -> Iterator[Sample]:
    try:
        yield from samples
    except BenchError as error:
        notes.append(f"{what}: {error}")


def _told(samples: Iterator[Sample]) -> Iterator[Sample]:
    for sample in samples:
        rounds.say(f"# {sample.row} {sample.subject}: {rounds.line_of(sample)}")
        yield sample


def _as_json(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    return [
        {
            "promise": verdict.goal.promise,
            "text": verdict.goal.text,
            "limit": verdict.goal.limit,
            "at_least": verdict.goal.at_least,
            "unit": verdict.goal.unit,
            "measured": verdict.measured,
            "met": verdict.met,
        }
        for verdict in verdicts
    ]


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", action="append", metavar="ROW", help="rows to measure, as mitm.c32 or 'pass.*'; repeatable")
    add("--rounds", type=int, default=3, help="interleaved rounds (3)")
    add("--seconds", type=float, default=1.2, help="of one measurement (1.2)")
    add(
        "--budget",
        type=float,
        default=BUDGET_S,
        help=f"seconds, after which rows are left out ({BUDGET_S:.0f})",
    )
    add(
        "--programs",
        type=Path,
        default=OUTPUT / "bin",
        help="where the native programs are (build/bench/bin)",
    )
    add("--render", type=Path, metavar="FILE", help="measure nothing: show the results in FILE")
    add("--write-docs", action="store_true", help="write tables and plots into docs/performance.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
