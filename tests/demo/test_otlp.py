"""``make demo-otlp`` as it is run, with the collector that is there and without one."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.otlp.collector import BUILD_SECONDS
from tests.peers.serve import clean_environment
from tests.peers.tools import require

DEMO = Path(__file__).with_name("otlp.py")


@pytest.mark.timeout(BUILD_SECONDS + 120)
@pytest.mark.parametrize("real", [True, False], ids=["any collector", "no collector"])
def test_the_demo_reads_its_summary_from_the_collector(tmp_path: Path, real: bool) -> None:
    require("curl")
    require("openssl")
    environment = {**clean_environment(), "TMPDIR": str(tmp_path)}
    if not real:
        environment |= {"POLYTLS_NO_COLLECTOR": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    picture = tmp_path / "trace.svg"
    done = subprocess.run(
        [sys.executable, str(DEMO), "--svg", str(picture)],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS + 100,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    if not real:
        assert "NOT the real one: POLYTLS_NO_COLLECTOR is set" in done.stdout
    for word in ("completed", "certificate_expired", "client_rejects_leaf", "idle_timeout", "drained"):
        assert any(line.startswith(f"{word} ") for line in done.stdout.splitlines()), word
    assert "CONNECT http2.lab.test" in done.stdout
    root = ElementTree.fromstring(picture.read_text())  # drawn by us, a moment ago
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"tunnel", "head", "connect", "upstream handshake", "client handshake", "relay"} <= set(texts)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("polytls-demo-")] == []
