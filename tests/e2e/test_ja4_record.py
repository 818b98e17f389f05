"""`log.fingerprint`: the record names both hellos as they really were, client's and upstream's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polytls.profiles import Catalog
from tests.peers.clients import client_context, tls_tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import Serve
from tests.peers.tools import fetch, require

if TYPE_CHECKING:
    from tests.peers.certificates import Authority

FINGERPRINT = {"POLYTLS_LOG__FINGERPRINT": "true"}
PROFILE = "X-PolyTLS-Upstream-Profile"


@pytest.fixture(scope="module")
def proxy(ca_dir: Path, options: tuple[str, ...], mitm: Serve) -> Iterator[Serve]:
    with Serve(ca_dir, *options, environ=FINGERPRINT) as proxy:
        yield proxy


def visit(
    proxy: Serve, origin: Origin, host: str, profile: str, *, alpn: tuple[str, ...] = ("h2", "http/1.1")
) -> tuple[dict[str, Any], str]:
    """The record's JA4s, and the JA4 of what the origin got."""
    before = len(proxy.records(host, 0))
    context = client_context(proxy.root_pem, alpn=alpn)
    with tls_tunnel(proxy, host, origin.port, context, f"{PROFILE}: {profile}"):
        pass
    record = proxy.records(host, before + 1)[before]
    return record["ja4"], origin.seen.get(timeout=10).report.ja4.ja4


def names() -> list[str]:
    return list(Catalog.load({}, "test").names())


@pytest.mark.parametrize("name", names())
def test_upstreams_ja4_is_that_of_the_hello_the_origin_got(
    proxy: Serve, certificate: Path, host: str, name: str
) -> None:
    """With a ticket too, which adds an extension, and with narrowed ALPN, which changes another."""
    with (
        Origin(origin_context(certificate, maximum=ssl.TLSVersion.TLSv1_2)) as old,
        Origin(origin_context(certificate)) as origin,
    ):
        seen = set()
        for alpn in (("h2", "http/1.1"), ("h2", "http/1.1"), ("http/1.1",), ()):
            for one in (origin, old):
                told, got = visit(proxy, one, host, name, alpn=alpn)
                assert told["upstream"] == got
                seen.add(got)
        assert seen


def test_names_of_any_length_and_addresses(proxy: Serve, certificate: Path, host: str) -> None:
    """Padding depends on the name's length, and an address is no name at all."""
    with Origin(origin_context(certificate)) as origin:
        for wanted in ("127.0.0.1", *(f"{'x' * size}{host}" for size in (1, 13, 37, 50))):
            for profile in ("chrome-99", "safari-15.3", "curl"):
                told, got = visit(proxy, origin, wanted, profile)
                assert told["upstream"] == got
                assert got[3] == ("i" if wanted == "127.0.0.1" else "d")


def test_the_clients_ja4_is_that_of_the_hello_it_sent(proxy: Serve, certificate: Path, host: str) -> None:
    require("curl")
    with Origin(origin_context(certificate)) as origin:
        ours = fetch(proxy, "--http2", f"https://{host}:{origin.port}/")
        told = proxy.record(host)["ja4"]
        got = origin.seen.get(timeout=10).report.ja4.ja4
        assert ours.status == 200
        assert told["upstream"] == got != told["client"]
        # What curl sends when nobody is in between.
        mirrored = f"m{host}"
        fetch(proxy, "--http2", "--proxy-header", f"{PROFILE}: mirror", f"https://{mirrored}:{origin.port}/")
        assert proxy.record(mirrored)["ja4"]["client"] == told["client"]


def test_mirror_tells_the_same_twice_and_the_origin_agrees(
    proxy: Serve, certificate: Path, host: str
) -> None:
    with Origin(origin_context(certificate)) as origin:
        for alpn in (("h2", "http/1.1"), ("http/1.1",), ()):
            told, got = visit(proxy, origin, host, "mirror", alpn=alpn)
            assert told == {"client": got, "upstream": got}


def test_a_handshake_that_failed_is_told_of_as_well(proxy: Serve, authority: Authority, host: str) -> None:
    """The certificate is for another name: the hello was sent all the same."""
    elsewhere = authority.issue("elsewhere.test")
    with Origin(origin_context(elsewhere)) as origin:
        fetched = fetch(proxy, "--http1.1", f"https://{host}:{origin.port}/")
        assert fetched.status == 502
        record = proxy.record(host)
        assert record["outcome"] == "certificate_wrong_host"
        assert record["ja4"]["upstream"].startswith("t13d")


def test_without_the_setting_nothing_is_told(mitm: Serve, certificate: Path, host: str) -> None:
    with Origin(origin_context(certificate)) as origin:
        told, _ = visit(mitm, origin, host, "chrome")
        assert told is None
