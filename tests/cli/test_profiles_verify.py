"""`polytls profiles verify`: lines, JSON and exit codes. tests/capture/test_verify.py judges the judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polytls.cli import main
from tests.capture.hellos import GOLDENS, OPENSSL

Capsys = pytest.CaptureFixture[str]


def test_a_line_for_each_and_what_it_was_compared_with(capsys: Capsys) -> None:
    assert main(["profiles", "verify", "CURL", "chrome-131", "curl-7.88", "default"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "curl-7.88   exact  (its own definition)",
        "chrome-131  exact  (its own definition)",
        "default     not compared  (nothing: it is defined by knobs)",
    ]
    assert printed.err == "polytls: 3 profiles: 2 exact, 1 not compared\n"
    assert main(["profiles", "verify", "curl", "--against", str(GOLDENS)]) == 0
    again = "asked for another group, asked for its cookie, resuming"
    assert capsys.readouterr().out == f"curl-7.88  exact  (curl-7.88.json; also {again})\n"
    assert main(["profiles", "verify", "chrome-152", "--against", str(GOLDENS)]) == 0
    start = f"chrome-152  as defined  (chrome-152.json, an imitation's; also {again})"
    why = "because real Chromium 156 sends trust_anchors sorted, the same every time; the capture: "
    assert capsys.readouterr().out.startswith(f"{start}  {why}")


def test_all_of_them(capsys: Capsys) -> None:
    assert main(["profiles", "verify", "--connections", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 25
    assert not any("differs" in line for line in lines)


def test_what_differs_is_said_and_the_exit_code(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "chrome131.json").write_text(json.dumps({"samples": [hello.hex() for hello in OPENSSL]}))
    assert main(["profiles", "verify", "chrome-131", "curl", "--against", str(tmp_path)]) == 1
    wrong, right = capsys.readouterr().out.splitlines()
    assert wrong.startswith("chrome-131  differs  (chrome131.json)  cipher suites: lacks ")
    assert right == "curl-7.88   exact  (its own definition)"
    assert main(["profiles", "verify", "chrome-131", "--against", str(tmp_path), "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["profile"], found["verdict"], found["connections"]) == ("chrome-131", "differs", 8)
    assert any(text.startswith("extensions") for text in found["differences"])


def test_mistakes(tmp_path: Path, capsys: Capsys) -> None:
    for arguments, says in (
        (["none"], "unknown profile"),
        (["--against", str(tmp_path)], "is no directory of captures"),
    ):
        assert main(["profiles", "verify", *arguments]) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "curl.json").write_text("{}")
    assert main(["profiles", "verify", "curl", "--against", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"polytls: error: {tmp_path}/curl.json: there is no ClientHello in it\n"
    with pytest.raises(SystemExit):
        main(["profiles", "verify", "--connections", "0"])
