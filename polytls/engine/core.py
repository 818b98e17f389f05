"""`Engine`: operations in, completions out, on one asyncio loop.

An operation is submitted with a tag; its completion comes back with it through the engine's eventfd, in
batches. Between the two stands a `Pending`: a future, and how its completion is read. Everything here runs
on the loop's thread; the native threads are never waited for, except when the engine stops.

An await that is cancelled cancels its operation. The completion still comes, and what it carries (a new
connection, say) is disposed of here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from polytls.engine._native import ffi, lib
from polytls.engine.facts import Accepted, Connected, SocketAddress
from polytls.engine.failures import Failure, error_of, status_name
from polytls.engine.stream import Stream, data_of, milliseconds
from polytls.errors import EngineError, Side
from polytls.settings import Address

if TYPE_CHECKING:
    from typing_extensions import Self

    from polytls.engine._native import CData

ABI_VERSION = 2
_BATCH = 256  # completions taken at once
_ERROR_BYTES = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of the engine. `streams`, `operations`, `relays`, `buffered_bytes`, `completions`: now; the
    rest since the start (native.h, ptl_stats)."""

    streams: int
    operations: int
    relays: int
    buffered_bytes: int
    completions: int
    accepted: int
    connected: int
    handshakes: int
    relayed_bytes: int
    accept_errors: int
    stale_handles: int
    sessions_offered: int
    impossible: int


class Pending(Generic[T]):
    """An operation under way: who waits for it, and how its completion becomes what they wait for."""

    __slots__ = ("future", "read", "side", "stream", "tag")

    def __init__(
        self, future: asyncio.Future[T], read: Callable[[CData], T], stream: Stream, tag: int, side: Side
    ) -> None:
        self.future = future
        self.read = read
        self.stream = stream
        self.tag = tag
        self.side = side


class Listener:
    """A listening socket. `address` has the port that was really taken."""

    def __init__(self, engine: Engine, number: int, tag: int, address: Address) -> None:
        self._engine = engine
        self._number = number
        self._tag = tag
        self.address = address

    def close(self) -> None:
        """Stops accepting; heads being read go on. Closing twice does nothing."""
        self._engine.unlisten(self._number)


