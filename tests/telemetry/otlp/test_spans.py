"""Spans from records alone: no clock, no collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import StatusCode

from polytls.errors import Kind, Stage
from polytls.events import Starts, Timings, TlsRecord, TraceParent, TunnelRecord
from polytls.telemetry.otlp.identity import Identity, child_id
from polytls.telemetry.otlp.spans import Spans, name_of, split_address

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

KEY = bytes(16)
BEGAN = 5_000_000_000  # monotonic, ns
EPOCH = 1_700_000_000.0
TLS = TlsRecord("TLS1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "h2", False)


def spans(sampler: Sampler = ALWAYS_ON, key: bytes = KEY) -> Spans:
    return Spans(sampler, Identity(key), Resource.get_empty(), InstrumentationScope("test"))


def record(**changes: Any) -> TunnelRecord:
    at = [BEGAN + step * 1_000_000 for step in range(10)]
    fields: dict[str, Any] = {
        "id": 7,
        "client": "[::1]:50000",
        "started_at": EPOCH,
        "started_ns": BEGAN,
        "host": "example.com",
        "port": 443,
        "mode": "mitm",
        "profile": "firefox-155",
        "upstream": "192.0.2.1:443",
        "client_tls": TLS,
        "upstream_tls": TLS,
        "timings": Timings(0.001, 0.0005, 0.0005, 0.001, 0.001, None, 0.001, 0.0002, 0.002, 0.01),
        "starts": Starts(at[1], at[2], at[3], at[4], 0, at[5], at[6]),
    }
    return TunnelRecord(**{**fields, **changes})


def named(built: list[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in built}


def start_of(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end_of(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


def test_times_are_those_of_the_record() -> None:
    built = named(spans().build(record()))
    assert list(built) == [
        "CONNECT example.com:443",
        "head",
        "resolve",
        "connect",
        "hello",
        "upstream handshake",
        "client handshake",
        "relay",
    ]
    epoch = int(EPOCH * 1e9)
    tunnel = built["CONNECT example.com:443"]
    assert (tunnel.start_time, tunnel.end_time) == (epoch, epoch + 10_000_000)
    relay = built["relay"]
    assert (relay.start_time, relay.end_time) == (epoch + 6_000_000, epoch + 8_000_000)
    assert relay.events[0].timestamp == epoch + 6_200_000


def test_ids_are_the_same_for_all_who_ask_and_differ_between_tunnels_and_starts() -> None:
    one, again, other = (spans().build(record(id=number)) for number in (7, 7, 8))
    assert [span.context for span in one] == [span.context for span in again]
    contexts = [span.context.span_id for span in (*one, *other)]
    assert len(set(contexts)) == len(contexts)
    assert one[0].context.trace_id != other[0].context.trace_id
    elsewhere = spans(key=b"x" * 16).build(record())
    assert elsewhere[0].context.trace_id != one[0].context.trace_id
    assert spans().ids(record()) == (f"{one[0].context.trace_id:032x}", f"{one[0].context.span_id:016x}")


@given(st.integers(0, (1 << 64) - 1))
def test_child_ids_are_ids_of_their_own(span_id: int) -> None:
    found = [child_id(span_id, number) for number in range(1, 9)]
    assert len({*found, span_id}) == 9
    assert all(0 < one < 1 << 64 for one in found)


@pytest.mark.parametrize("sampled", [True, False])
def test_the_callers_decision_is_kept(sampled: bool) -> None:
    parent = TraceParent(trace_id=5, span_id=6, sampled=sampled)
    built = spans(ParentBased(ALWAYS_OFF if sampled else ALWAYS_ON)).build(record(parent=parent))
    assert bool(built) == sampled
    if built:
        assert built[0].context.trace_id == 5
        assert built[0].parent is not None
        assert (built[0].parent.span_id, built[0].parent.is_remote) == (6, True)
        assert built[1].parent == built[0].context


def test_a_share_is_about_that_share() -> None:
    """Trace ids are a hash with a fixed key: the number is the same each time."""
    some = spans(ParentBased(TraceIdRatioBased(0.1)))
    count = sum(bool(some.build(record(id=number))) for number in range(2000))
    assert 150 < count < 250
    assert spans(ALWAYS_OFF).ids(record()) is None


def failed(kind: Kind, stage: Stage, **changes: Any) -> TunnelRecord:
    return record(
        outcome=kind.value,
        stage=stage.value,
        side="upstream",
        detail="it went wrong",
        failed_ns=BEGAN + 9_000_000,
        client_tls=None,
        upstream_tls=None,
        **changes,
    )


def test_a_step_that_failed_begins_where_the_last_one_ended() -> None:
    wrong = failed(
        Kind.UPSTREAM_ALERT,
        Stage.UPSTREAM_TLS,
        timings=Timings(head=0.001, resolve=0.0005, connect=0.0005, hello=0.001, total=0.01),
    )
    built = named(spans().build(wrong))
    assert list(built)[-1] == "upstream handshake"
    step = built["upstream handshake"]
    epoch = int(EPOCH * 1e9)
    assert (step.start_time, step.end_time) == (epoch + 4_000_000, epoch + 9_000_000)
    assert step.status.status_code is StatusCode.ERROR
    assert step.attributes == {"tls.established": False, "error.type": "upstream_alert"}


def test_a_step_that_is_there_and_failed_is_not_there_twice() -> None:
    built = spans().build(failed(Kind.IDLE_TIMEOUT, Stage.RELAY))
    assert [span.name for span in built].count("relay") == 1
    assert named(built)["relay"].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("stage", [Stage.LIMITS, Stage.AUTH, Stage.ACCESS, Stage.ALPN])
def test_a_decision_is_no_step(stage: Stage) -> None:
    built = spans().build(failed(Kind.TOO_MANY_TUNNELS, stage))
    assert [span.status.status_code for span in built].count(StatusCode.ERROR) == 1


def test_a_name_that_was_not_found_is_a_failure_to_resolve() -> None:
    wrong = failed(Kind.NAME_NOT_FOUND, Stage.CONNECT, timings=Timings(head=0.001, total=0.01))
    assert [span.name for span in spans().build(wrong)][1:] == ["head", "resolve"]


@given(st.sampled_from(Kind), st.sampled_from(Stage), st.integers(0, 255), st.booleans())
def test_any_record_gives_spans_that_lie_within_it(kind: Kind, stage: Stage, known: int, ok: bool) -> None:
    """Whatever was reached: `known` says which steps are."""
    base = record()
    names = list(Timings.__slots__)[:-2]
    timings = Timings(total=0.01)
    for bit, name in enumerate(names):
        if known >> bit & 1:
            setattr(timings, name, getattr(base.timings, name))
    one = record(timings=timings) if ok else failed(kind, stage, timings=timings)
    built = spans().build(one)
    for span in built:
        assert start_of(built[0]) <= start_of(span) <= end_of(span) <= end_of(built[0])
    assert len({span.name for span in built}) == len(built)
    starts = [start_of(span) for span in built[1:]]
    assert starts == sorted(starts)


def test_names_and_addresses() -> None:
    assert name_of(record(host=None, port=None)) == "CONNECT"
    assert name_of(record(host="2001:db8::1")) == "CONNECT [2001:db8::1]:443"
    assert split_address("[::1]:5") == ("::1", 5)
    assert split_address("192.0.2.1:65535") == ("192.0.2.1", 65535)
