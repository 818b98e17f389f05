"""A server that records the ClientHello of whoever connects.

Theory of operation
-------------------
Each connection is one task under two deadlines: one until its hello is whole, one for all that follows.
What was learned goes to `on_visit` as a `Visit`, once, when the connection is over or nothing more will be
learned of it; what was no hello goes to `on_failure` as a sentence. Both are called on the event loop and
must not block.

Without contexts the client gets a fatal alert after its hello. With them TLS is completed, and one request,
by HTTP/1.1 or HTTP/2 as ALPN says, is answered with the report of the very connection that asked.

Bounds: `MAX_CONNECTIONS` at once (more are closed unread, and counted), `MAX_HELLO_BYTES` of hello,
`MAX_HEAD_BYTES` of request. `verify` uses this server to look at our own hellos; so do the tests for real
clients.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from polytls.capture.channel import Channel, ClientGoneError
from polytls.capture.http2 import Http2, Http2Error
from polytls.capture.report import Json, Visit
from polytls.errors import PolytlsError
from polytls.settings import Address
from polytls.wire.client_hello import HelloError, parse_client_hello

if TYPE_CHECKING:
    from polytls.capture.certificates import Contexts

MAX_CONNECTIONS = 256
"""At once: a lab's browser opens six, a scanner many; each costs some 100 KB with TLS."""

MAX_HEAD_BYTES = 1 << 16
"""Of an HTTP/1.1 request; the same as HTTP/2's."""

HELLO_SECONDS = 10.0
EXCHANGE_SECONDS = 15.0

_BACKLOG = 128
_JSON = b"application/json"


class ListenError(PolytlsError):
    """The address cannot be listened on; `errno` says why."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {error.strerror or error}")
        self.address = address
        self.errno = error.errno


class CaptureServer:
    """Records who connects. `start`, then `stop`; on one event loop. `refused` counts what was too many."""

    def __init__(
        self,
        on_visit: Callable[[Visit], None],
        *,
        contexts: Contexts | None = None,
        on_failure: Callable[[str, str], None] = lambda _client, _sentence: None,
        max_connections: int = MAX_CONNECTIONS,
        hello_seconds: float = HELLO_SECONDS,
        exchange_seconds: float = EXCHANGE_SECONDS,
    ) -> None:
        """`on_failure` gets the client's address and a sentence."""
        self.refused = 0
        self._on_visit = on_visit
        self._on_failure = on_failure
        self._contexts = contexts
        self._max_connections = max_connections
        self._hello_seconds = hello_seconds
        self._exchange_seconds = exchange_seconds
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: Address) -> Address:
        """Listen; the address with its actual port. Raises `ListenError`."""
        try:
            self._server = await asyncio.start_server(
                self._connected, address.host, address.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ListenError(address, error) from None
        return Address(address.host, self._server.sockets[0].getsockname()[1])

    async def stop(self, grace: float = 0.0) -> None:
        """Stop listening, end every connection, after at most `grace` seconds of their own. Idempotent."""
        if self._server is not None:
            self._server.close()
        if self._tasks and grace > 0:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio would make a task of it that nobody can bound or wait for.
        if len(self._tasks) >= self._max_connections:
            self.refused += 1
            writer.transport.abort()
            return
        channel = Channel(reader, writer)
        task = asyncio.ensure_future(self._serve(channel, _client(writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task, which may be cancelled before it began.
        task.add_done_callback(lambda _task: channel.abort())

    async def _serve(self, channel: Channel, client: str) -> None:
        visit = await self._hello(channel, client)
        if visit is not None:
            await self._exchange(channel, visit)

    async def _hello(self, channel: Channel, client: str) -> Visit | None:
        try:
            raw = await asyncio.wait_for(channel.read_hello(), self._hello_seconds)
            visit = Visit(client, parse_client_hello(raw), raw)
            visit.as_dict()  # an extension that cannot be read shows here
        except (HelloError, ClientGoneError) as problem:
            self._on_failure(client, str(problem))
        except asyncio.TimeoutError:
            self._on_failure(client, f"the client sent no whole ClientHello in {self._hello_seconds:g} s")
        except OSError as error:
            self._on_failure(client, f"the connection broke: {error.strerror or error}")
        else:
            return visit
        return None

    async def _exchange(self, channel: Channel, visit: Visit) -> None:
        """All that follows the hello; the visit is told whatever becomes of it."""
        seen = [visit]
        try:
            await asyncio.wait_for(self._talk(channel, seen), self._exchange_seconds)
        except (ClientGoneError, Http2Error) as problem:
            seen[0] = replace(seen[0], failure=str(problem))
        except asyncio.TimeoutError:
            seen[0] = replace(seen[0], failure=f"nothing more came in {self._exchange_seconds:g} s")
        except OSError as error:
            seen[0] = replace(seen[0], failure=f"the connection broke: {error.strerror or error}")
        finally:
            self._on_visit(seen[0])
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(channel.close(), self._exchange_seconds)

    async def _talk(self, channel: Channel, seen: list[Visit]) -> None:
        """`seen` holds the visit as far as it is known, whatever happens here."""
        if self._contexts is None:
            await channel.refuse()
            return
        await channel.handshake(self._contexts.context(seen[0].hello.sni))
        agreed: Json = {"version": channel.version, "cipher": channel.cipher, "alpn": channel.protocol}
        seen[0] = replace(seen[0], tls=agreed)
        if channel.protocol == "h2":
            await _answer_http2(channel, seen)
        else:
            await _answer_http1(channel, seen)


async def _answer_http1(channel: Channel, seen: list[Visit]) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_HEAD_BYTES:
            raise ClientGoneError(f"the request's head has more than {MAX_HEAD_BYTES} bytes")
        data = await channel.read()
        if not data:
            if head:
                raise ClientGoneError("the client went away within its request")
            return  # the hello was all that it came for
        head += data
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [_printable(line.partition(b":")[0]) for line in lines[1:]]
    seen[0] = replace(seen[0], http1={"headers": names})
    body = seen[0].as_json(indent=1).encode() + b"\n"
    fields = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (_JSON, len(body))
    await channel.write(fields + b"Cache-Control: no-store\r\nConnection: close\r\n\r\n" + body)


async def _answer_http2(channel: Channel, seen: list[Visit]) -> None:
    http2 = Http2()
    answered = False
    while not http2.finished:
        await channel.write(http2.take())
        data = await channel.read()
        if not data:
            if answered:
                raise ClientGoneError("the client went away before the answer was sent")
            break
        http2.receive(data)
        if http2.stream is not None and not answered:
            answered = True
            seen[0] = replace(seen[0], http2=http2.first_flight.as_dict())
            http2.answer(_JSON, seen[0].as_json(indent=1).encode() + b"\n")
    await channel.write(http2.take())
    if not answered and http2.first_flight.frames:
        seen[0] = replace(seen[0], http2=http2.first_flight.as_dict())


def _printable(name: bytes) -> str:
    """A header field's name, which a stranger wrote: bytes beyond printable ASCII are escaped."""
    return ascii(name.decode("latin-1"))[1:-1]


def _client(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(Address(peer[0], peer[1])) if peer else "?"
