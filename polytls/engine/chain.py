"""Operations that follow one another without coming back to Python: submitted at once, awaited once.

What Python decides is decided before a chain begins; the engine starts each operation when the one before it
has succeeded. A MITM tunnel whose name and leaf are known is two chains: connect, answer, peek; then
upstream's handshake, the client's, and the relay. What happens in between wakes nobody: the completions of
all operations but the last are quiet (native.h) and come along with the next that is worth a wake-up.

`done` of an operation is called with its facts, in the order in which they happened and before `run` is over;
what it raises, `run` raises. The first failure is the chain's. A `run` that is cancelled cancels the
operation that is under way, and with it the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from polytls.engine import read
from polytls.engine._native import ffi, lib
from polytls.engine.contexts import wire_list
from polytls.engine.stream import MAX_HELLO_BYTES
from polytls.errors import Side

if TYPE_CHECKING:
    from polytls.engine._native import CData
    from polytls.engine.contexts import ClientContext, Credential, ServerContext
    from polytls.engine.core import Engine
    from polytls.engine.facts import Connected, HelloFacts, RelayFacts, SocketAddress, TlsFacts
    from polytls.engine.stream import Stream

_REMEMBERED = 1024  # small values that come again and again
MAX_OPERATIONS = 3
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
        self, stream: Stream, *, limit: int = MAX_HELLO_BYTES, timeout: float, raw: bool = False
    ) -> Chain[HelloFacts]:
        """See `Stream.peek_hello`."""
        op = self._op(_PEEK_HELLO, stream, timeout, limit)
        op.flags = _FLAG_RAW if raw else 0
        self._steps.append((read.hello, stream.side, None))
        return cast("Chain[HelloFacts]", self)

    def connect_tls(
        self,
        stream: Stream,
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
        """See `Stream.connect_tls`."""
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
        self._steps.append((read.tls, stream.side, done))
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
        upstream: Stream,
        alpn: tuple[tuple[bytes | None, bytes | None], ...],
        timeout: float,
        done: Callable[[TlsFacts], None] | None = None,
    ) -> Chain[TlsFacts]:
        """`accept_tls`, where `alpn` has pairs: what `upstream` may have agreed on by then (None: on no
        protocol), and what to agree on in that case. What is in none is ALPN_MISMATCH, before the client is
        answered anything."""
        op = self._accept(stream, context, credential, _wire_pairs(alpn), timeout)
        op.other = upstream.handle
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
        engine, ops = self._engine, self._ops
        future: asyncio.Future[T] = engine.loop.create_future()
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
            op.tag = engine.expect(future, reader, done, role, side)
        engine.submit(ops, final + 1)
        handle, tag = ops[final].stream, ops[final].tag
        if self._last is not None:
            self._last.tag = tag
        # What was pointed to has been copied, and a tunnel may wait long.
        self._held.clear()
        self._steps.clear()
        self._ops = ffi.NULL
        if awaited < 0:
            future.set_result(cast("T", None))
        try:
            return await future
        except asyncio.CancelledError:
            engine.cancel(handle, tag)
            raise

    def _op(self, kind: int, stream: Stream, timeout: float, limit: int = 0) -> CData:
        self._last = stream
        op = self._ops[len(self._steps)]
        op.kind = kind
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
