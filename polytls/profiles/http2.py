"""`Http2`: how one client begins an HTTP/2 connection, as a value.

Theory of operation
-------------------
After the preface a client sends SETTINGS, mostly a WINDOW_UPDATE of the connection, in old days PRIORITY
frames, and its first request: a HEADERS frame on a stream of its choice, with or without a priority, its
pseudo-header fields in an order of its own, and with some a WINDOW_UPDATE of that stream. That is the *first
flight*; it tells HTTP/2 clients apart as a ClientHello tells TLS clients apart. Frames come in the order of
the fields here, which is the order of every client that was captured.

A relayed connection keeps the first flight of the client in front of the proxy, whatever the profile: bytes
are relayed. The value is what a profile's own client would have sent, for comparison and for a bridge between
HTTP versions. So it is no part of what makes two `HelloSpec`s equal.

`check` refuses what a server would have to answer with a connection error: a value can always be sent.

Left out: fields other than the pseudo-headers, which belong to a request and not to a client's HTTP/2, and
how header blocks are compressed.
"""

from __future__ import annotations

from dataclasses import dataclass

H2 = "h2"
"""The protocol name of ALPN (RFC 9113 §3.2): without it in its offer a client has no first flight."""

GREASE_SETTING_ID = 0x0A0A
"""Stands for whatever reserved identifier is drawn, with whatever value (draft-bishop-httpbis-grease)."""

MAX_SETTINGS = 64
"""Real clients send two to six."""

MAX_PRIORITY_FRAMES = 64
"""Old Firefox, the client with most of them, sent six."""

MAX_U31 = (1 << 31) - 1
MAX_U32 = (1 << 32) - 1
DEFAULT_WINDOW_BYTES = 65_535
"""RFC 9113 §6.9.2, before any setting or update."""

MAX_WEIGHT = 256
"""RFC 7540 §6.3, as people say it: the byte on the wire and one."""

PSEUDO_HEADERS = (":method", ":scheme", ":authority", ":path")
"""RFC 9113 §8.3.1."""

_NEEDED_PSEUDO_HEADERS = (":method", ":scheme", ":path")

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
SETTING_NAMES = {
    HEADER_TABLE_SIZE: "HEADER_TABLE_SIZE",
    ENABLE_PUSH: "ENABLE_PUSH",
    MAX_CONCURRENT_STREAMS: "MAX_CONCURRENT_STREAMS",
    INITIAL_WINDOW_SIZE: "INITIAL_WINDOW_SIZE",
    MAX_FRAME_SIZE: "MAX_FRAME_SIZE",
    6: "MAX_HEADER_LIST_SIZE",
    8: "ENABLE_CONNECT_PROTOCOL",  # RFC 8441 §3
    9: "NO_RFC7540_PRIORITIES",  # RFC 9218 §2.1
}
"""RFC 9113 §6.5.2 and IANA's registry."""

_BOUNDS = {
    ENABLE_PUSH: (0, 1),
    INITIAL_WINDOW_SIZE: (0, MAX_U31),
    MAX_FRAME_SIZE: (1 << 14, (1 << 24) - 1),
    8: (0, 1),
    9: (0, 1),
}
"""Other values are connection errors (RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. With `GREASE_SETTING_ID` identifier and value are drawn for each connection."""

    id: int
    value: int


GREASE_SETTING = Setting(GREASE_SETTING_ID, 0)


@dataclass(frozen=True, slots=True)
class Priority:
    """RFC 7540 §5.3. `weight` is 1 to 256."""

    exclusive: bool
    depends_on: int
    weight: int

    def __str__(self) -> str:
        exclusively = "exclusively " if self.exclusive else ""
        return f"{exclusively}on stream {self.depends_on}, weight {self.weight}"


@dataclass(frozen=True, slots=True)
class PriorityFrame:
    """A PRIORITY frame for a stream that need not be open."""

    stream: int
    priority: Priority


