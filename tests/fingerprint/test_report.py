from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.fingerprint.ja4 import Transport
from polytls.fingerprint.report import fingerprint
from polytls.wire.client_hello import (
    ClientHello,
    Extension,
    HelloError,
    parse_client_hello,
    parse_client_hello_message,
)

REPOSITORY = Path(__file__).resolve().parents[2]
CAPTURED = {
    entry["name"]: bytes.fromhex(entry["hello"])
    for entry in json.loads((REPOSITORY / "tests" / "golden" / "hellos.json").read_text("utf-8"))["captured"]
}
BARE = ClientHello(None, 0x0303, bytes(32), b"", (), (), ())


def test_what_firefox_133_shows() -> None:
    report = fingerprint(parse_client_hello(CAPTURED["firefox133"]))
    assert report.ja4.ja4 == "t13d1716h2_5b57614c22b0_eeeea6562960"
    assert report.sni == "golden.test"
    assert report.alpn == ("h2", "http/1.1")
    assert (report.record_version, report.legacy_version) == ("TLS 1.0", "TLS 1.2")
    assert report.supported_versions == ("TLS 1.3", "TLS 1.2")
    assert report.supported_groups[:3] == ("X25519MLKEM768", "x25519", "secp256r1")
    assert report.key_shares == ("X25519MLKEM768", "x25519", "secp256r1")
    assert report.cipher_suites[0] == "TLS_AES_128_GCM_SHA256"
    assert report.signature_algorithms[0] == "ecdsa_secp256r1_sha256"
    assert "encrypted_client_hello" in report.extensions


def test_grease_is_shown_as_such() -> None:
    report = fingerprint(parse_client_hello(CAPTURED["chrome100"]))
    assert report.cipher_suites[0] == report.extensions[0] == report.supported_groups[0] == "GREASE"


def test_three_browsers_are_three_clients() -> None:
    reports = [
        fingerprint(parse_client_hello(CAPTURED[name])) for name in ("chrome100", "firefox133", "safari180")
    ]
    for form in ("ja3_hash", "ja3n_hash", "ja4", "ja4_o"):
        assert len({report.as_dict()[form] for report in reports}) == 3


@pytest.mark.parametrize("name", sorted(CAPTURED))
def test_as_dict_survives_json(name: str) -> None:
    described = fingerprint(parse_client_hello(CAPTURED[name])).as_dict()
    assert json.loads(json.dumps(described)) == described
    assert isinstance(described["ja4"], str)


def test_a_bare_hello() -> None:
    report = fingerprint(BARE, Transport.QUIC)
    assert report.sni is report.record_version is None
    assert report.ja4.ja4 == "q12i000000_000000000000_000000000000"
    lines = dict(line.split(maxsplit=1) for line in report.as_text().splitlines() if "," not in line)
    assert lines["versions"] == "TLS 1.2"
    assert lines["extensions"] == "-"


def test_as_text_has_one_line_per_fact() -> None:
    lines = fingerprint(parse_client_hello(CAPTURED["openssl"])).as_text().splitlines()
    assert lines[0] == "JA4                   t13d311000_e8f1e7e78f70_1f22a2ca17c4"
    assert "versions              TLS 1.3, TLS 1.2, TLS 1.1, TLS 1.0" in lines
    assert "server name           golden.test" in lines


def test_what_a_stranger_sends_cannot_steer_a_terminal() -> None:
    name = b"\x1b[2J\\\xff\n"
    body = (len(name) + 3).to_bytes(2, "big") + b"\x00" + len(name).to_bytes(2, "big") + name
    hello = ClientHello(None, 0x0303, bytes(32), b"", (), (), (Extension(0, body),))
    assert fingerprint(hello).sni == r"\x1b[2J\x5c\xff\x0a"


@settings(deadline=None)
@given(
    ciphers=st.lists(st.integers(0, 0xFFFF), max_size=120),
    extensions=st.dictionaries(st.integers(0, 60), st.binary(max_size=8), max_size=8),
)
def test_any_hello_is_described_or_is_malformed(ciphers: list[int], extensions: dict[int, bytes]) -> None:
    parts = tuple(Extension(number, body) for number, body in extensions.items())
    try:
        report = fingerprint(ClientHello(None, 0x0303, bytes(32), b"", tuple(ciphers), (0,), parts))
    except HelloError:
        return
    assert report.as_text().isprintable() or "\n" in report.as_text()
    assert len(report.ja4.ja4) == 36


def test_records_or_not_is_the_same_fingerprint() -> None:
    records = CAPTURED["openssl"]
    whole, bare = parse_client_hello(records), parse_client_hello_message(records[9:])
    assert fingerprint(whole).ja4 == fingerprint(bare).ja4
    assert fingerprint(whole).ja3 == fingerprint(bare).ja3
