"""Packet captures to streams: every link and version, disorder, hostile files."""

from __future__ import annotations

import random
import struct
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.capture import pcap as module
from polytls.capture.pcap import CaptureError, is_packet_capture, tcp_streams
from tests.capture.packets import COOKED, COOKED2, ETHERNET, NULL, RAW, Flow, block, framed, pcap, pcapng

STREAM = bytes(range(256)) * 20
SIX = Flow("2001:db8::1", "2001:db8::2")


def only(data: bytes) -> bytes:
    (stream,) = tcp_streams(data)
    return stream.data


@pytest.mark.parametrize("flow", [Flow(), SIX], ids=["4", "6"])
@pytest.mark.parametrize("link", [ETHERNET, NULL, RAW, COOKED, COOKED2])
@pytest.mark.parametrize("write", [pcap, pcapng])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_file_link_and_version(flow: Flow, link: int, write: object, order: str) -> None:
    assert callable(write)
    data = write(flow.packets(STREAM), link, order)
    assert is_packet_capture(data)
    (stream,) = tcp_streams(data)
    assert stream.data == STREAM
    assert stream.source == ("[2001:db8::1]:40000" if flow is SIX else "192.0.2.1:40000")


def test_nanoseconds_and_simple_packets() -> None:
    assert only(pcap(Flow().packets(STREAM), magic=0xA1B23C4D)) == STREAM
    assert only(pcapng(Flow().packets(STREAM), simple=True)) == STREAM


def test_order_repetition_and_overlap_do_not_matter() -> None:
    flow, numbers = Flow(), random.Random(7)
    for _ in range(50):
        cuts = sorted(numbers.sample(range(1, len(STREAM)), 6))
        parts = list(zip([0, *cuts], [*cuts, len(STREAM)], strict=True))
        parts += [(max(0, start - 9), min(end + 9, len(STREAM))) for start, end in parts[:3]]
        numbers.shuffle(parts)
        packets = [flow.packet(STREAM[start:end], start) for start, end in parts]
        assert only(pcap([flow.syn(), *packets])) == STREAM


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_connection_whose_beginning_was_not_captured(order: tuple[int, ...]) -> None:
    flow = Flow()
    packets = [flow.packet(STREAM[at * 100 : at * 100 + 100], at * 100) for at in range(3)]
    assert only(pcap([packets[at] for at in order])) == STREAM[:300]


def test_what_follows_a_gap_is_not_looked_at() -> None:
    flow = Flow()
    assert only(pcap([flow.syn(), flow.packet(b"abc"), flow.packet(b"xyz", 4)])) == b"abc"
    assert tcp_streams(pcap([flow.syn(), flow.packet(b"xyz", 1)])) == ()


def test_of_two_segments_that_disagree_the_first_counts() -> None:
    flow = Flow()
    assert only(pcap([flow.syn(), flow.packet(b"abc"), flow.packet(b"XYZdef")])) == b"abcdef"


def test_ports_are_used_again_and_directions_are_apart() -> None:
    first, back = Flow(), Flow("192.0.2.2", "192.0.2.1", 443, 40000)
    again = Flow(isn=77)
    syn_again = [first.syn(), first.syn()]  # a SYN sent twice is one connection
    packets = [*syn_again, first.packet(b"one"), *back.packets(b"answer"), *again.packets(b"two")]
    assert [stream.data for stream in tcp_streams(pcap(packets))] == [b"one", b"answer", b"two"]


def test_vlans_extension_headers_and_offloaded_lengths() -> None:
    frame = framed(ETHERNET, Flow().packet(b"abc"))
    tagged = frame[:12] + b"\x88\xa8\x00\x01\x81\x00\x00\x02" + frame[12:]
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, ETHERNET)
    assert only(header + struct.pack("<IIII", 1, 2, len(tagged), len(tagged)) + tagged) == b"abc"
    six = SIX.packet(b"abc")
    options = bytes((6, 0, 1, 4, 0, 0, 0, 0))
    routed = six[:4] + (len(six) - 40 + 8).to_bytes(2, "big") + b"\x00" + six[7:40] + options + six[40:]
    assert only(pcap([routed], RAW)) == b"abc"
    four = Flow().packet(b"abc")
    assert only(pcap([four[:2] + b"\0\0" + four[4:]], RAW)) == b"abc"


def test_what_is_not_whole_tcp_is_left_out() -> None:
    four = Flow().packet(b"abc")
    fragment = four[:6] + b"\x20\x00" + four[8:]
    udp = four[:9] + b"\x11" + four[10:]
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 147)
    assert tcp_streams(pcap([fragment, udp], RAW)) == ()
    assert tcp_streams(pcap([])[:24] + struct.pack("<IIII", 1, 2, len(arp), len(arp)) + arp) == ()
    assert tcp_streams(header + struct.pack("<IIII", 1, 2, 3, 3) + b"abc") == ()


def test_a_file_that_was_cut_is_read_up_to_there() -> None:
    for write in (pcap, pcapng):
        data = write([Flow().syn(), Flow().packet(b"abc"), Flow().packet(b"def", 3)])
        assert only(data[:-1]) == b"abc"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither"),
        (b"\xd4\xc3\xb2\xa1", "less than its header"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0" + bytes(20), "byte order"),
        (pcapng([]) + b"\x06\0\0\0\x0d\0\0\0" + bytes(20), "block of 13 bytes"),
        (pcapng([]) + b"\x06\0\0\0\x00\0\0\0" + bytes(20), "block of 0 bytes"),
    ],
)
def test_a_malformed_file(data: bytes, says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        tcp_streams(data)


def test_a_packet_of_an_interface_that_was_not_described_is_left_out() -> None:
    frame = framed(ETHERNET, Flow().packet(b"abc"))
    body = struct.pack("<IIIII", 5, 1, 2, len(frame), len(frame)) + frame
    assert tcp_streams(pcapng([]) + block(6, body)) == ()


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAM_BYTES", 1000)
    assert only(pcap(Flow().packets(STREAM, 300))) == STREAM[:1000]
    monkeypatch.setattr(module, "MAX_STREAMS", 3)
    flows = [Flow(source_port=port).packet(b"x") for port in range(4)]
    assert len(tcp_streams(pcap(flows[:3]))) == 3
    with pytest.raises(CaptureError, match="connections"):
        tcp_streams(pcap(flows))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([pcap(Flow().packets(STREAM[:90], 30)), pcapng(SIX.packets(STREAM[:90], 30))]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12),
    st.integers(0, 600),
)
def test_whatever_the_bytes_are(data: bytes, changes: list[tuple[int, int]], length: int) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    for hostile in (bytes(mutated), data[:length], data[:24] + data[length:]):
        try:
            streams = tcp_streams(hostile)
        except CaptureError:
            continue
        assert all(stream.data for stream in streams)
