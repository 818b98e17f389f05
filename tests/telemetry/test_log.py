from __future__ import annotations

import io
import json
import os
import threading
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.events import Timings, TlsRecord, TunnelRecord
from polytls.settings import LogFormat
from polytls.telemetry import log as module
from polytls.telemetry.log import (
    LineWriter,
    TunnelLog,
    human_bytes,
    human_seconds,
    json_line,
    text_line,
    to_stream,
    wants_colour,
)

KEYS = [
    "event",
    "time",
    "id",
    "client",
    "host",
    "port",
    "mode",
    "profile",
    "upstream",
    "sni",
    "client_tls",
    "upstream_tls",
    "ech",
    "bytes_up",
    "bytes_down",
    "truncated",
    "seconds",
    "outcome",
    "side",
    "stage",
    "detail",
    "reply",
    "ja4",
    "trace",
]
STEPS = [
    "head",
    "resolve",
    "connect",
    "hello",
    "upstream_handshake",
    "leaf",
    "client_handshake",
    "first_byte",
    "relay",
    "total",
]
STARTED_AT = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc).timestamp()
TLS13 = TlsRecord("TLS1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "h2", False)
TLS12 = TlsRecord("TLS1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "x25519", None, True)


def record(**changes: Any) -> TunnelRecord:
    fields: dict[str, Any] = {
        "id": 7,
        "client": "127.0.0.1:50000",
        "started_at": STARTED_AT,
        "host": "example.com",
        "port": 443,
        "mode": "mitm",
        "profile": "firefox",
        "upstream": "192.0.2.1:443",
        "sni": "example.com",
        "client_tls": TLS13,
        "upstream_tls": TLS13,
        "ech": "accepted",
        "bytes_up": 517,
        "bytes_down": 34_567,
        "timings": Timings(head=0.001, total=0.1234567),
        "reply": 200,
    }
    return TunnelRecord(**{**fields, **changes})


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# Lines


def test_a_json_line_has_every_key_in_order() -> None:
    line = json.loads(json_line(record()))
    assert list(line) == KEYS
    assert list(line["seconds"]) == STEPS
    assert line["event"] == "tunnel"
    assert line["time"] == "2025-01-02T03:04:05.678Z"
    assert line["host"] == "example.com"
    assert line["client_tls"] == {
        "version": "TLS1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "group": "X25519MLKEM768",
        "alpn": "h2",
        "resumed": False,
    }
    assert line["seconds"]["total"] == 0.123457
    assert line["seconds"]["relay"] is None
    assert line["outcome"] == "completed"


def test_a_json_line_of_a_tunnel_that_never_began_has_them_too() -> None:
    line = json.loads(json_line(TunnelRecord(1, "[::1]:5", STARTED_AT, outcome="head_timeout")))
    assert list(line) == KEYS
    assert line["client_tls"] is None
    assert line["host"] is None


@given(st.text(), st.text())
def test_a_json_line_is_one_line_whatever_it_holds(detail: str, sni: str) -> None:
    encodable = json_line(record(detail=detail, sni=sni)).encode("utf-8", "backslashreplace")
    assert b"\n" not in encodable
    json.loads(encodable)


HEAD = "03:04:05.678  #7  127.0.0.1:50000  "


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "example.com:443  mitm firefox  h2 TLS1.3  up 517 B  down 35 kB  123 ms  ok"),
        (
            {"client_tls": TLS12, "truncated": True},
            "example.com:443  mitm firefox  h2 TLS1.2|TLS1.3  up 517 B  down 35 kB  123 ms  ok (truncated)",
        ),
        (
            {"mode": "passthrough", "profile": None, "client_tls": None, "upstream_tls": None, "host": "::1"},
            "[::1]:443  passthrough  up 517 B  down 35 kB  123 ms  ok",
        ),
        (
            {
                "client_tls": None,
                "upstream_tls": None,
                "outcome": "certificate_expired",
                "detail": "it ended",
            },
            "example.com:443  mitm firefox  up 517 B  down 35 kB  123 ms  certificate_expired: it ended",
        ),
    ],
)
def test_a_text_line_reads_well(changes: dict[str, Any], line: str) -> None:
    assert text_line(record(**changes)) == HEAD + line


def test_colour_changes_nothing_else() -> None:
    plain = text_line(record())
    coloured = text_line(record(), colour=True)
    assert coloured != plain
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


