"""The two handshakes of a MITM tunnel, as steps of a chain: upstream's, which is verified and chooses the
protocol, and the client's, which may agree on that protocol alone. What they must be like has been decided.

`tunnel.stage` is kept as each is over, so that a failure is told to the client in the way that fits.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.policy.hello import Verdict, answers, settle_alpn
from polytls.proxy import recording
from polytls.proxy.originate import Originator

if TYPE_CHECKING:
    from polytls.engine import Chain, Credential, Engine, Stream, TlsFacts
    from polytls.proxy.snapshot import Interception, Offer, Snapshot
    from polytls.proxy.tracker import Tunnel


class Agreement:
    """For a client that offers the protocols `client_alpn` (None: no such extension), while `alpn` is offered
    upstream."""

    __slots__ = ("_alpn", "_client_alpn", "_mitm", "_snapshot", "_tunnel", "_upstream")

    def __init__(
        self,
        engine: Engine,
        tunnel: Tunnel,
        snapshot: Snapshot,
        mitm: Interception,
        offer: Offer,
        client_alpn: tuple[bytes, ...] | None,
        alpn: tuple[bytes, ...],
    ) -> None:
        self._tunnel = tunnel
        self._snapshot = snapshot
        self._mitm = mitm
        self._client_alpn = client_alpn
        self._alpn = alpn
        configs = mitm.ech.find(tunnel.record.host or "")
        self._upstream = Originator(engine, tunnel, snapshot.settings.timeouts, offer, alpn, configs)

    @property
    def may_be_rejected(self) -> bool:
        """Upstream may need more than one handshake: `reach_with_upstream`. Else `with_upstream` will do."""
        return self._upstream.may_be_rejected

    def begun(self) -> None:
        """The client's hello is there, and upstream's handshake begins."""
        self._tunnel.stage = Stage.UPSTREAM_TLS
        self._tunnel.record.ech = "grease" if self._upstream.offer.ech_grease else None

    def with_upstream(self, chain: Chain[Any], stream: Stream | None) -> Chain[TlsFacts]:
        """Adds upstream's handshake, on `stream` or, None, on what the chain will have connected."""
        raw = self._snapshot.ja4 is not None
        return self._upstream.handshake(chain, stream, b"", raw=raw, done=self._upstream_agreed)

    async def reach_with_upstream(self) -> None:
        """Upstream's handshake, with the one more that a rejected ECH is worth. Raises `ProxyError`."""
        if not self.may_be_rejected:
            self.begun()
        self._upstream_agreed(await self._upstream.agree(raw=self._snapshot.ja4 is not None))

    def with_client(self, chain: Chain[Any], upstream: Stream | None, leaf: Credential) -> Chain[TlsFacts]:
        """Adds the client's handshake, which shows `leaf`; `upstream` as for `with_upstream`."""
        return chain.accept_tls_like(
            self._tunnel.client,
            self._mitm.server_context,
            leaf,
            upstream=upstream,
            alpn=answers(self._client_alpn, self._alpn),
            timeout=self._snapshot.settings.timeouts.handshake,
            done=self._client_agreed,
        )

    def _upstream_agreed(self, facts: TlsFacts) -> None:
        tunnel = self._tunnel
        recording.upstream_tls(tunnel.record, facts)
        recording.upstream_hello(tunnel.record, facts.hello, self._snapshot.ja4)
        tunnel.stage = Stage.ALPN
        require(settle_alpn(self._client_alpn, facts.alpn).verdict, Stage.ALPN)
        tunnel.stage = Stage.CLIENT_TLS

    def _client_agreed(self, facts: TlsFacts) -> None:
        self._tunnel.stage = Stage.RELAY
        recording.client_tls(self._tunnel.record, facts)


async def leaf_of(tunnel: Tunnel) -> Credential:
    """The leaf that is there or being minted. Raises `ProxyError` (LEAF_FAILED), a new one each time."""
    leaf = tunnel.leaf
    if not isinstance(leaf, Future):
        if leaf is None:
            raise _leaf_failed("no leaf was asked for")
        return leaf
    started = time.monotonic_ns()
    try:
        tunnel.leaf = await asyncio.wrap_future(leaf)
    except ProxyError as error:
        raise _leaf_failed(error.detail) from error
    except Exception as error:  # a sink or a build step: whatever it was, there is no leaf
        raise _leaf_failed(f"no leaf could be made: {error}") from error
    if tunnel.record.starts is not None:
        tunnel.record.starts.leaf = started
    tunnel.record.timings.leaf = (time.monotonic_ns() - started) / 1e9
    return tunnel.leaf


def _leaf_failed(detail: str) -> ProxyError:
    return ProxyError(Side.PROXY, Stage.LEAF, Kind.LEAF_FAILED, detail)


def require(verdict: Verdict, stage: Stage) -> None:
    """Raises `ProxyError` (client) unless the verdict allows it."""
    if not verdict.allowed:
        raise ProxyError(Side.CLIENT, stage, verdict.kind, verdict.reason)
