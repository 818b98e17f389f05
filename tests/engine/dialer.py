"""Connections of the engine's to servers of the tests': what the upstream side of a tunnel does, alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.engine import ClientContext, Engine, SocketAddress, Stream, TlsFacts
from tests.engine.harness import HANG_SECONDS, client_of, running

if TYPE_CHECKING:
    from polytls.profiles import HelloSpec

_MAX_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Fetched:
    """What the handshake agreed on, and the head of the answer."""

    facts: TlsFacts
    head: bytes


@dataclass(frozen=True)
class Dialer:
    """Connects with profiles, one connection after the other."""

    engine: Engine
    near: Stream

    async def fetch(
        self,
        spec: HelloSpec,
        context: ClientContext,
        host: str,
        port: int,
        *,
        path: str = "/",
        ech_configs: bytes = b"",
    ) -> Fetched:
        """One request over one connection to `port` of 127.0.0.1, up to the end of the answer's head.

        Raises ProxyError."""
        address = SocketAddress("127.0.0.1", port)
        connected = await self.engine.connect(self.near, [address], timeout=HANG_SECONDS)
        stream = connected.stream
        try:
            alpn = [name.encode() for name in spec.alpn]
            facts = await stream.connect_tls(
                context, host=host, port=port, alpn=alpn, timeout=HANG_SECONDS, ech_configs=ech_configs
            )
            request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            await stream.write(request.encode(), timeout=HANG_SECONDS)
            return Fetched(facts, await stream.read_head(_MAX_HEAD_BYTES, timeout=HANG_SECONDS))
        finally:
            stream.close()


@contextlib.asynccontextmanager
async def dialing() -> AsyncIterator[Dialer]:
    """An engine to dial with."""
    async with running(threads=1) as engine, client_of(engine) as client:
        yield Dialer(engine, client.stream)
