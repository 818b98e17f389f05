"""What an origin sees: the profile's hello, whoever the client is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.profiles import Catalog
from tests.peers.clients import alert_of, client_context, tls_tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.tools import fetch

if TYPE_CHECKING:
    from polytls.fingerprint.report import FingerprintReport
    from tests.peers.serve import Serve

PROFILES = ("default", "chrome", "firefox", "safari")


def _seen(proxy: Serve, profile: str, host: str, *options: str, certificate: Path) -> FingerprintReport:
    """The hello of one request by curl, as an origin of its own saw it: no ticket of an earlier one."""
    with Origin(origin_context(certificate)) as origin:
        wanted = f"X-PolyTLS-Upstream-Profile: {profile}"
        fetched = fetch(proxy, *options, "--proxy-header", wanted, f"https://{host}:{origin.port}/")
        assert fetched.status == 200
        return origin.seen.get(timeout=1).report


def test_every_profile_has_a_hello_of_its_own(mitm: Serve, certificate: Path, host: str) -> None:
    reports = {name: _seen(mitm, name, host, "--http2", certificate=certificate) for name in PROFILES}
    assert len({report.ja4.ja4 for report in reports.values()}) == len(PROFILES)
    browsers = [reports[name] for name in ("chrome", "firefox", "safari")]
    assert len({report.ja3.ja3_hash for report in browsers}) == 3
    assert len({report.ja3.ja3n_hash for report in browsers}) == 3
    assert {report.alpn for report in browsers} == {("h2", "http/1.1")}
    assert reports["default"].alpn == ("http/1.1",)
    for report in reports.values():
        assert report.sni == host
        assert report.supported_versions[-2:] == ("TLS 1.3", "TLS 1.2")
    catalog = Catalog.load({}, "test")
    named = [catalog.require(name, source="test", key="").name for name in PROFILES]
    assert [record["profile"] for record in mitm.records(host, len(PROFILES))] == named


@pytest.mark.parametrize("profile", ["chrome", "firefox", "safari"])
def test_what_stays_the_same_from_hello_to_hello(
    mitm: Serve, certificate: Path, host: str, profile: str
) -> None:
    reports = [_seen(mitm, profile, host, "--http2", certificate=certificate) for _ in range(4)]
    assert len({report.ja4.ja4 for report in reports}) == 1
    assert len({report.ja3.ja3n_hash for report in reports}) == 1
    # Chrome permutes its extensions, the others do not: 4 permutations of more than ten that are all the same
    # do not happen.
    orders = {report.ja3.ja3_hash for report in reports}
    assert len(orders) > 1 if profile == "chrome" else len(orders) == 1


def test_the_clients_hello_is_not_what_the_origin_sees(
    mitm: Serve, passthrough: Serve, certificate: Path, host: str
) -> None:
    chrome = _seen(mitm, "chrome", host, "--http2", certificate=certificate)
    other_cipher = ("--http2", "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256")
    again = _seen(mitm, "chrome", host, *other_cipher, certificate=certificate)
    assert again.ja4.ja4 == chrome.ja4.ja4
    untouched = _seen(passthrough, "chrome", host, *other_cipher, certificate=certificate)
    assert untouched.ja4.ja4 != chrome.ja4.ja4
    assert untouched.ja4.ja4.startswith("t12d")


def test_an_address_is_no_server_name(mitm: Serve, certificate: Path) -> None:
    """RFC 6066 §3."""
    assert _seen(mitm, "chrome", "127.0.0.1", certificate=certificate).sni is None


def test_narrow_offers_what_both_speak(mitm: Serve, certificate: Path, host: str) -> None:
    report = _seen(mitm, "chrome", host, "--http1.1", certificate=certificate)
    assert report.alpn == ("http/1.1",)
    report = _seen(mitm, "chrome", host, "--no-alpn", certificate=certificate)
    assert report.alpn == ("http/1.1",)
    assert mitm.records(host, 2)[1]["client_tls"]["alpn"] is None


def test_narrow_with_nothing_in_common(mitm: Serve, origin: Origin, host: str) -> None:
    context = client_context(mitm.root_pem, alpn=("spdy/3",))
    with (
        pytest.raises(ssl.SSLError) as caught,
        tls_tunnel(mitm, host, origin.port, context),
    ):
        pass
    assert alert_of(caught.value) == "tlsv1 alert no application protocol"
    record = mitm.record(host)
    assert (record["outcome"], record["side"], record["stage"]) == ("alpn_mismatch", "client", "alpn")


def test_strict_leaves_the_profile_alone_and_fails_closed(
    serve: Callable[..., Serve], certificate: Path, host: str
) -> None:
    strict = serve("--alpn", "strict", "--profile", "chrome")
    report = _seen(strict, "chrome", host, "--http2", certificate=certificate)
    assert report.alpn == ("h2", "http/1.1")
    with Origin(origin_context(certificate)) as origin:
        context = client_context(strict.root_pem, alpn=("http/1.1",))
        with (
            pytest.raises(ssl.SSLError) as caught,
            tls_tunnel(strict, host, origin.port, context),
        ):
            pass
        assert alert_of(caught.value) == "tlsv1 alert no application protocol"
        seen = origin.seen.get(timeout=1)
        assert seen.report.alpn == ("h2", "http/1.1")
        assert seen.negotiated_alpn == "h2"
    assert strict.records(host, 2)[1]["outcome"] == "alpn_mismatch"
    # An origin that picks http/1.1 from the same list suits that client.
    with Origin(origin_context(certificate, alpn=("http/1.1",))) as origin:
        assert fetch(strict, "--http1.1", f"https://{host}:{origin.port}/").status == 200
        assert origin.seen.get(timeout=1).report.alpn == ("h2", "http/1.1")


def test_a_second_visit_offers_the_ticket_of_the_first(mitm: Serve, origin: Origin, host: str) -> None:
    for _ in range(2):
        assert fetch(mitm, "--http1.1", f"https://{host}:{origin.port}/").status == 200
    first, second = mitm.records(host, 2)
    assert (first["upstream_tls"]["resumed"], second["upstream_tls"]["resumed"]) == (False, True)
