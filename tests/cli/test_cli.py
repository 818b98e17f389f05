"""The command line as a user meets it: in a process of its own, by its output and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls import __version__
from polytls.cli import main
from tests.proxy.harness import HANG_SECONDS, Origin, echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]


def polytls(*args: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "polytls", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**_environ(), **environ},
    )


def _environ() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POLYTLS_")}
    return {**clean, "PYTHONPATH": str(REPOSITORY)}


class Served:
    """`polytls serve` on a free port; `line` waits for a line of its stderr that holds a text."""

    def __init__(self, cwd: Path, *args: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polytls", "serve", "--listen", "127.0.0.1:0", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=_environ(),
        )
        self.stderr = ""
        first = self.line("PolyTLS ")
        self.port = int(first.split(" on http://")[1].split(",")[0].rpartition(":")[2])

    def line(self, text: str) -> str:
        """The first line on stderr, also of those that were there before, that holds `text`."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + HANG_SECONDS
        fd = self.process.stderr.fileno()
        while True:
            for line in self.stderr.splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line.rstrip("\n")
            assert select.select([fd], [], [], deadline - time.monotonic())[0], self.stderr
            data = os.read(fd, 65536)
            assert data, f"it ended: {self.stderr}"
            self.stderr += data.decode()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Signal it, and wait: exit code, stdout, stderr."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=HANG_SECONDS)
        return self.process.returncode, (out or b"").decode(), self.stderr + err.decode()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*args: str | Path) -> Served:
        served = Served(tmp_path, *args)
        started.append(served)
        return served

    yield start
    for served in started:
        served.process.kill()
        served.process.communicate()


def through(served: Served, origin: Origin) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=HANG_SECONDS)
    connection.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % origin.port)
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        reply += connection.recv(100)
    assert reply.startswith(b"HTTP/1.1 200 ")
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return connection


@pytest.fixture
def origin() -> Iterator[Origin]:
    found = Origin(echo)
    yield found
    found.close()


# What says what it is


