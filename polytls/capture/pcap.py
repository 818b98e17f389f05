"""pcap and pcapng -> the bytes that each end of each TCP connection sent, in order (pure).

Theory of operation
-------------------
`tcp_streams` undoes four layers, each bounded and each forgiving only where real captures are imperfect:

* the file: classic pcap in both byte orders and both resolutions; pcapng with any number of sections and
  interfaces. A file that ends inside a packet was cut while it was written, and is read up to there; one
  whose structure is wrong is a `CaptureError`.
* the link: Ethernet (with VLAN tags), Linux cooked v1 and v2, raw IP, BSD loopback. Packets of any other sort
  of link, and packets that are not TCP, are left out: captures are full of them.
* IP: version 4 and 6, extension headers skipped. Fragments are left out: TCP avoids them (RFC 9293 §3.7.1).
* TCP: each direction by itself, from its SYN or, where that was not captured, from its first byte seen.
  Segments may come late, twice or overlapping; of two that disagree the earlier captured one counts. What
  follows a gap is not looked at, nor what lies beyond `MAX_STREAM_BYTES`: hellos are sent first.

A packet is never trusted to be as long as it says. Nothing but `CaptureError` is raised, whatever the bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from polytls.errors import UserError

MAX_STREAM_BYTES = 1 << 18
"""Of one direction: two hellos of the largest size (64 KiB), and what a proxy was told before."""

MAX_STREAMS = 1 << 17
"""Directions kept at once, so that memory is bounded; captures of labs have hundreds."""

_PCAP_MAGICS = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",  # nanoseconds
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}
_PCAP_HEADER_BYTES = 24
_PCAP_PACKET_HEADER = 16

_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_MIN_BLOCK_BYTES = 12

# Link types: tcpdump.org/linktypes.html.
_NULL, _ETHERNET, _LOOP, _COOKED, _COOKED2 = 0, 1, 108, 113, 276
_RAW = frozenset({12, 14, 101, 228, 229})
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLANS = frozenset({0x8100, 0x88A8, 0x9100})

_TCP, _FRAGMENT = 6, 44
_SKIPPED_HEADERS = frozenset({0, 43, 60, 135})  # IPv6: hop-by-hop, routing, destination options, mobility
_AUTHENTICATION = 51  # counts its length in other units (RFC 4302 §2.2)
_MAX_HEADERS = 16
_SYN = 0x02
_SEQUENCES = 1 << 32


class CaptureError(UserError):
    """What was given has no ClientHello that could be read. The sentence says what it is instead."""


@dataclass(frozen=True, slots=True)
class TcpStream:
    """One direction of a connection: who sent it, to whom (``1.2.3.4:5``, ``[::1]:5``), and the bytes."""

    source: str
    destination: str
    data: bytes = field(repr=False)


def is_packet_capture(data: bytes) -> bool:
    """Whether a file begins as pcap or pcapng do."""
    return data[:4] in _PCAP_MAGICS or data[:4] == _SECTION_MAGIC


def tcp_streams(data: bytes) -> tuple[TcpStream, ...]:
    """Every direction of every connection that has bytes, in the order in which they began.

    Raises `CaptureError` for a file that is malformed, or holds more than `MAX_STREAMS` directions.
    """
    streams = _Streams()
    packets = _pcapng(data) if data[:4] == _SECTION_MAGIC else _pcap(data)
    for link, packet in packets:
        segment = _segment(link, packet)
        if segment is not None:
            streams.add(segment)
    return streams.finish()


# --- files ------------------------------------------------------------------------------------------


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = _PCAP_MAGICS.get(data[:4])
    if order is None:
        raise CaptureError("this is neither pcap nor pcapng")
    if len(data) < _PCAP_HEADER_BYTES:
        raise CaptureError(f"this pcap file has {len(data)} bytes, less than its header")
    (link,) = struct.unpack_from(order + "I", data, 20)
    link &= 0x0FFFFFFF  # the upper bits tell of checksums at the end of frames
    position = _PCAP_HEADER_BYTES
    while position + _PCAP_PACKET_HEADER <= len(data):
        (length,) = struct.unpack_from(order + "I", data, position + 8)
        position += _PCAP_PACKET_HEADER
        if position + length > len(data):
            return  # cut while it was written
        yield link, data[position : position + length]
        position += length


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = "<"
    links: list[int] = []
    position = 0
    while position + _MIN_BLOCK_BYTES <= len(data):
        if data[position : position + 4] == _SECTION_MAGIC:
            found = _BYTE_ORDERS.get(data[position + 8 : position + 12])
            if found is None:
                raise CaptureError("this pcapng file has a section of no byte order that there is")
            order, links = found, []
        kind, length = struct.unpack_from(order + "II", data, position)
        if length < _MIN_BLOCK_BYTES or length % 4:
            raise CaptureError(f"this pcapng file has a block of {length} bytes at offset {position}")
        if position + length > len(data):
            return  # cut while it was written
        body = data[position + 8 : position + length - 4]
        if kind == _INTERFACE and len(body) >= 2:
            links.append(struct.unpack_from(order + "H", body)[0])
        packet = _block_packet(order, kind, body, links)
        if packet is not None:
            yield packet
        position += length


def _block_packet(order: str, kind: int, body: bytes, links: list[int]) -> tuple[int, bytes] | None:
    if kind == _PACKET and len(body) >= 20:
        (interface,), start = struct.unpack_from(order + "I", body), 20
        (length,) = struct.unpack_from(order + "I", body, 12)
    elif kind == _OLD_PACKET and len(body) >= 20:
        (interface,), start = struct.unpack_from(order + "H", body), 20
        (length,) = struct.unpack_from(order + "I", body, 12)
    elif kind == _SIMPLE_PACKET and len(body) >= 4:
        (length,), start, interface = struct.unpack_from(order + "I", body), 4, 0
    else:
        return None
    if interface >= len(links):
        return None
    return links[interface], body[start : start + length]


# --- packets ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    sequence: int
    syn: bool
    payload: bytes


def _segment(link: int, packet: bytes) -> _Segment | None:
    """The TCP segment of a packet; None where there is none, or only a piece."""
    try:
        datagram = _datagram(link, packet)
        if not datagram:
            return None
        return _ipv4(datagram) if datagram[0] >> 4 == 4 else _ipv6(datagram)
    except (struct.error, IndexError):  # shorter than it says
        return None


def _datagram(link: int, packet: bytes) -> bytes:
    """The IP packet; nothing where the link carries something else."""
    if link == _ETHERNET:
        start, (kind,) = 14, struct.unpack_from(">H", packet, 12)
        while kind in _VLANS:
            (kind,) = struct.unpack_from(">H", packet, start + 2)
            start += 4
    elif link == _COOKED:
        start, (kind,) = 16, struct.unpack_from(">H", packet, 14)
    elif link == _COOKED2:
        start, (kind,) = 20, struct.unpack_from(">H", packet)
    elif link in (_NULL, _LOOP):
        start, kind = 4, _IPV4  # address families have other numbers on each system; the version tells
    elif link in _RAW:
        start, kind = 0, _IPV4
    else:
        return b""
    datagram = packet[start:]
    return datagram if kind in (_IPV4, _IPV6) and datagram[:1] and datagram[0] >> 4 in (4, 6) else b""


def _ipv4(datagram: bytes) -> _Segment | None:
    """RFC 791 §3.1."""
    header, (total,) = (datagram[0] & 15) * 4, struct.unpack_from(">H", datagram, 2)
    (fragment,) = struct.unpack_from(">H", datagram, 6)
    if header < 20 or fragment & 0x3FFF or datagram[9] != _TCP:
        return None
    # Zero: the network card was left to count (segmentation offload).
    end = total if header <= total <= len(datagram) else len(datagram)
    return _tcp(datagram[12:16], datagram[16:20], datagram[header:end])


def _ipv6(datagram: bytes) -> _Segment | None:
    """RFC 8200 §3, §4."""
    length, following = struct.unpack_from(">HB", datagram, 4)
    end = 40 + length if 0 < length <= len(datagram) - 40 else len(datagram)
    start = 40
    for _ in range(_MAX_HEADERS):
        if following == _TCP:
            return _tcp(datagram[8:24], datagram[24:40], datagram[start:end])
        if following in _SKIPPED_HEADERS:
            size = 8 * (datagram[start + 1] + 1)
        elif following == _AUTHENTICATION:
            size = 4 * (datagram[start + 1] + 2)
        else:
            return None
        following, start = datagram[start], start + size
    return None


def _tcp(source: bytes, destination: bytes, segment: bytes) -> _Segment | None:
    """RFC 9293 §3.1."""
    near, far, sequence = struct.unpack_from(">HHI", segment)
    header, flags = (segment[12] >> 4) * 4, segment[13]
    if header < 20:
        return None
    return _Segment(
        (source, near), (destination, far), sequence, bool(flags & _SYN), segment[header:][:MAX_STREAM_BYTES]
    )


# --- streams ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Direction:
    """Segments by offset from `base`, the number of the first byte (or of the first one seen)."""

    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    base: int
    from_syn: bool
    segments: dict[int, bytes] = field(default_factory=dict)

    def add(self, sequence: int, payload: bytes) -> None:
        offset = (sequence - self.base) % _SEQUENCES
        if offset >= _SEQUENCES // 2:
            offset -= _SEQUENCES  # before the first byte seen, or a keep-alive
        if -MAX_STREAM_BYTES < offset < MAX_STREAM_BYTES and len(payload) > len(
            self.segments.get(offset, b"")
        ):
            held = self.segments.get(offset, b"")
            self.segments[offset] = held + payload[len(held) :]

    def data(self) -> bytes:
        """The bytes from the first one to the first gap."""
        if not self.segments:
            return b""
        joined = bytearray()
        start = 0 if self.from_syn else min(self.segments)
        for offset in sorted(self.segments):
            missing = offset - start - len(joined)
            if missing > 0:
                break
            joined += self.segments[offset][-missing:]
            if len(joined) >= MAX_STREAM_BYTES:
                break
        return bytes(joined[:MAX_STREAM_BYTES])


class _Streams:
    """Directions by their ends. A new SYN on the same ends is a new connection."""

    def __init__(self) -> None:
        self._live: dict[tuple[tuple[bytes, int], tuple[bytes, int]], _Direction] = {}
        self._all: list[_Direction] = []

    def add(self, segment: _Segment) -> None:
        key = (segment.source, segment.destination)
        direction = self._live.get(key)
        first = (segment.sequence + segment.syn) % _SEQUENCES  # the SYN itself has a number
        again = direction is not None and segment.syn and not (direction.from_syn and direction.base == first)
        if direction is None or again:
            if not segment.syn and not segment.payload:
                return
            if len(self._all) >= MAX_STREAMS:
                raise CaptureError(
                    f"this capture has more than {MAX_STREAMS // 2} connections; cut it with a filter first"
                )
            direction = _Direction(*key, first, segment.syn)
            self._live[key] = direction
            self._all.append(direction)
        if segment.payload:
            direction.add(first, segment.payload)

    def finish(self) -> tuple[TcpStream, ...]:
        return tuple(
            TcpStream(_end(one.source), _end(one.destination), data)
            for one in self._all
            if (data := one.data())
        )


def _end(end: tuple[bytes, int]) -> str:
    address, port = ipaddress.ip_address(end[0]), end[1]
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
