"""Clients for tests with faults: one tunnel, one request, every byte compared, and a word for how it
ended."""

from __future__ import annotations

import contextlib
import socket
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.peers.clients import connect_head, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.soak.driver import Driven

PATIENCE_SECONDS = 20.0
"""No tunnel here may take longer, whatever befalls it: every deadline of the proxy is shorter."""
_PERIOD = 65521


@lru_cache(1)
def _pattern() -> bytes:
    """native/bench/common/pattern.cc: splitmix64, the lowest byte of each number."""
    mask, state, made = 2**64 - 1, 1, bytearray()
    for _ in range(_PERIOD):
        state = (state + 0x9E3779B97F4A7C15) & mask
        value = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        made.append((value ^ (value >> 31)) & 0xFF)
    return bytes(made)


def body(size: int, seed: int) -> bytes:
    """What the native origin answers GET /bytes/SIZE/SEED with."""
    start = seed % _PERIOD
    whole = _pattern() * ((start + size) // _PERIOD + 1)
    return whole[start : start + size]


class Refused(Exception):
    """The CONNECT was answered with another status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Conversation:
    """A tunnel that stands."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    def get(self, size: int, seed: int) -> None:
        """Ask for a body. AssertionError where a byte of it is another one, OSError where it does not
        come."""
        request = f"GET /bytes/{size}/{seed} HTTP/1.1\r\nHost: origin.test\r\n\r\n"
        self._connection.sendall(request.encode())
        head = read_head(self._connection)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"answered {head[:20]!r}")
        wanted, got = body(size, seed), b""
        while len(got) < size:
            part = self._connection.recv(65536)
            if not part:
                raise ConnectionError("cut off")
            got += part
            assert wanted.startswith(got), "bytes differ"


@contextlib.contextmanager
def conversation(subject: Driven, host: str, port: int) -> Iterator[Conversation]:
    """A MITM tunnel. Raises OSError (ssl.SSLError, too) or `Refused` where it does not come about."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    with socket.create_connection(("127.0.0.1", subject.port), timeout=PATIENCE_SECONDS) as plain:
        plain.sendall(connect_head(host, port))
        head = read_head(plain)
        if not head:
            raise ConnectionError("no answer")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Refused(int(head[9:12]))
        with context.wrap_socket(plain, server_hostname=host) as connection:
            yield Conversation(connection)


def attempt(subject: Driven, host: str, port: int, *, size: int = 3000, seed: int = 7) -> str:
    """One tunnel and one request: "ok", or in a word how it failed. A hang fails the test."""
    try:
        with conversation(subject, host, port) as talk:
            talk.get(size, seed)
    except TimeoutError as error:
        raise AssertionError("the tunnel hangs") from error
    except Refused as error:
        return f"refused {error.status}"
    except OSError as error:
        return f"failed: {error}"
    return "ok"


def outcomes(snapshot: dict[str, Any]) -> dict[str, int]:
    """Records by outcome."""
    found: dict[str, int] = {}
    for _, outcome, count in snapshot["counts"]:
        found[outcome] = found.get(outcome, 0) + count
    return found


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Records by outcome that came in between."""
    were, are = outcomes(before), outcomes(after)
    return {name: count - were.get(name, 0) for name, count in are.items() if count != were.get(name, 0)}
