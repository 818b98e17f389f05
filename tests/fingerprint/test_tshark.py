"""JA3 (and JA4, where it has them) as tshark computes them, of every captured hello: by a stranger's code."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.wire.client_hello import ClientHello, parse_client_hello
from tests.capture.packets import RAW, Flow, pcap
from tests.golden.profiles import CLIENTS

SECONDS = 120.0
FIELDS: dict[str, Callable[[ClientHello], str]] = {
    "tls.handshake.ja3_full": lambda hello: ja3(hello).ja3,
    "tls.handshake.ja3": lambda hello: ja3(hello).ja3_hash,
    "tls.handshake.ja4": lambda hello: ja4(hello).ja4,
    "tls.handshake.ja4_r": lambda hello: ja4(hello).ja4_r,
}
PORT = 20000
"""Of the first hello; each has its own, by which tshark's lines are told apart."""


def captured() -> Iterator[bytes]:
    """Every stored hello of every client: first ones, retried ones and resumed ones."""
    for path in sorted(CLIENTS.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        yield from map(bytes.fromhex, document["samples"])
        for kind in ("retry", "retry_cookie", "resumed"):
            for pair in document[kind]:
                yield bytes.fromhex(pair["first"])
                yield bytes.fromhex(pair["second"])


@cache
def known_fields() -> frozenset[str]:
    """Those that this tshark has: JA4 came with version 4.2."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed")
    listed = subprocess.run(
        [program, "-G", "fields"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    return frozenset(line.split("\t")[2] for line in listed.stdout.splitlines() if line.startswith("F\t"))


@pytest.fixture(scope="module")
def hellos() -> list[bytes]:
    return list(captured())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, hellos: list[bytes]) -> Path:
    packets = [
        packet
        for number, records in enumerate(hellos)
        for packet in Flow(source_port=PORT + number, isn=number).packets(records)
    ]
    path = tmp_path_factory.mktemp("tshark") / "hellos.pcap"
    path.write_bytes(pcap(packets, RAW))
    return path


@pytest.mark.parametrize("field", FIELDS)
def test_every_captured_hello(file: Path, hellos: list[bytes], field: str) -> None:
    if field not in known_fields():
        pytest.skip(f"this tshark has no {field}")
    options = ["-Y", "tls.handshake.type == 1", "-T", "fields", "-e", "tcp.srcport", "-e", field]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(file), *options],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    theirs = dict(line.split("\t") for line in done.stdout.splitlines())
    ours = {str(PORT + number): FIELDS[field](parse_client_hello(one)) for number, one in enumerate(hellos)}
    assert len(ours) > 400
    assert theirs == ours
