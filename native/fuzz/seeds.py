"""Writes the seeds of the fuzzers' corpora, from this project's own captures and profiles and by hand.

    python native/fuzz/seeds.py

Theory of operation
-------------------
`corpus/TARGET/` holds three kinds of files: `seed-NAME`, which this writes, and writes the same each time;
`grown-HASH`, which a fuzzer found to reach more, taken over by `make fuzz-grow`; and `found-NAME`, an input
that once broke something. The last two are never touched here.

The hostile server of `answer_fuzz.cc` has constant keys (`schedule.h`), so that its certificates can be in
the corpus. The root they lead to is written to `certificate.cc`.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.x509.oid import NameOID

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent.parent))

from polytls.profiles import Catalog  # noqa: E402
from polytls.wire.client_hello import ClientHello, parse_client_hello  # noqa: E402
from tests.golden.profiles import samples  # noqa: E402

_CLIENTS = (
    *("chrome-100", "chrome-124", "chrome-152", "chromium-156", "curl-7.88", "firefox-135", "firefox-155"),
    *("firefox-esr-153", "gnutls-3.7", "go-1.26", "java-17", "openssl-3.0", "safari-15.3", "safari-26.0"),
)
_ANSWERED = ("chrome-152", "firefox-155", "safari-26.0", "openssl-3.0", "curl-7.88")

_HELLO_REQUEST = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a HelloRetryRequest (RFC 8446 §4.1.3)."""

_PRIVATE_BYTE, _SIGNING_BYTE, _ROOT_BYTE = 0x42, 0x11, 0x22  # the first two as in schedule.h

# Operations of answer_fuzz.cc.
CLEAR, SERVER_HELLO, RETRY, SEALED, VERIFY, FINISHED, BEHIND, RAW, ODD, EXCHANGE = range(10)


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def vec8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def vec16(data: bytes) -> bytes:
    return u16(len(data)) + data


def vec24(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + vec24(body)


def record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 3)) + vec16(body)


def extension(kind: int, body: bytes) -> bytes:
    return u16(kind) + vec16(body)


# --- hellos, templates, heads -----------------------------------------------------------------------------


def hellos() -> Iterator[tuple[str, bytes]]:
    """Captured first hellos, one cut into many records, and the least that there can be."""
    for name in _CLIENTS:
        yield name, samples(name)[0]
    whole = samples("openssl-3.0")[0][5:]
    yield "cut", b"".join(b"\x16\3\1" + vec16(whole[at : at + 60]) for at in range(0, len(whole), 60))
    least = u16(0x0303) + bytes(32) + b"\0" + vec16(u16(0xC02B)) + vec8(b"\0")
    yield "least", record(22, message(1, least))
    yield "empty-extensions", record(22, message(1, least + u16(0)))
    yield "too-large", record(22, b"\1" + (20000).to_bytes(3, "big") + bytes(40))
    yield "not-tls", b"GET / HTTP/1.1\r\n\r\n"


def accepts() -> Iterator[tuple[str, bytes]]:
    """A hello and what an odd client may send behind it."""
    alert, change = record(21, b"\2\x30"), record(20, b"\1")
    for number, name in enumerate(("chrome-152", "firefox-155", "openssl-3.0", "curl-7.88", "go-1.26")):
        hello = samples(name)[0]
        yield name, bytes((number,)) + hello
        yield f"{name}-alert", bytes((8,)) + hello + change + alert
    tls12 = _without(parse_client_hello(samples("openssl-3.0")[0]), 43)
    exchange = record(22, message(16, vec8(b"\4" + bytes(64))))
    yield "tls12", b"\2" + tls12 + exchange + change + record(22, bytes(40))
    yield "junk", b"\0" + samples("curl-7.88")[0] + change + record(23, bytes(80))


def _without(hello: ClientHello, number: int) -> bytes:
    kept = b"".join(extension(item.type, item.body) for item in hello.extensions if item.type != number)
    suites = b"".join(map(u16, hello.cipher_suites))
    body = u16(0x0303) + hello.random + vec8(hello.session_id) + vec16(suites)
    return record(22, message(1, body + vec8(bytes(hello.compression_methods)) + vec16(kept)))


def templates() -> Iterator[tuple[str, bytes]]:
    for name in _CLIENTS:
        yield name, _template(name)


def _template(name: str) -> bytes:
    profile = Catalog.load({}, "seeds").require(name, source="seeds", key="")
    assert profile.template is not None
    return profile.template


