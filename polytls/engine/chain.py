"""Operations that follow one another without coming back to Python: submitted at once, awaited once.

What Python decides is decided before a chain begins; the engine starts each operation when the one before it
has succeeded. A MITM tunnel whose name, leaf and client are known is one chain: connect, answer, peek,
upstream's handshake, the client's, and the relay. What comes after the peek was decided for the hello that
the peek expects; where another comes, the chain ends there, and the decision is made anew. What happens in
between wakes nobody: the completions of all operations but the last are quiet (native.h) and come along with
the next that is worth a wake-up.

`done` of an operation is called with its facts, in the order in which they happened and before `run` is over;
what it raises, `run` raises (`core`). The first failure is the chain's. A `run` that is cancelled cancels the
operation that is under way, and with it the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from polytls.engine import read
from polytls.engine._native import ffi, lib
from polytls.engine.contexts import wire_list
from polytls.engine.stream import MAX_HELLO_BYTES
from polytls.errors import Side

if TYPE_CHECKING:
    from polytls.engine._native import CData
    from polytls.engine.contexts import ClientContext, Credential, ServerContext
    from polytls.engine.core import Engine
    from polytls.engine.facts import (
        Connected,
        ExpectedHello,
        HelloFacts,
        RelayFacts,
        SocketAddress,
        TlsFacts,
    )
    from polytls.engine.stream import Stream

_REMEMBERED = 1024  # small values that come again and again
MAX_OPERATIONS = 6
"""In one chain: no tunnel needs a longer one."""
STAGGER_SECONDS = 0.25
"""Between two attempts to connect (RFC 8305 §5 recommends it)."""

T = TypeVar("T")

# Looked up once: `lib` finds a constant anew each time.
_FLAG_LINK = lib.PTL_FLAG_LINK
_FLAG_QUIET = lib.PTL_FLAG_QUIET
_FLAG_RAW = lib.PTL_FLAG_RAW
_ACCEPT_TLS = lib.PTL_OP_ACCEPT_TLS
_CONNECT = lib.PTL_OP_CONNECT
_CONNECT_TLS = lib.PTL_OP_CONNECT_TLS
_PEEK_HELLO = lib.PTL_OP_PEEK_HELLO
_READ = lib.PTL_OP_READ
_READ_HEAD = lib.PTL_OP_READ_HEAD
_EXPECT_HELLO = lib.PTL_EXPECT_HELLO
_EXPECT_ECDSA = lib.PTL_EXPECT_ECDSA
_RELAY = lib.PTL_OP_RELAY
_WRITE = lib.PTL_OP_WRITE
_STREAM_CONNECTED = lib.PTL_STREAM_CONNECTED
_FOLLOWED = _FLAG_LINK | _FLAG_QUIET

_OPS = ffi.typeof(f"ptl_op[{MAX_OPERATIONS}]")
_ADDRESSES = ffi.typeof("ptl_address[]")
_BYTES = ffi.typeof("uint8_t[]")
_TEXT = ffi.typeof("char[]")

_Step = tuple[Callable[[Any], Any], Side, "Callable[[Any], None] | None"]


class Role(Enum):
    """What an operation is to whoever waits for its chain."""

    BEFORE = "before"  # the one that is waited for
    AWAITED = "awaited"
    AFTER = "after"  # it: a relay whose end is told to `ended`


class Waiter(Protocol):
    """Who is told of the operation that is waited for: a future, or what stands in for one."""

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def exception(self) -> BaseException | None: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...


class Launched:
    """A waiter that nobody awaits: it calls back, at once. No turn of the event loop, no task. What it calls
    may raise: that is told to the event loop's handler, and is nothing to whoever delivers."""

    __slots__ = ("_engine", "_failure", "_over")

    def __init__(self, engine: Engine, over: Callable[[Exception | None], None]) -> None:
        self._engine = engine
        self._over: Callable[[Exception | None], None] | None = over
        self._failure: Exception | None = None

    def done(self) -> bool:
        return self._over is None

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception | None:
        return self._failure

    def set_result(self, _result: object, /) -> None:
        self._end(None)

    def set_exception(self, exception: Exception, /) -> None:
        self._failure = exception
        self._end(exception)

    def _end(self, failure: Exception | None) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        try:
            over(failure)
        except BaseException as error:  # noqa: BLE001 - as asyncio's own callbacks
            self._engine.tell(error)


