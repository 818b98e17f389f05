"""`Stream`: one side of a tunnel, as Python sees it: a handle, and operations to await.

A stream runs one operation at a time. Its errors already carry side, stage and kind (`failures`). After a
relay both of its streams are closed; closing one again does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from polytls.engine import contexts
from polytls.engine._native import ffi, lib
from polytls.engine.facts import HelloFacts, RelayFacts, TlsFacts
from polytls.engine.failures import status_name

if TYPE_CHECKING:
    from polytls.engine._native import CData
    from polytls.engine.contexts import ClientContext, Credential, ServerContext
    from polytls.engine.core import Engine, Pending
    from polytls.errors import Side

T = TypeVar("T")

_NOT_BEGUN = frozenset(
    {"closed", "cancelled", "shutdown", "stale", "busy", "invalid", "reset", "io", "nomem"}
)
"""Failures of a relay that may be those of the step before it: its streams may still be open."""

MAX_HELLO_BYTES = 65_536
"""Real hellos have 0.2 to 4 KB, post-quantum shares and tickets included; beyond this nobody means well."""


class Stream:
    """One connection. Made by the engine: `Accepted.stream`, `Connected.stream`."""

    __slots__ = ("_closed", "_engine", "_relay", "handle", "side")

    def __init__(self, engine: Engine, handle: int, side: Side) -> None:
        self._engine = engine
        self.handle = handle
        self.side = side
        self._closed = False
        self._relay: Pending[RelayFacts] | None = None

    async def write(self, data: bytes, *, timeout: float) -> None:
        """Done when the kernel has taken every byte."""
        op = self._engine.new_ops(1)
        _fill_write(op[0], self, ffi.from_buffer(data), len(data), timeout)
        await self._run(op, _nothing)

    async def read(self, limit: int, *, timeout: float) -> bytes:
        """At least one and at most `limit` bytes; an end of the stream is an error."""
        return await self._run(self._op(lib.PTL_OP_READ, timeout, limit), _data)

    async def read_head(self, limit: int, *, timeout: float) -> bytes:
        """Bytes up to and with the first empty line, at most `limit`; what follows stays in the stream."""
        return await self._run(self._op(lib.PTL_OP_READ_HEAD, timeout, limit), _data)

    async def peek_hello(
        self, *, limit: int = MAX_HELLO_BYTES, timeout: float, raw: bool = False
    ) -> HelloFacts:
        """The ClientHello that comes next, consuming nothing."""
        op = self._op(lib.PTL_OP_PEEK_HELLO, timeout, limit)
        op[0].flags = lib.PTL_FLAG_RAW if raw else 0
        return await self._run(op, _hello)

    async def answer_and_peek(
        self, answer: bytes, *, limit: int = MAX_HELLO_BYTES, timeout: float, raw: bool = False
    ) -> HelloFacts:
        """Writes `answer`, then peeks at the hello, without coming back in between."""
        ops = self._engine.new_ops(2)
        data = ffi.from_buffer(answer)
        _fill_write(ops[0], self, data, len(answer), timeout)
        ops[0].flags = lib.PTL_FLAG_LINK
        _fill(ops[1], lib.PTL_OP_PEEK_HELLO, self, timeout, limit)
        ops[1].flags = lib.PTL_FLAG_RAW if raw else 0
        return await self._run(ops, _hello, 2)

    async def connect_tls(
        self,
        context: ClientContext,
        *,
        host: str,
        port: int,
        alpn: Sequence[bytes],
        timeout: float,
        ech_configs: bytes = b"",
    ) -> TlsFacts:
        """Becomes a TLS client that says it wants `host` (as SNI, unless it is an IP address) and offers the
        protocols `alpn` in this order; none: no ALPN extension.

        With `ech_configs` (an ECHConfigList) the hello is encrypted, or the handshake fails: ECH_UNUSABLE,
        before anything was sent, or EchRejectedError."""
        op = self._op(lib.PTL_OP_CONNECT_TLS, timeout)
        protocols = contexts.wire_list(alpn)
        name, data = ffi.new("char[]", host.encode("ascii")), ffi.from_buffer(protocols)
        op[0].client_context = context.native
        op[0].name = name
        op[0].port = port
        op[0].data, op[0].data_len = ffi.cast("const uint8_t *", data), len(protocols)
        configs = ffi.from_buffer(ech_configs)
        op[0].ech_configs, op[0].ech_configs_len = ffi.cast("const uint8_t *", configs), len(ech_configs)
        return await self._run(op, _tls)

    async def accept_tls(
        self, context: ServerContext, credential: Credential, *, alpn: bytes | None, timeout: float
    ) -> TlsFacts:
        """Becomes a TLS server that shows `credential` and agrees on the protocol `alpn` alone: a client that
        lists others only gets no_application_protocol. None: on no protocol at all."""
        op = self._op(lib.PTL_OP_ACCEPT_TLS, timeout)
        protocol = ffi.from_buffer(alpn or b"")
        _fill_accept(op[0], context, credential, protocol, len(alpn or b""))
        return await self._run(op, _tls)

    async def relay(self, upstream: Stream, *, idle: float, lifetime: float, half_idle: float) -> RelayFacts:
        """Moves bytes both ways between this stream (the client's) and `upstream` until both directions end,
        no byte moves for `idle` seconds (`half_idle` once one direction ended), or `lifetime` seconds are
        over; 0: none of these. Both streams are closed afterwards, whatever happened."""
        ops = self._engine.new_ops(1)
        _fill_relay(ops[0], self, upstream, idle, lifetime, half_idle)
        return await self._run_relay(ops, 1, upstream)

    async def answer_and_relay(
        self, answer: bytes, upstream: Stream, *, idle: float, lifetime: float, half_idle: float
    ) -> RelayFacts:
        """Writes `answer`, then relays, without coming back in between. The write has no deadline of its own:
        an answer fits any socket buffer."""
        ops = self._engine.new_ops(2)
        data = ffi.from_buffer(answer)
        _fill_write(ops[0], self, data, len(answer), 0)
        ops[0].flags = lib.PTL_FLAG_LINK
        _fill_relay(ops[1], self, upstream, idle, lifetime, half_idle)
        return await self._run_relay(ops, 2, upstream)

    async def accept_tls_and_relay(
        self,
        context: ServerContext,
        credential: Credential,
        upstream: Stream,
        *,
        alpn: bytes | None,
        timeout: float,
        idle: float,
        lifetime: float,
        half_idle: float,
        on_handshake: Callable[[TlsFacts], None] | None = None,
    ) -> tuple[TlsFacts, RelayFacts]:
        """The client's handshake, then the relay, without coming back in between; `on_handshake` is called
        when the first is done. Raises ProxyError when the handshake fails; `upstream` is still open then."""
        ops = self._engine.new_ops(2)
        protocol = ffi.from_buffer(alpn or b"")
        _fill(ops[0], lib.PTL_OP_ACCEPT_TLS, self, timeout)
        _fill_accept(ops[0], context, credential, protocol, len(alpn or b""))
        ops[0].flags = lib.PTL_FLAG_LINK
        handshake = self._engine.prepare(ops[0], self, self.side, _tls)
        if on_handshake is not None:
            handshake.future.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else on_handshake(done.result())
            )
        _fill_relay(ops[1], self, upstream, idle, lifetime, half_idle)
        relayed = await self._run_relay(ops, 2, upstream, handshake)
        # A handshake that failed has failed the relay too; here it raises.
        return handshake.future.result(), relayed

    def end_relay(self) -> None:
        """Asks a running relay of this stream to end now: its facts say "cancelled"."""
        if self._relay is not None:
            self._engine.cancel(self._relay)

    def close(self, *, alert: int | None = None, reset: bool = False) -> None:
        """Flushes and closes: with a fatal TLS `alert` (in the clear where no handshake has begun), else
        close_notify where TLS is up; then FIN. `reset`: at once, by RST. Idempotent."""
        if self._closed:
            return
        self._closed = True
        op = self._engine.new_ops(1)
        _fill(op[0], lib.PTL_OP_CLOSE, self, 0)
        op[0].alert = alert or 0
        op[0].flags = lib.PTL_FLAG_RESET if reset else 0
        if not self._engine.closed:
            self._engine.submit(op, 1)

    def _op(self, kind: int, timeout: float, limit: int = 0) -> CData:
        ops = self._engine.new_ops(1)
        _fill(ops[0], kind, self, timeout, limit)
        return ops

    async def _run(self, ops: CData, read: Callable[[CData], T], count: int = 1) -> T:
        pending = self._engine.prepare(ops[count - 1], self, self.side, read)
        self._engine.submit(ops, count)
        await self._engine.wait(pending)
        return pending.future.result()

    async def _run_relay(
        self, ops: CData, count: int, upstream: Stream, handshake: Pending[TlsFacts] | None = None
    ) -> RelayFacts:
        relay = self._engine.prepare(ops[count - 1], self, self.side, _relayed)
        self._engine.submit(ops, count)
        self._relay = relay
        try:
            if handshake is None:
                await self._engine.wait(relay)
            else:
                await self._engine.wait(handshake, relay)
        finally:
            self._relay = None
        facts = relay.future.result()
        if facts.failure not in _NOT_BEGUN:
            self._closed = upstream._closed = True  # the engine has closed both
        return facts


def _fill(op: CData, kind: int, stream: Stream, timeout: float, limit: int = 0) -> None:
    op.kind = kind
    op.stream = stream.handle
    op.deadline_ms = milliseconds(timeout)
    op.limit = limit


def _fill_write(op: CData, stream: Stream, data: CData, size: int, timeout: float) -> None:
    _fill(op, lib.PTL_OP_WRITE, stream, timeout)
    op.data, op.data_len = ffi.cast("const uint8_t *", data), size


def _fill_accept(
    op: CData, context: ServerContext, credential: Credential, protocol: CData, size: int
) -> None:
    op.server_context = context.native
    op.credential = credential.native
    op.data, op.data_len = ffi.cast("const uint8_t *", protocol), size


def _fill_relay(
    op: CData, stream: Stream, upstream: Stream, idle: float, lifetime: float, half_idle: float
) -> None:
    _fill(op, lib.PTL_OP_RELAY, stream, lifetime)
    op.other = upstream.handle
    op.idle_ms = milliseconds(idle)
    op.half_idle_ms = milliseconds(half_idle)


def milliseconds(seconds: float) -> int:
    """For the engine, where 0 is "none": anything above none is at least one."""
    return max(1, min(round(seconds * 1000), 0xFFFFFFFF)) if seconds > 0 else 0


def data_of(completion: CData) -> bytes:
    """A copy of what a completion carries."""
    size = completion.data_len
    return ffi.buffer(completion.data, size)[:] if size else b""


# How completions read, one function for each kind of success.


def _nothing(_completion: CData) -> None:
    return None


def _data(completion: CData) -> bytes:
    return data_of(completion)


def _hello(completion: CData) -> HelloFacts:
    data = data_of(completion)
    sni_end = int(completion.sni_len)
    alpn_end = sni_end + int(completion.alpn_len)
    return HelloFacts(
        sni=data[:sni_end] if completion.has_sni else None,
        alpn=_names(data[sni_end:alpn_end]) if completion.has_alpn else None,
        max_version=int(completion.version),
        ecdsa_ok=bool(completion.ecdsa_ok),
        size=int(completion.bytes_out),
        raw=data[alpn_end:] or None,
        started_ns=int(completion.started_ns),
        ended_ns=int(completion.ended_ns),
    )


def _names(wire: bytes) -> tuple[bytes, ...]:
    names = []
    at = 0
    while at < len(wire):  # the engine has checked that the list is well-formed
        end = at + 1 + wire[at]
        names.append(wire[at + 1 : end])
        at = end
    return tuple(names)


def _tls(completion: CData) -> TlsFacts:
    return TlsFacts(
        version=int(completion.version),
        cipher=int(completion.cipher),
        group=int(completion.group),
        sigalg=int(completion.sigalg),
        alpn=data_of(completion) or None,
        resumed=bool(completion.resumed),
        retried=bool(completion.retried),
        ech_accepted=bool(completion.ech_accepted),
        started_ns=int(completion.started_ns),
        ended_ns=int(completion.ended_ns),
    )


def _relayed(completion: CData) -> RelayFacts:
    failed = completion.status != lib.PTL_OK
    return RelayFacts(
        bytes_up=int(completion.bytes_out),
        bytes_down=int(completion.bytes_in),
        truncated=bool(completion.truncated),
        failure=status_name(completion.status) if failed else None,
        failed_client=failed and completion.side != lib.PTL_SIDE_OTHER,
        detail=data_of(completion).decode("utf-8", errors="replace"),
        first_byte_ns=int(completion.first_byte_ns),
        started_ns=int(completion.started_ns),
        ended_ns=int(completion.ended_ns),
    )
