"""Bytes to hellos: every form, hostile ones too."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.capture import records as module
from polytls.capture.pcap import CaptureError
from polytls.capture.records import (
    MAX_HELLO_BYTES,
    MAX_HELLO_RECORDS,
    hello_end,
    printable,
    read_hellos,
)
from polytls.wire.client_hello import HelloError, parse_client_hello
from tests.capture.hellos import CHROME, FIREFOX, OPENSSL, message, split
from tests.capture.packets import Flow, pcap, pcapng

ONE = OPENSSL[0]
CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")


def raw(data: bytes) -> list[bytes]:
    return [captured.raw for captured in read_hellos(data)]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (ONE, [ONE]),
        (ONE + CHROME[0] + CHANGE_CIPHER_SPEC + FIREFOX[0], [ONE, CHROME[0], FIREFOX[0]]),
        (split(ONE, 1, 3, 100), [split(ONE, 1, 3, 100)]),
        (message(ONE), [message(ONE)]),
        (message(ONE) + message(CHROME[0]), [message(ONE), message(CHROME[0])]),
        (ONE.hex().encode(), [ONE]),
        (b"\xef\xbb\xbf \r\n" + ONE.hex(":").upper().encode() + b"\n", [ONE]),
        (ONE.hex(" ", 2).replace(" ", " 0x").encode(), [ONE]),
        (("\n".join(ONE.hex()[at : at + 60] for at in range(0, 700, 60))).encode(), [ONE]),
        ((ONE.hex() + "\n\n" + CHROME[0].hex()).encode(), [ONE, CHROME[0]]),
        (message(ONE).hex().encode(), [message(ONE)]),
        (json.dumps({"hello": ONE.hex()}).encode(), [ONE]),
        (json.dumps([{"hello": ONE.hex()}, {"other": 1}, 7]).encode(), [ONE]),
        (json.dumps({"name": "x", "samples": [ONE.hex(), CHROME[0].hex()]}).encode(), [ONE, CHROME[0]]),
        (json.dumps({"vectors": [{"hello": ONE.hex()}, {"samples": [CHROME[0].hex()]}]}).encode(), 2),
        (b'{"hello": "%s"}\n\n{"hello": "%s"}\n' % (ONE.hex().encode(), FIREFOX[0].hex().encode()), 2),
    ],
)
def test_every_form(data: bytes, found: list[bytes] | int) -> None:
    seen = raw(data)
    assert (seen == found) if isinstance(found, list) else (len(seen) == found)


def test_what_is_said_of_a_hello() -> None:
    (first, again, other) = read_hellos(ONE + CHANGE_CIPHER_SPEC + ONE + CHROME[0])
    assert (first.second, again.second, other.second) == (False, True, False)
    assert (first.where, again.where) == ("hello", "hello 3")
    assert first.hello == parse_client_hello(ONE)
    (bare,) = read_hellos(message(ONE))
    assert bare.hello.record_version is None
    (named,) = read_hellos(json.dumps({"name": "a\x1b[31m", "samples": [ONE.hex()]}).encode())
    assert named.where == "a\\u001b[31m sample 1"
    assert "key" not in repr(first)
    assert ONE.hex()[:40] not in repr(first)


def test_hellos_in_packets() -> None:
    hello = CHROME[0]
    told = b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"
    flows = [
        Flow(source_port=1).packets(hello + CHANGE_CIPHER_SPEC + b"\x17\x03\x03\x00\x01x", 700),
        Flow(source_port=2).packets(told + FIREFOX[0]),
        Flow(source_port=3).packets(b"GET / HTTP/1.1\r\n\r\n"),
        Flow("2001:db8::1", "::1", 4).packets(split(ONE, 2)),
        Flow(source_port=5).packets(ONE[:-1]),
        Flow(source_port=6).packets(ONE[:40] + b"\xff" + ONE[41:]),
    ]
    mixed = [packet for group in zip(*(f + [f[0]] * 9 for f in flows), strict=False) for packet in group]
    mixed += [packet for flow in flows for packet in flow]
    for write in (pcap, pcapng):
        found = read_hellos(write(mixed))
        assert [captured.raw for captured in found][:3] == [hello, FIREFOX[0], split(ONE, 2)]
        assert found[0].where == "192.0.2.1:1 > 192.0.2.2:443"
        assert found[2].where == "[2001:db8::1]:4 > [::1]:443"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "nothing in it"),
        (b" \n", "nothing in it"),
        (b"\xff\xfe", "this is no ClientHello"),
        (b"hello", "this is no ClientHello"),
        (b"160", "odd number of digits"),
        (b"4745", "begins with 0x47"),
        (ONE[:-1], "cut short"),
        (ONE + b"\x17", "does not begin with a TLS handshake"),
        (message(ONE)[:-1], "cut short: 1 bytes"),
        (ONE[:5] + b"\x02" + ONE[6:], "type 2"),
        (ONE[:43] + b"\xff" + ONE[44:], "hello: the ClientHello is malformed"),
        (b"{", "begins like JSON"),
        (b"[" * 100_000, "begins like JSON"),
        (b"{}", "no ClientHello in it"),
        (b'{"samples": [1]}', "sample 1 is not hexadecimal"),
        (b'{"name": "x", "samples": ["zz"]}', "x sample 1 is not hexadecimal"),
        (b'{"hello": ""}', "its hello is not hexadecimal"),
        (pcap([]), "no ClientHello in it"),
        (pcap(Flow().packets(b"SSH-2.0-x\r\n")), "no ClientHello in it"),
        (b"\xd4\xc3\xb2\xa1", "less than its header"),
    ],
)
def test_what_is_no_hello(data: bytes, says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        read_hellos(data)


def test_hello_end_needs_every_byte() -> None:
    for hello in (ONE, split(ONE, 1, 1, 1, 1, 1)):
        assert [hello_end(hello[:length]) for length in range(len(hello))] == [None] * len(hello)
        assert hello_end(hello + b"more") == len(hello)
        assert hello_end(b"xy" + hello, 2) == len(hello) + 2


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = (MAX_HELLO_BYTES - 4).to_bytes(3, "big")
    assert hello_end(b"\x16\x03\x01\x40\x00\x01" + longest) is None
    with pytest.raises(HelloError, match="at most"):
        hello_end(b"\x16\x03\x01\x40\x00\x01" + (MAX_HELLO_BYTES - 3).to_bytes(3, "big"))
    for sizes, ends in ((MAX_HELLO_RECORDS - 1, True), (MAX_HELLO_RECORDS, False)):
        hello = split(ONE, *[1] * sizes)
        if ends:
            assert hello_end(hello) == len(hello)
        else:
            with pytest.raises(HelloError, match="more than 256 records"):
                hello_end(hello)
    for length, fits in ((0, False), (1, True), (1 << 14, True), ((1 << 14) + 1, False)):
        record = b"\x16\x03\x01" + length.to_bytes(2, "big")
        if fits:
            assert hello_end(record) is None
        else:
            with pytest.raises(HelloError, match="1 to 16384 bytes"):
                hello_end(record)
    monkeypatch.setattr(module, "MAX_HELLOS", 2)
    assert len(read_hellos(ONE * 2)) == 2
    with pytest.raises(CaptureError, match="more than 2"):
        read_hellos(ONE * 3)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(ONE))
    assert raw(ONE) == [ONE]
    with pytest.raises(CaptureError, match="at most"):
        read_hellos(ONE + b"x")


def test_names_are_fit_for_a_terminal() -> None:
    assert printable("é x") == "é x"
    assert printable("a\nb") == "a\\nb"
    assert len(printable("x" * 1000)) == module.MAX_TEXT_CHARS


SEEDS = [
    ONE,
    message(ONE),
    split(ONE, 1, 9),
    ONE.hex().encode(),
    json.dumps({"samples": [ONE.hex()]}).encode(),
    pcap(Flow().packets(ONE, 100)),
    pcapng(Flow().packets(ONE, 100)),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=3)), max_size=8),
    st.integers(0, 4000),
)
def test_a_mutated_file_has_hellos_or_is_an_error(
    data: bytes, changes: list[tuple[int, bytes]], length: int
) -> None:
    mutated = data
    for place, value in changes:
        place %= len(data)
        mutated = mutated[:place] + value + mutated[place + 1 :]
    for hostile in (mutated, mutated[:length]):
        said = read_or_none(hostile)
        assert said.isprintable() if said is not None else read_hellos(hostile)


def read_or_none(data: bytes) -> str | None:
    """What is said of data without hellos; anything but `CaptureError` ends the test."""
    try:
        read_hellos(data)
    except CaptureError as problem:
        return str(problem)
    return None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_have_hellos_or_are_an_error(data: bytes) -> None:
    for hostile in (data, b"\x16\x03\x01" + data, b"\x01" + data, b"{" + data, b"\xd4\xc3\xb2\xa1" + data):
        said = read_or_none(hostile)
        assert said is None or said.isprintable()
