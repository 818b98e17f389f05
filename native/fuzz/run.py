"""Runs the native fuzzers that were built with libFuzzer, one after the other.

    python native/fuzz/run.py --build build/fuzz [--seconds N] [TARGET...]
    python native/fuzz/run.py --build build/fuzz --grow [TARGET...]

Theory of operation
-------------------
What a fuzzer finds on its way is kept in WORK/TARGET below the build directory, and the next run goes on from
there. Each run prints a line: how many inputs, how much was reached. An input that breaks something is left
beside it, its path is printed, and the exit status is 1 when all have run.

`--grow` takes what was found into the corpus in the tree: of the least files that reach what all of them
reach (libFuzzer's merge, which takes short ones first) up to `MAX_GROWN_FILES` a target, so that replaying
stays fast and the repository small.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MAX_GROWN_FILES = 64
MAX_GROWN_BYTES = 24_000
"""Of the files a corpus has besides its seeds: a spread of them, by size, where there are more."""

MAX_INPUT_BYTES = 8192
"""Longer inputs find little and cost much. The limits that are larger have seeds and tests."""

_CORPUS = Path(__file__).resolve().parent / "corpus"
_ENVIRONMENT = {"ASAN_OPTIONS": "detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
_STATUS = re.compile(r"cov: (\d+)")
_DONE = re.compile(r"stat::number_of_executed_units: (\d+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="where CMake built them")
    parser.add_argument("--seconds", type=int, default=30, help="for each target (default: 30)")
    parser.add_argument("--grow", action="store_true", help="take what was found into the corpus")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all that were built")
    options = parser.parse_args(arguments)
    programs = {
        path.name.removeprefix("fuzz_"): path for path in sorted((options.build / "fuzz").glob("fuzz_*"))
    }
    unknown = sorted({*options.targets} - {*programs})
    if unknown:
        parser.error(f"there is no fuzzer {unknown[0]}; there are {', '.join(programs)}")
    failed = []
    for name in options.targets or programs:
        work = options.build / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        if options.grow:
            grow(programs[name], work, _CORPUS / name)
        elif not fuzz(programs[name], work, _CORPUS / name, options.seconds):
            failed.append(name)
    if failed:
        print(f"polytls: error: fuzzing found something in {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


def fuzz(program: Path, work: Path, corpus: Path, seconds: int) -> bool:
    """One fuzzer for so long; whether it found nothing. Its words are shown where it did."""
    done = _run(
        program,
        [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", "-timeout=60", "-print_final_stats=1"],
        [f"-artifact_prefix={work.parent}/crash-{work.name}-", str(work), str(corpus)],
    )
    reached, executed = _STATUS.findall(done.stderr), _DONE.search(done.stderr)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return False
    count = executed[1] if executed else "no"
    print(f"{work.name}: {count} inputs, {reached[-1] if reached else 0} edges reached", flush=True)
    return True


def grow(program: Path, work: Path, corpus: Path) -> None:
    """Takes the least that adds to the seeds into the corpus, in place of what was grown before."""
    kept = [path for path in corpus.iterdir() if not path.name.startswith("grown-")]
    with tempfile.TemporaryDirectory() as scratch:
        base, merged = Path(scratch, "base"), Path(scratch, "merged")
        base.mkdir()
        merged.mkdir()
        for path in kept:
            (base / path.name).write_bytes(path.read_bytes())
            (merged / path.name).write_bytes(path.read_bytes())
        found = _run(
            program, ["-merge=1", f"-max_len={MAX_INPUT_BYTES}"], [str(merged), str(work), str(corpus)]
        )
        if found.returncode != 0:
            print(found.stderr, file=sys.stderr)
            raise SystemExit(1)
        new = sorted(
            (path.read_bytes() for path in merged.iterdir() if not (base / path.name).exists()), key=len
        )
    for old in corpus.glob("grown-*"):
        old.unlink()
    total = count = 0
    for data in new[:: -(-len(new) // MAX_GROWN_FILES) or 1]:
        if total + len(data) > MAX_GROWN_BYTES:
            break
        (corpus / f"grown-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
        total, count = total + len(data), count + 1
    print(f"{corpus.name}: {count} of {len(new)} inputs taken, {total} bytes", flush=True)


def _run(program: Path, flags: list[str], rest: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_ENVIRONMENT}
    command = [str(program.absolute()), *flags, *rest]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )


if __name__ == "__main__":
    sys.exit(main())
