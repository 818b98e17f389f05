from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.proxy import resolve as module
from polytls.proxy.resolve import MAX_ADDRESSES, Overrides, Resolver, interleave, is_address, system_lookup
from polytls.settings import UpstreamSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytls.engine.facts import SocketAddress

T = TypeVar("T")
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lookups:
    """A resolver that answers from a table, counts, and can be held up."""

    def __init__(self, answers: dict[str, Sequence[str] | Exception] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        assert self.go_on.wait(60)
        answer = self.answers.get(host, ["192.0.2.1"])
        if isinstance(answer, Exception):
            raise answer
        return answer


def resolver(
    lookups: Callable[[str], Sequence[str]],
    *,
    timeout: float = 30.0,
    ttl: float = 30.0,
    clock: Callable[[], float] | None = None,
    **upstream: Any,
) -> Resolver:
    overrides = Overrides(UpstreamSettings(**upstream))
    return Resolver(overrides, timeout=timeout, ttl=ttl, lookup=lookups, clock=clock or Clock())


def texts(addresses: Sequence[SocketAddress]) -> list[str]:
    return [str(address) for address in addresses]


# The order


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        ([], ()),
        (["192.0.2.1"], ("192.0.2.1",)),
        (["::1", "::2", "192.0.2.1"], ("::1", "192.0.2.1", "::2")),
        (["192.0.2.1", "192.0.2.2", "::1"], ("192.0.2.1", "::1", "192.0.2.2")),
        (["::1", "192.0.2.1", "::2", "192.0.2.2"], ("::1", "192.0.2.1", "::2", "192.0.2.2")),
        (["::1", "::2", "::3"], ("::1", "::2", "::3")),
        (["::1", "192.0.2.1", "192.0.2.1", "::1"], ("::1", "192.0.2.1")),
    ],
)
def test_families_alternate_from_the_first(addresses: list[str], order: tuple[str, ...]) -> None:
    assert interleave(addresses) == order


@given(st.lists(st.ip_addresses().map(str)))
def test_interleaving_keeps_the_order_within_a_family(addresses: list[str]) -> None:
    order = interleave(addresses)
    unique = list(dict.fromkeys(addresses))
    assert len(order) == min(len(unique), MAX_ADDRESSES)
    for family in (True, False):
        of_family = [address for address in unique if (":" in address) is family]
        found = [address for address in order if (":" in address) is family]
        assert found == of_family[: len(found)]
    families = [":" in address for address in order]
    changes = list(itertools.groupby(families))
    # Alternating means: once a family comes twice in a row, the other one is used up.
    runs = [len(list(group)) for _, group in itertools.groupby(families)]
    assert all(run == 1 for run in runs[:-1])
    assert not changes or changes[0][0] == (":" in unique[0])


@pytest.mark.parametrize(("count", "dialled"), [(15, 15), (16, 16), (17, 16)])
def test_so_many_addresses_and_no_more(count: int, dialled: int) -> None:
    assert len(interleave([f"192.0.2.{number}" for number in range(count)])) == dialled


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("2001:db8::1", True),
        ("example.com", False),
        ("127.1", False),
        ("", False),
        ("[::1]", False),
        ("1.2.3.4.example", False),
    ],
)
def test_what_an_address_is(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


# Overrides


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("exact.test", "10.0.0.1:443"),
        ("port.test", "10.0.0.2:8443"),
        ("six.test", "[::1]:8443"),
        ("bare6.test", "[2001:db8::1]:443"),
        ("a.wild.test", "10.0.0.3:443"),
        ("a.b.wild.test", "10.0.0.3:443"),
        ("a.deep.wild.test", "10.0.0.4:443"),
        ("named.wild.test", "10.0.0.5:443"),
        ("wild.test", None),
        ("notwild.test", None),
        ("other.test", None),
    ],
)
def test_names_are_mapped_exactly_first_then_by_the_longest_suffix(host: str, dialled: str | None) -> None:
    mapped = resolver(
        Lookups(),
        resolve=(
            ("exact.test", "10.0.0.1"),
            ("port.test", "10.0.0.2:8443"),
            ("six.test", "[::1]:8443"),
            ("bare6.test", "2001:db8::1"),
            ("*.wild.test", "10.0.0.3"),
            ("*.deep.wild.test", "10.0.0.4"),
            ("named.wild.test", "10.0.0.5"),
        ),
    )
    known = mapped.known(host, 443)
    assert (known and texts(known)) == (dialled and [dialled])


