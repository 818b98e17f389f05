"""Medians, ratios inside rounds, goals, and the JSON form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.bench import goals
from tests.bench.goals import Goal, Verdict, judge
from tests.bench.measure import Sample, Spent, values_of
from tests.bench.results import FormatError, read, write
from tests.bench.rows import EXTRA, ROWS, Kind, selected
from tests.bench.samples import results, sample
from tests.bench.spawn import BenchError
from tests.bench.subjects import ALL
from tests.bench.test_loadgen import REPORT, report_of


def test_ratio_is_taken_inside_each_round() -> None:
    found = results(
        sample("r", "yardstick", 0, cpu_ms=1.0),
        sample("r", "ours", 0, cpu_ms=2.0),
        sample("r", "yardstick", 1, cpu_ms=10.0),  # a disturbed round, which disturbs both
        sample("r", "ours", 1, cpu_ms=20.0),
        sample("r", "yardstick", 2, cpu_ms=1.0),
        sample("r", "ours", 2, cpu_ms=3.0),
    )
    assert found.ratio("r", "ours", "yardstick", "cpu_ms") == 2.0
    assert found.value("r", "ours", "cpu_ms") == 3.0
    spread = found.spread("r", "ours", "cpu_ms")
    assert spread is not None
    assert (spread.low, spread.high, spread.count) == (2.0, 20.0, 3)


def test_difference_is_taken_inside_each_round() -> None:
    found = results(
        sample("r", "plain", 0, cpu_ms=1.0),
        sample("r", "ours", 0, cpu_ms=1.5),
        sample("r", "plain", 1, cpu_ms=10.0),
        sample("r", "ours", 1, cpu_ms=10.25),
        sample("r", "ours", 2, cpu_ms=9.0),  # its neighbour is missing
    )
    assert found.difference("r", "ours", "plain", "cpu_ms") == pytest.approx(0.375)
    assert found.difference("r", "ours", "nobody", "cpu_ms") is None


def test_what_was_not_measured_is_none() -> None:
    found = results(
        sample("r", "ours", 0, cpu_ms=2.0),
        sample("r", "yardstick", 1, cpu_ms=1.0),  # of another round
        Sample("r", "broken", 0, {}, 0, 0, error="it did not start"),
    )
    assert found.ratio("r", "ours", "yardstick", "cpu_ms") is None
    assert found.value("r", "ours", "p50_ms") is None
    assert found.value("r", "broken", "cpu_ms") is None
    assert found.subjects("r") == ["ours", "yardstick"]
    assert found.errors() == ["r broken: it did not start"]


def test_json_there_and_back(tmp_path: Path) -> None:
    found = results(sample("r", "ours", 0, cpu_ms=2.0), notes=["something was left out"])
    write(found, tmp_path / "results.json", {"goals": []})
    again = read(tmp_path / "results.json")
    assert again.samples == found.samples
    assert dataclasses.replace(again, samples=(), notes=()) == dataclasses.replace(
        found, samples=(), notes=()
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 0}', '{"format": 1}'])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(FormatError):
        read(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [
        (1.35, False, True),
        (1.351, False, False),
        (1.35, True, True),
        (1.349, True, False),
        (None, True, None),
    ],
)
def test_a_goal_is_met_up_to_its_limit(measured: float | None, at_least: bool, met: bool | None) -> None:
    goal = Goal("1", "a goal", lambda _: None, 1.35, "x", at_least=at_least)
    verdict = Verdict(goal, measured)
    assert verdict.met is met
    assert verdict.word == {True: "met", False: "not met", None: "not measured"}[met]


def test_goals_take_their_numbers_from_the_rows() -> None:
    found = results(
        sample("mitm.c32", "yardstick", 0, cpu_ms=0.3),
        sample("mitm.c32", "polytls-x25519", 0, cpu_ms=0.36, main_thread_ms=0.09),
        sample("mitm.profiles", "yardstick", 0, cpu_ms=0.3),
        sample("mitm.profiles", "profile:a", 0, cpu_ms=0.45),
        sample("mitm.profiles", "profile:b", 0, cpu_ms=0.6),
        sample("mitm.busy", "polytls-x25519", 0, p99_ms=3.5, added_p99_ms=2.5),
    )
    judged = {verdict.goal.text: verdict for verdict in judge(found)}
    first = judged["MITM CPU a tunnel, 32 at a time, to the yardstick"]
    assert first.measured == pytest.approx(1.2)
    assert first.met
    assert judged["the same with the dearest exact profile"].measured == pytest.approx(2.0)
    assert judged["MITM, 32 at a time, Python's share of CPU a tunnel"].met is False
    assert judged["one at a time beside a download, added p99"].measured == pytest.approx(2.5)
    assert judged["MITM CPU a GB, upload, to the yardstick"].met is None


def test_goals_name_rows_and_subjects_that_exist() -> None:
    """Each goal of a run in which everything has the value 1 is measured."""
    metrics = (
        *("cpu_ms", "main_thread_ms", "added_p50_ms", "added_p99_ms", "p99_ms", "cpu_s_per_gb", "mb_s"),
        *("alive", "kb_per_tunnel", "idle_cpu_ms_per_s", "base_mb", "ratio_to_direct"),
        *("first_tunnel_ms", "version_ms"),
    )
    ones = dict.fromkeys(metrics, 1.0)
    samples = [
        sample(row.name, subject, 0, **ones)
        for row in ROWS
        for subject in (*row.subjects, row.reference, "direct", "profile:x")
    ]
    samples += [sample(name, "polytls-x25519", 0, **ones) for name in EXTRA]
    assert [v.goal.text for v in judge(results(*samples)) if v.measured is None] == []
    assert all(goal.promise for goal in goals.GOALS)


def test_rows_name_subjects_that_exist() -> None:
    for row in ROWS:
        assert {*row.subjects, row.reference} <= set(ALL), row.name
        assert all(ALL[name].mitm == row.name.startswith("mitm.") for name in row.subjects), row.name


def test_selected_rows() -> None:
    assert selected(["mitm.c32"]) == {"mitm.c32"}
    assert selected(["pass.*"]) == {row.name for row in ROWS if row.name.startswith("pass.")}
    assert selected([]) == {row.name for row in ROWS} | set(EXTRA)
    with pytest.raises(BenchError, match=r"no row is called 'mitm.c33'; there are mitm.c1, "):
        selected(["mitm.c33"])


def test_values_of_a_run() -> None:
    report = report_of(REPORT)
    spent = Spent(proxy=0.5, main_thread=0.1, origin=0.2, other_share=1.5)
    tunnels = values_of(Kind.LATENCY, report, spent)
    assert tunnels["cpu_ms"] == pytest.approx(500 / 20)
    assert tunnels["main_thread_ms"] == pytest.approx(100 / 20)
    assert tunnels["added_p50_ms"] == pytest.approx(2.0 - 0.5)
    assert tunnels["added_p99_ms"] == pytest.approx(4.0 - 1.0)
    assert tunnels["other_share"] == pytest.approx(1.5 - 0.25 / 0.5)
    bulk = values_of(Kind.BULK, report, spent)
    assert bulk["cpu_s_per_gb"] == pytest.approx(0.5 / 0.003)
    assert bulk["mb_s"] == pytest.approx(3.0 / 0.4)
