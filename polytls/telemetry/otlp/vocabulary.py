"""Every name that is exported, with what it means: spans, attributes, log events, metrics.

`spans`, `logs` and `metrics` take their names from here, docs/observability.md repeats these tables, and
tests hold all of it together, against what a collector really got. Names without `polytls.` in front are
those of the OpenTelemetry semantic conventions (general, network, error, TLS, service).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

CLIENT_ADDRESS = "client.address"
CLIENT_PORT = "client.port"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
PEER_ADDRESS = "network.peer.address"
PEER_PORT = "network.peer.port"
TRANSPORT = "network.transport"
PROTOCOL_NAME = "network.protocol.name"
PROTOCOL_VERSION = "network.protocol.version"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"
METHOD = "http.request.method"
TLS_NAME = "tls.protocol.name"
TLS_VERSION = "tls.protocol.version"
TLS_CIPHER = "tls.cipher"
TLS_CURVE = "tls.curve"
TLS_RESUMED = "tls.resumed"
TLS_ESTABLISHED = "tls.established"
TLS_NEXT_PROTOCOL = "tls.next_protocol"
TUNNEL = "polytls.tunnel.id"
MODE = "polytls.mode"
PROFILE = "polytls.profile"
OUTCOME = "polytls.outcome"
SIDE = "polytls.side"
STAGE = "polytls.stage"
CLIENT_JA4 = "polytls.client.ja4"
UPSTREAM_JA4 = "polytls.upstream.ja4"
POST_QUANTUM = "polytls.tls.post_quantum"
SNI = "polytls.client.sni"
BYTES_UP = "polytls.bytes.up"
BYTES_DOWN = "polytls.bytes.down"
TRUNCATED = "polytls.truncated"
DURATION = "polytls.duration"
DIRECTION = "polytls.direction"
LIMIT = "polytls.limit"
SINK = "polytls.sink"
RESULT = "polytls.result"
LEAF_KEY = "polytls.leaf.key"
LEAF_SERIAL = "polytls.leaf.serial"
LEAF_NOT_AFTER = "polytls.leaf.not_after"

HYBRID_GROUPS = ("MLKEM", "Kyber")
"""What the name of a group has in it whose key exchange withstands a quantum computer."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of spans and logs. `on`: the spans and events that have it, where it applies."""

    name: str
    type: str
    on: str
    doc: str


class Step(Enum):
    """The child spans of a tunnel; the value is the span's name."""

    HEAD = "head"
    RESOLVE = "resolve"
    CONNECT = "connect"
    HELLO = "hello"
    UPSTREAM_HANDSHAKE = "upstream handshake"
    LEAF = "leaf"
    CLIENT_HANDSHAKE = "client handshake"
    RELAY = "relay"


TUNNEL_SPAN = "CONNECT host:port"
FIRST_BYTE = "first byte"

SPANS: tuple[tuple[str, str], ...] = (
    (TUNNEL_SPAN, "A tunnel, from accepting the client to its end; `CONNECT` alone where no host was read."),
    (Step.HEAD.value, "From accepting the client to the end of its request head."),
    (Step.RESOLVE.value, "Finding the addresses of the host, from the cache or the resolver."),
    (Step.CONNECT.value, "Connecting to one of them. Its kind is CLIENT, as it is a call to upstream."),
    (Step.HELLO.value, "From answering 200 to the client's whole ClientHello (MITM)."),
    (Step.UPSTREAM_HANDSHAKE.value, "TLS with upstream, verification included (MITM)."),
    (Step.LEAF.value, "Waiting for a leaf to be minted; there is none where it was cached (MITM)."),
    (Step.CLIENT_HANDSHAKE.value, "TLS with the client (MITM)."),
    (
        Step.RELAY.value,
        f"Moving bytes, to the end. The event `{FIRST_BYTE}` is when upstream's first one was there.",
    ),
)

