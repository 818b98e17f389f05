"""A server that makes a client say hello again, and keeps what it said.

Theory of operation
-------------------
`polytls.capture.server` looks at first hellos. What a client says on being asked again shows as much of it:
with another group, with a cookie to return, and with a session of an earlier connection (RFC 8446 §4.1.4,
§4.2.2, §4.6.1). One connection is answered at a time, as `asking` says at its begin. OpenSSL asks for groups
and gives out sessions; for cookies it is not asked by Python's `ssl`, so that this one message is written
here and the connection ends behind the second hello.

For one client that is ours: what it sends is bounded by the deadline, not by a count of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from enum import Enum
from typing import TYPE_CHECKING

from polytls.capture.channel import Channel, ClientGoneError
from polytls.capture.records import hello_end
from polytls.wire.client_hello import ClientHello, HelloError, parse_client_hello
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from polytls.capture.certificates import Contexts
    from polytls.settings import Address

GROUP, GROUP_NAME = 0x0018, "secp384r1"
"""Asked for: nearly every client offers P-384, and none a share of it."""

COOKIE_BYTES = 32

_SECONDS = 20.0
_MAX_KEPT_BYTES = 1 << 18  # two hellos at their largest, a request and what is around them
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TLS12, _TLS13 = b"\3\3", b"\3\4"
_TLS13_SUITES = (0x1301, 0x1302, 0x1303)
_CHANGE_CIPHER_SPEC = 20
# RFC 8446 §4.1.3: the SHA-256 of "HelloRetryRequest".
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class Asking(Enum):
    """What a client is asked for; the value is what its second hello is called."""

    GROUP = "asked for another group"
    COOKIE = "asked for its cookie"
    GROUP_AND_COOKIE = "asked for its cookie and another group"
    SESSION = "resuming"


class _Kept:
    """A reader that remembers."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.data = b""
        self._reader = reader

    async def read(self, n: int = -1, /) -> bytes:
        data = await self._reader.read(n)
        if len(self.data) < _MAX_KEPT_BYTES:
            self.data += data
        return data


class AskingServer:
    """`start`, then `stop`; on one event loop. `taken` has the bytes of each connection, once it is over."""

    def __init__(self, asking_for_a_group: Contexts, giving_sessions: Contexts) -> None:
        self.asking = Asking.SESSION
        self.taken: asyncio.Queue[bytes] = asyncio.Queue()
        self._contexts = {Asking.GROUP: asking_for_a_group, Asking.SESSION: giving_sessions}
        self._server: asyncio.Server | None = None

    async def start(self, address: Address) -> int:
        """Listen; the port. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, address.host, address.port, backlog=1)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = _Kept(reader)
        with contextlib.suppress(
            OSError, HelloError, ClientGoneError, asyncio.TimeoutError
        ):  # what was said until then is what counts
            await asyncio.wait_for(self._answer(kept, writer), _SECONDS)
        self.taken.put_nowait(kept.data)
        writer.close()

    async def _answer(self, kept: _Kept, writer: asyncio.StreamWriter) -> None:
        contexts = self._contexts.get(self.asking)
        channel = Channel(kept, writer)
        hello = await channel.read_hello()
        if contexts is None:
            group = GROUP if self.asking is Asking.GROUP_AND_COOKIE else None
            writer.write(retry_request(parse_client_hello(hello), os.urandom(COOKIE_BYTES), group))
            while len(hellos_in(kept.data)[0]) < 2 and await kept.read(1 << 14):
                pass
            return
        await channel.handshake(contexts.context(None))
        head = b""
        while b"\r\n\r\n" not in head:
            data = await channel.read()
            if not data:
                return
            head += data
        await channel.write(_RESPONSE)
        await channel.close()


def hellos_in(sent: bytes) -> tuple[list[ClientHello], bool]:
    """The first one or two hellos at the head of what a client sent, and whether a ChangeCipherSpec came
    between.

    Raises `HelloError` for what is none.
    """
    found: list[ClientHello] = []
    position, changed = 0, False
    while len(found) < 2 and position < len(sent):
        if sent[position] == _CHANGE_CIPHER_SPEC and found:
            position += 5 + int.from_bytes(sent[position + 3 : position + 5], "big")
            changed = True
            continue
        if found and sent[position] != 0x16:
            break
        end = hello_end(sent, position)
        if end is None:
            break
        found.append(parse_client_hello(sent[position:end]))
        position = end
    return found, changed and len(found) == 2


def retry_request(hello: ClientHello, cookie: bytes, group: int | None) -> bytes:
    """The record of a HelloRetryRequest (RFC 8446 §4.1.4). Raises `HelloError` where no suite of TLS 1.3 is
    offered."""
    suite = next((suite for suite in hello.cipher_suites if suite in _TLS13_SUITES), None)
    if suite is None:
        raise HelloError("it offers no cipher suite of TLS 1.3")
    wanted = [(ExtensionType.SUPPORTED_VERSIONS, _TLS13), (ExtensionType.COOKIE, _vec16(cookie))]
    if group is not None:
        wanted.append((ExtensionType.KEY_SHARE, group.to_bytes(2, "big")))
    extensions = b"".join(number.to_bytes(2, "big") + _vec16(body) for number, body in wanted)
    session = bytes((len(hello.session_id),)) + hello.session_id
    body = _TLS12 + _RETRY_RANDOM + session + suite.to_bytes(2, "big") + b"\0" + _vec16(extensions)
    return b"\x16" + _TLS12 + _vec16(b"\2" + len(body).to_bytes(3, "big") + body)


def _vec16(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
