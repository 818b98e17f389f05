"""The rows of the table: which subjects each measures, with what load.

A row's name is what `--only` takes: the mode, a dot, what is done. Fast rows run in interleaved rounds;
`held` rows start a fresh subject each, since they ask for its memory.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.spawn import BenchError


class Kind(enum.Enum):
    """What a row asks for."""

    TUNNELS = "tunnels"  # CPU a tunnel, tunnels a second
    LATENCY = "latency"  # one at a time, every second one direct: what the proxy adds
    BULK = "bulk"  # CPU a GB, MB/s
    MESSAGES = "messages"  # round trips, every second tunnel direct
    BUSY = "busy"  # latency while one stream downloads
    HELD = "held"  # memory of idle tunnels
    PROFILES = "profiles"  # CPU a tunnel with each exact profile
    BASE = "base"  # memory of one that has just been started, and after its first tunnels
    THREADS = "threads"  # tunnels a second by the number of threads


MITM = ("yardstick", "polytls-x25519", "polytls", "polytls-chrome", "yardstick-pq", "mitmproxy")
COLD = ("yardstick", "polytls-x25519", "polytls-ecdsa-root", "polytls", "polytls-chrome", "mitmproxy")
BULK = ("yardstick", "polytls-x25519", "mitmproxy")
OTLP = ("polytls-x25519", "polytls-otlp-1.0", "polytls-otlp-0.1", "polytls-metrics")
PASS = ("yardstick-pass", "polytls-pass", "asyncio-pass")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of some subjects."""

    name: str
    title: str
    kind: Kind
    subjects: Sequence[str]
    load: Sequence[str]  # arguments of the load generator
    reference: str  # ratios are to this subject
    direct: bool = False  # also without a proxy
    tunnels: int = 0  # held rows: how many
    own_names: bool = False  # every tunnel has a server name that was never seen
    collector: bool = False  # with a collector beside: `otlp.py`
    nginx: bool = False  # from nginx rather than the origin of our own


