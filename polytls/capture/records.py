"""Bytes that somebody has -> the ClientHellos in them (pure).

Theory of operation
-------------------
`read_hellos` tells by the bytes what it was given:

* pcap or pcapng: all hellos of all TCP connections (`polytls.capture.pcap`), also behind a CONNECT or another
  protocol's STARTTLS, which is looked for in the first bytes of each connection;
* TLS records, or bare ClientHello messages, one after the other;
* hexadecimal text of either, with or without blanks, colons and line breaks;
* JSON: a capture of ours or a golden file (``samples``, or objects with a ``hello``), in hexadecimal; also
  one object a line, as `polytls capture --json` prints them. What it says of HTTP/2 (``http2``, or ``h2``)
  comes along, unread.

Every hello is read in full: one that is malformed is an error (in a packet capture it is passed over, for not
everything on a wire is TLS). Whatever the bytes are, the outcome is hellos, at least one, or `CaptureError`.
Left out: QUIC, whose hellos are encrypted, DTLS, and SSL 2.0's form of hello.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from polytls.capture.pcap import CaptureError, TcpStream, is_packet_capture, tcp_streams
from polytls.wire.client_hello import (
    MAX_RECORD_BYTES,
    ClientHello,
    HelloError,
    parse_client_hello,
    parse_client_hello_message,
)

MAX_FILE_BYTES = 1 << 28
"""A file is read as a whole. Captures of handshakes have some megabytes; this is all that a filter forgot."""

MAX_HELLO_BYTES = 1 << 16
"""Of one ClientHello. Real ones have 0.2 to 4 KB; the engine's limit is the same."""

MAX_HELLO_RECORDS = 256
"""That one hello may be split into; clients that split it (to hide it) use two or three."""

MAX_HELLOS = 1 << 16
"""In one file: enough for every capture that is about hellos, and a bound on memory."""

MAX_TEXT_CHARS = 120
"""Of a name out of a file that is shown to people."""

_HANDSHAKE, _CHANGE_CIPHER_SPEC, _CLIENT_HELLO = 22, 20, 1
_RECORD_HEADER_BYTES = 5
_MESSAGE_HEADER_BYTES = 4
_MAX_PLACES = 16  # tried in a stream that does not begin with a hello
_MAX_SEARCHED_BYTES = 1 << 14  # before a hello: a CONNECT, an EHLO; not a download
_PLACE = re.compile(rb"\x16\x03[\x00-\x04].{2}\x01", re.DOTALL)
_HEX = re.compile(r"[0-9a-fA-F]+")
_LISTS = ("captured", "published", "vectors")  # in files of many clients
_BETWEEN_DIGITS = re.compile(r"[\s:,]+|0[xX]|\\x")


@dataclass(frozen=True, slots=True)
class CapturedHello:
    """One hello, `raw` as it was (TLS records, or the bare message), `where` it was found, printable.

    `second`: it answers a HelloRetryRequest, so it is the second one of its connection (RFC 8446 §4.1.2: with
    the random of the first).
    """

    hello: ClientHello
    raw: bytes = field(repr=False)
    where: str
    second: bool = False
    http2: object = field(default=None, repr=False, compare=False)
    """How its client began HTTP/2, as JSON says it (`polytls.profiles.http2_learn`); None: not known."""


def read_hellos(data: bytes) -> tuple[CapturedHello, ...]:
    """Every ClientHello in `data`, in order, at least one. Raises `CaptureError` and nothing else."""
    if len(data) > MAX_FILE_BYTES:
        raise CaptureError(f"this has {len(data)} bytes; at most {MAX_FILE_BYTES} are read")
    if is_packet_capture(data):
        return _bounded(_in_packets(tcp_streams(data)))
    if data[:1] in (bytes((_HANDSHAKE,)), bytes((_CLIENT_HELLO,))):
        return _bounded(_in_bytes(data, "hello"))
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise CaptureError(_UNKNOWN) from None
    if not text:
        raise CaptureError("there is nothing in it")
    if text[0] in "{[":
        return _bounded(_in_json(text))
    return _bounded(_in_bytes(_from_hex(text, _UNKNOWN), "hello"))


