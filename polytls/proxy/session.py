"""The life of one tunnel: docs/architecture.md, section 1, step by step. Nothing else knows the order.

`lead` coordinates and decides nothing itself: what a head means is for `wire` to say, where to dial for
`resolve`, what a hello may be for `policy`. It raises `ProxyError` for whatever goes wrong; `tell` then shows
the client what `refuse` says, by the tunnel's stage, which is set *before* the step it names.

Every await costs Python 10 to 20 µs, so a MITM tunnel whose name and leaf are known has four: connect; the
200 and the client's hello; upstream's handshake; the client's handshake and the relay.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.policy.hello import HTTP11, Verdict, check_sni, plan_alpn, settle_alpn, speaks_http11
from polytls.profiles import MIRROR
from polytls.proxy import recording
from polytls.proxy.originate import Originator
from polytls.proxy.refuse import ESTABLISHED, Answer, Close, Page, page_reply, refusal
from polytls.settings import Mode, NonTls
from polytls.wire.connect import ConnectRequest, parse_connect

if TYPE_CHECKING:
    from polytls.engine import Accepted, Connected, Credential, Engine, RelayFacts, TlsFacts
    from polytls.proxy.snapshot import Interception, Profile, Snapshot
    from polytls.proxy.tracker import Tunnel

PAGE_SECONDS = 5.0
"""For the client's handshake, its request and our page, each: only a failure is at the end of it."""
MAX_PAGE_HEAD_BYTES = 65536
"""Of the request that a page answers. It is an origin's request, cookies and all, not a CONNECT."""
TELL_SECONDS = 5.0
"""For the kernel to take a reply of a few hundred bytes: a client that does not read is not waited for."""

_HEAD_FAILURES = {
    "too_large": (Kind.HEAD_TOO_LARGE, "the request head is longer than 16384 bytes"),
    "timeout": (Kind.HEAD_TIMEOUT, "the request head was not complete in time"),
    "malformed": (Kind.MALFORMED_HEAD, "the request is no HTTP request head"),
    "closed": (Kind.HEAD_CLOSED, "the client closed the connection before its request head was complete"),
    "reset": (Kind.HEAD_CLOSED, "the client reset the connection before its request head was complete"),
    "io": (Kind.HEAD_CLOSED, "the connection broke before the client's request head was complete"),
}

# With non_tls = "relay": the client does not begin with a ClientHello, or waits for upstream to begin. A
# hello that is malformed or too large is TLS all the same, and never goes around the checks of MITM.
_NO_HELLO = frozenset({Kind.NOT_TLS, Kind.HELLO_TIMEOUT})


async def lead(tunnel: Tunnel, accepted: Accepted, snapshot: Snapshot, engine: Engine) -> None:
    """Lead a tunnel from its request head (steps 1 and 2 are the engine's) to the end of its relay.

    Raises `ProxyError` for whatever ends it before the relay has begun; how a relay ends is in the record.
    """
    record, timeouts = tunnel.record, snapshot.settings.timeouts
    record.mode = snapshot.settings.mode.value
    # 3. What does the client want?
    request = _request(accepted)
    record.host, record.port = request.authority.host, request.authority.port
    profile = _profile(request, tunnel, snapshot)
    # 4, 5. Identity and rules: everyone may do everything, in the one mode that is set.
    # 6. Where is it?
    tunnel.stage = Stage.CONNECT
    started = time.monotonic()
    addresses = snapshot.resolver.known(record.host, record.port)
    if addresses is None:
        addresses = await snapshot.resolver.resolve(record.host, record.port)
    record.timings.resolve = time.monotonic() - started
    # 7. Connect.
    connected = await engine.connect(tunnel.client, addresses, timeout=timeouts.connect)
    tunnel.upstream = connected.stream
    recording.connected(record, connected)
    # 8 to 10. Answer 200, agree with both sides, relay.
    record.reply = 200
    if snapshot.interception is None or profile is None:
        facts = await _pass_through(tunnel, connected, snapshot)
    else:
        facts = await _intercept(tunnel, connected, snapshot, snapshot.interception, profile, engine)
    # 11. What became of it?
    recording.relayed(tunnel, facts)


