"""Fuzzes the Python readers for as long as one likes.

    python -m tests.fuzz.run [--seconds N] [--engine atheris|hypothesis] [TARGET...]

Theory of operation
-------------------
Each target runs in a process of its own. With atheris, where that package is installed, the search is guided
by coverage, and its corpus is kept in build/fuzz/python/TARGET for the next time. Else hypothesis draws
mutations of the seeds, in rounds with a new seed each, until the time is over. A failure is printed with its
input, which belongs into tests/fuzz/found/TARGET once it is understood, and ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import MAX_INPUT_BYTES, ROOT, TARGETS

ENGINES = ("atheris", "hypothesis")
ROUND_EXAMPLES = 200
_WORK = ROOT / "build" / "fuzz" / "python"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each target (default: 30)")
    parser.add_argument("--engine", choices=ENGINES, help="default: atheris where it is installed")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    options = parser.parse_args(arguments)
    unknown = sorted({*options.targets} - {*TARGETS})
    if unknown:
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    engine = options.engine or ENGINES[importlib.util.find_spec("atheris") is None]
    if options.here:
        return _here(engine, options.targets[0], options.seconds)
    failed = [name for name in options.targets or TARGETS if not _apart(engine, name, options.seconds)]
    if failed:
        print(f"polytls: error: fuzzing found something in {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


def _apart(engine: str, name: str, seconds: int) -> bool:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        "--here",
        "--engine",
        engine,
        "--seconds",
        str(seconds),
    ]
    return subprocess.run([*command, name], cwd=ROOT, check=False).returncode == 0


def _here(engine: str, name: str, seconds: int) -> int:
    return _guided(name, seconds) if engine == "atheris" else _drawn(name, seconds)


def _drawn(name: str, seconds: int) -> int:
    """Rounds of mutations until the time is over."""
    target, seeds = TARGETS[name], TARGETS[name].seeds()
    end, count, number = time.monotonic() + seconds, 0, time.time_ns()
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(
            max_examples=ROUND_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(mutated(seeds))
        def check(data: bytes) -> None:
            nonlocal count
            count += 1
            target.run(data)

        try:
            check()
        except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
            traceback.print_exc()
            return 1
    print(f"{name}: {count} inputs with hypothesis")
    return 0


def _guided(name: str, seconds: int) -> int:
    """libFuzzer over Python's coverage. It ends the process by itself."""
    atheris: Any = importlib.import_module("atheris")
    target = TARGETS[name]
    work, seeds = _WORK / name, _WORK / f"{name}.seeds"
    for directory in (work, seeds):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(data)
    atheris.instrument_all()
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    where = [f"-artifact_prefix={_WORK}/crash-{name}-", str(work), str(seeds)]
    atheris.Setup([str(Path(sys.argv[0])), *limits, *where], target.run)
    print(f"{name}: with atheris", flush=True)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
