"""From those who must not wait to one who may: a bounded queue, and the thread that works it off.

Theory of operation
-------------------
`put` appends and returns. What does not fit any more is dropped and counted: the newest, so that what waits
stays whole and in order. The thread takes what has gathered in batches, when a batch is full or the delay is
over, so that a tunnel that ends wakes nobody. While the handler waits for a slow collector the queue fills,
and stays bounded.

`close` comes in two steps, since several feeds end together: `begin_close` tells the thread to work off what
is there, `finish` waits for it, to a deadline. A thread that is stuck beyond that is left behind (it is a
daemon), and what it had counts as dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """`handle` gets batches of at most `batch` items on the feed's thread. Whatever it raises is told to
    `failed`, and what of its batch is not `settled` counts as dropped."""

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], None],
        *,
        failed: Callable[[Exception], None],
        most_waiting: int,
        batch: int,
        delay: float,
    ) -> None:
        self._handle = handle
        self._failed = failed
        self._most_waiting = most_waiting
        self._batch = min(batch, most_waiting)
        self._delay = delay
        self._waiting: deque[T] = deque()
        self._lock = threading.Lock()
        self._dropped = 0
        self._under_way = 0
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Have an item handled, or dropped. Never blocks; any thread."""
        waiting = len(self._waiting)
        if waiting >= self._most_waiting or self._closing:
            self._drop(1)
            return
        self._waiting.append(item)
        if waiting + 1 >= self._batch and not self._wake.is_set():
            self._wake.set()

    @property
    def dropped(self) -> int:
        """Items that were never handled, since the start."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Items that wait now."""
        return len(self._waiting)

    @property
    def behind(self) -> bool:
        """There is no time to lose: the queue is half full, or it is the end."""
        return self._closing or 2 * len(self._waiting) > self._most_waiting

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return not self._thread.is_alive()

    def settled(self, count: int) -> None:
        """For `handle`: so many items of its batch are done with. Those that are lost it has counted."""
        self._under_way -= count

    def begin_close(self) -> None:
        """Take nothing more, and work off what is there."""
        self._closing = True
        self._wake.set()

    def ends_by(self, deadline: float) -> bool:
        """Wait to `deadline` (time.monotonic) for the thread to end, and say whether it did."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self.ended

    def finish(self, deadline: float) -> bool:
        """As `ends_by`. False: it did not, and what it had is dropped."""
        if self.ends_by(deadline):
            return True
        self._drop(len(self._waiting) + self._under_way)
        self._waiting.clear()
        return False

    def _run(self) -> None:
        while True:
            self._wake.wait(self._delay)
            self._wake.clear()
            closing = self._closing
            while self._waiting:
                self._work(min(self._batch, len(self._waiting)))
            if closing:
                return

    def _work(self, size: int) -> None:
        try:
            items = [self._waiting.popleft() for _ in range(size)]
        except IndexError:  # `finish` gave up and took them
            return
        self._under_way = size
        try:
            self._handle(items)
        except Exception as error:  # noqa: BLE001 - a batch that fails must not end the feed
            self._drop(self._under_way)
            self._failed(error)
        finally:
            self._under_way = 0

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
