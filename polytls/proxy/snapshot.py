"""What of the configuration a tunnel sees: one immutable value, taken once, when the tunnel begins.

`polytls.app` makes a `Snapshot` and hands it to the server as a whole. A tunnel goes by the one it began with
to its end, so that no tunnel is half under the old configuration and half under the new.

A snapshot without an `Interception` is passthrough: nothing of MITM is imported or made then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytls.policy.habits import Habits
from polytls.profiles import MIRROR

if TYPE_CHECKING:
    from polytls.engine import ClientContext, Credential, ServerContext
    from polytls.fingerprint.known import KnownJa4
    from polytls.pki.cache import LeafCache, Terms
    from polytls.pki.leaf import LeafKind
    from polytls.policy.ech import EchConfigs
    from polytls.profiles import Catalog, HelloSpec
    from polytls.proxy.mirror import Mirror
    from polytls.proxy.resolve import Resolver
    from polytls.settings import Settings


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered upstream: protocols as they go on the wire, in order, and the native context.
    `ech_grease`: where there is no real ECH, it looks as if there were."""

    alpn: tuple[bytes, ...]
    context: ClientContext
    ech_grease: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile made ready for the engine. `offer` is None for `mirror`: it offers what the client does."""

    name: str
    offer: Offer | None
    mirror: Mirror | None = None

    def offer_for(self, hello: bytes) -> Offer:
        """What is offered upstream for a client that begins with `hello`, which matters to `mirror` alone."""
        if self.offer is not None:
            return self.offer
        assert self.mirror is not None
        return self.mirror.offer(hello)


class Contexts:
    """Native contexts by `HelloSpec`, made when first asked for and kept.

    The cache may outlive a snapshot: an unchanged profile then keeps its context, and with it the upstream
    sessions to resume.
    """

    def __init__(self, make: Callable[[HelloSpec], ClientContext]) -> None:
        self.make = make
        self._made: dict[HelloSpec, ClientContext] = {}

    def kept_for(self, catalog: Catalog) -> Contexts:
        """A cache for another catalog, with the contexts of those profiles that are the same in it. Reads
        files; any thread."""
        kept = Contexts(self.make)
        for spec, context in self._made.copy().items():
            if catalog.find(spec.name) == spec:
                kept._made[spec] = context
        return kept

    def get(self, spec: HelloSpec) -> ClientContext:
        """The context of a spec. Raises what making one raises."""
        context = self._made.get(spec)
        if context is None:
            context = self._made[spec] = self.make(spec)
        return context


@dataclass(frozen=True, slots=True)
class Profiles:
    """The catalog with its contexts. `ready` is on every tunnel's path: by name, one dictionary look-up. What
    a profile's first tunnel needs on top, its file and a context, is for `find`, off the event loop."""

    catalog: Catalog
    contexts: Contexts
    make_mirror: Callable[[], Mirror]
    _ready: dict[str, Profile] = field(default_factory=dict)
    _finding: threading.Lock = field(default_factory=threading.Lock)

    def ready(self, name: str) -> Profile | None:
        """The profile with this name or alias, in any case, if `find` has found it before."""
        return self._ready.get(name) or self._ready.get(name.lower())

    def found(self) -> tuple[str, ...]:
        """What `ready` knows."""
        return tuple(self._ready.copy())

    def find(self, name: str) -> Profile | None:
        """The profile with this name or alias; None where there is none. May read a file. From any thread."""
        with self._finding:  # a profile has one context, and with it the sessions to resume
            found = self.ready(name)
            if found is not None:
                return found
            if name.lower() == MIRROR:
                found = self._ready[MIRROR] = Profile(MIRROR, None, self.make_mirror())
                return found
            spec = self.catalog.find(name)
            if spec is None:
                return None
            alpn = tuple(protocol.encode("latin-1") for protocol in spec.alpn)
            # By the catalog's own spellings: what clients write must not make this grow without bound.
            found = self._ready[name.lower()] = Profile(
                spec.name, Offer(alpn, self.contexts.get(spec), spec.ech_grease)
            )
            return found


@dataclass(frozen=True, slots=True)
class Interception:
    """What MITM mode needs on top."""

    profiles: Profiles
    leaves: LeafCache[Credential]
    leaf_with_ecdsa: LeafKind  # for clients that can use an ECDSA P-256 certificate
    leaf_without_ecdsa: LeafKind
    leaf_terms: Terms
    server_context: ServerContext
    ech: EchConfigs
    habits: Habits = field(default_factory=Habits)

    def leaf_kind(self, ecdsa_ok: bool) -> LeafKind:
        """The kind of leaf for a client that can use an ECDSA P-256 certificate, or cannot."""
        return self.leaf_with_ecdsa if ecdsa_ok else self.leaf_without_ecdsa


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a tunnel goes by."""

    settings: Settings
    catalog: Catalog
    resolver: Resolver
    interception: Interception | None
    ja4: KnownJa4 | None = None  # None: hellos are not fingerprinted
    traced: bool = False  # somebody wants to know which trace a tunnel belongs to
