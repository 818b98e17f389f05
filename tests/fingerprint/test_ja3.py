from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polytls.fingerprint.ja3 import ja3
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_GOLDENS = REPOSITORY.parent / "shared" / "goldens"
CAPTURED = json.loads((REPOSITORY / "tests" / "golden" / "hellos.json").read_text("utf-8"))["captured"]


def hello(ciphers: tuple[int, ...] = (), *extensions: tuple[int, str]) -> ClientHello:
    return ClientHello(
        record_version=0x0301,
        legacy_version=0x0303,
        random=bytes(32),
        session_id=b"",
        cipher_suites=ciphers,
        compression_methods=(0,),
        extensions=tuple(Extension(number, bytes.fromhex(data)) for number, data in extensions),
    )


def test_the_text_is_the_five_lists_in_wire_order_without_grease() -> None:
    found = ja3(
        hello(
            (0x1A1A, 49199, 47), (0x2A2A, ""), (11, "0100"), (10, "00064a4a001d0017"), (0, ""), (0xFAFA, "00")
        )
    )
    assert found.ja3 == "771,49199-47,11-10-0,29-23,0"
    assert found.ja3n == "771,49199-47,0-10-11,29-23,0"


def test_absent_lists_are_empty_and_the_hash_is_md5() -> None:
    found = ja3(hello())
    assert found.ja3 == found.ja3n == "771,,,,"
    # The MD5 that the description of JA3 gives for a hello without extensions.
    ciphers = (4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99)
    old = ja3(ClientHello(0x0301, 0x0301, bytes(32), b"", ciphers, (0,), ()))
    assert old.ja3 == "769,4-5-10-9-100-98-3-6-19-18-99,,,"
    assert old.ja3_hash == "de350869b8c85de67a350c8d186f11e6"


def test_the_documented_example() -> None:
    # The description of JA3, whose example has every list.
    found = ja3(
        ClientHello(
            0x0301,
            0x0301,
            bytes(32),
            b"",
            (47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
            (0,),
            tuple(
                Extension(n, bytes.fromhex(b)) for n, b in ((0, ""), (10, "0006001700180019"), (11, "0100"))
            ),
        )
    )
    assert found.ja3 == "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    assert found.ja3_hash == "ada70206e40642a3e4461f35503241d5"


@pytest.mark.parametrize("entry", CAPTURED, ids=lambda entry: entry["name"])
def test_captured(entry: dict[str, Any]) -> None:
    found = ja3(parse_client_hello(bytes.fromhex(entry["hello"])))
    assert (found.ja3_hash, found.ja3n_hash) == (entry["ja3"], entry["ja3n"])


@pytest.mark.skipif(not SHARED_GOLDENS.is_dir(), reason="the shared goldens are not beside the repository")
def test_shared_goldens() -> None:
    seen = 0
    for path in sorted(SHARED_GOLDENS.glob("*.json")):
        golden = json.loads(path.read_text("utf-8"))
        for index, sample in enumerate(golden.get("samples", [])):
            found = ja3(parse_client_hello(bytes.fromhex(sample)))
            assert found.ja3n_hash == golden["ja3n"], path.stem
            if index == 0 or not golden["permuted"]:  # of a permuting client, the first sample's is stored
                assert found.ja3_hash == golden["ja3"], path.stem
            seen += 1
    assert seen >= 3


def test_a_malformed_list_is_the_hellos_error() -> None:
    with pytest.raises(HelloError, match="supported_groups"):
        ja3(hello((), (10, "00")))
