"""One line for each tunnel, for a person (text) or a program (JSON), without ever making a tunnel wait.

A line is formatted and written on a thread of its own (`LineWriter`): whoever reads the log may be slow,
stopped, or gone. At most `MAX_WAITING_LINES` wait; what comes on top is dropped, counted, and told of in the
log itself as soon as there is room. The thread writes what has gathered every `GATHER_SECONDS`: under load
that is one write for many tunnels, and the event loop is not interrupted for each.

JSON: one object a line, UTF-8, keys always there, in this order, null where nothing is known:

    event       "tunnel"; or "dropped" with the one other key "lines": so many lines are missing here; or
                "broken" with the one other key "error": one line that could not be made, by a defect of ours
    time        when the client connected, RFC 3339, UTC, milliseconds
    id          of the tunnel, unique since the start; of one worker alone: counting from 1
    worker      its number, from 1 on; only where there are several
    client      "address:port"
    host, port  of the CONNECT
    mode        "mitm" or "passthrough" (also a MITM tunnel that was relayed untouched: non_tls = "relay")
    profile     of the upstream hello; null in passthrough
    upstream    the address that was dialled, "address:port"
    sni         as the client sent it
    client_tls, upstream_tls
                null or an object: version, cipher, group (IANA's names), alpn, resumed
    ech         "accepted", "retried" (rejected, then accepted with upstream's own config), "rejected",
                "grease" (it only looks like ECH); null: none was offered
    bytes_up, bytes_down
                client to upstream and back: plaintext in MITM mode, the tunnel's bytes in passthrough
    truncated   upstream ended its TLS first, and without saying so (close_notify)
    seconds     an object: head, resolve, connect, hello, upstream_handshake, leaf, client_handshake,
                first_byte, relay, total; null for a step that was not reached
    outcome     "completed", or the kind of failure (`polytls.errors.Kind`)
    side, stage, detail
                of the failure: whose doing, where, and a sentence
    reply       the HTTP status that answered the CONNECT
    ja4         null or, with `log.fingerprint`, an object: client, upstream: the JA4 of the hello that the
                client sent, and of the one that upstream was sent; null where there was none
    trace       null or, where traces are exported, an object: trace_id, span_id (of the tunnel's span)

Text: time (local), id, worker (where there are several), client, host, mode and profile, protocol, TLS
version and JA4 (``client|upstream`` where they differ), bytes, duration, outcome. Both hold metadata only,
and no control characters.
"""

from __future__ import annotations

import errno
import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import TextIO

from polytls.events import TlsRecord, TunnelRecord
from polytls.settings import LogFormat

