"""Profile `mirror` and client hellos that no client would send.

Theory of operation
-------------------
Captured hellos are changed in their structure (extensions moved, doubled, left out, emptied, blown up) and
in their bytes (lengths that lie), cut short, and cut into records anew. Each goes through a running proxy to
a server that keeps what arrives. What is held of every one:

* the proxy lives, and its log has one record for each tunnel, with an outcome;
* what arrives upstream, if anything does, is one whole ClientHello for our own parser, nothing before or
  behind it;
* and for OpenSSL's server, which nobody here wrote: it may refuse the offer, but never its form
  (decode_error).

`make test` runs the same ones each time; `make fuzz` more, and others: POLYTLS_MIRROR_MUTATIONS is their
number, POLYTLS_MIRROR_SEED what they are drawn from.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest

from polytls.wire.client_hello import Extension, parse_client_hello
from polytls.wire.iana import ExtensionType
from tests.e2e.test_mirror import MIRROR, Lab, Sink, lab, rebuilt
from tests.golden.profiles import samples
from tests.golden.recorder import HOST, sent_hellos
from tests.peers.clients import client_context, tls_tunnel, tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS

__all__ = ["lab"]  # the fixture

COUNT = int(os.environ.get("POLYTLS_MIRROR_MUTATIONS", "800"))
SEED = int(os.environ.get("POLYTLS_MIRROR_SEED", "20261120"))
CLIENTS = (
    *("chrome-152", "chromium-156", "curl-7.88", "firefox-155", "firefox-esr-153", "gnutls-3.7", "go-1.26"),
    *("java-17", "node-20", "openssl-3.0", "safari-15.3", "safari-26.0", "wget-1.21"),
)
DECODE_ERROR = 50  # RFC 8446 §6
ALERT_RECORD = 21


def mutated(chance: random.Random) -> bytes:
    """Records of a changed hello; one in some is a captured one as it was."""
    hello = parse_client_hello(samples(chance.choice(CLIENTS))[0])
    items = list(hello.extensions)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
        _change(items, chance)
    changes: dict[str, object] = {"extensions": tuple(items)}
    if chance.random() < 0.1:
        changes["cipher_suites"] = tuple(chance.randrange(1 << 16) for _ in range(chance.randrange(600)))
    if chance.random() < 0.1:
        changes["session_id"] = bytes(chance.randrange(33))
    if chance.random() < 0.05:
        changes["compression_methods"] = tuple(chance.randrange(3) for _ in range(chance.randrange(4)))
    records = bytearray(rebuilt(hello, **changes)) if fits(items) else bytearray(rebuilt(hello))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 2, 4))):
        _damage(records, chance)
    if chance.random() < 0.1:
        return recut(bytes(records), chance)
    if chance.random() < 0.05:
        del records[chance.randrange(len(records)) :]
    return bytes(records)


def fits(items: list[Extension]) -> bool:
    return sum(4 + len(item.body) for item in items) < 60000


def _change(items: list[Extension], chance: random.Random) -> None:
    """One change of structure; lengths come out right."""
    if not items:
        return
    at = chance.randrange(len(items))
    item = items[at]
    match chance.choice(
        ("remove", "double", "move", "shuffle", "empty", "body", "flip", "longer", "type", "huge")
    ):
        case "remove":
            del items[at]
        case "double":
            items.insert(chance.randrange(len(items) + 1), item)
        case "move":
            items.insert(chance.randrange(len(items)), items.pop(at))
        case "shuffle":
            chance.shuffle(items)
        case "empty":
            items[at] = Extension(item.type, b"")
        case "body":
            items[at] = Extension(item.type, chance.randbytes(chance.randrange(40)))
        case "flip" if item.body:
            body = bytearray(item.body)
            body[chance.randrange(min(len(body), 8))] ^= 1 << chance.randrange(8)
            items[at] = Extension(item.type, bytes(body))
        case "longer":
            items[at] = Extension(item.type, item.body + chance.randbytes(chance.randrange(1, 4)))
        case "type":
            known = [number.value for number in ExtensionType]
            items[at] = Extension(chance.choice((*known, 13172, 30032, 49, 20, 1, 0x1234)), item.body)
        case _:
            items[at] = Extension(item.type, item.body + bytes(chance.choice((300, 5000, 16000, 40000))))


def _damage(records: bytearray, chance: random.Random) -> None:
    """One change of bytes; lengths lie afterwards, mostly."""
    at = chance.randrange(len(records))
    match chance.choice(("flip", "set", "bound", "length", "remove", "insert")):
        case "flip":
            records[at] ^= 1 << chance.randrange(8)
        case "set":
            records[at] = chance.randrange(256)
        case "bound":
            records[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        case "length":
            place = chance.choice((3, 7, at))
            value = int.from_bytes(records[place : place + 2], "big") + chance.choice(
                (-256, -2, -1, 1, 2, 256)
            )
            records[place : place + 2] = (value % (1 << 16)).to_bytes(2, "big")
        case "remove":
            del records[at : at + chance.randrange(1, 6)]
        case _:
            records[at:at] = chance.randbytes(chance.randrange(1, 6))


def recut(records: bytes, chance: random.Random) -> bytes:
    """The same bytes of the message in records of other sizes."""
    message, cut = records[5:], b""
    while message:
        size = chance.choice((1, 3, 60, 500, 5000))
        cut += b"\x16\3\1" + len(message[:size]).to_bytes(2, "big") + message[:size]
        message = message[size:]
    return cut


def opinion(context: ssl.SSLContext, records: bytes) -> tuple[str, int | None]:
    """What OpenSSL's server says to a hello, in its own words, and the alert it would send."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(records)
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        return "taken" if outgoing.pending else "waiting", None
    except ssl.SSLError as error:
        answer = outgoing.read()
        alert = answer[6] if len(answer) == 7 and answer[0] == ALERT_RECORD else None
        return error.reason or str(error), alert
    return "taken", None


