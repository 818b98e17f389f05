"""Which hosts are asked for by Encrypted ClientHello, and with which configs.

An exact name comes before a wildcard, a longer wildcard before a shorter one; ``*.example.com`` covers
every name below example.com, however deep, not example.com itself. Of two rules with one name the first
counts. A host that no rule names gets none: its hello is the profile's as it is, GREASE where the profile
has it.
"""

from __future__ import annotations

from collections.abc import Iterable


class EchConfigs:
    """ECHConfigLists by host. Names are in the spelling of `polytls.config`, lists were checked."""

    def __init__(self, rules: Iterable[tuple[tuple[str, ...], bytes]] = ()) -> None:
        self._exact: dict[str, bytes] = {}
        self._suffixes: dict[str, bytes] = {}
        for hosts, configs in rules:
            for host in hosts:
                if host.startswith("*."):
                    self._suffixes.setdefault(host[1:], configs)
                else:
                    self._exact.setdefault(host, configs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EchConfigs):
            return NotImplemented
        return (self._exact, self._suffixes) == (other._exact, other._suffixes)

    __hash__ = None  # type: ignore[assignment]

    def find(self, host: str) -> bytes:
        """The list for `host` (lower case); empty: none."""
        configs = self._exact.get(host)
        if configs is not None:
            return configs
        if self._suffixes:
            dot = host.find(".", 1)
            while dot != -1:
                if (configs := self._suffixes.get(host[dot:])) is not None:
                    return configs
                dot = host.find(".", dot + 1)
        return b""
