"""The program that serves: one `App` from its start to its end, until somebody says to stop.

`run` is what a process has only once: the event loop, the log, the limit of open files, signals. The first
SIGINT or SIGTERM drains, the second ends at once; SIGHUP has the configuration read again, one reload at a
time. With a `Place` it is one of several workers, which `polytls.workers` starts, stops and reloads. What a
proxy is made of is for `polytls.app` to know.

uvloop is not used: the event loop only wakes up for completions, and the standard one does that as well.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from polytls.app import App
from polytls.errors import ConfigError
from polytls.events import NotReloaded, TunnelRecord, Warned, note_of
from polytls.settings import Address, LimitSettings, Mode, Settings
from polytls.started import Started, has_terminal
from polytls.telemetry.lag import LoopLag
from polytls.telemetry.log import LineWriter, TunnelLog, to_stream, wants_colour
from polytls.telemetry.otlp.plan import plan

if TYPE_CHECKING:
    from polytls.config import LoadedSettings
    from polytls.events import Event, EventSink
    from polytls.telemetry.counters import Counters
    from polytls.telemetry.otlp.start import Otlp

SPARE_FILES = 120
"""Descriptors for everything that is not a stream: listeners, epoll, DNS, files."""
SPARE_STREAMS = 40
"""Connections that no tunnel may have, for heads that are being read and clients that are being told no."""

FLUSH_SECONDS = 5.0
"""For telemetry that waits to be sent when everything else has ended, at most; and at most the drain time."""

GC_THRESHOLD = (20_000, 20, 50)
"""Tunnels are freed by reference counts; a collector that looks every 700 objects, as by default, takes a
tenth of Python's time to find nothing."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration to go by from now on: `read` gives it (or raises `UserError`), `done` is told on the
    event loop whether it was taken."""

    read: Callable[[], LoadedSettings]
    done: Callable[[bool], None] = lambda _taken: None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a supervisor said: how often to stop, and configurations, in order. `refused`: why it could not
    offer others, which it has told whoever runs the program. `ended`: that was all."""

    stops: int = 0
    reloads: tuple[Reload, ...] = ()
    refused: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker has from its supervisor (`polytls.workers`), and a proxy that is alone does not need.

    `number` from 1 on; `tunnels`, the limit of all workers together; `listener`, the descriptor of a socket
    that listens; `commands`, which can be read from when there is something to `hear`, without waiting;
    `ids`, a number for each tunnel; `lines` and `notes`, what writes to stdout and stderr.
    """

    number: int
    tunnels: int
    listener: int
    commands: socket.socket
    hear: Callable[[], Heard]
    ids: Callable[[], int]
    lines: Callable[[bytes], None]
    notes: Callable[[bytes], None]


def run(
    settings: Settings,
    *,
    origins: Mapping[str, str],
    announce: Callable[[Started], None],
    reread: Callable[[], LoadedSettings] | None = None,
    place: Place | None = None,
) -> None:
    """Serve until a signal, or who gave the `place`, says to stop. Tunnel lines go to stdout, everything else
    to stderr. `reread` gives the configuration anew, for SIGHUP; None: SIGHUP is let be.

    Raises as `App.start` does.
    """
    possible, max_streams = room_for(raise_file_limit())
    wanted = settings.limits.tunnels
    # Beyond that, connections would wait for descriptors instead of being told 503.
    allowed = _within(settings, possible)
    chosen = (wanted if place is None else place.tunnels) != LimitSettings().tunnels
    warning = (
        f"{wanted} tunnels{' a worker' if place else ''} need more open files than are allowed;"
        f" {possible} are possible: raise the hard limit (ulimit -Hn), or start more --workers"
    )
    warnings = (warning,) if possible < wanted and chosen else ()
    reloads = _Reloads(possible, None if reread is None else Reload(reread))
    asyncio.run(_run(allowed, max_streams, origins, announce, warnings, reloads, place))


def _within(settings: Settings, possible: int) -> Settings:
    return replace(settings, limits=LimitSettings(tunnels=min(settings.limits.tunnels, possible)))


def room_for(files: int) -> tuple[int, int]:
    """How many tunnels, and how many connections in all, a process with so many open files may have. Some
    files are for everything else, some connections to be told that there are too many; one tunnel fits.
    """
    streams = max(3, files - SPARE_FILES)
    return max(1, (streams - SPARE_STREAMS) // 2), streams


async def _run(
    settings: Settings,
    max_streams: int,
    origins: Mapping[str, str],
    announce: Callable[[Started], None],
    warnings: tuple[str, ...],
    reloads: _Reloads,
    place: Place | None,
) -> None:
    to_stderr = to_stream(sys.stderr) if place is None else place.notes
    notes = LineWriter(to_stderr, lambda lines: f"... {lines} notes are missing")
    who = "polytls" if place is None else f"polytls: worker {place.number}"

    def sink(event: Event) -> None:
        if otlp is not None:
            otlp(event)
        if isinstance(event, TunnelRecord):
            log(event)
        elif isinstance(event, NotReloaded) and event.noted:
            pass
        elif (text := note_of(event)) is not None:
            notes.put(lambda: f"{who}: {text}")

    def counters() -> Counters:
        return replace(app.counters(), log_dropped=log.dropped, loop_lag=lag.take())

    otlp: Otlp | None = None
    lag = LoopLag(asyncio.get_running_loop())
    try:
        otlp = _exporter(settings, lambda text: sink(Warned(text)), counters)
        spans = None if otlp is None or not otlp.traces else otlp.spans.ids
        colour = wants_colour(sys.stdout, os.environ)
        lines = to_stream(sys.stdout) if place is None else place.lines
        worker = None if place is None else place.number
        log = TunnelLog(lines, settings.log.format, colour=colour, span=spans, worker=worker)
        listener, ids = (None, None) if place is None else (place.listener, place.ids)
        traced = spans is not None
        app = App(
            settings,
            sink=sink,
            origins=origins,
            traced=traced,
            listener=listener,
            ids=ids,
            max_streams=max_streams,
        )
        try:
            await _serve(app, announce, warnings, reloads, sink, place)
        finally:
            log.close()
            if log.dropped:
                text = f"{log.dropped} log lines were dropped: the reader of stdout was too slow, or gone"
                sink(Warned(text))
            if otlp is not None:
                otlp.close(min(FLUSH_SECONDS, max(1.0, app.settings.timeouts.drain)))
    finally:
        lag.close()
        notes.close()


async def _serve(
    app: App,
    announce: Callable[[Started], None],
    warnings: tuple[str, ...],
    reloads: _Reloads,
    sink: EventSink,
    place: Place | None,
) -> None:
    """Start, until somebody says to stop, and stop."""
    stopping: asyncio.Event | None = None
    try:
        address = await app.start()
        started = _started(app, address, warnings)
        reloads.begin(app, started, lambda text: sink(Warned(text)))
        stopping = _on_wishes(app, reloads, place, sink)
        announce(started)
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        gc.enable()
        await stopping.wait()
    finally:
        await app.stop(app.settings.timeouts.drain)
        if stopping is not None:
            _deaf_to_signals()


def _exporter(
    settings: Settings, warn: Callable[[str], None], counters: Callable[[], Counters]
) -> Otlp | None:
    """What exports telemetry, if that is configured. Nothing of OpenTelemetry is imported otherwise."""
    wanted = plan(settings.telemetry, os.environ)
    if wanted is None:
        return None
    try:
        from polytls.telemetry.otlp.start import Otlp
    except ModuleNotFoundError as error:
        raise ConfigError(
            "telemetry",
            "",
            f"is to be exported, but {error.name} is not installed: pip install 'polytls[otlp]',"
            " or set telemetry.enabled = false",
        ) from None
    return Otlp(wanted, settings.telemetry, warn=warn, counters=counters)


class _Reloads:
    """Reloads of one `App`, one at a time. Who asks while one is under way has one more after it, and who had
    asked before is told that nothing came of theirs: a configuration is read after the last wish for it."""

    def __init__(self, possible: int, again: Reload | None) -> None:
        """`possible`: the tunnels there may be at most. `again`: what SIGHUP is for; None: for nothing."""
        self.again = again
        self._possible = possible
        self._app: App | None = None
        self._next: Reload | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, app: App, started: Started, warn: Callable[[str], None]) -> None:
        """From now on. What `started` warns of is known."""
        self._app, self._address, self._warn = app, started.address, warn
        self._warned = set(started.warnings)

    def ask(self, reload: Reload) -> None:
        if self._next is not None:
            self._next.done(False)
        self._next = reload
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        app = self._app
        assert app is not None
        while (reload := self._next) is not None:
            self._next = None
            reload.done(await app.reload(partial(self._read, reload)))
            warnings = _warnings(app.settings, self._address, app.trusted_roots)
            for warning in warnings:
                if warning not in self._warned:
                    self._warn(warning)
            self._warned = set(warnings)
        self._task = None

    def _read(self, reload: Reload) -> LoadedSettings:
        loaded = reload.read()
        return replace(loaded, settings=_within(loaded.settings, self._possible))


def _on_wishes(app: App, reloads: _Reloads, place: Place | None, sink: EventSink) -> asyncio.Event:
    """An event that is set by the first wish to stop; the second ends all tunnels. In between, wishes to
    reload are let be."""
    stopping = asyncio.Event()
    attended = has_terminal()

    def stop() -> None:
        if stopping.is_set():
            app.end()
            return
        stopping.set()

    def reload(wanted: Reload) -> None:
        if stopping.is_set():
            wanted.done(False)
        else:
            reloads.ask(wanted)

    def hang_up(wanted: Reload) -> None:
        if attended and not has_terminal():  # the terminal is gone: it is no wish for anything but an end
            stop()
        else:
            reload(wanted)

    loop = asyncio.get_running_loop()
    if place is not None:
        loop.add_reader(place.commands, partial(_take_commands, place, stop, reload, sink))
        return stopping
    for number in _STOPPING:
        loop.add_signal_handler(number, stop)
    if reloads.again is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up, reloads.again)
    return stopping


def _take_commands(
    place: Place, stop: Callable[[], None], reload: Callable[[Reload], None], sink: EventSink
) -> None:
    heard = place.hear()
    for reason in heard.refused:
        sink(NotReloaded(reason, noted=True))
    for wanted in heard.reloads:
        reload(wanted)
    if heard.ended:
        asyncio.get_running_loop().remove_reader(place.commands)
    for _ in range(heard.stops or heard.ended):  # who could stop it is gone: time to stop
        stop()


def _deaf_to_signals() -> None:
    """All is done but the last lines and the interpreter's end: one more signal must not turn that into a
    death by signal."""
    loop = asyncio.get_running_loop()
    for number in (*_STOPPING, signal.SIGHUP):
        loop.remove_signal_handler(number)  # which the end of the loop would, to the default
        signal.signal(number, signal.SIG_IGN)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return what it is now: a tunnel takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems have a lower one that they do not tell of
            return soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _started(app: App, address: Address, warnings: tuple[str, ...]) -> Started:
    settings = app.settings
    return Started(
        settings=settings,
        address=address,
        threads=0 if app.engine is None else app.engine.threads,
        root_fingerprint=None if app.root is None else app.root.fingerprint_sha256,
        warnings=(*_warnings(settings, address, app.trusted_roots), *warnings),
    )


def _warnings(settings: Settings, address: Address, trusted_roots: int | None) -> list[str]:
    upstream = settings.upstream
    found: list[str] = []
    if not ipaddress.ip_address(address.host).is_loopback:
        found.append(f"{address} may be reached from other machines, and who reaches it can use the proxy")
    if settings.mode is Mode.MITM:
        if upstream.insecure_skip_verify:
            found.append("upstream certificates are not verified (insecure_skip_verify): for the lab only")
        elif not upstream.verify_hostname:
            found.append("upstream host names are not verified (verify_hostname = false): for the lab only")
        if trusted_roots == 0:
            found.append("no trusted root was found: every upstream certificate will be refused; set ca_file")
    if upstream.default_upstream is not None:
        found.append(
            f"every tunnel leads to {upstream.default_upstream} (default_upstream): for the lab only"
        )
    return found
