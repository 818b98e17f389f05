"""`polytls check`: what it finds, in words and by exit code, and that the proxy takes no notice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polytls.cli import main
from polytls.settings import RootKey
from tests.cli.test_cli import Served, origin, polytls, serve, through
from tests.proxy.harness import HANG_SECONDS, Origin

__all__ = ["origin", "serve"]  # fixtures

SHORT = ("--timeout", "0.3")
"""For listeners that never answer: how long does not matter, so it need not be long."""


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("POLYTLS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def named(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def make_root(directory: Path) -> None:
    from polytls.pki.root import load_or_create

    load_or_create(directory / "private.key", directory / "certificate.pem", None, kind=RootKey.ECDSA)


# With --local


def test_a_running_proxy_is_well_and_takes_no_notice(
    serve: Callable[..., Served], origin: Origin, at_home: Path
) -> None:
    served = serve()
    options = ("check", "--local", "--listen", f"127.0.0.1:{served.port}")
    for _ in range(3):
        done = polytls(*options, cwd=at_home)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 3
    code, out, err = served.stop()
    assert (code, out) == (0, "")
    assert "defect" not in err


def test_a_check_beside_tunnels_is_no_tunnel(
    serve: Callable[..., Served], origin: Origin, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve("--mode", "passthrough")
    check = ["check", "--local", "--mode", "passthrough", "--listen", f"127.0.0.1:{served.port}"]
    with through(served, origin):
        assert main(check) == 0
    with through(served, origin):
        assert main(check) == 0
    _, out, _ = served.stop()
    # The tunnels' numbers are those of tunnels alone.
    assert sorted(line.split()[1] for line in out.splitlines()) == ["#1", "#2"]


def test_json_has_the_same_findings(
    serve: Callable[..., Served], at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    assert main(["check", "--local", "--json", "--listen", f"127.0.0.1:{served.port}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [(each["check"], each["ok"]) for each in found["findings"]] == [
        ("configuration", True),
        ("root CA", True),
        ("listener", True),
    ]
    assert found["findings"][1]["text"].startswith("ca/certificate.pem signs until ")


def test_nothing_listens(at_home: Path, listener: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    make_root(at_home / "ca")
    address = named(listener)
    listener.close()
    assert main(["check", "--local", "--listen", address]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split(None, 2) == [
        "failed",
        "listener",
        f"{address} refuses connections: the proxy does not run, or is stopping",
    ]


def test_a_process_that_hangs_does_not_answer(
    at_home: Path, listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    # The kernel accepts for it.
    assert main(["check", "--local", "--mode", "passthrough", "--listen", named(listener), *SHORT]) == 1
    assert "does not answer within 0.3 s: the proxy hangs" in capsys.readouterr().out


def test_a_proxy_that_is_stopped_does_not_answer_and_one_that_goes_on_does(
    serve: Callable[..., Served], at_home: Path
) -> None:
    served = serve("--mode", "passthrough")
    check = ["check", "--local", "--mode", "passthrough", "--listen", f"127.0.0.1:{served.port}"]
    served.process.send_signal(signal.SIGSTOP)
    assert main([*check, *SHORT]) == 1
    served.process.send_signal(signal.SIGCONT)
    assert main([*check, "--timeout", str(HANG_SECONDS)]) == 0


def test_something_else_listens(
    at_home: Path, listener: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    def greet() -> None:
        with listener.accept()[0] as connection:
            connection.sendall(b"220 mail.lab.test\r\n")
            connection.recv(1)

    thread = threading.Thread(target=greet)
    thread.start()
    assert main(["check", "--local", "--mode", "passthrough", "--listen", named(listener)]) == 1
    thread.join(HANG_SECONDS)
    assert "speaks first" in capsys.readouterr().out


def test_a_port_that_is_not_known(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--local", "--mode", "passthrough", "--listen", "127.0.0.1:0"]) == 1
    assert "set a port" in capsys.readouterr().out


def test_any_address_is_asked_on_loopback(
    serve: Callable[..., Served], at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve("--mode", "passthrough")
    check = ["check", "--local", "--mode", "passthrough", "--listen", f"0.0.0.0:{served.port}"]
    assert main(check) == 0
    assert f"127.0.0.1:{served.port} answers" in capsys.readouterr().out


def test_a_root_that_is_gone_or_does_not_load_is_found(
    serve: Callable[..., Served], at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    check = ["check", "--local", "--listen", f"127.0.0.1:{served.port}"]
    key = at_home / "ca" / "private.key"
    key.chmod(0o644)
    assert main(check) == 1
    found = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in found] == ["ok", "failed", "ok"]
    assert "chmod 600" in found[1]
    key.unlink()
    assert main(check) == 1
    assert "private.key" in capsys.readouterr().out.splitlines()[1]
    assert not key.exists(), "a check makes nothing"


# Without it


def test_before_the_first_start(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "the first start makes it" in capsys.readouterr().out
    assert list(at_home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_that_cannot_be_made(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_home.chmod(0o500)
    assert main(["check"]) == 1
    assert "may not be written by this user" in capsys.readouterr().out


def test_a_root_below_a_file_cannot_be_made(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_home / "ca").write_text("", encoding="utf-8")
    assert main(["check"]) == 1
    assert "is no directory" in capsys.readouterr().out


def test_a_root_that_is_there_is_loaded(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_root(at_home / "ca")
    assert main(["check"]) == 0
    assert "signs until" in capsys.readouterr().out
    (at_home / "ca" / "certificate.pem").write_text("none", encoding="utf-8")
    assert main(["check"]) == 1


@pytest.mark.parametrize("local", [(), ("--local",)])
def test_a_wrong_configuration_is_a_finding(
    at_home: Path, capsys: pytest.CaptureFixture[str], local: tuple[str, ...]
) -> None:
    (at_home / "wrong.toml").write_text("[proxy.listen]\nadress = '127.0.0.1:1'\n", encoding="utf-8")
    assert main(["check", "--config", "wrong.toml", *local]) == 1
    out = capsys.readouterr().out
    assert out.startswith("failed  configuration  wrong.toml: ")
    assert "address" in out


def test_a_wrong_profile_is_a_finding(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_home / "own.toml").write_text("[proxy.upstream]\ndefault_profile = 'chromee'\n", encoding="utf-8")
    assert main(["check", "--config", "own.toml"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert len(failed) == 1
    assert "default_profile" in failed[0]


def test_rules_for_ech_are_read(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A start reads their files, and so does a reload."""
    file = at_home / "polytls.toml"
    file.write_text('proxy.upstream.ech = [{ hosts = ["a.test"], file = "nowhere" }]')
    assert main(["check", "--config", str(file)]) == 1
    said = capsys.readouterr().out
    assert f"failed  ECH            {file}: proxy.upstream.ech[0].file: nowhere cannot be read" in said


