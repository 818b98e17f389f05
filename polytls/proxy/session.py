"""The life of one tunnel: docs/architecture.md, section 1, step by step. Nothing else knows the order.

`lead` coordinates and decides nothing itself: what a head means is for `wire` to say, where to dial for
`resolve`, what a hello may be for `policy`. It raises `ProxyError` for whatever goes wrong; `tell` then shows
the client what that is, by the tunnel's stage, which is set *before* the step it names.

Every await costs Python 10 to 20 µs, and more where its completion wakes up the event loop, so they are
spent where something has to be waited for: a name that is looked up, a leaf that a thread mints. From the
addresses on, a passthrough tunnel has none, nor has a MITM tunnel whose client begins as it did the last time
(`policy.habits`): all of it is handed to the engine at once, and what comes back goes into the record. For
any other hello the engine stops before it has answered, and the tunnel goes on step by step.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from polytls.engine import ExpectedHello, UnexpectedHelloError
from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.events import Starts
from polytls.policy.habits import Habit
from polytls.policy.hello import check_sni, plan_alpn
from polytls.profiles import MIRROR
from polytls.proxy import recording
from polytls.proxy.agree import Agreement, leaf_of, require
from polytls.proxy.refuse import ESTABLISHED
from polytls.proxy.tell import TELL_SECONDS
from polytls.settings import Mode, NonTls
from polytls.wire.connect import ConnectRequest, parse_connect
from polytls.wire.trace_context import trace_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from polytls.engine import (
        Accepted,
        Chain,
        Connected,
        Credential,
        Engine,
        HelloFacts,
        SocketAddress,
        Stream,
    )
    from polytls.proxy.snapshot import Interception, Profile, Snapshot
    from polytls.proxy.tracker import Tunnel

    Rest = Coroutine[Any, Any, None]
    GoOn = Callable[[Rest], None]

_HEAD_FAILURES = {
    "too_large": (Kind.HEAD_TOO_LARGE, "the request head is longer than 16384 bytes"),
    "timeout": (Kind.HEAD_TIMEOUT, "the request head was not complete in time"),
    "malformed": (Kind.MALFORMED_HEAD, "the request is no HTTP request head"),
    "closed": (Kind.HEAD_CLOSED, "the client closed the connection before its request head was complete"),
    "reset": (Kind.HEAD_CLOSED, "the client reset the connection before its request head was complete"),
    "io": (Kind.HEAD_CLOSED, "the connection broke before the client's request head was complete"),
}
_NO_MEMORY = "the proxy has no memory left for this tunnel"

# With non_tls = "relay": the client does not begin with a ClientHello, or waits for upstream to begin. A
# hello that is malformed, too large or only begun is TLS all the same, and never goes around MITM's checks.
_NO_HELLO = frozenset({Kind.NOT_TLS, Kind.HELLO_TIMEOUT})


def lead(tunnel: Tunnel, accepted: Accepted, snapshot: Snapshot, engine: Engine, go_on: GoOn) -> Rest | None:
    """Lead a tunnel from its request head (steps 1 and 2 are the engine's) to the beginning of its relay, as
    far as nothing has to be waited for. None: all of it is set off; else what is still to be awaited. Where
    that shows later, in a tunnel that was set off, `go_on` is called with it, once at most.

    Raises, as the rest does, `ProxyError` for whatever ends it before the relay has begun; how a relay ends
    is in the record.
    """
    record = tunnel.record
    record.mode = snapshot.settings.mode.value
    if snapshot.traced:
        record.starts = Starts()
    # 3. What does the client want?
    request = _request(accepted)
    record.host, record.port = request.authority.host, request.authority.port
    if snapshot.traced:
        record.parent = trace_parent(request.headers)
    wanted = _profile_name(request, snapshot)
    course = Course(tunnel, request, snapshot, engine, go_on)
    mitm = snapshot.interception
    if mitm is None:
        return _dial(course, None)
    profile = mitm.profiles.ready(wanted)
    return _find_profile(course, mitm, wanted) if profile is None else _dial(course, profile)


class Course(NamedTuple):
    """What a tunnel's steps go by: itself, what its client asked for, and what it was begun with."""

    tunnel: Tunnel
    request: ConnectRequest
    snapshot: Snapshot
    engine: Engine
    go_on: GoOn


async def _find_profile(course: Course, mitm: Interception, wanted: str) -> None:
    # The first who asks for one has its file read, and a context made.
    rest = _dial(course, await asyncio.to_thread(mitm.profiles.find, wanted))
    if rest is not None:
        await rest


def _dial(course: Course, profile: Profile | None) -> Rest | None:
    tunnel, _request, snapshot, _engine, _go_on = course
    record = tunnel.record
    record.profile = None if profile is None else profile.name
    # 4, 5. Identity and rules: everyone may do everything, in the one mode that is set.
    # 6. Where is it?
    tunnel.stage = Stage.CONNECT
    started = time.monotonic_ns()
    if record.starts is not None:
        record.starts.resolve = started
    addresses = snapshot.resolver.known(record.host or "", record.port or 0)
    if addresses is None:
        return _resolve(course, profile, started)
    record.timings.resolve = (time.monotonic_ns() - started) / 1e9
    return _dial_at(course, profile, addresses)


async def _resolve(course: Course, profile: Profile | None, started: int) -> None:
    record = course.tunnel.record
    addresses = await course.snapshot.resolver.resolve(record.host or "", record.port or 0)
    record.timings.resolve = (time.monotonic_ns() - started) / 1e9
    rest = _dial_at(course, profile, addresses)
    if rest is not None:
        await rest


def _dial_at(course: Course, profile: Profile | None, addresses: Sequence[SocketAddress]) -> Rest | None:
    """7 to 10. Connect, answer 200, agree with both sides, relay. 11. What became of it, `Tunnel.relayed` is
    told."""
    mitm = course.snapshot.interception
    _require_wanted(course.tunnel)
    if mitm is None or profile is None:
        _pass_through(course, addresses)
        return None
    decided = _decide(course, mitm, profile)
    if decided is None:
        return _intercept(course, mitm, profile, addresses)
    _intercept_at_once(course, mitm, profile, addresses, *decided)
    return None


def _pass_through(course: Course, addresses: Sequence[SocketAddress]) -> None:
    """Steps 7, 8 and 10 at once: there is nothing to decide in between."""
    tunnel, timeouts = course.tunnel, course.snapshot.settings.timeouts

    def connected(facts: Connected) -> None:
        tunnel.connected(facts, Stage.RELAY)

    chain = course.engine.chain()
    chain.connect(tunnel.client, addresses, timeout=timeouts.connect, done=connected)
    chain.write(tunnel.client, ESTABLISHED, timeout=TELL_SECONDS)
    _launch(course, chain, fail)


def _decide(
    course: Course, mitm: Interception, profile: Profile
) -> tuple[ExpectedHello, Credential, Agreement] | None:
    """9a to c, before the client's hello is there, for the one that this client most likely sends. None: that
    is not known, or what to do would have to be waited for."""
    tunnel, request, snapshot, engine, _go_on = course
    settings, host = snapshot.settings.mitm, request.authority.host
    habit = mitm.habits.find(request.agent, is_ip=request.authority.is_ip)
    if habit is None or profile.offer is None:
        return None
    sni = host.encode("ascii") if habit.has_sni else None
    plan = plan_alpn(habit.alpn, profile.offer.alpn, settings.alpn)
    if not (plan.verdict.allowed and check_sni(sni, host, settings.sni).allowed):
        return None
    agreement = Agreement(engine, tunnel, snapshot, mitm, profile.offer, habit.alpn, plan.offer)
    if agreement.may_be_rejected:
        return None
    leaf = mitm.leaves.ready(host, mitm.leaf_kind(habit.ecdsa_ok), mitm.leaf_terms)
    return None if leaf is None else (ExpectedHello(sni, habit.alpn, habit.ecdsa_ok), leaf, agreement)


def _intercept_at_once(
    course: Course,
    mitm: Interception,
    profile: Profile,
    addresses: Sequence[SocketAddress],
    expected: ExpectedHello,
    leaf: Credential,
    agreement: Agreement,
) -> None:
    """Steps 7 to 10 in one go, for the hello that is expected."""
    tunnel, snapshot = course.tunnel, course.snapshot

    def met(hello: HelloFacts) -> None:
        _greeted(tunnel, hello, snapshot)
        tunnel.leaf = leaf
        agreement.begun()

    async def go_on(failure: Exception) -> None:
        if isinstance(failure, UnexpectedHelloError):
            await _answer(course, mitm, profile, failure.facts)
            return
        if isinstance(failure, ProxyError):
            recording.upstream_hello(tunnel.record, failure.hello, snapshot.ja4)
        await _unless_relayed(course, failure)

    chain = _meeting(course, addresses, raw=snapshot.ja4 is not None, expect=expected, done=met)
    agreement.with_upstream(chain, None)
    agreement.with_client(chain, None, leaf)
    _launch(course, chain, go_on)


async def _intercept(
    course: Course, mitm: Interception, profile: Profile, addresses: Sequence[SocketAddress]
) -> None:
    """Steps 7 to 10: TLS with both sides, upstream first, then the relay."""
    # 7, 8, 9a. Connect, answer, and look at the client's hello without consuming it.
    raw = profile.offer is None or course.snapshot.ja4 is not None
    try:
        hello = await _meeting(course, addresses, raw=raw).run()
    except ProxyError as error:
        await _unless_relayed(course, error)
    else:
        await _answer(course, mitm, profile, hello)


def _meeting(
    course: Course,
    addresses: Sequence[SocketAddress],
    *,
    raw: bool,
    expect: ExpectedHello | None = None,
    done: Callable[[HelloFacts], None] | None = None,
) -> Chain[HelloFacts]:
    """Connect to upstream, tell the client so, and see how it begins."""
    tunnel, timeouts = course.tunnel, course.snapshot.settings.timeouts

    def connected(facts: Connected) -> None:
        tunnel.connected(facts, Stage.HELLO)

    chain = course.engine.chain()
    chain.connect(tunnel.client, addresses, timeout=timeouts.connect, done=connected)
    chain.write(tunnel.client, ESTABLISHED, timeout=timeouts.hello)
    return chain.peek_hello(tunnel.client, timeout=timeouts.hello, raw=raw, expect=expect, done=done)


async def _unless_relayed(course: Course, error: Exception) -> None:
    """Raises `error`, except for a client that does not speak TLS, at least not first, where such are relayed
    as they are."""
    tunnel, snapshot = course.tunnel, course.snapshot
    silent = isinstance(error, ProxyError) and error.kind in _NO_HELLO and not error.hello_begun
    if not (snapshot.settings.mitm.non_tls is NonTls.RELAY and silent and tunnel.upstream is not None):
        raise error
    tunnel.record.mode = Mode.PASSTHROUGH.value
    tunnel.stage = Stage.RELAY
    await _relay(course, course.engine.chain())


async def _answer(course: Course, mitm: Interception, profile: Profile, hello: HelloFacts) -> None:
    """What a client that begins so is answered, and upstream shown: steps 9 and 10 for whatever hello."""
    tunnel, request, snapshot, engine, _go_on = course
    settings, host = snapshot.settings.mitm, request.authority.host
    # 9a. What is it?
    _greeted(tunnel, hello, snapshot)
    # b. It must be for the host that the tunnel is for.
    require(check_sni(hello.sni, host, settings.sni), Stage.HELLO)
    # e, begun before d: a leaf that must be minted is minted while upstream is asked.
    tunnel.leaf = mitm.leaves.obtain(host, mitm.leaf_kind(hello.ecdsa_ok), mitm.leaf_terms)
    # c. What does upstream get to see?
    tunnel.stage = Stage.UPSTREAM_TLS
    offer = profile.offer_for(hello.raw or b"")
    plan = plan_alpn(hello.alpn, offer.alpn, settings.alpn)
    require(plan.verdict, Stage.ALPN)
    mitm.habits.learn(
        request.agent,
        Habit(hello.sni is not None, hello.alpn, hello.ecdsa_ok),
        is_ip=request.authority.is_ip,
    )
    # d to g, 10.
    agreement = Agreement(engine, tunnel, snapshot, mitm, offer, hello.alpn, plan.offer)
    try:
        _require_wanted(tunnel)
        if agreement.may_be_rejected or isinstance(tunnel.leaf, Future):
            await agreement.reach_with_upstream()
            tunnel.stage = Stage.LEAF
            leaf = await leaf_of(tunnel)
            tunnel.stage = Stage.CLIENT_TLS
            chain: Chain[Any] = engine.chain()
        else:
            agreement.begun()
            chain = agreement.with_upstream(engine.chain(), tunnel.dialled)
            leaf = await leaf_of(tunnel)
        agreement.with_client(chain, tunnel.dialled, leaf)
        await _relay(course, chain)
    except ProxyError as error:
        recording.upstream_hello(tunnel.record, error.hello, snapshot.ja4)
        raise


def _greeted(tunnel: Tunnel, hello: HelloFacts, snapshot: Snapshot) -> None:
    tunnel.hello = hello
    recording.hello(tunnel.record, hello)
    if snapshot.ja4 is not None:
        tunnel.record.client_ja4 = snapshot.ja4.of(hello.raw or b"")


async def _relay(course: Course, chain: Chain[Any]) -> None:
    """Step 10, at the end of a chain that has what must succeed before; upstream is connected."""
    tunnel = course.tunnel
    _require_wanted(tunnel)
    _then_relay(course, chain, tunnel.dialled)
    tunnel.relaying = True
    try:
        await chain.run()
    except BaseException:
        tunnel.relaying = False  # `relayed` will not be called
        raise
    tunnel.hello = tunnel.leaf = None  # of no use any more, and a tunnel may live long


def _launch(course: Course, chain: Chain[Any], rest: Callable[[Exception], Rest]) -> None:
    """The same without waiting, where the chain connects upstream; if something fails before the relay, the
    tunnel goes on with `rest` of that failure."""
    tunnel, go_on = course.tunnel, course.go_on

    def over(failure: Exception | None) -> None:
        if failure is None:
            tunnel.hello = tunnel.leaf = None
            return
        tunnel.relaying = False
        go_on(rest(failure))  # which may fail in turn, and is led: nothing else happens here

    _then_relay(course, chain, None)
    tunnel.relaying = True
    try:
        chain.launch(over)
    except BaseException:
        tunnel.relaying = False
        raise


def _then_relay(course: Course, chain: Chain[Any], upstream: Stream | None) -> None:
    tunnel, timeouts = course.tunnel, course.snapshot.settings.timeouts
    chain.relay(
        tunnel.client,
        upstream,
        idle=timeouts.idle,
        lifetime=timeouts.lifetime,
        half_idle=timeouts.half_closed,
        ended=tunnel.relayed,
    )


async def fail(failure: Exception) -> None:
    """All that is left of a tunnel that failed so."""
    raise failure


def _request(accepted: Accepted) -> ConnectRequest:
    if accepted.failure is None:
        return parse_connect(accepted.head)
    if accepted.failure == "nomem":
        raise ProxyError(Side.PROXY, Stage.HEAD, Kind.OUT_OF_MEMORY, _NO_MEMORY)
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


def _require_wanted(tunnel: Tunnel) -> None:
    """What was under way when the tunnel was told to end may have succeeded all the same."""
    if tunnel.told_to_end:
        raise tunnel.cut_short()