async def _pass_through(tunnel: Tunnel, connected: Connected, snapshot: Snapshot) -> RelayFacts:
    tunnel.stage = Stage.RELAY
    timeouts = snapshot.settings.timeouts
    return await tunnel.client.answer_and_relay(
        ESTABLISHED,
        connected.stream,
        idle=timeouts.idle,
        lifetime=timeouts.lifetime,
        half_idle=timeouts.half_closed,
    )


async def _intercept(
    tunnel: Tunnel,
    connected: Connected,
    snapshot: Snapshot,
    mitm: Interception,
    profile: Profile,
    engine: Engine,
) -> RelayFacts:
    """Step 9: TLS with both sides, upstream first, then the relay."""
    client, record = tunnel.client, tunnel.record
    settings, timeouts = snapshot.settings.mitm, snapshot.settings.timeouts
    # a. Look at the client's hello without consuming it.
    tunnel.stage = Stage.HELLO
    try:
        hello = await client.answer_and_peek(ESTABLISHED, timeout=timeouts.hello, raw=profile.offer is None)
    except ProxyError as error:
        if settings.non_tls is NonTls.RELAY and error.kind in _NO_HELLO:
            return await _relay_untouched(tunnel, connected, snapshot)
        raise
    tunnel.hello = hello
    recording.hello(record, hello)
    # b. It must be for the host that the tunnel is for.
    host = record.host or ""
    _require(check_sni(hello.sni, host, settings.sni), Stage.HELLO)
    # e, begun before d: a leaf that must be minted is minted while upstream is asked.
    kind = mitm.leaf_with_ecdsa if hello.ecdsa_ok else mitm.leaf_without_ecdsa
    tunnel.leaf = mitm.leaves.get(host, kind) or mitm.leaves.mint(host, kind)
    # c. What does upstream get to see?
    tunnel.stage = Stage.UPSTREAM_TLS
    offer = profile.offer or mitm.mirror.offer(hello.raw or b"")
    plan = plan_alpn(hello.alpn, offer.alpn, settings.alpn)
    _require(plan.verdict, Stage.ALPN)
    # d. Upstream's handshake: verified, and it chooses the protocol.
    originator = Originator(engine, tunnel, timeouts, offer, plan.offer, mitm.ech.find(host))
    agreed = await originator.agree(connected)
    upstream = tunnel.upstream or connected.stream
    recording.upstream_tls(record, agreed)
    # g. The client must speak what upstream chose.
    tunnel.stage = Stage.ALPN
    choice = settle_alpn(hello.alpn, agreed.alpn)
    _require(choice.verdict, Stage.ALPN)
    # e. The leaf.
    tunnel.stage = Stage.LEAF
    credential = await _leaf(tunnel)
    # f, 10. The client's handshake, and the relay as soon as it is complete.
    tunnel.stage = Stage.CLIENT_TLS

    def client_agreed(facts: TlsFacts) -> None:
        tunnel.stage = Stage.RELAY
        recording.client_tls(record, facts)

    _, facts = await client.accept_tls_and_relay(
        mitm.server_context,
        credential,
        upstream,
        alpn=choice.protocol,
        timeout=timeouts.handshake,
        idle=timeouts.idle,
        lifetime=timeouts.lifetime,
        half_idle=timeouts.half_closed,
        on_handshake=client_agreed,
    )
    return facts


async def _relay_untouched(tunnel: Tunnel, connected: Connected, snapshot: Snapshot) -> RelayFacts:
    """MITM mode with non_tls = "relay", and a client that does not speak TLS, at least not first."""
    tunnel.record.mode = Mode.PASSTHROUGH.value
    tunnel.stage = Stage.RELAY
    timeouts = snapshot.settings.timeouts
    return await tunnel.client.relay(
        connected.stream, idle=timeouts.idle, lifetime=timeouts.lifetime, half_idle=timeouts.half_closed
    )


