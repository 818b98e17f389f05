"""What is fuzzed in Python: one function of bytes for each reader of bytes that came from elsewhere.

Theory of operation
-------------------
A target reads its input as the program would and raises `AssertionError`, or whatever the program raised
against its word, when something does not hold:

* a reader returns a value or raises the errors its docstring names, and nothing else;
* what was read and is written again reads the same, and writes the same;
* what fingerprints, reports and learning say of a value does not fail in a way of its own.

`tests/fuzz/test_targets.py` runs them on mutations of their seeds, a bounded number, the same each time;
`python -m tests.fuzz.run` for as long as one likes. Seeds of native fuzzers are seeds here as well, found
inputs among them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from polytls.capture.clients import clients_of
from polytls.capture.pcap import CaptureError, tcp_streams
from polytls.capture.records import read_hellos
from polytls.config.layers import parse_toml
from polytls.config.load import layer_settings
from polytls.engine import ClientContext
from polytls.errors import ConfigError, Kind, PolytlsError, ProxyError
from polytls.fingerprint.diff import compare
from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.normal import difference, normalise
from polytls.fingerprint.report import fingerprint
from polytls.profiles import Catalog, HelloSpec, exact_toml
from polytls.profiles.learn import learn_parsed
from polytls.profiles.parse import parse_profile
from polytls.profiles.show import as_toml
from polytls.profiles.template import compile_template
from polytls.proxy.mirror import Mirror
from polytls.wire.authority import HostError, parse_authority, parse_host
from polytls.wire.client_hello import ClientHello, HelloError, parse_client_hello
from polytls.wire.connect import parse_connect
from tests.capture.packets import ETHERNET, RAW, Flow, framed, pcap, pcapng
from tests.golden.profiles import samples

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "native" / "fuzz" / "corpus"
FOUND = Path(__file__).resolve().parent / "found"
"""Inputs that once broke a target, a directory for each."""

MAX_INPUT_BYTES = 1 << 16
MAX_ERROR_CHARS = 4000
"""An error is a sentence, whatever the input."""

_NAME = "fuzzed"
_DECODED = (
    *("sni", "alpn", "supported_groups", "point_formats", "signature_algorithms", "key_shares"),
    *("signature_algorithms_cert", "delegated_credentials", "supported_versions", "psk_key_exchange_modes"),
    *("certificate_compression", "record_size_limit"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """`run` is given any bytes; `seeds` are what mutations begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def sound(error: PolytlsError) -> None:
    """That an error is what a person can be shown."""
    text = error.detail if isinstance(error, ProxyError) else str(error)
    assert text
    assert text.isprintable() or not isinstance(error, ProxyError)
    assert len(text) <= MAX_ERROR_CHARS, len(text)


def written(hello: ClientHello) -> bytes:
    """A parsed hello as one record; the inverse of `parse_client_hello` for what fits in one."""
    extensions = b"".join(_u16(item.type) + _vec16(item.body) for item in hello.extensions)
    body = _u16(hello.legacy_version) + hello.random
    body += bytes((len(hello.session_id),)) + hello.session_id
    body += _vec16(b"".join(map(_u16, hello.cipher_suites)))
    body += bytes((len(hello.compression_methods), *hello.compression_methods)) + _vec16(extensions)
    message = b"\1" + len(body).to_bytes(3, "big") + body
    version = _u16(hello.record_version or 0x0301)
    return b"".join(
        b"\x16" + version + _vec16(message[at : at + (1 << 14)]) for at in range(0, len(message), 1 << 14)
    )


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data


# --- hellos -----------------------------------------------------------------------------------------------


def run_hello(data: bytes) -> None:
    """`wire.client_hello`, and all fingerprints of what it reads."""
    try:
        hello = parse_client_hello(data)
    except HelloError as error:
        return sound(error)
    assert parse_client_hello(written(hello)) == hello
    for name in _DECODED:
        with contextlib.suppress(HelloError):
            getattr(hello, name)
    for print_of in (ja3, ja4):
        with contextlib.suppress(HelloError):
            assert print_of(hello) == print_of(parse_client_hello(written(hello)))
    with contextlib.suppress(HelloError):
        report = fingerprint(hello)
        json.dumps(report.as_dict(), allow_nan=False)
        assert all(line.isprintable() for line in report.as_text().splitlines())
    with contextlib.suppress(HelloError):
        normal = normalise([hello])
        assert difference(normal, normal) == []
        comparison = compare("left", normal, "right", normal)
        assert comparison.same
        assert all(line.isprintable() for line in comparison.as_text(width=100).splitlines())
    return None


