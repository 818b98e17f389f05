from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polytls.errors import ConfigError
from polytls.settings import OtlpProtocol, TelemetrySettings
from polytls.telemetry.otlp.plan import BATCH, MAX_WAITING, Plan, Signal, plan

URL = "http://collector.test:4318"


def planned(environ: dict[str, str] | None = None, **settings: Any) -> Plan:
    found = plan(TelemetrySettings(**settings), environ or {})
    assert found is not None
    return found


def test_without_an_endpoint_there_is_no_plan() -> None:
    assert plan(TelemetrySettings(), {}) is None
    assert plan(TelemetrySettings(), {"OTEL_SERVICE_NAME": "x"}) is None
    assert plan(TelemetrySettings(endpoint=URL, enabled=False), {}) is None
    assert plan(TelemetrySettings(endpoint=URL, traces=False, metrics=False, logs=False), {}) is None


def test_every_signal_goes_to_its_path_of_the_endpoint() -> None:
    exports = planned(endpoint=URL).exports
    assert [export.signal for export in exports] == list(Signal)
    assert [export.endpoint for export in exports] == [
        f"{URL}/v1/{name}" for name in ("traces", "metrics", "logs")
    ]
    assert all(export.timeout == 10 for export in exports)
    assert all(export.where == "collector.test:4318" for export in exports)


def test_grpc_has_no_paths() -> None:
    exports = planned(endpoint=URL, protocol=OtlpProtocol.GRPC).exports
    assert {export.endpoint for export in exports} == {URL}


def test_a_variable_for_one_signal_turns_on_that_one_alone() -> None:
    (export,) = planned({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces.test/x"}).exports
    assert export.signal is Signal.TRACES
    assert export.endpoint is None  # the exporter reads it
    assert export.where == "traces.test"


def test_variables_win_over_settings() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://u:p@logs.test",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "3",
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "traces.pem",
    }
    found = planned(environ, endpoint=URL, certificate_file=Path("all.pem"))
    traces, metrics, logs = found.exports
    assert (logs.protocol, logs.endpoint, logs.where) == (OtlpProtocol.GRPC, None, "logs.test")
    assert (metrics.timeout, traces.timeout) == (None, 10)
    assert (traces.certificate_file, metrics.certificate_file) == (None, Path("all.pem"))
    assert found.of(Signal.LOGS) is logs


def test_a_protocol_that_is_not_spoken() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        plan(TelemetrySettings(endpoint=URL), environ)


def test_sampling_is_the_variables_where_they_speak() -> None:
    assert planned(endpoint=URL, sampling=0.25).sampling == 0.25
    assert planned({"OTEL_TRACES_SAMPLER": "always_off"}, endpoint=URL, sampling=0.25).sampling is None


def test_batches_by_the_standard_variables() -> None:
    environ = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "7",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "x",
    }
    found = planned(environ, endpoint=URL)
    assert (found.spans.most_waiting, found.spans.delay, found.spans.batch) == (7, 0.25, BATCH)
    assert found.logs.most_waiting == MAX_WAITING


def test_headers_come_from_a_file_and_are_secrets(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("# token\n\nX-Token = abc=def \nx-other=\n")
    found = planned(endpoint=URL, headers_file=path)
    assert found.exports[0].headers == (("x-token", "abc=def"), ("x-other", ""))
    assert "abc=def" in found.secrets
    assert "abc" not in repr(found)


def test_variables_for_headers_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("x-token=abc")
    environ = {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=one%20two,b=three"}
    traces, metrics, _ = planned(environ, endpoint=URL, headers_file=path).exports
    assert traces.headers is None
    assert metrics.headers == (("x-token", "abc"),)
    assert {"one two", "one%20two", "three", "abc"} <= planned(
        environ, endpoint=URL, headers_file=path
    ).secrets


@pytest.mark.parametrize("line", ["novalue", "=value", "bad name=x", "x:y=z", "name=va\x01lue"])
def test_a_line_that_is_no_header_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "headers"
    path.write_text(f"good=1\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 is not NAME=VALUE") as caught:
        plan(TelemetrySettings(endpoint=URL, headers_file=path), {})
    assert "lue" not in str(caught.value)


def test_a_file_that_is_not_there_or_much_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        plan(TelemetrySettings(endpoint=URL, headers_file=tmp_path / "none"), {})
    large = tmp_path / "large"
    large.write_bytes(b"a=b\n" * 20_000)
    with pytest.raises(ConfigError, match="larger than"):
        plan(TelemetrySettings(endpoint=URL, headers_file=large), {})
