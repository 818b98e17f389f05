"""What the metrics of PolyTLS are called in Prometheus, and which labels they have.

The rules are those of the OpenTelemetry specification ("Prometheus and OpenMetrics Compatibility", OTLP
metric points to Prometheus), as far as our metrics use them: dots become underscores, the unit is a suffix
unless the name has it or it is an annotation in braces, a counter ends in _total, and a histogram is
_bucket, _sum and _count. `test_collector` holds them to what the real Collector makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from polytls.telemetry.otlp.vocabulary import METRICS, Instrument, Metric

_UNITS = {"s": "seconds", "By": "bytes"}

OF_THE_RESOURCE = frozenset({"job", "instance"})
"""service.name and service.instance.id."""


def series() -> dict[str, frozenset[str]]:
    """Every name, with its labels."""
    return dict(pair for metric in METRICS for pair in _of(metric))


def _of(metric: Metric) -> Iterator[tuple[str, frozenset[str]]]:
    name = metric.name.replace(".", "_")
    unit = _UNITS.get(metric.unit)
    if unit is not None and unit not in name.split("_"):
        name = f"{name}_{unit}"
    labels = frozenset(attribute.replace(".", "_") for attribute in metric.attributes) | OF_THE_RESOURCE
    if metric.instrument is Instrument.HISTOGRAM:
        yield f"{name}_bucket", labels | {"le"}
        yield f"{name}_sum", labels
        yield f"{name}_count", labels
    elif metric.instrument is Instrument.COUNTER:
        yield f"{name}_total", labels
    else:
        yield name, labels