@given(st.text(min_size=1), st.booleans())
def test_nothing_from_outside_drives_the_terminal(text: str, colour: bool) -> None:
    ours = text_line(record(outcome="internal", detail="x"), colour=colour).count("\x1b")
    line = text_line(record(outcome="internal", detail=text, host=text, profile=text), colour=colour)
    assert line.count("\x1b") == ours
    assert line.replace("\x1b", "").isprintable()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (52_428_800, "52 MB"),
        (10**12, "1.0 TB"),
        (10**16, "10000 TB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0 ms"), (0.123, "123 ms"), (9.99, "9990 ms"), (61, "61 s"), (600, "10 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals(stream: io.StringIO, environ: dict[str, str], colour: bool) -> None:
    assert wants_colour(stream, environ) is colour


# Writing


class Reader:
    """Where lines go: can be held up, and can fail."""

    def __init__(self) -> None:
        self.data = b""
        self.called = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> None:
        self.called.set()
        assert self.go_on.wait(60)
        if self.failure is not None:
            raise self.failure
        self.data += data

    @property
    def lines(self) -> list[str]:
        return self.data.decode().splitlines()


def test_closing_writes_what_was_put() -> None:
    reader = Reader()
    log = TunnelLog(reader.write, LogFormat.JSON)
    for number in range(1000):
        log(record(id=number))
    log.close()
    log.close()
    assert [json.loads(line)["id"] for line in reader.lines] == list(range(1000))
    assert log.dropped == 0


def test_text_has_one_line_for_each_record_too() -> None:
    reader = Reader()
    log = TunnelLog(reader.write, LogFormat.TEXT)
    log(record())
    log.close()
    assert reader.lines == [text_line(record())]


def test_a_reader_that_stops_costs_lines_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_LINES", 10)
    reader = Reader()
    reader.go_on.clear()
    log = TunnelLog(reader.write, LogFormat.JSON)
    log(record(id=1))
    assert reader.called.wait(60)  # the writer hangs in the first line
    for number in range(2, 20):
        log(record(id=number))
    assert log.dropped == 8
    reader.go_on.set()
    log.close()
    found = [json.loads(line) for line in reader.lines]
    assert [line["id"] for line in found if line["event"] == "tunnel"] == list(range(1, 12))
    assert [line for line in found if line["event"] == "dropped"] == [{"event": "dropped", "lines": 8}]


def test_a_reader_that_is_gone_is_counted_and_told_of_when_it_is_back() -> None:
    reader = Reader()
    reader.failure = BrokenPipeError()
    writer = LineWriter(reader.write, lambda lines: f"{lines} lost")
    writer.put(lambda: "one")
    assert reader.called.wait(60)
    deadline = time.monotonic() + 60
    while not writer.dropped and time.monotonic() < deadline:
        pass
    reader.failure = None
    writer.put(lambda: "two")
    writer.close()
    assert reader.lines == ["two", "1 lost"]
    assert writer.dropped == 1


def test_a_reader_that_never_reads_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    reader = Reader()
    reader.go_on.clear()
    writer = LineWriter(reader.write, str)
    writer.put(lambda: "one")
    writer.close()
    assert reader.data == b""
    reader.go_on.set()


def test_one_bad_line_does_not_end_the_log() -> None:
    reader = Reader()
    writer = LineWriter(reader.write, str)
    writer.put(lambda: str(1 // 0))
    writer.put(lambda: "next")
    writer.close()
    assert reader.lines == ["a line could not be made: ZeroDivisionError", "next"]


def test_a_bad_line_of_json_is_json_too() -> None:
    reader = Reader()
    log = TunnelLog(reader.write, LogFormat.JSON)
    log(record(started_at=None))
    log(record(id=7))
    log.close()
    broken, good = [json.loads(line) for line in reader.lines]
    assert broken == {"event": "broken", "error": "TypeError"}
    assert good["id"] == 7


@pytest.mark.parametrize("form", list(LogFormat))
def test_each_line_names_its_worker_where_there_are_several(form: LogFormat) -> None:
    reader = Reader()
    log = TunnelLog(reader.write, form, worker=3)
    log(record(id=12))
    log.close()
    (line,) = reader.lines
    if form is LogFormat.JSON:
        assert json.loads(line)["worker"] == 3
    else:
        assert "  #12  worker 3  " in line


def test_a_pipe_gets_every_byte_also_where_it_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = b"x" * 1_000_000
    received = b""
    stream = os.fdopen(writing, "w")
    thread = threading.Thread(target=to_stream(stream), args=(data,))
    thread.start()
    while len(received) < len(data):
        received += os.read(reading, 65536)
    thread.join()
    os.close(reading)
    stream.close()
    assert received == data


def test_a_stream_that_never_was_is_one_that_fails() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        to_stream(None)(b"x")
    assert not wants_colour(None, {})
