"""`make image-try` where it cannot be tried: the reason, and no failure. What it tries it says itself."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.docker.dockerfile import ROOT


def test_it_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.docker.image_try"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": os.devnull},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("image-try: skipped: ")
    missing = "podman is not installed" if os.geteuid() == 0 else "it needs root"
    assert missing in done.stdout
