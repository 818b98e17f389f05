"""How late the event loop is: a timer that notes by how much it was missed.

One timer a second costs nothing that shows, and tells what no counter does: that something keeps the loop
from running. The worst is kept until somebody asks.
"""

from __future__ import annotations

import asyncio

PERIOD_SECONDS = 1.0


class LoopLag:
    """Made on the loop that it watches; `take` is for any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worst = 0.0
        self._due = loop.time() + PERIOD_SECONDS
        self._timer = loop.call_at(self._due, self._tick)

    def take(self) -> float:
        """The longest delay since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._worst = max(self._worst, now - self._due)
        self._due = now + PERIOD_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)