def hello_end(data: bytes, start: int = 0) -> int | None:
    """Where the records of the ClientHello that begins at `start` end; None: more bytes are needed to tell.

    Only framing is looked at. Raises `HelloError` where the bytes cannot become a ClientHello of at most
    `MAX_HELLO_BYTES` bytes.
    """
    position, have = start, 0
    message = bytearray()  # its header
    for _ in range(MAX_HELLO_RECORDS):
        header = data[position : position + _RECORD_HEADER_BYTES]
        if header[:1] not in (b"", b"\x16") or header[1:2] not in (b"", b"\x03"):
            raise HelloError("it does not begin with a TLS handshake")
        if len(header) < _RECORD_HEADER_BYTES:
            return None
        length = int.from_bytes(header[3:], "big")
        if not 1 <= length <= MAX_RECORD_BYTES:
            raise HelloError(f"a handshake record has 1 to {MAX_RECORD_BYTES} bytes, this one {length}")
        position += _RECORD_HEADER_BYTES
        message += data[position : position + min(length, _MESSAGE_HEADER_BYTES - len(message))]
        have += length
        position += length
        if message and message[0] != _CLIENT_HELLO:
            raise HelloError(f"its first handshake message is of type {message[0]}, not a ClientHello")
        if len(message) == _MESSAGE_HEADER_BYTES:
            needed = _MESSAGE_HEADER_BYTES + int.from_bytes(message[1:], "big")
            if needed > MAX_HELLO_BYTES:
                raise HelloError(f"its ClientHello has {needed} bytes; at most {MAX_HELLO_BYTES} are read")
            if have >= needed:
                return position if position <= len(data) else None
        if position > len(data):
            return None
    raise HelloError(f"its ClientHello is in more than {MAX_HELLO_RECORDS} records")


def printable(text: str) -> str:
    """A text from a file, fit for a terminal."""
    cut = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
    return cut if cut.isprintable() else json.dumps(cut)[1:-1]


_UNKNOWN = (
    "this is no ClientHello: expected are TLS records, a ClientHello message, hexadecimal text of either,"
    " a pcap or pcapng file, or JSON of ours"
)


def _bounded(found: Iterable[CapturedHello]) -> tuple[CapturedHello, ...]:
    kept: list[CapturedHello] = []
    randoms: dict[tuple[bytes, bytes], None] = {}
    for captured in found:
        if len(kept) >= MAX_HELLOS:
            raise CaptureError(f"this has more than {MAX_HELLOS} ClientHellos; cut it with a filter first")
        mark = (captured.hello.random, captured.hello.session_id)
        kept.append(replace(captured, second=mark in randoms))
        randoms[mark] = None
    if not kept:
        raise CaptureError("there is no ClientHello in it")
    return tuple(kept)


def _in_packets(streams: tuple[TcpStream, ...]) -> Iterator[CapturedHello]:
    for stream in streams:
        places = _PLACE.finditer(stream.data, 0, _MAX_SEARCHED_BYTES)
        for _, place in zip(range(_MAX_PLACES), places, strict=False):
            found = list(_in_stream(stream.data, place.start(), f"{stream.source} > {stream.destination}"))
            if found:
                yield from found
                break


def _in_stream(data: bytes, start: int, where: str) -> Iterator[CapturedHello]:
    """What a client sends: a hello, and maybe a second one behind a ChangeCipherSpec."""
    position = start
    while data[position : position + 1] in (b"\x16", b"\x14"):
        if data[position] == _CHANGE_CIPHER_SPEC:
            length = int.from_bytes(data[position + 3 : position + _RECORD_HEADER_BYTES], "big")
            position += _RECORD_HEADER_BYTES + length
            continue
        try:
            end = hello_end(data, position)
            if end is None:
                return
            yield CapturedHello(parse_client_hello(data[position:end]), data[position:end], where)
        except HelloError:
            return
        position = end


