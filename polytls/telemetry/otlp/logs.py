"""Events -> log records of OTLP: a sentence for people, attributes for queries, and the trace it belongs to.

A tunnel's log record is shorter than its span, and than its line on stdout: it is made for every tunnel, and
each attribute costs some 2 µs. Who needs all of it follows its trace id, or reads the lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, set_span_in_context

from polytls.errors import Kind
from polytls.events import (
    Draining,
    LeafMinted,
    Listening,
    NotReloaded,
    Reloaded,
    TunnelRecord,
    Warned,
    note_of,
)
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.spans import name_of, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

    from polytls.events import Event
    from polytls.telemetry.otlp.spans import Attributes

MAX_TEXT_CHARACTERS = 8192
"""Of a body: a traceback fits."""


class Logs:
    """`sampled` says which span a tunnel's record belongs to, if its trace is exported."""

    def __init__(
        self,
        sampled: Callable[[TunnelRecord], SpanContext | None],
        resource: Resource,
        scope: InstrumentationScope,
    ) -> None:
        self._sampled = sampled
        self._resource = resource
        self._scope = scope
        self._nowhere = _around(INVALID_SPAN_CONTEXT)

    def build(self, event: Event, when_ns: int) -> ReadableLogRecord:
        """The log record of an event that was noticed at `when_ns` (Unix epoch)."""
        match event:
            case TunnelRecord():
                return self._tunnel(event, when_ns)
            case LeafMinted():
                attributes: Attributes = {
                    words.SERVER_ADDRESS: event.host,
                    words.LEAF_KEY: event.key,
                    words.LEAF_SERIAL: event.serial,
                    words.LEAF_NOT_AFTER: event.not_after,
                }
                return self._made(words.LEAF_EVENT, note_of(event) or "", when_ns, attributes)
            case Warned(text):
                return self._made(words.WARNED_EVENT, text, when_ns, {}, SeverityNumber.WARN)
            case Reloaded():
                return self._made(words.RELOADED_EVENT, note_of(event) or "", when_ns, {})
            case NotReloaded():
                text = note_of(event) or ""
                return self._made(words.NOT_RELOADED_EVENT, text, when_ns, {}, SeverityNumber.WARN)
            case Listening(address, mode):
                text = f"listening on {address}"
                return self._made(words.LISTENING_EVENT, text, when_ns, {words.MODE: mode})
            case Draining(tunnels, seconds):
                text = f"stopping; open tunnels ({tunnels}) have {seconds:g} s to end"
                return self._made(words.DRAINING_EVENT, text, when_ns, {})

    def _tunnel(self, record: TunnelRecord, when_ns: int) -> ReadableLogRecord:
        severity = SeverityNumber.INFO
        text = f"{name_of(record)} {record.outcome}"
        attributes: Attributes = {
            words.TUNNEL: record.id,
            words.CLIENT_ADDRESS: split_address(record.client)[0],
            words.OUTCOME: record.outcome,
            words.BYTES_UP: record.bytes_up,
            words.BYTES_DOWN: record.bytes_down,
            words.DURATION: record.timings.total or 0.0,
        }
        if record.outcome != "completed":
            internal = record.outcome == Kind.INTERNAL.value
            severity = SeverityNumber.ERROR if internal else SeverityNumber.WARN
            text = f"{text}: {record.detail}"
            attributes[words.ERROR_TYPE] = record.outcome
        for name, value in (
            (words.SERVER_ADDRESS, record.host),
            (words.SERVER_PORT, record.port),
            (words.MODE, record.mode),
            (words.PROFILE, record.profile),
        ):
            if value is not None:
                attributes[name] = value
        context = self._sampled(record)
        around = self._nowhere if context is None else _around(context)
        return self._made(words.TUNNEL_EVENT, text, when_ns, attributes, severity, around)

    def _made(
        self,
        name: str,
        text: str,
        when_ns: int,
        attributes: Attributes,
        severity: SeverityNumber = SeverityNumber.INFO,
        around: Context | None = None,
    ) -> ReadableLogRecord:
        record = LogRecord(
            timestamp=when_ns,
            observed_timestamp=when_ns,
            context=around or self._nowhere,
            severity_number=severity,
            severity_text=severity.name,
            body=text[:MAX_TEXT_CHARACTERS],
            attributes=attributes,
            event_name=name,
        )
        return ReadableLogRecord(record, self._resource, self._scope)


def _around(context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(context))
