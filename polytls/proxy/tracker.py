"""Tunnels: the state of one, and who is alive.

A `Tunnel` holds what its session, the refusal of a failure and the drain must know of each other: the two
streams, the stage it is at, and its record. It belongs to the event loop's
thread; nothing here is locked.

The `Tracker` counts. An *admitted* tunnel counts against the limit; one that was turned away at the door
(too many, draining) is alive only until it was told so. A connection that closed without sending a byte is
a health check, not a tunnel: counted, without a record.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.events import TunnelRecord
from polytls.proxy import recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytls.engine import Accepted, Connected, Credential, HelloFacts, RelayFacts, SocketAddress, Stream


class Tunnel:
    """One tunnel under way. Made by `Tracker.begin`."""

    __slots__ = (
        "address",
        "admitted",
        "client",
        "failed",
        "hello",
        "leaf",
        "record",
        "relaying",
        "stage",
        "started_ns",
        "told_to_end",
        "tracker",
        "upstream",
    )

    def __init__(
        self, tracker: Tracker, client: Stream, record: TunnelRecord, started_ns: int, admitted: bool
    ) -> None:
        self.tracker = tracker
        self.client = client
        self.record = record
        self.started_ns = started_ns  # CLOCK_MONOTONIC
        self.admitted = admitted
        self.upstream: Stream | None = None
        self.address: SocketAddress | None = None  # of upstream
        self.stage = Stage.HEAD  # where it is now; what the client can be told hangs on it
        self.hello: HelloFacts | None = None
        self.leaf: Credential | Future[Credential] | None = None
        self.told_to_end = False
        self.failed = False
        self.relaying = False  # from when the relay is submitted until its end was told

    @property
    def dialled(self) -> Stream:
        """Upstream's stream, for who comes after `connected`."""
        if self.upstream is None:
            raise RuntimeError("there is no upstream yet")
        return self.upstream

    def connected(self, facts: Connected, stage: Stage) -> None:
        """Upstream is there, and the client is being told so; the tunnel is at `stage`."""
        self.upstream = facts.stream
        self.address = facts.address
        self.stage = stage
        self.record.reply = 200
        recording.connected(self.record, facts)

    def relayed(self, facts: RelayFacts) -> None:
        """The relay is over. Says so whatever goes wrong here: without it there would be no record."""
        self.relaying = False
        self.client.relayed(self.upstream, facts)
        if self not in self.tracker.live:
            return  # its task was cancelled in the moment in which the relay began: the record is out
        try:
            recording.relayed(self, facts)
        finally:
            self.tracker.relay_over(self)

    def fail(self, error: ProxyError) -> None:
        """Write into the record that this is what the tunnel ended in. Only the first failure counts."""
        if self.failed:
            return
        self.failed = True
        record = self.record
        record.failed_ns = time.monotonic_ns()
        record.outcome = error.kind.value
        record.side = error.side.value
        record.stage = error.stage.value
        record.detail = error.detail

    def cut_short(self) -> ProxyError:
        """The failure of a tunnel that was ended by the proxy while under way."""
        if self.told_to_end:
            detail = "the proxy stopped, and the time for tunnels to end was over"
            return ProxyError(Side.PROXY, self.stage, Kind.DRAINED, detail)
        return ProxyError(Side.PROXY, self.stage, Kind.CANCELLED, "the proxy ended the tunnel")

    def end(self) -> bool:
        """Ask the engine to end what it does for this tunnel. False: it does nothing, Python does."""
        return self.client.end() or (self.upstream is not None and self.upstream.end())

    def close(self) -> None:
        """Close whatever is still open. Further calls do nothing."""
        self.client.close()
        if self.upstream is not None:
            self.upstream.close()


class Tracker:
    """Who is alive, and what became of the others. `outcomes` counts records by outcome."""

    def __init__(self, over: Callable[[Tunnel], None], ids: Callable[[], int] | None = None) -> None:
        """`over` is called when everything about a tunnel is over; it still counts then. `ids` gives each
        tunnel its number; None: from 1 on."""
        self.outcomes: Counter[str] = Counter()
        self.unspoken = 0
        self.admitted = 0
        self._over = over
        self._next_id = ids or itertools.count(1).__next__
        self._live: dict[Tunnel, asyncio.Task[None] | None] = {}
        self._none_live: asyncio.Future[None] | None = None

    @property
    def live(self) -> dict[Tunnel, asyncio.Task[None] | None]:
        """Every tunnel that has not ended, admitted or not, with the task that leads it; None: the engine has
        all of it, and nothing needs to be led. Not a copy."""
        return self._live

    def begin(self, accepted: Accepted, *, admitted: bool) -> Tunnel:
        """A tunnel for an accepted connection. It lives from `lead` to `end`."""
        self.admitted += admitted
        started_ns = accepted.started_ns
        record = TunnelRecord(
            id=self._next_id(),
            client=accepted.client,
            started_at=time.time() - (time.monotonic_ns() - started_ns) / 1e9,
            started_ns=started_ns,
        )
        record.timings.head = (accepted.ended_ns - started_ns) / 1e9
        return Tunnel(self, accepted.stream, record, started_ns, admitted)

    def lead(self, tunnel: Tunnel, task: asyncio.Task[None] | None) -> None:
        """`task`, if any, leads the tunnel; this is also the reference that keeps the task alive."""
        self._live[tunnel] = task

    def led(self, tunnel: Tunnel, task: asyncio.Task[None]) -> None:
        """`task` of a tunnel is done. Unless the tunnel relays now, or another task leads it already (what
        this one set off may fail before its end is told), the tunnel is over."""
        if self._live.get(tunnel) is not task:
            return
        self._live[tunnel] = None
        if not tunnel.relaying:
            self._over(tunnel)

    def relay_over(self, tunnel: Tunnel) -> None:
        """The relay of a tunnel has ended. Unless its task has still to be told that it began, it is over."""
        if tunnel in self._live and self._live[tunnel] is None:
            self._over(tunnel)

    def end(self, tunnel: Tunnel) -> None:
        """A tunnel is over; it is no longer alive. Its record is complete."""
        del self._live[tunnel]
        self.admitted -= tunnel.admitted
        self.outcomes[tunnel.record.outcome] += 1
        if self._none_live is not None and not self._live:
            self._none_live.set_result(None)
            self._none_live = None

    async def until_none(self, seconds: float) -> None:
        """Return when no tunnel is alive, or so many seconds are over. For one waiter at a time."""
        if not self._live:
            return
        self._none_live = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((self._none_live,), timeout=seconds)
        finally:
            self._none_live = None
