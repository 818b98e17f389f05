"""The cache: each host minted once, bounded, never stale, and usable from asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError
from polytls.pki.cache import EXPIRY_MARGIN, CacheStats, LeafCache, Terms
from polytls.pki.leaf import Leaf, LeafKeys, LeafKind
from polytls.pki.root import load_or_create
from polytls.settings import RootKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from polytls.pki.audit import MintEvent
    from polytls.pki.root import RootCA

DAY = 86400.0
WAIT = 30  # seconds; how long a result may take before the test is given up


class Clock:
    """POSIX seconds that pass when a test says so."""

    def __init__(self, root: RootCA) -> None:
        self.now = root.not_before.timestamp() + 2 * DAY

    def __call__(self) -> float:
        return self.now


class Caches:
    """Makes caches that are closed when the test ends, and keeps what they reported."""

    def __init__(self, root: RootCA, keys: LeafKeys) -> None:
        self.root, self.keys = root, keys
        self.clock = Clock(root)
        self.events: list[MintEvent] = []
        self._open: list[LeafCache[Leaf]] = []

    def make(
        self,
        build: Callable[[Leaf], Leaf] = lambda leaf: leaf,
        *,
        audit: Callable[[MintEvent], None] | None = None,
        ttl: float = 3600.0,
        max_entries: int = 100,
        days: int = 90,
    ) -> LeafCache[Leaf]:
        cache = LeafCache(
            self.root,
            self.keys,
            build,
            audit=audit or self.events.append,
            ttl=ttl,
            max_entries=max_entries,
            days=days,
            clock=self.clock,
        )
        self._open.append(cache)
        return cache

    def close(self) -> None:
        for cache in self._open:
            cache.close()


@pytest.fixture
def caches(root: RootCA, keys: LeafKeys) -> Iterator[Caches]:
    made = Caches(root, keys)
    yield made
    made.close()


def mint(cache: LeafCache[Leaf], host: str, kind: LeafKind = LeafKind.ECDSA) -> Leaf:
    return cache.mint(host, kind).result(WAIT)


def get(cache: LeafCache[Leaf], host: str) -> Leaf | None:
    return cache.get(host, LeafKind.ECDSA)


def test_a_miss_a_mint_and_a_hit(caches: Caches) -> None:
    cache = caches.make()
    assert get(cache, "a.example") is None
    leaf = mint(cache, "a.example")
    assert get(cache, "a.example") is leaf
    assert leaf.host == "a.example"
    assert cache.stats() == CacheStats(hits=1, misses=1, mints=1, failures=0, evictions=0, size=1)


def test_kinds_and_hosts_are_apart(caches: Caches) -> None:
    cache = caches.make()
    leaves = [mint(cache, host, kind) for host in ("a.example", "b.example") for kind in LeafKind]
    assert len({leaf.serial for leaf in leaves}) == 4
    assert [cache.get(leaf.host, leaf.kind) for leaf in leaves] == leaves


def test_the_stored_value_is_what_build_makes(root: RootCA, keys: LeafKeys) -> None:
    built: list[Leaf] = []

    def build(leaf: Leaf) -> str:
        built.append(leaf)
        return f"credential of {leaf.host}"

    cache = LeafCache(root, keys, build, audit=lambda _: None, ttl=60, max_entries=5, days=1)
    assert cache.mint("a.example", LeafKind.ECDSA).result(WAIT) == "credential of a.example"
    assert cache.get("a.example", LeafKind.ECDSA) == "credential of a.example"
    assert len(built) == 1
    cache.close()


def test_fifty_threads_mint_one_leaf(caches: Caches) -> None:
    cache = caches.make()
    together = threading.Barrier(50)
    serials: list[int] = []

    def ask() -> None:
        together.wait(WAIT)
        leaf = get(cache, "a.example") or mint(cache, "a.example")
        serials.append(leaf.serial)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(serials) == 50
    assert len(set(serials)) == 1
    assert len(caches.events) == cache.stats().mints == 1


def test_many_threads_and_hosts_mint_each_once(caches: Caches) -> None:
    cache = caches.make()
    hosts = [f"h{n}.example" for n in range(20)]

    def ask(offset: int) -> None:
        for host in hosts[offset:] + hosts[:offset]:
            assert mint(cache, host).host == host

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(event.host for event in caches.events) == Counter(hosts)


def test_one_flight_while_it_lasts(caches: Caches) -> None:
    """`mint` shares the running future, and after it the entry."""
    go = threading.Event()

    def build(leaf: Leaf) -> Leaf:
        assert go.wait(WAIT)
        return leaf

    cache = caches.make(build)
    first = cache.mint("a.example", LeafKind.ECDSA)
    assert cache.mint("a.example", LeafKind.ECDSA) is first
    assert get(cache, "a.example") is None
    go.set()
    leaf = first.result(WAIT)
    later = cache.mint("a.example", LeafKind.ECDSA)
    assert later is not first
    assert later.done()
    assert later.result() is leaf
    assert cache.stats().mints == 1


def test_asyncio_waiters_that_give_up_take_nothing_from_the_others(caches: Caches) -> None:
    go = threading.Event()

    def build(leaf: Leaf) -> Leaf:
        assert go.wait(WAIT)
        return leaf

    cache = caches.make(build)

    async def ask() -> Leaf:
        return await asyncio.wrap_future(cache.mint("a.example", LeafKind.ECDSA))

    async def main() -> list[Leaf | BaseException]:
        tasks = [asyncio.ensure_future(ask()) for _ in range(10)]
        await asyncio.sleep(0)  # each begins to wait
        for task in tasks[:5]:
            task.cancel()
        await asyncio.wait(tasks[:5])
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:5])
    assert len({result.serial for result in results[5:] if isinstance(result, Leaf)}) == 1
    assert cache.stats().mints == 1
    assert not cache.mint("b.example", LeafKind.ECDSA).cancel()


# Freshness


def test_the_ttl(caches: Caches) -> None:
    cache = caches.make(ttl=100)
    leaf = mint(cache, "a.example")
    caches.clock.now += 99
    assert get(cache, "a.example") is leaf
    caches.clock.now += 1
    assert get(cache, "a.example") is None
    again = mint(cache, "a.example")
    assert again.serial != leaf.serial
    assert get(cache, "a.example") is again
    assert cache.stats().size == 1
    assert cache.stats().evictions == 0


def test_a_ttl_of_nothing_keeps_single_flight_alone(caches: Caches) -> None:
    cache = caches.make(ttl=0)
    assert mint(cache, "a.example").serial != mint(cache, "a.example").serial
    assert get(cache, "a.example") is None


def test_a_leaf_near_its_end_is_not_handed_out(caches: Caches) -> None:
    cache = caches.make(ttl=1000 * DAY, days=1)
    leaf = mint(cache, "a.example")
    caches.clock.now = (leaf.not_after - EXPIRY_MARGIN).timestamp() - 1
    assert get(cache, "a.example") is leaf
    caches.clock.now += 1
    assert get(cache, "a.example") is None
    assert mint(cache, "a.example").not_after > leaf.not_after


def test_a_clock_set_back_before_the_leaf(caches: Caches) -> None:
    cache = caches.make()
    leaf = mint(cache, "a.example")
    caches.clock.now = leaf.not_before.timestamp()
    assert get(cache, "a.example") is leaf
    caches.clock.now -= 1
    assert get(cache, "a.example") is None


def test_a_root_at_its_end(caches: Caches) -> None:
    """While it lasts its leaves are handed out, each to those who wait for it; then the reason is."""
    cache = caches.make()
    caches.clock.now = caches.root.not_after.timestamp() - 1
    assert mint(cache, "a.example").not_after == caches.root.not_after
    assert get(cache, "a.example") is None
    caches.clock.now += 1
    with pytest.raises(ProxyError, match="root CA") as caught:
        mint(cache, "a.example")
    assert caught.value.kind is Kind.LEAF_FAILED


# Bounds


@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_the_bound(caches: Caches, hosts: int) -> None:
    cache = caches.make(max_entries=3)
    for n in range(hosts):
        mint(cache, f"h{n}.example")
    assert cache.stats().size == min(hosts, 3)
    assert cache.stats().evictions == max(0, hosts - 3)
    assert (get(cache, "h0.example") is None) == (hosts > 3)


def test_the_least_recently_used_goes_first(caches: Caches) -> None:
    cache = caches.make(max_entries=2)
    mint(cache, "a.example")
    mint(cache, "b.example")
    assert get(cache, "a.example")
    mint(cache, "c.example")
    assert get(cache, "b.example") is None
    assert get(cache, "a.example")
    assert get(cache, "c.example")


@settings(max_examples=20, deadline=None)
@given(asked=st.lists(st.integers(0, 5), max_size=15), bound=st.integers(1, 4))
def test_it_is_an_lru_of_any_size(root: RootCA, keys: LeafKeys, asked: list[int], bound: int) -> None:
    caches = Caches(root, keys)
    cache = caches.make(max_entries=bound)
    model: list[int] = []  # the least recently used first
    for n in asked:
        hit = get(cache, f"h{n}.example") is not None
        assert hit == (n in model)
        if hit:
            model.remove(n)
        else:
            mint(cache, f"h{n}.example")
        model = [*model, n][-bound:]
        assert cache.stats().size == len(model)
    caches.close()


@pytest.mark.parametrize(("ttl", "max_entries", "days"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 398)])
def test_nonsense(caches: Caches, ttl: float, max_entries: int, days: int) -> None:
    with pytest.raises(ValueError, match="not "):
        caches.make(ttl=ttl, max_entries=max_entries, days=days)


# Failures and the end


def test_a_host_that_cannot_be_minted(caches: Caches) -> None:
    cache = caches.make()
    with pytest.raises(ProxyError) as caught:
        mint(cache, "*.example")
    assert caught.value.kind is Kind.LEAF_FAILED
    assert caches.events == []
    assert cache.stats() == CacheStats(hits=0, misses=0, mints=0, failures=1, evictions=0, size=0)


def test_a_failure_is_not_remembered(caches: Caches) -> None:
    failures = iter([RuntimeError("no memory for a credential")])

    def build(leaf: Leaf) -> Leaf:
        for failure in failures:
            raise failure
        return leaf

    cache = caches.make(build)
    with pytest.raises(RuntimeError, match="no memory"):
        mint(cache, "a.example")
    assert get(cache, "a.example") is None
    assert mint(cache, "a.example") is get(cache, "a.example")
    assert len(caches.events) == cache.stats().mints == 2  # both were signed, both are on record


def test_close(caches: Caches) -> None:
    cache = caches.make()
    mint(cache, "a.example")
    cache.close()
    cache.close()
    assert get(cache, "a.example") is None
    assert cache.stats().size == 0
    with pytest.raises(ProxyError, match="shutting down") as caught:
        mint(cache, "a.example")
    assert caught.value.kind is Kind.CANCELLED


def test_close_leaves_nobody_waiting(caches: Caches) -> None:
    go = threading.Event()

    def build(leaf: Leaf) -> Leaf:
        assert go.wait(WAIT)
        return leaf

    cache = caches.make(build)
    futures = [cache.mint(f"h{n}.example", LeafKind.ECDSA) for n in range(20)]
    closing = threading.Thread(target=cache.close)
    closing.start()
    # The last one runs only if close() came too late for it: either way it is settled.
    go.set()
    closing.join(WAIT)
    assert not closing.is_alive()
    for future in futures:
        assert future.done()
        error = future.exception()
        assert error is None or (isinstance(error, ProxyError) and error.kind is Kind.CANCELLED)


def test_repr_shows_counts_alone(caches: Caches) -> None:
    assert repr(caches.make()).startswith("LeafCache(CacheStats(hits=0")


def test_the_wall_clock_is_the_default(root: RootCA, keys: LeafKeys) -> None:
    cache = LeafCache(root, keys, lambda leaf: leaf, audit=lambda _: None, ttl=60, max_entries=5, days=1)
    before = datetime.now(timezone.utc)
    leaf = cache.mint("a.example", LeafKind.ECDSA).result(WAIT)
    assert leaf.not_before < before < leaf.not_after
    assert cache.get("a.example", LeafKind.ECDSA) is leaf
    cache.close()


@pytest.fixture
def fast(keys: LeafKeys, tmp_path: Path) -> Iterator[Caches]:
    """Caches of a root that signs fast."""
    made = Caches(load_or_create(tmp_path / "key", tmp_path / "cert", None, kind=RootKey.ECDSA), keys)
    made.clock.now = datetime.now(timezone.utc).timestamp()
    yield made
    made.close()


def test_what_an_ecdsa_root_signs_is_there_at_once(fast: Caches) -> None:
    cache = fast.make()
    leaf = cache.obtain("a.test", LeafKind.ECDSA)
    assert isinstance(leaf, Leaf)
    assert cache.obtain("a.test", LeafKind.ECDSA) is leaf
    assert [event.host for event in fast.events] == ["a.test"]
    rsa_leaf = cache.obtain("a.test", LeafKind.RSA)  # whose key may still be generated
    assert isinstance(rsa_leaf, Future)
    assert rsa_leaf.result(WAIT).kind is LeafKind.RSA
    failed = cache.obtain("no host at all", LeafKind.ECDSA)
    assert isinstance(failed, Future)
    with pytest.raises(ProxyError) as caught:
        failed.result(WAIT)
    assert caught.value.kind is Kind.LEAF_FAILED


@pytest.mark.parametrize("fails", [False, True])
def test_who_asks_for_what_is_minted_on_the_spot_shares_it(fast: Caches, fails: bool) -> None:
    others: list[Leaf | Future[Leaf]] = []

    def build(leaf: Leaf) -> Leaf:  # meanwhile
        others.extend([cache.mint(leaf.host, leaf.kind), cache.obtain(leaf.host, leaf.kind)])
        if fails:
            raise RuntimeError("no")
        return leaf

    cache = fast.make(build)
    leaf = cache.obtain("a.test", LeafKind.ECDSA)
    first, second = others
    assert isinstance(first, Future)
    assert first is second
    assert not first.cancel()
    if fails:
        assert leaf is first
        with pytest.raises(RuntimeError, match="no"):
            first.result(WAIT)
    else:
        assert first.result(WAIT) is leaf
    assert (cache.stats().mints, cache.stats().failures) == (1, int(fails))


def test_a_cache_that_closes_fails_who_waits_for_what_is_minted_on_the_spot(fast: Caches) -> None:
    others: list[Future[Leaf]] = []

    def build(leaf: Leaf) -> Leaf:
        others.append(cache.mint(leaf.host, leaf.kind))
        cache.close()
        return leaf

    cache = fast.make(build)
    assert isinstance(cache.obtain("a.test", LeafKind.ECDSA), Leaf)
    with pytest.raises(ProxyError) as caught:
        others[0].result(WAIT)
    assert caught.value.kind is Kind.CANCELLED


def test_what_an_rsa_root_signs_is_minted_on_a_thread(caches: Caches) -> None:
    cache = caches.make()
    minted = cache.obtain("a.test", LeafKind.ECDSA)
    assert isinstance(minted, Future)
    leaf = minted.result(WAIT)
    assert cache.obtain("a.test", LeafKind.ECDSA) is leaf


def test_what_is_ready_need_not_be_waited_for(caches: Caches, fast: Caches) -> None:
    cache = fast.make()
    leaf = cache.ready("a.test", LeafKind.ECDSA)
    assert leaf is not None
    assert cache.ready("a.test", LeafKind.ECDSA) is leaf
    assert cache.ready("no host at all", LeafKind.ECDSA) is None
    slow = caches.make()
    assert slow.ready("a.test", LeafKind.ECDSA) is None
    assert slow.stats() == CacheStats(0, 0, 0, 0, 0, 0)  # `obtain` will count it
    minted = slow.mint("a.test", LeafKind.ECDSA).result(WAIT)
    assert slow.ready("a.test", LeafKind.ECDSA) is minted
    assert slow.stats().hits == 1


# Other settings


def test_other_settings_let_go_of_leaves_that_were_made_by_others(caches: Caches) -> None:
    cache = caches.make()
    first = mint(cache, "a.example")
    cache.change(ttl=3600.0, max_entries=5, days=90)
    assert get(cache, "a.example") is first
    cache.change(ttl=3600.0, max_entries=5, days=7)
    assert get(cache, "a.example") is None
    second = mint(cache, "a.example")
    assert second.not_after < first.not_after
    cache.change(ttl=60.0, max_entries=5, days=7)
    assert get(cache, "a.example") is None
    third = mint(cache, "a.example")
    caches.clock.now += 61
    assert get(cache, third.host) is None


def test_a_leaf_under_way_while_settings_change_is_for_who_has_asked_by_then(caches: Caches) -> None:
    building, go_on = threading.Event(), threading.Event()

    def build(leaf: Leaf) -> Leaf:
        building.set()
        assert go_on.wait(WAIT)
        return leaf

    cache = caches.make(build)
    before = cache.mint("a.example", LeafKind.ECDSA)
    assert building.wait(WAIT)
    cache.change(ttl=3600.0, max_entries=5, days=7)
    after = cache.mint("a.example", LeafKind.ECDSA)
    go_on.set()
    assert after.result(WAIT).not_after < before.result(WAIT).not_after
    assert get(cache, "a.example") is after.result(WAIT)
    assert cache.stats().size == 1


def test_who_goes_by_terms_of_before_has_a_leaf_by_them_and_nobody_else_has(caches: Caches) -> None:
    cache = caches.make(days=90)
    cache.change(ttl=3600.0, max_entries=5, days=7)
    own = cache.mint("a.example", LeafKind.ECDSA, Terms(3600.0, 90)).result(WAIT)
    present = mint(cache, "a.example")
    assert present.not_after < own.not_after
    assert get(cache, "a.example") is present
    assert cache.get("a.example", LeafKind.ECDSA, Terms(3600.0, 90)) is None
    assert cache.stats().size == 1


def test_a_smaller_cache_keeps_the_most_recently_used(caches: Caches) -> None:
    cache = caches.make()
    for host in ("a.example", "b.example", "c.example"):
        mint(cache, host)
    get(cache, "a.example")
    cache.change(ttl=3600.0, max_entries=2, days=90)
    assert get(cache, "b.example") is None
    assert get(cache, "a.example")
    assert get(cache, "c.example")
    assert cache.stats().evictions == 1
    with pytest.raises(ValueError, match="max_entries"):
        cache.change(ttl=1.0, max_entries=0, days=1)
