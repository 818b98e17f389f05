"""A tunnel's record -> its spans, after the fact: the tunnel's own, and one for each step it reached.

Theory of operation
-------------------
The record has when each step began and how long it took, on the monotonic clock, and when the tunnel began,
on both clocks; so every span has its true start and end. Nothing of this happens while the tunnel lives: the
spans are made on the exporter's thread, and only for traces that are exported.

Whether one is, the sampler says (the SDK's, by ratio or by the standard variables), by the caller's decision
where its ``traceparent`` has one. The ids are those of `Identity`, so the answer is the same for all who ask.

A step that failed has no time of its own in the record. Its span begins where the last step ended and ends
when the tunnel was known to fail; which step it was, the failure's stage says.

The values are the SDK's `ReadableSpan`s, made directly: a live span would have to be carried along the
tunnel.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from polytls.errors import Kind, Stage
from polytls.events import Starts
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.identity import Identity, child_id
from polytls.telemetry.otlp.vocabulary import Step

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from polytls.events import TlsRecord, TunnelRecord

Attributes = dict[str, str | bool | int | float]

_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_NUMBERS = MappingProxyType({step: number for number, step in enumerate(Step, 1)})

_OF_STAGE = MappingProxyType(
    {
        Stage.HEAD.value: Step.HEAD,
        Stage.CONNECT.value: Step.CONNECT,
        Stage.HELLO.value: Step.HELLO,
        Stage.UPSTREAM_TLS.value: Step.UPSTREAM_HANDSHAKE,
        Stage.LEAF.value: Step.LEAF,
        Stage.CLIENT_TLS.value: Step.CLIENT_HANDSHAKE,
        Stage.RELAY.value: Step.RELAY,
    }
)
"""The step that failed, by the failure's stage. The others, such as limits, are no step of their own."""
_RESOLVING = frozenset({Kind.NAME_NOT_FOUND.value, Kind.RESOLVE_FAILED.value, Kind.RESOLVE_TIMEOUT.value})

_HTTP = MappingProxyType({"http/1.1": "1.1", "http/1.0": "1.0", "h2": "2"})


class Spans:
    """Decides, and builds. Thread-safe."""

    def __init__(
        self, sampler: Sampler, identity: Identity, resource: Resource, scope: InstrumentationScope
    ) -> None:
        self._sampler = sampler
        self._identity = identity
        self._resource = resource
        self._scope = scope

    def sampled(self, record: TunnelRecord) -> SpanContext | None:
        """The tunnel's span context; None where its trace is not exported."""
        trace_id, span_id = self._identity.of(record)
        parent = self._parent(record)
        around = None if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        result = self._sampler.should_sample(around, trace_id, name_of(record), SpanKind.SERVER, {})
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)

    def ids(self, record: TunnelRecord) -> tuple[str, str] | None:
        """Trace and span id for a log line; None where the trace is not exported."""
        context = self.sampled(record)
        return None if context is None else (f"{context.trace_id:032x}", f"{context.span_id:016x}")

    def build(self, record: TunnelRecord) -> list[ReadableSpan]:
        """The tunnel's span, then its children in their order; nothing where the trace is not exported."""
        context = self.sampled(record)
        if context is None:
            return []
        epoch_ns = int(record.started_at * 1e9) - record.started_ns
        ended_ns = record.started_ns + _ns(record.timings.total)
        failed = record.outcome != "completed"
        status = Status(StatusCode.ERROR, record.detail or record.outcome) if failed else Status()
        spans = [
            ReadableSpan(
                name_of(record),
                context,
                self._parent(record),
                self._resource,
                _tunnel_attributes(record),
                kind=SpanKind.SERVER,
                status=status,
                start_time=epoch_ns + record.started_ns,
                end_time=epoch_ns + ended_ns,
                instrumentation_scope=self._scope,
            )
        ]
        wrong = _failed_step(record) if failed else None
        for step, start, end in _steps(record, wrong, ended_ns):
            spans.append(self._child(record, context, step, epoch_ns + start, epoch_ns + end, step is wrong))
        return spans

    def _child(
        self, record: TunnelRecord, context: SpanContext, step: Step, start: int, end: int, wrong: bool
    ) -> ReadableSpan:
        attributes = _step_attributes(record, step)
        if wrong:
            attributes[words.ERROR_TYPE] = record.outcome
        first_byte = record.timings.first_byte
        events: tuple[Event, ...] = ()
        if step is Step.RELAY and first_byte is not None:
            events = (Event(words.FIRST_BYTE, {}, timestamp=start + _ns(first_byte)),)
        return ReadableSpan(
            step.value,
            SpanContext(
                context.trace_id, child_id(context.span_id, _NUMBERS[step]), False, context.trace_flags
            ),
            context,
            self._resource,
            attributes,
            events,
            kind=SpanKind.CLIENT if step is Step.CONNECT else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, record.detail or record.outcome) if wrong else Status(),
            start_time=start,
            end_time=max(start, end),
            instrumentation_scope=self._scope,
        )

    def _parent(self, record: TunnelRecord) -> SpanContext | None:
        parent = record.parent
        if parent is None:
            return None
        flags = _SAMPLED if parent.sampled else _NOT_SAMPLED
        return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)


