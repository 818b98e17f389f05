"""The composition root: settings become objects, objects become a running proxy. No decision is made here.

Everything is passed in where it is needed; nothing is global. What a mode does not need is neither made
nor imported: passthrough knows no certificate authority, no trust store and no TLS context.

`App` is a proxy inside a running event loop (tests have several). `run` is the whole program: event loop,
log, signals. The first SIGINT or SIGTERM drains, the second ends at once. With a `Place` it is one of several
workers, which `polytls.workers` starts and stops. uvloop is not used: the event loop only wakes up for
completions, and the standard one does that as well.
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

from polytls.engine import Credential, Engine
from polytls.errors import ConfigError, EngineError, ProfileError
from polytls.events import Draining, LeafMinted, Listening, TunnelRecord, Warned, note_of
from polytls.fingerprint.known import KnownJa4
from polytls.profiles import MIRROR, Catalog
from polytls.proxy.resolve import Lookup, Overrides, Resolver, system_lookup
from polytls.proxy.server import Server
from polytls.proxy.snapshot import Contexts, Interception, Profiles, Snapshot
from polytls.settings import Address, LeafKey, LimitSettings, MirrorUnsupported, Mode, Settings
from polytls.started import ListenError, Started
from polytls.telemetry.counters import Counters, EngineCounters, LeafCounters
from polytls.telemetry.lag import LoopLag
from polytls.telemetry.log import LineWriter, TunnelLog, to_stream, wants_colour
from polytls.telemetry.otlp.plan import plan

if TYPE_CHECKING:
    from polytls.events import Event, EventSink
    from polytls.pki.audit import MintEvent
    from polytls.pki.cache import LeafCache
    from polytls.pki.leaf import Leaf, LeafKeys, LeafKind
    from polytls.pki.root import RootCA
    from polytls.profiles import HelloSpec
    from polytls.proxy.mirror import Mirror
    from polytls.telemetry.otlp.start import Otlp

SPARE_STREAMS = 1024
"""Beside two for each tunnel: connections whose head is being read, or that are being told no."""
SPARE_FILES = 160
"""Descriptors for everything that is not a stream: listeners, epoll, DNS, files."""

FLUSH_SECONDS = 5.0
"""For telemetry that waits to be sent when everything else has ended, at most; and at most the drain time."""

GC_THRESHOLD = (20_000, 20, 50)
"""Tunnels are freed by reference counts; a collector that looks every 700 objects, as by default, takes a
tenth of Python's time to find nothing."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_COMMANDS_BYTES = 64
_DEFAULT_PROFILE = "proxy.upstream.default_profile"


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker has from its supervisor (`polytls.workers`), and a proxy that is alone does not need.

    `number` from 1 on; `tunnels`, the limit of all workers together; `listener`, the descriptor of a socket
    that listens; `commands`, which has a byte for each wish to stop, and ends when nobody will stop it any
    more; `ids`, a number for each tunnel; `lines` and `notes`, what writes to stdout and stderr.
    """

    number: int
    tunnels: int
    listener: int
    commands: socket.socket
    ids: Callable[[], int]
    lines: Callable[[bytes], None]
    notes: Callable[[bytes], None]


class App:
    """One proxy. `start` it, and `stop` it whatever became of `start`.

    `sink` takes every event, mostly on the event loop, and must not block. `origins` says where settings came
    from (`LoadedSettings.origins`). `traced`: the sink wants to know which trace a tunnel belongs to.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sink: EventSink,
        origins: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        lookup: Lookup = system_lookup,
        traced: bool = False,
        place: Place | None = None,
    ) -> None:
        self.settings = settings
        self.root: RootCA | None = None
        self.engine: Engine | None = None
        self.server: Server | None = None
        self.trusted_roots: int | None = None
        self._sink = sink
        self._traced = traced
        self._origins = origins or {}
        self._environ = os.environ if environ is None else environ
        self._lookup = lookup
        self._place = place
        self._leaves: LeafCache[Credential] | None = None

    async def start(self) -> Address:
        """Make everything and listen; the address with its actual port.

        Raises `UserError` for what whoever runs the program can mend, `ListenError`.
        """
        settings = self.settings
        catalog = self._catalog()
        timeouts, upstream = settings.timeouts, settings.upstream
        resolver = Resolver(
            Overrides(upstream), timeout=timeouts.resolve, ttl=upstream.dns_cache_ttl, lookup=self._lookup
        )
        interception = self._interception(catalog) if settings.mode is Mode.MITM else None
        max_streams = 2 * settings.limits.tunnels + SPARE_STREAMS
        self.engine = Engine.start(threads=settings.engine.threads, max_streams=max_streams)
        known = KnownJa4() if settings.log.fingerprint and interception is not None else None
        snapshot = Snapshot(settings, catalog, resolver, interception, known, self._traced)
        place = self._place
        self.server = Server(
            self.engine,
            snapshot,
            sink=self._sink,
            report=lambda text: self._sink(Warned(text)),
            ids=None if place is None else place.ids,
        )
        try:
            address = self.server.listen(None if place is None else place.listener)
        except OSError as error:
            raise ListenError(settings.listen.address, error) from error
        self._sink(Listening(str(address), settings.mode.value))
        return address

    async def stop(self, drain_seconds: float) -> None:
        """Drain and end everything. Works after a `start` that failed, too."""
        if self.server is not None:
            self._sink(Draining(len(self.server.tracker.live), drain_seconds))
            await self.server.drain(drain_seconds)
        if self.engine is not None:
            await self.engine.close()
        if self._leaves is not None:
            self._leaves.close()

    def counters(self) -> Counters:
        """What this proxy counts, now. For any thread."""
        server, leaves, engine = self.server, self._leaves, self.engine
        cache = None if leaves is None else leaves.stats()
        stats = None if engine is None else engine.stats()
        return Counters(
            open_tunnels=0 if server is None else len(server.tracker.live),
            unspoken=0 if server is None else server.tracker.unspoken,
            leaves=None
            if cache is None
            else LeafCounters(
                cache.hits, cache.misses, cache.mints, cache.failures, cache.evictions, cache.size
            ),
            engine=None
            if stats is None
            else EngineCounters(
                streams=stats.streams,
                operations=stats.operations,
                relays=stats.relays,
                queued=stats.completions,
                buffered_bytes=stats.buffered_bytes,
                relayed_bytes=stats.relayed_bytes,
                handshakes=stats.handshakes,
                accept_errors=stats.accept_errors,
            ),
        )

    def end(self) -> None:
        """Cut a `stop` that is under way short: all tunnels end now."""
        if self.server is not None:
            self.server.end()

    def _catalog(self) -> Catalog:
        settings = self.settings
        catalog = Catalog.of_settings(settings)
        source = self._origins.get(_DEFAULT_PROFILE, settings.source)
        if settings.upstream.default_profile.lower() == MIRROR:
            return catalog
        catalog.require(settings.upstream.default_profile, source=source, key=_DEFAULT_PROFILE)
        return catalog

    def _interception(self, catalog: Catalog) -> Interception:
        # Not imported in passthrough mode: `cryptography` costs some 10 MB.
        from polytls.config.ech import KEY as ECH_KEY
        from polytls.config.ech import read_ech_rules
        from polytls.engine import ServerContext
        from polytls.pki.cache import LeafCache
        from polytls.pki.leaf import LeafKeys

        settings = self.settings
        certificate = settings.certificate
        self.root = root = self._load_root()
        keys = LeafKeys.generate()
        self._leaves = leaves = LeafCache(
            root,
            keys,
            partial(_credential, keys),
            audit=self._audit,
            ttl=certificate.cache_ttl,
            max_entries=certificate.cache_size,
            days=certificate.leaf_days,
        )
        contexts = self._contexts()
        profiles = Profiles(catalog, contexts, partial(self._mirror, contexts))
        # Contexts are made when first used; those that a user can have got wrong are made now.
        for name in (settings.upstream.default_profile, *catalog.configured):
            profiles.find(name)
        with_ecdsa, without_ecdsa = _leaf_kinds(certificate.leaf_key)
        return Interception(
            profiles=profiles,
            leaves=leaves,
            leaf_with_ecdsa=with_ecdsa,
            leaf_without_ecdsa=without_ecdsa,
            server_context=ServerContext(),
            ech=read_ech_rules(settings.upstream.ech or (), self._origins.get(ECH_KEY, settings.source)),
        )

    def _mirror(self, contexts: Contexts) -> Mirror:
        from polytls.proxy.mirror import Mirror  # most never ask for it, and it takes a while to import

        return Mirror(contexts.make, drop=self.settings.mitm.mirror_unsupported is MirrorUnsupported.DROP)

    def _load_root(self) -> RootCA:
        from polytls.pki.passphrase import read_passphrase
        from polytls.pki.root import load_or_create

        certificate = self.settings.certificate
        passphrase = read_passphrase(
            certificate.ca_key_passphrase_env, certificate.ca_key_passphrase_file, self._environ
        )
        return load_or_create(
            certificate.ca_key_path, certificate.ca_cert_path, passphrase, kind=certificate.root_key
        )

    def _contexts(self) -> Contexts:
        from polytls.engine import ClientContext, load_trust

        upstream = self.settings.upstream
        verify = not upstream.insecure_skip_verify
        verify_host = verify and upstream.verify_hostname
        trust = load_trust(upstream.ca_file) if verify else None
        self.trusted_roots = None if trust is None else trust.num_roots

        def make(spec: HelloSpec) -> ClientContext:
            try:
                return ClientContext(spec, trust, verify_chain=verify, verify_host=verify_host)
            except EngineError as error:
                raise ProfileError(spec.source, f"profiles.{spec.name}", str(error)) from error

        return Contexts(make)

    def _audit(self, event: MintEvent) -> None:
        # On a minting thread; a sink only queues.
        until = event.not_after.date().isoformat()
        self._sink(LeafMinted(event.host, event.kind.value, event.serial_hex, until))


