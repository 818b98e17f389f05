"""``make demo-otlp``: a collector, the proxy and an origin; every kind of tunnel; and what the collector
has of it.

Starts the OpenTelemetry Collector (built from its Go module, and cached; where that is not possible a
receiver on the published protobuf package stands in, and it says so), a TLS origin and the proxy, all on
free ports with files in a temporary directory. Sends requests that go well and one tunnel for each kind of
failure that can be provoked from outside. Then the proxy is stopped, which flushes, and a summary is
printed that is read back from the collector's output alone. Exits with 1 and one sentence where something
is missing or goes wrong.

``--svg FILE`` also draws the trace of one tunnel: docs/trace.svg is made so.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script

from typing import TYPE_CHECKING

import _pytest.outcomes

from tests.demo.demo import table
from tests.demo.trace_picture import picture
from tests.otlp import traffic
from tests.otlp.collector import Collector, NoCollectorError
from tests.otlp.receiver import Receiver
from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import Serve

if TYPE_CHECKING:
    from tests.otlp.exported import Exported, Span

PICTURED = "http2.lab.test"


class DemoError(Exception):
    """One sentence for whoever runs the demo."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Show what a collector gets of mixed traffic.")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the trace of one tunnel")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="polytls-demo-") as directory:
            exported, tunnels = run(Path(directory))
        print(summary(exported))
        if args.svg is not None:
            args.svg.write_text(picture(exported, exported.tunnel(PICTURED)), encoding="utf-8")
            print(f"\ndrawn: {args.svg}")
        check(exported, tunnels)
    except (DemoError, RuntimeError, OSError) as error:
        return _failed(str(error))
    except _pytest.outcomes.Skipped as missing:  # how the tests' peers say that a program is not installed
        return _failed(str(missing))
    except KeyboardInterrupt:
        return 130
    return 0


def run(directory: Path) -> tuple[Exported, int]:
    """Everything, from start to stop: what was exported, and of how many tunnels."""
    authority = Authority(directory, "PolyTLS demo origin")
    with contextlib.ExitStack() as stack:
        collector = _collector(directory)
        stack.callback(collector.close)
        origin = stack.enter_context(Origin(origin_context(authority.issue("*.lab.test", "127.0.0.1"))))
        proxy = Serve(
            directory / "ca",
            *("--resolve", "*.lab.test:127.0.0.1", "--upstream-ca-file", str(authority.pem)),
            *("--config", str(traffic.write_config(directory)), *traffic.DRAIN_OPTIONS),
            environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_METRIC_EXPORT_INTERVAL": "1000"},
        )
        stack.callback(proxy.stop)
        print(f"proxy      {proxy.url}, MITM")
        lab = traffic.Lab(proxy, authority, origin)
        good = traffic.good(lab)
        print(f"sending    {good} requests that go well")
        print("failing    ", end="", flush=True)
        failed = traffic.bad(lab, lambda kind: print(kind.value, end=" ", flush=True))
        print(f"\n           {len(failed)} kinds of failure")
        with traffic.open_at_the_end(lab):
            print("stopping   with a tunnel still open; what waits is flushed")
            if proxy.stop() != 0:
                raise DemoError(f"the proxy did not stop in order: {proxy.notes}")
        records = proxy.all_records()
        exported = collector.wait(
            lambda found: (
                sum(log.event == "polytls.tunnel" for log in found.logs) >= len(records)
                and len(found.tunnels()) >= len(records) - 1
                and found.last("polytls.tunnels.ended", polytls_outcome="drained")
            )
        )
        return exported, len(records)