def run_learn(data: bytes) -> None:
    """A hello -> what is learned -> template and TOML -> the same again."""
    try:
        hello = parse_client_hello(data)
        learned = learn_parsed([hello]).hello
    except HelloError as error:
        return sound(error)
    template = compile_template(learned)
    spec = parse_profile(_NAME, {"hello": exact_toml.as_table(learned)}, None, "learned")
    assert spec.exact == learned
    assert spec.template == template
    again = tomllib.loads(as_toml(spec))["profiles"][_NAME]
    assert parse_profile(_NAME, again, None, "learned").template == template
    assert learn_parsed([hello, hello]).hello == learned
    return None


def run_mirror(data: bytes) -> None:
    """A hello -> an offer that repeats it, or a refusal; also where what cannot be sent is left out."""
    for mirror in _mirrors():
        try:
            offer = mirror.offer(data)
        except ProxyError as error:
            refused(error)
            continue
        hello = parse_client_hello(data)
        assert offer.alpn == hello.alpn
        assert mirror.offer(written(hello)) is offer


def refused(error: ProxyError) -> None:
    assert error.kind is Kind.HELLO_NOT_REPRODUCIBLE
    sound(error)


@cache
def _mirrors() -> tuple[Mirror, Mirror]:
    def make(spec: HelloSpec) -> ClientContext:
        return ClientContext(spec, None, verify_chain=False, verify_host=False)

    return Mirror(make, drop=False), Mirror(make, drop=True)


def run_capture(data: bytes) -> None:
    """`capture.records`: whatever file somebody has."""
    try:
        found = read_hellos(data)
    except CaptureError as error:
        return sound(error)
    assert found
    for one in found:
        assert one.where.isprintable()
    with contextlib.suppress(HelloError):
        clients = clients_of(found)
        assert sum(len(client.hellos) for client in clients) <= len(found)
        assert all(str(client).isprintable() for client in clients)
    return None


def run_pcap(data: bytes) -> None:
    """`capture.pcap`: nothing is made of nothing."""
    try:
        streams = tcp_streams(data)
    except CaptureError as error:
        return sound(error)
    assert sum(len(stream.data) for stream in streams) <= len(data)
    return None


# --- heads --------------------------------------------------------------------------------------------------


def run_head(data: bytes) -> None:
    """`wire.connect`: a request whose authority is spelled one way only."""
    try:
        request = parse_connect(data)
    except ProxyError as error:
        return sound(error)
    authority = request.authority
    assert 1 <= authority.port <= 65535
    assert parse_authority(str(authority).encode()) == authority
    assert parse_connect(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode()).authority == authority
    return None


def run_host(data: bytes) -> None:
    """`wire.authority`: what is a host stays the same host."""
    with contextlib.suppress(HostError, UnicodeDecodeError):
        host = parse_host(data.decode())
        assert parse_host(host) == host
        assert host.isascii()
    try:
        authority = parse_authority(data)
    except ProxyError as error:
        return sound(error)
    assert parse_authority(str(authority).encode()) == authority
    return None


# --- TOML ---------------------------------------------------------------------------------------------------


def run_profile(data: bytes) -> None:
    """A user's profile tables: read, compiled, written, read."""
    try:
        table = parse_toml(data, "fuzzed.toml")
        settings = layer_settings(table, "fuzzed.toml").settings
        catalog = Catalog.load(settings.profile_tables, "fuzzed.toml")
    except ConfigError as error:  # and ProfileError, which is one
        return sound(error)
    for name in settings.profile_tables:
        spec = catalog.require(name, source="fuzzed.toml", key="")
        text = as_toml(spec)
        again = Catalog.load(tomllib.loads(text)["profiles"], "again.toml")
        twice = again.require(name, source="again.toml", key="")
        assert as_toml(twice) == text
        assert twice.template == spec.template
    return None


