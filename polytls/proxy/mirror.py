"""The profile `mirror`: the client's own hello becomes the template of the upstream one, tunnel by tunnel.

The origin then sees what it would have seen without the proxy: the same suites, the same extensions with
the same bodies in the same order, the same JA3 and JA4. Only what is fresh in every hello is fresh here
too.

* A hello is known by its *shape*: everything but what is fresh, and whatever else decides what is learned
  from it, such as the length of its session id or whether it is padded. Making a profile of one costs some
  0.4 ms, looking one up a quarter of that, so shapes are kept, the least recently used making room.
* Extensions go in the very order in which they came. A client that permutes them has done so, afresh for each
  hello; it is never guessed that one does, since versions of a browser that do and that do not are otherwise
  alike. Each of its hellos is a shape of its own, then.
* What the proxy cannot go on with is its own: sessions the client offers belong to the proxy's leaf and
  are never sent on (the proxy gives clients no tickets, so there are none to offer), early data likewise,
  and an encrypted_client_hello is answered for by GREASE of the same shape, since its key is the
  client's.
* What the engine cannot send at all is refused by name, or left out where the settings say so. A body that
  has not the form of its extension is refused as well: the origin would not take it, and would think that
  the proxy had made it.

Contexts made here resume nothing: whether a client resumes with an origin is a part of what is mirrored,
and the client's sessions end at the proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from polytls.errors import EngineError, Kind, ProxyError, Side, Stage
from polytls.profiles import MIRROR, derive
from polytls.profiles.boringssl import GROUPS
from polytls.profiles.learn import (
    CannotReproduceError,
    ech_of,
    learn_parsed,
    padding_of,
    reuses_x25519,
)
from polytls.profiles.libraries import library_of
from polytls.profiles.spec import HelloSpec
from polytls.profiles.template import compile_template
from polytls.proxy.snapshot import Offer
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello
from polytls.wire.forms import has_form
from polytls.wire.iana import ExtensionType, extension_name, is_grease

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from polytls.engine import ClientContext

MAX_SHAPES = 256
"""A native context each, about 20 KB. A fleet of clients has a few dozen shapes."""

_GREASE = 0x0A0A
_FRESH = frozenset(
    {
        ExtensionType.SERVER_NAME,
        ExtensionType.KEY_SHARE,
        ExtensionType.SESSION_TICKET,
        ExtensionType.ENCRYPTED_CLIENT_HELLO,
        ExtensionType.SUPPORTED_GROUPS,
        ExtensionType.SIGNATURE_ALGORITHMS,
        ExtensionType.SUPPORTED_VERSIONS,
    }
)
_NOT_SENT_ON = frozenset({ExtensionType.PADDING, ExtensionType.PRE_SHARED_KEY, ExtensionType.EARLY_DATA})


MAX_EXTENSIONS = 64
"""Real hellos have up to 22; learning looks through them for each of them."""
MAX_KEY_SHARES = 16
MAX_SUITES = 512
"""Real hellos have up to about 100. Together these bound what a hostile hello can cost: about a millisecond
of the event loop, and a shape of a few kilobytes."""
MAX_PARTS_TOLD = 8
"""Of what cannot be sent; the sentence goes into the log and into the client's page."""


class Mirror:
    """Offers by the shape of clients' hellos. `make` gives the native context of a spec; `drop`:
    leave out what cannot be sent instead of refusing it."""

    def __init__(self, make: Callable[[HelloSpec], ClientContext], *, drop: bool) -> None:
        self._make = make
        self._drop = drop
        self._offers: OrderedDict[Hashable, Offer] = OrderedDict()

    def offer(self, records: bytes) -> Offer:
        """What repeats the hello in `records`. Raises `ProxyError` (HELLO_NOT_REPRODUCIBLE) naming
        what the engine could not send."""
        try:
            hello = parse_client_hello(records)
            _require_modest(hello)
            if self._drop:
                hello = _without_unsupported(hello)
            shape = _shape(hello)
            offer = self._offers.get(shape)
            if offer is None:
                offer = self._offers[shape] = self._made(hello)
                if len(self._offers) > MAX_SHAPES:
                    self._offers.popitem(last=False)
            self._offers.move_to_end(shape)
            return offer
        except CannotReproduceError as error:
            detail = f"the client's hello cannot be mirrored: {_listed(error.parts)}"
        except HelloError as error:
            detail = f"the client's hello cannot be read: {error}"
        except EngineError as error:  # what only the engine looks into, such as trust anchors
            detail = f"the client's hello cannot be mirrored: {error}"
        raise ProxyError(Side.CLIENT, Stage.UPSTREAM_TLS, Kind.HELLO_NOT_REPRODUCIBLE, detail)

    def _made(self, hello: ClientHello) -> Offer:
        _require_form(hello)
        exact = learn_parsed([hello]).hello
        spec = HelloSpec(
            **derive.fields(exact),
            name=MIRROR,
            resumption=False,
            exact=exact,
            template=compile_template(exact),
        )
        alpn = tuple(protocol.encode("latin-1") for protocol in spec.alpn)
        return Offer(alpn, self._make(spec), spec.ech_grease)


