"""All samples of a run, medians and ratios of them, and their JSON form.

A ratio is taken inside each round, subject to reference, and the median of those is what counts. A sample
with an error or without a value counts for nothing but is kept and told.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Sample

FORMAT = 1
"""Of the JSON; a reader of another one says so."""


class FormatError(Exception):
    """A file of results cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over the rounds."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Results:
    """What one run of the bench has found."""

    taken: str  # when, UTC
    machine: str
    cores: int
    commit: str
    versions: Mapping[str, str]  # of peers
    seconds: float  # all of it
    notes: Sequence[str]  # what was left out, and why
    samples: Sequence[Sample]

    def subjects(self, row: str) -> list[str]:
        """Those with a value in this row, in the order in which they came first."""
        return list(dict.fromkeys(s.subject for s in self.samples if s.row == row and s.values))

    def spread(self, row: str, subject: str, metric: str) -> Spread | None:
        """None where it was not measured."""
        values = [s.values[metric] for s in self._of(row, subject) if metric in s.values]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def value(self, row: str, subject: str, metric: str) -> float | None:
        """The median; None where it was not measured."""
        found = self.spread(row, subject, metric)
        return found.median if found else None

    def ratio(self, row: str, subject: str, reference: str, metric: str) -> float | None:
        """The median of the rounds' ratios; None where no round has both."""
        below = {s.round: s.values[metric] for s in self._of(row, reference) if s.values.get(metric)}
        ratios = [
            s.values[metric] / below[s.round]
            for s in self._of(row, subject)
            if metric in s.values and s.round in below
        ]
        return statistics.median(ratios) if ratios else None

    def difference(self, row: str, subject: str, reference: str, metric: str) -> float | None:
        """The median of the rounds' differences; None where no round has both."""
        below = {s.round: s.values[metric] for s in self._of(row, reference) if metric in s.values}
        above = [
            s.values[metric] - below[s.round]
            for s in self._of(row, subject)
            if metric in s.values and s.round in below
        ]
        return statistics.median(above) if above else None

    def failed(self, row: str, subject: str) -> int | None:
        """Tunnels that did not end as meant; None where nothing was measured."""
        samples = self._of(row, subject)
        return sum(s.failed for s in samples) if samples else None

    def errors(self) -> list[str]:
        """Measurements that could not be made, and tunnels that failed, in words."""
        said = [f"{s.row} {s.subject}: {s.error}" for s in self.samples if s.error]
        failed = (s for s in self.samples if s.failed)
        return said + [f"{s.row} {s.subject}: {s.failed} failed {dict(s.failures)}" for s in failed]

    def disturbance(self) -> float:
        """What the machine did beside the measurements, in cores: the median."""
        found = [s.values["other_share"] for s in self.samples if "other_share" in s.values]
        return statistics.median(found) if found else 0.0

    def _of(self, row: str, subject: str) -> list[Sample]:
        return [s for s in self.samples if s.row == row and s.subject == subject]


def write(results: Results, path: Path, more: Mapping[str, Any]) -> None:
    """As JSON, with `more` beside it for people and programs that read no samples."""
    found = {"format": FORMAT, **dataclasses.asdict(results), **more}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What `write` wrote. Raises `FormatError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise FormatError(f"{path} has format {found['format']}, not {FORMAT}: measure again")
        names = {field.name for field in dataclasses.fields(Results)}
        kept = {name: value for name, value in found.items() if name in names}
        return Results(**{**kept, "samples": tuple(_samples(found["samples"]))})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} holds no results of the bench: {error}") from error


def _samples(found: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    return (Sample(**one) for one in found)
