"""What a running proxy goes by: a `Snapshot` made from settings, and what of it the next one goes on with.

`make_parts` is used twice: at the start, and for each reload, with the parts there are. It only makes: the
parts that it was given are as they were, whatever becomes of it, so that a configuration which turns out
wrong at its last file has changed nothing. It reads files and may be called on any thread.

What is kept from one configuration to the next:

* contexts of profiles that are the same, and those of mirrored clients, with the sessions to resume, as long
  as upstream is verified by the same roots in the same way. Roots are compared by what is in their files;
* the root CA, leaves, and what is known of clients, also over a time of passthrough. (When leaves are to be
  made otherwise, `App` tells the cache, once the new parts are in use. A tunnel that began before has its
  leaf minted by its own snapshot's terms. How many leaves are kept is the cache's alone: no tunnel sees it);
* names that were resolved.

Passthrough needs no certificate authority, no trust store and no TLS context: none is made or imported.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from polytls.config.change import changed_keys
from polytls.engine import Credential
from polytls.errors import EngineError, ProfileError
from polytls.fingerprint.known import KnownJa4
from polytls.policy.habits import Habits
from polytls.profiles import MIRROR, Catalog
from polytls.proxy.resolve import Lookup, Overrides, Resolver
from polytls.proxy.snapshot import Contexts, Interception, Profiles, Snapshot
from polytls.settings import LeafKey, MirrorUnsupported, Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from polytls.engine import ClientContext, ServerContext
    from polytls.pki.audit import MintEvent
    from polytls.pki.cache import LeafCache
    from polytls.pki.leaf import Leaf, LeafKeys, LeafKind
    from polytls.pki.root import RootCA
    from polytls.policy.ech import EchConfigs
    from polytls.profiles import HelloSpec
    from polytls.proxy.mirror import Mirror
    from polytls.settings import Settings

_DEFAULT_PROFILE = "proxy.upstream.default_profile"


@dataclass(frozen=True, slots=True)
class Given:
    """What parts need beside settings, the same from start to end. See `App` for each."""

    environ: Mapping[str, str]
    lookup: Lookup
    audit: Callable[[MintEvent], None]
    traced: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the proxy is to its clients, and what it knows of them. Made once."""

    root: RootCA
    leaves: LeafCache[Credential]
    server_context: ServerContext
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True, slots=True)
class Origination:
    """What is native of how upstream is spoken to. `basis` is what all of it depends on: how certificates are
    verified, and a digest of the roots (empty: they are not)."""

    basis: tuple[bool, bool, bytes]
    trusted_roots: int | None
    contexts: Contexts
    mirrors: Mirrors


@dataclass(frozen=True, slots=True)
class Parts:
    """A snapshot, and what outlives it. Without MITM mode since the start there is only the snapshot."""

    snapshot: Snapshot
    identity: Identity | None = None
    origination: Origination | None = None

    @property
    def settings(self) -> Settings:
        return self.snapshot.settings

    @property
    def trusted_roots(self) -> int | None:
        """How many roots upstream is verified by; None: it is not."""
        return None if self.origination is None else self.origination.trusted_roots


class Mirrors:
    """The one `Mirror`, made when first asked for: most never do, and it takes a while to import."""

    def __init__(self, contexts: Contexts, *, drop: bool) -> None:
        self.drop = drop
        self._make = contexts.make
        self._made: Mirror | None = None

    def get(self) -> Mirror:
        if self._made is None:
            from polytls.proxy.mirror import Mirror

            self._made = Mirror(self._make, drop=self.drop)
        return self._made


def make_parts(
    settings: Settings, origins: Mapping[str, str], given: Given, before: Parts | None = None
) -> Parts:
    """Everything that new tunnels need under these settings. `origins` says where they came from.

    Raises `UserError` for what whoever runs the program can mend.
    """
    catalog = _catalog(settings, origins)
    resolver = _resolver(settings, given.lookup, None if before is None else before.snapshot)
    if settings.mode is Mode.PASSTHROUGH:
        snapshot = Snapshot(settings, catalog, resolver, None, None, given.traced)
        identity, origination = (None, None) if before is None else (before.identity, before.origination)
        return Parts(snapshot, identity, origination)
    origination = _origination(settings, catalog, None if before is None else before.origination)
    profiles, ech = _upstream(settings, origins, catalog, origination)
    identity = None if before is None else before.identity
    if identity is None:  # the last that may fail: it makes files
        identity = _identity(settings, given)
    interception = _interception(settings, profiles, ech, identity)
    if before is not None and before.snapshot.interception is not None:
        # Those in use, too, so that tunnels need not all wait for a thread when the new parts are.
        for name in before.snapshot.interception.profiles.found():
            with contextlib.suppress(ProfileError):  # as before: whoever asks for it is told
                interception.profiles.find(name)
    known = None if before is None else before.snapshot.ja4
    ja4 = (known or KnownJa4()) if settings.log.fingerprint else None
    return Parts(
        Snapshot(settings, catalog, resolver, interception, ja4, given.traced), identity, origination
    )


def changes(before: Parts, now: Parts) -> tuple[str, ...]:
    """What new tunnels go by that those before did not: keys, ``profiles.NAME``, and what is in the files
    that keys name."""
    found = changed_keys(before.settings, now.settings)
    old, new = before.snapshot, now.snapshot
    found += [f"profiles.{name}" for name in _changed_profiles(old.catalog, new.catalog)]
    if old.interception is None or new.interception is None:
        return tuple(found)
    assert before.origination is not None
    assert now.origination is not None
    if before.origination.basis[2] != now.origination.basis[2] and not _names_another(found, "ca_file"):
        found.append("the contents of the trusted roots' files")
    if old.interception.ech != new.interception.ech and not _names_another(found, "ech"):
        found.append("the contents of proxy.upstream.ech's files")
    return tuple(found)


