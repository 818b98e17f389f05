"""The standard OTEL_* variables as a layer of settings: the last one, they win over everything else.

Theory of operation
-------------------
Whoever runs many services configures their telemetry alike, by variables that the OpenTelemetry specification
names ("Environment Variable Specification", "OTLP Exporter Configuration"). Those that say the same as a key
of [telemetry] set that key here, so that a setting has one value and a known origin. All others, such as
those for a single signal, headers, samplers and batches, are read by the exporters themselves: what they
mean there is theirs, and it wins over the keys as well (`polytls.telemetry.otlp.plan`).

A variable that is empty counts as not set, as the specification asks. Names that end in _EXPORTER may list
other exporters: this program has one, OTLP, and refuses a list without it that is not "none".
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from polytls.config.schema import BY_PATH
from polytls.errors import ConfigError
from polytls.profiles.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from polytls.config.schema import Key


def otel_values(env: Mapping[str, str]) -> Iterator[tuple[Key, object, str]]:
    """Key, raw value and source of what the variables set. Raises `ConfigError`."""
    for name, (path, read) in VARIABLES.items():
        text = env.get(name, "").strip()
        if not text:
            continue
        source = f"environment variable {name}"
        try:
            value = read(text)
        except ValueError as problem:
            raise ConfigError(source, "", str(problem)) from None
        if value is not None:
            yield BY_PATH[path], value, source


def _same(text: str) -> object:
    return text


def _disabled(text: str) -> object:
    return False if text.lower() == "true" else None  # anything else is false, says the specification


def _exporter(text: str) -> object:
    names = {name.strip() for name in text.split(",")}
    if "otlp" in names:
        return True
    if names == {"none"}:
        return False
    raise ValueError(f'got {shown(text)}; allowed: "otlp" or "none"')


def _milliseconds(text: str) -> object:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"got {shown(text)}; allowed: a whole number of milliseconds")
    return int(text[:18]) / 1000


VARIABLES: Mapping[str, tuple[str, Callable[[str], object]]] = MappingProxyType(
    {
        "OTEL_SDK_DISABLED": ("telemetry.enabled", _disabled),
        "OTEL_EXPORTER_OTLP_ENDPOINT": ("telemetry.endpoint", _same),
        "OTEL_EXPORTER_OTLP_PROTOCOL": ("telemetry.protocol", _same),
        "OTEL_EXPORTER_OTLP_CERTIFICATE": ("telemetry.certificate_file", _same),
        "OTEL_TRACES_EXPORTER": ("telemetry.traces", _exporter),
        "OTEL_METRICS_EXPORTER": ("telemetry.metrics", _exporter),
        "OTEL_LOGS_EXPORTER": ("telemetry.logs", _exporter),
        "OTEL_METRIC_EXPORT_INTERVAL": ("telemetry.metric_interval", _milliseconds),
        "OTEL_SERVICE_NAME": ("telemetry.service_name", _same),
    }
)
"""Variable -> the key that it sets, and how its text is read (None: sets nothing)."""
