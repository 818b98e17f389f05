from __future__ import annotations

import threading
import time

from polytls.telemetry.feed import Feed
from tests.peers.serve import HANG_SECONDS

LONG = 3600.0


class Taker:
    """A handler that can be held up, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.errors: list[Exception] = []
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()

    def __call__(self, items: list[int]) -> None:
        self.entered.set()
        assert self.hold.wait(HANG_SECONDS)
        self.batches.append(items)
        if 13 in items:
            raise ValueError("unlucky")

    def feed(self, *, most_waiting: int = 100, batch: int = 10, delay: float = LONG) -> Feed[int]:
        return Feed(
            "test", self, failed=self.errors.append, most_waiting=most_waiting, batch=batch, delay=delay
        )


def soon() -> float:
    return time.monotonic() + HANG_SECONDS


def end(feed: Feed[int]) -> bool:
    feed.begin_close()
    return feed.finish(soon())


def test_a_full_batch_is_handled_at_once() -> None:
    taker = Taker()
    feed = taker.feed(batch=3)
    for number in range(3):
        feed.put(number)
    assert taker.entered.wait(HANG_SECONDS)
    assert end(feed)
    assert taker.batches == [[0, 1, 2]]


def test_what_is_left_is_handled_at_the_end_in_order_and_in_batches() -> None:
    taker = Taker()
    feed = taker.feed(batch=100)
    for number in range(100, 199):
        feed.put(number)
    assert taker.batches == []
    assert end(feed)
    assert [number for batch in taker.batches for number in batch] == list(range(100, 199))
    assert feed.dropped == 0
    assert feed.ended


def test_after_the_delay_a_batch_need_not_be_full() -> None:
    taker = Taker()
    feed = taker.feed(delay=0.01)
    feed.put(1)
    assert taker.entered.wait(HANG_SECONDS)
    assert end(feed)


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    """n - 1, n and n + 1, while the handler is held up with a batch of one."""
    for extra, lost in ((-1, 0), (0, 0), (1, 1)):
        taker = Taker()
        taker.hold.clear()
        feed = taker.feed(most_waiting=5, batch=1)
        feed.put(-1)
        assert taker.entered.wait(HANG_SECONDS)
        for number in range(5 + extra):
            feed.put(number)
        assert feed.dropped == lost
        assert feed.waiting == 5 + min(extra, 0)
        taker.hold.set()
        assert end(feed)
        assert sum(map(len, taker.batches)) == 6 + extra - lost


def test_a_batch_that_fails_is_told_counted_and_no_end() -> None:
    taker = Taker()
    feed = taker.feed(batch=1)
    for number in (1, 13, 2):
        feed.put(number)
    assert end(feed)
    assert taker.batches == [[1], [13], [2]]
    assert [str(error) for error in taker.errors] == ["unlucky"]
    assert feed.dropped == 1


def test_a_handler_that_is_stuck_is_left_behind_at_the_deadline() -> None:
    taker = Taker()
    taker.hold.clear()
    feed = taker.feed(batch=1)
    feed.put(1)
    assert taker.entered.wait(HANG_SECONDS)
    feed.put(2)
    feed.begin_close()
    assert not feed.finish(time.monotonic())
    assert not feed.ended
    assert feed.dropped == 2
    feed.put(3)  # too late
    assert feed.dropped == 3
    taker.hold.set()
    assert feed.finish(soon())


def test_what_is_settled_is_not_dropped_when_the_rest_fails() -> None:
    taker = Taker()

    def handle(items: list[int]) -> None:
        feed.settled(items.index(13))
        taker(items)

    feed = Feed("test", handle, failed=taker.errors.append, most_waiting=9, batch=5, delay=LONG)
    for number in (1, 2, 13, 3, 4):
        feed.put(number)
    assert end(feed)
    assert feed.dropped == 3


def test_it_is_behind_when_half_full_and_at_the_end() -> None:
    taker = Taker()
    feed = taker.feed(most_waiting=4, batch=4)
    found = []
    for number in range(3):
        found.append(feed.behind)
        feed.put(number)
    assert found == [False, False, False]
    assert feed.behind
    assert end(feed)
    assert feed.waiting == 0
    assert feed.behind


def test_many_threads_put_and_nothing_is_lost_unseen() -> None:
    taker = Taker()
    feed = taker.feed(most_waiting=50, batch=7, delay=0.001)

    def put() -> None:
        for number in range(1000, 2000):
            feed.put(number)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert end(feed)
    assert sum(map(len, taker.batches)) + feed.dropped == 4000
