"""Metrics without a collector: what records add up to, and that series are bounded."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from polytls.events import Timings, TunnelRecord
from polytls.telemetry.counters import Counters
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.metrics import MAX_SERIES, OTHER, Metrics


def record(host: str, **changes: Any) -> TunnelRecord:
    fields: dict[str, Any] = {
        "id": 1,
        "client": "127.0.0.1:1",
        "started_at": 0.0,
        "host": host,
        "port": 443,
        "mode": "mitm",
        "profile": "curl",
        "bytes_up": 3,
        "bytes_down": 5,
        "timings": Timings(connect=0.002, total=1.5),
    }
    return TunnelRecord(**{**fields, **changes})


class Bench:
    def __init__(self, *, hosts: bool) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        meter = self._provider.get_meter("test")
        self.metrics = Metrics(meter, Counters, lambda: {"traces": 4}, hosts=hosts)

    def points(self, name: str) -> list[Any]:
        data: Any = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def test_records_add_up() -> None:
    bench = Bench(hosts=False)
    bench.metrics.add(record("a.test"))
    bench.metrics.add(record("b.test", outcome="idle_timeout"))
    bench.metrics.add(
        record("b.test", mode=None, profile=None, outcome="not_connect", bytes_up=0, bytes_down=0)
    )
    ended = {tuple(sorted(point.attributes.items())): point.value for point in bench.points(words.ENDED.name)}
    assert sum(ended.values()) == 3
    assert (
        ("polytls.mode", "none"),
        ("polytls.outcome", "not_connect"),
        ("polytls.profile", "none"),
    ) in ended
    assert {
        point.attributes["polytls.direction"]: point.value for point in bench.points(words.BYTES.name)
    } == {
        "up": 6,
        "down": 10,
    }
    assert [point.attributes for point in bench.points(words.LIMITS.name)] == [
        {"polytls.limit": "idle_timeout"}
    ]
    (connects,) = [
        p for p in bench.points(words.CONNECT_TIME.name) if p.attributes == {"polytls.mode": "mitm"}
    ]
    assert connects.count == 2
    assert connects.bucket_counts[2] == 2  # 1 to 2.5 ms
    assert [point.attributes for point in bench.points(words.DROPPED.name)] == [
        {"polytls.sink": "traces"},
        {"polytls.sink": "log"},
    ]


def test_hosts_are_told_apart_only_where_asked_for_and_only_so_many() -> None:
    silent, asked = Bench(hosts=False), Bench(hosts=True)
    for number in range(MAX_SERIES + 50):
        for bench in (silent, asked):
            bench.metrics.add(record(f"h{number}.test"))
    assert len(silent.points(words.ENDED.name)) == 1
    found = {point.attributes[words.SERVER_ADDRESS]: point.value for point in asked.points(words.ENDED.name)}
    assert len(found) == MAX_SERIES + 1
    assert found[OTHER] == 50
    # Known hosts go on being told apart.
    asked.metrics.add(record("h0.test"))
    found = {point.attributes[words.SERVER_ADDRESS]: point.value for point in asked.points(words.ENDED.name)}
    assert found["h0.test"] == 2
