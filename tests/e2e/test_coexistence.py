"""One process, four TLS libraries: `ssl` (OpenSSL), `cryptography` (its own OpenSSL), gRPC (its own
BoringSSL) and the engine (another BoringSSL). A symbol of one that is taken for the other's shows as a crash.

In a process of its own, so that a crash is this test's alone, and in both orders of importing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.serve import HANG_SECONDS, clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]
ORDERS = {
    "engine first": ("polytls.engine", "grpc", "cryptography.x509", "ssl"),
    "engine last": ("ssl", "cryptography.x509", "grpc", "polytls.engine"),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_four_tls_libraries_in_one_process(order: tuple[str, ...], tmp_path: Path) -> None:
    script = Path(__file__).with_name("coexistence.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *order],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**clean_environment(), "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout.split("\n")[:-1] == ["ssl", "cryptography", "grpc", "engine", "all at once"]
