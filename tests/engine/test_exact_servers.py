"""The matrix: every built-in profile with the servers of five libraries, in every way in which they differ.

Each library's server is run with TLS 1.2 alone, with TLS 1.3 alone, with a group alone that nobody has a
share of (so that it asks for one), and twice for each profile, so that the second connection can resume.
`tests/engine/test_exact_answers.py` has what no server at hand does: ALPS, and the other compressions.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine import ClientContext, Trust, decompress
from polytls.errors import ProxyError
from polytls.wire.iana import ExtensionType
from tests.engine.dialer import Fetched, dialing
from tests.golden.known import NAMES, capture, hello_of
from tests.golden.profiles import samples
from tests.golden.recorder import HOST
from tests.peers import servers
from tests.peers.ocsp import Responder
from tests.peers.serve import HANG_SECONDS

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

LIBRARIES = tuple(servers.LIBRARIES)
VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}
NEVER_RESUMES = [name for name in NAMES if not capture(name)["resumed"]]
CERTIFICATE_STATUS, SERVER_HELLO_DONE, OCSP_MULTI = 22, 14, 2  # RFC 6066 §8, RFC 5246 §7.4, RFC 6961 §2.2
NO_PSK = "tor-14.5"
"""Its hello has no psk_key_exchange_modes: no TLS 1.3 session may be offered (RFC 8446 §4.2.9)."""

Results = dict[str, list[Fetched | str]]


class Bench:
    def __init__(self, catalog: Catalog, authority: Authority, trust: Trust, directory: Path) -> None:
        self._catalog = catalog
        self._trust = trust
        self.directory = directory
        self.certificates = {"ecdsa": authority.issue(HOST), "rsa": authority.issue(HOST, use_rsa=True)}

    def fetch(self, port: int, times: int = 1, names: tuple[str, ...] = NAMES) -> Results:
        """So many connections with each profile, one after the other: what each got, or its failure."""

        async def main() -> Results:
            results: Results = {}
            async with dialing() as dialer:
                for name in names:
                    spec = self._catalog.require(name, source="test", key="")
                    context = ClientContext(spec, self._trust, verify_chain=True, verify_host=True)
                    found = results.setdefault(name, [])
                    for _ in range(times):
                        try:
                            found.append(await dialer.fetch(spec, context, HOST, port))
                        except ProxyError as error:
                            found.append(str(error))
            return results

        return asyncio.run(main())


@pytest.fixture(scope="module")
def bench(
    catalog: Catalog, authority: Authority, trust: Trust, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    return Bench(catalog, authority, trust, tmp_path_factory.mktemp("servers"))


def assert_answered(results: Results, version: str, *, retried: bool = False) -> None:
    failures = {name: found for name, found in results.items() if any(isinstance(one, str) for one in found)}
    assert failures == {}
    for name, found in results.items():
        for one in found:
            assert isinstance(one, Fetched)
            assert one.head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), name
            assert (one.facts.version, one.facts.retried) == (VERSIONS[version], retried), name


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_full_and_resumed(bench: Bench, library: str, version: str, kind: str) -> None:
    with servers.limited(library, bench.certificates[kind], bench.directory, version) as port:
        results = bench.fetch(port, times=2)
    assert_answered(results, version)
    resumed = {
        name
        for name, (first, second) in results.items()
        if isinstance(first, Fetched) and isinstance(second, Fetched) and second.facts.resumed
    }
    assert not any(first.facts.resumed for first, _ in results.values() if isinstance(first, Fetched))
    assert resumed == set(filter(lambda name: may_resume(name, library, version), NAMES))


def may_resume(name: str, library: str, version: str) -> bool:
    if name in NEVER_RESUMES:
        return False
    if version == "1.3":
        return name != NO_PSK
    # Go keeps no sessions of TLS 1.2, and gives out tickets alone.
    return library != "go" or ExtensionType.SESSION_TICKET in hello_of(name).extension_types


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_asked_for_another_group(bench: Bench, library: str, kind: str) -> None:
    certificate = bench.certificates[kind]
    with servers.limited(library, certificate, bench.directory, "1.3", p384=True) as port:
        assert_answered(bench.fetch(port), "1.3", retried=True)


@pytest.mark.parametrize("library", LIBRARIES)
def test_resuming_after_being_asked_for_another_group(bench: Bench, library: str) -> None:
    certificate = bench.certificates["ecdsa"]
    with servers.limited(library, certificate, bench.directory, "1.3", p384=True) as port:
        results = bench.fetch(port, times=2)
    assert_answered(results, "1.3", retried=True)
    for name, (_, second) in results.items():
        assert isinstance(second, Fetched)
        assert second.facts.resumed == may_resume(name, library, "1.3"), name


@pytest.mark.parametrize("method", ["zlib", "brotli", "zstd"])
def test_certificates_that_tlslite_compresses(
    bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = {"zlib": 1, "brotli": 2, "zstd": 3}[method]
    body = ExtensionType.COMPRESS_CERTIFICATE
    names = tuple(name for name in NAMES if number in (hello_of(name).extension(body) or b"")[2::2])
    assert names
    done: list[int] = []
    real = decompress.decompress

    def noting(algorithm: int, data: bytes, size: int) -> bytes | None:
        done.append(algorithm)
        return real(algorithm, data, size)

    monkeypatch.setattr(decompress, "decompress", noting)
    with servers.tlslite(bench.certificates["ecdsa"], method) as port:
        assert_answered(bench.fetch(port, names=names), "1.3")
    assert done == [number] * len(names)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stapled_ocsp_response_of_javas(bench: Bench, authority: Authority, version: str) -> None:
    """To Java's own status_request_v2 its server answers with a list of responses, in TLS 1.2."""
    with contextlib.ExitStack() as stack:
        responder = stack.enter_context(Responder())
        responder.authority = authority
        certificate = authority.issue(HOST, responder=responder.url)
        staple = "-Djdk.tls.server.enableStatusRequestExtension=true"
        only = f"-Djdk.tls.server.protocols=TLSv{version}"
        port = stack.enter_context(servers.java(certificate, bench.directory, staple, only))
        assert_answered(bench.fetch(port), version)
        assert responder.asked
        if version == "1.2":
            assert status_type(port, samples("java-17")[0]) == OCSP_MULTI


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stapled_ocsp_response_of_nss(bench: Bench, version: str) -> None:
    options = ("-T", "failure", "-V", f"tls{version}:tls{version}")
    with servers.nss(bench.certificates["rsa"], bench.directory, *options) as port:
        assert_answered(bench.fetch(port), version)


def status_type(port: int, hello: bytes) -> int:
    """What kind of CertificateStatus a server of TLS 1.2 answers a hello with."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
        connection.sendall(hello)
        taken = b""
        while True:
            messages = _messages(taken)
            if any(kind == SERVER_HELLO_DONE for kind, _ in messages):
                return next(body[0] for kind, body in messages if kind == CERTIFICATE_STATUS)
            data = connection.recv(1 << 16)
            assert data, "the server hung up"
            taken += data


def _messages(records: bytes) -> list[tuple[int, bytes]]:
    """Handshake messages, however they are cut into records."""
    stream, position = b"", 0
    while position + 5 <= len(records):
        end = position + 5 + int.from_bytes(records[position + 3 : position + 5], "big")
        stream, position = stream + records[position + 5 : end], end
    found = []
    while len(stream) >= 4 and len(stream) >= (end := 4 + int.from_bytes(stream[1:4], "big")):
        found.append((stream[0], stream[4:end]))
        stream = stream[end:]
    return found
