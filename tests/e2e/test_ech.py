"""ECH through the running proxy: curl asks, Go's server does ECH, and the record says what became of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.peers import servers
from tests.peers.ech import ECH, EchKey, Sealed, unknown_config
from tests.peers.serve import Serve
from tests.peers.shim import Tap
from tests.peers.tools import Fetched, fetch

if TYPE_CHECKING:
    from tests.peers.certificates import Authority

PUBLIC = "public.test"
OURS = EchKey(PUBLIC)


@dataclass(frozen=True)
class Bench:
    """Servers behind a tap."""

    directory: Path
    certificates: tuple[Path, ...]

    @contextlib.contextmanager
    def server(self, *keys: EchKey, certificates: tuple[Path, ...] = (), **options: Any) -> Iterator[Tap]:
        given, pems = [key.option() for key in keys], certificates or self.certificates
        with (
            servers.go_ech(pems, self.directory, keys=given, **options) as port,
            Tap(("127.0.0.1", port)) as tap,
        ):
            yield tap


@pytest.fixture(scope="module")
def bench(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    directory = tmp_path_factory.mktemp("ech")
    return Bench(directory, (authority.issue("*.ech.lab.test", "*.lab.test"), authority.issue(PUBLIC)))


@pytest.fixture(scope="module")
def proxy(bench: Bench, ca_dir: Path, options: tuple[str, ...], mitm: Serve) -> Iterator[Serve]:
    """It has `OURS` for every name below ech.lab.test, and a profile without TLS 1.3."""
    file, config = bench.directory / "configs", bench.directory / "polytls.toml"
    file.write_bytes(OURS.config_list)
    config.write_text(
        f'[[proxy.upstream.ech]]\nhosts = ["*.ech.lab.test"]\nfile = {json.dumps(str(file))}\n'
        '[profiles.old]\nbase = "default"\nmax_tls = "TLS1.2"\n'
    )
    with Serve(ca_dir, *options, "--config", str(config)) as proxy:
        yield proxy


@pytest.fixture
def hidden(host: str) -> str:
    """A name that no other test uses, and that a rule names."""
    return host.replace(".lab.test", ".ech.lab.test")


def page(proxy: Serve, host: str, tap: Tap, profile: str = "chrome") -> Fetched:
    url = f"https://{host}:{tap.port}/"
    return fetch(proxy, "--http1.1", "--proxy-header", f"X-PolyTLS-Upstream-Profile: {profile}", url)


def assert_refused(proxy: Serve, host: str, tap: Tap, kind: str, connections: int) -> str:
    shown = page(proxy, host, tap)
    assert shown.status == 502
    assert shown.body.startswith(f"polytls: {kind}: ".encode()), shown.body
    record = proxy.record(host)
    assert (record["outcome"], record["side"], record["stage"]) == (kind, "upstream", "upstream_tls")
    assert (record["ech"], record["reply"], record["bytes_up"]) == ("rejected", 200, 0)
    assert len(tap.connections) == connections
    for hellos in tap.connections:
        assert host.encode() not in hellos[0].records
    return str(record["detail"])


@pytest.mark.parametrize("profile", ["chrome", "firefox", "safari", "default", "mirror"])
def test_accepted(bench: Bench, proxy: Serve, hidden: str, profile: str) -> None:
    with bench.server(OURS) as tap:
        shown = page(proxy, hidden, tap, profile)
        (hellos,) = tap.connections
    assert shown.status == 200
    told = json.loads(shown.body)
    assert (told["accepted"], told["server"]) == (True, hidden)
    opened = Sealed(OURS, hellos).opened[0]
    assert told["extensions"] == list(opened.inner.extension_types)
    assert opened.outer.sni == PUBLIC.encode()
    assert hidden.encode() not in hellos[0].records
    record = proxy.record(hidden)
    assert (record["outcome"], record["ech"]) == ("completed", "accepted")


def test_a_second_tunnel_resumes(bench: Bench, proxy: Serve, hidden: str) -> None:
    with bench.server(OURS) as tap:
        seen = [json.loads(page(proxy, hidden, tap, "firefox").body) for _ in range(2)]
    assert [(one["accepted"], one["resumed"]) for one in seen] == [(True, False), (True, True)]
    assert [record["ech"] for record in proxy.records(hidden, 2)] == ["accepted"] * 2


@pytest.mark.parametrize("profile", ["chrome", "firefox", "safari", "default"])
@pytest.mark.parametrize("curves", [None, [24]], ids=["at once", "after a retry"])
def test_rejected_and_retried_once(
    bench: Bench, proxy: Serve, hidden: str, profile: str, curves: list[int] | None
) -> None:
    theirs = EchKey(PUBLIC, config_id=2)
    with bench.server(theirs, curves=curves or []) as tap:
        shown = page(proxy, hidden, tap, profile)
        first, second = tap.connections
    told = json.loads(shown.body)
    assert (told["accepted"], told["server"], told["retried"]) == (True, hidden, curves is not None)
    for hello in (*first, *second):
        assert hello.parsed.sni == PUBLIC.encode()
        assert hidden.encode() not in hello.records
    assert Sealed(theirs, second).opened[0].inner.sni == hidden.encode()
    record = proxy.record(hidden)
    assert (record["outcome"], record["ech"]) == ("completed", "retried")
    assert record["upstream"] == f"127.0.0.1:{tap.port}"


def test_rejected_twice(bench: Bench, proxy: Serve, hidden: str) -> None:
    """It takes none of its own configs: what it gives out has another key."""
    given = EchKey(PUBLIC, config_id=3)
    with bench.server(EchKey(PUBLIC, config_id=2), retries=[given.config.hex()]) as tap:
        detail = assert_refused(proxy, hidden, tap, "ech_rejected", 2)
    assert "again" in detail


def test_rejected_by_a_server_that_does_no_ech(bench: Bench, proxy: Serve, hidden: str) -> None:
    with bench.server() as tap:
        detail = assert_refused(proxy, hidden, tap, "ech_rejected", 1)
    assert "proxy.upstream.ech" in detail


def test_rejected_with_configs_that_cannot_be_used(bench: Bench, proxy: Serve, hidden: str) -> None:
    with bench.server(EchKey(PUBLIC), retries=[unknown_config().hex()]) as tap:
        assert_refused(proxy, hidden, tap, "ech_rejected", 1)


def failed(proxy: Serve, host: str, tap: Tap, kind: str) -> None:
    assert page(proxy, host, tap).status == 502
    record = proxy.record(host)
    assert (record["outcome"], record["ech"]) == (kind, None), record
    assert len(tap.connections) == 1


def test_rejected_by_who_is_not_the_public_name(bench: Bench, proxy: Serve, hidden: str) -> None:
    """Not even by who has a good certificate for the host."""
    theirs = EchKey(PUBLIC, config_id=2)
    with bench.server(theirs, certificates=bench.certificates[:1]) as tap:
        failed(proxy, hidden, tap, "certificate_wrong_host")


def test_rejected_with_malformed_configs(bench: Bench, proxy: Serve, hidden: str) -> None:
    with bench.server(EchKey(PUBLIC), retries=["fe0d0001"]) as tap:
        failed(proxy, hidden, tap, "upstream_tls_error")


def test_a_profile_that_cannot_do_it(bench: Bench, proxy: Serve, hidden: str) -> None:
    with bench.server(OURS) as tap:
        shown = page(proxy, hidden, tap, "old")
        assert tap.connections == []
    assert shown.status == 502
    assert shown.body.startswith(b"polytls: ech_unusable: ")
    assert proxy.record(hidden)["outcome"] == "ech_unusable"


def test_other_hosts_show_what_their_profile_shows(bench: Bench, proxy: Serve, host: str) -> None:
    with bench.server(OURS) as tap:
        assert json.loads(page(proxy, host, tap, "chrome").body)["accepted"] is False
        assert json.loads(page(proxy, host, tap, "safari").body)["accepted"] is False
        chrome, safari = (hellos[0].parsed for hellos in tap.connections)
    assert chrome.sni == safari.sni == host.encode()
    assert chrome.extension(ECH) is not None
    assert safari.extension(ECH) is None
    assert [record["ech"] for record in proxy.records(host, 2)] == ["grease", None]