def run(
    settings: Settings,
    *,
    origins: Mapping[str, str],
    announce: Callable[[Started], None],
    place: Place | None = None,
) -> None:
    """Serve until a signal, or who gave the `place`, says to stop. Tunnel lines go to stdout, everything else
    to stderr.

    Raises as `App.start` does.
    """
    possible = max(1, (raise_file_limit() - SPARE_FILES) // 2)
    wanted = settings.limits.tunnels
    # Beyond that, connections would wait for descriptors instead of being told 503.
    allowed = replace(settings, limits=LimitSettings(tunnels=min(wanted, possible)))
    chosen = (wanted if place is None else place.tunnels) != LimitSettings().tunnels
    warning = (
        f"{wanted} tunnels{' a worker' if place else ''} need more open files than are allowed;"
        f" {possible} are possible: raise the hard limit (ulimit -Hn), or start more --workers"
    )
    warnings = (warning,) if possible < wanted and chosen else ()
    asyncio.run(_run(allowed, origins, announce, warnings, place))


async def _run(
    settings: Settings,
    origins: Mapping[str, str],
    announce: Callable[[Started], None],
    warnings: tuple[str, ...],
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
        app = App(settings, sink=sink, origins=origins, traced=spans is not None, place=place)
        try:
            await _serve(app, announce, warnings, place)
        finally:
            log.close()
            if log.dropped:
                text = f"{log.dropped} log lines were dropped: the reader of stdout was too slow, or gone"
                sink(Warned(text))
            if otlp is not None:
                otlp.close(min(FLUSH_SECONDS, max(1.0, settings.timeouts.drain)))
    finally:
        lag.close()
        notes.close()


async def _serve(
    app: App, announce: Callable[[Started], None], warnings: tuple[str, ...], place: Place | None
) -> None:
    """Start, until somebody says to stop, and stop."""
    stopping: asyncio.Event | None = None
    try:
        address = await app.start()
        stopping = _on_wishes_to_stop(app, place)
        announce(_started(app, address, warnings))
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


def _on_wishes_to_stop(app: App, place: Place | None) -> asyncio.Event:
    """An event that is set by the first wish; the second ends all tunnels."""
    stopping = asyncio.Event()

    def handle() -> None:
        if stopping.is_set():
            app.end()
            return
        stopping.set()

    loop = asyncio.get_running_loop()
    if place is not None:
        loop.add_reader(place.commands, partial(_take_commands, place.commands, handle))
        return stopping
    for number in _STOPPING:
        loop.add_signal_handler(number, handle)
    return stopping


def _take_commands(commands: socket.socket, handle: Callable[[], None]) -> None:
    try:
        data = commands.recv(_COMMANDS_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except ConnectionError:
        data = b""
    if not data:
        asyncio.get_running_loop().remove_reader(commands)
    for _ in data or b"s":  # who could stop it is gone: time to stop
        handle()


def _deaf_to_signals() -> None:
    """All is done but the last lines and the interpreter's end: one more signal must not turn that into a
    death by signal."""
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
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


def _leaf_kinds(wanted: LeafKey) -> tuple[LeafKind, LeafKind]:
    """The kinds for clients that can use an ECDSA certificate, and for those that cannot."""
    from polytls.pki.leaf import LeafKind

    match wanted:
        case LeafKey.AUTO:
            return LeafKind.ECDSA, LeafKind.RSA
        case LeafKey.ECDSA:
            return LeafKind.ECDSA, LeafKind.ECDSA
        case LeafKey.RSA:
            return LeafKind.RSA, LeafKind.RSA


def _credential(keys: LeafKeys, leaf: Leaf) -> Credential:
    return Credential(leaf.chain_der, keys.private_der(leaf.kind))
