"""Leaves that were minted before: a bounded, least-recently-used cache in which each is minted once.

Theory of operation
-------------------
A value is kept per host and kind of key. The cache is generic in what it keeps: `build` makes the stored
value from a fresh `Leaf` (the engine's native credential, say), once per mint, so that a hit costs neither
a signature nor a conversion. A value that is evicted while a tunnel uses it lives on by that tunnel's
reference.

`get` is the path of nearly every tunnel: one dictionary look-up. `mint` is for its misses: it runs on the
cache's own threads (signing releases the GIL) and answers with a `concurrent.futures.Future`, which
asyncio code awaits through `asyncio.wrap_future`. `obtain` is both, and mints on the spot where a thread
would cost more than the signature. Callers that ask for one host at once share one future
(single flight). Nobody can cancel it: one tunnel that gives up must not take the leaf from the others.
A failure is told to all who wait and is not remembered.

What a leaf is minted by, its `Terms`, may change meanwhile. They are part of the key, so that nobody is given
what another's terms made, and only what was minted by the present ones is kept.

The one lock is held for dictionary operations alone, never for a signature, `build` or the audit sink.

Time is read from one wall clock, since certificates live by it. An entry is fresh until its TTL ends or
its leaf comes close to its end, and stale while the clock stands before the leaf's beginning. If the clock
is set back, a TTL lasts longer by that step, and the leaf's own validity still bounds it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.pki.audit import AuditSink, MintEvent
from polytls.pki.leaf import Leaf, LeafKeys, LeafKind, check_days, mint_leaf

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytls.pki.root import RootCA

# A leaf this close to its end is not handed out again: a client's clock may run ahead of ours.
EXPIRY_MARGIN = timedelta(hours=1)
# Two: a mint that waits for the RSA key to be generated does not hold up the others.
MINT_THREADS = 2

T = TypeVar("T")


class Terms(NamedTuple):
    """How long a leaf may be handed out, in seconds, and for how many days it is valid."""

    ttl: float
    days: int


_Key = tuple[str, LeafKind, Terms]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start, and `size`, the entries held now. Hits and misses are those of `get`."""

    hits: int
    misses: int
    mints: int
    failures: int
    evictions: int
    size: int


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """A value, and the POSIX seconds between which it may be handed out (the end excluded)."""

    value: T
    fresh_from: float
    fresh_until: float