def summary(exported: Exported) -> str:
    """What the collector knows, in tables."""
    tunnels = exported.tunnels()
    outcomes = Counter(str(span.attributes["polytls.outcome"]) for span in tunnels)
    points = {
        str(point.attributes["polytls.outcome"]): 0.0
        for point in exported.points
        if point.metric == "polytls.tunnels.ended"
    }
    for outcome in points:
        points[outcome] = _ended(exported, outcome)
    logged = Counter(
        str(log.attributes["polytls.outcome"]) for log in exported.logs if log.event == "polytls.tunnel"
    )
    rows: list[tuple[str, ...]] = [("outcome", "traces", "metrics", "logs")]
    rows += [
        (outcome, str(outcomes[outcome]), f"{points[outcome]:.0f}", str(logged[outcome]))
        for outcome in sorted(points, key=lambda name: (name != "completed", name))
    ]
    rows.append(("all", str(len(tunnels)), f"{sum(points.values()):.0f}", str(sum(logged.values()))))
    steps: dict[str, list[float]] = {}
    for span in exported.spans:
        if span.parent_id and not span.name.startswith("CONNECT") and span.status == 0:
            steps.setdefault(span.name, []).append((span.end - span.start) / 1e6)
    times: list[tuple[str, ...]] = [("step", "spans", "median")]
    times += [(name, str(len(found)), f"{statistics.median(found):.2f} ms") for name, found in steps.items()]
    return "\n".join(
        [
            "",
            "What the collector has:",
            "",
            table(rows),
            "(One caller did not want its trace exported.)",
            "",
            table(times),
            "",
            tree(exported, exported.tunnel(PICTURED)),
            "",
            (
                f"{len(exported.spans)} spans, {len(exported.logs)} log records,"
                f" {len({point.metric for point in exported.points})} metrics,"
                f" {exported.last('polytls.leaf_cache.mints'):.0f} leaves minted,"
                f" {exported.last('polytls.events.dropped', polytls_sink='traces'):.0f} events dropped."
            ),
        ]
    )


def tree(exported: Exported, tunnel: Span) -> str:
    """One trace as lines."""
    lines = [f"{tunnel.name}  {_milliseconds(tunnel)}  {tunnel.attributes['polytls.profile']}"]
    for name, span in exported.children(tunnel).items():
        after = (span.start - tunnel.start) / 1e6
        facts = [
            str(span.attributes[key])
            for key in ("network.peer.address", "tls.protocol.version", "tls.cipher", "tls.curve")
            if key in span.attributes
        ]
        lines.append(
            f"  {name:<19} at {after:8.2f} ms  {_milliseconds(span):>10}  {' '.join(facts)}".rstrip()
        )
    return "\n".join(lines)


def check(exported: Exported, tunnels: int) -> None:
    """The summary adds up. Raises `DemoError`."""
    ended = sum(
        _ended(exported, outcome)
        for outcome in {
            str(point.attributes["polytls.outcome"])
            for point in exported.points
            if point.metric == "polytls.tunnels.ended"
        }
    )
    if ended != tunnels:
        raise DemoError(f"metrics count {ended:.0f} tunnels, the log {tunnels}")


def _ended(exported: Exported, outcome: str) -> float:
    """The last value of each series with this outcome, added up."""
    last = {
        tuple(sorted(point.attributes.items())): point.value
        for point in exported.points
        if point.metric == "polytls.tunnels.ended" and point.attributes["polytls.outcome"] == outcome
    }
    return sum(last.values())


def _collector(directory: Path) -> Collector | Receiver:
    print(
        "collector  looking for the OpenTelemetry Collector (the first time, it is built from its Go module)"
    )
    try:
        collector = Collector(directory)
    except NoCollectorError as reason:
        print(f"collector  NOT the real one: {reason}; a receiver on the protobuf package stands in")
        receiver = Receiver()
        print(f"collector  {receiver.url}")
        return receiver
    print(f"collector  the real one, {collector.url}, writing to {collector.path.name}")
    return collector


def _milliseconds(span: Span) -> str:
    return f"{(span.end - span.start) / 1e6:.2f} ms"


def _failed(problem: str) -> int:
    print(f"demo: error: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
