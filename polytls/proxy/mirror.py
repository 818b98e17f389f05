"""The profile `mirror`: the client's own hello becomes the template of the upstream one, tunnel by tunnel.

The origin then sees what it would have seen without the proxy: the same suites, the same extensions with
the same bodies in the same order, the same JA3 and JA4. Only what is fresh in every hello is fresh here
too.

* A hello is known by its *shape*: everything but what is fresh. Making a profile of one costs about a
  millisecond, so shapes are kept, the least recently used making room.
* One hello cannot tell that its client permutes its extensions. So the first of a client is sent in the
  very order it came in; when another of the same shape comes in another order, and the hello has GREASE
  extensions as only permuting libraries send them, the profile permutes from then on.
* What the proxy cannot go on with is its own: sessions the client offers belong to the proxy's leaf and
  are never sent on (the proxy gives clients no tickets, so there are none to offer), early data likewise,
  and an encrypted_client_hello is answered for by GREASE of the same shape, since its key is the
  client's.
* What the engine cannot send at all is refused by name, or left out where the settings say so.

Contexts made here resume nothing: whether a client resumes with an origin is a part of what is mirrored,
and the client's sessions end at the proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.profiles import derive
from polytls.profiles.boringssl import GROUPS
from polytls.profiles.learn import CannotReproduceError, learn_parsed
from polytls.profiles.spec import HelloSpec
from polytls.profiles.template import compile_template
from polytls.proxy.snapshot import MIRROR, Offer
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

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


@dataclass(slots=True)
class _Shape:
    """Hellos that differ in what is fresh, and perhaps in their order."""

    first: ClientHello
    order: tuple[int, ...]
    fixed: Offer
    permuting: Offer | None = None


class Mirror:
    """Offers by the shape of clients' hellos. `make` gives the native context of a spec; `drop`:
    leave out what cannot be sent instead of refusing it."""

    def __init__(self, make: Callable[[HelloSpec], ClientContext], *, drop: bool) -> None:
        self._make = make
        self._drop = drop
        self._shapes: OrderedDict[Hashable, _Shape] = OrderedDict()

    def offer(self, records: bytes) -> Offer:
        """What repeats the hello in `records`. Raises `ProxyError` (HELLO_NOT_REPRODUCIBLE) naming
        what the engine could not send."""
        try:
            hello = parse_client_hello(records)
            if self._drop:
                hello = _without_unsupported(hello)
            order = tuple(_GREASE if is_grease(number) else number for number in hello.extension_types)
            key = _shape_key(hello, order)
            shape = self._shapes.get(key)
            if shape is None:
                shape = self._shapes[key] = _Shape(hello, order, self._made([hello]))
                if len(self._shapes) > MAX_SHAPES:
                    self._shapes.popitem(last=False)
                return shape.fixed
            self._shapes.move_to_end(key)
            if shape.permuting is None and order != shape.order:
                shape.permuting = self._made([shape.first, hello])
            return shape.permuting or shape.fixed
        except CannotReproduceError as error:
            detail = f"the client's hello cannot be mirrored: {'; '.join(error.parts)}"
        except HelloError as error:
            detail = f"the client's hello cannot be read: {error}"
        raise ProxyError(Side.CLIENT, Stage.UPSTREAM_TLS, Kind.HELLO_NOT_REPRODUCIBLE, detail)

    def _made(self, hellos: list[ClientHello]) -> Offer:
        exact = learn_parsed(hellos).hello
        spec = HelloSpec(
            **derive.fields(exact),
            name=MIRROR,
            resumption=False,
            exact=exact,
            template=compile_template(exact),
        )
        alpn = tuple(protocol.encode("latin-1") for protocol in spec.alpn)
        return Offer(alpn, self._make(spec))


def _shape_key(hello: ClientHello, order: tuple[int, ...]) -> Hashable:
    """What is the same in all hellos of one client; of one that may permute, without the order."""
    bodies = tuple(
        (_GREASE if is_grease(item.type) else item.type, _lasting(hello, item))
        for item in hello.extensions
        if item.type not in _NOT_SENT_ON
    )
    permutes = order.count(_GREASE) > 1
    return (
        hello.record_version,
        _degreased(hello.cipher_suites),
        hello.compression_methods,
        tuple(sorted(bodies, key=repr)) if permutes else bodies,
    )


def _lasting(hello: ClientHello, item: Extension) -> Hashable:
    """Of an extension's body, what is not fresh."""
    if item.type not in _FRESH:
        return item.body
    match ExtensionType(item.type):
        case ExtensionType.KEY_SHARE:
            return _degreased(tuple(share.group for share in hello.key_shares))
        case ExtensionType.SUPPORTED_GROUPS:
            return _degreased(hello.supported_groups)
        case ExtensionType.SIGNATURE_ALGORITHMS:
            return _degreased(hello.signature_algorithms)
        case ExtensionType.SUPPORTED_VERSIONS:
            return _degreased(hello.supported_versions)
        case _:  # names, tickets, and the contents of an encrypted hello
            return None


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
