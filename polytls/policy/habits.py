"""How clients begin TLS: what is expected of the next hello, so that its tunnel can be decided beforehand.

A client's hellos differ in random bytes, keys and server name, and hardly ever in what a decision in MITM
mode hangs on: whether there is a server name, the protocols, and whether an ECDSA certificate will do. So a
tunnel is set off as a whole, decided for the hello that its client sent the last time; the engine compares,
and where another comes, the tunnel is decided anew for that one. To be wrong costs some microseconds and
nothing else: no decision is ever applied to a hello that it was not made for.

Clients are told apart by the User-Agent field of their CONNECT, for want of anything better that early.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_CLIENTS = 256
"""Programs that use one proxy at a time are few; one that makes up names only pushes out the others."""

MAX_AGENT_BYTES = 256
"""A longer User-Agent is like none: browsers have about 120."""


MAX_ALPN_BYTES = 512
"""A longer list of protocols is not worth being kept: those of real clients have about 12."""


class Habit(NamedTuple):
    """What a client's hello had: `alpn` None: no such extension."""

    has_sni: bool
    alpn: tuple[bytes, ...] | None
    ecdsa_ok: bool


class Habits:
    """The last hello of each kind of client. For one thread."""

    def __init__(self) -> None:
        self._by_agent: dict[tuple[bytes, bool], Habit] = {}

    def find(self, agent: bytes, *, is_ip: bool) -> Habit | None:
        """How a client with this User-Agent begins on a host that is an address, or is none (an address is
        no server name, RFC 6066 §3)."""
        return self._by_agent.get((agent if len(agent) <= MAX_AGENT_BYTES else b"", is_ip))

    def learn(self, agent: bytes, habit: Habit, *, is_ip: bool) -> None:
        """This is how it has begun now."""
        key = (agent if len(agent) <= MAX_AGENT_BYTES else b"", is_ip)
        known = self._by_agent
        if sum(map(len, habit.alpn or ())) > MAX_ALPN_BYTES:
            known.pop(key, None)
            return
        if key not in known and len(known) >= MAX_CLIENTS:
            del known[next(iter(known))]  # the oldest
        known[key] = habit

    def forget(self) -> None:
        """Every client is new again."""
        self._by_agent.clear()

    def __len__(self) -> int:
        return len(self._by_agent)
