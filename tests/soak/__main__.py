"""`make soak`: the real proxy at full rate, with everything that can happen to tunnels, until it has been
enough.

SOAK_SECONDS (120) says how long, SOAK_TUNNELS how many tunnels instead, SOAK_SEED (1) which ones. First
comes a warm-up, which fills the caches; then rounds, with a checkpoint after each, at which nothing may be
under way and everything must be as it was. The report goes to build/soak/; --write-docs puts it into
docs/performance.md too.

Exit code 0: everything held; 1: something did not; 2: it could not be found out.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.machine import this_machine
from tests.bench.spawn import BenchError, origin
from tests.bench.subjects import ROOT
from tests.soak import judge, report
from tests.soak.driver import ACCEPT4, EPOLL_WAIT, RECV, SEND, SHORT, Driven, Rule, driven
from tests.soak.judge import Checkpoint
from tests.soak.load import ORIGIN, Places, Round, run_round
from tests.soak.subject import LEAF_CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OUTPUT = ROOT / "build" / "soak"
DOCUMENT = ROOT / "docs" / "performance.md"
ROUND_SECONDS = (5.0, 60.0)
ROUNDS = 10  # checkpoints, of a soak that is not long
WARM_TUNNELS = 4 * LEAF_CACHE
"""Of each load generator, new names among them: twice what fills every cache."""
NAMES_A_ROUND = 10_000_000
STORM = (
    *(Rule(call, error, one_in=8) for call in (RECV, SEND) for error in (SHORT, errno.EAGAIN, errno.EINTR)),
    Rule(ACCEPT4, errno.ECONNABORTED, one_in=8),
    Rule(EPOLL_WAIT, errno.EINTR, one_in=8),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="polytls-soak-") as scratch:
            found = soak(
                Path(scratch),
                seconds=options.seconds,
                tunnels=options.tunnels,
                seed=options.seed,
                warm=options.warm,
                say=lambda text: print(text, flush=True),
            )
    except BenchError as error:
        print(f"soak: error: {error}", file=sys.stderr)
        return 2
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "report.json").write_text(json.dumps(report.as_json(found), indent=1), encoding="utf-8")
    (OUTPUT / "report.md").write_text(report.table(found) + "\n", encoding="utf-8")
    print(report.table(found))
    if options.write_docs:
        report.write_document(DOCUMENT, report.table(found))
    return 1 if found.wrong else 0


def soak(
    scratch: Path, *, seconds: float, tunnels: int, seed: int, warm: int, say: Callable[[str], None]
) -> report.Report:
    """Warm up, then rounds until `seconds` are over or, where there are any, `tunnels` are made."""
    machine = this_machine()
    rounds: list[Round] = []
    checkpoints: list[Checkpoint] = []
    wrong: list[str] = []
    each = (
        min(max(seconds / ROUNDS, ROUND_SECONDS[0]), ROUND_SECONDS[1])
        if not tunnels
        else ROUND_SECONDS[1] / 2
    )
    with (
        places(scratch / "origin") as where,
        driven(scratch / "proxy", where.origin.ca) as subject,
    ):
        much = f"{tunnels} tunnels" if tunnels else f"{seconds:g} s"
        say(f"soak: seed {seed}, {much}, rounds of {each:g} s")
        spent = 0.0
        while not rounds or (sum(r.tunnels for r in rounds[1:]) < tunnels if tunnels else spent < seconds):
            number = len(rounds)
            warming = number == 0
            made = run_round(
                subject,
                where,
                seed=seed + 16 * number,
                first_name=NAMES_A_ROUND * (number + 1),
                seconds=each if not warming else 600.0,
                count=warm if warming else None,
                pause=not warming,
            )
            rounds.append(made)
            spent += 0.0 if warming else made.seconds
            checkpoints.append(_checkpoint(subject, rounds, checkpoints, wrong))
            say(_line(made, checkpoints[-1]))
            if wrong:
                break
        storm = _storm(scratch / "storm", where, seed=seed, seconds=each, wrong=wrong)
    wrong += judge.memory(checkpoints)
    say(f"a storm of {storm.struck:,} calls cut short or told to come again: {storm.tunnels:,} tunnels")
    return report.Report(machine, _revision(), seed, rounds, checkpoints, storm, wrong)


def _storm(directory: Path, where: Places, *, seed: int, seconds: float, wrong: list[str]) -> report.Storm:
    """A last round, through a proxy whose system calls are interrupted, cut short and put off by chance: what
    a kernel may do at any time. The books must agree as ever."""
    with driven(directory, where.origin.ca, faults=True) as subject:
        subject.faults(*STORM)
        first_name = NAMES_A_ROUND // 2  # none that the clients had before
        made = run_round(subject, where, seed=seed + 8, first_name=first_name, seconds=seconds, pause=False)
        struck = subject.faults()
        snapshot = subject.snapshot()
    wrong += [f"in the storm: {one}" for one in (*judge.at_rest(snapshot), *judge.accounts([made], snapshot))]
    wrong += [f"in the storm: {one}" for one in made.samples[:4]]
    return report.Storm(struck, made.tunnels, made.failed)


def _checkpoint(
    subject: Driven, rounds: Sequence[Round], before: Sequence[Checkpoint], wrong: list[str]
) -> Checkpoint:
    snapshot = subject.snapshot()
    wrong += judge.at_rest(snapshot)
    wrong += judge.accounts(rounds, snapshot)
    wrong += [sample for one in rounds for sample in one.samples[:4]]
    if before:
        wrong += judge.same_as_before(before[0].snapshot, snapshot)
    return Checkpoint(sum(one.tunnels for one in rounds), sum(one.seconds for one in rounds), snapshot)


def _line(made: Round, checkpoint: Checkpoint) -> str:
    shot: dict[str, Any] = dict(checkpoint.snapshot)
    rate = made.tunnels / made.seconds
    return (
        f"{checkpoint.seconds:7.0f} s {checkpoint.tunnels:9,} tunnels ({rate:5.0f}/s), "
        f"failed {made.failed}, PSS {checkpoint.pss_kb:,} KB, descriptors {shot['descriptors']}, "
        f"threads {shot['threads']}, impossible {shot['engine']['impossible']}"
    )


@contextlib.contextmanager
def places(directory: Path) -> Iterator[Places]:
    """The origin, a port that refuses and one that does not answer."""
    if not ORIGIN.exists():
        raise BenchError("the native programs are not built: `make bench-build`")
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(origin(ORIGIN, directory, "--threads", "2"))
        # Bound, and not listening: nobody else can have it.
        refusing = stack.enter_context(socket.socket())
        refusing.bind(("127.0.0.1", 0))
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):  # Linux drops what a full backlog cannot take
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        yield Places(served, refusing.getsockname()[1], hole.getsockname()[1])


def _revision() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "no commit"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def from_environment(name: str, otherwise: str) -> str:
        return os.environ.get(name) or otherwise

    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=from_environment("SOAK_SECONDS", "120"))
    parser.add_argument("--tunnels", type=int, default=from_environment("SOAK_TUNNELS", "0"))
    parser.add_argument("--seed", type=int, default=from_environment("SOAK_SEED", "1"))
    parser.add_argument(
        "--warm", type=int, default=WARM_TUNNELS, help="tunnels of each load generator's warm-up"
    )
    parser.add_argument("--write-docs", action="store_true", help="into docs/performance.md as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
