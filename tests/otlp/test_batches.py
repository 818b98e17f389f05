"""How what waits is cut into requests: bounded, whole traces, in order; and what is lost is counted once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from polytls.events import Starts, Timings, TunnelRecord
from polytls.settings import TelemetrySettings
from polytls.telemetry.counters import Counters
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.plan import plan
from polytls.telemetry.otlp.start import Otlp
from tests.otlp.receiver import Receiver, Stuck, refuse
from tests.peers.serve import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SPANS = 5
"""Of a tunnel in passthrough."""
TUNNELS = 40


def record(number: int) -> TunnelRecord:
    timings = Timings(head=0.1, resolve=0.1, connect=0.1, relay=0.1, total=0.5)
    return TunnelRecord(
        number, "127.0.0.1:1", 1.0, timings=timings, started_ns=1, starts=Starts(1, 1, 0, 0, 0, 0, 1)
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def exporting(receiver: Receiver, batch: int) -> Otlp:
    """What works off what there is when it is closed, in as few batches as it may."""
    settings = TelemetrySettings(endpoint=receiver.url, metrics=False, logs=False)
    environ = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(batch), "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    wanted = plan(settings, environ)
    assert wanted is not None
    return Otlp(wanted, settings, warn=lambda _text: None, counters=Counters)


def requests(receiver: Receiver) -> list[list[int]]:
    """The spans in each request, by the numbers of their tunnels."""
    found = []
    for body in receiver.raw:
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        spans = [
            span for group in message.resource_spans for part in group.scope_spans for span in part.spans
        ]
        numbers: dict[bytes, int] = {
            span.trace_id: attribute.value.int_value
            for span in spans
            for attribute in span.attributes
            if attribute.key == words.TUNNEL
        }
        found.append([numbers[span.trace_id] for span in spans])
    return found


@pytest.mark.parametrize(
    ("batch", "tunnels"),
    [(1, 1), (SPANS, 1), (2 * SPANS - 1, 1), (2 * SPANS, 2), (2 * SPANS + 1, 2), (512, 40)],
)
def test_requests_have_at_most_a_batch_of_spans_and_whole_traces(
    receiver: Receiver, batch: int, tunnels: int
) -> None:
    otlp = exporting(receiver, batch)
    for number in range(TUNNELS):
        otlp(record(number))
    otlp.close(HANG_SECONDS)
    found = requests(receiver)
    assert [number for one in found for number in one] == [
        number for number in range(TUNNELS) for _ in range(SPANS)
    ]
    assert max(map(len, found)) == tunnels * SPANS
    assert otlp.dropped() == {"traces": 0}


def test_those_that_no_collector_takes_are_counted_once(receiver: Receiver) -> None:
    receiver.behave = refuse(400)
    otlp = exporting(receiver, TUNNELS)
    for number in range(TUNNELS):
        otlp(record(number))
    otlp.close(HANG_SECONDS)
    assert len(receiver.raw) == SPANS
    assert otlp.dropped() == {"traces": TUNNELS}


def test_of_a_batch_that_is_left_behind_what_was_sent_is_not_lost(receiver: Receiver) -> None:
    otlp = exporting(receiver, TUNNELS)  # sent in SPANS requests
    stuck, taken = Stuck(), TUNNELS // SPANS
    sent = []

    def behave(handler: object) -> bool:
        sent.append(handler)
        return len(sent) > 1 and stuck(handler)  # type: ignore[arg-type]

    receiver.behave = behave
    for number in range(TUNNELS):
        otlp(record(number))
    receiver.wait_for_requests(2)
    began = time.monotonic()
    otlp.close(0.1)
    assert time.monotonic() - began < HANG_SECONDS
    assert otlp.dropped() == {"traces": TUNNELS - taken}
    stuck.release()
    otlp.close(HANG_SECONDS)  # so that nothing of it is there for other tests
