"""Several workers in front of one address: who serves, who takes whose place, how they stop."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers.serve import HANG_SECONDS, Serve, clean_environment
from tests.proxy.harness import Origin, OriginCA, client_context, echo, hello_http, read_all, server_context
from tests.workers.harness import RefusedError, descriptors_of, open_tunnel, ping, spread, until, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", 1031)


@pytest.fixture
def origin() -> Iterator[Origin]:
    found = Origin(echo)
    yield found
    found.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Start passthrough proxies with workers: ``serve(2, "--drain-timeout", "600")``."""
    started: list[Serve] = []

    def start(workers: int, *options: str, mode: str = "passthrough") -> Serve:
        served = Serve(
            tmp_path,
            "--workers",
            str(workers),
            "--mode",
            mode,
            "--resolve",
            "*.lab.test:127.0.0.1",
            *options,
        )
        started.append(served)
        return served

    yield start
    for served in started:
        served.signal(signal.SIGTERM)
        served.stop()


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def test_tunnels_land_on_all_workers_under_unique_numbers(
    serve: Callable[..., Serve], origin: Origin
) -> None:
    served = serve(3)
    assert len(workers_of(served)) == 3
    tunnels = spread(served, "a.lab.test", origin.port, 3)
    assert all(ping(tunnel) for tunnel in tunnels)
    _close(tunnels)
    records = served.records("a.lab.test", len(tunnels))
    assert {record["worker"] for record in records} == {1, 2, 3}
    assert len({record["id"] for record in records}) == len(tunnels)
    assert all(list(record)[:4] == ["event", "time", "id", "worker"] for record in records)
    assert served.stop() == 0
    assert served.notes.count("PolyTLS ") == 1
    assert ", 3 workers, " in served.notes


def test_one_worker_is_a_proxy_as_ever(serve: Callable[..., Serve], origin: Origin) -> None:
    served = serve(1)
    assert workers_of(served) == []
    open_tunnel(served, "a.lab.test", origin.port).close()
    record = served.record("a.lab.test")
    assert "worker" not in record
    assert record["id"] == 1
    assert "workers" not in served.notes


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(
    serve: Callable[..., Serve], origin: Origin
) -> None:
    served = serve(2)
    before = workers_of(served)
    tunnels = spread(served, "a.lab.test", origin.port, 2)
    killed = before[0]
    os.kill(killed, signal.SIGKILL)
    served.wait_for_note(f"(process {killed}) was killed by SIGKILL; it is started again")
    alive = [tunnel for tunnel in tunnels if ping(tunnel)]
    assert 0 < len(alive) < len(tunnels)
    after: list[int] = []
    for _ in until("two workers"):
        after = workers_of(served)
        if len(after) == 2:
            break
    assert killed not in after
    assert before[1] in after
    # No connection is refused or reset meanwhile: those for the dead one wait in its backlog.
    more = spread(served, "b.lab.test", origin.port, 2)
    assert all(ping(tunnel) for tunnel in (*alive, *more))
    _close(tunnels)
    _close(more)
    records = served.records("a.lab.test", len(alive)) + served.records("b.lab.test", len(more))
    assert {record["worker"] for record in records if record["host"] == "b.lab.test"} == {1, 2}
    assert len({record["id"] for record in records}) == len(records)
    assert served.stop() == 0


def test_the_first_signal_drains_all_and_the_second_ends_all(
    serve: Callable[..., Serve], origin: Origin
) -> None:
    served = serve(2, "--drain-timeout", "600")
    tunnels = spread(served, "a.lab.test", origin.port, 2)
    served.signal(signal.SIGTERM)
    served.wait_for_note("polytls: worker 1: stopping; ")
    served.wait_for_note("polytls: worker 2: stopping; ")
    assert all(ping(tunnel) for tunnel in tunnels)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(served.host_and_port)
    assert served.stop() == 0
    records = served.records("a.lab.test", len(tunnels))
    assert {record["outcome"] for record in records} == {"drained"}
    assert "killed" not in served.notes
    _close(tunnels)


def test_signals_to_the_whole_group_count_once(serve: Callable[..., Serve], origin: Origin) -> None:
    """A terminal sends SIGINT to all processes of a group, a service manager SIGTERM to all of a unit."""
    served = serve(2, "--drain-timeout", "600")
    tunnels = spread(served, "a.lab.test", origin.port, 2)
    for pid in workers_of(served):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    served.signal(signal.SIGINT)
    served.wait_for_note("worker 1: stopping; ")
    served.wait_for_note("worker 2: stopping; ")
    assert all(ping(tunnel) for tunnel in tunnels)
    _close(tunnels)
    assert served.stop() == 0


def test_workers_end_when_their_supervisor_is_gone(serve: Callable[..., Serve]) -> None:
    served = serve(2)
    workers = workers_of(served)
    served.signal(signal.SIGKILL)
    for _ in until("no workers"):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
    served.stop()


def _polytls(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "polytls", "serve", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
        cwd=cwd,
        env={**clean_environment(), "PYTHONPATH": str(REPOSITORY)},
    )