async def tell(tunnel: Tunnel, error: ProxyError, snapshot: Snapshot) -> None:
    """Show the client what `refuse` has for this failure, and close. A client that does not listen any
    more changes nothing: the failure is the one it was."""
    hello = tunnel.hello
    shown = refusal(
        error,
        tunnel.stage,
        non_tls=snapshot.settings.mitm.non_tls,
        http11=hello is not None and speaks_http11(hello.alpn),
    )
    try:
        match shown:
            case Answer(status, data):
                tunnel.record.reply = status
                await tunnel.client.write(data, timeout=TELL_SECONDS)
                tunnel.client.close()
            case Page(alert):
                if not await _show_page(tunnel, error, snapshot):
                    tunnel.client.close(alert=alert)
            case Close(alert, reset):
                tunnel.client.close(alert=alert, reset=reset)
    except ProxyError:
        tunnel.client.close()


async def _show_page(tunnel: Tunnel, error: ProxyError, snapshot: Snapshot) -> bool:
    """Complete the client's handshake and answer its request with the failure. False: there is no leaf to do
    so with, and the client still waits for an answer to its hello. Raises `ProxyError` after that."""
    mitm, hello, client = snapshot.interception, tunnel.hello, tunnel.client
    if mitm is None or hello is None:
        return False
    if tunnel.upstream is not None:
        tunnel.upstream.close()
    try:
        credential = await _leaf(tunnel)
    except ProxyError:
        return False
    tunnel.stage = Stage.CLIENT_TLS
    facts = await client.accept_tls(
        mitm.server_context, credential, alpn=None if hello.alpn is None else HTTP11, timeout=PAGE_SECONDS
    )
    recording.client_tls(tunnel.record, facts)
    head = await client.read_head(MAX_PAGE_HEAD_BYTES, timeout=PAGE_SECONDS)
    await client.write(page_reply(error, head), timeout=PAGE_SECONDS)
    client.close()
    return True


def _request(accepted: Accepted) -> ConnectRequest:
    if accepted.failure is None:
        return parse_connect(accepted.head)
    if accepted.failure == "malformed":
        parse_connect(accepted.head)  # which says in what way, if it can tell
    kind, detail = _HEAD_FAILURES.get(
        accepted.failure, (Kind.CANCELLED, f"the request head was not read ({accepted.failure})")
    )
    raise ProxyError(Side.CLIENT, Stage.HEAD, kind, detail)


def _profile(request: ConnectRequest, tunnel: Tunnel, snapshot: Snapshot) -> Profile | None:
    """The profile asked for, or the default one; None in passthrough mode, which has no use for it. A name
    that does not exist is refused in either mode."""
    name = request.profile or snapshot.settings.upstream.default_profile
    if snapshot.interception is None:
        if name.lower() == MIRROR or snapshot.catalog.find(name) is not None:
            return None
    else:
        profile = snapshot.interception.profiles.find(name)
        if profile is not None:
            tunnel.record.profile = profile.name
            return profile
    detail = f"there is no profile {name}; there are {', '.join((*snapshot.catalog.names(), MIRROR))}"
    raise ProxyError(Side.CLIENT, Stage.HEAD, Kind.UNKNOWN_PROFILE, detail)


async def _leaf(tunnel: Tunnel) -> Credential:
    """The leaf that is there or being minted. Raises `ProxyError` (LEAF_FAILED), a new one each time."""
    leaf = tunnel.leaf
    if not isinstance(leaf, Future):
        if leaf is None:
            raise _leaf_failed("no leaf was asked for")
        return leaf
    started = time.monotonic()
    try:
        tunnel.leaf = await asyncio.wrap_future(leaf)
    except ProxyError as error:
        raise _leaf_failed(error.detail) from error
    except Exception as error:  # a sink or a build step: whatever it was, there is no leaf
        raise _leaf_failed(f"no leaf could be made: {error}") from error
    tunnel.record.timings.leaf = time.monotonic() - started
    return tunnel.leaf


def _leaf_failed(detail: str) -> ProxyError:
    return ProxyError(Side.PROXY, Stage.LEAF, Kind.LEAF_FAILED, detail)


def _require(verdict: Verdict, stage: Stage) -> None:
    if not verdict.allowed:
        raise ProxyError(Side.CLIENT, stage, verdict.kind, verdict.reason)
