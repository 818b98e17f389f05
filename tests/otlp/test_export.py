"""What a collector gets of a run of mixed traffic: the real Collector, and a receiver of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polytls.errors import Kind
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.metrics import LIMITS
from polytls.telemetry.otlp.vocabulary import Instrument, Step
from tests.otlp import traffic
from tests.otlp.collector import BUILD_SECONDS

if TYPE_CHECKING:
    from tests.otlp.conftest import Run

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)  # the Collector may have to be built first

MITM_STEPS = [
    "head",
    "resolve",
    "connect",
    "hello",
    "upstream handshake",
    "client handshake",
    "relay",
]


# Traces


def test_every_tunnel_has_its_span_but_the_one_whose_caller_did_not_want_it(seen: Run) -> None:
    unsampled = [record["id"] for record in seen.records if record["host"] == "unsampled.lab.test"]
    assert len(unsampled) == 1
    ids = sorted(span.attributes[words.TUNNEL] for span in seen.exported.tunnels())
    assert ids == sorted(record["id"] for record in seen.records if record["id"] not in unsampled)
    assert all(span.trace_id != traffic.UNSAMPLED_TRACE for span in seen.exported.spans)


def test_spans_agree_with_the_log_lines(seen: Run) -> None:
    records = {record["id"]: record for record in seen.records}
    for span in seen.exported.tunnels():
        record = records[span.attributes[words.TUNNEL]]
        told = {
            words.SERVER_ADDRESS: record["host"],
            words.SERVER_PORT: record["port"],
            words.MODE: record["mode"],
            words.PROFILE: record["profile"],
            words.OUTCOME: record["outcome"],
            words.SIDE: record["side"],
            words.STAGE: record["stage"],
            words.STATUS_CODE: record["reply"],
            words.BYTES_UP: record["bytes_up"],
            words.BYTES_DOWN: record["bytes_down"],
            words.CLIENT_JA4: (record["ja4"] or {}).get("client"),
            words.UPSTREAM_JA4: (record["ja4"] or {}).get("upstream"),
        }
        for name, value in told.items():
            assert span.attributes.get(name) == value, (name, record)
        address = span.attributes[words.CLIENT_ADDRESS]
        assert f"{address}:{span.attributes[words.CLIENT_PORT]}" == record["client"]
        assert record["trace"] == {"trace_id": span.trace_id, "span_id": span.span_id}
        assert span.kind == 2
        assert (span.end - span.start) / 1e9 == pytest.approx(record["seconds"]["total"], abs=1e-5)
        name = f"CONNECT {record['host']}:{record['port']}" if record["host"] else "CONNECT"
        assert span.name == name


def test_children_have_their_parent_and_their_true_times(seen: Run) -> None:
    parents = {span.span_id: span for span in seen.exported.tunnels()}
    records = {record["id"]: record for record in seen.records}
    count = 0
    for span in seen.exported.spans:
        if span.span_id in parents:
            continue
        count += 1
        parent = parents[span.parent_id]
        assert span.trace_id == parent.trace_id
        assert (
            parent.start <= span.start <= span.end <= parent.end + 1_000_000
        )  # floats of a second's millionth
        seconds = records[parent.attributes[words.TUNNEL]]["seconds"]
        told = seconds[Step(span.name).name.lower()]
        if told is not None:
            assert (span.end - span.start) / 1e9 == pytest.approx(told, abs=2e-6)
    assert count > len(parents)
    assert len({span.span_id for span in seen.exported.spans}) == len(seen.exported.spans)


@pytest.mark.parametrize("host", ["http1.lab.test", "http2.lab.test", "mirror.lab.test"])
def test_the_steps_of_a_tunnel_in_their_order(seen: Run, host: str) -> None:
    tunnel = seen.exported.tunnel(host)
    children = seen.exported.children(tunnel)
    assert [name for name in children if name != "leaf"] == MITM_STEPS
    assert tunnel.status == 0
    steps = list(children.values())
    assert all(one.status == 0 for one in steps)
    assert all(one.kind == (3 if one.name == "connect" else 1) for one in steps)
    assert children["relay"].events == (words.FIRST_BYTE,)
    assert children["connect"].attributes[words.PEER_ADDRESS] == "127.0.0.1"
    assert children["connect"].attributes[words.TRANSPORT] == "tcp"
    assert children["hello"].attributes[words.SNI] == host
    record = next(record for record in seen.records if record["host"] == host)
    for name, key in (("upstream handshake", "upstream_tls"), ("client handshake", "client_tls")):
        told, found = record[key], children[name].attributes
        assert f"TLS{found[words.TLS_VERSION]}" == told["version"]
        assert found[words.TLS_CIPHER] == told["cipher"]
        assert found[words.TLS_CURVE] == told["group"]
        assert found[words.TLS_RESUMED] == told["resumed"]
        assert found[words.POST_QUANTUM] == ("MLKEM" in told["group"])
        assert found.get(words.TLS_NEXT_PROTOCOL) == told["alpn"]
    protocol = tunnel.attributes[words.PROTOCOL_VERSION]
    assert protocol == ("2" if record["upstream_tls"]["alpn"] == "h2" else "1.1")


def test_the_callers_trace_is_continued(seen: Run) -> None:
    span = seen.exported.tunnel("traced.lab.test")
    assert (span.trace_id, span.parent_id) == (traffic.CALLER_TRACE, traffic.CALLER_SPAN)
    other = seen.exported.tunnel("http1.lab.test")
    assert other.parent_id == ""
    assert other.trace_id != traffic.CALLER_TRACE


def test_every_failure_sets_the_status_and_says_which(seen: Run) -> None:
    found = {span.attributes[words.OUTCOME] for span in seen.exported.tunnels()}
    assert found == {"completed", *(kind.value for kind in seen.provoked)}
    for span in seen.exported.tunnels():
        outcome = span.attributes[words.OUTCOME]
        if outcome == "completed":
            assert span.status == 0
            assert words.ERROR_TYPE not in span.attributes
        else:
            assert span.status == 2
            assert span.message
            assert span.attributes[words.ERROR_TYPE] == outcome
    for host, kind in traffic.hosts().items():
        outcomes = {
            span.attributes[words.OUTCOME]
            for span in seen.exported.tunnels()
            if span.attributes.get(words.SERVER_ADDRESS) == host
        }
        assert kind.value in outcomes, host


FAILED_STEPS = {
    Kind.HEAD_TIMEOUT: "head",
    Kind.CONNECT_REFUSED: "connect",
    Kind.CONNECT_TIMEOUT: "connect",
    Kind.NAME_NOT_FOUND: "resolve",
    Kind.NOT_TLS: "hello",
    Kind.HELLO_TIMEOUT: "hello",
    Kind.SNI_MISMATCH: "hello",
    Kind.CERTIFICATE_EXPIRED: "upstream handshake",
    Kind.UPSTREAM_HANDSHAKE_TIMEOUT: "upstream handshake",
    Kind.CLIENT_REJECTS_LEAF: "client handshake",
    Kind.CLIENT_HANDSHAKE_TIMEOUT: "client handshake",
    Kind.CLIENT_RESET: "relay",
    Kind.IDLE_TIMEOUT: "relay",
}


@pytest.mark.parametrize("kind", FAILED_STEPS)
def test_the_step_that_failed_is_the_one_that_says_so(seen: Run, kind: Kind) -> None:
    tunnels = [span for span in seen.exported.tunnels() if span.attributes[words.OUTCOME] == kind.value]
    assert tunnels
    for tunnel in tunnels:
        children = seen.exported.children(tunnel)
        wrong = [one for one in children.values() if one.status == 2]
        assert [one.name for one in wrong] == [FAILED_STEPS[kind]]
        assert wrong[0].attributes[words.ERROR_TYPE] == kind.value


def test_a_step_that_took_too_long_is_as_long_as_it_took(seen: Run) -> None:
    for kind, least in ((Kind.CONNECT_TIMEOUT, 2.9), (Kind.UPSTREAM_HANDSHAKE_TIMEOUT, 2.9)):
        tunnel = seen.exported.tunnel(traffic.host_of(kind))
        step = seen.exported.children(tunnel)[FAILED_STEPS[kind]]
        assert (step.end - step.start) / 1e9 >= least


# Logs


def test_every_tunnel_is_logged_within_its_span(seen: Run) -> None:
    logs = {log.attributes[words.TUNNEL]: log for log in seen.exported.logs if log.event == "polytls.tunnel"}
    assert sorted(logs) == sorted(record["id"] for record in seen.records)
    for record in seen.records:
        log = logs[record["id"]]
        assert log.attributes[words.OUTCOME] == record["outcome"]
        assert log.attributes.get(words.SERVER_ADDRESS) == record["host"]
        assert log.attributes[words.BYTES_DOWN] == record["bytes_down"]
        assert log.severity == ("INFO" if record["outcome"] == "completed" else "WARN")
        ids = record["trace"] or {"trace_id": "", "span_id": ""}
        assert {"trace_id": log.trace_id, "span_id": log.span_id} == ids
        if record["outcome"] != "completed":
            assert record["detail"] in log.body


def test_the_other_events_are_logged_too(seen: Run) -> None:
    events = {log.event for log in seen.exported.logs}
    assert events >= {words.TUNNEL_EVENT, words.LEAF_EVENT, words.LISTENING_EVENT, words.DRAINING_EVENT}
    leaves = [log for log in seen.exported.logs if log.event == words.LEAF_EVENT]
    assert all(log.body in seen.notes for log in leaves)
    assert {log.attributes[words.LEAF_KEY] for log in leaves} <= {"ecdsa", "rsa"}


# Metrics


def test_tunnels_are_counted_by_outcome(seen: Run) -> None:
    for outcome in {record["outcome"] for record in seen.records}:
        count = sum(
            point
            for point in (
                seen.exported.last(
                    words.ENDED.name, polytls_outcome=outcome, polytls_profile=profile, polytls_mode=mode
                )
                for profile in {record["profile"] or "none" for record in seen.records}
                for mode in {record["mode"] or "none" for record in seen.records}
            )
            if point is not None
        )
        assert count == sum(record["outcome"] == outcome for record in seen.records), outcome


def test_histograms_have_every_value(seen: Run) -> None:
    exported = seen.exported
    connects = sum(record["seconds"]["connect"] is not None for record in seen.records)
    assert exported.last(words.CONNECT_TIME.name, polytls_mode="mitm") == connects
    handshakes = sum(record["seconds"]["client_handshake"] is not None for record in seen.records)
    assert exported.last(words.CLIENT_TIME.name) == handshakes
    for metric in words.METRICS:
        points = [point for point in exported.points if point.metric == metric.name]
        assert points, metric.name
        assert {point.unit for point in points} == {metric.unit}
        if metric.instrument is Instrument.HISTOGRAM:
            assert {point.bounds for point in points} == {metric.buckets}


def test_counters_of_the_proxy(seen: Run) -> None:
    exported = seen.exported
    assert exported.last(words.OPEN.name) == 0
    minted = sum(log.event == words.LEAF_EVENT for log in exported.logs)
    assert exported.last(words.LEAF_MINTS.name) == minted
    assert exported.last(words.STREAMS.name) is not None
    assert exported.last(words.BYTES.name, polytls_direction="down") == sum(
        record["bytes_down"] for record in seen.records
    )
    for limit in LIMITS:
        count = sum(record["outcome"] == limit for record in seen.records)
        assert (exported.last(words.LIMITS.name, polytls_limit=limit) or 0) == count
    for sink in ("traces", "metrics", "logs", "log"):
        assert exported.last(words.DROPPED.name, polytls_sink=sink) == 0


# All of it


def test_every_signal_says_who_exports(seen: Run) -> None:
    for group in (seen.exported.spans, seen.exported.logs, seen.exported.points):
        for one in group:
            assert one.resource["service.name"] == "polytls"
            assert one.resource["service.version"]
            assert one.resource["service.instance.id"] == "from-variable"
            assert one.resource["deployment.environment.name"] == "lab"


def test_nothing_is_exported_that_is_not_in_the_vocabulary(seen: Run) -> None:
    attributes = {attribute.name for attribute in words.ATTRIBUTES}
    metrics = {metric.name: metric for metric in words.METRICS}
    steps = {step.value for step in Step}
    events = {name for name, _, _ in words.LOG_EVENTS}
    for span in seen.exported.spans:
        assert span.name.startswith("CONNECT") or span.name in steps
        assert set(span.attributes) <= attributes
    for log in seen.exported.logs:
        assert log.event in events
        assert set(log.attributes) <= attributes
    for point in seen.exported.points:
        assert set(point.attributes) == set(metrics[point.metric].attributes)


def test_everything_in_the_vocabulary_is_exported(seen: Run) -> None:
    found = {
        name
        for group in (seen.exported.spans, seen.exported.logs, seen.exported.points)
        for one in group
        for name in one.attributes
    }
    assert {attribute.name for attribute in words.ATTRIBUTES} - found <= {words.TRUNCATED}
    assert {metric.name for metric in words.METRICS} == {point.metric for point in seen.exported.points}
    assert {step.value for step in Step} <= {span.name for span in seen.exported.spans}


def test_no_host_is_in_a_metric(seen: Run) -> None:
    for point in seen.exported.points:
        assert not any("lab.test" in str(value) for value in point.attributes.values())
