"""The composition root: settings become objects, objects a proxy that listens. No decision is made here.

Everything is passed in where it is needed; nothing is global. What a mode does not need is neither made
nor imported: passthrough knows no certificate authority, no trust store and no TLS context.

An `App` lives inside a running event loop, and tests have several in one. What a process has only once,
signals, the log and the limit of open files, belongs to `polytls.program`, which runs one `App`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TypeVar, cast

from polytls.config.change import require_takeable
from polytls.engine import Engine
from polytls.errors import PolytlsError
from polytls.events import Draining, LeafMinted, Listening, NotReloaded, Reloaded, Warned
from polytls.parts import Given, Parts, changes, make_parts
from polytls.proxy.resolve import Lookup, system_lookup
from polytls.proxy.server import Server
from polytls.started import ListenError
from polytls.telemetry.counters import Counters, EngineCounters, LeafCounters

if TYPE_CHECKING:
    from polytls.config import LoadedSettings
    from polytls.events import EventSink
    from polytls.pki.audit import MintEvent
    from polytls.pki.root import RootCA
    from polytls.settings import Address, Settings

T = TypeVar("T")

SPARE_STREAMS = 1024
"""Beside two for each tunnel: connections whose head is being read, or that are being told no."""


class App:
    """One proxy. `start` it, and `stop` it whatever became of `start`.

    `sink` takes every event, mostly on the event loop, and must not block. `origins` says where settings came
    from (`LoadedSettings.origins`). `traced`: the sink wants to know which trace a tunnel belongs to.
    `listener`: the descriptor of a socket that listens already, instead of one to be made. `ids` gives each
    tunnel its number, instead of from 1 on. `max_streams`: connections that may be open at once, of clients
    and upstream, where that is less than tunnels would like to have.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sink: EventSink,
        origins: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        lookup: Lookup = system_lookup,
        traced: bool = False,
        listener: int | None = None,
        ids: Callable[[], int] | None = None,
        max_streams: int | None = None,
    ) -> None:
        self.settings = settings
        self.engine: Engine | None = None
        self.server: Server | None = None
        self._sink = sink
        self._origins = origins or {}
        self._given = Given(os.environ if environ is None else environ, lookup, self._audit, traced)
        self._parts: Parts | None = None
        self._stopping = False
        self._reloading: _OneThread | None = None
        self._listener = listener
        self._ids = ids
        wanted = 2 * settings.limits.tunnels + SPARE_STREAMS
        self._max_streams = wanted if max_streams is None else min(wanted, max_streams)
        self._most_tunnels = settings.limits.tunnels

    @property
    def root(self) -> RootCA | None:
        """The root CA; None before the start, and while there has been no MITM mode."""
        identity = None if self._parts is None else self._parts.identity
        return None if identity is None else identity.root

    @property
    def trusted_roots(self) -> int | None:
        """How many roots upstream is verified by; None: it is not verified."""
        return None if self._parts is None else self._parts.trusted_roots

    async def start(self) -> Address:
        """Make everything and listen; the address with its actual port.

        Raises `UserError` for what whoever runs the program can mend, `ListenError`.
        """
        settings = self.settings
        self._parts = parts = make_parts(settings, self._origins, self._given)
        self.engine = Engine.start(threads=settings.engine.threads, max_streams=self._max_streams)
        self.server = Server(
            self.engine,
            parts.snapshot,
            sink=self._sink,
            report=lambda text: self._sink(Warned(text)),
            ids=self._ids,
        )
        try:
            address = self.server.listen(self._listener)
        except OSError as error:
            raise ListenError(settings.listen.address, error) from error
        self._sink(Listening(str(address), settings.mode.value))
        return address

    async def reload(self, read: Callable[[], LoadedSettings]) -> bool:
        """Have new tunnels go by what `read` gives, if all of it can be taken; else nothing changes. What
        came of it is an event. `read` is called on another thread, and all that it leads to is made there.

        True: it was taken, or is what there is. Not to be called again while it is under way.
        """
        before = self._parts
        if before is None or self.server is None:
            return False
        try:
            # One thread for all reloads: what they make and let go is then of one arena of malloc's.
            if self._reloading is None:
                self._reloading = _OneThread("polytls-reload")
            parts, changed = await self._reloading.call(lambda: self._read_again(read, before))
        except (PolytlsError, OSError) as error:
            self._sink(NotReloaded(str(error)))
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the proxy goes on as it was
            self._sink(NotReloaded(f"a defect of PolyTLS, please report it\n{_trace(error)}"))
            return False
        if self._stopping:
            return False
        if changed:
            self._adopt(parts, self.server)
        self._sink(Reloaded(changed))
        return True

    def _read_again(self, read: Callable[[], LoadedSettings], before: Parts) -> tuple[Parts, tuple[str, ...]]:
        loaded = read()
        require_takeable(
            before.settings,
            loaded.settings,
            root_loaded=before.identity is not None,
            most_tunnels=self._most_tunnels,
        )
        parts = make_parts(loaded.settings, loaded.origins, self._given, before)
        return parts, changes(before, parts)

    def _adopt(self, parts: Parts, server: Server) -> None:
        self._parts, self.settings = parts, parts.settings
        if parts.identity is not None:
            certificate = parts.settings.certificate
            parts.identity.leaves.change(
                ttl=certificate.cache_ttl, max_entries=certificate.cache_size, days=certificate.leaf_days
            )
        server.snapshot = parts.snapshot

    async def stop(self, drain_seconds: float) -> None:
        """Drain and end everything. Works after a `start` that failed, too."""
        self._stopping = True
        if self.server is not None:
            self._sink(Draining(len(self.server.tracker.live), drain_seconds))
            await self.server.drain(drain_seconds)
        if self.engine is not None:
            await self.engine.close()
        if self._parts is not None and self._parts.identity is not None:
            self._parts.identity.leaves.close()
        if self._reloading is not None:
            self._reloading.end()

    def counters(self) -> Counters:
        """What this proxy counts, now. For any thread."""
        server, engine = self.server, self.engine
        identity = None if self._parts is None else self._parts.identity
        cache = None if identity is None else identity.leaves.stats()
        stats = None if engine is None else engine.stats()
        return Counters(
            open_tunnels=0 if server is None else len(server.tracker.live),
            unspoken=0 if server is None else server.tracker.unspoken,
            leaves=None
            if cache is None
            else LeafCounters(
                cache.hits, cache.misses, cache.mints, cache.failures, cache.evictions, cache.size
            ),
            engine=None
            if stats is None
            else EngineCounters(
                streams=stats.streams,
                operations=stats.operations,
                relays=stats.relays,
                queued=stats.completions,
                buffered_bytes=stats.buffered_bytes,
                relayed_bytes=stats.relayed_bytes,
                handshakes=stats.handshakes,
                accept_errors=stats.accept_errors,
            ),
        )

    def end(self) -> None:
        """Cut a `stop` that is under way short: all tunnels end now."""
        if self.server is not None:
            self.server.end()

    def _audit(self, event: MintEvent) -> None:
        # On a minting thread; a sink only queues.
        until = event.not_after.date().isoformat()
        self._sink(LeafMinted(event.host, event.kind.value, event.serial_hex, until))


class _OneThread:
    """Calls functions one after the other. A daemon, which those of concurrent.futures are not: one that
    reads a file which never answers must not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """What it returns, or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.done():  # cancelled: nobody waits any more
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast("T", result))

        def call() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as raised:  # noqa: BLE001 - for whoever asked
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, error)
            del result, error  # an error holds this frame, and the frame would hold it

        self._calls.put(call)
        return await future

    def end(self) -> None:
        """When it has done what it does."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds what it has made


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
