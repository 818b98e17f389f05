"""What operations of the engine tell when they succeed, as plain values.

Nothing here knows the native library: the proxy and its tests can be typed against these values alone.
Points in time are nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from polytls.engine.stream import Stream


class Accepted(NamedTuple):
    """A client connected and sent a whole request head (or failed to: then `failure` says how).

    `head` holds the bytes up to and with the empty line; what came after it stays in the stream.
    On `failure` (a status name of the engine: "too_large", "timeout", "malformed", "closed", ...) `head`
    holds what came so far and the stream can still be answered.
    """

    stream: Stream
    client: str  # "1.2.3.4:5" or "[::1]:5"
    head: bytes
    failure: str | None
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where to dial: `ip` as text (IPv4 or IPv6 without brackets)."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Connected(NamedTuple):
    """A connection to upstream is open. `address` is the one of the candidates that answered."""

    stream: Stream
    address: SocketAddress
    started_ns: int
    ended_ns: int


class HelloFacts(NamedTuple):
    """What the decision needs of a client's ClientHello, extracted natively.

    `sni`: the server name as sent, or None. `alpn`: protocol names in order, or None where the extension
    is absent. `max_version`: the highest version offered (0x0304 is TLS 1.3). `ecdsa_ok`: the client can use
    an ECDSA P-256 certificate. `size`: bytes of the records that carry the hello. `raw`: those records,
    where they were asked for.
    """

    sni: bytes | None
    alpn: tuple[bytes, ...] | None
    max_version: int
    ecdsa_ok: bool
    size: int
    raw: bytes | None
    started_ns: int
    ended_ns: int


class ExpectedHello(NamedTuple):
    """What a ClientHello has to be for its chain to go on: these fields of `HelloFacts`, exactly."""

    sni: bytes | None
    alpn: tuple[bytes, ...] | None
    ecdsa_ok: bool


class UnexpectedHelloError(Exception):
    """A whole ClientHello came, and it is not the one that was expected. Nothing of it is consumed, nothing
    was done about it, and nothing is wrong: it only has to be looked at. `facts` says what it is."""

    def __init__(self, facts: HelloFacts) -> None:
        super().__init__("another ClientHello than expected")
        self.facts = facts


class TlsFacts(NamedTuple):
    """What a handshake agreed on: IANA numbers; `alpn` None where no protocol was chosen. `retried`: after a
    HelloRetryRequest. `ech_accepted`: upstream took the encrypted hello. `hello`: the records of the
    ClientHello that was sent (the first, of two), where they were asked for."""

    version: int
    cipher: int
    group: int
    sigalg: int
    alpn: bytes | None
    resumed: bool
    retried: bool
    ech_accepted: bool
    started_ns: int
    ended_ns: int
    hello: bytes | None = None


class RelayFacts(NamedTuple):
    """What a relay moved. `failure` is None when both directions ended in order; else a status name of the
    engine ("reset", "idle", "lifetime", "cancelled", "tls", ...), with `failed_client` telling whose end it
    was. Byte counts are of plaintext (MITM) or of the tunnel (passthrough)."""

    bytes_up: int
    bytes_down: int
    truncated: bool
    failure: str | None
    failed_client: bool
    detail: str
    first_byte_ns: int  # 0: upstream never sent one
    started_ns: int
    ended_ns: int
