from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from polytls.fingerprint.ja4 import MAX_COUNT, Transport, ja4
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_GOLDENS = REPOSITORY.parent / "shared" / "goldens"
GOLDEN = json.loads((REPOSITORY / "tests" / "golden" / "hellos.json").read_text("utf-8"))

# The example that JA4.md works through.
CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
EXTENSIONS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
ALGORITHMS = "0403,0804,0401,0503,0805,0501,0806,0601"
SORTED_CIPHERS = "002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9"
SORTED_EXTENSIONS = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01"


def numbers(text: str) -> list[int]:
    return [int(value, 16) for value in text.split(",")]


def vec16(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def alpn(*protocols: bytes) -> bytes:
    return vec16(b"".join(bytes((len(protocol),)) + protocol for protocol in protocols))


def hello(ciphers: list[int], extensions: dict[int, bytes], legacy_version: int = 0x0303) -> ClientHello:
    return ClientHello(
        record_version=0x0301,
        legacy_version=legacy_version,
        random=bytes(32),
        session_id=b"",
        cipher_suites=tuple(ciphers),
        compression_methods=(0,),
        extensions=tuple(Extension(number, body) for number, body in extensions.items()),
    )


def documented(algorithms: bytes = bytes.fromhex(ALGORITHMS.replace(",", ""))) -> ClientHello:
    bodies = dict.fromkeys(numbers(EXTENSIONS), b"")
    bodies[0x0010] = alpn(b"h2", b"http/1.1")
    bodies[0x000D] = vec16(algorithms)
    bodies[0x002B] = bytes.fromhex("06 3a3a 0304 0303")
    return hello([0x8A8A, *numbers(CIPHERS)], {0x0A0A: b"", **bodies, 0x1A1A: b"\x00"})


def test_the_documented_example() -> None:
    found = ja4(documented())
    assert found.ja4 == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert found.ja4_r == f"t13d1516h2_{SORTED_CIPHERS}_{SORTED_EXTENSIONS}_{ALGORITHMS}"
    assert found.ja4_o == "t13d1516h2_acb858a92679_18f69afefd3d"
    assert found.ja4_ro == f"t13d1516h2_{CIPHERS}_{EXTENSIONS}_{ALGORITHMS}"


def test_without_signature_algorithms_there_is_no_underscore() -> None:
    found = ja4(documented(algorithms=b""))
    assert found.ja4 == "t13d1516h2_8daaf6152771_6d807ffa2a79"
    assert found.ja4_r == f"t13d1516h2_{SORTED_CIPHERS}_{SORTED_EXTENSIONS}"


def test_grease_signature_algorithms_are_ignored() -> None:
    greased = bytes.fromhex("9a9a" + ALGORITHMS.replace(",", ""))
    assert ja4(documented(greased)) == ja4(documented())


def test_nothing_at_all() -> None:
    found = ja4(hello([], {}, legacy_version=0x0301))
    assert found.ja4 == found.ja4_o == "t10i000000_000000000000_000000000000"
    assert found.ja4_r == found.ja4_ro == "t10i000000__"


def test_extensions_told_in_a_leave_nothing_for_c() -> None:
    found = ja4(hello([], {0: b"", 16: alpn(b"h2")}))
    assert found.ja4 == "t12d0002h2_000000000000_000000000000"
    assert found.ja4_o.endswith("_" + hashlib.sha256(b"0000,0010").hexdigest()[:12])


@pytest.mark.parametrize("count", [9, MAX_COUNT - 1, MAX_COUNT, MAX_COUNT + 1])
def test_counts_have_two_digits(count: int) -> None:
    found = ja4(hello(list(range(count)), dict.fromkeys(range(0x100, 0x100 + count), b"")))
    assert found.ja4[4:8] == f"{min(count, 99):02}" * 2


@pytest.mark.parametrize(
    ("protocols", "shown"),
    [
        ([], "00"),
        ([b""], "00"),
        ([b"", b"h2"], "00"),
        ([b"h2"], "h2"),
        ([b"http/1.1", b"h2"], "h1"),
        ([b"x"], "xx"),
        # JA4.md, "ALPN Extension Value"
        ([b"\xab"], "ab"),
        ([b"\xab\xcd"], "ad"),
        ([b"\x30\xab"], "3b"),
        ([b"\x30\x31\xab\xcd"], "3d"),
        ([b"\x30\xab\xcd\x31"], "01"),
        # not a letter to JA4.md, whatever it is to Unicode or to a reader
        ([b"h-"], "6d"),
        ([b"_2"], "52"),
        ([b"\xe9a"], "e1"),
    ],
)
def test_alpn(protocols: list[bytes], shown: str) -> None:
    assert ja4(hello([], {16: alpn(*protocols)})).ja4[8:10] == shown


@pytest.mark.parametrize(
    ("legacy", "offered", "shown"),
    [
        (0x0002, "", "s2"),
        (0x0300, "", "s3"),
        (0x0301, "", "10"),
        (0x0302, "", "11"),
        (0x0303, "", "12"),
        (0x0305, "", "00"),
        (0xFEFF, "", "d1"),
        (0xFEFD, "", "d2"),
        (0x0303, "0303 0304 0302", "13"),
        (0x0303, "fafa 0303", "12"),
        (0x0302, "fafa", "11"),
        (0x0303, "7f1c 0304", "00"),
        (0xFEFD, "fefd fefc feff", "d3"),
    ],
)
def test_version(legacy: int, offered: str, shown: str) -> None:
    versions = bytes.fromhex(offered)
    extensions = {0x002B: bytes((len(versions),)) + versions} if offered else {}
    assert ja4(hello([], extensions, legacy)).ja4[1:3] == shown


@pytest.mark.parametrize("transport", list(Transport))
def test_transport_is_the_first_letter(transport: Transport) -> None:
    assert ja4(documented(), transport).ja4 == transport.value + "13d1516h2_8daaf6152771_e5627efa2ab1"


def test_a_malformed_extension_is_the_hellos_error() -> None:
    with pytest.raises(HelloError, match="signature_algorithms"):
        ja4(hello([], {13: b"\x00"}))


@pytest.mark.parametrize("entry", GOLDEN["captured"] + GOLDEN["published"], ids=lambda entry: entry["ja4"])
def test_golden(entry: dict[str, Any]) -> None:
    agrees(entry)


@pytest.mark.skipif(not SHARED_GOLDENS.is_dir(), reason="the shared goldens are not beside the repository")
def test_published_vectors() -> None:
    vectors = json.loads((SHARED_GOLDENS / "ja4-vectors.json").read_text("utf-8"))["vectors"]
    assert vectors
    for vector in vectors:
        agrees(vector)


@pytest.mark.skipif(not SHARED_GOLDENS.is_dir(), reason="the shared goldens are not beside the repository")
def test_shared_goldens() -> None:
    seen = 0
    for path in sorted(SHARED_GOLDENS.glob("*.json")):
        golden = json.loads(path.read_text("utf-8"))
        for index, sample in enumerate(golden.get("samples", [])):
            found = ja4(parse_client_hello(bytes.fromhex(sample)))
            assert found.ja4 in golden["ja4_seen"], path.stem
            assert found.ja4_r == golden["ja4_r"], path.stem
            if index == 0 or not golden["permuted"]:  # of a permuting client, the first sample's is stored
                assert found.ja4_o == golden["ja4_o"], path.stem
            seen += 1
    assert seen >= 3


def agrees(entry: dict[str, Any]) -> None:
    found = ja4(parse_client_hello(bytes.fromhex(entry["hello"])))
    for form in ("ja4", "ja4_r", "ja4_o", "ja4_ro"):
        if form in entry:
            assert getattr(found, form) == entry[form]
