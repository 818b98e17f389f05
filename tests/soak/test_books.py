"""The ledger and the judge: that they see what they are there to see."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from polytls.events import TunnelRecord
from tests.soak import judge
from tests.soak.judge import Checkpoint
from tests.soak.ledger import Ledger, label_of
from tests.soak.load import Round


def _record(number: int, host: str | None = "get-1.origin.test", outcome: str = "completed") -> TunnelRecord:
    return TunnelRecord(number, "127.0.0.1:1", 0.0, host=host, outcome=outcome)


def _snapshot(**more: Any) -> dict[str, Any]:
    engine = dict.fromkeys(
        ("streams", "operations", "relays", "buffered_bytes", "completions", "impossible"), 0
    )
    engine["accepted"] = 3
    made: dict[str, Any] = {
        "engine": engine,
        "live": 0,
        "admitted": 0,
        "unspoken": 0,
        "records": 3,
        "missing": 0,
        "twice": 0,
        "internal": [],
        "counts": [["get", "completed", 3]],
        "descriptors": 10,
        "threads": 4,
        "pss_kb": 40_000,
    }
    return {**made, **more}


def _round(**by_label: int) -> Round:
    made = Round(1, by_label=Counter(by_label))
    made.tunnels = sum(by_label.values())
    return made


def test_records_out_of_order_are_whole() -> None:
    ledger = Ledger()
    for number in (2, 1, 4, 3):
        ledger(_record(number))
    assert (ledger.last, ledger.missing, ledger.twice, ledger.total) == (4, 0, 0, 4)


def test_a_gap_and_a_double_show() -> None:
    ledger = Ledger()
    for number in (1, 2, 2, 5):
        ledger(_record(number))
    assert (ledger.last, ledger.missing, ledger.twice) == (2, 2, 1)


@pytest.mark.parametrize(
    ("host", "label"),
    [("slow-read-12.origin.test", "slow-read"), ("origin.test", ""), (None, ""), ("get-x.test", "")],
)
def test_labels(host: str | None, label: str) -> None:
    assert label_of(host) == label


def test_books_that_agree() -> None:
    assert judge.accounts([_round(get=3)], _snapshot()) == []
    assert judge.at_rest(_snapshot()) == []


@pytest.mark.parametrize(
    ("clients", "snapshot", "says"),
    [
        ({"get": 4}, {}, "connected 4 times"),
        ({"get": 2, "post": 1}, {}, "get: the clients made 2 tunnels, there are 3"),
        ({"get": 3}, {"counts": [["get", "completed", 2], ["get", "internal", 1]]}, "ended in internal"),
        ({"get": 3}, {"records": 2, "counts": [["get", "completed", 2]]}, "3 tunnels, but 2 records"),
    ],
)
def test_books_that_do_not(clients: dict[str, int], snapshot: dict[str, Any], says: str) -> None:
    wrong = judge.accounts([_round(**clients)], _snapshot(**snapshot))
    assert any(says in one for one in wrong), wrong


@pytest.mark.parametrize("left", ["streams", "operations", "relays", "buffered_bytes", "impossible"])
def test_what_is_left_shows(left: str) -> None:
    snapshot = _snapshot()
    snapshot["engine"][left] = 1
    assert judge.at_rest(snapshot)


def test_descriptors_and_threads() -> None:
    before = _snapshot()
    assert judge.same_as_before(before, _snapshot()) == []
    assert judge.same_as_before(before, _snapshot(descriptors=11)) == ["descriptors: 10 before, 11 now"]


@pytest.mark.parametrize(("bytes_each", "holds"), [(0, True), (20, True), (100, False)])
def test_a_leak_is_a_slope(bytes_each: int, holds: bool) -> None:
    checkpoints = [
        Checkpoint(tunnels, 1.0, _snapshot(pss_kb=40_000 + tunnels * bytes_each // 1024))
        for tunnels in range(0, 200_001, 20_000)
    ]
    assert (judge.memory(checkpoints) == []) == holds
