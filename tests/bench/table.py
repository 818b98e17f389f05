"""Results as Markdown tables: for the terminal, and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.goals import RATIO, Verdict
from tests.bench.results import Results
from tests.bench.special import PROFILE_PREFIX
from tests.bench.subjects import ALL

Cells = Sequence[str]
NOTHING = "-"
QUIET_CORES = 0.1
"""Up to so much beside the measurements is no disturbance: the harness itself, the kernel's own work."""


def markdown(head: Cells, rows: Sequence[Cells]) -> str:
    """A table whose columns are as wide as they have to be: the first to the left, the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Cells) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)),
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def shown(value: float | None, digits: int = 2) -> str:
    """A number with so many digits behind the point, fewer for large ones."""
    if value is None:
        return NOTHING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{digits}f}"


def label(subject: str) -> str:
    """A subject for people."""
    if subject in ALL:
        return ALL[subject].what
    return "direct" if subject == "direct" else subject.removeprefix(PROFILE_PREFIX)


Column = tuple[str, Callable[[Results, str], str]]


def table(results: Results, subjects: Sequence[str], columns: Sequence[Column]) -> str:
    """One row a subject; subjects and columns without any value are left out."""
    rows = [[label(subject), *(cell(results, subject) for _, cell in columns)] for subject in subjects]
    rows = [row for row in rows if any(cell.strip(NOTHING + " /") for cell in row[1:])]
    kept = [i for i in range(len(columns) + 1) if i == 0 or any(row[i].strip(NOTHING + " /") for row in rows)]
    if not rows:
        return ""
    head = ["", *(name for name, _ in columns)]
    return markdown([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def metric(row: str, name: str, digits: int = 2) -> Callable[[Results, str], str]:
    return lambda results, subject: shown(results.value(row, subject, name), digits)


def pair(row: str, first: str, second: str, digits: int = 2) -> Callable[[Results, str], str]:
    one, two = metric(row, first, digits), metric(row, second, digits)
    return lambda results, subject: f"{one(results, subject)} / {two(results, subject)}"


def ratio(row: str, reference: str, name: str) -> Callable[[Results, str], str]:
    return lambda results, subject: shown(results.ratio(row, subject, reference, name))


def difference(row: str, reference: str, name: str, digits: int = 2) -> Callable[[Results, str], str]:
    """Above the reference; the reference's own cell stays empty."""
    return lambda results, subject: shown(
        None if subject == reference else results.difference(row, subject, reference, name), digits
    )


MITM_SUBJECTS = (
    "yardstick",
    "yardstick-pq",
    "polytls-x25519",
    "polytls-ecdsa-root",
    "polytls",
    "polytls-chrome",
    "mitmproxy",
)
MITM_COLUMNS: Sequence[Column] = (
    ("CPU ms a tunnel, 32 at a time", metric("mitm.c32", "cpu_ms")),
    ("to the yardstick", ratio("mitm.c32", "yardstick", "cpu_ms")),
    ("names never seen", metric("mitm.cold8", "cpu_ms")),
    ("to the yardstick", ratio("mitm.cold8", "yardstick", "cpu_ms")),
    ("added ms p50 / p99, one at a time", pair("mitm.c1", "added_p50_ms", "added_p99_ms")),
    (
        "CPU s a GB h1 / h2",
        lambda r, s: " / ".join(metric(f"mitm.bulk{x}", "cpu_s_per_gb")(r, s) for x in ("", "-h2")),
    ),
    ("KB an idle tunnel", metric("mitm.idle", "kb_per_tunnel", 1)),
    ("MB at the start (PSS)", metric("mitm.idle", "base_mb", 1)),
)
PASS_SUBJECTS = ("yardstick-pass", "polytls-pass", "asyncio-pass")
PASS_COLUMNS: Sequence[Column] = (
    ("CPU ms a tunnel, 32 at a time", metric("pass.c32", "cpu_ms")),
    ("added ms p50 / p99, one at a time", pair("pass.c1", "added_p50_ms", "added_p99_ms")),
    ("CPU s a GB", metric("pass.bulk", "cpu_s_per_gb")),
    ("MB/s", metric("pass.bulk", "mb_s", 0)),
    ("KB an idle tunnel", metric("pass.idle", "kb_per_tunnel", 1)),
    ("MB at the start (PSS)", metric("pass.idle", "base_mb", 1)),
)
FLOW_SUBJECTS = ("direct", "yardstick", "polytls-x25519", "mitmproxy")
FLOW_COLUMNS: Sequence[Column] = (
    ("MB/s h1", metric("mitm.bulk", "mb_s", 0)),
    ("h2", metric("mitm.bulk-h2", "mb_s", 0)),
    ("upload", metric("mitm.upload", "mb_s", 0)),
    ("both", metric("mitm.both", "mb_s", 0)),
    ("from nginx", metric("mitm.bulk-nginx", "mb_s", 0)),
    ("CPU s a GB, upload", metric("mitm.upload", "cpu_s_per_gb")),
    ("both", metric("mitm.both", "cpu_s_per_gb")),
    (
        "1 KB to and fro, added us p50",
        lambda r, s: shown(_times(r.value("mitm.pingpong", s, "added_p50_ms"), 1000), 0),
    ),
    ("beside a download, ms p50 / p99", pair("mitm.busy", "p50_ms", "p99_ms")),
    ("page of 50 objects over 20 ms, to direct", metric("net.page", "ratio_to_direct", 3)),
    ("50 MB over it, to direct", metric("net.download", "ratio_to_direct", 3)),
)
THREAD_COLUMNS: Sequence[Column] = (
    ("tunnels a second", metric("mitm.threads", "per_second", 0)),
    ("CPU ms a tunnel", metric("mitm.threads", "cpu_ms")),
    ("bound by all cores", metric("mitm.threads", "bound_cores", 0)),
    ("bound by Python's thread", metric("mitm.threads", "bound_gil", 0)),
)
OTLP_SUBJECTS = (
    "polytls-x25519",
    "polytls-otlp-1.0",
    "polytls-otlp-0.1",
    "polytls-metrics",
    "polytls-otlp-stuck",
)
OTLP_COLUMNS: Sequence[Column] = (
    ("CPU ms a tunnel, 32 at a time", metric("mitm.otlp", "cpu_ms", 3)),
    ("of that for telemetry", difference("mitm.otlp", "polytls-x25519", "cpu_ms", 3)),
    ("spans a tunnel", metric("mitm.otlp", "spans_per_tunnel", 1)),
    ("added ms p50 / p99, one at a time", pair("mitm.otlp-c1", "added_p50_ms", "added_p99_ms")),
    ("p99 above plain's", difference("mitm.otlp-c1", "polytls-x25519", "added_p99_ms")),
    ("MB at the start (PSS)", metric("mitm.otlp-base", "base_mb", 1)),
    ("after 100 tunnels", metric("mitm.otlp-base", "warm_mb", 1)),
)


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """Each goal with what was measured."""
    rows = []
    for verdict in verdicts:
        goal, unit = verdict.goal, "" if verdict.goal.unit == RATIO else f" {verdict.goal.unit}"
        times = "" if unit else " x"
        bound = ("at least " if goal.at_least else "at most ") + f"{goal.limit:g}{unit or times}"
        measured = NOTHING if verdict.measured is None else shown(verdict.measured) + (unit or times)
        rows.append([goal.text, goal.promise, bound, measured, verdict.word])
    return markdown(["goal", "promise", "limit", "measured", ""], rows)