def through(lab: Lab, sink: Sink, records: bytes, pieces: int) -> bytes:
    """Sends a hello in so many pieces and returns what arrived upstream."""
    with tunnel(lab.proxy, HOST, sink.port, MIRROR) as connection:
        size = len(records) // pieces + 1
        for at in range(0, len(records), size):
            connection.sendall(records[at : at + size])
        connection.shutdown(socket.SHUT_WR)
        return sink.take()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as one:
        yield one


def test_a_mutated_hello_is_refused_or_sent_well_formed(lab: Lab, sink: Sink) -> None:
    chance = random.Random(SEED)
    context = origin_context(lab.certificate)
    said: Counter[str] = Counter()
    for number in range(COUNT):
        records = mutated(chance)
        sent = through(lab, sink, records, 1 + number % 3)
        if not sent:
            said["refused"] += 1
            continue
        (hello,) = sent_hellos(sent)
        assert len(hello.records) == len(sent), records.hex()
        assert hello.parsed.extension(ExtensionType.PRE_SHARED_KEY) is None
        assert hello.parsed.extension(ExtensionType.EARLY_DATA) is None
        words, alert = opinion(context, sent)
        said[words] += 1
        assert alert != DECODE_ERROR, (words, records.hex(), sent.hex())
    assert said["taken"] > COUNT / 10, said
    assert said["refused"] > COUNT / 10, said
    assert outcomes(lab, sink, COUNT)
    alive(lab, context)


def outcomes(lab: Lab, sink: Sink, count: int) -> bool:
    """Whether every tunnel has its record, and each an outcome."""
    records = [record for record in lab.proxy.records(HOST, count) if record["port"] == sink.port]
    return len(records) == count and all(record["outcome"] for record in records)


def alive(lab: Lab, context: ssl.SSLContext) -> None:
    with (
        Origin(context) as origin,
        tls_tunnel(lab.proxy, HOST, origin.port, client_context(lab.proxy.root_pem), MIRROR) as tls,
    ):
        tls.settimeout(HANG_SECONDS)
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