def _in_bytes(data: bytes, where: str) -> Iterator[CapturedHello]:
    """Records or messages, nothing but."""
    position, number = 0, 0
    while position < len(data):
        number += 1
        at = where if number == 1 else f"{where} {number}"
        try:
            captured, position = _one(data, position, at)
        except HelloError as problem:
            raise CaptureError(f"{at}: {problem}") from None
        if captured is not None:
            yield captured


def _one(data: bytes, position: int, where: str) -> tuple[CapturedHello | None, int]:
    """The hello at `position` (None: a ChangeCipherSpec) and where it ends."""
    if data[position] == _CLIENT_HELLO:
        body = position + _MESSAGE_HEADER_BYTES
        end = body + int.from_bytes(data[position + 1 : body], "big")
        if end > len(data):
            raise HelloError(f"the ClientHello is cut short: {end - len(data)} bytes are missing")
        return CapturedHello(parse_client_hello_message(data[body:end]), data[position:end], where), end
    if data[position] == _CHANGE_CIPHER_SPEC:
        length = int.from_bytes(data[position + 3 : position + _RECORD_HEADER_BYTES], "big")
        return None, position + _RECORD_HEADER_BYTES + length
    records_end = hello_end(data, position)
    if records_end is None:
        raise HelloError(f"the ClientHello is cut short after {len(data) - position} bytes")
    raw = data[position:records_end]
    return CapturedHello(parse_client_hello(raw), raw, where), records_end


def _from_hex(text: str, problem: str) -> bytes:
    digits = _BETWEEN_DIGITS.sub("", text)
    if not _HEX.fullmatch(digits):
        raise CaptureError(problem)
    if len(digits) % 2:
        raise CaptureError(f"this hexadecimal text has an odd number of digits, {len(digits)}")
    data = binascii.unhexlify(digits)
    if data[0] not in (_HANDSHAKE, _CLIENT_HELLO):
        raise CaptureError(
            f"this hexadecimal text begins with {data[0]:#04x}; TLS records begin with 0x16, a ClientHello"
            " message with 0x01"
        )
    return data


def _in_json(text: str) -> Iterator[CapturedHello]:
    try:
        documents = [json.loads(text)]
    except (ValueError, RecursionError):
        try:
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise CaptureError("this begins like JSON and is none") from None
    for document in documents:
        yield from _in_document(document)


def _in_document(document: object) -> Iterator[CapturedHello]:
    for item in document if isinstance(document, list) else [document]:
        if isinstance(item, dict):
            yield from _in_object(item)
            for key in _LISTS:
                many = item.get(key)
                for one in many if isinstance(many, list) else []:
                    if isinstance(one, dict):
                        yield from _in_object(one)


def _in_object(item: dict[str, object]) -> Iterator[CapturedHello]:
    where = _name(item)
    http2 = item.get("http2", item.get("h2"))
    for captured in _hellos_in_object(item, where):
        yield replace(captured, http2=http2)


def _hellos_in_object(item: dict[str, object], where: str) -> Iterator[CapturedHello]:
    if isinstance(hello := item.get("hello"), str):
        yield from _in_bytes(_from_hex(hello, f"{where}: its hello is not hexadecimal"), where)
    samples = item.get("samples")
    for number, sample in enumerate(samples if isinstance(samples, list) else [], 1):
        at = f"{where} sample {number}"
        if not isinstance(sample, str):
            raise CaptureError(f"{at} is not hexadecimal text")
        yield from _in_bytes(_from_hex(sample, f"{at} is not hexadecimal"), at)


def _name(item: dict[str, object]) -> str:
    for key in ("name", "client", "capture"):
        if isinstance(name := item.get(key), str) and name:
            return printable(name)
    return "hello"
