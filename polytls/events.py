"""What happened, as typed values: the only source of logs, and later of metrics and traces.

A tunnel ends in exactly one `TunnelRecord`, whatever became of it. Records hold metadata only: never
payload, header values, credentials or keys. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timings:
    """How long each step took, in seconds; None where the step was not reached."""

    head: float | None = None
    resolve: float | None = None
    connect: float | None = None
    hello: float | None = None
    upstream_handshake: float | None = None
    leaf: float | None = None
    client_handshake: float | None = None
    first_byte: float | None = None  # from the start of the relay to upstream's first byte
    relay: float | None = None
    total: float | None = None


@dataclass(slots=True)
class TlsRecord:
    """One side's handshake in IANA's names: "TLS1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768"."""

    version: str
    cipher: str
    group: str
    alpn: str | None
    resumed: bool


@dataclass(slots=True)
class TunnelRecord:
    """One tunnel, from accept to end. `outcome` is "completed" or the value of an `errors.Kind`."""

    id: int
    client: str
    started_at: float  # seconds since the Unix epoch
    host: str | None = None
    port: int | None = None
    mode: str | None = None
    profile: str | None = None
    upstream: str | None = None  # the address dialled, "ip:port"
    sni: str | None = None
    client_tls: TlsRecord | None = None
    upstream_tls: TlsRecord | None = None
    ech: str | None = None  # "accepted", "retried" (then accepted), "rejected", "grease"; None: not offered
    bytes_up: int = 0
    bytes_down: int = 0
    truncated: bool = False
    timings: Timings = field(default_factory=Timings)
    outcome: str = "completed"
    side: str | None = None
    stage: str | None = None
    detail: str | None = None
    reply: int | None = None  # HTTP status answered to the CONNECT


RecordSink = Callable[[TunnelRecord], None]