def _names_another(keys: list[str], name: str) -> bool:
    return f"proxy.upstream.{name}" in keys


def _changed_profiles(before: Catalog, now: Catalog) -> list[str]:
    """By name, those of one's own that are new, gone, or not what they were."""

    def said(catalog: Catalog, name: str) -> object:
        spec = catalog.find(name)
        return None if spec is None else (spec, name in catalog.configured, catalog.aliases_of(spec))

    names = sorted({*before.configured, *now.configured})
    return [name for name in names if said(before, name) != said(now, name)]


def _catalog(settings: Settings, origins: Mapping[str, str]) -> Catalog:
    catalog = Catalog.of_settings(settings)
    if settings.upstream.default_profile.lower() == MIRROR:
        return catalog
    source = origins.get(_DEFAULT_PROFILE, settings.source)
    catalog.require(settings.upstream.default_profile, source=source, key=_DEFAULT_PROFILE)
    return catalog


def _resolver(settings: Settings, lookup: Lookup, before: Snapshot | None) -> Resolver:
    upstream, timeout = settings.upstream, settings.timeouts.resolve
    overrides = Overrides(upstream)
    if before is None:
        return Resolver(overrides, timeout=timeout, ttl=upstream.dns_cache_ttl, lookup=lookup)
    return before.resolver.changed(overrides, timeout=timeout, ttl=upstream.dns_cache_ttl)


def _identity(settings: Settings, given: Given) -> Identity:
    # Not imported in passthrough mode: `cryptography` costs some 10 MB.
    from polytls.engine import ServerContext
    from polytls.pki.cache import LeafCache
    from polytls.pki.leaf import LeafKeys
    from polytls.pki.passphrase import read_passphrase
    from polytls.pki.root import load_or_create

    certificate = settings.certificate
    passphrase = read_passphrase(
        certificate.ca_key_passphrase_env, certificate.ca_key_passphrase_file, given.environ
    )
    root = load_or_create(
        certificate.ca_key_path, certificate.ca_cert_path, passphrase, kind=certificate.root_key
    )
    keys = LeafKeys.generate()
    leaves = LeafCache(
        root,
        keys,
        partial(_credential, keys),
        audit=given.audit,
        ttl=certificate.cache_ttl,
        max_entries=certificate.cache_size,
        days=certificate.leaf_days,
    )
    return Identity(root, leaves, ServerContext())


def _origination(settings: Settings, catalog: Catalog, before: Origination | None) -> Origination:
    from polytls.engine import ClientContext, load_trust

    upstream = settings.upstream
    verify = not upstream.insecure_skip_verify
    verify_host = verify and upstream.verify_hostname
    # Before they are loaded: where a file is replaced in between, the next reload sees that it has changed.
    basis = (verify, verify_host, _roots_digest(upstream.ca_file) if verify else b"")
    drop = settings.mitm.mirror_unsupported is MirrorUnsupported.DROP
    if before is not None and before.basis == basis:
        contexts = before.contexts.kept_for(catalog)
        mirrors = before.mirrors if before.mirrors.drop is drop else Mirrors(contexts, drop=drop)
        return Origination(basis, before.trusted_roots, contexts, mirrors)
    trust = load_trust(upstream.ca_file) if verify else None

    def make(spec: HelloSpec) -> ClientContext:
        try:
            return ClientContext(spec, trust, verify_chain=verify, verify_host=verify_host)
        except EngineError as error:
            raise ProfileError(spec.source, f"profiles.{spec.name}", str(error)) from error

    contexts = Contexts(make)
    trusted_roots = None if trust is None else trust.num_roots
    return Origination(basis, trusted_roots, contexts, Mirrors(contexts, drop=drop))


def _roots_digest(ca_file: Path | None) -> bytes:
    """Of the files that `load_trust` reads. Raises `UserError`."""
    from polytls.engine.roots import read_roots, system_bundle

    digest = hashlib.sha256()
    for path in (system_bundle(), *(() if ca_file is None else (ca_file,))):
        digest.update(hashlib.sha256(read_roots(path)).digest())
    return digest.digest()


def _upstream(
    settings: Settings, origins: Mapping[str, str], catalog: Catalog, origination: Origination
) -> tuple[Profiles, EchConfigs]:
    from polytls.config.ech import KEY as ECH_KEY
    from polytls.config.ech import read_ech_rules

    profiles = Profiles(catalog, origination.contexts, origination.mirrors.get)
    # Contexts are made when first used; those that a user can have got wrong are made now.
    for name in (settings.upstream.default_profile, *catalog.configured):
        profiles.find(name)
    return profiles, read_ech_rules(settings.upstream.ech or (), origins.get(ECH_KEY, settings.source))


def _interception(
    settings: Settings, profiles: Profiles, ech: EchConfigs, identity: Identity
) -> Interception:
    from polytls.pki.cache import Terms

    certificate = settings.certificate
    with_ecdsa, without_ecdsa = _leaf_kinds(certificate.leaf_key)
    return Interception(
        profiles=profiles,
        leaves=identity.leaves,
        leaf_with_ecdsa=with_ecdsa,
        leaf_without_ecdsa=without_ecdsa,
        leaf_terms=Terms(certificate.cache_ttl, certificate.leaf_days),
        server_context=identity.server_context,
        ech=ech,
        habits=identity.habits,
    )


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
