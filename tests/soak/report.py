"""The soak's report: one value, written as JSON, as a table, and into docs/performance.md between its
markers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.spawn import BenchError
from tests.soak.judge import Checkpoint, slope_kb
from tests.soak.ledger import NO_HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.machine import Machine
    from tests.soak.load import Round

BEGIN, END = "<!-- soak -->", "<!-- /soak -->"


@dataclass(frozen=True, slots=True)
class Storm:
    """The round in which system calls were struck."""

    struck: int
    tunnels: int
    failed: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of a soak. The first checkpoint is the end of the warm-up."""

    machine: Machine
    revision: str
    seed: int
    rounds: Sequence[Round]
    checkpoints: Sequence[Checkpoint]
    storm: Storm
    wrong: Sequence[str]

    @property
    def tunnels(self) -> int:
        return sum(one.tunnels for one in self.rounds)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.rounds)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "machine": asdict(report.machine),
        "revision": report.revision,
        "seed": report.seed,
        "tunnels": report.tunnels,
        "seconds": round(report.seconds, 1),
        "slope_kb_per_100k": round(slope_kb(report.checkpoints), 1),
        # Not asdict, which makes another kind of mapping of a Counter.
        "rounds": [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in report.rounds],
        "checkpoints": [asdict(one) for one in report.checkpoints],
        "storm": asdict(report.storm),
        "wrong": list(report.wrong),
    }


def table(report: Report) -> str:
    """Markdown."""
    first, last = report.checkpoints[0].snapshot, report.checkpoints[-1].snapshot
    moved = sum(one.bytes_down + one.bytes_up for one in report.rounds)
    rate, reloads = report.tunnels / report.seconds, sum(one.reloads for one in report.rounds)
    books = [f"{found['missing']}, {found['twice']}" for found in (first, last)]
    shown = _checkpoints(report.checkpoints)
    made = (
        f"{report.tunnels:,} MITM tunnels in {report.seconds:.0f} s ({rate:.0f} a second), "
        f"{moved / 1e9:.1f} GB of bodies compared byte by byte, "
        f"{reloads:,} reloads of the configuration meanwhile; seed {report.seed}; {report.machine}; "
        f"{report.revision}."
    )
    memory = (
        f"Memory at rest grew by {slope_kb(report.checkpoints):+.0f} KB for 100,000 tunnels (a line through "
        f"{len(report.checkpoints)} checkpoints: {shown})."
    )
    stormy = report.storm
    storm = (
        f"In one more round, {stormy.struck:,} system calls of the engine were interrupted, cut short or put "
        f"off; of its {stormy.tunnels:,} tunnels {stormy.failed} failed otherwise than they were meant to."
    )
    rows = [("descriptors", "descriptors"), ("threads", "threads"), ("pss_kb", "memory, PSS in KB")]
    counters = ("streams", "operations", "buffered_bytes", "impossible")
    lines = [
        made,
        "",
        "| | after the warm-up | at the end |",
        "|---|---|---|",
        *[f"| {what} | {first[name]:,} | {last[name]:,} |" for name, what in rows],
        *[f"| engine: {name} | {first['engine'][name]} | {last['engine'][name]} |" for name in counters],
        f"| records missing, or twice | {books[0]} | {books[1]} |",
        "",
        memory,
        "",
        storm,
        "",
        "| what clients did | tunnels | how the proxy's records end |",
        "|---|---|---|",
        *_behaviours(report),
        "",
        "Everything held." if not report.wrong else "**Did not hold:** " + "; ".join(report.wrong),
    ]
    return "\n".join(lines)


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    step = max(1, (len(checkpoints) + 7) // 8)
    shown = [*checkpoints[:-1:step], checkpoints[-1]]
    return ", ".join(f"{one.pss_kb / 1024:.1f} MB after {one.tunnels:,}" for one in shown)


def _behaviours(report: Report) -> list[str]:
    did: Counter[str] = Counter()
    for one in report.rounds:
        did.update(one.by_label)
    endings: dict[str, list[str]] = {}
    for label, outcome, count in report.checkpoints[-1].snapshot["counts"]:
        endings.setdefault(label, []).append(f"`{outcome}` {count:,}")
    rows = [f"| {label} | {did[label]:,} | {', '.join(endings.get(label, ['-']))} |" for label in sorted(did)]
    if NO_HOST in endings:
        rows.append(f"| (no host was named) | | {', '.join(endings[NO_HOST])} |")
    unspoken = report.checkpoints[-1].snapshot["unspoken"]
    return [*rows, f"| (reset before a byte was sent) | | no record: {unspoken:,} |"]


def write_document(document: Path, block: str) -> None:
    """Raises `BenchError` when the document has no place for it."""
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{document.name} has no lines {BEGIN} and {END} to write between")
    document.write_text(f"{before}{begin}\n\n{block.strip()}\n\n{end}{after}", encoding="utf-8")
