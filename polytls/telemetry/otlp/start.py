"""The sink that exports: events in, and a feed, an exporter and a thread for each signal.

Theory of operation
-------------------
An event is put into the feeds of the signals that want it, and that
is all that happens on the thread where it happened. Each feed's thread turns what it gets into the SDK's
values and hands them to the SDK's exporter, which encodes, sends, and tries again within its timeout. A
collector that is away or slow fills the feed; what does not fit is dropped and counted, and so is a batch
that the exporter gave up. When the collector is back the next batch reaches it.

Tunnels must not wait for any of this, although Python runs one thread at a time. So whatever is worked off is
gone through by way of `Gently`, by the SDK's encoder as well, as long as the feed does not fill. And a
request has few spans: the encoder ends with copies of all of them, in calls that nothing can interrupt, and
with many objects alive the garbage collector comes to look.

The SDK's own batch processors are not used: they neither count what they drop nor take records, and spans
that wait are ten times the size of the record that they come from.

`close` lets all signals send what they have, at the same time, within one deadline.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from polytls import __version__
from polytls.errors import ConfigError
from polytls.events import NotReloaded, Reloaded, TunnelRecord
from polytls.telemetry.feed import Feed
from polytls.telemetry.gently import Gently
from polytls.telemetry.otlp.complaints import Complaints
from polytls.telemetry.otlp.exporters import make_exporter, make_resource, make_sampler
from polytls.telemetry.otlp.identity import Identity
from polytls.telemetry.otlp.logs import Logs
from polytls.telemetry.otlp.metrics import Metrics
from polytls.telemetry.otlp.plan import Export, Plan, Signal
from polytls.telemetry.otlp.spans import Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from polytls.events import Event
    from polytls.settings import TelemetrySettings
    from polytls.telemetry.counters import Counters

T = TypeVar("T")

SCOPE = "polytls"
_LEAVE_SECONDS = 0.2
"""For a thread whose exporter was told to give up to notice."""
_METRICS_WAITING = 65_536
"""Records that wait to be counted. Nothing in there waits for a collector, so they do not for long."""
_METRICS_BATCH = 1024
_METRICS_DELAY_SECONDS = 0.2


class Otlp:
    """An `EventSink` that exports. `warn` takes a sentence on any thread; `counters` is asked at each
    export of metrics. To be closed."""

    def __init__(
        self,
        plan: Plan,
        settings: TelemetrySettings,
        *,
        warn: Callable[[str], None],
        counters: Callable[[], Counters],
    ) -> None:
        """Raises ConfigError for a file that cannot be read."""
        self._plan = plan
        self._lost = dict.fromkeys(Signal, 0)
        self._complaints = Complaints(warn, secrets=plan.secrets)
        self._complaints.install()
        self._feeds: dict[Signal, Feed[Any]] = {}
        self._exporters: dict[Signal, Any] = {}
        self._provider: MeterProvider | None = None
        self._metrics: Metrics | None = None
        self._metrics_ended = False
        resource = make_resource(settings)
        scope = InstrumentationScope(SCOPE, __version__)
        self.spans = Spans(make_sampler(plan.sampling), Identity(), resource, scope)
        try:
            for export in plan.exports:
                self._exporters[export.signal] = _made(export)
        except BaseException:
            self._complaints.remove()
            raise
        self._logs = Logs(self._sampled, resource, scope)
        if Signal.TRACES in self._exporters:
            self._feeds[Signal.TRACES] = self._feed(Signal.TRACES, self._send_traces)
        if Signal.LOGS in self._exporters:
            self._feeds[Signal.LOGS] = self._feed(Signal.LOGS, self._send_logs)
        if Signal.METRICS in self._exporters:
            self._measure(settings, resource, counters)

    @property
    def traces(self) -> bool:
        """Whether traces are exported: then it matters which trace a tunnel belongs to."""
        return Signal.TRACES in self._feeds

    def __call__(self, event: Event) -> None:
        feeds = self._feeds
        if (logs := feeds.get(Signal.LOGS)) is not None:
            logs.put((event, time.time_ns()))
        if isinstance(event, TunnelRecord):
            if (traces := feeds.get(Signal.TRACES)) is not None:
                traces.put(event)
            if (metrics := feeds.get(Signal.METRICS)) is not None:
                metrics.put(event)
        elif isinstance(event, (Reloaded, NotReloaded)) and self._metrics is not None:
            self._metrics.reloaded(event)

    def dropped(self) -> dict[str, int]:
        """Events lost since the start, by signal: what did not fit, and what no collector took."""
        return {signal.value: self._lost[signal] + feed.dropped for signal, feed in list(self._feeds.items())}

    def close(self, seconds: float) -> None:
        """Send what there is, for at most about so long, and stop. May block."""
        deadline = time.monotonic() + seconds
        for feed in self._feeds.values():
            feed.begin_close()
        last = None
        if (counted := self._feeds.get(Signal.METRICS)) is not None:
            counted.finish(deadline)  # waits for no collector
            last = threading.Thread(target=self._end_metrics, args=(deadline,), daemon=True)
            last.start()
        for signal in (Signal.TRACES, Signal.LOGS):
            if signal in self._feeds:
                self._end(signal, deadline)
        if last is not None:
            last.join(max(0.0, deadline - time.monotonic()) + _LEAVE_SECONDS)
        if all(feed.ended for feed in self._feeds.values()) and (last is None or self._metrics_ended):
            self._complaints.remove()  # else whoever is left behind would complain to stderr

    def _feed(self, signal: Signal, handle: Callable[[list[Any]], None]) -> Feed[Any]:
        batching = self._plan.spans if signal is Signal.TRACES else self._plan.logs
        return Feed(
            f"polytls-{signal.value}",
            handle,
            failed=self._complain,
            most_waiting=batching.most_waiting,
            batch=batching.batch,
            delay=batching.delay,
        )

    def _measure(
        self, settings: TelemetrySettings, resource: Resource, counters: Callable[[], Counters]
    ) -> None:
        reader = PeriodicExportingMetricReader(
            self._exporters[Signal.METRICS],
            export_interval_millis=settings.metric_interval * 1000,
            export_timeout_millis=settings.timeout * 1000,
        )
        # Exemplars would look for a span around each value, and there is none.
        self._provider = MeterProvider(
            [reader], resource, shutdown_on_exit=False, exemplar_filter=AlwaysOffExemplarFilter()
        )
        meter = self._provider.get_meter(SCOPE, __version__)
        self._metrics = metrics = Metrics(meter, counters, self.dropped, hosts=settings.hosts_in_metrics)

        def count(records: list[TunnelRecord]) -> None:
            for record in self._gently(Signal.METRICS, records):
                metrics.add(record)

        self._feeds[Signal.METRICS] = Feed(
            "polytls-metrics",
            count,
            failed=self._complain,
            most_waiting=_METRICS_WAITING,
            batch=_METRICS_BATCH,
            delay=_METRICS_DELAY_SECONDS,
        )

    def _sampled(self, record: TunnelRecord) -> Any:
        return self.spans.sampled(record) if self.traces else None

    def _send_traces(self, records: list[TunnelRecord]) -> None:
        """In several requests, each of at most a batch of spans, or of one tunnel's."""
        feed, most = self._feeds[Signal.TRACES], self._plan.spans.batch
        spans: list[ReadableSpan] = []
        tunnels = 0
        for record in self._gently(Signal.TRACES, records):
            built = self.spans.build(record)
            if spans and len(spans) + len(built) > most:
                self._send(Signal.TRACES, spans, tunnels)
                feed.settled(tunnels)
                spans, tunnels = [], 0
            spans += built
            tunnels += 1
        if spans:
            self._send(Signal.TRACES, spans, tunnels)

    def _send_logs(self, events: list[tuple[Event, int]]) -> None:
        built = [self._logs.build(event, when_ns) for event, when_ns in self._gently(Signal.LOGS, events)]
        self._send(Signal.LOGS, built, len(events))

    def _send(self, signal: Signal, values: Sequence[object], events: int) -> None:
        result = self._exporters[signal].export(self._gently(signal, values))
        if result.value != 0:  # 0: success, in every exporter's own enum
            self._lost[signal] += events
            export = self._plan.of(signal)
            where = "the collector" if export is None else export.where
            self._complaints.say(f"{where} did not take {signal.value}; what could not be sent is lost")

    def _gently(self, signal: Signal, values: Sequence[T]) -> Gently[T]:
        feed = self._feeds[signal]
        return Gently(values, lambda: feed.behind)

    def _complain(self, error: Exception) -> None:
        self._complaints.say(f"events could not be exported ({type(error).__name__}: {error})")

    def _end(self, signal: Signal, deadline: float) -> None:
        feed, exporter = self._feeds[signal], self._exporters[signal]
        if feed.ends_by(deadline):
            exporter.shutdown()
            return
        with contextlib.suppress(Exception):  # what is being sent meanwhile fails, and says so
            exporter.shutdown()
        feed.finish(time.monotonic() + _LEAVE_SECONDS)

    def _end_metrics(self, deadline: float) -> None:
        """`shutdown` waits for the SDK's thread no longer than it is told, and does not say whether that
        ended; it did where `shutdown` came back in time."""
        left = max(0.001, deadline - time.monotonic())
        latest = time.monotonic() + left
        with contextlib.suppress(Exception):  # it raises when the collector is slow, having tried
            if self._provider is not None:
                self._provider.shutdown(timeout_millis=left * 1000)
                self._metrics_ended = time.monotonic() < latest


def _made(export: Export) -> Any:
    try:
        return make_exporter(export)
    except OSError as problem:
        source = str(export.certificate_file)
        raise ConfigError(
            source, "telemetry.certificate_file", f"cannot be read ({problem.strerror})"
        ) from None
