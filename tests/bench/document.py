"""Puts tables and plots into docs/performance.md, between its markers; the prose around them stays.

The generated part begins behind the line ``<!-- bench -->`` and ends before ``<!-- /bench -->``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.plot import Bar, Line, bars, lines
from tests.bench.spawn import BenchError
from tests.bench.table import MITM_SUBJECTS, PASS_SUBJECTS, label

if TYPE_CHECKING:
    from tests.bench.results import Results

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

_BARS: Sequence[tuple[str, str, str, Sequence[str], str, str]] = (
    ("mitm-cpu", "MITM, 32 at a time: CPU a tunnel", "ms", MITM_SUBJECTS, "mitm.c32", "cpu_ms"),
    ("mitm-cold", "MITM, names never seen: CPU a tunnel", "ms", MITM_SUBJECTS, "mitm.cold8", "cpu_ms"),
    ("mitm-added", "MITM, one at a time: added latency, p50", "ms", MITM_SUBJECTS, "mitm.c1", "added_p50_ms"),
    ("mitm-bulk", "MITM, download: CPU a GB", "s", MITM_SUBJECTS, "mitm.bulk", "cpu_s_per_gb"),
    ("mitm-idle", "MITM: memory of an idle tunnel", "KB", MITM_SUBJECTS, "mitm.idle", "kb_per_tunnel"),
    ("pass-cpu", "Passthrough, 32 at a time: CPU a tunnel", "ms", PASS_SUBJECTS, "pass.c32", "cpu_ms"),
)


def plots(results: Results) -> dict[str, str]:
    """SVG by file name; what was not measured has none."""
    made: dict[str, str] = {}
    for name, title, unit, subjects, row, metric in _BARS:
        found = [
            Bar(label(subject).replace("`", ""), value, subject.startswith("polytls"))
            for subject in subjects
            if (value := results.value(row, subject, metric)) is not None
        ]
        if found:
            made[f"{name}.svg"] = bars(title, unit, found)
    curve = _threads(results)
    if curve:
        made["threads.svg"] = lines("MITM, 32 at a time", "threads", "tunnels a second", curve)
    return made


def _threads(results: Results) -> list[Line]:
    row = "mitm.threads"
    made = []
    for metric, text in (
        ("per_second", "measured"),
        ("bound_cores", "bound by all cores"),
        ("bound_gil", "bound by Python's thread"),
    ):
        points = [
            (float(subject.rpartition("/")[2]), value)
            for subject in results.subjects(row)
            if (value := results.value(row, subject, metric)) is not None
        ]
        if points:
            made.append(Line(text, points))
    return made


def replaced(document: str, block: str) -> str:
    """`document` with another generated part. Raises `BenchError` when it has no place for one."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"docs/performance.md has no lines {BEGIN} and {END} to write between")
    return f"{before}{begin}\n\n{block.strip()}\n\n{end}{after}"


def write_document(document: Path, report: str, pictures: Mapping[str, str]) -> None:
    """Tables between the markers, plots into the directory beside that has the document's name."""
    directory = document.with_suffix("")
    directory.mkdir(exist_ok=True)
    for name, text in pictures.items():
        (directory / name).write_text(text, encoding="utf-8")
    links = "\n".join(f"![{name.removesuffix('.svg')}]({directory.name}/{name})" for name in pictures)
    block = f"{report.strip()}\n\n{links}" if links else report
    document.write_text(replaced(document.read_text(encoding="utf-8"), block), encoding="utf-8")
