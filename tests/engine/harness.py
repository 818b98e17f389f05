"""An engine on the running event loop, and connections to try it with.

Native closes are asynchronous: `settled` waits for the counters that say so, by looking again and again,
because nothing tells Python of a stream's end once it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from polytls.engine import Accepted, Engine, EngineStats, Listener, SocketAddress, Stream
from polytls.settings import Address

HANG_SECONDS = 30.0
"""No wait of a test that passes comes near it."""
HEAD = b"CONNECT origin.lab.test:443 HTTP/1.1\r\n\r\n"
ANY_PORT = Address("127.0.0.1", 0)


@contextlib.asynccontextmanager
async def running(threads: int = 2) -> AsyncIterator[Engine]:
    """An engine. Leaving wants everything to be over: no stream, no operation, nothing "impossible"."""
    engine = Engine.start(threads=threads)
    try:
        yield engine
        stats = await settled(engine)
        assert (stats.streams, stats.operations, stats.relays, stats.buffered_bytes) == (0, 0, 0, 0), stats
        assert stats.impossible == 0
    finally:
        await engine.close()


async def settled(engine: Engine) -> EngineStats:
    """The counters once nothing is left, or after a long wait."""
    deadline = asyncio.get_running_loop().time() + HANG_SECONDS
    while True:
        stats = engine.stats()
        left = stats.streams or stats.operations or stats.relays or stats.buffered_bytes
        if not left or asyncio.get_running_loop().time() > deadline:
            return stats
        await asyncio.sleep(0.002)


@dataclass
class Client:
    """A connection to a listener of the engine: the socket of the test's, and the engine's stream."""

    socket: socket.socket
    stream: Stream
    accepted: Accepted


class Acceptor:
    """A listener of the engine."""

    def __init__(self, engine: Engine, *, head_timeout: float = HANG_SECONDS) -> None:
        self._accepted: asyncio.Queue[Accepted] = asyncio.Queue()
        self.listener: Listener = engine.listen(
            ANY_PORT,
            backlog=128,
            head_limit=16384,
            head_timeout=head_timeout,
            on_accept=self._accepted.put_nowait,
        )

    async def next(self) -> Accepted:
        return await asyncio.wait_for(self._accepted.get(), HANG_SECONDS)

    async def client(self, after_head: bytes = b"") -> Client:
        """Connect, send a head, and what the engine makes of it."""
        address = self.listener.address
        connection = socket.create_connection((address.host, address.port), timeout=HANG_SECONDS)
        connection.sendall(HEAD + after_head)
        accepted = await self.next()
        assert accepted.failure is None
        return Client(connection, accepted.stream, accepted)


@contextlib.asynccontextmanager
async def client_of(engine: Engine, after_head: bytes = b"") -> AsyncIterator[Client]:
    """One client. Both of its ends are closed afterwards."""
    acceptor = Acceptor(engine)
    client = await acceptor.client(after_head)
    try:
        yield client
    finally:
        client.stream.close(reset=True)
        client.socket.close()
        acceptor.listener.close()


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, SocketAddress]]:
    """A listener of the test's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG_SECONDS)
        yield listener, SocketAddress("127.0.0.1", listener.getsockname()[1])


@contextlib.contextmanager
def black_hole() -> Iterator[SocketAddress]:
    """An address that neither accepts nor refuses: Linux drops what a full accept queue cannot take."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield SocketAddress(*address)


def nobody() -> SocketAddress:
    """An address that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return SocketAddress("127.0.0.1", listener.getsockname()[1])


@contextlib.asynccontextmanager
async def tunnel_of(engine: Engine) -> AsyncIterator[tuple[Client, Stream, socket.socket]]:
    """A client, and a connection to an origin that is a socket of the test's."""
    with listening() as (listener, address):
        async with client_of(engine) as client:
            connected = await engine.connect(client.stream, [address], timeout=HANG_SECONDS)
            origin, _ = listener.accept()
            origin.settimeout(HANG_SECONDS)
            try:
                yield client, connected.stream, origin
            finally:
                connected.stream.close(reset=True)
                origin.close()