class Chain(Generic[T]):
    """Made by `Engine.chain`. Each method adds an operation; `run` submits them, and gives the facts of the
    one added last. To be run once, at once: what operations point to is read when they are submitted."""

    __slots__ = ("_detached", "_engine", "_far", "_held", "_last", "_ops", "_steps")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ops: CData = ffi.new(_OPS)
        self._steps: list[_Step] = []
        self._held: list[object] = []  # what the operations point to
        self._far: Stream | None = None  # what `connect` has connected
        self._last: Stream | None = None  # whose operation was added last
        self._detached = False  # nobody waits for the relay at its end

    def connect(
        self,
        near: Stream,
        addresses: Sequence[SocketAddress],
        *,
        timeout: float,
        stagger: float = STAGGER_SECONDS,
        done: Callable[[Connected], None] | None = None,
    ) -> Chain[Connected]:
        """See `Engine.connect`."""
        op = self._op(_CONNECT, near, timeout)
        op.addresses = native = ffi.new(_ADDRESSES, len(addresses))
        op.num_addresses = len(addresses)
        op.stagger_ms = milliseconds(stagger)
        self._held.append(native)
        for slot, address in zip(native, addresses, strict=True):
            packed = _packed(address.ip)
            slot.ip_len = len(packed)
            slot.port = address.port
            ffi.memmove(slot.ip, packed, len(packed))

        def connected(completion: CData) -> Connected:
            facts = read.connected(completion, self._engine, addresses)
            self._far = facts.stream
            return facts

        self._steps.append((connected, Side.UPSTREAM, done))
        return cast("Chain[Connected]", self)

    def write(self, stream: Stream, data: bytes, *, timeout: float) -> Chain[None]:
        """See `Stream.write`."""
        op = self._op(_WRITE, stream, timeout)
        op.data, op.data_len = self._bytes(data), len(data)
        self._steps.append((read.nothing, stream.side, None))
        return cast("Chain[None]", self)

    def read(self, stream: Stream, limit: int, *, timeout: float) -> Chain[bytes]:
        """See `Stream.read`."""
        self._op(_READ, stream, timeout, limit)
        self._steps.append((read.data, stream.side, None))
        return cast("Chain[bytes]", self)

    def read_head(self, stream: Stream, limit: int, *, timeout: float) -> Chain[bytes]:
        """See `Stream.read_head`."""
        self._op(_READ_HEAD, stream, timeout, limit)
        self._steps.append((read.data, stream.side, None))
        return cast("Chain[bytes]", self)

    def peek_hello(
        self,
        stream: Stream,
        *,
        limit: int = MAX_HELLO_BYTES,
        timeout: float,
        raw: bool = False,
        expect: ExpectedHello | None = None,
        done: Callable[[HelloFacts], None] | None = None,
    ) -> Chain[HelloFacts]:
        """See `Stream.peek_hello`. With `expect`, what is added after it has been decided for such a hello;
        any other ends the chain with `UnexpectedHelloError`."""
        op = self._op(_PEEK_HELLO, stream, timeout, limit)
        op.flags = _FLAG_RAW if raw else 0
        if expect is not None:
            op.expect = _EXPECT_HELLO | (_EXPECT_ECDSA if expect.ecdsa_ok else 0)
            if expect.sni:
                self._held.append(name := ffi.new(_TEXT, expect.sni))
                op.name = name
            if expect.alpn:
                protocols = wire_list(expect.alpn)
                op.data, op.data_len = self._bytes(protocols), len(protocols)
        self._steps.append((read.hello, stream.side, done))
        return cast("Chain[HelloFacts]", self)

    def connect_tls(
        self,
        stream: Stream | None,
        context: ClientContext,
        *,
        host: str,
        port: int,
        alpn: Sequence[bytes],
        timeout: float,
        raw: bool = False,
        ech_configs: bytes = b"",
        done: Callable[[TlsFacts], None] | None = None,
    ) -> Chain[TlsFacts]:
        """See `Stream.connect_tls`. `stream` None: the one that this chain will have connected."""
        op = self._op(_CONNECT_TLS, stream, timeout)
        op.flags = _FLAG_RAW if raw else 0
        protocols = wire_list(tuple(alpn))
        name = ffi.new(_TEXT, host.encode("ascii"))
        self._held += (name, context)
        op.client_context = context.native
        op.name = name
        op.port = port
        if ech_configs:
            op.ech_configs, op.ech_configs_len = self._bytes(ech_configs), len(ech_configs)
        op.data, op.data_len = self._bytes(protocols), len(protocols)
        self._steps.append((read.tls, Side.UPSTREAM if stream is None else stream.side, done))
        return cast("Chain[TlsFacts]", self)

    def accept_tls(
        self,
        stream: Stream,
        context: ServerContext,
        credential: Credential,
        *,
        alpn: bytes | None,
        timeout: float,
        done: Callable[[TlsFacts], None] | None = None,
    ) -> Chain[TlsFacts]:
        """See `Stream.accept_tls`."""
        op = self._accept(stream, context, credential, alpn or b"", timeout)
        op.other = 0
        self._steps.append((read.tls, stream.side, done))
        return cast("Chain[TlsFacts]", self)

    def accept_tls_like(
        self,
        stream: Stream,
        context: ServerContext,
        credential: Credential,
        *,
        upstream: Stream | None,
        alpn: tuple[tuple[bytes | None, bytes | None], ...],
        timeout: float,
        done: Callable[[TlsFacts], None] | None = None,
    ) -> Chain[TlsFacts]:
        """`accept_tls`, where `alpn` has pairs: what `upstream` (None: the stream that this chain will have
        connected) may have agreed on by then (None: on no protocol), and what to agree on in that case. What
        is in none is ALPN_MISMATCH, before the client is answered anything."""
        op = self._accept(stream, context, credential, _wire_pairs(alpn), timeout)
        op.other = _STREAM_CONNECTED if upstream is None else upstream.handle
        self._steps.append((read.tls, stream.side, done))
        return cast("Chain[TlsFacts]", self)

    def relay(
        self,
        stream: Stream,
        upstream: Stream | None,
        *,
        idle: float,
        lifetime: float,
        half_idle: float,
        ended: Callable[[RelayFacts], None] | None = None,
    ) -> Chain[RelayFacts]:
        """See `Stream.relay`. `upstream` None: the stream that this chain will have connected.

        With `ended`, nothing waits while the tunnel relays, perhaps for hours: `run` is over when the
        operation before has succeeded, and `ended` is called, once, when the relay is. It is for `ended` to
        call `Stream.relayed`."""
        op = self._op(_RELAY, stream, lifetime)
        op.flags = _FLAG_QUIET
        op.other = _STREAM_CONNECTED if upstream is None else upstream.handle
        op.idle_ms = milliseconds(idle)
        op.half_idle_ms = milliseconds(half_idle)
        self._detached = ended is not None

        def relayed(facts: RelayFacts) -> None:
            stream.relayed(upstream or self._far, facts)

        self._steps.append((read.relayed, stream.side, ended or relayed))
        return cast("Chain[RelayFacts]", self)

    async def run(self) -> T:
        """Submits all, and waits for the last, except for a relay with `ended`. Raises what the first that
        failed raises: ProxyError, or EngineError when the engine takes nothing more."""
        future: asyncio.Future[T] = self._engine.loop.create_future()
        handle, tag = self._submit(future)
        try:
            return await future
        except asyncio.CancelledError:
            self._engine.cancel(handle, tag)
            raise

    def launch(self, over: Callable[[Exception | None], None]) -> None:
        """`run` without a task that waits: `over` is called once, with what `run` would have raised, or None;
        what it raises in turn is told to the event loop's handler of exceptions. Raises EngineError when the
        engine takes nothing more; `over` is not called then."""
        self._submit(Launched(self._engine, over))

    def _submit(self, waiter: Waiter) -> tuple[int, int]:
        """Submits all. Handle and tag of the last: by these the chain can be cancelled."""
        engine, ops = self._engine, self._ops
        final = len(self._steps) - 1
        awaited = final - self._detached
        while awaited >= 0 and awaited < final and ops[awaited].kind == _WRITE:
            awaited -= 1  # how a write fails, the next operation tells
        for index, (reader, side, done) in enumerate(self._steps):
            op = ops[index]
            if index < final:
                op.flags |= _FOLLOWED
                if op.kind == _WRITE:
                    continue
            role = Role.AWAITED if index == awaited else Role.BEFORE if index < awaited else Role.AFTER
            op.tag = engine.expect(waiter, reader, done, role, side)
        engine.submit(ops, final + 1)
        handle, tag = ops[final].stream, ops[final].tag
        if self._last is not None:
            self._last.tag = tag
        # What was pointed to has been copied, and a tunnel may wait long.
        self._held.clear()
        self._steps.clear()
        self._ops = ffi.NULL
        if awaited < 0:
            waiter.set_result(None)
        return handle, tag

    def _op(self, kind: int, stream: Stream | None, timeout: float, limit: int = 0) -> CData:
        op = self._ops[len(self._steps)]
        op.kind = kind
        if stream is None:
            op.stream = _STREAM_CONNECTED
        else:
            self._last = stream
            op.stream = stream.handle
        op.deadline_ms = milliseconds(timeout)
        op.limit = limit
        return op

    def _accept(
        self, stream: Stream, context: ServerContext, credential: Credential, data: bytes, timeout: float
    ) -> CData:
        op = self._op(_ACCEPT_TLS, stream, timeout)
        self._held += (context, credential)
        op.server_context = context.native
        op.credential = credential.native
        op.data, op.data_len = self._bytes(data), len(data)
        return op

    def _bytes(self, data: bytes) -> CData:
        native = ffi.from_buffer(_BYTES, data)
        self._held.append(native)
        return native


@lru_cache(_REMEMBERED)
def _wire_pairs(pairs: tuple[tuple[bytes | None, bytes | None], ...]) -> bytes:
    texts = [text or b"" for pair in pairs for text in pair]
    return b"".join([bytes((len(text),)) + text for text in texts])


@lru_cache(_REMEMBERED)
def milliseconds(seconds: float) -> int:
    """For the engine, where 0 is "none": anything above none is at least one."""
    return max(1, min(round(seconds * 1000), 0xFFFFFFFF)) if seconds > 0 else 0


def _packed(ip: str) -> bytes:
    address = ip.partition("%")[0]  # the engine is not told of zones
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