def test_an_address_in_use_is_told_once(serve: Callable[..., Serve], tmp_path: Path) -> None:
    for workers in (1, 2):  # also where whoever is there would share it
        served = serve(workers)
        done = _polytls("--workers", "3", "--listen", served.address, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"polytls: error: {served.address} is in use; ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--upstream-ca-file", "none.pem"), "none.pem: "),
        (("--profile", "nope"), "nope"),
        (("--ca-dir", "/proc/none"), "/proc/none"),
    ],
)
def test_what_all_workers_stumble_over_is_told_once(
    tmp_path: Path, args: tuple[str, ...], sentence: str
) -> None:
    done = _polytls("--listen", "127.0.0.1:0", "--workers", "3", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("polytls: error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_more_workers_than_tunnels_is_a_mistake(tmp_path: Path) -> None:
    config = tmp_path / "few.toml"
    config.write_text("[proxy.limits]\ntunnels = 2\n[engine]\nworkers = 3\n")
    done = _polytls("--config", config, cwd=tmp_path)
    assert done.returncode == 2
    assert "3 workers cannot share 2 tunnels" in done.stderr


def test_the_limit_is_divided(serve: Callable[..., Serve], tmp_path: Path, origin: Origin) -> None:
    config = tmp_path / "few.toml"
    config.write_text("[proxy.limits]\ntunnels = 5\n")
    served = serve(2, "--config", str(config))
    held: list[socket.socket] = []
    refused = 0
    for _ in range(128):
        try:
            held.append(open_tunnel(served, "a.lab.test", origin.port))
        except RefusedError:
            refused += 1
    assert len(held) == 5
    assert refused == 123
    _close(held)


def test_a_root_is_made_once_and_all_workers_use_it(
    serve: Callable[..., Serve], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = OriginCA(tmp_path_factory.mktemp("origins"))
    origin = Origin(hello_http, server_context(authority.issue("tls.lab.test")))
    served = serve(3, "--upstream-ca-file", str(authority.pem), mode="mitm")
    context = client_context(served.root_pem)
    issuers = set()
    for _ in range(48):
        with (
            open_tunnel(served, "tls.lab.test", origin.port) as plain,
            context.wrap_socket(plain, server_hostname="tls.lab.test") as tls,
        ):
            issuers.add(str((tls.getpeercert() or {})["issuer"]))
            tls.sendall(b"GET / HTTP/1.1\r\nHost: tls.lab.test\r\n\r\n")
            assert read_all(tls).endswith(b"hi\n")
    records = served.records("tls.lab.test", 48)
    assert {record["worker"] for record in records} == {1, 2, 3}
    assert {record["outcome"] for record in records} == {"completed"}
    assert len(issuers) == 1
    assert served.notes.count("root CA") == 1
    origin.close()


def test_lines_longer_than_a_pipe_takes_at_once_stay_whole(
    serve: Callable[..., Serve], tmp_path: Path
) -> None:
    """The detail of an unknown profile lists all there are: with enough of them, 12 KB."""
    config = tmp_path / "many.toml"
    names = [f"profile-with-a-name-that-is-rather-long-{number}" for number in range(250)]
    config.write_text("".join(f'[profiles.{name}]\nbase = "curl"\n' for name in names))
    served = serve(3, "--config", str(config))
    assert served._process.stdout is not None
    fcntl.fcntl(served._process.stdout, F_SETPIPE_SZ, 4096)

    def ask(_: int) -> bytes:
        with socket.create_connection(served.host_and_port, timeout=HANG_SECONDS) as connection:
            connection.sendall(
                b"CONNECT long.lab.test:443 HTTP/1.1\r\nX-PolyTLS-Upstream-Profile: none\r\n\r\n"
            )
            return connection.recv(12)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(400))) == {b"HTTP/1.1 400"}
    records = served.records("long.lab.test", 400)  # each line was one object of JSON
    assert {record["worker"] for record in records} == {1, 2, 3}
    assert min(len(record["detail"]) for record in records) > 2 * 4096


FILES = 1024
HELD = 520
"""Two descriptors each: more than one process may have. Each of two workers has 260 in the mean, and may have
432: fifteen standard deviations more."""


def test_workers_hold_more_tunnels_than_one_process_has_descriptors(tmp_path: Path, origin: Origin) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * FILES:
        pytest.skip(f"this process needs {4 * FILES} open files, and may have {hard}")
    options = ("--mode", "passthrough", "--workers", "2", "--resolve", "*.lab.test:127.0.0.1")
    limited = ("sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"')
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * FILES), hard))
    try:
        with Serve(tmp_path, *options, under=limited) as served:
            tunnels = [open_tunnel(served, "a.lab.test", origin.port) for _ in range(HELD)]
            assert all(ping(tunnel) for tunnel in tunnels)
            open_files = [descriptors_of(pid) for pid in workers_of(served)]
            assert sum(open_files) > 2 * HELD > FILES
            assert max(open_files) < FILES
            _close(tunnels)
            assert {record["worker"] for record in served.records("a.lab.test", HELD)} == {1, 2}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