ROWS: Sequence[Row] = (
    Row(
        "mitm.c1",
        "MITM, one tunnel at a time",
        Kind.LATENCY,
        MITM,
        ("--at-once", "1", "--compare-direct", "--warmup", "50"),
        "yardstick",
    ),
    Row(
        "mitm.c32",
        "MITM, 32 tunnels at a time",
        Kind.TUNNELS,
        MITM,
        ("--at-once", "32", "--warmup", "64"),
        "yardstick",
    ),
    Row(
        "mitm.cold8",
        "MITM, names never seen, 8 at a time",
        Kind.TUNNELS,
        COLD,
        ("--at-once", "8", "--name", "n%d.origin.test", "--warmup", "8"),
        "yardstick",
        own_names=True,
    ),
    Row(
        "mitm.profiles",
        "MITM, every exact profile, 32 at a time",
        Kind.PROFILES,
        ("polytls",),
        ("--at-once", "32", "--alpn", "h2"),
        "yardstick",
    ),
    Row(
        "mitm.bulk",
        "MITM, download, HTTP/1.1",
        Kind.BULK,
        BULK,
        ("--sizes", "256m", "--mix", "get"),
        "yardstick",
        direct=True,
    ),
    Row(
        "mitm.bulk-h2",
        "MITM, download, HTTP/2",
        Kind.BULK,
        BULK,
        ("--sizes", "256m", "--mix", "get", "--alpn", "h2"),
        "yardstick",
        direct=True,
    ),
    Row(
        "mitm.bulk-nginx",
        "MITM, download from nginx, HTTP/1.1",
        Kind.BULK,
        ("yardstick", "polytls-x25519"),
        ("--sizes", "256m", "--mix", "get", "--body-seed", "0"),
        "yardstick",
        direct=True,
        nginx=True,
    ),
    Row(
        "mitm.upload",
        "MITM, upload",
        Kind.BULK,
        ("yardstick", "polytls-x25519"),
        ("--sizes", "256m", "--mix", "post"),
        "yardstick",
        direct=True,
    ),
    Row(
        "mitm.both",
        "MITM, upload and download at once",
        Kind.BULK,
        ("yardstick", "polytls-x25519"),
        ("--sizes", "256m", "--mix", "echo"),
        "yardstick",
        direct=True,
    ),
    Row(
        "mitm.pingpong",
        "MITM, 1 KB to and fro",
        Kind.MESSAGES,
        ("yardstick", "polytls-x25519", "mitmproxy"),
        ("--mix", "pingpong", "--compare-direct", "--rounds", "500"),
        "yardstick",
    ),
    Row(
        "mitm.busy",
        "MITM, one tunnel at a time while another downloads",
        Kind.BUSY,
        ("yardstick", "polytls-x25519"),
        ("--at-once", "1", "--compare-direct"),
        "yardstick",
        direct=True,
    ),
    Row(
        "mitm.idle",
        "MITM, idle tunnels",
        Kind.HELD,
        ("yardstick", "polytls-x25519", "mitmproxy"),
        (
            "--at-once",
            "32",
        ),
        "yardstick",
        tunnels=9900,
    ),
    Row(
        "mitm.idle-chains",
        "MITM, idle tunnels, each to another origin with its own chain",
        Kind.HELD,
        ("polytls-x25519",),
        ("--at-once", "32", "--name", "n%d.own.test"),
        "yardstick",
        tunnels=9900,
    ),
    Row(
        "mitm.threads",
        "MITM, 32 at a time, by threads of the engine",
        Kind.THREADS,
        ("polytls-x25519",),
        (
            "--at-once",
            "32",
        ),
        "yardstick",
    ),
    Row(
        "mitm.otlp",
        "MITM, 32 tunnels at a time, telemetry over HTTP; measured until all is exported",
        Kind.TUNNELS,
        OTLP,
        ("--at-once", "32"),
        "polytls-x25519",
        collector=True,
    ),
    Row(
        "mitm.otlp-c1",
        "MITM, one tunnel at a time, with a collector and with one that never answers",
        Kind.LATENCY,
        ("polytls-x25519", "polytls-otlp-1.0", "polytls-otlp-stuck"),
        ("--at-once", "1", "--compare-direct", "--warmup", "50"),
        "polytls-x25519",
        collector=True,
    ),
    Row(
        "mitm.otlp-base",
        "MITM, memory with telemetry over HTTP",
        Kind.BASE,
        OTLP,
        ("--at-once", "8"),
        "polytls-x25519",
        collector=True,
    ),
    Row(
        "pass.c1",
        "Passthrough, one tunnel at a time",
        Kind.LATENCY,
        PASS,
        ("--at-once", "1", "--compare-direct", "--warmup", "50"),
        "yardstick-pass",
    ),
    Row(
        "pass.c32",
        "Passthrough, 32 tunnels at a time",
        Kind.TUNNELS,
        PASS,
        ("--at-once", "32", "--warmup", "64"),
        "yardstick-pass",
    ),
    Row(
        "pass.bulk",
        "Passthrough, download",
        Kind.BULK,
        PASS,
        ("--sizes", "256m", "--mix", "get"),
        "yardstick-pass",
        direct=True,
    ),
    Row(
        "pass.idle",
        "Passthrough, idle tunnels",
        Kind.HELD,
        PASS,
        (
            "--at-once",
            "32",
        ),
        "yardstick-pass",
        tunnels=9900,
    ),
)

EXTRA = ("net.page", "net.download", "start")
"""Measurements that are no rows of this kind: `network.py`, `startup.py`."""


def selected(patterns: Sequence[str]) -> frozenset[str]:
    """Names that match one of the shell patterns; all without any. Raises `BenchError` for a futile one."""
    names = [row.name for row in ROWS] + list(EXTRA)
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise BenchError(f"no row is called {pattern!r}; there are {', '.join(names)}")
        chosen.update(found)
    return frozenset(chosen if patterns else names)
