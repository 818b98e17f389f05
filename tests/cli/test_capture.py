"""`polytls capture` as a user meets it: real clients, its output, its files, its end."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from polytls.capture.records import read_hellos
from polytls.cli import main
from tests.capture.hellos import OPENSSL
from tests.cli.capturing import Capturing
from tests.peers.serve import HANG_SECONDS
from tests.peers.tools import curl


def send(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(100)


def test_a_report_for_each_and_an_end_after_count(tmp_path: Path) -> None:
    with Capturing("capture", "--count", "2", "--save", tmp_path / "saved" / "here") as capturing:
        assert send(capturing.port, OPENSSL[0]) == bytes.fromhex("15030300020228")
        assert send(capturing.port, b"GET / HTTP/1.1\r\n\r\n") == b""
        curl("-k", capturing.url, code=35)
        code, out, err = capturing.end()
    assert code == 0
    first, second = out.rstrip("\n").split("\n\n")
    assert first.startswith("client                127.0.0.1:")
    assert "\nJA4_ro " in first
    assert "\nALPN                  h2, http/1.1\n" in second
    assert "it does not begin with a TLS handshake\n" in err
    saved = sorted((tmp_path / "saved" / "here").iterdir())
    assert [path.name[:5] for path in saved] == ["0001-", "0002-"]
    assert read_hellos(saved[0].read_bytes())[0].raw == OPENSSL[0]


def test_json_and_tls_with_the_proxys_own_root(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    with Capturing("capture", "--tls", "--json", "--ca-dir", ca, cwd=tmp_path) as capturing:
        to = ("--connect-to", f"::127.0.0.1:{capturing.port}", "https://any.lab.test/")
        answered = json.loads(curl("--cacert", str(ca / "certificate.pem"), *to).stdout)
        code, out, err = capturing.end(signal.SIGINT)
    assert code == 0
    assert json.loads(out) == answered
    assert answered["sni"] == "any.lab.test"
    assert answered["tls"]["alpn"] == "h2"
    assert "root CA      SHA-256 " in err
    assert "Traceback" not in err


def test_saving_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(2):
        with Capturing("capture", "--count", "1", "--save", tmp_path) as capturing:
            send(capturing.port, OPENSSL[0])
            assert capturing.end()[0] == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_sigterm_ends_it() -> None:
    with Capturing("capture") as capturing:
        assert capturing.end(signal.SIGTERM)[:2] == (0, "")


def test_a_reader_that_has_enough_is_no_error() -> None:
    with Capturing("capture", "--json") as capturing:
        assert capturing.process.stdout is not None
        capturing.process.stdout.close()
        capturing.process.stdout = None
        send(capturing.port, OPENSSL[0])
        code, _, err = capturing.end()
    assert (code, err) == (0, "")


def test_what_is_wrong_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["capture", "--listen", address]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"polytls: error: cannot listen on {address}: ")
    assert said.endswith("; choose another address with --listen\n")
    for options, says in (
        (["--listen", "nowhere"], "--listen: "),
        (["--ca-dir", "ca"], "add --tls"),
    ):
        assert main(["capture", *options]) == 2
        assert says in capsys.readouterr().err
    for options in (["--count", "0"], ["--count", "x"]):
        with pytest.raises(SystemExit):
            main(["capture", *options])