_TLS = "`upstream handshake`, `client handshake`"
_EVERY_END = "tunnel span, `polytls.tunnel`"

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(CLIENT_ADDRESS, "string", _EVERY_END, "The client's address."),
    Attribute(CLIENT_PORT, "int", "tunnel span", "The client's port."),
    Attribute(
        SERVER_ADDRESS, "string", _EVERY_END, "The host of the CONNECT; also on `polytls.leaf_minted`."
    ),
    Attribute(SERVER_PORT, "int", _EVERY_END, "The port of the CONNECT."),
    Attribute(METHOD, "string", "tunnel span", "`CONNECT`, where the head was read."),
    Attribute(STATUS_CODE, "int", "tunnel span", "The status that answered the CONNECT."),
    Attribute(TRANSPORT, "string", "`connect`", "`tcp`."),
    Attribute(PEER_ADDRESS, "string", "`connect`", "The address of upstream that answered."),
    Attribute(PEER_PORT, "int", "`connect`", "Its port."),
    Attribute(PROTOCOL_NAME, "string", "tunnel span", "`http`, where ALPN agreed on an HTTP."),
    Attribute(PROTOCOL_VERSION, "string", "tunnel span", "`1.1` or `2`."),
    Attribute(ERROR_TYPE, "string", "what failed, and the tunnel", "The kind of the failure table."),
    Attribute(TLS_NAME, "string", _TLS, "`tls`."),
    Attribute(TLS_VERSION, "string", _TLS, "`1.2` or `1.3`."),
    Attribute(TLS_CIPHER, "string", _TLS, "The cipher suite, by IANA's name."),
    Attribute(TLS_CURVE, "string", _TLS, "The group, by IANA's name; `none` for an RSA key exchange."),
    Attribute(TLS_RESUMED, "boolean", _TLS, "The handshake resumed a session."),
    Attribute(TLS_ESTABLISHED, "boolean", _TLS, "The handshake was completed."),
    Attribute(TLS_NEXT_PROTOCOL, "string", _TLS, "The protocol that ALPN agreed on."),
    Attribute(POST_QUANTUM, "boolean", _TLS, "The group is a post-quantum hybrid."),
    Attribute(SNI, "string", "`hello`", "The server name as the client sent it."),
    Attribute(TUNNEL, "int", _EVERY_END, "The number of the tunnel, as in the log line."),
    Attribute(MODE, "string", f"{_EVERY_END}; metrics", "`mitm` or `passthrough`."),
    Attribute(PROFILE, "string", f"{_EVERY_END}; metrics", "The profile of the upstream hello."),
    Attribute(OUTCOME, "string", f"{_EVERY_END}; metrics", "`completed`, or the kind of the failure table."),
    Attribute(SIDE, "string", "tunnel span", "Whose doing a failure was: client, upstream, proxy."),
    Attribute(STAGE, "string", "tunnel span", "Where a failure happened."),
    Attribute(CLIENT_JA4, "string", "tunnel span", "JA4 of the client's hello, with `log.fingerprint`."),
    Attribute(UPSTREAM_JA4, "string", "tunnel span", "JA4 of the hello upstream was sent, likewise."),
    Attribute(BYTES_UP, "int", _EVERY_END, "Bytes from the client to upstream."),
    Attribute(BYTES_DOWN, "int", _EVERY_END, "Bytes from upstream to the client."),
    Attribute(
        TRUNCATED, "boolean", "tunnel span", "Upstream ended its TLS without saying so; left out if not."
    ),
    Attribute(DURATION, "double", "`polytls.tunnel`", "Seconds from accept to end."),
    Attribute(LEAF_KEY, "string", "`polytls.leaf_minted`", "`ecdsa` or `rsa`."),
    Attribute(LEAF_SERIAL, "string", "`polytls.leaf_minted`", "The serial number, hexadecimal."),
    Attribute(LEAF_NOT_AFTER, "string", "`polytls.leaf_minted`", "Its last day, UTC."),
    Attribute(DIRECTION, "string", "metrics", "`up` or `down`."),
    Attribute(LIMIT, "string", "metrics", "The limit that was hit: a kind of the failure table."),
    Attribute(RESULT, "string", "metrics", "Of a reload: `changed`, `unchanged` or `refused`."),
    Attribute(SINK, "string", "metrics", "`traces`, `metrics`, `logs` or `log`, the lines on stdout."),
)

TUNNEL_EVENT = "polytls.tunnel"
LEAF_EVENT = "polytls.leaf_minted"
WARNED_EVENT = "polytls.warned"
LISTENING_EVENT = "polytls.listening"
DRAINING_EVENT = "polytls.draining"
RELOADED_EVENT = "polytls.reloaded"
NOT_RELOADED_EVENT = "polytls.not_reloaded"

LOG_EVENTS: tuple[tuple[str, str, str], ...] = (
    (TUNNEL_EVENT, "INFO; WARN if it failed; ERROR if that is a defect", "A tunnel ended, and how."),
    (LEAF_EVENT, "INFO", "The root CA signed a leaf."),
    (WARNED_EVENT, "WARN", "What else the proxy tells on stderr."),
    (LISTENING_EVENT, "INFO", "The proxy accepts tunnels."),
    (DRAINING_EVENT, "INFO", "The proxy was told to stop."),
    (RELOADED_EVENT, "INFO", "The configuration was read again, and what changed."),
    (NOT_RELOADED_EVENT, "WARN", "It was read again and could not be taken: nothing has changed."),
)


class Instrument(Enum):
    """The value is what the documents call it."""

    COUNTER = "counter"
    UP_DOWN = "up-down counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `buckets`: upper bounds, of a histogram."""

    name: str
    instrument: Instrument
    unit: str
    attributes: tuple[str, ...]
    doc: str
    buckets: tuple[float, ...] = ()


_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a handshake on loopback (0.3 ms) to the longest timeout by default."""
_LIFE = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""A request, a page, a WebSocket."""

