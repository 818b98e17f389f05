"""Listeners, the limit on tunnels, and the drain: what holds for all tunnels, not for one.

Guarantees:

* Every tunnel ends in exactly one record, handed to the sink when everything about it is over, also if its
  session fails in a way nobody foresaw, and also if it is cancelled before it ran at all. That is why the end
  of a tunnel is a callback, on its task or on its relay, and no part of its session.
* Nothing that happens in a tunnel ends the server. What nobody foresaw is the outcome "internal", with its
  traceback to `report`.
* `drain` ends: it stops accepting, answers 503 to heads that were still on their way and to who waited in the
  backlog, leaves tunnels the time they are given, then ends them. `end` cuts that short.

A tunnel has a task while there is something to wait for: most have none (`session`), and what relays has
none. The tracker holds the task (the event loop itself keeps only a weak reference).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.proxy import session
from polytls.proxy.tell import tell
from polytls.proxy.tracker import Tracker, Tunnel
from polytls.wire.connect import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from polytls.engine import Accepted, Engine, Listener
    from polytls.events import RecordSink
    from polytls.proxy.snapshot import Snapshot
    from polytls.settings import Address

END_SECONDS = 2.0
"""For tunnels that were told to end: time for close_notify and FIN, not for a client that does not read."""

HEADS_SECONDS = 0.5
"""For clients that were connected when the proxy began to stop, and whose head had not come, to be told so:
most have sent it by then. One that has nothing to say yet must not hold up the end."""

_WENT_AWAY = frozenset({"closed", "reset", "io"})
_STOPPED = frozenset({"cancelled", "shutdown"})


class Server:
    """Accepts and leads tunnels on a running engine. All methods are for the event loop's thread.

    `snapshot` may be replaced at any time; new tunnels go by the new one. `report` takes text for whoever
    runs the proxy, and must not block. `ids` gives each tunnel its number; None: from 1 on.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        *,
        sink: RecordSink,
        report: Callable[[str], None],
        ids: Callable[[], int] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.tracker = Tracker(self._over, ids)
        self._engine = engine
        self._sink = sink
        self._report = report
        self._listeners: list[Listener] = []
        self._draining = False
        self._heard = 0  # clients whose head has come, or has failed to
        self._unheard = 0  # the others, once a drain has begun
        self._all_heard = asyncio.Event()

    def listen(self, fd: int | None = None) -> Address:
        """Listen where the settings say, or on `fd`, which listens there already; the address with its actual
        port. Raises OSError."""
        settings = self.snapshot.settings
        address, timeout = settings.listen.address, settings.timeouts.head
        if fd is None:
            listener = self._engine.listen(
                address,
                backlog=settings.listen.backlog,
                head_limit=MAX_HEAD_BYTES,
                head_timeout=timeout,
                on_accept=self._on_accept,
            )
        else:
            listener = self._engine.listen_on(
                fd, address, head_limit=MAX_HEAD_BYTES, head_timeout=timeout, on_accept=self._on_accept
            )
        self._listeners.append(listener)
        return listener.address

    async def drain(self, seconds: float) -> None:
        """Accept no more, wait at most so long for tunnels to end, then end them. Done when all have."""
        self._draining = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._unheard = self._engine.stats().accepted - self._heard
        if self._unheard > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_heard.wait(), min(seconds, HEADS_SECONDS))
        await self.tracker.until_none(seconds)
        while self.tracker.live:
            self.end()
            await self.tracker.until_none(END_SECONDS)

    def end(self) -> None:
        """Tell every tunnel to end now. A `drain` under way is done when they have."""
        for tunnel, task in list(self.tracker.live.items()):
            # The engine first: what it has done by now comes before that it was told to end. It is asked each
            # time: what was under way may have succeeded in that very moment, and led to something else.
            asked = tunnel.end()
            if (tunnel.told_to_end or not asked) and task is not None:
                task.cancel()
            tunnel.told_to_end = True

    def _on_accept(self, accepted: Accepted) -> None:
        self._heard += 1
        if self._unheard:
            self._unheard -= 1
            if not self._unheard:
                self._all_heard.set()
        if accepted.failure in _STOPPED or (accepted.failure in _WENT_AWAY and not accepted.head):
            self.tracker.unspoken += 1
            accepted.stream.close()
            return
        turned_away, snapshot = self._turned_away(), self.snapshot
        tunnel = self.tracker.begin(accepted, admitted=turned_away is None)
        self.tracker.lead(tunnel, None)

        def go_on(rest: session.Rest) -> None:
            task = self._engine.loop.create_task(self._lead(tunnel, rest, snapshot))
            self.tracker.lead(tunnel, task)
            task.add_done_callback(partial(self._led, tunnel))

        try:
            if turned_away is not None:
                raise turned_away
            rest = session.lead(tunnel, accepted, snapshot, self._engine, go_on)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this tunnel's alone
            rest = session.fail(error)
        if rest is not None:
            go_on(rest)

    def _turned_away(self) -> ProxyError | None:
        if self._draining:
            detail = "the proxy is stopping; try again when it has been restarted"
            return ProxyError(Side.PROXY, Stage.LIMITS, Kind.DRAINING, detail)
        limit = self.snapshot.settings.limits.tunnels
        if self.tracker.admitted >= limit:
            detail = f"{limit} tunnels are open, the most that are allowed; try again in a moment"
            return ProxyError(Side.PROXY, Stage.LIMITS, Kind.TOO_MANY_TUNNELS, detail)
        return None

    async def _lead(self, tunnel: Tunnel, rest: session.Rest, snapshot: Snapshot) -> None:
        try:
            await rest
        except ProxyError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this tunnel's alone
            failure = self._unforeseen(tunnel, error)
        else:
            return
        try:
            if tunnel.told_to_end:
                tunnel.fail(tunnel.cut_short())
            else:
                tunnel.fail(failure)
                await tell(tunnel, failure, snapshot)
        finally:
            del failure  # it holds this frame, and the frame would hold it and the tunnel

    def _led(self, tunnel: Tunnel, task: asyncio.Task[None]) -> None:
        """A tunnel's task is done, however."""
        if task.cancelled():
            tunnel.fail(tunnel.cut_short())
        elif (error := task.exception()) is not None:
            tunnel.fail(self._unforeseen(tunnel, error))
        self.tracker.led(tunnel, task)

    def _over(self, tunnel: Tunnel) -> None:
        """Everything about a tunnel is over: close what is open, complete its record, hand it over."""
        try:
            tunnel.close()
        except Exception as error:  # noqa: BLE001 - there is a record even so
            tunnel.fail(self._unforeseen(tunnel, error))
        record = tunnel.record
        record.timings.total = (time.monotonic_ns() - tunnel.started_ns) / 1e9
        self.tracker.end(tunnel)
        try:
            self._sink(record)
        except Exception as error:  # noqa: BLE001 - a log that fails must not end the server
            self._unforeseen(tunnel, error)

    def _unforeseen(self, tunnel: Tunnel, error: BaseException) -> ProxyError:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._report(f"tunnel {tunnel.record.id}: a defect of PolyTLS, please report it\n{trace}")
        detail = f"a defect of PolyTLS ({type(error).__name__}); its log has the details"
        return ProxyError(Side.PROXY, tunnel.stage, Kind.INTERNAL, detail)
