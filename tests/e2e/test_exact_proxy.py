"""Every exact built-in profile through the running proxy, by header: the origin sees the captured client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.golden.known import NAMES, permutes, problems
from tests.golden.recorder import HOST, Answer, Recorder
from tests.peers.serve import Serve
from tests.peers.tools import run_curl

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello
    from tests.peers.certificates import Authority

CONNECTIONS = 3


@pytest.fixture(scope="module")
def proxy(ca_dir: Path, authority: Authority, mitm: Serve) -> Iterator[Serve]:
    """Its default profile is none of those asked for."""
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(authority.pem))
    with Serve(ca_dir, *options, "--profile", "default") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def recorder(authority: Authority) -> Iterator[Recorder]:
    with Recorder(Answer.FULL, authority.issue(HOST)) as recorder:
        yield recorder


def sent(proxy: Serve, recorder: Recorder, profile: str) -> list[ClientHello]:
    """The hellos of a few requests by one curl, which comes anew for each: the origin closes every time."""
    before = len(recorder.connections)
    pages = [
        part for _ in range(CONNECTIONS) for part in ("-o", os.devnull, f"https://{HOST}:{recorder.port}/")
    ]
    done = run_curl(
        proxy,
        *("--http2", "--write-out", "%{http_code} "),
        *("--proxy-header", f"X-PolyTLS-Upstream-Profile: {profile}"),
        *pages,
    )
    assert done.stdout.split() == [b"200"] * CONNECTIONS
    taken = recorder.connections[before:]
    assert [len(hellos) for hellos in taken] == [1] * CONNECTIONS
    return [hellos[0].parsed for hellos in taken]


@pytest.mark.parametrize("name", NAMES)
def test_the_origin_sees_the_profile(proxy: Serve, recorder: Recorder, name: str) -> None:
    hellos = sent(proxy, recorder, name)
    assert problems(name, hellos) == []
    assert len({hello.random for hello in hellos}) == CONNECTIONS
    assert len({share.key_exchange for hello in hellos for share in hello.key_shares[-1:]}) == CONNECTIONS
    orders = {tuple(n for n in hello.extension_types if n & 0x0F0F != 0x0A0A) for hello in hellos}
    assert (len(orders) > 1) == permutes(name)


@pytest.mark.parametrize(
    ("alias", "name"), [("chrome", "chrome-152"), ("firefox", "firefox-155"), ("safari", "safari-27.0")]
)
def test_an_alias_is_its_profile(proxy: Serve, recorder: Recorder, alias: str, name: str) -> None:
    assert problems(name, sent(proxy, recorder, alias)) == []
