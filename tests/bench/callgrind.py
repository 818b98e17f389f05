"""`make callgrind`: instructions of the pure native paths, against what was recorded.

Instructions do not depend on how busy a machine is, so that a path which grew is seen at once. They do depend
on compiler and processor architecture; a record is kept for each pair of them (callgrind.json), a growth of
more than 5 % over it fails, and where there is none that is said and nothing fails. ``--record`` writes it
anew: after a change that is meant, in the same commit.

What is counted: native/bench/counts. The hello is that of the profile `chrome`, whose order is shuffled and
whose GREASE is drawn each time, which varies the count by far less than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polytls.profiles import Catalog
from tests.bench.spawn import BenchError
from tests.bench.subjects import ROOT

RECORD = Path(__file__).with_name("callgrind.json")
PROGRAM = ROOT / "build" / "bench" / "bin" / "bench-counts"
TOLERANCE = 0.05
"""Of the record. Shuffled hellos vary by less than 1 %, a compiler's patch release by little more."""
PATHS: Mapping[str, int] = {"hello": 40, "parse": 200, "relay": 8}
"""Each with how often it is done: enough to even out, seconds under valgrind."""
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Comparison:
    """One path: instructions each time, now and as recorded."""

    path: str
    now: int
    recorded: int | None

    @property
    def grew_too_much(self) -> bool:
        return self.recorded is not None and self.now > self.recorded * (1 + TOLERANCE)

    def __str__(self) -> str:
        if self.recorded is None:
            return f"{self.path}: {self.now:,} instructions; nothing recorded to compare with"
        change = 100 * (self.now / self.recorded - 1)
        verdict = f", more than {TOLERANCE:.0%} above" if self.grew_too_much else ""
        return (
            f"{self.path}: {self.now:,} instructions, recorded {self.recorded:,} ({change:+.1f} %){verdict}"
        )


def key_of(compiler_says: str, machine: str) -> str:
    """What a record is kept by: architecture, compiler and its major version. Raises `BenchError`."""
    first = compiler_says.splitlines()[0] if compiler_says else ""
    found = re.search(r"(\d+)\.\d+", re.sub(r"\(.*?\)", "", first))
    if found is None:
        raise BenchError(f"no compiler version in {first!r}")
    name = "clang" if "clang" in first else "gcc"
    return f"{machine} {name} {found.group(1)}"


def total_of(callgrind_out: str) -> int:
    """The instructions in a callgrind.out file. Raises `BenchError`."""
    found = re.search(r"^(?:summary|totals): (\d+)", callgrind_out, re.MULTILINE)
    if found is None or found.group(1) == "0":
        raise BenchError("callgrind counted nothing: was the measured function inlined?")
    return int(found.group(1))


def count(path: str, template: Path, scratch: Path) -> int:
    """Instructions of doing `path` once. Raises `BenchError`."""
    out = scratch / f"{path}.out"
    command = [
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect=measured_{path}"),
        *(str(PROGRAM), path, str(PATHS[path]), str(template)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise BenchError(f"{path} failed under valgrind: {done.stderr.strip()[-400:]}")
    return total_of(out.read_text(encoding="utf-8")) // PATHS[path]


def compare(key: str, now: Mapping[str, int], record: Mapping[str, Mapping[str, int]]) -> list[Comparison]:
    """Each path that was counted; pure."""
    recorded = record.get(key, {})
    return [Comparison(path, instructions, recorded.get(path)) for path, instructions in now.items()]


def measure() -> dict[str, int]:
    """Every path. Raises `BenchError`."""
    if not PROGRAM.exists():
        raise BenchError(f"{PROGRAM} is not built; build it with `make bench-build`")
    spec = Catalog.load({}, "bench").find("chrome")
    if spec is None or spec.template is None:
        raise BenchError("the profile `chrome` has no template")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        template = scratch / "template"
        template.write_bytes(spec.template)
        return {path: count(path, template, scratch) for path in PATHS}


def compiler_says() -> str:
    """What the compiler that built the programs answers to --version: CXX, else what CMake takes."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return subprocess.run(
                [name.split()[0], "--version"], capture_output=True, text=True, check=True
            ).stdout
    raise BenchError("no C++ compiler was found")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1: a path grew too much; 2: it could not be measured."""
    parser = argparse.ArgumentParser(prog="make callgrind", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write what is counted as the record")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("callgrind: left out, valgrind is not installed")
        return 0
    try:
        key, now = key_of(compiler_says(), platform.machine()), measure()
    except BenchError as error:
        print(f"callgrind: error: {error}", file=sys.stderr)
        return 2
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    print(f"callgrind: {key}")
    if options.record:
        record[key] = now
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    comparisons = compare(key, now, record)
    for comparison in comparisons:
        print(f"  {comparison}")
    return 1 if any(comparison.grew_too_much for comparison in comparisons) else 0


if __name__ == "__main__":
    sys.exit(main())