OPEN = Metric("polytls.tunnels.open", Instrument.UP_DOWN, "{tunnel}", (), "Tunnels that have not ended.")
ENDED = Metric(
    "polytls.tunnels.ended", Instrument.COUNTER, "{tunnel}", (MODE, PROFILE, OUTCOME), "Tunnels that ended."
)
UNSPOKEN = Metric(
    "polytls.connections.unspoken",
    Instrument.COUNTER,
    "{connection}",
    (),
    "Connections that closed without a byte, such as health checks.",
)
BYTES = Metric(
    "polytls.tunnels.bytes",
    Instrument.COUNTER,
    "By",
    (DIRECTION, MODE),
    "Bytes of tunnels that ended, by direction.",
)
LIMITS = Metric("polytls.limits.hit", Instrument.COUNTER, "{tunnel}", (LIMIT,), "Tunnels that hit a limit.")
CONNECT_TIME = Metric(
    "polytls.connect.duration", Instrument.HISTOGRAM, "s", (MODE,), "Connecting to upstream.", _FAST
)
UPSTREAM_TIME = Metric(
    "polytls.upstream_handshake.duration",
    Instrument.HISTOGRAM,
    "s",
    (PROFILE,),
    "TLS handshakes with upstream.",
    _FAST,
)
CLIENT_TIME = Metric(
    "polytls.client_handshake.duration", Instrument.HISTOGRAM, "s", (), "TLS handshakes with clients.", _FAST
)
FIRST_BYTE_TIME = Metric(
    "polytls.first_byte.duration",
    Instrument.HISTOGRAM,
    "s",
    (MODE,),
    "From the start of the relay to upstream's first byte.",
    _FAST,
)
LIFE = Metric("polytls.tunnel.duration", Instrument.HISTOGRAM, "s", (MODE,), "Tunnels, accept to end.", _LIFE)
DROPPED = Metric(
    "polytls.events.dropped",
    Instrument.COUNTER,
    "{event}",
    (SINK,),
    "Events that a sink was too slow for, or that a collector did not take.",
)
LEAF_HITS = Metric("polytls.leaf_cache.hits", Instrument.COUNTER, "{leaf}", (), "Leaves that were cached.")
LEAF_MISSES = Metric("polytls.leaf_cache.misses", Instrument.COUNTER, "{leaf}", (), "Leaves that were not.")
LEAF_MINTS = Metric("polytls.leaf_cache.mints", Instrument.COUNTER, "{leaf}", (), "Leaves that were signed.")
LEAF_FAILURES = Metric(
    "polytls.leaf_cache.failures", Instrument.COUNTER, "{leaf}", (), "Leaves that could not be made."
)
LEAF_EVICTIONS = Metric(
    "polytls.leaf_cache.evictions", Instrument.COUNTER, "{leaf}", (), "Leaves that made room for others."
)
LEAF_SIZE = Metric("polytls.leaf_cache.size", Instrument.UP_DOWN, "{leaf}", (), "Leaves in the cache.")
RELOADS = Metric(
    "polytls.reloads",
    Instrument.COUNTER,
    "{reload}",
    (RESULT,),
    "Reloads of the configuration: it was taken and something changed, or nothing, or it was refused.",
)
LOOP_LAG = Metric(
    "polytls.loop.lag",
    Instrument.GAUGE,
    "s",
    (),
    "The longest that the event loop was late since the last export.",
)
QUEUED = Metric(
    "polytls.engine.queued",
    Instrument.UP_DOWN,
    "{completion}",
    (),
    "Completions that wait for the event loop.",
)
STREAMS = Metric("polytls.engine.streams", Instrument.UP_DOWN, "{stream}", (), "Connections open.")
OPERATIONS = Metric(
    "polytls.engine.operations", Instrument.UP_DOWN, "{operation}", (), "Operations under way."
)
RELAYS = Metric("polytls.engine.relays", Instrument.UP_DOWN, "{operation}", (), "Relays, of those.")
BUFFERED = Metric("polytls.engine.buffered", Instrument.UP_DOWN, "By", (), "Bytes held for connections.")
RELAYED = Metric("polytls.engine.relayed", Instrument.COUNTER, "By", (), "Bytes moved, of open tunnels too.")
HANDSHAKES = Metric(
    "polytls.engine.handshakes", Instrument.COUNTER, "{handshake}", (), "Handshakes completed, on both sides."
)
ACCEPT_ERRORS = Metric(
    "polytls.engine.accept_errors", Instrument.COUNTER, "{error}", (), "Accepts that failed: no descriptors."
)

METRICS: tuple[Metric, ...] = (
    OPEN,
    ENDED,
    UNSPOKEN,
    BYTES,
    LIMITS,
    CONNECT_TIME,
    UPSTREAM_TIME,
    CLIENT_TIME,
    FIRST_BYTE_TIME,
    LIFE,
    LEAF_HITS,
    LEAF_MISSES,
    LEAF_MINTS,
    LEAF_FAILURES,
    LEAF_EVICTIONS,
    LEAF_SIZE,
    RELOADS,
    LOOP_LAG,
    QUEUED,
    STREAMS,
    OPERATIONS,
    RELAYS,
    BUFFERED,
    RELAYED,
    HANDSHAKES,
    ACCEPT_ERRORS,
    DROPPED,
)
