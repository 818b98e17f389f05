from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from polytls.telemetry.gently import SLICE_SECONDS, Gently

if TYPE_CHECKING:
    import pytest


def _compute() -> None:
    until = time.thread_time() + SLICE_SECONDS
    while time.thread_time() < until:
        pass


def test_nothing_is_left_out_or_moved() -> None:
    items = list(range(1000))
    gently = Gently(items)
    assert list(gently) == items
    assert list(gently) == items
    assert len(gently) == 1000
    assert gently[3] == 3
    assert gently[5:7] == [5, 6]
    assert list(Gently([])) == []


def test_who_computes_gives_way_after_each_slice() -> None:
    def given_way() -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    before = given_way()
    for _ in Gently(range(100)):
        _compute()
    assert given_way() - before >= 99


def test_whoever_is_hurried_does_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    hurried = iter((True, False, True))
    for _ in Gently(range(4), lambda: next(hurried)):
        _compute()
    assert len(pauses) == 1
