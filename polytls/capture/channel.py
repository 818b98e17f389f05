"""A connection as the capture server has it: bytes first, TLS over memory buffers once the hello is known.

Theory of operation
-------------------
The hello has to be read before TLS begins (it decides which certificate is shown, and it is what we came
for), and then be given to TLS as if nobody had looked. `Channel` reads records from an asyncio stream until
the hello is whole, then runs `ssl` between two `MemoryBIO`s that start with those very bytes. Without TLS
it can say goodbye with an alert in the clear.

Deadlines are the caller's (one for the hello, one for the rest); sizes are bounded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from polytls.capture.records import MAX_HELLO_BYTES, hello_end
from polytls.errors import PolytlsError
from polytls.wire.client_hello import HelloError

HANDSHAKE_FAILURE = 40
"""RFC 8446 §6.2. Every client knows it, and none tries again with less, as after some others."""

_READ_BYTES = 1 << 14
_MAX_RAW_BYTES = MAX_HELLO_BYTES + (1 << 14)  # a hello, its record headers, and what came along
_T = TypeVar("_T")


class Source(Protocol):
    """What is read from: an `asyncio.StreamReader`, or what stands before one."""

    async def read(self, n: int = -1, /) -> bytes:
        """At most `n` bytes; none at the end. Raises OSError."""


class ClientGoneError(PolytlsError):
    """The client ended the connection, or TLS with it failed. The sentence says what is known."""


class Channel:
    """One client's connection. Nothing here waits forever by itself: call it under a deadline."""

    def __init__(self, reader: Source, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._taken = b""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def read_hello(self) -> bytes:
        """The ClientHello's records. Raises `HelloError` where it is none, `ClientGoneError`, OSError."""
        while (end := hello_end(self._taken)) is None:
            if len(self._taken) > _MAX_RAW_BYTES:
                raise HelloError(f"no ClientHello in {len(self._taken)} bytes")
            data = await self._reader.read(_READ_BYTES)
            if not data:
                what = f"after {len(self._taken)} bytes of its hello" if self._taken else "without a word"
                raise ClientGoneError(f"the client went away {what}")
            self._taken += data
        return self._taken[:end]

    async def handshake(self, context: ssl.SSLContext) -> None:
        """TLS as the server, from the hello on. Raises `ClientGoneError`, OSError."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(self._taken)
        self._taken = b""
        await self._run(self._tls.do_handshake)

    @property
    def protocol(self) -> str | None:
        """What ALPN agreed on; None: nothing."""
        return self._tls.selected_alpn_protocol() if self._tls is not None else None

    @property
    def version(self) -> str | None:
        return self._tls.version() if self._tls is not None else None

    @property
    def cipher(self) -> str | None:
        found = self._tls.cipher() if self._tls is not None else None
        return found[0] if found else None

    async def read(self) -> bytes:
        """What comes next; nothing where the client has ended. Raises `ClientGoneError`, OSError."""
        tls = self._tls
        assert tls is not None, "read before the handshake"
        try:
            return await self._run(lambda: tls.read(_READ_BYTES))
        except ClientGoneError:
            return b""

    async def write(self, data: bytes) -> None:
        """Raises `ClientGoneError`, OSError."""
        tls = self._tls
        assert tls is not None, "write before the handshake"
        sent = 0
        while sent < len(data):
            sent += await self._run(partial(tls.write, data[sent:]))

    async def refuse(self, alert: int = HANDSHAKE_FAILURE) -> None:
        """A fatal alert in the clear (RFC 8446 §6)."""
        self._writer.write(bytes((21, 3, 3, 0, 2, 2, alert)))
        await self._writer.drain()

    async def close(self) -> None:
        """Say goodbye where TLS is up, and close in order. Raises nothing."""
        with contextlib.suppress(OSError, ssl.SSLError, ClientGoneError):
            if self._tls is not None:
                with contextlib.suppress(ssl.SSLWantReadError):  # ours is written, theirs need not come
                    self._tls.unwrap()
                await self._flush()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            # What the client still says must be read, or the kernel resets what it has not read of ours.
            while await self._reader.read(_READ_BYTES):
                pass

    def abort(self) -> None:
        """Let go of the socket."""
        self._writer.transport.abort()

    async def _run(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    raise ClientGoneError("the client ended the connection") from None
                self._incoming.write(data)
            except ssl.SSLZeroReturnError:
                raise ClientGoneError("the client ended the connection") from None
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert
                raise ClientGoneError(f"TLS failed: {error.reason or error}") from None
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._writer.write(data)
            await self._writer.drain()