def _shape(hello: ClientHello) -> Hashable:
    """What is the same in all hellos of one client that does not permute."""
    return (
        hello.record_version,
        hello.legacy_version,
        len(hello.session_id),
        _padding(hello),
        reuses_x25519(hello),
        _degreased(hello.cipher_suites),
        hello.compression_methods,
        tuple(
            (_GREASE if is_grease(item.type) else item.type, _lasting(hello, item))
            for item in hello.extensions
            if item.type not in _NOT_SENT_ON
        ),
    )


def _lasting(hello: ClientHello, item: Extension) -> Hashable:
    """Of an extension's body, what is not fresh."""
    if item.type not in _FRESH:
        return item.body
    match ExtensionType(item.type):
        case ExtensionType.KEY_SHARE:
            lengths = tuple(len(share.key_exchange) for share in hello.key_shares)
            return _degreased(tuple(share.group for share in hello.key_shares)), lengths
        case ExtensionType.SUPPORTED_GROUPS:
            return _degreased(hello.supported_groups)
        case ExtensionType.SIGNATURE_ALGORITHMS:
            return _degreased(hello.signature_algorithms)
        case ExtensionType.SUPPORTED_VERSIONS:
            return _degreased(hello.supported_versions)
        case ExtensionType.ENCRYPTED_CLIENT_HELLO:
            return ech_of(hello)
        case _:  # names and tickets
            return None


def _padding(hello: ClientHello) -> bool | int | None:
    """Where its length cannot tell whether it pads, some libraries are known to."""
    padded = padding_of(hello)
    return library_of(hello).pads_unseen or None if padded is None else padded


def _require_modest(hello: ClientHello) -> None:
    """Raises `CannotReproduceError` for a hello far beyond what clients send, before it costs anything."""
    for what, count, most in (
        ("extensions", len(hello.extensions), MAX_EXTENSIONS),
        ("cipher suites", len(hello.cipher_suites), MAX_SUITES),
        ("key shares", len(hello.key_shares), MAX_KEY_SHARES),
        ("groups", len(hello.supported_groups), MAX_SUITES),
        ("signature algorithms", len(hello.signature_algorithms), MAX_SUITES),
    ):
        if count > most:
            raise CannotReproduceError([f"it has {count} {what}, and {most} are the most that are mirrored"])


def _require_form(hello: ClientHello) -> None:
    """Raises `CannotReproduceError` for bodies that no server could read."""
    odd = [item.type for item in hello.extensions if not has_form(item.type, item.body)]
    if odd:
        raise CannotReproduceError([f"the body of {extension_name(number)} is malformed" for number in odd])


def _listed(parts: Sequence[str]) -> str:
    told = "; ".join(parts[:MAX_PARTS_TOLD])
    more = len(parts) - MAX_PARTS_TOLD
    return f"{told}; and {more} more" if more > 0 else told


def _degreased(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_GREASE if is_grease(value) else value for value in values)


def _without_unsupported(hello: ClientHello) -> ClientHello:
    """The hello without the key shares that the engine cannot make, the one thing that can be left out
    without changing what is asked: an origin that wants such a group answers with a HelloRetryRequest."""
    known = {entry.id for entry in GROUPS.entries}
    kept = [share for share in hello.key_shares if share.group in known or is_grease(share.group)]
    if len(kept) == len(hello.key_shares):
        return hello
    shares = b"".join(
        share.group.to_bytes(2, "big") + len(share.key_exchange).to_bytes(2, "big") + share.key_exchange
        for share in kept
    )
    body = len(shares).to_bytes(2, "big") + shares
    extensions = tuple(
        replace(item, body=body) if item.type == ExtensionType.KEY_SHARE else item
        for item in hello.extensions
    )
    return replace(hello, extensions=extensions)
