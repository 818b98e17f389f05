"""The vocabulary as documents: the tables of docs/observability.md, which a test holds to this.

After a change of `vocabulary`::

    python -m polytls.telemetry.otlp.reference   # all tables, each between its marks
"""

from __future__ import annotations

import sys

from polytls.telemetry.otlp.vocabulary import ATTRIBUTES, LOG_EVENTS, METRICS, SPANS


def tables() -> dict[str, str]:
    """The tables by the name of their marks: spans, attributes, logs, metrics."""
    return {
        "spans": _table(("span", "what it is"), [(f"`{name}`", doc) for name, doc in SPANS]),
        "attributes": _table(
            ("attribute", "type", "on", "what it says"),
            [(f"`{item.name}`", item.type, item.on, item.doc) for item in ATTRIBUTES],
        ),
        "logs": _table(
            ("event", "severity", "what happened"),
            [(f"`{name}`", severity, doc) for name, severity, doc in LOG_EVENTS],
        ),
        "metrics": _table(
            ("metric", "instrument", "unit", "attributes", "what it counts"),
            [
                (
                    f"`{metric.name}`",
                    metric.instrument.value,
                    metric.unit,
                    ", ".join(f"`{name}`" for name in metric.attributes) or "-",
                    metric.doc,
                )
                for metric in METRICS
            ],
        ),
        "buckets": _table(
            ("histogram", "upper bounds, in seconds"),
            [
                (f"`{metric.name}`", ", ".join(f"{bound:g}" for bound in metric.buckets))
                for metric in METRICS
                if metric.buckets
            ],
        ),
    }


def marked() -> str:
    """All tables, each between its marks."""
    return "\n".join(f"<!-- {name} -->\n{text}<!-- /{name} -->\n" for name, text in tables().items())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(marked())