@pytest.mark.parametrize(
    ("upstream", "dialled"),
    [
        ("127.0.0.1:9443", "127.0.0.1:9443"),
        ("[::1]:9443", "[::1]:9443"),
        ("origin.test:9443", "10.0.0.9:9443"),
    ],
)
def test_everything_is_dialled_to_the_default_upstream(upstream: str, dialled: str) -> None:
    mapped = resolver(
        Lookups(),
        default_upstream=upstream,
        resolve=(("origin.test", "10.0.0.9"), ("example.com", "10.0.0.1")),
    )
    for host in ("example.com", "192.0.2.1", "other.test"):
        assert texts(mapped.known(host, 443) or ()) == [dialled]


def test_addresses_are_not_looked_up() -> None:
    lookups = Lookups()
    subject = resolver(lookups)
    assert texts(subject.known("192.0.2.7", 1) or ()) == ["192.0.2.7:1"]
    assert texts(subject.known("2001:db8::7", 65535) or ()) == ["[2001:db8::7]:65535"]
    assert lookups.asked == []


# Looking up


def test_an_answer_is_interleaved_and_kept_for_its_time() -> None:
    lookups = Lookups({"example.com": ["::1", "::2", "192.0.2.1"]})
    clock = Clock()
    subject = resolver(lookups, clock=clock, ttl=30)

    async def scenario() -> None:
        expected = ["[::1]:443", "192.0.2.1:443", "[::2]:443"]
        assert subject.known("example.com", 443) is None
        assert texts(await subject.resolve("example.com", 443)) == expected
        clock.now += 29.9
        assert texts(subject.known("example.com", 443) or ()) == expected
        assert texts(await subject.resolve("example.com", 80)) == [f"{a[:-3]}80" for a in expected]
        assert lookups.asked == ["example.com"]
        clock.now += 0.2
        assert subject.known("example.com", 443) is None
        await subject.resolve("example.com", 443)
        assert lookups.asked == ["example.com"] * 2

    asyncio.run(scenario())


def test_without_a_ttl_nothing_is_kept() -> None:
    lookups = Lookups()
    subject = resolver(lookups, ttl=0)

    async def scenario() -> None:
        await subject.resolve("example.com", 443)
        await subject.resolve("example.com", 443)

    asyncio.run(scenario())
    assert len(lookups.asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "side", "detail"),
    [
        (
            NO_NAME,
            Kind.NAME_NOT_FOUND,
            Side.UPSTREAM,
            "gone.test has no address; check the name, or map it with --resolve",
        ),
        (
            [],
            Kind.NAME_NOT_FOUND,
            Side.UPSTREAM,
            "gone.test has no address; check the name, or map it with --resolve",
        ),
        (
            TRY_AGAIN,
            Kind.RESOLVE_FAILED,
            Side.PROXY,
            "gone.test could not be looked up: Temporary failure in name resolution",
        ),
        (OSError(5, "disk"), Kind.RESOLVE_FAILED, Side.PROXY, None),
        (ValueError("what"), Kind.RESOLVE_FAILED, Side.PROXY, "gone.test could not be looked up: ValueError"),
    ],
)
def test_failures_have_names_and_are_kept_briefly(
    answer: Sequence[str] | Exception, kind: Kind, side: Side, detail: str | None
) -> None:
    lookups = Lookups({"gone.test": answer})
    clock = Clock()
    subject = resolver(lookups, clock=clock)

    async def scenario() -> None:
        with pytest.raises(ProxyError) as caught:
            await subject.resolve("gone.test", 443)
        assert (caught.value.kind, caught.value.side, caught.value.stage) == (kind, side, Stage.CONNECT)
        assert detail is None or caught.value.detail == detail
        with pytest.raises(ProxyError) as again:
            subject.known("gone.test", 443)
        assert again.value is not caught.value
        assert again.value.kind is kind
        clock.now += module.NEGATIVE_TTL_SECONDS
        assert subject.known("gone.test", 443) is None

    asyncio.run(scenario())
    assert len(lookups.asked) == 1


def test_all_who_ask_at_once_share_one_lookup() -> None:
    lookups = Lookups()
    lookups.go_on.clear()
    subject = resolver(lookups)

    async def scenario() -> None:
        waiting = [asyncio.ensure_future(subject.resolve("example.com", port)) for port in range(1, 101)]
        await asyncio.sleep(0)
        lookups.go_on.set()
        answers = await asyncio.gather(*waiting)
        assert [texts(answer) for answer in answers] == [[f"192.0.2.1:{port}"] for port in range(1, 101)]

    asyncio.run(scenario())
    assert lookups.asked == ["example.com"]


