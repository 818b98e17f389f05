"""What is exported, where to and how: [telemetry] and the standard variables, made one.

Theory of operation
-------------------
A signal (traces, metrics, logs) is exported where it is on and has somewhere to go: `telemetry.endpoint`, or
the variable for that signal alone. Without any signal there is no plan, and nothing is loaded.

The variables win. Those that are keys of [telemetry] as well have become settings (`polytls.config.otel`).
For the others the exporters know the rules, and an argument would win over a variable there: so an argument
is passed only where no variable speaks. Pure: the one file that is read is that of headers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from polytls.errors import ConfigError
from polytls.settings import OtlpProtocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from polytls.settings import TelemetrySettings

MAX_HEADERS_BYTES = 65_536
"""Of the file of headers: a token has a few hundred bytes, and this is a slip of the finger."""

MAX_WAITING = 8192
"""Tunnels whose spans or logs wait; some 2 KB each, 16 MB for a signal whose collector is stuck."""
BATCH = 256
"""Tunnels in one request: up to 2,000 spans, half a megabyte."""
DELAY_SECONDS = 1.0
"""Until a batch that is not full is sent. The specification's 5 s are long for somebody who looks on."""

_PREFIX = "OTEL_EXPORTER_OTLP_"


class Signal(Enum):
    """What may be exported; the value is also the end of its HTTP path."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Export:
    """One signal's exporter. None: the exporter finds it in the variables, or has its default. `where` is the
    collector as it may be shown."""

    signal: Signal
    protocol: OtlpProtocol
    where: str
    endpoint: str | None
    headers: tuple[tuple[str, str], ...] | None = field(repr=False)
    certificate_file: Path | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Batching:
    """How much waits, how much is sent at once, and the longest that something waits for company
    (seconds). What waits are tunnels or log events; what is sent, spans or log events."""

    most_waiting: int = MAX_WAITING
    batch: int = BATCH
    delay: float = DELAY_SECONDS


@dataclass(frozen=True, slots=True)
class Plan:
    """`sampling` None: the variables say which traces are exported. `secrets`: what no message may repeat."""

    exports: tuple[Export, ...]
    sampling: float | None
    spans: Batching
    logs: Batching
    secrets: frozenset[str] = field(repr=False)

    def of(self, signal: Signal) -> Export | None:
        """The export of a signal, if there is one."""
        return next((export for export in self.exports if export.signal is signal), None)


def plan(settings: TelemetrySettings, environ: Mapping[str, str]) -> Plan | None:
    """What to export; None: nothing. Raises `ConfigError`."""
    wanted = {Signal.TRACES: settings.traces, Signal.METRICS: settings.metrics, Signal.LOGS: settings.logs}
    exports = tuple(
        _export(signal, settings, environ)
        for signal, on in wanted.items()
        if on and settings.enabled and (settings.endpoint or _own(environ, signal, "ENDPOINT"))
    )
    if not exports:
        return None
    secrets = {value for export in exports for _, value in export.headers or ()}
    return Plan(
        exports=exports,
        sampling=None if environ.get("OTEL_TRACES_SAMPLER") else settings.sampling,
        spans=_batching(environ, "OTEL_BSP_"),
        logs=_batching(environ, "OTEL_BLRP_"),
        secrets=frozenset(secrets | _header_values(environ)),
    )


def _export(signal: Signal, settings: TelemetrySettings, environ: Mapping[str, str]) -> Export:
    protocol = _protocol(signal, settings, environ)
    own = _own(environ, signal, "ENDPOINT")
    by_variable = own or environ.get(f"{_PREFIX}ENDPOINT", "").strip()
    endpoint: str | None = None
    if not by_variable and settings.endpoint is not None:
        path = f"/v1/{signal.value}" if protocol is OtlpProtocol.HTTP else ""
        endpoint = settings.endpoint + path
    return Export(
        signal=signal,
        protocol=protocol,
        where=_shown(by_variable or settings.endpoint or ""),
        endpoint=endpoint,
        headers=None if _any(environ, signal, "HEADERS") else _headers(settings.headers_file),
        certificate_file=None if _own(environ, signal, "CERTIFICATE") else settings.certificate_file,
        timeout=None if _any(environ, signal, "TIMEOUT") else settings.timeout,
    )


def _protocol(signal: Signal, settings: TelemetrySettings, environ: Mapping[str, str]) -> OtlpProtocol:
    text = _own(environ, signal, "PROTOCOL")
    if not text:
        return settings.protocol
    try:
        return OtlpProtocol(text)
    except ValueError:
        allowed = " or ".join(f'"{protocol.value}"' for protocol in OtlpProtocol)
        name = f"environment variable {_PREFIX}{signal.name}_PROTOCOL"
        raise ConfigError(name, "", f"is no protocol that is spoken here; allowed: {allowed}") from None


def _own(environ: Mapping[str, str], signal: Signal, what: str) -> str:
    """The variable for this signal alone."""
    return environ.get(f"{_PREFIX}{signal.name}_{what}", "").strip()


def _any(environ: Mapping[str, str], signal: Signal, what: str) -> str:
    return _own(environ, signal, what) or environ.get(_PREFIX + what, "").strip()


def _shown(url: str) -> str:
    """A URL without credentials, path and query, for messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the collector"
    return parts.netloc.rpartition("@")[2] or "the collector"


def _headers(path: Path | None) -> tuple[tuple[str, str], ...] | None:
    """The lines NAME=VALUE of a file; empty ones and those that begin with # aside."""
    if path is None:
        return None
    source, key = str(path), "telemetry.headers_file"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_HEADERS_BYTES + 1)
    except OSError as problem:
        raise ConfigError(source, key, f"cannot be read ({problem.strerror})") from None
    if len(raw) > MAX_HEADERS_BYTES:
        raise ConfigError(source, key, f"is larger than {MAX_HEADERS_BYTES} bytes; is it the right file?")
    found: list[tuple[str, str]] = []
    for number, line in enumerate(raw.decode("latin-1").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        token = name.replace("-", "").replace("_", "")
        if not equals or not token.isascii() or not token.isalnum() or not (value + "x").isprintable():
            raise ConfigError(source, key, f"line {number} is not NAME=VALUE")
        found.append((name.lower(), value))
    return tuple(found)


def _header_values(environ: Mapping[str, str]) -> set[str]:
    """What the variables for headers hold, as it is written and as it is sent."""
    found: set[str] = set()
    for name, text in environ.items():
        if name.startswith(_PREFIX) and name.endswith("HEADERS"):
            for item in text.split(","):
                value = item.partition("=")[2].strip()
                found |= {value, unquote(value)}
    return found - {""}


def _batching(environ: Mapping[str, str], prefix: str) -> Batching:
    """By the variables of the SDK's batch processors, which there are none of here; a wrong one is as good as
    none, as it is there."""

    def number(name: str, default: int) -> int:
        text = environ.get(prefix + name, "").strip()
        return int(text[:9]) if text.isascii() and text.isdigit() and int(text[:9]) > 0 else default

    return Batching(
        most_waiting=number("MAX_QUEUE_SIZE", MAX_WAITING),
        batch=number("MAX_EXPORT_BATCH_SIZE", BATCH),
        delay=number("SCHEDULE_DELAY", int(DELAY_SECONDS * 1000)) / 1000,
    )
