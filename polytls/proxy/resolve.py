"""From a CONNECT authority to the addresses to dial, in the order to dial them.

In this order: the lab overrides (`default_upstream`, the `resolve` map), addresses given as such, the cache,
the system's resolver. The CONNECT host itself never changes: overrides only say where to dial.

The system's resolver blocks, for as long as it likes, and cannot be interrupted. So it runs on threads of
its own, and what it may cost is bounded:

* one lookup per name at a time: all who ask meanwhile wait for the same answer (single flight);
* at most `MAX_LOOKUP_THREADS` lookups at once and `MAX_LOOKUPS_WAITING` behind them; beyond, a lookup
  fails at once with RESOLVE_FAILED rather than wait for a resolver that is evidently dead;
* nobody waits longer than the resolve deadline (RESOLVE_TIMEOUT), whatever the thread does. A lookup that
  nobody waits for any more is not begun;
* threads are made when needed, end when idle, and are daemons: one that hangs does not keep the process.

Tunnels whose name is cached, mapped or an address touch none of this: a slow resolver stalls only those
who need its answer. Answers are kept for `dns_cache_ttl` seconds (getaddrinfo tells no TTL), failures for
`NEGATIVE_TTL_SECONDS`, at most `MAX_CACHED_NAMES` of both.

A `Resolver` belongs to one event loop. Left out: querying DNS oneself, and so real TTLs and racing of
A against AAAA (RFC 8305 §3); getaddrinfo does both queries and sorts (RFC 6724).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from polytls.engine.facts import SocketAddress
from polytls.errors import Kind, ProxyError, Side, Stage

if TYPE_CHECKING:
    from polytls.settings import UpstreamSettings

Lookup = Callable[[str], Sequence[str]]
"""A host name to its addresses as text, best first. Blocks; raises OSError (socket.gaierror)."""

_Answer = tuple[str, ...] | ProxyError

MAX_LOOKUP_THREADS = 64
"""A dead resolver holds a thread for some 10 to 30 s: 64 still lets a few new names a second through."""
MAX_LOOKUPS_WAITING = 1024
"""Names queued behind the threads. At 20 ms a lookup and 64 threads they wait a third of a second."""
THREAD_IDLE_SECONDS = 10.0
"""How long a thread waits for another lookup before it ends."""
NEGATIVE_TTL_SECONDS = 1.5
"""Long enough to blunt a client that retries in a loop, short enough that a mended name works at once."""
MAX_CACHED_NAMES = 4096
"""Bounds the cache's memory to about a megabyte; the oldest name gives way."""
MAX_ADDRESSES = 16
"""Dialled for one name. An answer may hold hundreds; happy eyeballs gains nothing after a few."""

# "No such name", as opposed to "could not find out". EAI_NODATA is not everywhere.
_NOT_FOUND = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def interleave(addresses: Sequence[str]) -> tuple[str, ...]:
    """The order in which to dial (RFC 8305 §4): families alternate, beginning with the first address's;
    within a family the order is kept. Duplicates are dropped, and what exceeds `MAX_ADDRESSES`.

    >>> interleave(["2001:db8::1", "2001:db8::2", "192.0.2.1"])
    ('2001:db8::1', '192.0.2.1', '2001:db8::2')
    """
    unique = dict.fromkeys(addresses)
    families: dict[bool, deque[str]] = {}  # in order of first appearance
    for address in unique:
        families.setdefault(":" in address, deque()).append(address)
    order: list[str] = []
    while families and len(order) < MAX_ADDRESSES:
        for family, left in list(families.items()):
            order.append(left.popleft())
            if not left:
                del families[family]
    return tuple(order[:MAX_ADDRESSES])


