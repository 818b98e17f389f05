"""The exporters, the resource and the sampler, made as a `Plan` says.

The only module that knows where the exporters live; each protocol is imported only where it is spoken, since
gRPC costs several megabytes. All three exporters of a protocol take the same arguments.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from polytls import __version__
from polytls.settings import OtlpProtocol
from polytls.telemetry.otlp.plan import Export, Signal

if TYPE_CHECKING:
    from polytls.settings import TelemetrySettings

_QUIET_GRPC = {"GRPC_VERBOSITY": "NONE"}
"""Its core writes to stderr by itself, a line for every attempt to connect. Read once, when it is loaded."""


def make_exporter(export: Export) -> Any:
    """The SDK's exporter of a signal over its protocol. Raises OSError where a certificate cannot be read."""
    arguments: dict[str, Any] = {"timeout": export.timeout}
    if export.endpoint is not None:
        arguments["endpoint"] = export.endpoint
    if export.headers is not None:
        arguments["headers"] = dict(export.headers)
    if export.protocol is OtlpProtocol.GRPC:
        for name, value in _QUIET_GRPC.items():
            os.environ.setdefault(name, value)
        from grpc import ssl_channel_credentials

        if export.certificate_file is not None:
            roots = export.certificate_file.read_bytes()
            arguments["credentials"] = ssl_channel_credentials(root_certificates=roots)
        return _over_grpc(export.signal)(**arguments)
    if export.certificate_file is not None:
        with export.certificate_file.open("rb"):
            pass  # else the first export would say so, much later
        arguments["certificate_file"] = str(export.certificate_file)
    return _over_http(export.signal)(**arguments)


def _over_http(signal: Signal) -> Any:
    match signal:
        case Signal.TRACES:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter
        case Signal.METRICS:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            return OTLPMetricExporter
        case Signal.LOGS:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

            return OTLPLogExporter


def _over_grpc(signal: Signal) -> Any:
    match signal:
        case Signal.TRACES:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter
        case Signal.METRICS:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

            return OTLPMetricExporter
        case Signal.LOGS:
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

            return OTLPLogExporter


class _Hashed(Resource):
    """A resource that knows its hash. The SDK's encoder asks for it for every span and log record, and the
    SDK's own makes JSON of all attributes each time: a sixth of what a tunnel's spans cost."""

    def __init__(self, known: Resource) -> None:
        super().__init__(known.attributes, known.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def make_resource(settings: TelemetrySettings) -> Resource:
    """Who exports: by the settings, and over them OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME."""
    ours = Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": __version__,
            "service.instance.id": settings.instance or str(uuid.uuid4()),
        }
    )
    return _Hashed(ours.merge(OTELResourceDetector().detect()))


def make_sampler(sampling: float | None) -> Sampler:
    """By share, under the caller's decision; None: by the standard variables, as the SDK reads them."""
    if sampling is None:
        return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
    return ParentBased(TraceIdRatioBased(sampling))