def heads() -> Iterator[tuple[str, bytes]]:
    for number, (name, text) in enumerate(
        {
            "connect": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n\x16\3\1\0\5",
            "bare-lf": b"CONNECT a.test:443 HTTP/1.1\nHost: x\n\nbehind",
            "mixed": b"CONNECT a:1 HTTP/1.1\r\n\nbehind\r\n\r\n",
            "leading-empty": b"\r\n\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
            "cr-alone": b"A\r\rB\r\n\r\r\n\r\n",
            "not-text": b"CONNECT\0a:1\r\n\r\n",
            "tls": b"\x16\3\1\2\0\1\0\1\xfc\3\3",
            "cut": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r",
            "long": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 800 + b"\r\n",
            "tab": b"A:\tb\r\n\r\n" + bytes(2500),
        }.items()
    ):
        yield name, bytes((number * 7 % 32,)) + text
        yield f"{name}-whole", b"\3" + text


# --- a server's answers -----------------------------------------------------------------------------------


def step(operation: int, data: bytes = b"") -> bytes:
    return bytes((operation,)) + vec16(data)


def server_hello(
    *extensions: bytes, suite: int = 0x1301, random: bytes = b"\x33" * 32, session_id: bytes = bytes(32)
) -> bytes:
    body = u16(0x0303) + random + vec8(session_id) + u16(suite) + b"\0" + vec16(b"".join(extensions))
    return message(2, body)


def answers() -> Iterator[tuple[str, bytes]]:
    """Flights of TLS 1.3 and 1.2, good ones and ones that stray, against several templates."""
    leaf = _leaf()
    good = step(SERVER_HELLO, server_hello(extension(43, u16(0x0304)), extension(51, _share())))
    behind = step(VERIFY, u16(0x0403)) + step(FINISHED)
    odd_retry = step(RETRY, _retry(extension(51, u16(0x0017))))
    retry = step(RETRY, _retry(extension(44, vec16(b"a cookie"))))
    nothing = step(SEALED, message(8, vec16(b"")))
    protocol = extension(16, vec16(vec8(b"h2")))
    spoken = step(SEALED, message(8, vec16(protocol)))
    settled = step(SEALED, message(8, vec16(protocol + extension(17613, b"settings"))))
    shown = step(SEALED, _certificate(leaf))
    for name in _ANSWERED:
        hello = vec16(_template(name))
        said = {"chrome-152": settled, "openssl-3.0": nothing}.get(name, spoken)
        yield f"{name}-good", b"\1" + hello + good + said + shown + behind + _later()
        yield f"{name}-retry", b"\0" + hello + retry + good + nothing + shown + behind
        yield f"{name}-tls12", b"\0" + hello + _tls12(leaf)
    chrome, firefox = vec16(_template("chrome-152")), vec16(_template("firefox-155"))
    body = _certificate(leaf)[4:]
    packed = step(SEALED, message(25, u16(2) + len(body).to_bytes(3, "big") + vec24(body)))
    yield "compressed", b"\0" + chrome + good + nothing + packed + behind + _later()
    with_credential = step(SEALED, _certificate(leaf, extension(34, _delegated())))
    yield "delegated", b"\0" + firefox + good + nothing + with_credential + behind
    stapled = extension(5, b"\1" + vec24(b"\x30\0")) + extension(18, vec16(vec16(b"sct")))
    yield "stapled", b"\0" + chrome + good + nothing + step(SEALED, _certificate(leaf, stapled)) + behind
    limited = step(SEALED, message(8, vec16(extension(28, u16(64)) + extension(10, vec16(u16(0x1D))))))
    yield "limited", b"\0" + firefox + good + limited + shown + behind
    asked = step(SEALED, message(13, b"\0" + vec16(extension(13, vec16(u16(0x0403))))))
    yield "asked", b"\0" + firefox + good + nothing + asked + shown + behind
    yield (
        "ech-retry",
        b"\0"
        + chrome
        + good
        + step(SEALED, message(8, vec16(extension(0xFE0D, vec16(b"\xfe\x0d" + vec16(bytes(60)))))))
        + shown
        + behind,
    )
    yield "retry-for-p256", b"\2" + firefox + odd_retry + good
    yield "retry-twice", b"\0" + firefox + retry + retry
    yield "knobs", b"\1" + vec16(b"") + good + nothing + shown + behind + _later()
    yield "alert", b"\4" + chrome + step(RAW, record(21, b"\2\x28"))
    yield "not-tls", b"\4" + chrome + step(RAW, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    yield "odd-records", b"\0" + chrome + good + step(ODD, b"\x17early") + nothing + shown
    yield "empty-records", b"\0" + chrome + good + step(RAW, record(22, b"") * 3) + nothing


def _retry(*extensions: bytes) -> bytes:
    return server_hello(extension(43, u16(0x0304)), *extensions, random=_HELLO_REQUEST)


def _share() -> bytes:
    private = x25519.X25519PrivateKey.from_private_bytes(bytes((_PRIVATE_BYTE,)) * 32)
    return u16(0x001D) + vec16(private.public_key().public_bytes_raw())


def _later() -> bytes:
    """Tickets, key updates, data, an alert, under the application keys."""
    ticket = message(4, (7200).to_bytes(4, "big") + bytes(4) + vec8(b"\1") + vec16(b"ticket") + vec16(b""))
    return b"".join(
        step(BEHIND, data)
        for data in (b"\x16" + ticket, b"\x17data", b"\x16" + message(24, b"\1"), b"\x17more", b"\x15\1\0")
    )


def _certificate(leaf: bytes, extensions: bytes = b"") -> bytes:
    return message(11, vec8(b"") + vec24(vec24(leaf) + vec16(extensions)))


def _tls12(leaf: bytes) -> bytes:
    answered = (extension(0xFF01, b"\0"), extension(23, b""), extension(35, b""), extension(11, b"\1\0"))
    hello = server_hello(*answered, suite=0xC02B, session_id=b"")
    shown = message(11, vec24(vec24(leaf)))
    private = x25519.X25519PrivateKey.from_private_bytes(bytes((_PRIVATE_BYTE,)) * 32)
    parameters = b"\3" + u16(0x001D) + vec8(private.public_key().public_bytes_raw())
    ticket = message(4, bytes(4) + vec16(b"ticket"))
    return (
        step(SERVER_HELLO, hello)
        + step(CLEAR, shown)
        + step(EXCHANGE, parameters)
        + step(CLEAR, message(14, b""))
        + step(CLEAR, ticket)
        + step(RAW, record(20, b"\1") + record(22, bytes(40)))
    )


def _delegated() -> bytes:
    """A delegated credential in form (RFC 9345 §4); its time is over, and its signature means nothing."""
    public = _signing_key().public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature = bytes.fromhex("3006020101020101")
    return (86400).to_bytes(4, "big") + u16(0x0403) + vec24(spki) + u16(0x0403) + vec16(signature)


def _signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(bytes((_SIGNING_BYTE,)) * 32, "big"), ec.SECP256R1())