def system_lookup(host: str) -> list[str]:
    """Ask getaddrinfo. `host` is ASCII already; as bytes it is not put through the idna codec again."""
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_address(host: str) -> bool:
    """Is this the text of an IPv4 or IPv6 address (without brackets)?"""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an override leads; `port` None keeps the one asked for."""

    host: str
    port: int | None


class Overrides:
    """`default_upstream` and the `resolve` map: exact names first, then the longest ``*.suffix``.

    ``*.example.com`` covers every name below example.com, however deep, not example.com itself.
    Values are in the spelling of `polytls.config`, which has checked them.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        default = settings.default_upstream
        self._everything = None if default is None else _target(default)
        self._exact: dict[str, _Target] = {}
        self._suffixes: dict[str, _Target] = {}
        for name, value in settings.resolve:
            if name.startswith("*."):
                self._suffixes[name[1:]] = _target(value)
            else:
                self._exact[name] = _target(value)

    def apply(self, host: str, port: int) -> tuple[str, int]:
        """Where to dial for this host (lower case) and port."""
        if self._everything is not None:
            host, port = self._everything.host, self._everything.port or port
        target = self._exact.get(host) if self._exact else None
        if target is None and self._suffixes:
            dot = host.find(".", 1)
            while target is None and dot != -1:
                target = self._suffixes.get(host[dot:])
                dot = host.find(".", dot + 1)
        return (host, port) if target is None else (target.host, target.port or port)