class LeafCache(Generic[T]):
    """Keeps at most `max_entries` values, each for at most `ttl` seconds. All methods are thread-safe."""

    def __init__(
        self,
        root: RootCA,
        keys: LeafKeys,
        build: Callable[[Leaf], T],
        *,
        audit: AuditSink,
        ttl: float,
        max_entries: int,
        days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`build` and `audit` are called once per mint, on the cache's threads or, by `obtain`, on the
        caller's. `clock` gives POSIX seconds.

        Raises ValueError if `ttl` is negative, `max_entries` below 1, or `days` out of `mint_leaf`'s range.
        """
        _check(ttl, max_entries, days)
        self._root = root
        self._keys = keys
        self._build = build
        self._audit = audit
        self._terms = Terms(ttl, days)
        self._max_entries = max_entries
        self._clock = clock
        self._pool = ThreadPoolExecutor(MINT_THREADS, thread_name_prefix="polytls-mint")
        self._lock = Lock()
        self._entries: OrderedDict[_Key, _Entry[T]] = OrderedDict()  # the least recently used first
        # None: being minted on the spot, and nobody else has asked yet.
        self._in_flight: dict[_Key, Future[T] | None] = {}
        self._closed = False
        self._hits = self._misses = self._mints = self._failures = self._evictions = 0

    def change(self, *, ttl: float, max_entries: int, days: int) -> None:
        """Go by other settings from now on. Leaves that were minted by others than `ttl` and `days` are let
        go, and those that are being minted go only to who has asked by then; with the same, those stay that
        fit. Raises ValueError as `__init__` does."""
        _check(ttl, max_entries, days)
        let_go: list[_Entry[T]] = []
        with self._lock:
            if (ttl, days) != self._terms:
                let_go += self._entries.values()
                self._entries.clear()
            while len(self._entries) > max_entries:
                self._evictions += 1
                let_go.append(self._entries.popitem(last=False)[1])
            self._terms, self._max_entries = Terms(ttl, days), max_entries
        del let_go  # outside the lock, as what is evicted

    def get(self, host: str, kind: LeafKind, terms: Terms | None = None) -> T | None:
        """Return the fresh value for `host` (spelled as it is to be minted), or None: then `mint` it.
        `terms`: the caller's own, here and below; None: the present ones."""
        now = self._clock()
        with self._lock:
            entry = self._fresh((host, kind, terms or self._terms), now)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            return entry.value

    def ready(self, host: str, kind: LeafKind, terms: Terms | None = None) -> T | None:
        """The value for `host` where it need not be waited for: cached, or minted here and now where the root
        signs fast. None: ask `obtain`. A cached value that is not there counts as nothing, as `obtain` will
        count it."""
        if self._mints_here(kind):
            value = self.obtain(host, kind, terms)
            return None if isinstance(value, Future) else value
        now = self._clock()
        with self._lock:
            entry = self._fresh((host, kind, terms or self._terms), now)
            if entry is None:
                return None
            self._hits += 1
            return entry.value

    def obtain(self, host: str, kind: LeafKind, terms: Terms | None = None) -> T | Future[T]:
        """The value for `host`: cached, or minted here and now where the root signs fast (a tenth of a
        millisecond: less than to hand it to a thread and back); else what `mint` returns."""
        terms = terms or self._terms
        value = self.get(host, kind, terms)
        if value is not None:
            return value
        if not self._mints_here(kind):
            return self.mint(host, kind, terms)
        key = (host, kind, terms)
        with self._lock:
            ours = not self._closed and key not in self._in_flight
            if ours:
                self._in_flight[key] = None
        return self._run(key) if ours else self.mint(host, kind, terms)

    def mint(self, host: str, kind: LeafKind, terms: Terms | None = None) -> Future[T]:
        """Return a future of the value for `host`: cached by now, being minted, or minted from here on.

        Never blocks. The future fails with ProxyError (LEAF_FAILED; CANCELLED once the cache is closed), or
        with whatever `build` or the audit sink raised. It cannot be cancelled.
        """
        key = (host, kind, terms or self._terms)
        now = self._clock()
        with self._lock:
            shared = self._in_flight.get(key)
            if shared is not None:
                return shared
            future: Future[T] = _uncancellable()
            if key in self._in_flight:  # on the spot, by another thread, which finds the future there
                self._in_flight[key] = future
                return future
            if self._closed:
                future.set_exception(_closed())
                return future
            entry = self._fresh(key, now)
            if entry is not None:
                future.set_result(entry.value)
                return future
            self._in_flight[key] = future
            self._pool.submit(self._run, key)
            return future

    def stats(self) -> CacheStats:
        """Return the counts, all of one instant."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                mints=self._mints,
                failures=self._failures,
                evictions=self._evictions,
                size=len(self._entries),
            )

    def close(self) -> None:
        """Drop all entries and end the threads, after the mints that run now. Further calls do nothing.

        Mints that are still waiting for a thread fail with ProxyError (CANCELLED).
        """
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            abandoned, self._in_flight = self._in_flight, {}
            self._entries.clear()
        for future in abandoned.values():
            if future is not None:
                future.set_exception(_closed())

    def __repr__(self) -> str:
        return f"LeafCache({self.stats()})"

    def _mints_here(self, kind: LeafKind) -> bool:
        return self._root.signs_fast and kind is LeafKind.ECDSA  # whose key is there from the start

    def _run(self, key: _Key) -> T | Future[T]:
        """Mint, and settle the future if there is one: the pool's work, and `obtain`'s, to which the answer
        is. A failure is in a future in any case."""
        try:
            entry = self._mint(key)
        except BaseException as error:  # noqa: BLE001  not ours to judge: whoever waits gets it
            with self._lock:
                self._failures += 1
                failed = self._in_flight.pop(key, None) or _uncancellable()
            failed.set_exception(error)
            return failed
        with self._lock:
            # One step, so that no third caller finds neither the entry nor the mint.
            evicted = self._insert(key, entry)
            future = self._in_flight.pop(key, None)
        if future is not None:
            future.set_result(entry.value)
        del evicted  # only now, outside the lock: what it releases is not known here
        return entry.value

    def _mint(self, key: _Key) -> _Entry[T]:
        host, kind, terms = key
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        leaf = mint_leaf(self._root, self._keys, host, kind, now=now, days=terms.days)
        with self._lock:
            self._mints += 1
        self._audit(MintEvent(host, kind, _serial_hex(leaf.serial), leaf.not_after))
        value = self._build(leaf)
        return _Entry(
            value=value,
            fresh_from=leaf.not_before.timestamp(),
            fresh_until=min(now.timestamp() + terms.ttl, (leaf.not_after - EXPIRY_MARGIN).timestamp()),
        )

    def _fresh(self, key: _Key, now: float) -> _Entry[T] | None:
        """Look up a fresh entry and mark it used. Called under the lock."""
        entry = self._entries.get(key)
        if entry is None or not entry.fresh_from <= now < entry.fresh_until:
            return None
        self._entries.move_to_end(key)
        return entry

    def _insert(self, key: _Key, entry: _Entry[T]) -> _Entry[T] | None:
        """Store an entry and return the one that had to go for it: it itself, where terms are others by now.
        Called under the lock."""
        if key[2] != self._terms:
            return entry
        replaced = self._entries.pop(key, None)
        self._entries[key] = entry
        if len(self._entries) <= self._max_entries:
            return replaced
        self._evictions += 1
        return self._entries.popitem(last=False)[1]


def _check(ttl: float, max_entries: int, days: int) -> None:
    check_days(days)
    if ttl < 0 or max_entries < 1:
        raise ValueError(f"ttl must be 0 or more and max_entries 1 or more, not {ttl} and {max_entries}")


def _serial_hex(serial: int) -> str:
    """Whole octets, as DER holds them and viewers print them."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _uncancellable() -> Future[Any]:
    """A future whose cancel() is refused."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _closed() -> ProxyError:
    return ProxyError(
        Side.PROXY, Stage.LEAF, Kind.CANCELLED, "no leaf is minted any more: the proxy is shutting down"
    )
