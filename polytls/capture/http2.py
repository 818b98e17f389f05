"""The least HTTP/2 server that answers one request, and remembers how the client began (pure).

Theory of operation
-------------------
`Http2` is fed what the client sends and hands out what to send back. The client's *first flight* is kept in
its order: SETTINGS as sent, the window update of the connection, PRIORITY frames, and of the first request
its priority, the order of its pseudo-header fields, and a window update of its stream where one came along
(real Firefox sends one). That is what tells HTTP/2 clients apart (the text form is that of Akamai's paper of
2017: ``settings|window update|priorities|pseudo-headers``).

Of HPACK only as much is undone as the pseudo-headers need: they come first, and every client names them by
the static table. Literal names are skipped by their length, so no Huffman code is needed and values are
never seen. The answer is written with static table entries alone and without changing the client's table.

Flow control is kept, as clients with small windows exist. Every violation is a `Http2Error`; the caller
closes. Left out: GOAWAY with a reason, trailers, push, a second request (refused by the end of the
connection).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from polytls.errors import PolytlsError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
MAX_FRAME_BYTES = 1 << 14  # RFC 9113 §4.2: what we accept, having set nothing else
MAX_HEADER_BYTES = 1 << 16
MAX_FRAMES_KEPT = 64
"""Of the first flight; real ones have at most nine."""

_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
_NAMES = {0: "DATA", 1: "HEADERS", 2: "PRIORITY", 3: "RST_STREAM", 4: "SETTINGS", 6: "PING", 7: "GOAWAY"}
_NAMES |= {8: "WINDOW_UPDATE", 9: "CONTINUATION"}
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _HAS_PRIORITY = 0x4, 0x8, 0x20
_INITIAL_WINDOW, _MAX_FRAME = 4, 5  # settings, RFC 9113 §6.5.2
_DEFAULT_WINDOW = 65_535
_MAX_WINDOW = (1 << 31) - 1
_PSEUDO = {1: ":authority", 2: ":method", 3: ":method", 4: ":path", 5: ":path", 6: ":scheme", 7: ":scheme"}
"""RFC 7541 appendix A, request part."""
_FRAME_HEADER_BYTES = 9


class Http2Error(PolytlsError):
    """The client broke a rule of HTTP/2 that cannot be passed over."""


@dataclass(slots=True)
class FirstFlight:
    """What came before and with the first request. `frames` are in order, as JSON says them."""

    frames: list[dict[str, object]] = field(default_factory=list)
    settings: list[tuple[int, int]] = field(default_factory=list)
    window_update: int = 0
    priorities: list[str] = field(default_factory=list)
    pseudo_headers: list[str] = field(default_factory=list)

    @property
    def akamai(self) -> str:
        """``1:65536;4:131072|12517377|0|m,p,a,s``."""
        settings = ";".join(f"{name}:{value}" for name, value in self.settings)
        priorities = ",".join(self.priorities) or "0"
        pseudo = ",".join(name[1] for name in self.pseudo_headers)
        return f"{settings}|{self.window_update:02}|{priorities}|{pseudo}"

    def as_dict(self) -> dict[str, object]:
        return {"akamai": self.akamai, "pseudo_headers": self.pseudo_headers, "frames": self.frames}


class Http2:
    """One connection. `receive` what came, send `take()`; when `stream` is set, `answer` it."""

    def __init__(self) -> None:
        self.first_flight = FirstFlight()
        self.stream: int | None = None
        """The first request's stream, once its header is whole."""
        self.finished = False
        """Everything of the answer has been handed out."""
        self._incoming = bytearray()
        self._outgoing = bytearray(_frame(_SETTINGS, 0, 0, b""))
        self._preface_seen = False
        self._block: bytearray | None = None
        self._block_stream = 0
        self._body = b""
        self._answered = False
        self._connection_window = self._stream_window = self._initial_window = _DEFAULT_WINDOW
        self._peer_frame = MAX_FRAME_BYTES

    def receive(self, data: bytes) -> None:
        """Raises `Http2Error`."""
        self._incoming += data
        if not self._preface_seen:
            head = bytes(self._incoming[: len(PREFACE)])
            if not PREFACE.startswith(head):
                raise Http2Error("the client does not begin with HTTP/2's preface")
            if len(head) < len(PREFACE):
                return
            del self._incoming[: len(PREFACE)]
            self._preface_seen = True
        while len(self._incoming) >= _FRAME_HEADER_BYTES:
            length = int.from_bytes(self._incoming[:3], "big")
            if length > MAX_FRAME_BYTES:
                raise Http2Error(f"a frame of {length} bytes, more than {MAX_FRAME_BYTES}")
            end = _FRAME_HEADER_BYTES + length
            if len(self._incoming) < end:
                return
            kind, flags = self._incoming[3], self._incoming[4]
            stream = int.from_bytes(self._incoming[5:9], "big") & _MAX_WINDOW
            payload = bytes(self._incoming[_FRAME_HEADER_BYTES:end])
            del self._incoming[:end]
            self._frame(kind, flags, stream, payload)

    def take(self) -> bytes:
        """What is to be sent now."""
        data, self._outgoing = bytes(self._outgoing), bytearray()
        return data

    def answer(self, content_type: bytes, body: bytes) -> None:
        """200 with `body`, on `stream`."""
        assert self.stream is not None, "there is no request yet"
        # RFC 7541: 8 is ":status: 200"; 31 content-type and 28 content-length, named by the table, not added.
        block = b"\x88" + b"\x0f\x10" + _string(content_type) + b"\x0f\x0d" + _string(b"%d" % len(body))
        self._outgoing += _frame(_HEADERS, _END_HEADERS, self.stream, block)
        self._body, self._answered = body, True
        self._send()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != _CONTINUATION or stream != self._block_stream):
            raise Http2Error("a header is not continued at once")  # RFC 9113 §6.10
        if self.stream is None or (kind == _WINDOW and stream == self.stream and not self._answered):
            self._note(kind, flags, stream, payload)
        if kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
            self._outgoing += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK and len(payload) == 8:
            self._outgoing += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW:
            self._window(stream, payload)
        elif kind == _HEADERS:
            self._block, self._block_stream = bytearray(_header_block(flags, payload)), stream
            self._whole(flags)
        elif kind == _CONTINUATION and self._block is not None:
            self._block += payload
            self._whole(flags)
        elif kind in (_RST, _GOAWAY) and self._answered and stream in (0, self.stream):
            self.finished = True

    def _whole(self, flags: int) -> None:
        assert self._block is not None
        if len(self._block) > MAX_HEADER_BYTES:
            raise Http2Error(f"a header of more than {MAX_HEADER_BYTES} bytes")
        if flags & _END_HEADERS:
            if self.stream is None:
                self.first_flight.pseudo_headers = pseudo_headers(bytes(self._block))
                self.stream = self._block_stream
            self._block = None

    def _settings(self, payload: bytes) -> None:
        for name, value in _settings(payload):
            if name == _INITIAL_WINDOW:
                if value > _MAX_WINDOW:
                    raise Http2Error("an initial window of more than 2^31 - 1")
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif name == _MAX_FRAME:
                self._peer_frame = max(MAX_FRAME_BYTES, value)
        self._send()

    def _window(self, stream: int, payload: bytes) -> None:
        increment = _u31(payload)
        if stream == 0:
            self._connection_window += increment
        elif stream == self.stream:
            self._stream_window += increment
        self._send()

    def _send(self) -> None:
        """As much of the body as the client's windows have room for."""
        while self._answered and not self.finished:
            room = min(self._connection_window, self._stream_window, self._peer_frame, MAX_FRAME_BYTES)
            if room <= 0 and self._body:
                return
            part, self._body = self._body[:room], self._body[room:]
            self._connection_window -= len(part)
            self._stream_window -= len(part)
            last = not self._body
            assert self.stream is not None
            self._outgoing += _frame(_DATA, _END_STREAM if last else 0, self.stream, part)
            self.finished = last

    def _note(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One frame of the first flight. Acknowledgements are answers, and no part of it."""
        flight = self.first_flight
        if len(flight.frames) >= MAX_FRAMES_KEPT or (kind in (_SETTINGS, _PING) and flags & _ACK):
            return
        noted: dict[str, object] = {
            "type": _NAMES.get(kind, f"{kind:#04x}"),
            "flags": flags,
            "stream": stream,
        }
        if kind == _SETTINGS:
            flight.settings += _settings(payload)
            noted["settings"] = [list(pair) for pair in _settings(payload)]
        elif kind == _WINDOW:
            noted["increment"] = _u31(payload)
            if stream == 0 and not flight.window_update:
                flight.window_update = _u31(payload)
        elif kind == _PRIORITY:
            noted["priority"] = priority = _priority(payload)
            flight.priorities.append(
                f"{stream}:{priority['exclusive']:d}:{priority['depends_on']}:{priority['weight']}"
            )
        elif kind == _HEADERS and flags & _HAS_PRIORITY:
            noted["priority"] = _priority(payload[1:] if flags & _PADDED else payload)
        flight.frames.append(noted)


def pseudo_headers(block: bytes) -> list[str]:
    """The names of the pseudo-header fields at the head of a header block, in order (RFC 7541 §6).

    It ends at the first field that is not a pseudo-header named by the static table. Raises `Http2Error`.
    """
    found: list[str] = []
    position = 0
    while position < len(block):
        first = block[position]
        if first & 0xE0 == 0x20:  # a change of the table's size
            _, position = _integer(block, position, 5)
            continue
        indexed = first & 0x80
        prefix = 7 if indexed else 6 if first & 0x40 else 4
        index, position = _integer(block, position, prefix)
        if index not in _PSEUDO:
            break
        found.append(_PSEUDO[index])
        if not indexed:
            length, position = _integer(block, position, 7)
            position += length
    return found


def _integer(data: bytes, position: int, prefix: int) -> tuple[int, int]:
    """RFC 7541 §5.1: the integer at `position`, and where it ends."""
    try:
        value = data[position] & ((1 << prefix) - 1)
        position += 1
        if value < (1 << prefix) - 1:
            return value, position
        for shift in range(0, 28, 7):
            byte = data[position]
            position += 1
            value += (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, position
    except IndexError:
        pass
    raise Http2Error("a header field is cut short, or has a number beyond all measure")


def _header_block(flags: int, payload: bytes) -> bytes:
    """RFC 9113 §6.2: without padding and priority."""
    start, end = 0, len(payload)
    if flags & _PADDED:
        if not payload:
            raise Http2Error("a padded header without its padding")
        start, end = 1, end - payload[0]
    if flags & _HAS_PRIORITY:
        start += 5
    if start > end:
        raise Http2Error("a header that is shorter than its padding and priority")
    return payload[start:end]


def _settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % 6:
        raise Http2Error(f"SETTINGS of {len(payload)} bytes, not a multiple of six")
    pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
    return [(int.from_bytes(pair[:2], "big"), int.from_bytes(pair[2:], "big")) for pair in pairs]


def _priority(payload: bytes) -> dict[str, int | bool]:
    """RFC 7540 §6.3; the weight as people say it, 1 to 256."""
    if len(payload) < 5:
        raise Http2Error("a priority of less than five bytes")
    depends = int.from_bytes(payload[:4], "big")
    return {
        "exclusive": bool(depends >> 31),
        "depends_on": depends & _MAX_WINDOW,
        "weight": payload[4] + 1,
    }


def _u31(payload: bytes) -> int:
    if len(payload) != 4:
        raise Http2Error(f"WINDOW_UPDATE of {len(payload)} bytes, not four")
    return int.from_bytes(payload, "big") & _MAX_WINDOW


def _string(data: bytes) -> bytes:
    """RFC 7541 §5.2, without Huffman coding; short ones alone."""
    assert len(data) < 0x7F
    return bytes((len(data),)) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