class Resolver:
    """Finds addresses; see the module's docstring. `timeout` is the resolve deadline in seconds."""

    def __init__(
        self,
        overrides: Overrides,
        *,
        timeout: float,
        ttl: float,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._overrides = overrides
        self._timeout = timeout
        self._ttl = ttl
        self._lookup = lookup
        self._clock = clock
        self._threads = _Threads(MAX_LOOKUP_THREADS, MAX_LOOKUPS_WAITING)
        self._under_way: dict[str, _Flight] = {}
        self._cache: dict[str, tuple[float, _Answer]] = {}

    def changed(self, overrides: Overrides, *, timeout: float, ttl: float) -> Resolver:
        """One that goes by other settings, and on with the same threads. What is cached or under way is
        shared, unless it would be kept for another time."""
        made = Resolver(overrides, timeout=timeout, ttl=ttl, lookup=self._lookup, clock=self._clock)
        made._threads = self._threads
        if ttl == self._ttl:
            made._under_way, made._cache = self._under_way, self._cache
        return made

    def known(self, host: str, port: int) -> tuple[SocketAddress, ...] | None:
        """The addresses, where they are known without waiting; None where `resolve` must be awaited.

        Raises `ProxyError` for a name that was found not to resolve a moment ago.
        """
        host, port = self._overrides.apply(host, port)
        entry = self._cache.get(host)
        if entry is not None and entry[0] > self._clock():
            return _addresses(entry[1], port)
        return _at((host,), port) if is_address(host) else None

    async def resolve(self, host: str, port: int) -> tuple[SocketAddress, ...]:
        """The addresses to dial for this host (lower case, ASCII) and port, in order; at least one.

        Raises `ProxyError`: NAME_NOT_FOUND, RESOLVE_FAILED or RESOLVE_TIMEOUT.
        """
        known = self.known(host, port)
        if known is not None:
            return known
        host, port = self._overrides.apply(host, port)
        flight = self._under_way.get(host)
        if flight is None:
            flight = self._under_way[host] = _Flight(asyncio.get_running_loop())
            self._start(host, flight)
        answer = await flight.wait(self._timeout)
        if answer is None:
            detail = f"{host} was not resolved within {self._timeout:g} s; see whether the resolver answers"
            raise _failure(Side.PROXY, Kind.RESOLVE_TIMEOUT, detail)
        return _addresses(answer, port)

    def _start(self, host: str, flight: _Flight) -> None:
        def work() -> None:
            # On a lookup thread. A flight is wanted from its first moment, so `abandoned` is only ever set
            # after a wait; it is read without a lock: at worst one lookup too many is made.
            answer = None if flight.abandoned else _look_up(self._lookup, host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left who waits
                flight.loop.call_soon_threadsafe(self._land, host, flight, answer)

        if not self._threads.submit(work):
            del self._under_way[host]
            detail = f"{host} cannot be looked up: {MAX_LOOKUPS_WAITING} lookups wait already; try again"
            raise _failure(Side.PROXY, Kind.RESOLVE_FAILED, detail)

    def _land(self, host: str, flight: _Flight, answer: _Answer | None) -> None:
        if answer is None and not flight.abandoned:  # someone joined while the thread let it go
            with contextlib.suppress(ProxyError):
                self._start(host, flight)
            return
        del self._under_way[host]
        if answer is None:
            return
        ttl = NEGATIVE_TTL_SECONDS if isinstance(answer, ProxyError) else self._ttl
        if ttl > 0:
            self._cache.pop(host, None)  # to the end: the dict is in order of age
            self._cache[host] = (self._clock() + ttl, answer)
            if len(self._cache) > MAX_CACHED_NAMES:
                del self._cache[next(iter(self._cache))]
        flight.answer.set_result(answer)


class _Flight:
    """A lookup under way. `answer` holds failures as values: one exception must not be raised twice."""

    __slots__ = ("_waiting", "abandoned", "answer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answer: asyncio.Future[_Answer] = loop.create_future()
        self.abandoned = False
        self._waiting = 0

    async def wait(self, timeout: float) -> _Answer | None:
        """The answer; None where it does not come in time. May be cancelled without harm to others."""
        self._waiting += 1
        self.abandoned = False
        try:
            await asyncio.wait((self.answer,), timeout=timeout)
        finally:
            self._waiting -= 1
            self.abandoned = self._waiting == 0
        return self.answer.result() if self.answer.done() else None


class _Threads:
    """A bounded pool of daemon threads. concurrent.futures has none: its threads are joined at exit."""

    def __init__(self, most: int, most_waiting: int) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle = 0
        self._alive = 0

    def submit(self, job: Callable[[], None]) -> bool:
        """Run the job on some thread, soon. False: too many wait already. Never blocks."""
        with self._changed:
            if len(self._jobs) >= self._most_waiting:
                return False
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return True
            if self._alive == self._most:
                return True
            self._alive += 1
        try:
            threading.Thread(target=self._work, name="polytls-resolve", daemon=True).start()
        except RuntimeError:  # the system gives no more threads: those alive will come to it
            with self._changed:
                self._alive -= 1
                if self._alive == 0:
                    self._jobs.remove(job)
                    return False
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                found = self._changed.wait_for(lambda: bool(self._jobs), THREAD_IDLE_SECONDS)
                self._idle -= 1
                if not found:
                    self._alive -= 1
                    return
                job = self._jobs.popleft()
            job()


def _look_up(lookup: Lookup, host: str) -> _Answer:
    try:
        addresses = interleave(lookup(host))
    except socket.gaierror as error:
        if error.errno in _NOT_FOUND:
            return _not_found(host)
        return _failure(Side.PROXY, Kind.RESOLVE_FAILED, f"{host} could not be looked up: {error.strerror}")
    except (OSError, UnicodeError) as error:
        return _failure(Side.PROXY, Kind.RESOLVE_FAILED, f"{host} could not be looked up: {error}")
    except Exception as error:  # noqa: BLE001 - an answer must come whatever a lookup does: tunnels wait for it
        detail = f"{host} could not be looked up: {type(error).__name__}"
        return _failure(Side.PROXY, Kind.RESOLVE_FAILED, detail)
    return addresses or _not_found(host)


def _not_found(host: str) -> ProxyError:
    return _failure(
        Side.UPSTREAM, Kind.NAME_NOT_FOUND, f"{host} has no address; check the name, or map it with --resolve"
    )


def _failure(side: Side, kind: Kind, detail: str) -> ProxyError:
    return ProxyError(side, Stage.CONNECT, kind, detail)


def _addresses(answer: _Answer, port: int) -> tuple[SocketAddress, ...]:
    if isinstance(answer, ProxyError):
        raise ProxyError(answer.side, answer.stage, answer.kind, answer.detail)
    return _at(answer, port)


# Tunnels to one place share what says where it is, for as long as they live.
@lru_cache(MAX_CACHED_NAMES)
def _at(addresses: tuple[str, ...], port: int) -> tuple[SocketAddress, ...]:
    return tuple([SocketAddress(address, port) for address in addresses])


def _target(text: str) -> _Target:
    """ "HOST:PORT", "[V6]:PORT", or an address alone."""
    if is_address(text):
        return _Target(text, None)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is neither an address nor HOST:PORT")
    return _Target(host.removeprefix("[").removesuffix("]"), int(port))