def test_version() -> None:
    done = polytls("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"polytls {__version__}\n", "")


def test_version_imports_nothing_heavy() -> None:
    program = (
        "import sys, polytls.cli; print([m for m in sys.modules if m in"
        " ('asyncio', 'ssl', 'cryptography', 'polytls.engine', 'polytls.config', 'httptools', 'tomllib')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=_environ(),
        timeout=60,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ("serve", "profiles", "ca", "examples:")),
        (("serve",), ("--resolve NAME:ADDR", "--ca-dir DIR", "exit codes:", "curl --cacert")),
        (("profiles",), ("list", "show")),
        (("ca",), ("show", "export")),
    ],
)
def test_help_has_examples(args: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = polytls(*args, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*words, "examples:"):
        assert word in done.stdout


# What a user gets wrong: one sentence, code 2


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("serve", "--config", "none.toml"), "none.toml: cannot be read (No such file or directory)"),
        (("serve", "--listen", "localhost"), "option --listen: proxy.listen.address: "),
        (("serve", "--threads", "many"), "option --threads: engine.threads: "),
        (("serve", "--resolve", "a.test"), "option --resolve: proxy.upstream.resolve: "),
        (("serve", "--drain-timeout", "-1"), "proxy.timeouts.drain: "),
        (("serve", "--profile", "nope"), "option --profile: proxy.upstream.default_profile: "),
        (("serve", "--upstream-ca-file", "none.pem"), "none.pem: "),
        (("serve", "--ca-dir", "/proc/none"), "/proc/none"),
        (("profiles", "show", "nope"), 'command line: NAME: "nope": unknown profile'),
        (("ca", "show"), "there is no root CA"),
        (("ca", "export"), "there is no root CA"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, args: tuple[str, ...], sentence: str) -> None:
    done = polytls(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("polytls: error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [(), ("serve", "--prof", "x"), ("serve", "--mode", "off"), ("none",)])
def test_wrong_usage_is_2(args: tuple[str, ...]) -> None:
    done = polytls(*args)
    assert done.returncode == 2
    assert "usage: polytls" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_environment_counts() -> None:
    done = polytls("serve", POLYTLS_PROXY__LISTEN__ADDRESS="nowhere")
    assert done.returncode == 2
    assert "environment variable POLYTLS_PROXY__LISTEN__ADDRESS" in done.stderr


def test_a_file_that_cannot_be_written_is_1(tmp_path: Path) -> None:
    _make_ca(tmp_path)
    done = polytls("ca", "export", "--out", tmp_path / "no" / "dir.pem", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"polytls: error: {tmp_path}/no/dir.pem: No such file or directory\n"


# profiles


def test_profiles_are_listed_and_shown(tmp_path: Path) -> None:
    listed = polytls("profiles", "list").stdout
    for name in ("chrome", "firefox", "safari", "* default"):
        assert name in listed
    shown = polytls("profiles", "show", "FIREFOX")
    assert shown.returncode == 0
    assert shown.stdout.startswith("[profiles.firefox-")
    config = tmp_path / "own.toml"
    config.write_text('[profiles.own]\nbase = "firefox"\ngrease = true\n')
    assert " own" in polytls("profiles", "list", "--config", config).stdout
    assert "GREASE" in polytls("profiles", "show", "own", "--config", config).stdout


def test_what_is_shown_is_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "shown.toml"
    config.write_text(polytls("profiles", "show", "safari").stdout)
    assert polytls("profiles", "list", "--config", config).returncode == 0


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "polytls", "profiles", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=_environ(),
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# ca


def _make_ca(directory: Path) -> None:
    from polytls.pki.root import load_or_create

    load_or_create(directory / "ca" / "private.key", directory / "ca" / "certificate.pem", None)


def test_the_root_ca_is_shown_and_exported(tmp_path: Path) -> None:
    _make_ca(tmp_path)
    shown = polytls("ca", "show", cwd=tmp_path)
    assert shown.returncode == 0
    fingerprint = shown.stdout.splitlines()[-1].split()[1]
    assert len(fingerprint) == 95
    pem = (tmp_path / "ca" / "certificate.pem").read_text()
    assert polytls("ca", "export", cwd=tmp_path).stdout == pem
    assert polytls("ca", "export", "--ca-dir", tmp_path / "ca").stdout == pem
    done = polytls("ca", "export", "--der", "--out", "root.crt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert fingerprint in done.stderr
    assert (tmp_path / "root.crt").read_bytes()[:1] == b"\x30"


# serve


def test_serve_says_where_it_is_and_how_to_use_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("--profile", "firefox")
    served.line("other hello")
    code, out, err = served.stop()
    assert (code, out) == (0, "")
    assert f"PolyTLS {__version__}: mitm on http://127.0.0.1:{served.port}, " in err
    assert "root CA      ca/certificate.pem" in err
    assert "profile      firefox" in err
    curl = f"curl --cacert ca/certificate.pem -x http://127.0.0.1:{served.port} https://example.com/"
    assert f"try          {curl}\n" in err
    assert "--proxy-header 'X-PolyTLS-Upstream-Profile: firefox'" in err
    fingerprint = polytls("ca", "show", cwd=tmp_path).stdout.splitlines()[-1].split()[1]
    assert f"SHA-256      {fingerprint}" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_ends(
    serve: Callable[..., Served], origin: Origin, number: int
) -> None:
    served = serve("--mode", "passthrough", "--drain-timeout", "600", "--log-format", "json")
    with through(served, origin) as connection:
        served.process.send_signal(number)
        note = served.line("stopping; ")
        assert note == "polytls: stopping; open tunnels (1) have 600 s to end, a second signal ends them now"
        connection.sendall(b"y")
        assert connection.recv(1) == b"y"
        code, out, _ = served.stop(number)
        assert connection.recv(1) == b""
    assert code == 0
    (line,) = out.splitlines()
    record = json.loads(line)
    assert (record["event"], record["outcome"], record["bytes_up"]) == ("tunnel", "drained", 2)


def test_a_line_for_each_tunnel_goes_to_stdout(serve: Callable[..., Served], origin: Origin) -> None:
    served = serve("--mode", "passthrough")
    for _ in range(3):
        through(served, origin).close()
    code, out, err = served.stop()
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert f"127.0.0.1:{origin.port}  passthrough  up 1 B  down 1 B" in line
        assert line.endswith("  ok")
    assert "\x1b" not in out + err


def test_passthrough_imports_no_cryptography(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from polytls.app import App
from polytls.settings import ListenSettings, Address, MitmSettings, Settings
settings = Settings(listen=ListenSettings(Address("127.0.0.1", 0)), mitm=MitmSettings(enabled=False))
async def main():
    app = App(settings, sink=lambda event: None)
    await app.start()
    await app.stop(0)
asyncio.run(main())
print([name for name in ("cryptography", "polytls.pki.root", "brotli", "zstandard") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=_environ(),
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not (tmp_path / "ca").exists()


def test_a_stdout_that_is_gone_does_not_end_the_proxy(serve: Callable[..., Served], origin: Origin) -> None:
    served = serve("--mode", "passthrough")
    assert served.process.stdout is not None
    served.process.stdout.close()
    served.process.stdout = None
    for _ in range(3):
        through(served, origin).close()
    code, _, err = served.stop()
    assert code == 0
    assert "3 log lines were dropped" in err
    assert "Traceback" not in err


def _dialled(port: int) -> socket.socket:
    """A connection to what is about to listen, and cannot say when it does."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
    raise TimeoutError


def test_without_stdout_and_stderr_it_serves_all_the_same(tmp_path: Path, origin: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f'exec "$0" -m polytls serve --mode passthrough --listen 127.0.0.1:{port} >&- 2>&-'
    process = subprocess.Popen(["sh", "-c", command, sys.executable], cwd=tmp_path, env=_environ())
    try:
        with _dialled(port) as connection:
            connection.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % origin.port)
            assert connection.recv(12) == b"HTTP/1.1 200"
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()


def test_an_address_in_use_is_one_sentence_and_1(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("--mode", "passthrough")
    address = f"127.0.0.1:{served.port}"
    done = polytls("serve", "--mode", "passthrough", "--listen", address, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    sentence = f"{address} is in use; stop what listens there, or choose another address with --listen"
    assert done.stderr == f"polytls: error: {sentence}\n"


def test_an_address_of_another_machine_is_one_sentence_and_1(tmp_path: Path) -> None:
    done = polytls("serve", "--mode", "passthrough", "--listen", "192.0.2.1:0", cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr == "polytls: error: 192.0.2.1:0 is no address of this machine; choose one with --listen\n"
    )


def test_what_is_for_the_lab_is_warned_of(serve: Callable[..., Served], tmp_path: Path) -> None:
    from polytls.app import Started
    from polytls.cli.serve import announcement
    from polytls.settings import Address, Settings

    served = serve("--upstream-insecure-skip-verify")
    served.line("warning      upstream certificates are not verified")
    anywhere = Started(Settings(), Address("0.0.0.0", 8080), 1, "AB:CD", ("beware",))
    text = announcement(anywhere)
    assert "mitm on http://0.0.0.0:8080, 1 thread\n" in text
    assert "-x http://127.0.0.1:8080 " in text
    assert text.endswith("  warning      beware")
    six = Started(Settings(), Address("::1", 8080), 2, "AB:CD", ())
    assert "-x 'http://[::1]:8080' " in announcement(six)


def test_main_returns_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "chrome"]) == 0
    assert capsys.readouterr().out.startswith("[profiles.chrome-")
    assert main(["profiles", "show", "nope"]) == 2
    assert capsys.readouterr().err.startswith("polytls: error: ")


def test_every_option_of_serve_is_documented_with_its_key() -> None:
    from polytls.cli import serve
    from polytls.config.schema import KEYS

    documented = {key.path for key in KEYS if key.option}
    assert set(serve._KEYS.values()) | {"proxy.mitm.enabled"} <= documented
