"""SIGHUP to `polytls serve`, as whoever runs it sees it: by notes, tunnels, and what origins are sent."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers.clients import client_context, read_head, tls_tunnel, tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS, Serve, clean_environment
from tests.proxy.harness import OriginCA
from tests.workers.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.origin import Seen

HOST = "origin.lab.test"
REFUSED = "polytls: not reloaded, the configuration stays as it was: "
SAME = "polytls: reloaded: the configuration is as it was"


def _echo(connection: ssl.SSLSocket, _seen: Seen) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


class Lab:
    """A proxy with a configuration that can be written anew, and an origin that echoes."""

    def __init__(self, directory: Path, *, mitm: bool = True) -> None:
        self.file = directory / "polytls.toml"
        self.ca = OriginCA(directory)
        self.origin = Origin(origin_context(self.ca.issue(HOST), alpn=()), _echo)
        self.write(mitm=mitm)
        self.proxy = Serve(directory / "ca", "--config", str(self.file))

    def write(
        self, *, base: str = "chrome", mitm: bool = True, more: str = "", tunnels: int = 100, ca: str = ""
    ) -> None:
        text = f"""
            {more}
            [proxy.mitm]
            enabled = {str(mitm).lower()}
            [proxy.limits]
            tunnels = {tunnels}
            [proxy.upstream]
            default_profile = "lab"
            ca_file = "{ca or self.ca.pem}"
            resolve = {{ "*.lab.test" = "127.0.0.1" }}
            [profiles.lab]
            base = "{base}"
        """
        # As an editor does: a proxy that reads meanwhile sees the one or the other.
        whole = self.file.with_suffix(".new")
        whole.write_text(text, encoding="utf-8")
        whole.replace(self.file)

    def reload(self, expected: str) -> None:
        """Have it read again, and wait for one more note with this text."""
        before = self.proxy.notes.count(expected)
        self.proxy.signal(signal.SIGHUP)
        for _ in until(expected):
            if self.proxy.notes.count(expected) > before:
                return
        raise AssertionError(self.proxy.notes)

    def hello(self) -> str:
        """What tells by which profile a new tunnel goes, which works: the cipher suites of JA4. (Extensions
        are others where a session is resumed.)"""
        with tls_tunnel(self.proxy, HOST, self.origin.port, client_context(self.proxy.root_pem)) as tls:
            assert _works(tls)
        return self.suites()

    def suites(self) -> str:
        """Of the next hello that the origin has got."""
        return self.origin.seen.get(timeout=HANG_SECONDS).report.ja4.ja4.split("_")[1]

    def close(self) -> None:
        code = self.proxy.stop()
        self.origin.close()
        assert code == 0, self.proxy.notes


def _works(tls: ssl.SSLSocket) -> bool:
    tls.sendall(b"there and back")
    return tls.recv(100) == b"there and back"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def test_new_tunnels_go_by_the_new_profile_and_those_under_way_go_on(lab: Lab) -> None:
    context = client_context(lab.proxy.root_pem)
    with tls_tunnel(lab.proxy, HOST, lab.origin.port, context) as under_way:
        assert _works(under_way)
        chrome = lab.suites()
        lab.write(base="curl")
        lab.reload("polytls: reloaded: changed profiles.lab")
        assert lab.proxy.notes.endswith("changed profiles.lab")
        curl = lab.hello()
        assert curl != chrome
        assert _works(under_way)
    lab.write()
    lab.reload("polytls: reloaded: changed profiles.lab")
    assert lab.hello() == chrome


def _days(tls: ssl.SSLSocket) -> float:
    """How long the leaf is valid."""
    leaf = tls.getpeercert()
    assert leaf is not None
    begin, end = (ssl.cert_time_to_seconds(str(leaf[name])) for name in ("notBefore", "notAfter"))
    return (end - begin) / 86400


def test_a_leaf_is_by_what_its_tunnel_began_with(lab: Lab) -> None:
    context = client_context(lab.proxy.root_pem)
    lab.write(more="[proxy.certificate]\nleaf_days = 30")
    lab.reload("reloaded: changed proxy.certificate.leaf_days")
    with tunnel(lab.proxy, HOST, lab.origin.port) as under_way:
        lab.write(more="[proxy.certificate]\nleaf_days = 7")
        lab.reload("reloaded: changed proxy.certificate.leaf_days")
        with context.wrap_socket(under_way, server_hostname=HOST) as tls:
            assert _works(tls)
            assert 29 < _days(tls) < 32
    with tls_tunnel(lab.proxy, HOST, lab.origin.port, context) as tls:
        assert _works(tls)
        assert 6 < _days(tls) < 9


def test_what_is_as_it_was_is_said_to_be(lab: Lab) -> None:
    before = lab.hello()
    lab.reload(SAME)
    assert lab.hello() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"more": "this is = = no TOML"}, "polytls.toml: "),
        ({"more": "[proxy.listen]\nadress = '127.0.0.1:1'"}, "adress: unknown key"),
        ({"base": "chromium-of-old"}, 'profiles.lab.base: "chromium-of-old": unknown profile'),
        ({"ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem: trusted roots cannot be read"),
        (
            {"more": "[engine]\nthreads = 7\n[log]\nformat='text'", "base": "curl"},
            "a restart is needed to change engine.threads",
        ),
        (
            {"tunnels": 101, "base": "curl"},
            "a restart is needed to change proxy.limits.tunnels (above 100",
        ),
    ],
)
def test_a_configuration_that_cannot_be_taken_changes_nothing(
    lab: Lab, wrong: dict[str, str], said: str
) -> None:
    before = lab.hello()
    lab.write(**wrong)  # type: ignore[arg-type]
    lab.reload(REFUSED)
    (line,) = [line for line in lab.proxy.notes.splitlines() if line.startswith(REFUSED)]
    assert said in line
    assert lab.hello() == before
    lab.write()
    lab.reload(SAME)


def test_a_file_that_is_gone_changes_nothing(lab: Lab) -> None:
    before = lab.hello()
    lab.file.unlink()
    lab.reload(REFUSED)
    assert lab.hello() == before


def test_passthrough_and_back(lab: Lab) -> None:
    intercepted = lab.hello()
    lab.write(mitm=False)
    lab.reload("reloaded: changed proxy.mitm.enabled")
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with tls_tunnel(lab.proxy, HOST, lab.origin.port, unverified) as tls:
        assert _works(tls)
    assert lab.suites() != intercepted
    lab.write()
    lab.reload("reloaded: changed proxy.mitm.enabled")
    assert lab.hello() == intercepted
    assert [record["mode"] for record in lab.proxy.records(HOST, 3)] == ["mitm", "passthrough", "mitm"]


def test_mitm_after_a_start_without(tmp_path: Path) -> None:
    lab = Lab(tmp_path, mitm=False)
    try:
        lab.write(ca="/nowhere/ca.pem")
        lab.reload(REFUSED)
        assert not lab.proxy.root_pem.exists()
        lab.write()
        lab.reload("reloaded: changed proxy.mitm.enabled")
        lab.hello()
        assert lab.proxy.record(HOST)["mode"] == "mitm"
    finally:
        lab.close()


def test_twice_in_a_row(lab: Lab) -> None:
    chrome = lab.hello()
    for base, tunnels in (("curl", 100), ("chrome", 100), ("curl", 99)):
        lab.write(base=base, tunnels=tunnels)
        lab.proxy.signal(signal.SIGHUP)
        lab.proxy.signal(signal.SIGHUP)
    lab.proxy.wait_for_note("reloaded: changed proxy.limits.tunnels")
    assert lab.hello() != chrome
    assert REFUSED not in lab.proxy.notes


def test_the_limit_of_tunnels_is_the_new_one(lab: Lab) -> None:
    with tunnel(lab.proxy, HOST, lab.origin.port):
        lab.write(tunnels=1)
        lab.reload("reloaded: changed proxy.limits.tunnels")
        with socket.create_connection(lab.proxy.host_and_port, timeout=HANG_SECONDS) as refused:
            refused.sendall(b"CONNECT origin.lab.test:1 HTTP/1.1\r\n\r\n")
            assert read_head(refused).startswith(b"HTTP/1.1 503 ")
        lab.write()
        lab.reload("reloaded: changed proxy.limits.tunnels")
        with tunnel(lab.proxy, HOST, lab.origin.port):
            pass


def test_what_is_dangerous_is_said(lab: Lab) -> None:
    lab.write(more="[proxy.upstream]\ninsecure_skip_verify = true\n[proxy.unknown]")
    lab.reload(REFUSED)
    text = lab.file.read_text()
    lab.write()
    text = lab.file.read_text().replace("ca_file =", "insecure_skip_verify = true\n ca_file =")
    lab.file.write_text(text)
    lab.reload("reloaded: changed proxy.upstream.insecure_skip_verify")
    lab.proxy.wait_for_note("upstream certificates are not verified (insecure_skip_verify)")


def test_while_it_stops_it_is_let_be(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.proxy.stop()
    lab.proxy = Serve(tmp_path / "ca", "--config", str(lab.file), "--drain-timeout", "600")
    with tls_tunnel(lab.proxy, HOST, lab.origin.port, client_context(lab.proxy.root_pem)) as tls:
        lab.proxy.signal(signal.SIGTERM)
        lab.proxy.wait_for_note("stopping; ")
        lab.write(base="curl")
        lab.proxy.signal(signal.SIGHUP)
        assert _works(tls)
    lab.close()
    assert "reloaded" not in lab.proxy.notes


def test_twenty_reloads_leave_nothing_behind(lab: Lab) -> None:
    def held() -> tuple[int, int]:
        process = Path(f"/proc/{lab.proxy.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def turn(number: int) -> None:
        lab.write(base=("curl", "chrome")[number % 2], tunnels=100 - number % 2)
        lab.reload("reloaded: changed ")
        lab.hello()
        lab.proxy.records(HOST, number + 1)

    for number in range(4):
        turn(number)
    before = held()
    for number in range(4, 24):
        turn(number)
    for _ in until(before):
        if held() <= before:
            return
    raise AssertionError((before, held()))


def test_who_was_started_from_a_terminal_ends_with_it(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "polytls", "serve", "--listen", "127.0.0.1:0", "--mode", "passthrough"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**clean_environment(), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        os.close(theirs)
        _said(ours, b" on http://")
        process.send_signal(signal.SIGHUP)  # it is there: a wish to reload
        _said(ours, b"the configuration is as it was")
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def _said(terminal: int, text: bytes) -> None:
    data = b""
    while text not in data:
        data += os.read(terminal, 4096)


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_what_is_only_about_to_start_is_not_ended(tmp_path: Path, options: tuple[str, ...]) -> None:
    """It reads its configuration, which takes as long as we like."""
    file = tmp_path / "polytls.toml"
    os.mkfifo(file)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "polytls",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            str(file),
            *options,
        ],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        env=clean_environment(),
    )
    with process, file.open("w") as written:  # which waits for the one who reads
        process.send_signal(signal.SIGHUP)
        written.write("proxy.mitm.enabled = false")
        written.close()
        assert process.stderr is not None
        assert b"passthrough on http://" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0


def test_a_file_that_never_answers_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    os.mkfifo(roots)
    file = tmp_path / "polytls.toml"
    file.write_text("")
    served = Serve(tmp_path / "ca", "--config", str(file))
    file.write_text(f'proxy.upstream.ca_file = "{roots}"')
    served.signal(signal.SIGHUP)
    with roots.open("w"):  # which waits for the one who reads
        assert served.stop() == 0


def test_workers_stop_though_the_configuration_never_answers(tmp_path: Path) -> None:
    file = tmp_path / "polytls.toml"
    file.write_text("")
    served = Serve(tmp_path / "ca", "--config", str(file), "--workers", "2")
    file.unlink()
    os.mkfifo(file)
    served.signal(signal.SIGHUP)
    with file.open("w"):  # which waits for the one who reads
        assert served.stop() == 0
    assert f"{REFUSED}the configuration could not be read within 5 s" in served.notes
