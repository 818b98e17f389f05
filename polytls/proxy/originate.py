"""The handshake with upstream, and the one more that a rejected Encrypted ClientHello is worth.

A server that does not have the key of our config answers the outer hello, which names the config's public
name, and proves by a certificate to be that name's: only then does the engine believe what it says about
configs. That connection is over then (RFC 9849 §6.1.6). With the configs it gave, a second one is opened to
the very address that answered the first, which has been checked; with none, or with none that can be used,
there is nothing more to try, and the tunnel fails. It is never carried on without ECH: the rule says that
this host's name must not be seen, and whoever sits in between could say "not today" as well, if that were
enough. The configs are for that one attempt: what the rule gives is where every tunnel begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polytls.errors import EchRejectedError, Kind, ProxyError, Side, Stage
from polytls.wire.ech import EchConfigError, usable_ech_configs

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytls.engine import Chain, Engine, Stream, TlsFacts
    from polytls.proxy.snapshot import Offer
    from polytls.proxy.tracker import Tunnel
    from polytls.settings import TimeoutSettings


@dataclass(frozen=True, slots=True)
class Originator:
    """What both attempts have in common. `ech_configs` empty: no ECH but what the offer looks like."""

    engine: Engine
    tunnel: Tunnel
    timeouts: TimeoutSettings
    offer: Offer
    alpn: tuple[bytes, ...]
    ech_configs: bytes

    @property
    def may_be_rejected(self) -> bool:
        """A second connection may be needed: `agree`. Else one `handshake` is all there is."""
        return bool(self.ech_configs)

    async def agree(self, *, raw: bool) -> TlsFacts:
        """The handshake, on `tunnel.upstream`, which is another stream afterwards if a second attempt was
        made; the record says what became of ECH. Raises `ProxyError`."""
        record = self.tunnel.record
        if not self.ech_configs:
            return await self._once(b"", raw=raw)
        try:
            agreed = await self._once(self.ech_configs, raw=raw)
        except EchRejectedError as rejection:
            record.ech = "rejected"
            configs = _to_try(rejection)
            await self._connect_again()
            try:
                agreed = await self._once(configs, raw=raw)
            except EchRejectedError:
                raise _rejected("upstream rejected ECH, and again with the configs it gave itself") from None
            record.ech = "retried"
        else:
            record.ech = "accepted"
        return agreed

    async def _once(self, ech_configs: bytes, *, raw: bool) -> TlsFacts:
        return await self.handshake(self.engine.chain(), self.tunnel.dialled, ech_configs, raw=raw).run()

    def handshake(
        self,
        chain: Chain[Any],
        stream: Stream | None,
        ech_configs: bytes,
        *,
        raw: bool,
        done: Callable[[TlsFacts], None] | None = None,
    ) -> Chain[TlsFacts]:
        """Adds one handshake to a chain, on `stream` or, None, on what the chain will have connected."""
        record = self.tunnel.record
        return chain.connect_tls(
            stream,
            self.offer.context,
            host=record.host or "",
            port=record.port or 0,
            alpn=self.alpn,
            timeout=self.timeouts.handshake,
            raw=raw,
            ech_configs=ech_configs,
            done=done,
        )

    async def _connect_again(self) -> None:
        """A new connection to where the first one led."""
        tunnel = self.tunnel
        tunnel.dialled.close()
        addresses = [] if tunnel.address is None else [tunnel.address]
        try:
            again = await self.engine.connect(tunnel.client, addresses, timeout=self.timeouts.connect)
        except ProxyError as error:
            if error.stage is not Stage.CONNECT or error.kind is Kind.CANCELLED:
                raise
            raise _rejected(
                f"upstream rejected ECH, and a second connection failed: {error.detail}"
            ) from None
        tunnel.upstream = again.stream


def _to_try(rejection: EchRejectedError) -> bytes:
    if not rejection.retry_configs:
        raise _rejected(
            "upstream rejected ECH and gave no config to try again with, so it does not do ECH (any more):"
            " mend the rule in proxy.upstream.ech, or take it out"
        ) from None
    try:
        usable_ech_configs(rejection.retry_configs)
    except EchConfigError as problem:
        raise _rejected(f"upstream rejected ECH, and of what it gave to try again: {problem}") from None
    return rejection.retry_configs


def _rejected(detail: str) -> ProxyError:
    return ProxyError(Side.UPSTREAM, Stage.UPSTREAM_TLS, Kind.ECH_REJECTED, detail)
