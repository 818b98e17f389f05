"""Connections of the engine's with real ECH, and what was in them, opened with the server's key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine import ClientContext, TlsFacts, Trust
from polytls.errors import ProxyError
from tests.engine.dialer import dialing
from tests.golden.recorder import HOST
from tests.peers import servers
from tests.peers.ech import EchKey, Opened, Sealed
from tests.peers.shim import Tap

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

PUBLIC = "public.test"
FEW = (
    *("chrome-152", "chrome-120", "firefox-155", "firefox-esr-153"),
    *("tor-14.5", "safari-27.0", "curl-7.88", "go-1.26"),
)
KNOBS = "default"
"""A profile that is no template: BoringSSL lays both hellos out by itself."""


@dataclass(frozen=True)
class Seen:
    """One connection: what the engine says, and the hellos, opened."""

    facts: TlsFacts
    opened: list[Opened]


class Bench:
    """Makes connections to servers that do ECH."""

    def __init__(self, catalog: Catalog, trust: Trust, authority: Authority, directory: Path) -> None:
        self.catalog, self.trust, self.directory = catalog, trust, directory
        self.certificates = [authority.issue(HOST), authority.issue(PUBLIC)]
        self.authority = authority

    def context(self, name: str) -> ClientContext:
        spec = self.catalog.require(name, source="test", key="")
        return ClientContext(spec, self.trust, verify_chain=True, verify_host=True)

    def accepted(
        self, names: Sequence[str], key: EchKey, *, times: int = 1, **options: object
    ) -> dict[str, list[Seen]]:
        """So many connections with each profile, one after the other."""

        async def main() -> dict[str, list[Seen]]:
            found: dict[str, list[Seen]] = {}
            with servers.go_ech(self.certificates, self.directory, keys=[key.option()], **options) as port:
                async with dialing() as dialer:
                    for name in names:
                        spec, context = self.catalog.require(name, source="test", key=""), self.context(name)
                        with Tap(("127.0.0.1", port)) as tap:
                            fetched = [
                                await dialer.fetch(spec, context, HOST, tap.port, ech_configs=key.config_list)
                                for _ in range(times)
                            ]
                            assert len(tap.connections) == times
                            found[name] = [
                                Seen(one.facts, Sealed(key, hellos).opened)
                                for one, hellos in zip(fetched, tap.connections, strict=True)
                            ]
            return found

        return asyncio.run(main())

    def failed(
        self,
        name: str,
        configs: bytes,
        certificates: Sequence[Path] = (),
        *,
        sent: list[bytes] | None = None,
        **options: object,
    ) -> ProxyError:
        """The failure of one connection."""

        async def main() -> ProxyError:
            pems = certificates or self.certificates
            spec, context = self.catalog.require(name, source="test", key=""), self.context(name)
            with (
                servers.go_ech(pems, self.directory, **options) as port,
                Tap(("127.0.0.1", port)) as tap,
            ):
                async with dialing() as dialer:
                    with pytest.raises(ProxyError) as caught:
                        await dialer.fetch(spec, context, HOST, tap.port, ech_configs=configs)
                if sent is not None:
                    sent.extend(tap.sent)
            return caught.value

        return asyncio.run(main())