MAX_WAITING_LINES = 65_536
"""Some 60 MB of records at worst; at 3,000 tunnels a second, 20 s of a reader that is stopped."""
GATHER_SECONDS = 0.02
"""Too short for a person to notice, long enough to gather dozens of lines under load."""
CLOSE_SECONDS = 2.0
"""For the last lines, at the end: a reader that has stopped must not keep the process."""

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_RED, _GREEN, _YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"
_REMEMBERED = 256
"""Of what comes again and again: the second it is now, and what handshakes agree on."""
SpanOf = Callable[[TunnelRecord], tuple[str, str] | None]
"""Trace and span id of a tunnel, in hexadecimal; None where its trace is not exported."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class LineWriter:
    """Writes lines on its own thread. `put` never blocks; `close` writes what is left, for a moment.

    `write` takes whole lines as bytes and may block or raise OSError (then those lines count as dropped).
    `drop_notice` makes the line that tells how many are missing, `broken` the one that stands for a line
    which could not be made, of the name of what was raised.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        drop_notice: Callable[[int], str],
        broken: Callable[[str], str] = "a line could not be made: {}".format,
    ) -> None:
        self._write = write
        self._drop_notice = drop_notice
        self._broken = broken
        self._waiting: deque[Callable[[], str]] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._dropped = 0
        self._untold = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="polytls-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost since the start."""
        return self._dropped

    def put(self, line: Callable[[], str]) -> None:
        """Have a line written; `line` makes it, without its line break, on the writer's thread."""
        if len(self._waiting) >= MAX_WAITING_LINES:
            self._drop(1)
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is waiting, for at most `CLOSE_SECONDS`, and end the thread. May be called again."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            self._flush()
            if closing:
                return
            self._closing.wait(GATHER_SECONDS)

    def _flush(self) -> None:
        makers = [self._waiting.popleft() for _ in range(len(self._waiting))]
        with self._lock:
            untold, self._untold = self._untold, 0
        lines = [self._made(maker) for maker in makers]
        if untold:
            lines.append(self._drop_notice(untold))
        if not lines:
            return
        try:
            self._write("".join([line + "\n" for line in lines]).encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # ValueError: the file was closed under us
            self._drop(len(makers))
            with self._lock:
                self._untold += untold

    def _made(self, maker: Callable[[], str]) -> str:
        try:
            return maker()
        except Exception as error:  # noqa: BLE001 - one bad record must not end the log
            return self._broken(type(error).__name__)

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines
            self._untold += lines


class TunnelLog:
    """A sink for records that writes one line each. To be closed."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        form: LogFormat,
        *,
        colour: bool = False,
        span: SpanOf | None = None,
        worker: int | None = None,
    ) -> None:
        if form is LogFormat.JSON:
            self._line: Callable[[TunnelRecord], str] = partial(json_line, span=span, worker=worker)
            self._writer = LineWriter(
                write,
                lambda lines: _encode({"event": "dropped", "lines": lines}),
                lambda error: _encode({"event": "broken", "error": error}),
            )
        else:
            self._line = partial(text_line, colour=colour, worker=worker)
            self._writer = LineWriter(write, lambda lines: f"... {lines} lines are missing here")

    def __call__(self, record: TunnelRecord) -> None:
        self._writer.put(partial(self._line, record))

    @property
    def dropped(self) -> int:
        """Lines that were lost since the start."""
        return self._writer.dropped

    def close(self) -> None:
        """Write what is waiting; see `LineWriter.close`."""
        self._writer.close()


def to_stream(stream: TextIO | None) -> Callable[[bytes], None]:
    """A `write` for `LineWriter` that writes all bytes to a stream's descriptor, waiting where that does not
    block. None, as for a stdout that was closed before the start, has no descriptor: OSError, always. (Its
    number may be some socket's by now.)"""
    fd = -1 if stream is None else stream.fileno()

    def write(data: bytes) -> None:
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                select.select([], [fd], [])

    return write


def wants_colour(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Colour is for terminals, unless NO_COLOR (https://no-color.org) is set to anything but nothing."""
    if stream is None or not stream.isatty():
        return False
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def json_line(record: TunnelRecord, span: SpanOf | None = None, *, worker: int | None = None) -> str:
    """The record as one JSON object; its form is in the module's docstring."""
    ids = None if span is None else span(record)
    seconds, text, number = record.timings, _json_text, _json_seconds
    served = "" if worker is None else f'"worker":{worker},'
    return (
        f'{{"event":"tunnel","time":"{_utc(record.started_at)}","id":{record.id},{served}'
        f'"client":{text(record.client)},'
        f'"host":{text(record.host)},"port":{_json_number(record.port)},"mode":{text(record.mode)},'
        f'"profile":{text(record.profile)},"upstream":{text(record.upstream)},"sni":{text(record.sni)},'
        f'"client_tls":{_json_tls(record.client_tls)},"upstream_tls":{_json_tls(record.upstream_tls)},'
        f'"ech":{text(record.ech)},'
        f'"bytes_up":{record.bytes_up},"bytes_down":{record.bytes_down},'
        f'"truncated":{"true" if record.truncated else "false"},'
        f'"seconds":{{"head":{number(seconds.head)},"resolve":{number(seconds.resolve)},'
        f'"connect":{number(seconds.connect)},"hello":{number(seconds.hello)},'
        f'"upstream_handshake":{number(seconds.upstream_handshake)},"leaf":{number(seconds.leaf)},'
        f'"client_handshake":{number(seconds.client_handshake)},"first_byte":{number(seconds.first_byte)},'
        f'"relay":{number(seconds.relay)},"total":{number(seconds.total)}}},'
        f'"outcome":{text(record.outcome)},"side":{text(record.side)},"stage":{text(record.stage)},'
        f'"detail":{text(record.detail)},"reply":{_json_number(record.reply)},'
        f'"ja4":{_json_ja4(record)},'
        f'"trace":{"null" if ids is None else _encode({"trace_id": ids[0], "span_id": ids[1]})}}}'
    )


def text_line(record: TunnelRecord, *, colour: bool = False, worker: int | None = None) -> str:
    """The record as one line for a person.

    >>> text_line(TunnelRecord(1, "127.0.0.1:5", 0.0, host="example.com", port=443))[14:]
    '#1  127.0.0.1:5  example.com:443  -  up 0 B  down 0 B  ok'
    """
    host = record.host or "-"
    where = f"[{host}]" if ":" in host else host
    paint = _painted if colour else _plain
    parts = [
        paint(_DIM, _local_clock(record.started_at)),
        paint(_DIM, f"#{record.id}"),
        "" if worker is None else paint(_DIM, f"worker {worker}"),
        paint(_DIM, record.client),
        paint(_BOLD, where if record.port is None else f"{where}:{record.port}"),
        _printable(" ".join(filter(None, (record.mode, record.profile))) or "-"),
        _printable(_protocol(record)),
        _ja4(record),
        f"up {human_bytes(record.bytes_up)}",
        f"down {human_bytes(record.bytes_down)}",
        "" if record.timings.total is None else human_seconds(record.timings.total),
        _outcome(record, paint),
    ]
    return "  ".join(filter(None, parts))


def human_bytes(count: int) -> str:
    """Three digits and a decimal unit: "999 B", "1.2 kB", "34 MB"."""
    if count < 1000:
        return f"{count} B"
    units = iter(("kB", "MB", "GB", "TB"))
    value, unit = count / 1000, next(units)
    while value >= 999.5 and (larger := next(units, None)) is not None:
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def human_seconds(seconds: float) -> str:
    """Milliseconds up to ten seconds, then seconds, then minutes."""
    if seconds < 10:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _outcome(record: TunnelRecord, paint: Callable[[str, str], str]) -> str:
    if record.outcome == "completed":
        return paint(_GREEN, "ok") + (" (truncated)" if record.truncated else "")
    colour = _RED if record.side == "upstream" or record.outcome == "internal" else _YELLOW
    word = paint(colour, record.outcome)
    return f"{word}: {_printable(record.detail)}" if record.detail else word


def _protocol(record: TunnelRecord) -> str:
    client, upstream = record.client_tls, record.upstream_tls
    shown = upstream or client
    if shown is None:
        return ""
    version = shown.version
    if client is not None and client.version != version:
        version = f"{client.version}|{version}"
    return f"{shown.alpn} {version}" if shown.alpn else version


def _ja4(record: TunnelRecord) -> str:
    return "|".join(dict.fromkeys(filter(None, (record.client_ja4, record.upstream_ja4))))


def _plain(_code: str, text: str) -> str:
    return _printable(text)


def _painted(code: str, text: str) -> str:
    return f"{code}{_printable(text)}{_RESET}"


def _printable(text: str) -> str:
    """Nothing that came from outside may begin a line or drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


# A line is put together by hand: it is the most that Python does for many a tunnel, and this takes half the
# time of a generic encoder, whose string escapes it uses. tests/telemetry holds it to what `json` reads back.


def _json_text(text: str | None) -> str:
    if text is None:
        return "null"
    return encode_basestring(text) if text.isprintable() else encode_basestring_ascii(text)


def _json_ja4(record: TunnelRecord) -> str:
    client, upstream = record.client_ja4, record.upstream_ja4
    if client is None and upstream is None:
        return "null"
    return f'{{"client":{_json_text(client)},"upstream":{_json_text(upstream)}}}'


def _json_number(number: int | None) -> str:
    return "null" if number is None else str(number)


def _json_seconds(seconds: float | None) -> str:
    return "null" if seconds is None else f"{seconds:.6f}"


def _json_tls(tls: TlsRecord | None) -> str:
    return "null" if tls is None else _json_of_tls(tls)


@lru_cache(_REMEMBERED)
def _json_of_tls(tls: TlsRecord) -> str:
    return _encode({name: getattr(tls, name) for name in TlsRecord.__slots__})


def _utc(seconds: float) -> str:
    whole = int(seconds)
    return f"{_utc_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(_REMEMBERED)
def _utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _local_clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}"
