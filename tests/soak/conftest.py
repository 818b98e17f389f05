"""The proxy as a subject of faults, and the native origin."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.bench.spawn import Origin, origin
from tests.soak import judge
from tests.soak.driver import SHIM, Driven, driven
from tests.soak.load import ORIGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHORT_TIMEOUTS = {
    "head": 4.0,
    "resolve": 1.0,
    "connect": 1.0,
    "hello": 4.0,
    "handshake": 2.0,
    "idle": 30.0,
    "half_closed": 10.0,
}
"""So that what waits for a deadline does not wait long."""


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    if not SHIM.exists() or not ORIGIN.exists():
        pytest.skip("the native programs are not built: `make bench-build`")
    with origin(ORIGIN, tmp_path_factory.mktemp("origin")) as found:
        yield found


@pytest.fixture(scope="module")
def struck(upstream: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """A proxy of one loop for all who strike single calls; at rest after the last of them."""
    wanted = {"timeouts": SHORT_TIMEOUTS, "threads": 1}
    with driven(tmp_path_factory.mktemp("struck"), upstream.ca, faults=True, wanted=wanted) as found:
        before = found.snapshot()
        yield found
        after = found.snapshot()
        assert not judge.at_rest(after)
        assert after["descriptors"] == before["descriptors"]


@pytest.fixture
def start(upstream: Origin, tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    """Starts subjects; each is at rest when the test is over, whatever befell it."""
    with ExitStack() as stack:
        begun: list[tuple[Driven, dict[str, Any]]] = []

        def start(*, faults: bool = False, **wanted: Any) -> Driven:
            wanted.setdefault("timeouts", SHORT_TIMEOUTS)
            directory = tmp_path / f"proxy{len(begun)}"
            found = stack.enter_context(driven(directory, upstream.ca, faults=faults, wanted=wanted))
            begun.append((found, found.snapshot()))
            return found

        yield start
        for subject, before in begun:
            after = subject.snapshot()
            assert not judge.at_rest(after)
            assert after["descriptors"] == before["descriptors"]
