"""`Engine`: operations in, completions out, on one asyncio loop.

An operation is submitted with a tag; its completion comes back with it through the engine's eventfd, in
batches. Between the two stands what is expected of it: a future, and how the completion is read. Everything
here runs on the loop's thread; the native threads are never waited for, except when the engine stops.

An await that is cancelled cancels its operation. The completion still comes, and what it carries (a new
connection, say) is disposed of here.

A batch is many tunnels' and each callback is one's. What a callback raises goes to who waits for that
operation, or else to the event loop's handler of exceptions, as with asyncio's own callbacks, and the rest of
the batch is delivered. Only what ends the program (SystemExit, KeyboardInterrupt) is raised, after that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polytls.engine import read
from polytls.engine._native import ffi, lib
from polytls.engine.chain import STAGGER_SECONDS, Chain, Role, milliseconds
from polytls.engine.facts import Accepted, Connected, RelayFacts, SocketAddress, UnexpectedHelloError
from polytls.engine.failures import Failure, error_of, status_name
from polytls.errors import EngineError, ProxyError, Side
from polytls.settings import Address

if TYPE_CHECKING:
    from typing_extensions import Self

    from polytls.engine._native import CData
    from polytls.engine.chain import Waiter
    from polytls.engine.stream import Stream

ABI_VERSION = 4
_BATCH = 256  # completions taken at once
_ERROR_BYTES = 256

# Who waits, how the completion reads, who is told of the facts, what it is to who waits, whose stream it is.
_Expected = tuple["Waiter", Callable[..., Any], "Callable[[Any], None] | None", Role, Side]


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
    rests: int
    impossible: int


class Listener:
    """A listening socket. `address` has the port that was really taken."""

    def __init__(self, engine: Engine, number: int, tag: int, address: Address) -> None:
        self._engine = engine
        self._number = number
        self._tag = tag
        self.address = address

    def close(self) -> None:
        """Stops accepting, after what waits in the backlog; heads being read go on. Closing twice does
        nothing."""
        self._engine.unlisten(self._number)


class Engine:
    """The native engine, bound to the running asyncio loop."""

    def __init__(self, native: CData, loop: asyncio.AbstractEventLoop) -> None:
        self._native = native
        self.loop = loop
        self._last_tag = 0
        # A relay that has begun is only its callback: there are as many as there are tunnels.
        self._expected: dict[int, _Expected | Callable[[RelayFacts], None]] = {}
        self._listeners: dict[int, Callable[[Accepted], None]] = {}
        self._completions = ffi.new("ptl_completion[]", _BATCH)
        self._close = ffi.new("ptl_op *", {"kind": lib.PTL_OP_CLOSE})  # one for all: it is copied
        self._closed = False
        self._eventfd = lib.ptl_engine_eventfd(native)
        loop.add_reader(self._eventfd, self._drain)

    @classmethod
    def start(cls, *, threads: int = 0, max_streams: int = 0) -> Self:
        """A running engine on the running loop. `threads` 0: one per usable core but one, which is this
        thread's, and at least one; `max_streams` 0: no bound.
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
        self._last_tag = tag = self._last_tag + 1
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

    def listen_on(
        self,
        fd: int,
        address: Address,
        *,
        head_limit: int,
        head_timeout: float,
        on_accept: Callable[[Accepted], None],
    ) -> Listener:
        """As `listen`, on a socket that listens already, at `address`. `fd` is the engine's from then on,
        also if this fails; another process may hold the socket too, for which closing the listener ends it as
        well."""
        number, errno = ffi.new("uint32_t *"), ffi.new("int *")
        self._last_tag = tag = self._last_tag + 1
        status = lib.ptl_listen_on(
            self._native, fd, head_limit, milliseconds(head_timeout), tag, number, errno
        )
        if status == lib.PTL_E_IO:
            raise OSError(errno[0], os.strerror(errno[0]), str(address))
        if status != lib.PTL_OK:
            raise EngineError(f"listen: {status_name(status)}")
        self._listeners[tag] = on_accept
        return Listener(self, int(number[0]), tag, address)

    def unlisten(self, number: int) -> None:
        if not self._closed:
            lib.ptl_unlisten(self._native, number)

    async def connect(
        self,
        near: Stream,
        addresses: Sequence[SocketAddress],
        *,
        stagger: float = STAGGER_SECONDS,
        timeout: float,
    ) -> Connected:
        """A connection to the first of `addresses` that answers, on the loop of `near`. Attempts begin
        `stagger` seconds apart, or at once when one fails (RFC 8305 §5). Raises ProxyError (CONNECT_*) that
        names every address tried."""
        made: list[Connected] = []
        chain = self.chain().connect(near, addresses, stagger=stagger, timeout=timeout, done=made.append)
        try:
            return await chain.run()
        except BaseException:
            # Cancelled in the very moment it was done: the connection is there, and nobody will have it.
            for connected in made:
                connected.stream.close(reset=True)
            raise

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
        try:
            self._drain()
        finally:
            self.loop.remove_reader(self._eventfd)
            left = list(self._expected.values())  # none: a stopped engine has told the end of everything
            self._expected.clear()
            for expected in left:
                if isinstance(expected, tuple) and not expected[0].done():
                    expected[0].set_exception(EngineError("the engine is closed"))

    def chain(self) -> Chain[None]:
        """Operations to be submitted together."""
        return Chain(self)

    # --- for Chain and Stream -------------------------------------------------------------------

    def expect(
        self,
        waiter: Waiter,
        reader: Callable[[CData], Any],
        done: Callable[[Any], None] | None,
        role: Role,
        side: Side,
    ) -> int:
        """A tag. When its completion comes, `reader` makes facts of it; they go to `done`, and are the result
        of `waiter` if they are AWAITED. A failure is the failure of `waiter`."""
        self._last_tag = tag = self._last_tag + 1
        self._expected[tag] = (waiter, reader, done, role, side)
        return tag

    def submit(self, ops: CData, count: int) -> None:
        """Raises EngineError when the engine takes no more, ProxyError (OUT_OF_MEMORY) when it cannot."""
        status = lib.PTL_E_SHUTDOWN if self._closed else lib.ptl_submit(self._native, ops, count)
        if status != lib.PTL_OK:
            for index in range(count):
                self._expected.pop(ops[index].tag, None)
            if status == lib.PTL_E_NOMEM:
                raise error_of(Failure(ops[0].kind, status, 0, 0, False, b""), Side.CLIENT)
            raise EngineError(f"submit: {status_name(status)}")

    def cancel(self, handle: int, tag: int) -> bool:
        """Asks for the operation `tag`, or whichever of its chain is under way on the loop of the stream
        `handle`, to end now; its completion says how it ended. False: it has ended before."""
        if self._closed or tag not in self._expected:
            return False
        lib.ptl_cancel(self._native, handle, tag)
        return True

    def close_stream(self, handle: int, *, alert: int, reset: bool) -> None:
        """See `Stream.close`. There is always memory for it (native.h, ptl_submit)."""
        if self._closed:
            return
        op = self._close
        op.stream = handle
        op.alert = alert
        op.flags = lib.PTL_FLAG_RESET if reset else 0
        self.submit(op, 1)

    def tell(self, error: BaseException) -> None:
        """What a callback raised: to the event loop's handler, but for what ends the program, which is raised
        (as asyncio does it)."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        context = {"message": "a callback of the engine failed", "exception": error}
        self.loop.call_exception_handler(context)

    # --- completions ----------------------------------------------------------------------------

    def _drain(self) -> None:
        completions = self._completions
        count = _BATCH
        ending: BaseException | None = None
        while count == _BATCH:
            count = lib.ptl_drain(self._native, completions, _BATCH)
            try:
                for index in range(count):
                    try:
                        self._deliver(completions[index])
                    except BaseException as error:  # noqa: BLE001 - the next completion is somebody else's
                        ending = self._ends(error) or ending
            finally:
                lib.ptl_release(completions, count)
        if ending is not None:
            raise ending

    def _ends(self, error: BaseException) -> BaseException | None:
        """Tells of `error`, unless it is one that ends the program."""
        try:
            self.tell(error)
        except BaseException as ending:  # noqa: BLE001 - raised by `_drain` when all of the batch is delivered
            return ending
        return None

    def _deliver(self, completion: CData) -> None:
        expected = self._expected.pop(completion.tag, None)
        if expected is None:
            self._accepted(completion)
            return
        if not isinstance(expected, tuple):
            expected(read.relayed(completion))
            return
        waiter, reader, done, role, side = expected
        try:
            if completion.status and completion.kind != lib.PTL_OP_RELAY:  # how a relay ended is in its facts
                if not waiter.done():
                    waiter.set_exception(_error(completion, side))
                return
            facts = reader(completion)
            if waiter.done() and (role is not Role.AFTER or not _succeeded(waiter)):  # nobody waits any more
                if isinstance(facts, Connected):
                    facts.stream.close(reset=True)
                return
            if done is not None:
                done(facts)
            if role is Role.AWAITED:
                self._begun(completion.tag + 1)
                waiter.set_result(facts)
        except BaseException as error:
            if waiter.done():
                raise
            # Who waits is told, whatever it is. What no future can be given as it is, the loop is told too.
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                waiter.set_exception(error)
                return
            waiter.set_exception(
                EngineError(f"a callback raised {type(error).__name__}, which cannot be waited for")
            )
            raise

    def _begun(self, tag: int) -> None:
        """What a chain's relay follows has succeeded, and `tag` may be that relay."""
        after = self._expected.get(tag)
        if isinstance(after, tuple) and after[3] is Role.AFTER and after[2] is not None:
            self._expected[tag] = after[2]

    def _accepted(self, completion: CData) -> None:
        on_accept = self._listeners.get(completion.tag)
        if on_accept is None:
            return
        accepted = read.accepted(completion, self)
        try:
            on_accept(accepted)
        except BaseException:
            accepted.stream.close(reset=True)  # nobody knows of it
            raise


def _succeeded(waiter: Waiter) -> bool:
    return not waiter.cancelled() and waiter.exception() is None


def _error(completion: CData, side: Side) -> Exception:
    if completion.status == lib.PTL_E_UNEXPECTED and completion.kind == lib.PTL_OP_PEEK_HELLO:
        return UnexpectedHelloError(read.hello(completion))
    said, hello = read.split_hello(completion)
    failure = Failure(
        completion.kind,
        completion.status,
        completion.alert,
        completion.verify_error,
        bool(completion.flight_sent),
        said,
    )
    error = error_of(failure, side)
    if isinstance(error, ProxyError):
        if hello is not None:
            error.hello = hello
        error.hello_begun = completion.kind == lib.PTL_OP_PEEK_HELLO and bool(completion.truncated)
    return error
