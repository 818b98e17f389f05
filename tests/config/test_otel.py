"""The standard variables: which keys they set, and that they win."""

from __future__ import annotations

from pathlib import Path

import pytest

from polytls.config.load import LoadedSettings, layer_settings
from polytls.config.otel import VARIABLES
from polytls.config.schema import BY_PATH
from polytls.errors import ConfigError
from polytls.settings import OtlpProtocol


def layered(env: dict[str, str], overrides: dict[str, object] | None = None) -> LoadedSettings:
    table: dict[str, object] = {"telemetry": {"endpoint": "http://file.test:4318", "traces": True}}
    return layer_settings(table, "f.toml", env, overrides)


def test_every_variable_names_a_key() -> None:
    assert {path for path, _ in VARIABLES.values()} <= set(BY_PATH)


def test_they_win_over_file_environment_and_command_line() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://variable.test/base/",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "c.pem",
        "OTEL_SERVICE_NAME": "my proxy",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "console, otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "1500",
        "POLYTLS_TELEMETRY__ENDPOINT": "http://polytls.test:1",
        "POLYTLS_TELEMETRY__LOGS": "false",
    }
    loaded = layered(env, {"telemetry.endpoint": "http://option.test:2"})
    telemetry = loaded.settings.telemetry
    assert telemetry.endpoint == "https://variable.test/base"
    assert telemetry.protocol is OtlpProtocol.GRPC
    assert telemetry.certificate_file == Path("c.pem")
    assert telemetry.service_name == "my proxy"
    assert (telemetry.traces, telemetry.metrics, telemetry.logs) == (False, True, True)
    assert telemetry.metric_interval == 1.5
    assert loaded.origins["telemetry.endpoint"] == "environment variable OTEL_EXPORTER_OTLP_ENDPOINT"
    assert loaded.origins["telemetry.metrics"] == "defaults"


@pytest.mark.parametrize(("text", "enabled"), [("true", False), ("TRUE", False), ("1", True), ("", True)])
def test_disabled_means_the_word_true(text: str, enabled: bool) -> None:
    assert layered({"OTEL_SDK_DISABLED": text}).settings.telemetry.enabled is enabled


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:99999"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_SERVICE_NAME", "two\x01"),
    ],
)
def test_a_wrong_value_names_the_variable_and_keeps_passwords(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layered({name: text})
    assert name in str(caught.value)
    assert "allowed: " in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_is_not_set() -> None:
    assert (
        layered({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}).settings.telemetry.endpoint == "http://file.test:4318"
    )


@pytest.mark.parametrize(
    "url", ["http://[::1]:4318", "https://collector.test", "http://otel-collector:4318/x"]
)
def test_urls_that_are_taken(url: str) -> None:
    assert layered({"OTEL_EXPORTER_OTLP_ENDPOINT": url}).settings.telemetry.endpoint == url
