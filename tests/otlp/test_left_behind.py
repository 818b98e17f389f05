"""An export that outlives the proxy's end: what it says then is still nobody's business but ours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from polytls.settings import TelemetrySettings
from polytls.telemetry.counters import Counters
from polytls.telemetry.otlp.complaints import NAMES
from polytls.telemetry.otlp.plan import plan
from polytls.telemetry.otlp.start import Otlp
from tests.otlp.receiver import Receiver, Stuck, refuse
from tests.peers.serve import HANG_SECONDS


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Who is left behind keeps its handler: only the end of the process takes it away."""
    loggers = [logging.getLogger(name) for name in NAMES]
    found = [(list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, propagate) in zip(loggers, found, strict=True):
        logger.handlers[:] = handlers
        logger.propagate = propagate


def test_metrics_refused_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    stuck, refusal = Stuck(), refuse(400)

    def late(handler: BaseHTTPRequestHandler) -> bool:
        stuck(handler)
        return refusal(handler)

    before = set(threading.enumerate())
    told: list[str] = []
    with Receiver(late) as receiver:
        settings = TelemetrySettings(endpoint=receiver.url, traces=False, logs=False, metric_interval=0.05)
        wanted = plan(settings, {})
        assert wanted is not None
        exporting = Otlp(wanted, settings, warn=told.append, counters=Counters)
        receiver.wait_for_requests(1)
        exporting.close(0.1)
        stuck.release()
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("Otel"):  # the SDK's, of metrics
                thread.join(HANG_SECONDS)
                assert not thread.is_alive()
    assert len(told) == 1
    assert not caplog.records  # of the root's handlers; the last resort is stderr
