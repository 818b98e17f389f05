"""`polytls fingerprint` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from polytls.cli import main
from polytls.fingerprint.ja4 import ja4
from polytls.wire.client_hello import parse_client_hello
from tests.capture.hellos import CHROME, OPENSSL, REPOSITORY
from tests.capture.packets import Flow, pcap
from tests.peers.serve import HANG_SECONDS, clean_environment

OPENSSL_JA4 = ja4(parse_client_hello(OPENSSL[0]))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "two.pcap"
    flows = [Flow(source_port=1).packets(OPENSSL[0]), Flow(source_port=2).packets(CHROME[0])]
    path.write_bytes(pcap([packet for flow in flows for packet in flow]))
    return path


def test_every_fingerprint_of_every_hello(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fingerprint", str(capture)]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    lines = {line[:22].rstrip(): line[22:] for line in first.splitlines()}
    assert lines["found in"] == "192.0.2.1:1 > 192.0.2.2:443"
    assert lines["JA4"] == OPENSSL_JA4.ja4
    assert lines["JA4_r"] == OPENSSL_JA4.ja4_r
    assert lines["JA4_o"] == OPENSSL_JA4.ja4_o
    assert lines["JA4_ro"] == OPENSSL_JA4.ja4_ro
    assert len(lines["JA3"]) == len(lines["JA3N"]) == 32
    assert lines["key shares"] == "x25519"
    assert lines["record version"] == "TLS 1.0"
    assert "X25519MLKEM768" in second or "Kyber" in second


def test_json_is_one_object_a_line_that_can_be_read_again(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fingerprint", "--json", str(capture)]) == 0
    printed = capsys.readouterr().out
    first, _ = (json.loads(line) for line in printed.splitlines())
    assert (first["ja4"], first["ja4_ro"]) == (OPENSSL_JA4.ja4, OPENSSL_JA4.ja4_ro)
    assert (first["second"], first["hello"]) == (False, OPENSSL[0].hex())
    again = tmp_path / "again.json"
    again.write_text(printed)
    assert main(["fingerprint", "--json", str(again)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["ja4"] == OPENSSL_JA4.ja4


def test_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "polytls", "fingerprint", "-"],
        input=OPENSSL[0].hex().encode(),
        capture_output=True,
        cwd=REPOSITORY,
        env=clean_environment(),
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert OPENSSL_JA4.ja4.encode() in done.stdout


def test_the_second_hello_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hello.bin"
    path.write_bytes(OPENSSL[0] * 2)
    assert main(["fingerprint", str(path)]) == 0
    assert capsys.readouterr().out.count("(answers a HelloRetryRequest)") == 1


def test_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    assert main(["fingerprint", str(path)]) == 1
    assert capsys.readouterr().err == f"polytls: error: {path}: No such file or directory\n"
    path.write_text("nothing of the sort")
    assert main(["fingerprint", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"polytls: error: {path}: this is no ClientHello: expected are")
    groups = OPENSSL[0].replace(b"\x00\x0a\x00\x16\x00\x14", b"\x00\x0a\x00\x16\x00\x15")
    path.write_bytes(groups + CHROME[0])
    assert main(["fingerprint", str(path)]) == 1
    printed = capsys.readouterr()
    assert "polytls: error: hello: the supported_groups extension is malformed" in printed.err
    assert printed.out.count("JA4_ro") == 1
