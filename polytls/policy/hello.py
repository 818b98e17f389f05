"""What a client's ClientHello must satisfy in MITM mode: its server name, and one protocol for both sides.

Server name. The client asked the proxy for a host (CONNECT) and asks the server for one (SNI, RFC 6066 §3).
The leaf it is shown is for the first, so a different second is refused: a tunnel is never verified under one
name and used under another.

Protocol. Bytes are relayed, not translated, so both sides must agree on one application protocol (ALPN,
RFC 7301), and upstream is asked first:

1. `plan_alpn` says what to offer upstream, before anything is sent there;
2. upstream chooses, or does not;
3. `settle_alpn` says what the client is then offered: that choice alone.

A side without ALPN counts as ``http/1.1``: that is what a client or server that never heard of the
extension speaks on an https port. Protocol names are compared as bytes, exactly (RFC 7301 §6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from polytls.errors import Kind
from polytls.settings import AlpnPolicy, SniPolicy
from polytls.wire.authority import same_host

HTTP11 = b"http/1.1"
"""What a side that does not negotiate a protocol is taken to speak."""

MAX_SHOWN_CHARS = 80
"""Of a name the client chose, in a reason: enough to recognise it, too little to flood a log."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May it go on? `reason` is one sentence in either case; `kind` names the failure where it may not.

    Made without arguments it denies.
    """

    allowed: bool = False
    reason: str = "no rule allowed it"
    kind: Kind = Kind.INTERNAL


@dataclass(frozen=True, slots=True)
class AlpnPlan:
    """What to offer upstream, in order; empty: no ALPN extension. Of no meaning unless allowed."""

    verdict: Verdict = field(default_factory=Verdict)
    offer: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AlpnChoice:
    """The one protocol to agree on with the client; None: none. Of no meaning unless allowed."""

    verdict: Verdict = field(default_factory=Verdict)
    protocol: bytes | None = None


Answers = tuple[tuple[bytes | None, bytes | None], ...]
"""What upstream may agree on (None: nothing), each with what to agree on with the client then."""

_REMEMBERED_ANSWERS = 1024
"""Profiles are few, and so is what clients have in common with them."""

# Verdicts are made for every tunnel: those that depend on nothing are made once.
_SNI_MATCHES = Verdict(True, "the server name is the CONNECT host")
_SNI_ABSENT = Verdict(True, "the hello has no server name, which the policy accepts")
_PROFILE_UNTOUCHED = Verdict(True, "the profile's protocols are offered untouched")
_NARROWED = Verdict(True, "what profile and client both speak is offered")
_NO_ALPN_OFFERED = Verdict(True, "the profile has no ALPN, and the client speaks http/1.1")
_AGREED = Verdict(True, "the client speaks what upstream chose")
_WITHOUT_ALPN = AlpnChoice(Verdict(True, "both sides speak http/1.1; the client does not negotiate"))


def check_sni(sni: bytes | None, host: str, policy: SniPolicy) -> Verdict:
    """May a hello with this server name (as sent; None: no extension) go on to the CONNECT host?

    REQUIRE refuses every hello without one, for IP addresses too, although RFC 6066 §3 forbids clients to
    send an address: who requires names has no use for tunnels that cannot have one.
    """
    if sni is None:
        if policy is SniPolicy.ACCEPT_ABSENT:
            return _SNI_ABSENT
        reason = f'the hello has no server name, and sni = "require" wants {host}'
        return Verdict(False, reason, Kind.SNI_MISSING)
    if same_host(sni, host):
        return _SNI_MATCHES
    reason = f"the hello's server name is {_shown(sni)}, the CONNECT host {host}; both must be the same"
    return Verdict(False, reason, Kind.SNI_MISMATCH)


def plan_alpn(client: tuple[bytes, ...] | None, profile: tuple[bytes, ...], policy: AlpnPolicy) -> AlpnPlan:
    """What to offer upstream for a client's list (None: no extension) under a profile's list.

    NARROW: what both have, in the profile's order, as that is what the origin is to see. Nothing in common is
    a refusal. STRICT: the profile's list; whether the client can follow shows when upstream has chosen.
    """
    if policy is AlpnPolicy.STRICT:
        return AlpnPlan(_PROFILE_UNTOUCHED, profile)
    spoken = (HTTP11,) if client is None else client
    if not profile:
        if HTTP11 in spoken:
            return AlpnPlan(_NO_ALPN_OFFERED)
        reason = f"the profile offers no ALPN, which means http/1.1; the client offers {_listed(client)}"
        return AlpnPlan(Verdict(False, reason, Kind.ALPN_MISMATCH))
    offer = tuple(name for name in profile if name in spoken)
    if offer:
        return AlpnPlan(_NARROWED, offer)
    reason = f"the profile offers {_listed(profile)}, the client {_listed(client)}: nothing in common"
    return AlpnPlan(Verdict(False, reason, Kind.ALPN_MISMATCH))


def settle_alpn(client: tuple[bytes, ...] | None, upstream_choice: bytes | None) -> AlpnChoice:
    """The one protocol to offer a client with this list, after upstream's choice (None: it made none)."""
    chosen = HTTP11 if upstream_choice is None else upstream_choice
    if client is None:
        if chosen == HTTP11:
            return _WITHOUT_ALPN
    elif chosen in client:
        return AlpnChoice(_AGREED, chosen)
    said = "upstream chose no protocol, which means" if upstream_choice is None else "upstream chose"
    reason = f"{said} {_shown(chosen)}; the client offers {_listed(client)}"
    return AlpnChoice(Verdict(False, reason, Kind.ALPN_MISMATCH))


def answers(client: tuple[bytes, ...] | None, offer: tuple[bytes, ...]) -> Answers:
    """`settle_alpn` for everything that may come: upstream's choice out of `offer`, or none (None), and what
    to agree on with the client then. Choices that are not allowed are not in it."""
    # Of a client's list only what may be chosen matters. All of it would be kept, and may be 16 KB.
    spoken = None if client is None else tuple([name for name in (*offer, HTTP11) if name in client])
    return _answers(spoken, offer)


@lru_cache(_REMEMBERED_ANSWERS)
def _answers(client: tuple[bytes, ...] | None, offer: tuple[bytes, ...]) -> Answers:
    settled = [(choice, settle_alpn(client, choice)) for choice in (*offer, None)]
    return tuple([(choice, one.protocol) for choice, one in settled if one.verdict.allowed])


def speaks_http11(client: tuple[bytes, ...] | None) -> bool:
    """Can a client with this list be answered in HTTP/1.1?"""
    return client is None or HTTP11 in client


def _listed(names: tuple[bytes, ...] | None) -> str:
    if names is None:
        return "no ALPN, which means http/1.1"
    return _cut(", ".join(name.decode("ascii", "backslashreplace") for name in names) or "an empty list")


def _shown(name: bytes) -> str:
    return _cut(name.decode("ascii", "backslashreplace")) or "empty"


def _cut(text: str) -> str:
    # Control characters are ASCII too: a reason is one line, whatever a client puts into a name.
    plain = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return plain if len(plain) <= MAX_SHOWN_CHARS else plain[:MAX_SHOWN_CHARS] + "…"
