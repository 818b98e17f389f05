"""The HTTP/2 server, spoken to by the `h2` package, and by frames that no library would send."""

from __future__ import annotations

import contextlib

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.capture.http2 import MAX_FRAME_BYTES, PREFACE, Http2, Http2Error, pseudo_headers

BODY = b"x" * 200_000
REQUEST = [
    (":method", "GET"),
    (":authority", "a.test"),
    (":scheme", "https"),
    (":path", "/"),
    ("cookie", "s"),
]
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def begun(*frames: bytes) -> Http2:
    http2 = Http2()
    http2.receive(PREFACE + b"".join(frames))
    return http2


def test_a_window_update_of_the_stream_belongs_to_the_first_flight() -> None:
    headers = frame(1, 0x5, 3, b"\x82\x84\x87\x41\x01a")
    update, later = (frame(8, 0, 3, number.to_bytes(4, "big")) for number in (9, 10))
    server = begun(SETTINGS, headers, update)
    server.answer(b"text/plain", b"x")
    server.receive(later)  # for what we have sent
    assert server.first_flight.frames[-1] == {
        "type": "WINDOW_UPDATE",
        "flags": 0,
        "stream": 3,
        "increment": 9,
    }
    assert server.first_flight.window_update == 0


@pytest.mark.parametrize("window", [1, 1000, 65_535, 1 << 20])
@pytest.mark.parametrize("piece", [7, 1 << 16])
def test_a_request_is_answered(window: int, piece: int) -> None:
    body = BODY[: min(len(BODY), window * 50)]
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.send_headers(1, REQUEST, end_stream=True)
    server, got, ended = Http2(), b"", False
    headers: dict[bytes, bytes] = {}
    answered = False
    while not ended:
        data = client.data_to_send()
        for at in range(0, len(data), piece):
            server.receive(data[at : at + piece])
        if server.stream is not None and not answered:
            answered = True
            server.answer(b"application/json", body)
        for event in client.receive_data(server.take()):
            if isinstance(event, h2.events.ResponseReceived):
                headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                got += event.data
                client.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamEnded):
                ended = True
    assert server.finished
    assert got == body
    assert headers[b":status"] == b"200"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert server.first_flight.pseudo_headers == [":method", ":authority", ":scheme", ":path"]


def test_the_first_flight_is_kept_in_order() -> None:
    flight = begun(
        frame(4, 0, 0, bytes.fromhex("000100010000000400020000000a00000001")),
        frame(8, 0, 0, (12_517_377).to_bytes(4, "big")),
        frame(2, 0, 3, bytes.fromhex("80000000c8")),
        frame(4, 1, 0),
        frame(1, 0x25, 15, bytes.fromhex("8000000d29") + bytes.fromhex("828741816184")),
        frame(8, 0, 0, b"\0\0\0\1"),
    ).first_flight
    assert flight.akamai == "1:65536;4:131072;10:1|12517377|3:1:0:201|m,s,a,p"
    assert flight.as_dict() == {
        "akamai": flight.akamai,
        "pseudo_headers": [":method", ":scheme", ":authority", ":path"],
        "frames": [
            {"type": "SETTINGS", "flags": 0, "stream": 0, "settings": [[1, 65536], [4, 131072], [10, 1]]},
            {"type": "WINDOW_UPDATE", "flags": 0, "stream": 0, "increment": 12517377},
            {
                "type": "PRIORITY",
                "flags": 0,
                "stream": 3,
                "priority": {"exclusive": True, "depends_on": 0, "weight": 201},
            },
            {
                "type": "HEADERS",
                "flags": 0x25,
                "stream": 15,
                "priority": {"exclusive": True, "depends_on": 13, "weight": 42},
            },
        ],
    }


def test_a_header_in_several_frames_with_padding() -> None:
    http2 = begun(SETTINGS, frame(1, 0x08, 1, b"\x02\x82\x87\0\0"), frame(9, 0, 1, b"\x84"))
    streams = [http2.stream]
    http2.receive(frame(9, 4, 1, b"\x41\x01a"))
    assert [*streams, http2.stream] == [None, 1]
    assert http2.first_flight.pseudo_headers == [":method", ":scheme", ":path", ":authority"]


def test_pings_and_settings_are_acknowledged() -> None:
    http2 = begun(SETTINGS, frame(6, 0, 0, b"12345678"), frame(6, 1, 0, b"87654321"))
    assert http2.take() == SETTINGS + frame(4, 1, 0) + frame(6, 1, 0, b"12345678")
    assert http2.take() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE + (MAX_FRAME_BYTES + 1).to_bytes(3, "big") + bytes(6),
        PREFACE + frame(4, 0, 0, b"12345"),
        PREFACE + frame(4, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        PREFACE + frame(8, 0, 0, b"123"),
        PREFACE + frame(2, 0, 1, b"1234"),
        PREFACE + frame(1, 4, 1, b"\x41"),
        PREFACE + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
        PREFACE + frame(1, 0x0C, 1),
        PREFACE + frame(1, 0x0C, 1, b"\x05\x82"),
        PREFACE + frame(1, 0, 1, b"\x82") + SETTINGS,
        PREFACE + frame(1, 0, 1, b"\x82") + frame(9, 0, 3, b"\x82"),
        PREFACE + frame(1, 0, 1, b"\x82") + frame(9, 0, 1, bytes(MAX_FRAME_BYTES)) * 4,
    ],
)
def test_what_breaks_the_rules_is_an_error(data: bytes) -> None:
    with pytest.raises(Http2Error):
        Http2().receive(data)


def test_pseudo_headers_end_at_the_first_other_field() -> None:
    assert pseudo_headers(b"") == []
    assert pseudo_headers(b"\x3f\xe1\x1f\x82\x40\x01a\x01b\x84") == [":method"]
    assert pseudo_headers(b"\x02\x04POST\x44\x02/a\x01\x01h\x87") == [
        ":method",
        ":path",
        ":authority",
        ":scheme",
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=40)))
)
def test_whatever_the_frames_are(frames: list[tuple[int, int, int, bytes]]) -> None:
    http2 = Http2()
    with contextlib.suppress(Http2Error):
        http2.receive(PREFACE + b"".join(frame(*one) for one in frames))
        if http2.stream is not None:
            http2.answer(b"text/plain", b"x" * 10)
    http2.take()
    assert isinstance(http2.first_flight.akamai, str)
