"""Metrics: counters that are read when it is time to export, and histograms fed from records.

Theory of operation
-------------------
Nothing is computed on a tunnel's path. What the proxy counts anyway
(open tunnels, the leaf cache, the engine) is asked for by asynchronous instruments at each export. What
only a record tells is added up here, on the feed's thread: plain dictionaries for the counters, which
asynchronous instruments then read, and the SDK's histograms.

The number of series is bounded. Modes, outcomes and limits are few; profile names are those of the catalog,
and what clients ask for beyond it has no profile. Hosts are an attribute only where somebody asked for
them, and even then at most `MAX_SERIES` of them: the rest is one more, called `OTHER`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from polytls.errors import Kind
from polytls.events import NotReloaded
from polytls.telemetry.otlp import vocabulary as words
from polytls.telemetry.otlp.vocabulary import Instrument

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

    from polytls.events import Reloaded, TunnelRecord
    from polytls.telemetry.counters import Counters, EngineCounters, LeafCounters
    from polytls.telemetry.otlp.vocabulary import Metric

MAX_SERIES = 1000
"""Hosts that are told apart. The SDK keeps 2,000 sets of attributes for an instrument, and merges the
rest."""
OTHER = "other"

LIMITS = frozenset(
    kind.value
    for kind in (
        Kind.TOO_MANY_TUNNELS,
        Kind.HEAD_TOO_LARGE,
        Kind.TOO_MANY_HEADERS,
        Kind.HEAD_TIMEOUT,
        Kind.HELLO_TOO_LARGE,
        Kind.HELLO_TIMEOUT,
        Kind.RESOLVE_TIMEOUT,
        Kind.CONNECT_TIMEOUT,
        Kind.UPSTREAM_HANDSHAKE_TIMEOUT,
        Kind.CLIENT_HANDSHAKE_TIMEOUT,
        Kind.IDLE_TIMEOUT,
        Kind.LIFETIME,
        Kind.DRAINED,
    )
)
"""Outcomes that say that something configured was reached."""

RELOAD_RESULTS = ("changed", "unchanged", "refused")
"""From the start on, so that the first one is a rise."""

_Labels = dict[str, str]
_Key = tuple[tuple[str, str], ...]
_NO_CONTEXT = Context()


class Metrics:
    """Instruments on `meter`. `counters` is called at each export, `dropped` gives lost events by sink;
    both on the exporter's thread."""

    def __init__(
        self,
        meter: Meter,
        counters: Callable[[], Counters],
        dropped: Callable[[], dict[str, int]],
        *,
        hosts: bool,
    ) -> None:
        self._counters = counters
        self._hosts: set[str] | None = set() if hosts else None
        self._ended: Counter[_Key] = Counter()
        self._bytes: Counter[_Key] = Counter()
        self._limits: Counter[_Key] = Counter()
        self._reloads: Counter[_Key] = Counter({_key({words.RESULT: result}): 0 for result in RELOAD_RESULTS})
        self._now: Counters | None = None
        self._histograms = {
            metric: meter.create_histogram(
                metric.name, metric.unit, metric.doc, explicit_bucket_boundaries_advisory=metric.buckets
            )
            for metric in words.METRICS
            if metric.instrument is Instrument.HISTOGRAM
        }
        self._connect = self._histograms[words.CONNECT_TIME]
        self._upstream = self._histograms[words.UPSTREAM_TIME]
        self._client = self._histograms[words.CLIENT_TIME]
        self._first_byte = self._histograms[words.FIRST_BYTE_TIME]
        self._life = self._histograms[words.LIFE]
        self._observe(meter, dropped)

    def add(self, record: TunnelRecord) -> None:
        """Count a tunnel that ended. For one thread."""
        mode = {words.MODE: record.mode or "none"}
        profile = {words.PROFILE: record.profile or "none"}
        host = self._host(record)
        self._ended[_key({**mode, **profile, words.OUTCOME: record.outcome, **host})] += 1
        if record.bytes_up or record.bytes_down:
            self._bytes[_key({words.DIRECTION: "up", **mode})] += record.bytes_up
            self._bytes[_key({words.DIRECTION: "down", **mode})] += record.bytes_down
        if record.outcome in LIMITS:
            self._limits[_key({words.LIMIT: record.outcome})] += 1
        timings = record.timings
        _note(self._connect, timings.connect, {**mode, **host})
        _note(self._upstream, timings.upstream_handshake, {**profile, **host})
        _note(self._client, timings.client_handshake, host)
        _note(self._first_byte, timings.first_byte, {**mode, **host})
        _note(self._life, timings.total, {**mode, **host})

    def reloaded(self, event: Reloaded | NotReloaded) -> None:
        """Count a reload. For one thread, which may be another."""
        if isinstance(event, NotReloaded):
            result = "refused"
        else:
            result = "changed" if event.changed else "unchanged"
        self._reloads[_key({words.RESULT: result})] += 1

    def _host(self, record: TunnelRecord) -> _Labels:
        known, host = self._hosts, record.host
        if known is None or host is None:
            return {}
        if host not in known:
            if len(known) >= MAX_SERIES:
                host = OTHER
            known.add(host)
        return {words.SERVER_ADDRESS: host}

    def _observe(self, meter: Meter, dropped: Callable[[], dict[str, int]]) -> None:
        """The asynchronous instruments. The first asks for the counters, and the others of the same export
        go by the same answer: they are asked in the order in which they were made."""

        def first() -> Iterable[Observation]:
            self._now = self._counters()
            return (Observation(self._now.open_tunnels),)

        def of(read: Callable[[Counters], float]) -> Callable[[], Iterable[Observation]]:
            return lambda: () if self._now is None else (Observation(read(self._now)),)

        def leaf(read: Callable[[LeafCounters], int]) -> Callable[[], Iterable[Observation]]:
            return lambda: (
                ()
                if self._now is None or self._now.leaves is None
                else (Observation(read(self._now.leaves)),)
            )

        def engine(read: Callable[[EngineCounters], int]) -> Callable[[], Iterable[Observation]]:
            return lambda: (
                ()
                if self._now is None or self._now.engine is None
                else (Observation(read(self._now.engine)),)
            )

        _asynchronous(meter, words.OPEN, first)
        _asynchronous(meter, words.ENDED, lambda: _observations(self._ended))
        _asynchronous(meter, words.UNSPOKEN, of(lambda now: now.unspoken))
        _asynchronous(meter, words.BYTES, lambda: _observations(self._bytes))
        _asynchronous(meter, words.LIMITS, lambda: _observations(self._limits))
        _asynchronous(meter, words.LEAF_HITS, leaf(lambda cache: cache.hits))
        _asynchronous(meter, words.LEAF_MISSES, leaf(lambda cache: cache.misses))
        _asynchronous(meter, words.LEAF_MINTS, leaf(lambda cache: cache.mints))
        _asynchronous(meter, words.LEAF_FAILURES, leaf(lambda cache: cache.failures))
        _asynchronous(meter, words.LEAF_EVICTIONS, leaf(lambda cache: cache.evictions))
        _asynchronous(meter, words.LEAF_SIZE, leaf(lambda cache: cache.size))
        _asynchronous(meter, words.RELOADS, lambda: _observations(self._reloads))
        _asynchronous(meter, words.LOOP_LAG, of(lambda now: now.loop_lag))
        _asynchronous(meter, words.QUEUED, engine(lambda stats: stats.queued))
        _asynchronous(meter, words.STREAMS, engine(lambda stats: stats.streams))
        _asynchronous(meter, words.OPERATIONS, engine(lambda stats: stats.operations))
        _asynchronous(meter, words.RELAYS, engine(lambda stats: stats.relays))
        _asynchronous(meter, words.BUFFERED, engine(lambda stats: stats.buffered_bytes))
        _asynchronous(meter, words.RELAYED, engine(lambda stats: stats.relayed_bytes))
        _asynchronous(meter, words.HANDSHAKES, engine(lambda stats: stats.handshakes))
        _asynchronous(meter, words.ACCEPT_ERRORS, engine(lambda stats: stats.accept_errors))

        def lost() -> Iterable[Observation]:
            counts = dropped()
            if self._now is not None:
                counts["log"] = self._now.log_dropped
            return [Observation(count, {words.SINK: sink}) for sink, count in counts.items()]

        _asynchronous(meter, words.DROPPED, lost)


def _asynchronous(meter: Meter, metric: Metric, read: Callable[[], Iterable[Observation]]) -> None:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return read()

    match metric.instrument:
        case Instrument.COUNTER:
            meter.create_observable_counter(metric.name, [observe], metric.unit, metric.doc)
        case Instrument.UP_DOWN:
            meter.create_observable_up_down_counter(metric.name, [observe], metric.unit, metric.doc)
        case Instrument.GAUGE:
            meter.create_observable_gauge(metric.name, [observe], metric.unit, metric.doc)
        case Instrument.HISTOGRAM:
            raise ValueError(f"{metric.name} is no instrument that is asked")


def _note(histogram: Histogram, seconds: float | None, labels: _Labels) -> None:
    if seconds is not None:
        histogram.record(seconds, labels, _NO_CONTEXT)


def _key(labels: _Labels) -> _Key:
    return tuple(labels.items())


def _observations(counter: Counter[_Key]) -> list[Observation]:
    # `copy` is one operation of the interpreter: the feed may be adding meanwhile.
    return [Observation(count, dict(key)) for key, count in counter.copy().items()]