@dataclass(frozen=True, slots=True)
class Http2:
    """One client's first flight. Tuples are in wire order; increments are bytes, 0: no such frame."""

    settings: tuple[Setting, ...]
    pseudo_headers: tuple[str, ...]
    window_update: int = 0
    """Of the connection."""
    priority_frames: tuple[PriorityFrame, ...] = ()
    stream: int = 1
    """Of the first request."""
    priority: Priority | None = None
    """In the first request's HEADERS; None: it has none."""
    stream_window_update: int = 0
    """Of the first request's stream, behind its HEADERS."""

    @property
    def akamai(self) -> str:
        """``1:65536;4:131072|12517377|0|m,p,a,s``: as in Akamai's paper of 2017, GREASE left out."""
        settings = ";".join(f"{one.id}:{one.value}" for one in self.settings if one != GREASE_SETTING)
        frames = ",".join(
            f"{one.stream}:{one.priority.exclusive:d}:{one.priority.depends_on}:{one.priority.weight}"
            for one in self.priority_frames
        )
        pseudo = ",".join(name[1] for name in self.pseudo_headers)
        return f"{settings}|{self.window_update:02}|{frames or 0}|{pseudo}"


class FlightError(Exception):
    """A server would refuse this first flight. `key` is the key of ``[http2]`` at fault; `str()` is the
    problem and what is allowed."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def is_grease_setting(number: int) -> bool:
    """Whether a setting's identifier is one of the reserved ``0x?a?a``."""
    return number & 0x0F0F == GREASE_SETTING_ID


def setting_name(number: int) -> str:
    """The registered name, else the number in hexadecimal."""
    return SETTING_NAMES.get(number) or f"{number:#06x}"


def check(flight: Http2) -> None:
    """Raise `FlightError` for the first thing that a server would have to refuse."""
    _check_settings(flight.settings)
    most = MAX_U31 - DEFAULT_WINDOW_BYTES  # RFC 9113 §6.9.1: a window stays below 2^31
    _bounded("window_update", flight.window_update, 0, most)
    _bounded("stream_window_update", flight.stream_window_update, 0, most)
    _bounded("stream", flight.stream, 1, MAX_U31)
    if flight.stream % 2 == 0:
        problem = f"is {flight.stream}; allowed: odd numbers, as a client's streams have (RFC 9113 §5.1.1)"
        raise FlightError("stream", problem)
    if flight.priority is not None:
        _check_priority("priority", flight.priority, flight.stream)
    if len(flight.priority_frames) > MAX_PRIORITY_FRAMES:
        problem = f"has {len(flight.priority_frames)} frames; allowed: at most {MAX_PRIORITY_FRAMES}"
        raise FlightError("priority_frames", problem)
    for frame in flight.priority_frames:
        _bounded("priority_frames", frame.stream, 1, MAX_U31)
        _check_priority("priority_frames", frame.priority, frame.stream)
    _check_pseudo_headers(flight.pseudo_headers)


def _check_settings(settings: tuple[Setting, ...]) -> None:
    if len(settings) > MAX_SETTINGS:
        raise FlightError("settings", f"has {len(settings)} settings; allowed: at most {MAX_SETTINGS}")
    for one in settings:
        if not 0 <= one.id <= 0xFFFF:
            raise FlightError("settings", f"has the identifier {one.id}; allowed: 0 to 65535")
        low, high = _BOUNDS.get(one.id, (0, MAX_U32))
        if not low <= one.value <= high:
            problem = f"{setting_name(one.id)} is {one.value}; allowed: {low} to {high}"
            raise FlightError("settings", problem)


def _check_priority(key: str, priority: Priority, stream: int) -> None:
    _bounded(key, priority.depends_on, 0, MAX_U31)
    if not 1 <= priority.weight <= MAX_WEIGHT:
        raise FlightError(key, f"weight is {priority.weight}; allowed: 1 to {MAX_WEIGHT}")
    if priority.depends_on == stream:
        problem = f"stream {stream} depends on itself; allowed: another stream, or 0 (RFC 7540 §5.3.1)"
        raise FlightError(key, problem)


def _check_pseudo_headers(names: tuple[str, ...]) -> None:
    allowed = f"{', '.join(_NEEDED_PSEUDO_HEADERS)} and maybe :authority, each once, in any order"
    unknown = [name for name in names if name not in PSEUDO_HEADERS]
    missing = [name for name in _NEEDED_PSEUDO_HEADERS if name not in names]
    if unknown or missing or len(set(names)) != len(names):
        problem = "names an unknown field, one twice, or leaves one out"
        raise FlightError("pseudo_headers", f"{problem}; allowed: {allowed}")


def _bounded(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise FlightError(key, f"is {value}; allowed: {least} to {most}")
