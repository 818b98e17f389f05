"""The load generator's report, as Python reads it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.bench.loadgen import Report, parse_report
from tests.bench.spawn import BenchError


def _quantiles(count: int, p50: float, p99: float) -> dict[str, float]:
    return {"count": count, "p50": p50, "p90": p50, "p99": p99, "max": p99}


def _tunnels(ok: int, p50: float, p99: float) -> dict[str, Any]:
    return {
        "ok": ok,
        "failed": 1,
        "per_second": 40.0,
        "bytes_down": 2_000_000,
        "bytes_up": 1_000_000,
        "talking_s": 0.4,
        "h2": 0,
        "resumed": 0,
        "answered_ms": {"count": 0},
        "shaken_ms": {"count": 0},
        "first_byte_ms": _quantiles(ok, p50, p99),
        "done_ms": _quantiles(ok, p50, p99),
        "round_trip_ms": {"count": 0},
        "behaviours": {"get": {"ok": ok, "failed": 1}},
        "failures": {"in_body_reset": 1},
        "samples": ["tunnel 3, get: in_body_reset"],
    }


REPORT: dict[str, Any] = {
    "wall_s": 0.5,
    "client_cpu_s": 0.25,
    "overtime": False,
    "seed": 1,
    "held": 0,
    "held_lost": 0,
    "held_alive": 0,
    "through": _tunnels(20, 2.0, 4.0),
    "direct": _tunnels(21, 0.5, 1.0),
}


def report_of(found: dict[str, Any]) -> Report:
    return parse_report("READY {}\n" + json.dumps(found) + "\n")


def test_a_report() -> None:
    report = report_of(REPORT)
    assert report.tunnels is report.through
    assert report.tunnels.failures == {"in_body_reset": 1}
    assert report.tunnels.behaviours == {"get": (20, 1)}
    assert report.tunnels.times["answered"] is None
    first = report.tunnels.times["first_byte"]
    assert first is not None
    assert (first.count, first.p50, first.p99) == (20, 2.0, 4.0)


def test_a_report_of_direct_tunnels_alone() -> None:
    found = copy.deepcopy(REPORT)
    found["through"] = None
    assert report_of(found).tunnels.ok == 21
    found["direct"] = None
    with pytest.raises(BenchError, match="began no tunnel"):
        _ = report_of(found).tunnels


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"wall_s": 1}', "null"])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(BenchError, match="no report"):
        parse_report(text)
