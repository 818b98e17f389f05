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

from polytls.engine import Engine
from polytls.errors import EngineError, ProfileError
from polytls.profiles import MIRROR, Catalog
from polytls.proxy.resolve import Lookup, Overrides, Resolver, system_lookup
from polytls.proxy.server import Server
from polytls.proxy.snapshot import Contexts, Interception, Profiles, Snapshot
from polytls.settings import Address, LeafKey, LimitSettings, MirrorUnsupported, Mode, Settings
from polytls.started import ListenError, Started
from polytls.telemetry.log import LineWriter, TunnelLog, to_stream, wants_colour

if TYPE_CHECKING:
    from polytls.engine import Credential
    from polytls.events import RecordSink
    from polytls.pki.audit import MintEvent
    from polytls.pki.cache import LeafCache
    from polytls.pki.leaf import Leaf, LeafKeys, LeafKind
    from polytls.pki.root import RootCA
    from polytls.profiles import HelloSpec
    from polytls.proxy.mirror import Mirror

SPARE_STREAMS = 1024
"""Beside two for each tunnel: connections whose head is being read, or that are being told no."""
SPARE_FILES = 256
"""Descriptors for everything that is not a stream: listeners, epoll, DNS, files."""

GC_THRESHOLD = (20_000, 20, 50)
"""Tunnels are freed by reference counts; a collector that looks every 700 objects, as by default, takes a
tenth of Python's time to find nothing."""

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

    `sink` takes every tunnel's record, `report` a text for whoever runs the proxy; both are called on the
    event loop and must not block. `origins` says where settings came from (`LoadedSettings.origins`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sink: RecordSink,
        report: Callable[[str], None],
        origins: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        lookup: Lookup = system_lookup,
        place: Place | None = None,
    ) -> None:
        self.settings = settings
        self.root: RootCA | None = None
        self.engine: Engine | None = None
        self.server: Server | None = None
        self.trusted_roots: int | None = None
        self._sink = sink
        self._report = report
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
        snapshot = Snapshot(settings, catalog, resolver, interception)
        place = self._place
        ids = None if place is None else place.ids
        self.server = Server(self.engine, snapshot, sink=self._sink, report=self._report, ids=ids)
        try:
            return self.server.listen(None if place is None else place.listener)
        except OSError as error:
            raise ListenError(settings.listen.address, error) from error

    async def stop(self, drain_seconds: float) -> None:
        """Drain and end everything. Works after a `start` that failed, too."""
        if self.server is not None:
            await self.server.drain(drain_seconds)
        if self.engine is not None:
            await self.engine.close()
        if self._leaves is not None:
            self._leaves.close()

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
        # On a minting thread; `report` only queues.
        until = event.not_after.strftime("%Y-%m-%d")
        self._report(f"leaf for {event.host} ({event.kind.value}), serial {event.serial_hex}, until {until}")


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
    colour = wants_colour(sys.stdout, os.environ)
    lines = to_stream(sys.stdout) if place is None else place.lines
    to_stderr = to_stream(sys.stderr) if place is None else place.notes
    log = TunnelLog(lines, settings.log.format, colour=colour, worker=None if place is None else place.number)
    notes = LineWriter(to_stderr, lambda lines: f"... {lines} notes are missing")
    who = "polytls" if place is None else f"polytls: worker {place.number}"

    def report(text: str) -> None:
        notes.put(lambda: f"{who}: {text}")

    app = App(settings, sink=log, report=report, origins=origins, place=place)
    try:
        try:
            address = await app.start()
            stopping = _on_wishes_to_stop(app, report, place)
            announce(_started(app, address, warnings))
            # What is here now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLD)
            gc.enable()
            await stopping.wait()
        finally:
            await app.stop(settings.timeouts.drain)
    finally:
        log.close()
        if log.dropped:
            report(f"{log.dropped} log lines were dropped: the reader of stdout was too slow, or gone")
        notes.close()


def _on_wishes_to_stop(app: App, report: Callable[[str], None], place: Place | None) -> asyncio.Event:
    """An event that is set by the first wish; the second ends all tunnels."""
    stopping = asyncio.Event()

    def handle() -> None:
        if stopping.is_set():
            app.end()
            return
        stopping.set()
        live = len(app.server.tracker.live) if app.server is not None else 0
        if live:
            seconds = app.settings.timeouts.drain
            report(
                f"stopping; open tunnels ({live}) have {seconds:g} s to end, a second signal ends them now"
            )

    loop = asyncio.get_running_loop()
    if place is not None:
        loop.add_reader(place.commands, partial(_take_commands, place.commands, handle))
        return stopping
    for number in (signal.SIGINT, signal.SIGTERM):
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
    from polytls.engine import Credential

    return Credential(leaf.chain_der, keys.private_der(leaf.kind))