def _root_key() -> ed25519.Ed25519PrivateKey:
    # Ed25519: its signatures are the same each time.
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes((_ROOT_BYTE,)) * 32)


def _builder(name: str, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> x509.CertificateBuilder:
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fuzz root")]))
        .not_valid_before(day)
        .not_valid_after(day.replace(year=2049))
        .serial_number(1)
        .public_key(key)
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _leaf() -> bytes:
    usage = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.44363.44"), b"\5\0"
    )  # RFC 9345 §4.2
    builder = _builder("origin.test", _signing_key().public_key())
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("origin.test")]), critical=False
    )
    return _der(builder.add_extension(usage, critical=False).sign(_root_key(), None))


def root() -> bytes:
    builder = _builder("fuzz root", _root_key().public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return _der(builder.sign(_root_key(), None))


# --- tunnels and operations ---------------------------------------------------------------------------------


def relays() -> Iterator[tuple[str, bytes]]:
    """Programs of relay_fuzz.cc: twice the act, plus whose it is."""
    send, read, turn, update, goodbye, bare, inject, junk, alert, reset = range(0, 20, 2)
    many = bytes((send,)) + u16(40000) + bytes((send | 1,)) + u16(50000) + bytes((turn, read, read | 1))
    for kind, name in enumerate(("plain", "tls12", "tls13")):
        start = bytes((kind,))
        yield f"{name}-clean", start + many + many
        yield f"{name}-half", start + many + bytes((goodbye, turn)) + bytes((send | 1,)) + u16(999)
        yield f"{name}-bare", start + many + bytes((bare | 1, turn, read))
        yield f"{name}-reset", start + many + bytes((reset, turn, read | 1))
        yield f"{name}-inject", start + many + bytes((inject, 4)) + b"\x17\3\3\0" + bytes((turn,))
        yield f"{name}-junk", start + bytes((junk | 1, 30)) + bytes(30) + bytes((turn, read, read | 1)) + many
        yield f"{name}-alert", start + many + bytes((alert, 42, turn, read | 1))
        yield f"{name}-update", start + bytes((update, 1)) + many + bytes((update | 1, 0)) + many
    yield "nothing", b"\2"


def sequences() -> Iterator[tuple[str, bytes]]:
    """Programs of sequence_fuzz.cc."""
    peer, data, hello, turn, cancel, take, close = 1, 2, 3, 4, 5, 6, 8
    head, peek, read, write, flood, connect, connect_tls, accept_tls, relay, end = (
        9,
        10,
        11,
        13,
        14,
        15,
        16,
        17,
        18,
        19,
    )
    tunnel = bytes((connect, 0, 1, 0, turn, 0, take))
    yield "read-write", bytes((data, 0, 5)) + b"bytes" + bytes((read, 0, 0, 9, 0, write, 0, 9, 0, turn, 0))
    yield "linked", bytes((write, 0, 9, 1, read, 0, 0, 9, 1, write, 0, 1, 0, cancel, 1, 0, turn, 0))
    yield "linked-cancel", bytes((read, 0, 0, 9, 1, write, 0, 9, 97, read, 0, 0, 1, 0, turn, 0, cancel, 0, 0))
    yield "tunnel", tunnel + bytes((relay, 0, 1, 0, 0, 0, data, 0, 3)) + b"abc" + bytes((turn, 0, close, 1))
    yield "idle", tunnel + bytes((relay, 0, 1, 1, 1, 0, turn, 0, turn, 0, peer, 0, 1, turn, 0))
    yield "busy", bytes((read, 0, 0, 9, 0, read, 0, 0, 9, 0, head, 0, 9, 0, peek, 0, 1, 0, 0, close, 0))
    yield (
        "stale",
        bytes((close, 0, read, 0, 0, 1, 0, relay, 255, 1, 2, 3, 4, 0, 0, 0, 0, cancel, 0, 255, 0, 1, 0, 2)),
    )
    yield "flood", bytes((flood, 0, 0, turn, 0, end, 0, 1, 0, 0, turn, 0, flood, 0, 6, peer, 0, 0))
    yield "refused", bytes((connect, 0, 0, 0, turn, 0, take, connect, 0, 2, 6, cancel, 0, 0, take))
    yield (
        "accept-tls",
        bytes((hello, 0, 0, accept_tls, 0, 0, turn, 0, hello, 0, turn, 0, hello, 0, read, 0, 0, 9, 0)),
    )
    yield (
        "peek-accept",
        bytes((peek, 0, 255, 255, 25, accept_tls, 0, 1, read, 0, 0, 9, 0, hello, 0, 0, turn, 0, hello, 0)),
    )
    yield (
        "connect-tls",
        tunnel + bytes((hello, 1, 1, connect_tls, 1, 0, turn, 0, hello, 1, turn, 0, end, 1, 0, 40, 0)),
    )
    yield "relay-itself", bytes((relay, 0, 0, 0, 0, 0, turn, 0, 0, relay, 0, 1, 0, 1, 0, close, 1, close, 0))
    yield "head", bytes((head, 0, 40, 0, data, 0, 8)) + b"A\r\n\r\nbcd" + bytes((turn, 0, peek, 0, 0, 1, 6))
    yield (
        "many",
        bytes(
            (0, 0, 0, read, 0, 0, 1, 6, read, 1, 0, 1, 0, read, 2, 0, 1, 96, peer, 1, 0, turn, 0, close, 2)
        ),
    )


def main() -> None:
    """Writes every seed, and removes those that no longer are any."""
    corpora = {
        "hello": hellos,
        "accept": accepts,
        "template": templates,
        "head": heads,
        "answer": answers,
        "relay": relays,
        "sequence": sequences,
    }
    for target, seeds in corpora.items():
        directory = _HERE / "corpus" / target
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("seed-*"):
            old.unlink()
        for name, data in seeds():
            (directory / f"seed-{name}").write_bytes(data)
    _write_root(root())


def _write_root(der: bytes) -> None:
    lines = [
        "    " + " ".join(f"0x{byte:02x}," for byte in der[at : at + 16]) for at in range(0, len(der), 16)
    ]
    (_HERE / "certificate.cc").write_text(
        "// Written by seeds.py.\n"
        '#include "certificate.h"\n\n'
        "#include <stdint.h>\n\n"
        "namespace fuzz {\n\n"
        "std::string root_certificate() {\n"
        "  static const uint8_t der[] = {\n" + "\n".join(lines) + "\n  };\n"
        "  return std::string(reinterpret_cast<const char *>(der), sizeof(der));\n"
        "}\n\n"
        "}  // namespace fuzz\n"
    )


if __name__ == "__main__":
    main()
