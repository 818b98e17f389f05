"""Writes packet captures, the least that readers need: TCP segments in IP in a link, in pcap or pcapng."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

ETHERNET, NULL, RAW, COOKED, COOKED2 = 1, 0, 101, 113, 276


@dataclass(frozen=True)
class Flow:
    """One direction. Its first byte has the number `isn` + 1."""

    source: str = "192.0.2.1"
    destination: str = "192.0.2.2"
    source_port: int = 40000
    destination_port: int = 443
    isn: int = 0xFFFFFF00  # so that every longer stream passes zero

    def syn(self) -> bytes:
        return self.packet(b"", -1, syn=True)

    def packet(self, payload: bytes, offset: int = 0, *, syn: bool = False) -> bytes:
        """The IP packet with `payload` at `offset` of the stream."""
        sequence = (self.isn + 1 + offset) % (1 << 32)
        head = struct.pack(
            ">HHIIBBHHH", self.source_port, self.destination_port, sequence, 0, 0x50, 0, 0, 0, 0
        )
        segment = head[:13] + bytes((0x02 if syn else 0x18,)) + head[14:] + payload
        source, destination = (ipaddress.ip_address(end) for end in (self.source, self.destination))
        if source.version == 6:
            head = struct.pack(">IHBB", 0x60000000, len(segment), 6, 64)
            return head + source.packed + destination.packed + segment
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0)
        return head + source.packed + destination.packed + segment

    def packets(self, stream: bytes, size: int = 1400) -> list[bytes]:
        """A SYN, and the stream in segments of `size` bytes."""
        return [
            self.syn(),
            *(self.packet(stream[at : at + size], at) for at in range(0, len(stream), size)),
        ]


def framed(link: int, packet: bytes) -> bytes:
    """An IP packet as it stands on a link."""
    kind = struct.pack(">H", 0x86DD if packet[0] >> 4 == 6 else 0x0800)
    heads = {
        ETHERNET: bytes(12) + kind,
        NULL: struct.pack("<I", 2),
        RAW: b"",
        COOKED: bytes(14) + kind,
        COOKED2: kind + bytes(18),
    }
    return heads[link] + packet


def pcap(packets: Sequence[bytes], link: int = ETHERNET, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for packet in packets:
        frame = framed(link, packet)
        data += struct.pack(order + "IIII", 1, 2, len(frame), len(frame)) + frame
    return data


def pcapng(
    packets: Sequence[bytes], link: int = ETHERNET, order: str = "<", *, simple: bool = False
) -> bytes:
    section = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    data = block(0x0A0D0D0A, section, order) + block(1, struct.pack(order + "HHI", link, 0, 0), order)
    for packet in packets:
        frame = framed(link, packet)
        if simple:
            data += block(3, struct.pack(order + "I", len(frame)) + frame, order)
        else:
            data += block(6, struct.pack(order + "IIIII", 0, 1, 2, len(frame), len(frame)) + frame, order)
    return data


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length
