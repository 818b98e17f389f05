from __future__ import annotations

import logging

import pytest

from polytls.telemetry.otlp.complaints import EVERY_SECONDS, MAX_CHARACTERS, NAMES, Complaints


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_a_minute_and_the_others_are_counted() -> None:
    told: list[str] = []
    clock = Clock()
    complaints = Complaints(told.append, clock=clock)
    for _ in range(5):
        complaints.say("gone")
    clock.now += EVERY_SECONDS - 0.001
    complaints.say("gone")
    assert told == ["telemetry: gone"]
    clock.now += 0.001
    complaints.say("still gone")
    assert told[1:] == ["telemetry: still gone (and 5 more complaints since the last one)"]
    clock.now += EVERY_SECONDS
    complaints.say("again")
    assert told[2:] == ["telemetry: again"]


@pytest.mark.parametrize("name", NAMES)
def test_what_libraries_log_is_told_and_goes_nowhere_else(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    complaints = Complaints(told.append, secrets={"t0ken"})
    logger = logging.getLogger(f"{name}.some.part")
    found = list(logging.getLogger(name).handlers)  # libraries that were imported have one that does nothing
    complaints.install()
    try:
        try:
            raise ValueError("details")
        except ValueError:
            logger.exception("could not send t0ken\nto %s", "there")
        logger.info("not worth it")
    finally:
        complaints.remove()
    assert told == ["telemetry: could not send *** to there"]
    assert capsys.readouterr().err == ""
    assert logging.getLogger(name).propagate
    assert logging.getLogger(name).handlers == found


def test_a_complaint_that_cannot_be_formatted_is_one_all_the_same() -> None:
    told: list[str] = []
    complaints = Complaints(told.append)
    complaints.emit(logging.LogRecord("x", logging.ERROR, "", 0, "%d", ("no number",), None))
    assert told == ["telemetry: an exporter complained in a way that cannot be shown"]


def test_it_is_cut() -> None:
    told: list[str] = []
    Complaints(told.append).say("x" * 10_000)
    assert told == ["telemetry: " + "x" * MAX_CHARACTERS + "..."]
