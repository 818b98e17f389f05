"""What a collector got, as plain values, from OTLP's JSON form: the file exporter writes it, protobuf
prints it.

The two spell bytes differently (hexadecimal in OTLP's own JSON, base64 in protobuf's) and numbers as text
or not; here everything is one.
"""

from __future__ import annotations

import base64
import binascii
import copy
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """Ids in hexadecimal, times in ns. `status` is 0 unset, 1 ok, 2 error; `kind` 1 internal, 2 server, 3
    client."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: int
    end: int
    attributes: Json
    status: int
    message: str
    events: tuple[str, ...]
    resource: Json


@dataclass(frozen=True)
class Log:
    event: str
    body: str
    severity: str
    trace_id: str
    span_id: str
    attributes: Json
    resource: Json


@dataclass(frozen=True)
class Point:
    """One value of a metric: `value` is a number, or a histogram's count. `kind` is sum, gauge or
    histogram."""

    metric: str
    unit: str
    kind: str
    monotonic: bool
    attributes: Json
    value: float
    bounds: tuple[float, ...]
    resource: Json


@dataclass(repr=False)
class Exported:
    """Everything, in the order in which it came."""

    spans: list[Span] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def __repr__(self) -> str:
        """Short: it is a part of what a failing test says."""
        tunnels = [(span.name, span.attributes.get("polytls.outcome")) for span in self.tunnels()]
        counts = f"{len(self.spans)} spans, {len(self.logs)} logs, {len(self.points)} points"
        return f"Exported({tunnels[-20:]}, {counts})"

    def copy(self) -> Exported:
        return copy.deepcopy(self)

    def add(self, message: Json) -> None:
        """One request, or one line of the collector's file."""
        for group in message.get("resourceSpans", ()):
            resource = attributes_of(group.get("resource", {}))
            for scope in group.get("scopeSpans", ()):
                self.spans += [_span(one, resource) for one in scope.get("spans", ())]
        for group in message.get("resourceLogs", ()):
            resource = attributes_of(group.get("resource", {}))
            for scope in group.get("scopeLogs", ()):
                self.logs += [_log(one, resource) for one in scope.get("logRecords", ())]
        for group in message.get("resourceMetrics", ()):
            resource = attributes_of(group.get("resource", {}))
            for scope in group.get("scopeMetrics", ()):
                for metric in scope.get("metrics", ()):
                    self.points += _points(metric, resource)

    def tunnels(self) -> list[Span]:
        """The spans of tunnels."""
        return [span for span in self.spans if span.name.startswith("CONNECT")]

    def tunnel(self, host: str) -> Span:
        """The span of the one tunnel to a host."""
        (found,) = [span for span in self.tunnels() if span.attributes.get("server.address") == host]
        return found

    def children(self, parent: Span) -> dict[str, Span]:
        """Its children, by name, in the order of their starts."""
        found = [span for span in self.spans if span.parent_id == parent.span_id]
        return {span.name: span for span in sorted(found, key=lambda span: span.start)}

    def log(self, host: str) -> Log:
        """The record of the one tunnel to a host."""
        (found,) = [
            log
            for log in self.logs
            if log.event == "polytls.tunnel" and log.attributes.get("server.address") == host
        ]
        return found

    def last(self, metric: str, **attributes: object) -> float | None:
        """The latest value of a metric with at least these attributes, `.` written as `_`."""
        for point in reversed(self.points):
            named = {name.replace(".", "_"): value for name, value in point.attributes.items()}
            if point.metric == metric and attributes.items() <= named.items():
                return point.value
        return None


def attributes_of(holder: Json) -> Json:
    return {item["key"]: _value(item.get("value", {})) for item in holder.get("attributes", ())}


def _value(value: Json) -> Any:
    for kind, held in value.items():
        return int(held) if kind == "intValue" else held
    return None


def _id(text: str) -> str:
    """Hexadecimal of an id in either spelling. An id has 8 or 16 bytes: 16 or 32 digits, or 12 or 24
    characters."""
    if len(text) in (0, 16, 32):
        return text
    return binascii.hexlify(base64.b64decode(text)).decode()


_KINDS = {"SPAN_KIND_INTERNAL": 1, "SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3}
_STATUS = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}


def _span(one: Json, resource: Json) -> Span:
    status = one.get("status", {})
    kind: Any = one.get("kind", 0)
    code: Any = status.get("code", 0)
    return Span(
        name=one["name"],
        trace_id=_id(one["traceId"]),
        span_id=_id(one["spanId"]),
        parent_id=_id(one.get("parentSpanId", "")),
        kind=_KINDS.get(kind, kind),
        start=int(one["startTimeUnixNano"]),
        end=int(one["endTimeUnixNano"]),
        attributes=attributes_of(one),
        status=_STATUS.get(code, code),
        message=status.get("message", ""),
        events=tuple(event["name"] for event in one.get("events", ())),
        resource=resource,
    )


def _log(one: Json, resource: Json) -> Log:
    return Log(
        event=one.get("eventName", ""),
        body=_value(one.get("body", {})),
        severity=one.get("severityText", ""),
        trace_id=_id(one.get("traceId", "")),
        span_id=_id(one.get("spanId", "")),
        attributes=attributes_of(one),
        resource=resource,
    )


def _points(metric: Json, resource: Json) -> list[Point]:
    found = []
    for kind in ("sum", "gauge", "histogram"):
        for one in metric.get(kind, {}).get("dataPoints", ()):
            value = one.get("asInt", one.get("asDouble", one.get("count", 0)))
            found.append(
                Point(
                    metric=metric["name"],
                    unit=metric.get("unit", ""),
                    kind=kind,
                    monotonic=bool(metric[kind].get("isMonotonic", False)),
                    attributes=attributes_of(one),
                    value=float(value),
                    bounds=tuple(one.get("explicitBounds", ())),
                    resource=resource,
                )
            )
    return found
