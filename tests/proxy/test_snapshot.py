"""Profiles made ready for the engine: once each, whoever asks by whatever spelling."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from polytls.profiles import Catalog
from polytls.proxy.snapshot import Contexts, Profiles

if TYPE_CHECKING:
    from polytls.engine import ClientContext
    from polytls.profiles import HelloSpec
    from polytls.proxy.mirror import Mirror


class Bench:
    def __init__(self) -> None:
        self.made: list[HelloSpec] = []
        self.profiles = Profiles(Catalog.load({}, "test"), Contexts(self._make), self._mirror)
        self.mirrors = 0

    def _make(self, spec: HelloSpec) -> ClientContext:
        self.made.append(spec)
        return cast("ClientContext", object())

    def _mirror(self) -> Mirror:
        self.mirrors += 1
        return cast("Mirror", object())


def test_a_profile_is_ready_when_it_has_been_found() -> None:
    bench = Bench()
    assert bench.profiles.ready("firefox") is None
    found = bench.profiles.find("firefox")
    assert found is not None
    for name in ("firefox", "FIREFOX", "Firefox"):
        assert bench.profiles.ready(name) is found
    assert bench.profiles.find("none") is None
    assert bench.profiles.ready("none") is None


def test_spellings_and_threads_share_one_context() -> None:
    bench = Bench()
    spellings = ["".join(letters) for letters in itertools.product("cC", "hH", "rR", "oO", "mM", "eE")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(bench.profiles.find, [*spellings, "chrome-152", "Chrome-152"]))
    assert len(bench.made) == 1
    assert {profile.name for profile in found if profile} == {"chrome-152"}
    assert len({id(profile.offer.context) for profile in found if profile and profile.offer}) == 1
    assert len(bench.profiles._ready) == 2


def test_mirror_is_made_when_it_is_asked_for() -> None:
    bench = Bench()
    bench.profiles.find("chrome")
    assert bench.mirrors == 0
    assert bench.profiles.find("Mirror") is bench.profiles.find("mirror") is bench.profiles.ready("MIRROR")
    assert bench.mirrors == 1