class Engine:
    """The native engine, bound to the running asyncio loop."""

    def __init__(self, native: CData, loop: asyncio.AbstractEventLoop) -> None:
        self._native = native
        self._loop = loop
        self._last_tag = 0
        self._pending: dict[int, Pending[Any]] = {}
        self._listeners: dict[int, Callable[[Accepted], None]] = {}
        self._completions = ffi.new("ptl_completion[]", _BATCH)
        self._closed = False
        self._eventfd = lib.ptl_engine_eventfd(native)
        loop.add_reader(self._eventfd, self._drain)

    @classmethod
    def start(cls, *, threads: int = 0, max_streams: int = 0) -> Self:
        """A running engine on the running loop. `threads` 0: one per usable core; `max_streams` 0: no bound.
        Raises EngineError when the threads cannot be started or the module does not fit this Python code."""
        if lib.ptl_abi_version() != ABI_VERSION or lib.PTL_ABI_VERSION != ABI_VERSION:
            raise EngineError("the native module is of another version: build it again (`make build`)")
        error = ffi.new("char[]", _ERROR_BYTES)
        native = lib.ptl_engine_new(threads, max_streams, error, _ERROR_BYTES)
        if native == ffi.NULL:
            raise EngineError(ffi.string(error).decode(errors="replace"))
        return cls(ffi.gc(native, lib.ptl_engine_free), asyncio.get_running_loop())

    @staticmethod
    def versions() -> str:
        """What the engine is built on, for `polytls --version`."""
        return ffi.string(lib.ptl_versions()).decode()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def threads(self) -> int:
        return int(lib.ptl_engine_num_loops(self._native))

    def listen(
        self,
        address: Address,
        *,
        backlog: int,
        head_limit: int,
        head_timeout: float,
        on_accept: Callable[[Accepted], None],
    ) -> Listener:
        """Listens, and calls `on_accept` for each client whose request head is there (or failed to come).
        Raises OSError with the errno of what was not possible."""
        number, port, errno = ffi.new("uint32_t *"), ffi.new("uint16_t *"), ffi.new("int *")
        tag = self._next_tag()
        status = lib.ptl_listen(
            self._native,
            address.host.encode("ascii"),
            address.port,
            backlog,
            head_limit,
            milliseconds(head_timeout),
            tag,
            number,
            port,
            errno,
        )
        if status == lib.PTL_E_IO:
            raise OSError(errno[0], os.strerror(errno[0]), str(address))
        if status != lib.PTL_OK:
            raise EngineError(f"listen: {status_name(status)}")
        self._listeners[tag] = on_accept
        return Listener(self, int(number[0]), tag, Address(address.host, int(port[0])))

    def unlisten(self, number: int) -> None:
        if not self._closed:
            lib.ptl_unlisten(self._native, number)

    async def connect(
        self, near: Stream, addresses: Sequence[SocketAddress], *, stagger: float = 0.25, timeout: float
    ) -> Connected:
        """A connection to the first of `addresses` that answers, on the loop of `near`. Attempts begin
        `stagger` seconds apart, or at once when one fails (RFC 8305 §5). Raises ProxyError (CONNECT_*) that
        names every address tried."""
        native = ffi.new("ptl_address[]", len(addresses))
        for slot, address in zip(native, addresses, strict=True):
            ip = ipaddress.ip_address(address.ip)
            slot.ip[0 : len(ip.packed)] = ip.packed
            slot.ip_len = len(ip.packed)
            slot.port = address.port
        op = self.new_ops(1)
        op[0].kind = lib.PTL_OP_CONNECT
        op[0].stream = near.handle
        op[0].addresses = native
        op[0].num_addresses = len(addresses)
        op[0].stagger_ms = milliseconds(stagger)
        op[0].deadline_ms = milliseconds(timeout)

        def read(completion: CData) -> Connected:
            stream = Stream(self, int(completion.stream), Side.UPSTREAM)
            address = addresses[completion.address_index]
            return Connected(stream, address, int(completion.started_ns), int(completion.ended_ns))

        pending = self.prepare(op[0], near, Side.UPSTREAM, read)
        self.submit(op, 1)
        try:
            await self.wait(pending)
        except BaseException:
            # Cancelled in the very moment it was done: the connection is there, and nobody will have it.
            future = pending.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().stream.close(reset=True)
            raise
        return pending.future.result()

    def stats(self) -> EngineStats:
        stats = ffi.new("ptl_stats *")
        lib.ptl_engine_stats(self._native, stats)
        return EngineStats(*(int(getattr(stats, name)) for name in EngineStats.__slots__))

    async def close(self) -> None:
        """Ends every operation and closes every stream. Whoever still waits gets an error. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._listeners.clear()  # who was still sending its head is nobody's tunnel any more
        # The loop threads may be waiting for the GIL in a decompressor: stop gives it up meanwhile.
        lib.ptl_engine_stop(self._native)
        self._drain()
        self._loop.remove_reader(self._eventfd)
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(EngineError("the engine is closed"))
        self._pending.clear()

    # --- for Stream -----------------------------------------------------------------------------

    def new_ops(self, count: int) -> CData:
        """`count` operations, all zero, for `prepare` and `submit`."""
        return ffi.new("ptl_op[]", count)

    def prepare(self, op: CData, stream: Stream, side: Side, read: Callable[[CData], T]) -> Pending[T]:
        """Gives `op` a tag, and says what becomes of its completion."""
        tag = self._next_tag()
        op.tag = tag
        pending: Pending[T] = Pending(self._loop.create_future(), read, stream, tag, side)
        self._pending[tag] = pending
        return pending

    def submit(self, ops: CData, count: int) -> None:
        """Raises EngineError when the engine takes nothing more."""
        status = lib.PTL_E_SHUTDOWN if self._closed else lib.ptl_submit(self._native, ops, count)
        if status != lib.PTL_OK:
            for index in range(count):
                self._pending.pop(int(ops[index].tag), None)
            raise EngineError(f"submit: {status_name(status)}")

    async def wait(self, *pending: Pending[Any]) -> None:
        """Waits until all of `pending`, which are submitted, are over. The first failure is raised. A wait
        that is cancelled cancels them all."""
        try:
            for one in pending:
                await one.future
        except BaseException as error:
            for one in pending:
                if isinstance(error, asyncio.CancelledError):
                    self.cancel(one)
                one.future.cancel()  # what comes now is for nobody
            raise

    def cancel(self, pending: Pending[Any]) -> None:
        """Asks for `pending` to end now; whoever waits for it is told how it ended."""
        if not self._closed:
            lib.ptl_cancel(self._native, pending.stream.handle, pending.tag)

    # --- completions ----------------------------------------------------------------------------

    def _next_tag(self) -> int:
        self._last_tag += 1
        return self._last_tag

    def _drain(self) -> None:
        completions = self._completions
        count = _BATCH
        while count == _BATCH:
            count = lib.ptl_drain(self._native, completions, _BATCH)
            try:
                for index in range(count):
                    self._deliver(completions[index])
            finally:
                lib.ptl_release(completions, count)

    def _deliver(self, completion: CData) -> None:
        """`_dispatch`, such that one handler's defect takes nothing from the others."""
        try:
            self._dispatch(completion)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next completion is somebody else's
            context = {"message": "a completion could not be delivered", "exception": error}
            self._loop.call_exception_handler(context)

    def _dispatch(self, completion: CData) -> None:
        tag = int(completion.tag)
        pending = self._pending.pop(tag, None)
        if pending is None:
            self._accepted(tag, completion)
        elif pending.future.done():  # nobody waits any more
            if completion.kind == lib.PTL_OP_CONNECT and completion.stream:
                Stream(self, int(completion.stream), Side.UPSTREAM).close(reset=True)
        elif completion.status != lib.PTL_OK and completion.kind != lib.PTL_OP_RELAY:
            pending.future.set_exception(error_of(_failure(completion), pending.side))
        else:
            try:
                result = pending.read(completion)
            except Exception as error:  # noqa: BLE001 - who waits is told, whatever it is
                pending.future.set_exception(error)
            else:
                pending.future.set_result(result)

    def _accepted(self, tag: int, completion: CData) -> None:
        on_accept = self._listeners.get(tag)
        if on_accept is None:
            return
        stream = Stream(self, int(completion.stream), Side.CLIENT)
        failed = completion.status != lib.PTL_OK
        on_accept(
            Accepted(
                stream,
                ffi.string(completion.peer).decode("ascii"),
                data_of(completion),
                status_name(completion.status) if failed else None,
                int(completion.started_ns),
                int(completion.ended_ns),
            )
        )


def _failure(completion: CData) -> Failure:
    return Failure(
        completion.kind,
        completion.status,
        completion.alert,
        completion.verify_error,
        bool(completion.flight_sent),
        data_of(completion),
    )