def test_one_who_gives_up_takes_the_answer_from_nobody() -> None:
    lookups = Lookups()
    lookups.go_on.clear()
    subject = resolver(lookups)

    async def scenario() -> None:
        leaver = asyncio.ensure_future(subject.resolve("example.com", 1))
        stayer = asyncio.ensure_future(subject.resolve("example.com", 2))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        lookups.go_on.set()
        assert texts(await stayer) == ["192.0.2.1:2"]

    asyncio.run(scenario())


def test_a_resolver_that_does_not_answer_is_a_timeout_and_stalls_nobody_else() -> None:
    stuck = threading.Event()

    def lookup(host: str) -> Sequence[str]:
        if host.startswith("dead"):
            assert stuck.wait(60)
        return ["192.0.2.1"]

    subject = resolver(lookup, timeout=0.05)

    async def scenario() -> None:
        dead = [asyncio.ensure_future(subject.resolve(f"dead{n}.test", 443)) for n in range(20)]
        assert texts(await subject.resolve("alive.test", 443)) == ["192.0.2.1:443"]
        for result in await asyncio.gather(*dead, return_exceptions=True):
            assert isinstance(result, ProxyError)
            assert result.kind is Kind.RESOLVE_TIMEOUT
            assert "was not resolved within 0.05 s" in result.detail

    try:
        asyncio.run(scenario())
    finally:
        stuck.set()


def test_a_dead_resolver_costs_so_many_threads_and_then_fails_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_LOOKUP_THREADS", 4)
    monkeypatch.setattr(module, "MAX_LOOKUPS_WAITING", 3)
    lookups = Lookups()
    lookups.go_on.clear()
    subject = resolver(lookups)

    async def scenario() -> None:
        waiting = []
        for number in range(4):
            waiting.append(asyncio.ensure_future(subject.resolve(f"{number}.test", 443)))
            while len(lookups.asked) <= number:  # noqa: ASYNC110 - it is a thread that takes it
                await asyncio.sleep(0)
        waiting += [asyncio.ensure_future(subject.resolve(f"{n}.test", 443)) for n in range(4, 7)]
        await asyncio.sleep(0)
        with pytest.raises(ProxyError) as caught:
            await subject.resolve("one-too-many.test", 443)
        assert caught.value.kind is Kind.RESOLVE_FAILED
        assert "lookups wait already" in caught.value.detail
        assert len(lookups.asked) == 4
        lookups.go_on.set()
        await asyncio.gather(*waiting)
        await subject.resolve("one-too-many.test", 443)  # which works again

    asyncio.run(scenario())


def test_what_nobody_waits_for_any_more_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOOKUP_THREADS", 1)
    lookups = Lookups()
    lookups.go_on.clear()
    subject = resolver(lookups)

    async def scenario() -> None:
        first = asyncio.ensure_future(subject.resolve("first.test", 443))
        while not lookups.asked:  # noqa: ASYNC110 - it is a thread that asks
            await asyncio.sleep(0)
        left = asyncio.ensure_future(subject.resolve("left.test", 443))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        last = asyncio.ensure_future(subject.resolve("last.test", 443))
        await asyncio.sleep(0)
        lookups.go_on.set()
        await asyncio.gather(first, last)
        assert lookups.asked == ["first.test", "last.test"]
        assert texts(await subject.resolve("left.test", 443)) == ["192.0.2.1:443"]

    asyncio.run(scenario())


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_NAMES", 3)
    subject = resolver(Lookups())

    async def scenario() -> None:
        for number in range(4):
            await subject.resolve(f"{number}.test", 443)
            assert sum(subject.known(f"{n}.test", 443) is not None for n in range(4)) == min(number + 1, 3)
        assert subject.known("0.test", 443) is None

    asyncio.run(scenario())


def test_a_lookup_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from polytls.errors import ProxyError
from polytls.proxy.resolve import Overrides, Resolver
from polytls.settings import UpstreamSettings
never = threading.Event()
resolver = Resolver(Overrides(UpstreamSettings()), timeout=0.01, ttl=1, lookup=lambda host: never.wait())
try:
    asyncio.run(resolver.resolve("example.com", 443))
except ProxyError as error:
    print(error.kind.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "resolve_timeout\n", "")


def test_the_systems_resolver_knows_localhost() -> None:
    assert set(system_lookup("localhost")) <= {"127.0.0.1", "::1"}
    assert system_lookup("localhost")
