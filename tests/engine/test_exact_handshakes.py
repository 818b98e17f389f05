"""Every exact built-in profile against servers of five libraries: a request is answered."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine import ClientContext, Trust
from polytls.errors import ProxyError
from polytls.wire.iana import ExtensionType
from tests.engine.dialer import Fetched, dialing
from tests.golden.known import NAMES, hello_of
from tests.peers import servers
from tests.peers.origin import Origin, origin_context
from tests.peers.shim import Tap
from tests.peers.tools import s_server

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

HOST = "golden.test"
TLS12, TLS13 = 0x0303, 0x0304
APPLICATION_DATA = 23

Results = dict[str, Fetched | str]


@dataclass(frozen=True)
class Bench:
    """Every profile's context, once."""

    catalog: Catalog
    trust: Trust
    ecdsa: Path
    rsa: Path
    directory: Path

    def fetch(self, port: int, names: tuple[str, ...] = NAMES, *, path: str = "/") -> Results:
        """One connection with each profile: what it got, or its failure in words."""

        async def main() -> Results:
            results: Results = {}
            async with dialing() as dialer:
                for name in names:
                    spec = self.catalog.require(name, source="test", key="")
                    context = ClientContext(spec, self.trust, verify_chain=True, verify_host=True)
                    try:
                        results[name] = await dialer.fetch(spec, context, HOST, port, path=path)
                    except ProxyError as error:
                        results[name] = str(error)
            return results

        return asyncio.run(main())


@pytest.fixture(scope="module")
def bench(
    catalog: Catalog, authority: Authority, trust: Trust, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    rsa = authority.issue(HOST, use_rsa=True)
    return Bench(catalog, trust, authority.issue(HOST), rsa, tmp_path_factory.mktemp("servers"))


def assert_answered(results: Results, *, version: int | None = None, retried: bool = False) -> None:
    failed = {name: result for name, result in results.items() if isinstance(result, str)}
    assert failed == {}
    for name, result in results.items():
        assert isinstance(result, Fetched)
        assert result.head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), name
        assert result.facts.retried == retried, name
        assert result.facts.version == (version or result.facts.version), name


def certificate_of(bench: Bench, kind: str) -> Path:
    return bench.rsa if kind == "rsa" else bench.ecdsa


@pytest.mark.parametrize("certificate", ["ecdsa", "rsa"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_pythons_ssl(bench: Bench, certificate: str, version: int) -> None:
    only = ssl.TLSVersion(version)
    context = origin_context(
        certificate_of(bench, certificate), alpn=("http/1.1",), minimum=only, maximum=only
    )
    with Origin(context) as origin:
        assert_answered(bench.fetch(origin.port), version=version)


@pytest.mark.parametrize("group", ["secp384r1", "secp521r1"])
def test_pythons_ssl_asking_for_another_group(bench: Bench, group: str) -> None:
    context = origin_context(bench.ecdsa, alpn=("http/1.1",))
    context.set_ecdh_curve(group)
    names = NAMES
    if group == "secp521r1":  # of which many browsers know nothing
        specs = {name: bench.catalog.require(name, source="test", key="") for name in NAMES}
        names = tuple(name for name, spec in specs.items() if 0x0019 in spec.groups)
        assert len(names) > 10
    with Origin(context) as origin:
        assert_answered(bench.fetch(origin.port, names), version=TLS13, retried=True)


@pytest.mark.parametrize("certificate", ["ecdsa", "rsa"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_openssl(bench: Bench, certificate: str, version: int) -> None:
    option = {TLS12: "-tls1_2", TLS13: "-tls1_3"}[version]
    with s_server(certificate_of(bench, certificate), "-www", option) as port:
        assert_answered(bench.fetch(port), version=version)


@pytest.mark.parametrize("size", [512, 4096])
def test_openssl_with_small_records(bench: Bench, size: int) -> None:
    """The server's flight comes in pieces, each certificate in many."""
    with s_server(bench.rsa, "-www", "-max_send_frag", str(size)) as port:
        assert_answered(bench.fetch(port), version=TLS13)


@pytest.mark.parametrize("certificate", ["ecdsa", "rsa"])
@pytest.mark.parametrize("server", [servers.gnutls, servers.go, servers.java, servers.node])
def test_other_libraries(bench: Bench, certificate: str, server: Callable[..., Iterator[int]]) -> None:
    """gnutls-serv answers record_size_limit, Java status_request_v2 where it has something to staple."""
    with contextlib.ExitStack() as stack:
        made: contextlib.AbstractContextManager[int] = server(  # type: ignore[assignment]
            certificate_of(bench, certificate), bench.directory
        )
        assert_answered(bench.fetch(stack.enter_context(made)), version=TLS13)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_servers_record_size_limit_is_honoured(bench: Bench, version: str) -> None:
    """RFC 8449 §4. It counts the plaintext of a record, and the byte of its type in TLS 1.3."""
    limit, path = 512, "/" + "x" * 3000
    names = tuple(name for name in NAMES if ExtensionType.RECORD_SIZE_LIMIT in hello_of(name).extension_types)
    options = (f"--recordsize={limit}", f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}")
    with (
        servers.gnutls(bench.ecdsa, bench.directory, *options) as port,
        Tap(("127.0.0.1", port)) as tap,
    ):
        assert_answered(bench.fetch(tap.port, names, path=path))
        taken = tap.sent
    overhead = 8 + 16 if version == "1.2" else 1 + 16  # a nonce or a type, and the tag, of AES-GCM
    assert len(taken) == len(names) > 5
    for sent in taken:
        sizes = [size for kind, size in records(sent) if kind == APPLICATION_DATA]
        assert sum(sizes) > len(path)
        assert max(sizes) <= limit + overhead


def records(sent: bytes) -> Iterator[tuple[int, int]]:
    """Type and length of each record (RFC 8446 §5.1)."""
    position = 0
    while position < len(sent):
        size = int.from_bytes(sent[position + 3 : position + 5], "big")
        yield sent[position], size
        position += 5 + size
