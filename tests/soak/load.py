"""Load for a soak: several load generators at once, each with a mix of everything that tunnels can come to.

Three run at a time: HTTP/1.1 with names that are known, HTTP/2 with another profile, and names that were
never seen before, whose certificates the client verifies. A seed decides all of it; the same seed gives the
same tunnels.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.spawn import BenchError, Origin, stop
from tests.bench.subjects import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.soak.driver import Driven

LOAD = ROOT / "build" / "bench" / "bin" / "bench-load"
ORIGIN = ROOT / "build" / "bench" / "bin" / "bench-origin"
STALL_SECONDS = 60.0
"""Without progress for so long a tunnel has failed; the machine may be busy."""
PAUSE_SECONDS = 0.5
RELOAD_SECONDS = 0.25
"""Between two reloads of the configuration."""

_RUDE = (
    "reset=4,reset-early=5,hello-cut=2,garbage=2,reject-leaf=2,bad-chain=2,sni-mismatch=2,alpn-mismatch=2,"
    "origin-alert=2,origin-plain=2,origin-hangup=2,not-connect=1,bad-head=1,no-name=1,refused=2"
)
_HTTP1 = (
    "get=34,post=8,echo=8,pingpong=4,half-close=6,slow-read=1,slow-write=1,origin-close=5,origin-cut=3,"
    f"origin-reset=3,hole=1,leave=1,{_RUDE}"
)
_HTTP2 = "get=60,reset-early=5,hello-cut=2,reject-leaf=2,bad-chain=2,sni-mismatch=2,origin-alert=2"
_COLD = f"get=40,half-close=4,{_RUDE}"


@dataclass(frozen=True, slots=True)
class Generator:
    """One load generator's part."""

    name: str
    mix: str
    sizes: str
    at_once: int
    arguments: Sequence[str] = ()
    names: int = 200  # 0: each tunnel another
    verifies: bool = False
    share: float = 1.0  # of a round's `count`


GENERATORS = (
    Generator("HTTP/1.1", _HTTP1, "0,1,1024,1024,16k,64k,300k", 20, ("--rounds", "20", "--slow-ms", "2")),
    Generator(
        "HTTP/2",
        _HTTP2,
        "0,1024,1024,20k,100k",
        10,
        ("--alpn", "h2", "--streams", "3", "--connect-field", "X-PolyTLS-Upstream-Profile: firefox-155"),
    ),
    Generator(
        "new names",
        _COLD,
        "1,1024,4000",
        6,
        ("--connect-field", "X-PolyTLS-Upstream-Profile: mirror"),
        names=0,
        verifies=True,
    ),
    # Still for longer than it takes a relay to give up its expanded keys; some records between.
    Generator(
        "quiet",
        "slow-read,slow-write",
        "20k,40k",
        8,
        ("--slow-bytes", "16384", "--slow-ms", "1200"),
        share=0.01,
    ),
)


@dataclass
class Round:
    """What the clients of one round say they did."""

    seed: int
    seconds: float = 0.0
    reloads: int = 0
    tunnels: int = 0
    failed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    by_label: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def add(self, found: Mapping[str, Any]) -> None:
        through = found["through"]
        self.tunnels += through["ok"] + through["failed"]
        self.failed += through["failed"]
        self.bytes_down += through["bytes_down"]
        self.bytes_up += through["bytes_up"]
        for label, one in through["behaviours"].items():
            self.by_label[label] += one["ok"] + one["failed"]
        self.failures.update(through["failures"])
        self.samples += through["samples"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the misfortunes of a soak are to be had."""

    origin: Origin
    refusing_port: int
    hole_port: int


def command(
    part: Generator, subject: Driven, places: Places, *, seed: int, first_name: int, limit: Sequence[str]
) -> list[str]:
    """The command line of one load generator."""
    origin = places.origin
    made = [
        str(LOAD),
        "--proxy",
        f"127.0.0.1:{subject.port}",
        "--origin",
        origin.address,
        "--connect-by-name",
    ]
    made += [
        "--label",
        "--name",
        "%d.origin.test",
        "--names",
        str(part.names),
        "--first-name",
        str(first_name),
    ]
    made += ["--mix", part.mix, "--sizes", part.sizes, "--at-once", str(part.at_once), "--seed", str(seed)]
    made += ["--plain-port", str(origin.plain_port), "--rude-port", str(origin.rude_port)]
    made += ["--refusing-port", str(places.refusing_port), "--hole-port", str(places.hole_port)]
    made += ["--timeout", str(STALL_SECONDS), *part.arguments, *limit]
    return made + (["--ca", str(subject.root)] if part.verifies else [])


def run_round(
    subject: Driven,
    places: Places,
    *,
    seed: int,
    first_name: int,
    seconds: float,
    count: int | None = None,
    pause: bool = True,
) -> Round:
    """All generators at once for so long, or so many tunnels each; meanwhile the proxy's configuration is
    reloaded again and again, and is at the end what it was. The proxy is stopped and continued in the middle
    (SIGSTOP, SIGCONT) if `pause`. Raises `BenchError`."""

    def limit(part: Generator) -> list[str]:
        for_so_long = ["--seconds", str(seconds)]
        so_many = for_so_long if count is None else ["--count", str(max(1, round(count * part.share)))]
        return [*so_many, "--max-seconds", str(seconds + 2 * STALL_SECONDS)]

    began = time.monotonic()
    running = [
        subprocess.Popen(
            command(part, subject, places, seed=seed + index, first_name=first_name, limit=limit(part)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, part in enumerate(GENERATORS)
    ]
    made = Round(seed)
    try:
        made.reloads = _disturb(subject, running, pause_after=seconds / 2 if pause else None)
        for part, process in zip(GENERATORS, running, strict=True):
            said, complained = process.communicate(timeout=seconds + 3 * STALL_SECONDS)
            if process.returncode != 0:
                raise BenchError(f"the load generator for {part.name} failed: {complained[-400:]}")
            made.add(json.loads(said.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"a load generator did not end: {subject.said()}") from error
    finally:
        for process in running:
            stop(process)
    made.seconds = time.monotonic() - began
    _reload(subject, 0)
    return made


def _disturb(subject: Driven, running: Sequence[subprocess.Popen[str]], *, pause_after: float | None) -> int:
    """As long as one of them runs; how many reloads there were."""
    began, number = time.monotonic(), 0
    while any(process.poll() is None for process in running):
        number += 1
        _reload(subject, number)
        if pause_after is not None and time.monotonic() - began >= pause_after:
            pause_after = None
            _pause(subject)
        time.sleep(RELOAD_SECONDS)
    return number


def _reload(subject: Driven, number: int) -> None:
    if not subject.ask("reload", number=number)["taken"]:
        raise BenchError(f"the proxy did not take configuration {number}: {subject.said()}")


def _pause(subject: Driven) -> None:
    subject.pause()
    try:
        time.sleep(PAUSE_SECONDS)
    finally:
        subject.go_on()
