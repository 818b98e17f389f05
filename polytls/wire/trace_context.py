"""``traceparent``: which trace a request belongs to, and which span of it (W3C
Trace Context, Level 2, §3.2).

Theory of operation
-------------------
The header comes from clients, and whoever can use the proxy can write anything into it. It is read strictly,
by one expression over bytes: what does not match is as if it were not there (§3.2.2.3 asks for just that),
and never fails a tunnel. Versions above 00 are read by the fields of 00, as §3.2.4 asks, whatever follows;
version ff and identifiers of zeros only are invalid. Two different headers cancel each other: there is no
telling which one is meant.

``tracestate`` is not read: it is for vendors along the trace's way, and nothing of it would be sent on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from polytls.events import TraceParent

if TYPE_CHECKING:
    from polytls.wire.connect import Headers

TRACEPARENT = b"traceparent"

MAX_TRACEPARENT_BYTES = 512
"""Version 00 has 55; a later one may be longer, but none needs this much."""

_SAMPLED = 0x01  # §3.2.2.5.1
_FIELDS = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


def trace_parent(headers: Headers) -> TraceParent | None:
    """What the headers say of the caller's span; None where they say nothing that is valid."""
    found: bytes | None = None
    for name, value in headers:
        if len(name) == len(TRACEPARENT) and name.lower() == TRACEPARENT:
            if found is not None and found != value:
                return None
            found = value
    return None if found is None else parse_traceparent(found)


def parse_traceparent(value: bytes) -> TraceParent | None:
    """One header value, without white space around it. Never raises."""
    if len(value) > MAX_TRACEPARENT_BYTES:
        return None
    match = _FIELDS.fullmatch(value)
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
