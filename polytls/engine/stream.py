"""`Stream`: one side of a tunnel, as Python sees it: a handle, and operations to await.

A stream runs one operation at a time. Its errors already carry side, stage and kind (`failures`). After a
relay both of its streams are closed; closing one again does nothing. Operations that follow one another
without a decision in between are a `Chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.engine.contexts import ClientContext, Credential, ServerContext
    from polytls.engine.core import Engine
    from polytls.engine.facts import HelloFacts, RelayFacts, TlsFacts
    from polytls.errors import Side

MAX_HELLO_BYTES = 65_536
"""Real hellos have 0.2 to 4 KB, post-quantum shares and tickets included; beyond this nobody means well."""

_BEGUN = frozenset({None, "idle", "lifetime", "tls", "alert"})
"""How only a relay ends that had begun. Else its streams may still be open, and are closed once more."""


class Stream:
    """One connection. Made by the engine: `Accepted.stream`, `Connected.stream`.

    `closed`: it was closed here, or by a relay that has ended. `tag`: of what was last submitted, 0 before.
    """

    __slots__ = ("_engine", "closed", "handle", "side", "tag")

    def __init__(self, engine: Engine, handle: int, side: Side) -> None:
        self._engine = engine
        self.handle = handle
        self.side = side
        self.closed = False
        self.tag = 0

    async def write(self, data: bytes, *, timeout: float) -> None:
        """Done when the kernel has taken every byte."""
        await self._engine.chain().write(self, data, timeout=timeout).run()

    async def read(self, limit: int, *, timeout: float) -> bytes:
        """At least one and at most `limit` bytes; an end of the stream is an error."""
        return await self._engine.chain().read(self, limit, timeout=timeout).run()

    async def read_head(self, limit: int, *, timeout: float) -> bytes:
        """Bytes up to and with the first empty line, at most `limit`; what follows stays in the stream."""
        return await self._engine.chain().read_head(self, limit, timeout=timeout).run()

    async def peek_hello(
        self, *, limit: int = MAX_HELLO_BYTES, timeout: float, raw: bool = False
    ) -> HelloFacts:
        """The ClientHello that comes next, consuming nothing; with its bytes, where `raw` asks for them."""
        return await self._engine.chain().peek_hello(self, limit=limit, timeout=timeout, raw=raw).run()

    async def connect_tls(
        self,
        context: ClientContext,
        *,
        host: str,
        port: int,
        alpn: Sequence[bytes],
        timeout: float,
        raw: bool = False,
        ech_configs: bytes = b"",
    ) -> TlsFacts:
        """Becomes a TLS client that says it wants `host` (as SNI, unless it is an IP address) and offers the
        protocols `alpn` in this order; none: no ALPN extension. `raw`: the facts, or the `ProxyError`, hold
        the ClientHello that was sent.

        With `ech_configs` (an ECHConfigList) the hello is encrypted, or the handshake fails: ECH_UNUSABLE,
        before anything was sent, or EchRejectedError."""
        chain = self._engine.chain()
        return await chain.connect_tls(
            self,
            context,
            host=host,
            port=port,
            alpn=alpn,
            timeout=timeout,
            raw=raw,
            ech_configs=ech_configs,
        ).run()

    async def accept_tls(
        self, context: ServerContext, credential: Credential, *, alpn: bytes | None, timeout: float
    ) -> TlsFacts:
        """Becomes a TLS server that shows `credential` and agrees on the protocol `alpn` alone: a client that
        lists others only gets no_application_protocol. None: on no protocol at all."""
        return (
            await self._engine.chain().accept_tls(self, context, credential, alpn=alpn, timeout=timeout).run()
        )

    async def relay(self, upstream: Stream, *, idle: float, lifetime: float, half_idle: float) -> RelayFacts:
        """Moves bytes both ways between this stream (the client's) and `upstream` until both directions end,
        no byte moves for `idle` seconds (`half_idle` once one direction ended), or `lifetime` seconds are
        over; 0: none of these. Both streams are closed afterwards, whatever happened. The end of a relay may
        be told a few milliseconds late."""
        chain = self._engine.chain()
        return await chain.relay(self, upstream, idle=idle, lifetime=lifetime, half_idle=half_idle).run()

    def relayed(self, upstream: Stream | None, facts: RelayFacts) -> None:
        """A relay of this stream has ended so. If it had begun, the engine has closed both."""
        if facts.failure in _BEGUN:
            self.closed = True
            if upstream is not None:
                upstream.closed = True

    def end(self) -> bool:
        """Asks what is under way on this stream, or waits for its turn there, to end now: it fails with
        CANCELLED, and the facts of a relay say so. False: there is nothing."""
        return self._engine.cancel(self.handle, self.tag)

    def close(self, *, alert: int | None = None, reset: bool = False) -> None:
        """Flushes and closes: with a fatal TLS `alert` (in the clear where no handshake has begun), else
        close_notify where TLS is up; then FIN. `reset`: at once, by RST. Idempotent. Takes no memory of the
        engine's: what is short of it can be closed."""
        if self.closed:
            return
        self.closed = True
        self._engine.close_stream(self.handle, alert=alert or 0, reset=reset)
