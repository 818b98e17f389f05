"""A real network in small: client and proxy in one network namespace, the origin in another, a line between.

The line has 20 ms round trip and 100 Mbit/s (native/bench/link: packets through two TUN devices; the kernel's
own netem is missing on many machines). TCP and its congestion control are the kernel's. Tunnels through the
proxy and direct ones take turns; the metric is the time from connect() to the last byte, and its ratio to
direct.

The proxy is beside the client, so what it adds in round trips to the origin shows, and nothing else does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loadgen import run_load
from tests.bench.measure import Sample
from tests.bench.spawn import BenchError, Origin, origin, running, stop
from tests.bench.subjects import ALL, command_of

_CLIENT, _ORIGIN = "198.18.77.1", "198.18.77.2"  # RFC 2544: set aside for measurements
_PORTS = {"origin": 18443, "proxy": 18080}
_DEVICE = "line0"
DELAY_MS, RATE_MBIT = 10, 100  # each way


@dataclass(frozen=True, slots=True)
class Journey:
    """What is fetched over the line."""

    row: str
    title: str
    load: Sequence[str]


JOURNEYS = (
    Journey(
        "net.page",
        "a page of 50 objects of 20 KB over HTTP/2",
        ("--alpn", "h2", "--streams", "50", "--sizes", "20k", "--count", "16", "--warmup", "2"),
    ),
    Journey("net.download", "a download of 50 MB", ("--sizes", "50m", "--count", "4")),
)


def why_not() -> str | None:
    """None, or why there can be no such network here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` (iproute2) is not installed"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    probe = f"bench-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode != 0:
        return "network namespaces are not allowed here"
    _ip("netns", "del", probe)
    return None


def measure_network(programs: Path, scratch: Path, rows: frozenset[str]) -> Iterator[Sample]:
    """The journeys in `rows`, through PolyTLS and the yardstick. Raises `BenchError`."""
    with _line(programs) as (near, far):
        prefix = ("ip", "netns", "exec")
        listen = f"{_ORIGIN}:{_PORTS['origin']}"
        with origin(
            programs / "bench-origin", scratch / "far", "--listen", listen, within=(*prefix, far)
        ) as upstream:
            for name in ("yardstick", "polytls-x25519"):
                yield from _through(name, upstream, programs, scratch, (*prefix, near), rows)


def _through(
    name: str, upstream: Origin, programs: Path, scratch: Path, within: Sequence[str], rows: frozenset[str]
) -> Iterator[Sample]:
    subject = ALL[name]
    directory = scratch / f"near-{name}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    port = _PORTS["proxy"]
    command = [*within, *command_of(subject, port, upstream, programs, directory, host=_ORIGIN)]
    with running(name, command, port, directory, ready=_accepting(within, port)):
        for journey in JOURNEYS:
            if journey.row not in rows:
                continue
            load = directory / "load"
            load.write_text(f'#!/bin/sh\nexec {" ".join(within)} {programs}/bench-load "$@"\n')
            load.chmod(0o755)
            aim = [
                "--proxy",
                f"127.0.0.1:{port}",
                "--origin",
                f"{_ORIGIN}:{upstream.port}",
                "--compare-direct",
            ]
            by_name = ["--connect-by-name"] if subject.by_name else []
            report = run_load(load, [*aim, *by_name, *journey.load])
            through, direct = report.through, report.direct
            if through is None or direct is None or through.ok == 0 or direct.ok == 0:
                raise BenchError(f"{journey.row} through {name}: no tunnel went well")
            own, other = through.times["done"], direct.times["done"]
            assert own is not None
            assert other is not None
            values = {"done_ms": own.p50, "direct_ms": other.p50, "ratio_to_direct": own.p50 / other.p50}
            failed = through.failed + direct.failed
            yield Sample(journey.row, name, 0, values, through.ok, failed, through.failures)


def _accepting(within: Sequence[str], port: int) -> list[str]:
    probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1).close()"
    return [*within, "python3", "-c", probe]


@contextlib.contextmanager
def _line(programs: Path) -> Iterator[tuple[str, str]]:
    """Two namespaces with the line between them. Raises `BenchError`."""
    near, far = f"bench-{os.getpid()}-near", f"bench-{os.getpid()}-far"
    with contextlib.ExitStack() as stack:
        for name in (near, far):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
        line = subprocess.Popen(
            [
                programs / "bench-link",
                *("--a", near, "--b", far, "--device", _DEVICE),
                *("--delay-ms", str(DELAY_MS), "--mbit", str(RATE_MBIT)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(stop, line)
        assert line.stdout is not None
        if line.stdout.readline() != "READY\n":
            raise BenchError("the line between the namespaces could not be made")
        for name, own, peer in ((near, _CLIENT, _ORIGIN), (far, _ORIGIN, _CLIENT)):
            _ip("-n", name, "addr", "add", own, "peer", peer, "dev", _DEVICE)
            _ip("-n", name, "link", "set", _DEVICE, "up")
        yield near, far


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
