"""Captured hellos for the tests of everything that reads them."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = REPOSITORY / "tests" / "golden" / "clients"
SHARED_GOLDENS = REPOSITORY.parent / "shared" / "goldens"
WITHOUT_SHARED = "the shared goldens are not beside the repository"


def samples(name: str) -> list[bytes]:
    """The hellos of a golden, as records."""
    document = json.loads((GOLDENS / f"{name}.json").read_text())
    return [bytes.fromhex(sample) for sample in document["samples"]]


CHROME = samples("chrome-131")
FIREFOX = samples("firefox-135")
OPENSSL = samples("openssl-3.0")


def message(records: bytes) -> bytes:
    """The ClientHello message of a hello that came in one record."""
    return records[5:]


def split(records: bytes, *sizes: int) -> bytes:
    """The same message in several records, the first ones of these sizes."""
    rest, found = message(records), b""
    for size in (*sizes, len(rest)):
        part, rest = rest[:size], rest[size:]
        if part:
            found += records[:3] + len(part).to_bytes(2, "big") + part
    return found
