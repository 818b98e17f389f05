"""A long job on a thread beside the event loop, in slices, so that tunnels need not wait for it.

Theory of operation
-------------------
Python runs one thread at a time, and one that computes gives way to another only when that has waited for
5 ms. A tunnel wants its turn a few times, so a batch that is encoded meanwhile costs it many milliseconds.
`Gently` is a sequence that gives way by itself: who goes through it sleeps for a moment whenever the thread
has computed for `SLICE_SECONDS`. Only its own CPU time counts, not what it waited for others.

A shorter interval for all (`sys.setswitchinterval`) was measured, too: even with 0.1 ms tunnels waited
longer, since it interrupts the event loop as often as those in its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")

SLICE_SECONDS = 0.0003
"""A third of what a tunnel takes when nothing else runs; to encode one tunnel's spans takes as long."""
PAUSE_SECONDS = 0.0001
"""Long enough for another thread to wake up. Not to sleep at all would mostly take the turn back at once."""


class Gently(Sequence[T]):
    """The items of another sequence, which is not to change meanwhile. No pause while one is `hurried`."""

    def __init__(self, items: Sequence[T], hurried: Callable[[], bool] = lambda: False) -> None:
        self._items = items
        self._hurried = hurried

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        until = time.thread_time() + SLICE_SECONDS
        for item in self._items:
            if time.thread_time() >= until:
                if not self._hurried():
                    time.sleep(PAUSE_SECONDS)
                until = time.thread_time() + SLICE_SECONDS
            yield item