def name_of(record: TunnelRecord) -> str:
    """The name of a tunnel's span."""
    if record.host is None:
        return "CONNECT"
    host = f"[{record.host}]" if ":" in record.host else record.host
    return f"CONNECT {host}:{record.port}"


def split_address(text: str) -> tuple[str, int]:
    """ "1.2.3.4:5" or "[::1]:5" as address and port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _steps(record: TunnelRecord, wrong: Step | None, ended_ns: int) -> list[tuple[Step, int, int]]:
    """Step, start and end (monotonic, ns) of all that was reached, in order; the one that failed too."""
    timings, starts = record.timings, record.starts or Starts()
    found = [
        (step, start, start + _ns(seconds))
        for step, start, seconds in (
            (Step.HEAD, record.started_ns, timings.head),
            (Step.RESOLVE, starts.resolve, timings.resolve),
            (Step.CONNECT, starts.connect, timings.connect),
            (Step.HELLO, starts.hello, timings.hello),
            (Step.UPSTREAM_HANDSHAKE, starts.upstream_handshake, timings.upstream_handshake),
            (Step.LEAF, starts.leaf, timings.leaf),
            (Step.CLIENT_HANDSHAKE, starts.client_handshake, timings.client_handshake),
            (Step.RELAY, starts.relay, timings.relay),
        )
        if seconds is not None
    ]
    if wrong is not None and all(step is not wrong for step, _, _ in found):
        # A client's handshake that showed the page of a failure came after that failure.
        last = max((end for _, _, end in found if end <= record.failed_ns), default=record.started_ns)
        found.append((wrong, last, record.failed_ns or ended_ns))
        found.sort(key=lambda item: item[1])
    return found


def _failed_step(record: TunnelRecord) -> Step | None:
    return Step.RESOLVE if record.outcome in _RESOLVING else _OF_STAGE.get(record.stage or "")


def _tunnel_attributes(record: TunnelRecord) -> Attributes:
    address, port = split_address(record.client)
    found: Attributes = {
        words.TUNNEL: record.id,
        words.CLIENT_ADDRESS: address,
        words.CLIENT_PORT: port,
        words.OUTCOME: record.outcome,
        words.BYTES_UP: record.bytes_up,
        words.BYTES_DOWN: record.bytes_down,
    }
    if record.host is not None and record.port is not None:
        found[words.METHOD] = "CONNECT"
        found[words.SERVER_ADDRESS] = record.host
        found[words.SERVER_PORT] = record.port
    if record.outcome != "completed":
        found[words.ERROR_TYPE] = record.outcome
    if record.truncated:
        found[words.TRUNCATED] = True
    alpn = record.upstream_tls.alpn if record.upstream_tls is not None else None
    if alpn is not None and alpn in _HTTP:
        found[words.PROTOCOL_NAME] = "http"
        found[words.PROTOCOL_VERSION] = _HTTP[alpn]
    for name, value in (
        (words.MODE, record.mode),
        (words.PROFILE, record.profile),
        (words.STATUS_CODE, record.reply),
        (words.SIDE, record.side),
        (words.STAGE, record.stage),
        (words.CLIENT_JA4, record.client_ja4),
        (words.UPSTREAM_JA4, record.upstream_ja4),
    ):
        if value is not None:
            found[name] = value
    return found


def _step_attributes(record: TunnelRecord, step: Step) -> Attributes:
    match step:
        case Step.CONNECT if record.upstream is not None:
            address, port = split_address(record.upstream)
            return {words.TRANSPORT: "tcp", words.PEER_ADDRESS: address, words.PEER_PORT: port}
        case Step.HELLO if record.sni is not None:
            return {words.SNI: record.sni}
        case Step.UPSTREAM_HANDSHAKE:
            return _tls_attributes(record.upstream_tls)
        case Step.CLIENT_HANDSHAKE:
            return _tls_attributes(record.client_tls)
        case _:
            return {}


def _tls_attributes(tls: TlsRecord | None) -> Attributes:
    if tls is None:
        return {words.TLS_ESTABLISHED: False}
    found: Attributes = {
        words.TLS_ESTABLISHED: True,
        words.TLS_NAME: "tls",
        words.TLS_VERSION: tls.version.removeprefix("TLS"),
        words.TLS_CIPHER: tls.cipher,
        words.TLS_CURVE: tls.group,
        words.TLS_RESUMED: tls.resumed,
        words.POST_QUANTUM: any(part in tls.group for part in words.HYBRID_GROUPS),
    }
    if tls.alpn is not None:
        found[words.TLS_NEXT_PROTOCOL] = tls.alpn
    return found


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else round(seconds * 1e9)