def test_roots_that_are_none(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_home / "none.pem").write_text("none", encoding="utf-8")
    (at_home / "own.toml").write_text("[proxy.upstream]\nca_file = 'none.pem'\n", encoding="utf-8")
    assert main(["check", "--config", "own.toml"]) == 1
    assert "none.pem: holds no certificates" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "nan", "soon"])
def test_a_wrong_timeout_is_a_wrong_option(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", f"--timeout={seconds}"])
    assert ended.value.code == 2
    assert "--timeout" in capsys.readouterr().err


# Which configuration


def test_the_variable_stands_in_for_the_option(
    at_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (at_home / f"{name}.toml").write_text("[proxy.mitm]\nenabled = false\n", encoding="utf-8")
    monkeypatch.setenv("POLYTLS_CONFIG", "one.toml")
    assert main(["check"]) == 0
    assert "one.toml, mode passthrough" in capsys.readouterr().out
    assert main(["check", "--config", "two.toml"]) == 0
    assert "two.toml, mode passthrough" in capsys.readouterr().out
    monkeypatch.setenv("POLYTLS_CONFIG", "")
    assert main(["check"]) == 0
    assert "defaults, mode mitm" in capsys.readouterr().out


def test_every_verb_with_a_configuration_takes_the_variable(
    at_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYTLS_CONFIG", "absent.toml")
    for verb in (["serve"], ["ca", "show"], ["profiles", "list"]):
        assert main(verb) == 2
        assert "absent.toml: cannot be read" in capsys.readouterr().err


def test_a_check_loads_neither_the_engine_nor_asyncio(at_home: Path) -> None:
    program = (
        "import sys; from polytls.cli import main; main(['check', '--local']);"
        " print([m for m in sys.modules if m in ('asyncio', 'polytls.engine', 'opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.splitlines()[-1] == "[]"
