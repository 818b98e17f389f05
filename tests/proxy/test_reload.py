"""`App.reload` on a live proxy: what is kept, what is not, and that nothing waits for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from polytls.config import LoadedSettings
from polytls.errors import UserError
from tests.proxy.blocking import Blocking
from tests.proxy.harness import (
    HOST,
    Origin,
    OriginCA,
    Proxy,
    answer_to,
    answer_to_hello,
    ask,
    connect_head,
    tunnel,
    with_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from polytls.events import TunnelRecord
    from polytls.settings import Settings

Start = Callable[..., Proxy]


def reload(proxy: Proxy, **sections: dict[str, Any]) -> bool:
    """With other settings, section by section, than those it has now."""
    settings = with_settings(proxy.app.settings, **sections)
    return proxy.run(proxy.app.reload(lambda: LoadedSettings(settings, {})))


def visit(proxy: Proxy, root_pem: Path, origin: Origin) -> TunnelRecord:
    answer_to(proxy, root_pem, origin.port)
    return proxy.record()


@pytest.fixture
def proxy(start: Start, mitm_settings: Settings) -> Proxy:
    return start(mitm_settings)


@pytest.fixture
def root(mitm_settings: Settings) -> Path:
    return mitm_settings.certificate.ca_cert_path


def test_the_loop_waits_for_nothing(
    proxy: Proxy, root: Path, tls_http: Origin, mitm_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('base = "firefox"\n')
    with Blocking(proxy) as watched:
        assert reload(
            proxy,
            upstream={"ca_file": None, "default_profile": "mine"},
            profiles={"directory": tmp_path},
            timeouts={"connect": 7.0},
        )
        assert reload(proxy, upstream={"ca_file": mitm_settings.upstream.ca_file})
    assert watched.found == []
    assert visit(proxy, root, tls_http).profile == "mine"


def test_sessions_and_leaves_of_what_is_the_same_are_kept(proxy: Proxy, root: Path, tls_http: Origin) -> None:
    visit(proxy, root, tls_http)
    assert reload(proxy, timeouts={"connect": 7.0}, upstream={"resolve": (("a.test", "127.0.0.9"),)})
    record = visit(proxy, root, tls_http)
    assert record.upstream_tls is not None
    assert record.upstream_tls.resumed
    leaves = proxy.app.counters().leaves
    assert leaves is not None
    assert leaves.mints == 1


def test_sessions_survive_a_time_of_passthrough(
    proxy: Proxy, root: Path, tls_http: Origin, plain_echo: Origin
) -> None:
    visit(proxy, root, tls_http)
    assert reload(proxy, mitm={"enabled": False})
    with tunnel(proxy, HOST, plain_echo.port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    assert proxy.record().mode == "passthrough"
    assert reload(proxy, mitm={"enabled": True})
    record = visit(proxy, root, tls_http)
    assert record.upstream_tls is not None
    assert record.upstream_tls.resumed


def test_a_mirror_is_kept(proxy: Proxy, root: Path, tls_http: Origin) -> None:
    assert reload(proxy, upstream={"default_profile": "mirror"})
    visit(proxy, root, tls_http)
    assert reload(proxy, timeouts={"connect": 7.0})
    record = visit(proxy, root, tls_http)
    assert record.profile == "mirror"
    assert reload(proxy, mitm={"mirror_unsupported": _drop()})
    assert visit(proxy, root, tls_http).profile == "mirror"


def _drop() -> object:
    from polytls.settings import MirrorUnsupported

    return MirrorUnsupported.DROP


def test_roots_are_read_again_and_sessions_of_other_roots_are_not_used(
    start: Start, mitm_settings: Settings, root: Path, tls_http: Origin, tmp_path: Path, origin_ca: OriginCA
) -> None:
    bundle = tmp_path / "roots.pem"
    shutil.copy(origin_ca.pem, bundle)
    proxy = start(mitm_settings, upstream={"ca_file": bundle})
    assert visit(proxy, root, tls_http).outcome == "completed"
    (tmp_path / "other").mkdir()
    shutil.copy(OriginCA(tmp_path / "other", "Another CA").pem, bundle)
    assert reload(proxy)
    assert proxy.reports[-1] == "reloaded: changed the contents of the trusted roots' files"
    assert visit(proxy, root, tls_http).outcome == "certificate_unknown_root"
    bundle.write_text("no certificate")
    assert not reload(proxy)
    assert "roots.pem: holds no certificates" in proxy.reports[-1]
    assert visit(proxy, root, tls_http).outcome == "certificate_unknown_root"
    shutil.copy(origin_ca.pem, bundle)
    assert reload(proxy)
    record = visit(proxy, root, tls_http)
    assert record.outcome == "completed"
    assert record.upstream_tls is not None
    assert not record.upstream_tls.resumed


def test_leaves_of_other_settings_are_minted_anew(proxy: Proxy, root: Path, tls_http: Origin) -> None:
    visit(proxy, root, tls_http)
    assert reload(proxy, certificate={"leaf_days": 7})
    visit(proxy, root, tls_http)
    leaves = proxy.app.counters().leaves
    assert leaves is not None
    assert (leaves.mints, leaves.size) == (2, 1)


def test_timeouts_and_overrides_are_the_new_ones(
    start: Start, passthrough_settings: Settings, mitm_settings: Settings, plain_echo: Origin
) -> None:
    proxy = start(mitm_settings, lookup=_nothing_resolves)
    assert ask(proxy, connect_head("a.test", 1)).status == 502
    proxy.record()
    mapped = (("a.test", f"127.0.0.1:{plain_echo.port}"),)
    assert reload(proxy, upstream={"resolve": mapped}, timeouts={"hello": 0.1})
    with tunnel(proxy, "a.test", 1) as silent:
        assert silent.recv(1) == b""
    assert proxy.record().outcome == "hello_timeout"


def _nothing_resolves(_host: str) -> list[str]:
    return []


def test_hosts_that_an_ech_file_is_for(proxy: Proxy, tmp_path: Path) -> None:
    from polytls.settings import EchRule
    from tests.peers.ech import EchKey

    file = tmp_path / "ech"
    file.write_bytes(EchKey("public.test").config_list)
    rules = (EchRule(("hidden.test",), file=file),)
    assert reload(proxy, upstream={"ech": rules})
    assert proxy.reports[-1] == "reloaded: changed proxy.upstream.ech"
    assert reload(proxy)
    assert proxy.reports[-1] == "reloaded: the configuration is as it was"
    file.write_bytes(EchKey("public.test").config_list)
    assert reload(proxy)
    assert proxy.reports[-1] == "reloaded: changed the contents of proxy.upstream.ech's files"
    file.write_bytes(b"nothing")
    assert not reload(proxy)
    assert proxy.reports[-1].startswith("not reloaded, the configuration stays as it was: ")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (UserError("the file is odd"), "not reloaded, the configuration stays as it was: the file is odd"),
        (PermissionError(13, "Permission denied", "x.toml"), "Permission denied: 'x.toml'"),
        (KeyError("what"), "a defect of PolyTLS, please report it\nTraceback"),
    ],
)
def test_whatever_goes_wrong_it_goes_on(proxy: Proxy, raised: Exception, said: str) -> None:
    snapshot = proxy.app.server and proxy.app.server.snapshot

    def read() -> LoadedSettings:
        raise raised

    assert not proxy.run(proxy.app.reload(read))
    assert said in proxy.reports[-1]
    assert proxy.app.server is not None
    assert proxy.app.server.snapshot is snapshot


def test_after_the_end_nothing_is_taken(proxy: Proxy) -> None:
    settings = replace(proxy.app.settings, source="another")

    async def stop_meanwhile() -> bool:
        import asyncio

        reloading = asyncio.ensure_future(proxy.app.reload(lambda: LoadedSettings(settings, {})))
        await proxy.app.stop(0.0)
        return await reloading

    assert not proxy.run(stop_meanwhile())
    assert not any("reloaded" in report for report in proxy.reports)


def test_a_hello_under_way_is_answered_as_its_tunnel_began(
    proxy: Proxy, tls_http: Origin, mitm_settings: Settings
) -> None:
    """A tunnel that has its 200 and no hello yet goes by what it began with."""
    with tunnel(proxy, HOST, tls_http.port) as waiting:
        assert reload(proxy, upstream={"default_profile": "firefox"})
        waiting.sendall(b"no TLS at all")
        assert waiting.recv(1) == b""
    record = proxy.record()
    assert record.profile is not None
    assert record.profile.startswith("chrome")
    assert answer_to_hello(proxy, tls_http.port, b"no TLS at all") == b""
    record = proxy.record()
    assert record.profile is not None
    assert record.profile.startswith("firefox")
