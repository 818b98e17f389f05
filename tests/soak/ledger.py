"""What the proxy's records say, kept small enough for a million of them.

Records are counted by what their client was there to do (the load generator's names begin with it: see
`--label`) and by their outcome. Their numbers must be all of 1, 2, 3, ..., each once, in whatever order
tunnels end; what is not yet contiguous is kept as such, so that a gap or a number that came twice shows.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.events import TunnelRecord

NO_HOST = ""
"""The label of a record whose head named no host."""

_LABELLED = re.compile(r"([a-z0-9-]+?)-[0-9]+\.")
_SAMPLES = 8


class Ledger:
    """A sink for records."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # (label, outcome)
        self.twice = 0
        self.last = 0  # all up to this number have come
        self.samples: list[str] = []  # of outcomes that nothing should ever end in
        self.truncated = 0
        self._ahead: set[int] = set()

    def __call__(self, record: TunnelRecord) -> None:
        self._number(record.id)
        self.counts[label_of(record.host), record.outcome] += 1
        self.truncated += record.truncated
        if record.outcome == "internal" and len(self.samples) < _SAMPLES:
            self.samples.append(f"{record.host}: {record.detail}")

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def missing(self) -> int:
        """How many numbers below the highest have not come."""
        return max(self._ahead) - self.last - len(self._ahead) if self._ahead else 0

    def _number(self, number: int) -> None:
        if number <= self.last or number in self._ahead:
            self.twice += 1
            return
        self._ahead.add(number)
        while self.last + 1 in self._ahead:
            self.last += 1
            self._ahead.remove(self.last)


def label_of(host: str | None) -> str:
    """What the client of this host was there to do.

    >>> label_of("half-close-17.origin.test")
    'half-close'
    """
    found = _LABELLED.match(host or "")
    return found[1] if found else NO_HOST
