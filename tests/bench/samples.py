"""Results made up for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.measure import Sample
from tests.bench.results import Results


def sample(row: str, subject: str, number: int, **values: float) -> Sample:
    return Sample(row, subject, number, values, ok=10, failed=0)


def results(
    *samples: Sample, versions: Mapping[str, str] | None = None, notes: Sequence[str] = ()
) -> Results:
    return Results(
        taken="2026-01-02 03:04 UTC",
        machine="a machine",
        cores=2,
        commit="abc1234",
        versions=versions or {},
        seconds=12.5,
        notes=tuple(notes),
        samples=samples,
    )
