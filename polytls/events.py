"""What happened, as typed values: one stream, and the only source of logs, metrics and traces.

Theory of operation
-------------------
Everything that happens to the proxy is an `Event`, handed to one `EventSink` on whichever thread it happens.
A sink takes an event and returns at once: what it makes of it, it makes elsewhere. Whoever wants to know
something new adds a sink, not a second way of being told.

A tunnel costs its path one event: its `TunnelRecord`, when everything about it is over, whatever became of
it. The record says how long each step took and, where somebody traces, when it began, so that the spans of a
trace can be built from it alone, later. How many tunnels are open, what the leaf cache and the engine are
doing: these are counters that a reader asks for, and no events.

Events hold metadata only: never payload, header values, credentials or keys. The one thing taken from a
header is a trace's identity (`TraceParent`), parsed. Durations are seconds; points in time are nanoseconds
of CLOCK_MONOTONIC, but for `started_at`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timings:
    """How long each step took, in seconds; None where the step was not reached, or failed."""

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
class Starts:
    """When each step began that is in `Timings`; 0 where it is not. The head begins with the tunnel."""

    resolve: int = 0
    connect: int = 0
    hello: int = 0
    upstream_handshake: int = 0
    leaf: int = 0
    client_handshake: int = 0
    relay: int = 0


@dataclass(frozen=True, slots=True)
class TlsRecord:
    """One side's handshake in IANA's names: "TLS1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768"."""

    version: str
    cipher: str
    group: str
    alpn: str | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The span of whoever asked for a tunnel, as its CONNECT head named it (W3C Trace Context, Level 2)."""

    trace_id: int  # 128 bits, not 0
    span_id: int  # 64 bits, not 0
    sampled: bool


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
    client_ja4: str | None = None  # of the hello the client sent; None unless `log.fingerprint`
    upstream_ja4: str | None = None  # of the hello upstream was sent
    started_ns: int = 0
    starts: Starts | None = None  # None where nobody traces: an idle tunnel is a tenth smaller without
    failed_ns: int = 0  # when it was known to fail; 0 where it did not
    parent: TraceParent | None = None  # None also where nobody traces


@dataclass(frozen=True, slots=True)
class Listening:
    """The proxy accepts tunnels. `mode` is that of `settings.Mode`."""

    address: str
    mode: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The proxy was told to stop: no new tunnels, and so long for those that are open."""

    open_tunnels: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeafMinted:
    """The root CA signed a leaf. Told before the leaf is used, on a minting thread."""

    host: str
    key: str  # "ecdsa" or "rsa"
    serial: str  # hexadecimal
    not_after: str  # YYYY-MM-DD, UTC


@dataclass(frozen=True, slots=True)
class Warned:
    """Something is wrong that whoever runs the proxy should know, in a sentence; a defect of PolyTLS comes
    with its traceback."""

    text: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again, and new tunnels go by it. `changed` names what is not as it was:
    keys, "profiles.NAME", or the contents of files; empty: nothing."""

    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotReloaded:
    """The configuration cannot be taken as it is now, and nothing has changed. `reason` is a clause. `noted`:
    another process, which found it out, has said so on stderr."""

    reason: str
    noted: bool = False


Event = TunnelRecord | Listening | Draining | LeafMinted | Warned | Reloaded | NotReloaded
EventSink = Callable[[Event], None]
_MOST_NAMED = 12
"""Of what has changed, in a sentence: a directory of profiles may have hundreds."""
RecordSink = Callable[[TunnelRecord], None]


def note_of(event: Event) -> str | None:
    """What an event says to whoever watches the program, in a sentence; None: nothing, or it is a tunnel."""
    match event:
        case Warned(text):
            return text
        case Reloaded(()):
            return "reloaded: the configuration is as it was"
        case Reloaded(changed):
            more = len(changed) - _MOST_NAMED
            named = ", ".join(changed[:_MOST_NAMED])
            return f"reloaded: changed {named}{f' and {more} more' if more > 0 else ''}"
        case NotReloaded(reason):
            return f"not reloaded, the configuration stays as it was: {reason}"
        case LeafMinted():
            return f"leaf for {event.host} ({event.key}), serial {event.serial}, until {event.not_after}"
        case Draining(0):
            return None
        case Draining():
            return (
                f"stopping; open tunnels ({event.open_tunnels}) have {event.seconds:g} s to end,"
                " a second signal ends them now"
            )
        case _:
            return None
