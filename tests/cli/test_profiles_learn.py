"""`polytls profiles learn`: from every source to a profile that is the client."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from polytls.capture.sources import profile_in
from polytls.cli import main
from polytls.errors import UserError
from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.profiles import Catalog
from polytls.wire.client_hello import parse_client_hello
from tests.capture.hellos import CHROME, FIREFOX, GOLDENS, OPENSSL, message
from tests.capture.packets import Flow, pcap, pcapng
from tests.cli.capturing import Capturing
from tests.peers.serve import HANG_SECONDS
from tests.peers.tools import curl

CATALOG = Catalog.load({}, "none")
Capsys = pytest.CaptureFixture[str]


def packets(*hellos: bytes) -> list[bytes]:
    flows = [Flow(source_port=port).packets(hello) for port, hello in enumerate(hellos, 1)]
    return [packet for flow in flows for packet in flow]


@pytest.mark.parametrize(
    "write",
    [
        b"".join,
        lambda hellos: b"".join(map(message, hellos)),
        lambda hellos: "\n".join(hello.hex() for hello in hellos).encode(),
        lambda hellos: pcap(packets(*hellos)),
        lambda hellos: pcapng(packets(*hellos)),
        lambda _: (GOLDENS / "chrome-131.json").read_bytes(),
    ],
    ids=["records", "messages", "hex", "pcap", "pcapng", "golden"],
)
def test_every_source(write: Callable[[list[bytes]], bytes], tmp_path: Path, capsys: Capsys) -> None:
    source, out = tmp_path / "source", tmp_path / "lab.toml"
    source.write_bytes(write(CHROME))
    assert main(["profiles", "learn", str(source), "--name", "Lab", "--out", str(out)]) == 0
    assert capsys.readouterr().err == f"{out}: lab\n"
    text = out.read_text()
    assert text.startswith("# learned from t13d1516h2_8daaf6152771_02713d6af862 (3 hellos for golden.test)\n")
    assert 'captured_from = "source"' in text
    assert str(tmp_path) not in text
    spec = profile_in(out)
    assert (spec.name, spec.permute_extensions) == ("lab", True)
    # It can be used as a configuration, and is the client.
    assert main(["profiles", "show", "lab", "--config", str(out)]) == 0
    assert main(["profiles", "diff", str(out), str(GOLDENS / "chrome-131.json")]) == 0
    assert main(["profiles", "diff", str(out), "chrome-131"]) == 0


def test_what_was_learned_is_what_is_sent(tmp_path: Path, capsys: Capsys) -> None:
    out = tmp_path / "lab.toml"
    assert (
        main(["profiles", "learn", str(GOLDENS / "curl-7.88.json"), "--name", "lab", "--out", str(out)]) == 0
    )
    goldens = tmp_path / "goldens"
    goldens.mkdir()
    (goldens / "lab.json").write_bytes((GOLDENS / "curl-7.88.json").read_bytes())
    capsys.readouterr()
    assert main(["profiles", "verify", "lab", "--config", str(out), "--against", str(goldens)]) == 0
    again = "asked for another group, asked for its cookie, resuming"
    assert capsys.readouterr().out == f"lab  exact  (lab.json; also {again})\n"


def test_one_sample_goes_to_standard_output_with_its_limits(tmp_path: Path, capsys: Capsys) -> None:
    source = tmp_path / "hello.hex"
    source.write_text(OPENSSL[0].hex())
    assert main(["profiles", "learn", str(source), "--name", "one"]) == 0
    printed = capsys.readouterr().out
    assert "# there was one sample: the order of extensions is taken to be fixed\n" in printed
    assert "\n[profiles.one]\n" in printed


def test_several_clients_are_a_file_each_or_an_error_that_names_them(tmp_path: Path, capsys: Capsys) -> None:
    source, out = tmp_path / "many.pcap", tmp_path / "profiles"
    source.write_bytes(pcap(packets(CHROME[0], FIREFOX[0], CHROME[1], FIREFOX[1], OPENSSL[0])))
    for options in ([], ["--out", str(tmp_path / "x.toml")]):
        assert main(["profiles", "learn", str(source), "--name", "lab", *options]) == 2
        said = capsys.readouterr().err
        assert "holds 3 clients (t13d1516h2_8daaf6152771_02713d6af862 (2 hellos for golden.test); " in said
        assert "--out DIR/" in said
    assert main(["profiles", "learn", str(source), "--name", "lab", "--out", f"{out}{os.sep}"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["lab-1.toml", "lab-2.toml", "lab-3.toml"]
    assert main(["profiles", "diff", str(out / "lab-2.toml"), str(GOLDENS / "firefox-135.json")]) == 0


def test_live(tmp_path: Path) -> None:
    out = tmp_path / "live.toml"
    with Capturing("profiles", "learn", "--name", "live", "--count", "2", "--out", out) as capturing:
        for _ in range(2):
            to = ("--connect-to", f"::127.0.0.1:{capturing.port}", "https://a.lab.test/")
            assert curl("-k", *to).stdout
        code, stdout, err = capturing.end()
    assert (code, stdout) == (0, "")
    assert ": 2 of 2\n" in err
    assert "captured_on = " in out.read_text()
    kept = next(GOLDENS.glob("curl-*.json"))
    installed = subprocess.run(
        ["curl", "--version"], capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    ).stdout.split()[1]
    if installed.startswith(kept.stem.removeprefix("curl-")):
        assert main(["profiles", "diff", str(out), "curl"]) == 0
        assert profile_in(out).http2 == CATALOG.require("curl", source="", key="").http2


def test_a_client_that_was_given_an_address_is_noted(tmp_path: Path) -> None:
    out = tmp_path / "live.toml"
    with Capturing("profiles", "learn", "--name", "live", "--count", "1", "--out", out) as capturing:
        curl("-k", capturing.url)
        assert capturing.end()[0] == 0
    assert "# it names no server" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--name", "x"], "either a SOURCE or"),
        (["file", "--listen", "127.0.0.1:0", "--name", "x"], "either a SOURCE or"),
        (["file", "--count", "2", "--name", "x"], "for --listen alone"),
        (["file", "--name", "no name"], "'no name' is not a profile name"),
        (["file", "--name", "Mirror"], '--name: "mirror" is the name by which clients ask'),
        (["file", "--name", "x", "--base", "chrome"], "--base is for JA3 and JA4_r texts alone"),
        (["771,1,,,", "--name", "x", "--base", "chrom"], '--base: "chrom": unknown profile (did you mean'),
        (["0" * 32, "--name", "x"], "this is a hash, and tells nothing: the JA3 text is needed"),
        (["771,1,2", "--name", "x"], "a JA3 text has five parts"),
    ],
)
def test_wrong_options(arguments: list[str], says: str, capsys: Capsys) -> None:
    assert main(["profiles", "learn", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_what_cannot_be_reproduced_is_said_by_name(tmp_path: Path, capsys: Capsys) -> None:
    source = tmp_path / "hello.bin"
    source.write_bytes(OPENSSL[0][:9] + b"\x03\x01" + OPENSSL[0][11:])
    assert main(["profiles", "learn", str(source), "--name", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"polytls: error: {source.name}: t1")
    assert "cannot be reproduced: its legacy version is TLS 1.0" in said
    with pytest.raises(UserError, match="is not TOML"):
        profile_in(source)


# --- HTTP/2 -----------------------------------------------------------------------------------------


def report(**more: object) -> str:
    """A line of `polytls capture --json`, as far as it counts."""
    return json.dumps({"client": "127.0.0.1:1", "hello": CHROME[0].hex(), **more})


FLIGHT = {
    "frames": [
        {"type": "SETTINGS", "flags": 0, "stream": 0, "settings": [[1, 65536], [0x1A2A, 5], [0x99, 1]]},
        {"type": "WINDOW_UPDATE", "flags": 0, "stream": 0, "increment": 7},
        {"type": "HEADERS", "flags": 5, "stream": 1},
    ],
    "pseudo_headers": [":method", ":authority", ":scheme", ":path"],
}


def test_a_first_flight_of_http2_is_learned(tmp_path: Path, capsys: Capsys) -> None:
    source, out = tmp_path / "capture.json", tmp_path / "lab.toml"
    source.write_text(report(http2=FLIGHT))
    assert main(["profiles", "learn", str(source), "--name", "lab", "--out", str(out)]) == 0
    http2 = profile_in(out).http2
    assert http2 is not None
    assert http2.akamai == "1:65536;153:1|07|0|m,a,s,p"
    assert '"GREASE",\n  { 0x0099 = 1 },' in out.read_text()
    assert main(["profiles", "diff", str(out), str(source), "--all"]) == 0
    assert "\n  GREASE " in capsys.readouterr().out
    assert main(["profiles", "diff", str(out), "chrome-131"]) == 1
    said = capsys.readouterr().out
    assert "HTTP/2 settings\n" in said
    assert "HTTP/2 window update\n" in said
    assert "HTTP/2 pseudo-headers\n" not in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "# how it begins HTTP/2 is not in the capture; one by --listen has it\n"),
        ({"http2": 1}, "# its HTTP/2 first flight was left out: http2 is no object of frames\n"),
        (
            {"http2": {**FLIGHT, "pseudo_headers": []}},
            "# its HTTP/2 first flight was left out: pseudo_headers",
        ),
    ],
)
def test_a_capture_without_one_says_so(
    more: dict[str, object], says: str, tmp_path: Path, capsys: Capsys
) -> None:
    source = tmp_path / "capture.json"
    source.write_text(report(**more))
    assert main(["profiles", "learn", str(source), "--name", "lab"]) == 0
    printed = capsys.readouterr().out
    assert says in printed
    assert "http2]" not in printed


# --- texts ------------------------------------------------------------------------------------------


def texts_of(records: bytes) -> list[str]:
    hello = parse_client_hello(records)
    return [ja3(hello).ja3, ja4(hello).ja4_r, ja4(hello).ja4_ro]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ja3", "ja4_r", "ja4_ro"])
@pytest.mark.parametrize("how", ["argument", "file", "stdin"])
def test_a_text_becomes_a_profile(
    kind: int, how: str, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = texts_of(FIREFOX[0])[kind], tmp_path / "lab.toml"
    source = text
    if how == "file":
        (tmp_path / "text").write_text(text + "\n")
        source = str(tmp_path / "text")
    elif how == "stdin":
        source = "-"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["profiles", "learn", source, "--name", "lab", "--out", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    written = out.read_text()
    form = ("JA3", "JA4_r", "JA4_ro")[kind]
    assert written.startswith(f"# learned from {form} {text}\n# the base is firefox-")
    assert said[0].startswith("polytls: the base is firefox-")
    assert any(f"{form} does not tell, and firefox-" in line for line in said)
    for line in said[:-1]:
        assert f"# {line.removeprefix('polytls: ')}\n" in written
    spec = profile_in(out)
    assert spec.exact is not None
    assert spec.http2 is not None
    # Firefox does not permute, and is near itself: all of it is there again.
    assert main(["profiles", "diff", str(out), "firefox-135"]) == 0
    assert main(["profiles", "verify", "lab", "--config", str(out)]) == 0


def test_the_base_may_be_ones_own(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "own.toml").write_text('base = "openssl"\nsession_resumption = false\n')
    text = texts_of(CHROME[0])[1]
    options = ["--name", "lab", "--base", "own", "--profiles", str(tmp_path)]
    assert main(["profiles", "learn", text, *options]) == 0
    captured = capsys.readouterr()
    assert "polytls: the base is own (named, " in captured.err
    assert 'description = "Learned from a JA4_r text, over own"\n' in captured.out
    assert "session_resumption = false\n" in captured.out


def test_what_is_not_exact_is_said_aloud(capsys: Capsys) -> None:
    assert main(["profiles", "learn", "771,4865,21-0-10-13-43-51,29,", "--name", "lab"]) == 0
    captured = capsys.readouterr()
    assert (
        "polytls: NOT EXACT: what is sent first, to a name of 11 characters, has 771,4865,0-10-"
        in captured.err
    )
    assert "# NOT EXACT: " in captured.out
