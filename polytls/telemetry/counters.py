"""Counters of a running proxy at one moment, for whoever reads them now and then."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeafCounters:
    """Of the leaf cache: counts since the start, and `size`, the leaves held now."""

    hits: int
    misses: int
    mints: int
    failures: int
    evictions: int
    size: int


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """The engine's: `relayed_bytes`, `handshakes` and `accept_errors` since the start, the others now."""

    streams: int
    operations: int
    relays: int
    queued: int
    buffered_bytes: int
    relayed_bytes: int
    handshakes: int
    accept_errors: int


@dataclass(frozen=True, slots=True)
class Counters:
    """`leaves` None in passthrough, `engine` None before the start. `loop_lag`: the longest that the event
    loop was late, in seconds, since it was last asked for."""

    open_tunnels: int = 0
    unspoken: int = 0  # connections that closed without a byte
    log_dropped: int = 0
    loop_lag: float = 0.0
    leaves: LeafCounters | None = None
    engine: EngineCounters | None = None
