"""Live proxies and origins; `harness` is what they are made of.

The two shared proxies serve all tests that need nothing special, one after the other; a test that wants
other settings starts its own. Records come in the order in which tunnels end, so a test takes every record
of the tunnels it opens.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from polytls.settings import CertificateSettings, EngineSettings, MitmSettings, Settings, UpstreamSettings
from tests.proxy.harness import HOST, Origin, OriginCA, Proxy, echo, hello_http, server_context, with_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def origin_ca(tmp_path_factory: pytest.TempPathFactory) -> OriginCA:
    return OriginCA(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def mitm_settings(tmp_path_factory: pytest.TempPathFactory, origin_ca: OriginCA) -> Settings:
    ca = tmp_path_factory.mktemp("proxy-ca")
    return Settings(
        upstream=UpstreamSettings(ca_file=origin_ca.pem, default_profile="chrome"),
        certificate=CertificateSettings(ca_key_path=ca / "private.key", ca_cert_path=ca / "certificate.pem"),
        engine=EngineSettings(threads=2),
    )


@pytest.fixture(scope="session")
def passthrough_settings() -> Settings:
    return Settings(mitm=MitmSettings(enabled=False), engine=EngineSettings(threads=2))


@pytest.fixture
def start() -> Iterator[Callable[..., Proxy]]:
    """Start proxies with changed settings: ``start(settings, timeouts={"head": 0.2})``."""
    with contextlib.ExitStack() as stack:

        def start_one(settings: Settings, *, lookup: Any = None, **sections: dict[str, Any]) -> Proxy:
            changed = with_settings(settings, **sections)
            proxy = Proxy(changed) if lookup is None else Proxy(changed, lookup)
            stack.callback(proxy.stop)
            return proxy

        yield start_one


@pytest.fixture(scope="session")
def _shared_mitm(mitm_settings: Settings) -> Iterator[Proxy]:
    proxy = Proxy(mitm_settings)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def _shared_passthrough(passthrough_settings: Settings) -> Iterator[Proxy]:
    proxy = Proxy(passthrough_settings)
    yield proxy
    proxy.stop()


@pytest.fixture(params=["first", "again"])
def mitm(request: pytest.FixtureRequest, _shared_mitm: Proxy) -> Iterator[Proxy]:
    """Every test twice, one after the other. "first": of no client is known how it begins, and its first
    tunnel is led step by step. "again": it begins as it did then, and what can be is set off whole. Both must
    come to the same."""
    if request.param == "first":
        server = _shared_mitm.app.server
        assert server is not None
        assert server.snapshot.interception is not None
        _shared_mitm.call(server.snapshot.interception.habits.forget)
    yield _shared_mitm
    assert _shared_mitm.no_more_records()


@pytest.fixture
def passthrough(_shared_passthrough: Proxy) -> Iterator[Proxy]:
    yield _shared_passthrough
    assert _shared_passthrough.no_more_records()


@pytest.fixture(scope="session")
def root_pem(_shared_mitm: Proxy) -> Path:
    """The certificate that clients of a MITM proxy trust."""
    return _shared_mitm.settings.certificate.ca_cert_path


@pytest.fixture
def origins() -> Iterator[Callable[..., Origin]]:
    """Start origins: ``origins(handler, context)``."""
    with contextlib.ExitStack() as stack:

        def start_one(*args: Any, **kwargs: Any) -> Origin:
            origin = Origin(*args, **kwargs)
            stack.callback(origin.close)
            return origin

        yield start_one


@pytest.fixture(scope="session")
def plain_echo() -> Iterator[Origin]:
    origin = Origin(echo)
    yield origin
    origin.close()


@pytest.fixture(scope="session")
def certificate(origin_ca: OriginCA) -> Path:
    """Of an origin called `origin.test`."""
    return origin_ca.issue(HOST)


@pytest.fixture(scope="session")
def tls_echo(certificate: Path) -> Iterator[Origin]:
    """Echoes over TLS; speaks h2 and http/1.1 by name."""
    origin = Origin(echo, server_context(certificate, alpn=("h2", "http/1.1")))
    yield origin
    origin.close()


@pytest.fixture(scope="session")
def tls_http(certificate: Path) -> Iterator[Origin]:
    """Answers a request in HTTP/1.1 over TLS, without ALPN."""
    origin = Origin(hello_http, server_context(certificate))
    yield origin
    origin.close()


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
