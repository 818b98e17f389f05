"""``make demo`` as it is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.peers.serve import HANG_SECONDS, clean_environment
from tests.peers.tools import require

DEMO = Path(__file__).with_name("demo.py")


def _run(path: str | None = None, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = clean_environment()
    if path is not None:
        environment["PATH"] = path
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    return subprocess.run(
        [sys.executable, str(DEMO)], capture_output=True, text=True, timeout=HANG_SECONDS, env=environment
    )


def test_the_demo_shows_three_clients(tmp_path: Path) -> None:
    require("curl")
    done = _run(temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 profiles, 3 JA3, 3 JA4" in done.stdout
    for client in ("curl, straight", "chrome", "firefox", "safari"):
        assert any(line.startswith(f"{client} ") for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_without_curl_one_sentence_says_so(tmp_path: Path) -> None:
    done = _run(path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "demo: error: curl was not found; install it (Debian, Ubuntu: apt-get install curl)\n"
    )
