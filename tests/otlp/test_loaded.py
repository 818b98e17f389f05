"""Nothing of OpenTelemetry is imported unless there is somewhere to export to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.serve import HANG_SECONDS, clean_environment

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from polytls import program
from polytls.config import load_settings

loaded = load_settings(None, os.environ, {overrides!r})

def announce(started):
    os.kill(os.getpid(), signal.SIGTERM)

program.run(loaded.settings, origins=loaded.origins, announce=announce)
found = ("opentelemetry", "grpc", "google.protobuf", "requests", "urllib3")
print(sorted({{name for name in found if name in sys.modules}}))
"""


def loaded_by(directory: Path, environ: dict[str, str], mode: str = "mitm") -> list[str]:
    """Which of the packages are loaded after a proxy has run, from start to stop."""
    overrides = {
        "proxy.listen.address": "127.0.0.1:0",
        "proxy.mitm.enabled": mode == "mitm",
        "proxy.certificate.ca_key_path": str(directory / "private.key"),
        "proxy.certificate.ca_cert_path": str(directory / "certificate.pem"),
        "proxy.timeouts.drain": 1,
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(overrides=overrides)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        cwd=ROOT,
        env={**clean_environment(), **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[-1]
    return found.strip("[]").replace("'", "").split(", ") if found != "[]" else []


NOWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


@pytest.mark.parametrize("mode", ["mitm", "passthrough"])
def test_without_a_collector_nothing_is_loaded(tmp_path: Path, mode: str) -> None:
    assert loaded_by(tmp_path, {}, mode) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SERVICE_NAME": "proxy", "OTEL_RESOURCE_ATTRIBUTES": "a=b"},
        {**NOWHERE, "OTEL_SDK_DISABLED": "true"},
        {
            **NOWHERE,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
        {**NOWHERE, "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
    ids=["names alone", "disabled", "no exporter", "empty"],
)
def test_what_does_not_turn_it_on(tmp_path: Path, environ: dict[str, str]) -> None:
    assert loaded_by(tmp_path, environ, "passthrough") == []


def test_over_http_there_is_no_grpc(tmp_path: Path) -> None:
    found = loaded_by(tmp_path, NOWHERE, "passthrough")
    assert "opentelemetry" in found
    assert "grpc" not in found


def test_over_grpc_there_is(tmp_path: Path) -> None:
    found = loaded_by(tmp_path, {**NOWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "passthrough")
    assert {"opentelemetry", "grpc"} <= set(found)
