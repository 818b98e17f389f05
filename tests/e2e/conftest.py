"""One proxy of each mode as a process, one recording origin, and a host name of its own for every test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import Serve

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("origins"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Path:
    """Good for every test's host name, and for the loopback addresses."""
    return authority.issue("*.lab.test", "127.0.0.1", "::1")


@pytest.fixture(scope="session")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy's root CA. Made once: an RSA key takes a moment."""
    return tmp_path_factory.mktemp("ca")


@pytest.fixture(scope="session")
def options(authority: Authority) -> tuple[str, ...]:
    """Names end at 127.0.0.1, origins' certificates are verified."""
    return ("--resolve", "*.lab.test:127.0.0.1", "--upstream-ca-file", str(authority.pem))


@pytest.fixture(scope="session")
def mitm(ca_dir: Path, options: tuple[str, ...]) -> Iterator[Serve]:
    with Serve(ca_dir, *options, "--profile", "chrome") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def passthrough(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, options: tuple[str, ...]
) -> Iterator[Serve]:
    # Clients of a passthrough proxy see the origin itself: what they must trust is the origins' root.
    with Serve(tmp_path_factory.mktemp("no-ca"), *options, "--mode", "passthrough") as proxy:
        proxy.root_pem = authority.pem
        yield proxy


@pytest.fixture(params=["mitm", "passthrough"])
def either(request: pytest.FixtureRequest) -> Serve:
    """Each mode in turn."""
    proxy = request.getfixturevalue(request.param)
    assert isinstance(proxy, Serve)
    return proxy


@pytest.fixture
def serve(ca_dir: Path, options: tuple[str, ...], mitm: Serve) -> Iterator[Callable[..., Serve]]:
    """Start proxies with more options: ``serve("--alpn", "strict")``. They use the CA of `mitm`."""
    with contextlib.ExitStack() as stack:
        yield lambda *more: stack.enter_context(Serve(ca_dir, *options, *more))


@pytest.fixture(scope="session")
def origin(certificate: Path) -> Iterator[Origin]:
    """HTTP/2 and HTTP/1.1."""
    with Origin(origin_context(certificate)) as origin:
        yield origin


@pytest.fixture
def host() -> str:
    """A name that no other test uses."""
    return f"h{next(_NUMBERS)}.lab.test"
