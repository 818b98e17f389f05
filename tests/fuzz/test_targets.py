"""Every reader of foreign bytes, on its seeds and on a bounded number of mutations, the same each time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import ROOT, TARGETS

EXAMPLES = 150
"""Of each target; together they take a few seconds."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """Those that once broke something among them."""
    target = TARGETS[name]
    for seed in target.seeds():
        target.run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target.seeds()))
    def check(data: bytes) -> None:
        target.run(data)

    check()


def test_the_long_run_ends_in_time_and_says_what_it_did() -> None:
    """`make fuzz` goes on for as long as it is told."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        "--seconds",
        "1",
        "--engine",
        "hypothesis",
        "head",
        "host",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("head: ")
    assert second.startswith("host: ")
    assert int(first.split()[1]) > 0