def run_config(data: bytes) -> None:
    """A configuration file; and its lines, as the environment would say them."""
    try:
        table = parse_toml(data, "fuzzed.toml")
        layer_settings(table, "fuzzed.toml")
    except ConfigError as error:
        sound(error)
    lines = data.decode("utf-8", "replace").replace("\0", "").splitlines()
    env = {
        f"POLYTLS_{name.strip().upper()}": value for name, _, value in (line.partition("=") for line in lines)
    }
    with contextlib.suppress(ConfigError):
        layer_settings({}, "defaults", env)


# --- seeds --------------------------------------------------------------------------------------------------


def _native(target: str, skip: int = 0) -> list[bytes]:
    return [path.read_bytes()[skip:] for path in sorted((CORPUS / target).iterdir())]


def _hellos() -> list[bytes]:
    clients = ("chrome-131-android", "edge-101", "node-20", "python-3.11", "tor-14.5", "wget-1.21")
    return _native("hello") + [samples(name)[0] for name in clients]


def _captures() -> list[bytes]:
    hello, other = samples("openssl-3.0")[0], samples("safari-15.3")[0]
    golden = json.dumps({"name": "a", "samples": [hello.hex(), other.hex()]}).encode()
    lines = b"".join(json.dumps({"hello": one.hex()}).encode() + b"\n" for one in (hello, other))
    return [*_pcaps(), hello + other, hello[5:], hello.hex().encode(), hello.hex(":").encode(), golden, lines]


def _pcaps() -> list[bytes]:
    hello = samples("curl-7.88")[0]
    flow, back = Flow(), Flow(source="2001:db8::1", destination="2001:db8::2", source_port=1)
    packets = [
        framed(ETHERNET, packet) for packet in flow.packets(hello, 200) + back.packets(b"CONNECT" + hello)
    ]
    bare = [framed(RAW, packet) for packet in flow.packets(hello)]
    return [pcap(packets), pcap(bare, RAW, ">"), pcapng(packets), pcap(list(reversed(packets)))]


def _heads() -> list[bytes]:
    return [
        *_native("head", 1),
        b"CONNECT [::1]:443 HTTP/1.0\r\nX-PolyTLS-Upstream-Profile: chrome\r\nA:\t b\r\n\r\n",
        "CONNECT b\u00fccher.example:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode(),
    ]


def _hosts() -> list[bytes]:
    texts = (
        "a.test:443",
        "[::ffff:1.2.3.4]:1",
        "127.0.0.1:65535",
        "xn--bcher-kva.example",
        "b\u00fccher.example:8",
    )
    more = ("1.2.3.4.", "0x7f.1:80", "a_b.test:1", "\u3002.test:1", "fa\u00df.de:443", "a" * 63 + ".test:1")
    return [text.encode() for text in (*texts, *more)]


@cache
def _profile_texts() -> tuple[bytes, ...]:
    catalog = Catalog.load({}, "seeds")
    exact = [
        catalog.require(name, source="", key="")
        for name in ("chrome-152", "firefox-155", "java-17", "default")
    ]
    edited = b'[profiles.a]\nbase = "firefox-155"\nalpn = ["h2"]\naliases = ["b"]\n[profiles.c]\nbase = "a"\n'
    return (*(as_toml(spec).encode() for spec in exact), edited)


def _configs() -> list[bytes]:
    return [(ROOT / "config" / "polytls.toml").read_bytes(), *_profile_texts()]


def _found(name: str, seeds: Callable[[], list[bytes]]) -> Callable[[], list[bytes]]:
    return lambda: seeds() + [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]


TARGETS = {
    name: Target(run, _found(name, seeds))
    for name, run, seeds in (
        ("hello", run_hello, _hellos),
        ("learn", run_learn, _hellos),
        ("mirror", run_mirror, _hellos),
        ("capture", run_capture, _captures),
        ("pcap", run_pcap, _pcaps),
        ("head", run_head, _heads),
        ("host", run_host, _hosts),
        ("profile", run_profile, lambda: list(_profile_texts())),
        ("config", run_config, _configs),
    )
}