def report(results: Results, verdicts: Sequence[Verdict]) -> str:
    """Everything, as it goes between the markers of docs/performance.md and to the terminal."""
    profiles = [name for name in results.subjects("mitm.profiles") if name.startswith(PROFILE_PREFIX)]
    threads = results.subjects("mitm.threads")
    parts = [
        f"{results.taken}, commit {results.commit}, {results.seconds:.0f} s: {results.machine}.",
        _disturbed(results),
        *(f"{name} {version}." for name, version in results.versions.items()),
        "**MITM**",
        table(results, MITM_SUBJECTS, MITM_COLUMNS),
        "**Passthrough**",
        table(results, PASS_SUBJECTS, PASS_COLUMNS),
        "**Bytes and messages, MITM**",
        table(results, FLOW_SUBJECTS, FLOW_COLUMNS),
        "**Telemetry, MITM**",
        table(results, OTLP_SUBJECTS, OTLP_COLUMNS),
        "**Threads of the engine, MITM, 32 at a time**",
        table(results, threads, THREAD_COLUMNS),
        "**Exact profiles, MITM, 32 at a time**",
        _profiles(results, profiles),
        "**Start**",
        _start(results),
        "**Goals**",
        goals_table(verdicts),
    ]
    lines: list[str] = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part and not (part.startswith("**") and not following):  # no title without a table
            lines += [part, ""]
    said = [*results.notes, *results.errors()]
    if said:
        lines += ["Left out or failed:", "", *(f"* {one}" for one in said), ""]
    return "\n".join(lines).rstrip() + "\n"


def _disturbed(results: Results) -> str:
    cores = results.disturbance()
    if cores < QUIET_CORES:
        return ""
    return (
        f"The machine was busy with other things: {cores:.1f} of its {results.cores} cores. "
        "CPU and memory say something nevertheless; latency, tunnels a second and MB/s hardly do."
    )


def _profiles(results: Results, names: Sequence[str]) -> str:
    found = []
    for name in names:
        times = results.ratio("mitm.profiles", name, "yardstick", "cpu_ms")
        cpu = results.value("mitm.profiles", name, "cpu_ms")
        if times is not None and cpu is not None:
            found.append((times, cpu, name))
    if not found:
        return ""
    found.sort()
    shown_ones = (("least", found[0]), ("median", found[len(found) // 2]), ("most", found[-1]))
    rows = [[f"{word}: `{label(name)}`", shown(cpu), shown(times)] for word, (times, cpu, name) in shown_ones]
    return markdown([f"of {len(found)}", "CPU ms a tunnel", "to the yardstick"], rows)


def _start(results: Results) -> str:
    names = {
        "python_ms": "the interpreter alone",
        "version_ms": "`polytls --version`",
        "first_tunnel_ms": "`polytls serve` to the end of the first tunnel",
    }
    rows = [
        [text, shown(value, 0)]
        for name, text in names.items()
        if (value := results.value("start", "polytls-x25519", name)) is not None
    ]
    return markdown(["", "ms"], rows) if rows else ""


def _times(value: float | None, by: float) -> float | None:
    return None if value is None else value * by
