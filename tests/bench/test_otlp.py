"""The collector of the bench counts right, and a round of telemetry's row finds everything exported."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench import otlp
from tests.bench.goals import TELEMETRY, judge
from tests.bench.measure import Bench
from tests.bench.rounds import Budget
from tests.bench.rows import ROWS, Row
from tests.bench.samples import results, sample
from tests.bench.spawn import BenchError, origin
from tests.bench.subjects import ALL, ROOT, STUCK, available
from tests.bench.table import report

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is not installed")

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.bench.collector import Collector, Counts, collector

if TYPE_CHECKING:
    from tests.bench.results import Results

PROGRAMS = ROOT / "build" / "bench" / "bin"


@pytest.fixture(scope="module")
def found() -> Iterator[Collector]:
    with collector() as one:
        yield one


def post(found: Collector, path: str, body: bytes) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{found.url}/{path}", body)) as answer:
        content: bytes = answer.read()
    return content


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def test_the_collector_counts_by_exporter(found: Collector) -> None:
    traces, logs, metrics = (
        ExportTraceServiceRequest(),
        ExportLogsServiceRequest(),
        ExportMetricsServiceRequest(),
    )
    scope = traces.resource_spans.add().scope_spans.add()
    scope.spans.add(name="CONNECT a:1")
    scope.spans.add(name="head", parent_span_id=bytes(7) + b"\1")
    records = logs.resource_logs.add().scope_logs.add().log_records
    records.add(event_name="polytls.tunnel")
    records.add(event_name="polytls.warned")
    ended = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="polytls.tunnels.ended")
    ended.sum.data_points.add(as_int=3)
    ended.sum.data_points.add(as_int=4)
    for signal, message in (("traces", traces), ("logs", logs), ("metrics", metrics)):
        assert post(found, f"one/v1/{signal}", message.SerializeToString()) == b""
    assert found.counts("one") == Counts(requests=3, spans=2, traced=1, logged=1, counted=7, metrics=1)
    assert found.counts("two") == Counts()


@pytest.mark.parametrize(("path", "body"), [("x/v1/profiles", b""), ("x/v1/traces", b"\xff\xff")])
def test_what_is_no_otlp_is_refused(found: Collector, path: str, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(found, path, body)
    assert found.counts("x") == Counts()


def test_one_that_is_stuck_takes_and_never_answers(found: Collector) -> None:
    """The next one is answered while it waits."""
    with socket.create_connection(("127.0.0.1", found.port)) as waiting:
        waiting.sendall(f"POST /polytls-{STUCK}/v1/logs HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert found.counts(f"polytls-{STUCK}") == Counts()
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)


def test_what_does_not_arrive_is_an_error(found: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_EXPORTED_S", 0.0)
    monkeypatch.setattr(otlp, "_BATCHED_S", 0.0)
    otlp.wait_exported(found, "polytls-x25519", Counts(), 5)  # who sends nothing is not waited for
    with pytest.raises(BenchError, match=r"got 0 of 5 tunnels \(traced\)"):
        otlp.wait_exported(found, "polytls-otlp-1.0", Counts(), 5)


def test_a_round_exports_every_tunnel(tmp_path: Path) -> None:
    if not (PROGRAMS / "bench-load").exists():
        pytest.skip("the bench is not built: `make bench-build`")
    with origin(PROGRAMS / "bench-origin", tmp_path / "origin") as upstream:
        bench = Bench(PROGRAMS, upstream, tmp_path, seconds=0.2)
        samples = list(otlp.run_otlp(bench, [row("mitm.otlp")], 1, Budget(300)))
    assert [one.error for one in samples] == [""] * len(samples)  # the last metrics counted all, too
    assert {one.subject for one in samples} == set(row("mitm.otlp").subjects)
    values = {one.subject: one.values for one in samples}
    assert all(one.ok > 0 and one.failed == 0 for one in samples)
    # The tunnel's own, and head, connect, hello, two handshakes, relay; resolve or leaf besides.
    assert values["polytls-otlp-1.0"]["spans_per_tunnel"] >= 7
    assert values["polytls-otlp-0.1"]["spans_per_tunnel"] < values["polytls-otlp-1.0"]["spans_per_tunnel"]
    assert values["polytls-metrics"]["spans_per_tunnel"] == 0


def test_without_opentelemetry_the_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    why = available(ALL["polytls-otlp-1.0"])
    assert why is not None
    assert "polytls[otlp]" in why
    assert available(ALL["polytls-x25519"]) is None
    bench = Bench(PROGRAMS, None, Path(), seconds=0.1)  # type: ignore[arg-type]
    assert list(otlp.run_otlp(bench, [one for one in ROWS if one.collector], 1, Budget(300))) == []


def cost(one: float, tenth: float, base: float) -> Results:
    return results(
        sample("mitm.otlp", "polytls-x25519", 0, cpu_ms=0.5),
        sample("mitm.otlp", "polytls-otlp-1.0", 0, cpu_ms=0.5 + one),
        sample("mitm.otlp", "polytls-otlp-0.1", 0, cpu_ms=0.5 + tenth),
        sample("mitm.otlp-base", "polytls-otlp-1.0", 0, base_mb=base),
    )


def test_goals_are_of_what_is_added() -> None:
    for found, met in ((cost(0.29, 0.09, 49), True), (cost(0.31, 0.11, 51), False)):
        verdicts = [verdict for verdict in judge(found) if verdict.goal.promise == TELEMETRY]
        assert [verdict.met for verdict in verdicts] == [met] * 3
    assert "**Telemetry, MITM**" in report(cost(0.2, 0.05, 45), [])
    assert "| PolyTLS, OTLP 0.1" in report(cost(0.2, 0.05, 45), [])
