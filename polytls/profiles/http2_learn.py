"""A captured HTTP/2 first flight -> `Http2`.

Theory of operation
-------------------
A flight comes as JSON says it (`polytls.capture.http2` writes it, into the reports of `polytls capture` and
into goldens): its frames in order, and the names of the first request's pseudo-header fields. The file may be
anybody's, so every value is looked at before it is believed.

Frames are taken in the order in which `Http2` has them. What a profile cannot say (a second SETTINGS, frames
in another order, a PING) is told in a note and left out; what no server would accept, or is malformed, is a
`FlightError`. Identifiers of settings that are reserved become `GREASE`. Of several flights the first one is
taken: a browser's later requests, for pictures say, have other priorities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from polytls.profiles.http2 import (
    GREASE_SETTING,
    FlightError,
    Http2,
    Priority,
    PriorityFrame,
    Setting,
    check,
    is_grease_setting,
)

MAX_FRAMES = 128
"""Looked at; a flight of ours has at most 65."""

_ORDER = ("SETTINGS", "WINDOW_UPDATE", "PRIORITY", "HEADERS", "STREAM_WINDOW_UPDATE")


@dataclass(frozen=True, slots=True)
class LearnedFlight:
    """What was learned, and sentences about what was left out."""

    http2: Http2
    notes: tuple[str, ...] = ()


def learn_http2(reports: Sequence[object]) -> LearnedFlight:
    """Learn from the flights of one client, as JSON has them, at least one.

    Raises `FlightError` for what is malformed.
    """
    first, *others = (_learned(report) for report in reports)
    differing = [
        one.name
        for one in fields(Http2)
        if any(getattr(other.http2, one.name) != getattr(first.http2, one.name) for other in others)
    ]
    if not differing:
        return first
    note = f"HTTP/2 first flights differ in {', '.join(differing)}: the first one was taken"
    return LearnedFlight(first.http2, (*first.notes, note))


@dataclass(slots=True)
class _Findings:
    settings: tuple[Setting, ...] = ()
    window_update: int = 0
    priority_frames: list[PriorityFrame] = field(default_factory=list)
    stream: int = 0
    priority: Priority | None = None
    stream_window_update: int = 0
    seen: list[str] = field(default_factory=list)
    odd: dict[str, None] = field(default_factory=dict)


def _learned(report: object) -> LearnedFlight:
    if not isinstance(report, Mapping):
        raise FlightError("http2", "is no object of frames")
    found = _Findings()
    frames = report.get("frames")
    if not isinstance(frames, list) or len(frames) > MAX_FRAMES:
        raise FlightError("http2", f"has no list of at most {MAX_FRAMES} frames")
    for frame in frames:
        _take(frame, found)
    if "SETTINGS" not in found.seen or not found.stream:
        raise FlightError("http2", "has no SETTINGS or no request")
    names = report.get("pseudo_headers", report.get("header_order"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FlightError("pseudo_headers", "are no list of names")
    flight = Http2(
        settings=found.settings,
        pseudo_headers=tuple(name for name in names if name.startswith(":")),
        window_update=found.window_update,
        priority_frames=tuple(found.priority_frames),
        stream=found.stream,
        priority=found.priority,
        stream_window_update=found.stream_window_update,
    )
    check(flight)
    notes = [f"of its HTTP/2 first flight {word} was left out" for word in found.odd]
    if sorted(found.seen, key=_ORDER.index) != found.seen:
        notes.append("the frames of its HTTP/2 first flight come in another order than profiles have")
    return LearnedFlight(flight, tuple(notes))


def _take(frame: object, found: _Findings) -> None:
    if not isinstance(frame, Mapping) or not isinstance(frame.get("type"), str):
        raise FlightError("http2", "has a frame that is no object with a type")
    kind: str = frame["type"]
    stream = _whole(frame.get("stream"), "stream")
    if kind == "SETTINGS" and not found.seen:
        found.settings = _settings(frame.get("settings"))
    elif kind == "WINDOW_UPDATE" and stream == 0 and not found.window_update:
        found.window_update = _whole(frame.get("increment"), "window_update")
    elif kind == "WINDOW_UPDATE" and stream == found.stream and not found.stream_window_update:
        kind = "STREAM_WINDOW_UPDATE"
        found.stream_window_update = _whole(frame.get("increment"), "stream_window_update")
    elif kind == "PRIORITY":
        found.priority_frames.append(PriorityFrame(stream, _priority(frame.get("priority"))))
    elif kind == "HEADERS" and not found.stream:
        found.stream = stream
        priority = frame.get("priority")
        found.priority = None if priority is None else _priority(priority)
    elif kind != "CONTINUATION":  # belongs to HEADERS
        word = kind if kind.isidentifier() and len(kind) <= 32 else "a frame of an unknown type"
        found.odd[f"{word} on stream {stream}"] = None
        return
    if kind in _ORDER:
        found.seen.append(kind)


def _settings(value: object) -> tuple[Setting, ...]:
    if not isinstance(value, list):
        raise FlightError("settings", "are no list of pairs")
    settings = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise FlightError("settings", "are no list of pairs")
        number, given = (_whole(part, "settings") for part in pair)
        settings.append(GREASE_SETTING if is_grease_setting(number) else Setting(number, given))
    return tuple(settings)


def _priority(value: object) -> Priority:
    if not isinstance(value, Mapping) or not isinstance(value.get("exclusive"), int):
        raise FlightError("priority", "is no object of exclusive, depends_on and weight")
    depends, weight = (_whole(value.get(key), "priority") for key in ("depends_on", "weight"))
    return Priority(bool(value["exclusive"]), depends, weight)


def _whole(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise FlightError(key, "is no whole number of at most 32 bits")
    return value
