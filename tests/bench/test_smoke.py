"""The programs that measure, for a moment: that they count right and lose no byte. No time is asserted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import machine
from tests.bench.loadgen import Report, run_load
from tests.bench.measure import Bench, measure, measure_held
from tests.bench.rows import ROWS, Row
from tests.bench.spawn import BenchError, Origin, Running, origin, running
from tests.bench.subjects import ALL, ROOT, started

PROGRAMS = ROOT / "build" / "bench" / "bin"
MISUSE = 2


@pytest.fixture(scope="module")
def programs() -> Path:
    if not (PROGRAMS / "bench-load").exists():
        pytest.skip("the bench is not built: `make bench-build`")
    return PROGRAMS


@pytest.fixture(scope="module")
def upstream(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    with origin(programs / "bench-origin", tmp_path_factory.mktemp("origin")) as found:
        yield found


@pytest.fixture(scope="module")
def bench(programs: Path, upstream: Origin, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(programs, upstream, tmp_path_factory.mktemp("scratch"), seconds=0.2)


@pytest.fixture(scope="module")
def polytls(bench: Bench) -> Iterator[Running]:
    with started(ALL["polytls-x25519"], bench.origin, bench.programs, bench.scratch) as found:
        yield found


@pytest.fixture(scope="module")
def yardstick(bench: Bench) -> Iterator[Running]:
    with started(ALL["yardstick"], bench.origin, bench.programs, bench.scratch) as found:
        yield found


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def load(bench: Bench, *arguments: str, proxy: Running | None = None) -> Report:
    through = ["--proxy", f"127.0.0.1:{proxy.port}", "--connect-by-name"] if proxy else []
    return run_load(bench.load_program, ["--origin", bench.origin.address, *through, *arguments])


def test_direct_counts_every_byte(bench: Bench) -> None:
    report = load(bench, "--count", "40", "--at-once", "8", "--sizes", "100000", "--mix", "get,echo")
    tunnels = report.tunnels
    assert (tunnels.ok, tunnels.failed) == (40, 0)
    assert report.through is None
    echoes = tunnels.behaviours["echo"][0]
    assert tunnels.bytes_down == 40 * 100000
    assert tunnels.bytes_up == echoes * 100000


def test_turns_between_proxy_and_direct(bench: Bench, yardstick: Running) -> None:
    report = load(bench, "--count", "20", "--compare-direct", proxy=yardstick)
    assert report.through is not None
    assert report.direct is not None
    assert (report.through.ok, report.direct.ok) == (10, 10)


@pytest.mark.parametrize("streams", ["1", "7"])
def test_http2(bench: Bench, yardstick: Running, streams: str) -> None:
    arguments = ("--alpn", "h2", "--streams", streams, "--sizes", "70000", "--requests", "3", "--count", "4")
    tunnels = load(bench, *arguments, proxy=yardstick).tunnels
    assert (tunnels.ok, tunnels.failed, tunnels.h2) == (4, 0, 4)
    assert tunnels.bytes_down == 4 * 3 * int(streams) * 70000


def test_every_behaviour_through_polytls(bench: Bench, polytls: Running) -> None:
    """Resets, cut hellos, refused certificates, half-closes, slow ends: each ends as it was meant."""
    everything = (
        "get,post,echo,pingpong,half-close,slow-read,slow-write,reset,reset-early,hello-cut,garbage,"
        "reject-leaf,origin-close,origin-cut,origin-reset,bad-chain"
    )
    arguments = ("--mix", everything, "--sizes", "0,1,20000,300000", "--slow-ms", "1", "--rounds", "5")
    tunnels = load(
        bench, *arguments, "--count", "160", "--at-once", "16", "--seed", "7", proxy=polytls
    ).tunnels
    assert (tunnels.ok, tunnels.failed) == (160, 0), tunnels.samples
    assert set(tunnels.behaviours) == set(everything.split(","))


def test_a_seed_repeats_a_plan(bench: Bench) -> None:
    arguments = ("--mix", "get=3,post,echo", "--sizes", "0,1k,64k", "--count", "30", "--at-once", "5")
    first, second, other = (load(bench, *arguments, "--seed", seed).tunnels for seed in ("5", "5", "6"))
    assert first.behaviours == second.behaviours
    assert (first.bytes_down, first.bytes_up) == (second.bytes_down, second.bytes_up)
    assert (first.bytes_down, first.bytes_up) != (other.bytes_down, other.bytes_up)


def test_failures_are_counted_by_name(bench: Bench, polytls: Running) -> None:
    nobody = ["--origin", "127.0.0.1:1", "--proxy", f"127.0.0.1:{polytls.port}", "--count", "3"]
    tunnels = run_load(bench.load_program, nobody).tunnels
    assert (tunnels.ok, tunnels.failed) == (0, 3)
    assert tunnels.failures == {"connect_status_502": 3}


def test_an_untrusted_chain_fails_where_it_is_looked_at(bench: Bench) -> None:
    trusting = ("--ca", str(bench.origin.ca), "--count", "2")
    assert load(bench, *trusting, "--name", "a.own.test").tunnels.ok == 2
    refused = load(bench, *trusting, "--name", "a.bad.test").tunnels
    assert refused.failures == {"handshake_CERTIFICATE_VERIFY_FAILED": 2}


def test_a_row_of_each_kind(bench: Bench, yardstick: Running) -> None:
    subject = ALL["yardstick"]
    for name, metric in (
        ("mitm.c1", "added_p50_ms"),
        ("mitm.c32", "cpu_ms"),
        ("mitm.cold8", "cpu_ms"),
        ("mitm.pingpong", "added_p50_ms"),
        ("mitm.busy", "p99_ms"),
    ):
        found = measure(bench, row(name), 0, subject, yardstick)
        assert found.ok > 0, found
        assert found.failed == 0, found
        assert metric in found.values
    direct = measure(bench, row("mitm.c32"), 0, None, None)
    assert (direct.subject, direct.failed, direct.values["cpu_ms"]) == ("direct", 0, 0.0)


def test_held_tunnels_answer_again(bench: Bench, yardstick: Running) -> None:
    held = Row(
        "mitm.idle", "", row("mitm.idle").kind, ("yardstick",), ("--at-once", "8"), "yardstick", tunnels=50
    )
    found = measure_held(bench, held, 0, ALL["yardstick"], yardstick)
    assert (found.values["held"], found.values["alive"], found.failed) == (50, 50, 0)
    assert found.values["base_mb"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--origin", "127.0.0.1:1", "--mix", "gett"], "--mix takes behaviours"),
        (["--origin", "nowhere"], "--origin takes IPV4:PORT"),
        (["--origin", "127.0.0.1:1", "--sizes", "1g"], "--sizes takes numbers"),
        (["--origin", "127.0.0.1:1", "--what"], "there is no option --what"),
        (["--origin", "127.0.0.1:1", "--count", "x"], "--count takes a whole number"),
    ],
)
def test_misuse_is_one_sentence(programs: Path, arguments: list[str], message: str) -> None:
    done = subprocess.run([programs / "bench-load", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == MISUSE
    assert done.stderr.startswith("bench: error: ")
    assert message in done.stderr


def test_what_does_not_come_up_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match="it cannot"),
        running("x", ["sh", "-c", "echo it cannot >&2; exit 3"], 1, tmp_path),
    ):
        pass


def test_the_kernel_is_asked_right() -> None:
    me = (os.getpid(),)
    before = machine.cpu_seconds(me)
    sum(range(100000))
    assert machine.cpu_seconds(me) > before > 0
    assert machine.main_thread_seconds(me[0]) > 0
    found = machine.memory(me)
    assert found.pss_kb >= found.private_kb > 0
    assert os.getpid() in machine.tree(os.getppid())
    assert machine.this_machine().cores > 0
