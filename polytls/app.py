"""The composition root: settings become objects, objects a proxy that listens. No decision is made here.

Everything is passed in where it is needed; nothing is global. What a mode does not need is neither made
nor imported: passthrough knows no certificate authority, no trust store and no TLS context.

An `App` lives inside a running event loop, and tests have several in one. What a process has only once,
signals, the log and the limit of open files, belongs to `polytls.program`, which runs one `App`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from polytls.engine import Credential, Engine
from polytls.errors import EngineError, ProfileError
from polytls.events import Draining, LeafMinted, Listening, Warned
from polytls.fingerprint.known import KnownJa4
from polytls.profiles import MIRROR, Catalog
from polytls.proxy.resolve import Lookup, Overrides, Resolver, system_lookup
from polytls.proxy.server import Server
from polytls.proxy.snapshot import Contexts, Interception, Profiles, Snapshot
from polytls.settings import Address, LeafKey, MirrorUnsupported, Mode, Settings
from polytls.started import ListenError
from polytls.telemetry.counters import Counters, EngineCounters, LeafCounters

if TYPE_CHECKING:
    from polytls.events import EventSink
    from polytls.pki.audit import MintEvent
    from polytls.pki.cache import LeafCache
    from polytls.pki.leaf import Leaf, LeafKeys, LeafKind
    from polytls.pki.root import RootCA
    from polytls.profiles import HelloSpec
    from polytls.proxy.mirror import Mirror

SPARE_STREAMS = 1024
"""Beside two for each tunnel: connections whose head is being read, or that are being told no."""

_DEFAULT_PROFILE = "proxy.upstream.default_profile"


class App:
    """One proxy. `start` it, and `stop` it whatever became of `start`.

    `sink` takes every event, mostly on the event loop, and must not block. `origins` says where settings came
    from (`LoadedSettings.origins`). `traced`: the sink wants to know which trace a tunnel belongs to.
    `listener`: the descriptor of a socket that listens already, instead of one to be made. `ids` gives each
    tunnel its number, instead of from 1 on. `max_streams`: connections that may be open at once, of clients
    and upstream, where that is less than tunnels would like to have.
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
        listener: int | None = None,
        ids: Callable[[], int] | None = None,
        max_streams: int | None = None,
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
        self._listener = listener
        self._ids = ids
        wanted = 2 * settings.limits.tunnels + SPARE_STREAMS
        self._max_streams = wanted if max_streams is None else min(wanted, max_streams)
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
        self.engine = Engine.start(threads=settings.engine.threads, max_streams=self._max_streams)
        known = KnownJa4() if settings.log.fingerprint and interception is not None else None
        snapshot = Snapshot(settings, catalog, resolver, interception, known, self._traced)
        self.server = Server(
            self.engine,
            snapshot,
            sink=self._sink,
            report=lambda text: self._sink(Warned(text)),
            ids=self._ids,
        )
        try:
            address = self.server.listen(self._listener)
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
