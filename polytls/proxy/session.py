"""The life of one tunnel: docs/architecture.md, section 1, step by step. Nothing else knows the order.

`lead` coordinates and decides nothing itself: what a head means is for `wire` to say, where to dial for
`resolve`, what a hello may be for `policy`. It raises `ProxyError` for whatever goes wrong; `tell` then shows
the client what `refuse` says, by the tunnel's stage, which is set *before* the step it names.

Every await costs Python 10 to 20 µs, and more where its completion wakes up the event loop, so they are
spent where something is decided: a MITM tunnel whose name and leaf are known has two, up to the client's
hello and from there to the end of the relay; a passthrough tunnel has one.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.policy.hello import (
    HTTP11,
    AlpnPlan,
    Verdict,
    answers,
    check_sni,
    plan_alpn,
    settle_alpn,
    speaks_http11,
)
from polytls.profiles import MIRROR
from polytls.proxy import recording
from polytls.proxy.originate import Originator
from polytls.proxy.refuse import ESTABLISHED, Answer, Close, Page, page_reply, refusal
from polytls.settings import Mode, NonTls
from polytls.wire.connect import ConnectRequest, parse_connect
from polytls.wire.trace_context import trace_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytls.engine import (
        Accepted,
        Chain,
        Connected,
        Credential,
        Engine,
        HelloFacts,
        SocketAddress,
        Stream,
        TlsFacts,
    )
    from polytls.proxy.snapshot import Interception, Offer, Profile, Snapshot
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
# hello that is malformed, too large or only begun is TLS all the same, and never goes around MITM's checks.
_NO_HELLO = frozenset({Kind.NOT_TLS, Kind.HELLO_TIMEOUT})


async def lead(tunnel: Tunnel, accepted: Accepted, snapshot: Snapshot, engine: Engine) -> None:
    """Lead a tunnel from its request head (steps 1 and 2 are the engine's) to the beginning of its relay.

    Raises `ProxyError` for whatever ends it before the relay has begun; how a relay ends is in the record.
    """
    record = tunnel.record
    record.mode = snapshot.settings.mode.value
    # 3. What does the client want?
    request = _request(accepted)
    record.host, record.port = request.authority.host, request.authority.port
    if snapshot.traced:
        record.parent = trace_parent(request.headers)
    wanted, profile = _profile_name(request, snapshot), None
    if snapshot.interception is not None:
        profiles = snapshot.interception.profiles
        # The first who asks for one has its file read, and a context made.
        profile = profiles.ready(wanted) or await asyncio.to_thread(profiles.find, wanted)
        record.profile = None if profile is None else profile.name
    # 4, 5. Identity and rules: everyone may do everything, in the one mode that is set.
    # 6. Where is it?
    tunnel.stage = Stage.CONNECT
    record.starts.resolve = started = time.monotonic_ns()
    addresses = snapshot.resolver.known(record.host, record.port)
    if addresses is None:
        addresses = await snapshot.resolver.resolve(record.host, record.port)
    record.timings.resolve = (time.monotonic_ns() - started) / 1e9
    # 7 to 10. Connect, answer 200, agree with both sides, relay.
    # 11. What became of it, `Tunnel.relayed` is told.
    if snapshot.interception is None or profile is None:
        await _pass_through(tunnel, addresses, snapshot, engine)
    else:
        await _intercept(tunnel, addresses, snapshot, snapshot.interception, profile, engine)


async def _pass_through(
    tunnel: Tunnel, addresses: Sequence[SocketAddress], snapshot: Snapshot, engine: Engine
) -> None:
    """Steps 7, 8 and 10 at once: there is nothing to decide in between."""
    client, timeouts = tunnel.client, snapshot.settings.timeouts

    def connected(facts: Connected) -> None:
        tunnel.connected(facts, Stage.RELAY)

    chain = engine.chain()
    chain.connect(client, addresses, timeout=timeouts.connect, done=connected)
    chain.write(client, ESTABLISHED, timeout=TELL_SECONDS)
    await _relay(tunnel, chain, None, snapshot)


async def _intercept(
    tunnel: Tunnel,
    addresses: Sequence[SocketAddress],
    snapshot: Snapshot,
    mitm: Interception,
    profile: Profile,
    engine: Engine,
) -> None:
    """Steps 7 to 10: TLS with both sides, upstream first, then the relay."""
    record, settings = tunnel.record, snapshot.settings.mitm
    known = snapshot.ja4  # None: nobody asked for fingerprints
    # 7, 8, 9a. Connect, answer, and look at the client's hello without consuming it.
    try:
        raw = profile.offer is None or known is not None
        hello = await _meet(tunnel, addresses, snapshot, engine, raw=raw)
    except ProxyError as error:
        silent = error.kind in _NO_HELLO and not error.hello_begun
        if settings.non_tls is NonTls.RELAY and silent and tunnel.upstream is not None:
            # A client that does not speak TLS, at least not first.
            tunnel.record.mode = Mode.PASSTHROUGH.value
            tunnel.stage = Stage.RELAY
            await _relay(tunnel, engine.chain(), tunnel.upstream, snapshot)
            return
        raise
    tunnel.hello = hello
    recording.hello(record, hello)
    if known is not None:
        record.client_ja4 = known.of(hello.raw or b"")
    # b. It must be for the host that the tunnel is for.
    host = record.host or ""
    _require(check_sni(hello.sni, host, settings.sni), Stage.HELLO)
    # e, begun before d: a leaf that must be minted is minted while upstream is asked.
    kind = mitm.leaf_with_ecdsa if hello.ecdsa_ok else mitm.leaf_without_ecdsa
    tunnel.leaf = mitm.leaves.obtain(host, kind)
    # c. What does upstream get to see?
    tunnel.stage = Stage.UPSTREAM_TLS
    offer = profile.offer_for(hello.raw or b"")
    plan = plan_alpn(hello.alpn, offer.alpn, settings.alpn)
    _require(plan.verdict, Stage.ALPN)
    # d to g, 10.
    try:
        await _agree_and_relay(tunnel, hello, offer, plan, snapshot, mitm, engine)
    except ProxyError as error:
        recording.upstream_hello(record, error.hello, known)
        raise


async def _meet(
    tunnel: Tunnel, addresses: Sequence[SocketAddress], snapshot: Snapshot, engine: Engine, *, raw: bool
) -> HelloFacts:
    """Connect to upstream, tell the client so, and see how it begins."""
    client, timeouts = tunnel.client, snapshot.settings.timeouts

    def connected(facts: Connected) -> None:
        tunnel.connected(facts, Stage.HELLO)

    chain = engine.chain()
    chain.connect(client, addresses, timeout=timeouts.connect, done=connected)
    chain.write(client, ESTABLISHED, timeout=timeouts.hello)
    return await chain.peek_hello(client, timeout=timeouts.hello, raw=raw).run()


async def _agree_and_relay(
    tunnel: Tunnel,
    hello: HelloFacts,
    offer: Offer,
    plan: AlpnPlan,
    snapshot: Snapshot,
    mitm: Interception,
    engine: Engine,
) -> None:
    """Upstream's handshake, which is verified and chooses the protocol; the client's, which may agree on that
    protocol alone; the relay. In one go, unless the leaf is still being minted or upstream may reject ECH."""
    _require_wanted(tunnel)
    record, timeouts = tunnel.record, snapshot.settings.timeouts
    upstream = Originator(engine, tunnel, timeouts, offer, plan.offer, mitm.ech.find(record.host or ""))

    def upstream_agreed(facts: TlsFacts) -> None:
        recording.upstream_tls(record, facts)
        recording.upstream_hello(record, facts.hello, snapshot.ja4)
        tunnel.stage = Stage.ALPN
        _require(settle_alpn(hello.alpn, facts.alpn).verdict, Stage.ALPN)
        tunnel.stage = Stage.CLIENT_TLS

    def client_agreed(facts: TlsFacts) -> None:
        tunnel.stage = Stage.RELAY
        recording.client_tls(record, facts)

    if upstream.may_be_rejected or isinstance(tunnel.leaf, Future):
        upstream_agreed(await upstream.agree(raw=snapshot.ja4 is not None))
        tunnel.stage = Stage.LEAF
        await _leaf(tunnel)
        tunnel.stage = Stage.CLIENT_TLS
        chain: Chain[Any] = engine.chain()
    else:
        chain = upstream.begin(raw=snapshot.ja4 is not None, done=upstream_agreed)
    chain.accept_tls_like(
        tunnel.client,
        mitm.server_context,
        await _leaf(tunnel),
        upstream=tunnel.dialled,
        alpn=answers(hello.alpn, plan.offer),
        timeout=timeouts.handshake,
        done=client_agreed,
    )
    await _relay(tunnel, chain, tunnel.dialled, snapshot)


async def _relay(tunnel: Tunnel, chain: Chain[Any], upstream: Stream | None, snapshot: Snapshot) -> None:
    """Step 10, at the end of a chain that has what must succeed before."""
    timeouts = snapshot.settings.timeouts
    _require_wanted(tunnel)
    chain.relay(
        tunnel.client,
        upstream,
        idle=timeouts.idle,
        lifetime=timeouts.lifetime,
        half_idle=timeouts.half_closed,
        ended=tunnel.relayed,
    )
    tunnel.relaying = True
    try:
        await chain.run()
    except BaseException:
        tunnel.relaying = False  # `relayed` will not be called
        raise
    tunnel.hello = tunnel.leaf = None  # of no use any more, and a tunnel may live long


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


def _profile_name(request: ConnectRequest, snapshot: Snapshot) -> str:
    """Of the profile asked for, or the default one. One that does not exist is refused, also in passthrough
    mode, which has no use for it."""
    name = request.profile or snapshot.settings.upstream.default_profile
    if snapshot.catalog.knows(name) or name.lower() == MIRROR:
        return name
    detail = f"there is no profile {name}; there are {', '.join((*snapshot.catalog.names(), MIRROR))}"
    raise ProxyError(Side.CLIENT, Stage.HEAD, Kind.UNKNOWN_PROFILE, detail)


async def _leaf(tunnel: Tunnel) -> Credential:
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
    tunnel.record.starts.leaf = started
    tunnel.record.timings.leaf = (time.monotonic_ns() - started) / 1e9
    return tunnel.leaf


def _leaf_failed(detail: str) -> ProxyError:
    return ProxyError(Side.PROXY, Stage.LEAF, Kind.LEAF_FAILED, detail)


def _require_wanted(tunnel: Tunnel) -> None:
    """What was under way when the tunnel was told to end may have succeeded all the same."""
    if tunnel.told_to_end:
        raise tunnel.cut_short()


def _require(verdict: Verdict, stage: Stage) -> None:
    if not verdict.allowed:
        raise ProxyError(Side.CLIENT, stage, verdict.kind, verdict.reason)
