"""What servers say to what a template offers: done where it can be, else a failure that names it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import brotli
import pytest
import zstandard
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from polytls.engine import ClientContext, Trust
from polytls.errors import Kind, ProxyError
from polytls.profiles import HelloSpec, derive
from polytls.profiles.exact import Entry, ExactHello, Numbers, Raw
from polytls.profiles.template import compile_template
from polytls.wire.iana import ExtensionType, extension_name
from tests.engine.dialer import Fetched, dialing
from tests.golden.known import NAMES, hello_of
from tests.golden.recorder import HOST
from tests.peers import tls12, tls13
from tests.peers.certificates import der_pair, rsa_key
from tests.peers.tls13 import Answers, Server

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

Outcomes = dict[str, Fetched | ProxyError]

TLS11, TLS12, TLS13 = 0x0302, 0x0303, 0x0304
ALPN_H2 = (16, b"\0\3\2h2")
COMPRESSIONS: dict[int, Callable[[bytes], bytes]] = {
    1: zlib.compress,
    2: brotli.compress,
    3: zstandard.ZstdCompressor().compress,
}
MODERN = [name for name in NAMES if TLS13 in hello_of(name).supported_versions]
ALPS_TYPES = (ExtensionType.APPLICATION_SETTINGS, ExtensionType.APPLICATION_SETTINGS_OLD)
WITH_ALPS = [name for name in NAMES if set(ALPS_TYPES) & set(hello_of(name).extension_types)]
COMPRESSING = [
    name for name in NAMES if hello_of(name).extension(ExtensionType.COMPRESS_CERTIFICATE) is not None
]


class Bench:
    def __init__(self, catalog: Catalog, authority: Authority, trust: Trust) -> None:
        self.catalog = catalog
        self.certificate: Path = authority.issue(HOST)
        self._trust = trust

    def spec(self, name: str) -> HelloSpec:
        return self.catalog.require(name, source="test", key="")

    def exact(self, name: str) -> ExactHello:
        exact = self.spec(name).exact
        assert exact is not None
        return exact

    def fetch(self, port: int, specs: Sequence[HelloSpec]) -> Outcomes:
        """A connection with each."""

        async def main() -> Outcomes:
            found: Outcomes = {}
            async with dialing() as dialer:
                for spec in specs:
                    context = ClientContext(spec, self._trust, verify_chain=True, verify_host=True)
                    try:
                        found[spec.name] = await dialer.fetch(spec, context, HOST, port)
                    except ProxyError as error:
                        found[spec.name] = error
            return found

        return asyncio.run(main())

    def answered(self, hello: ExactHello, answers: Answers) -> Fetched | ProxyError:
        with Server(self.certificate, answers) as server:
            return self.fetch(server.port, [spec_of(hello)])["probe"]

    def answered12(
        self, hello: ExactHello, extensions: tls13.Extensions, *, version: int = TLS12
    ) -> Fetched | ProxyError:
        with tls12.answering(self.certificate, extensions, version=version) as port:
            return self.fetch(port, [spec_of(hello)])["probe"]


@pytest.fixture(scope="module")
def bench(catalog: Catalog, authority: Authority, trust: Trust) -> Bench:
    return Bench(catalog, authority, trust)


@pytest.fixture
def server(bench: Bench) -> Iterator[Server]:
    with Server(bench.certificate) as running:
        yield running


def spec_of(hello: ExactHello) -> HelloSpec:
    return HelloSpec(
        **derive.fields(hello), name="probe", resumption=False, exact=hello, template=compile_template(hello)
    )


def offering(hello: ExactHello, number: int, body: bytes) -> ExactHello:
    """The hello, with one more extension where it has none of that type."""
    if hello.entry(number) is not None:
        return hello
    return replace(hello, extensions=(*hello.extensions, Entry(number, Raw(body))))


def with_versions(hello: ExactHello, *versions: int) -> ExactHello:
    number = ExtensionType.SUPPORTED_VERSIONS
    entries = (
        replace(entry, body=Numbers(versions)) if entry.type == number else entry
        for entry in hello.extensions
    )
    return replace(hello, extensions=tuple(entries))


def assert_all_good(outcomes: Outcomes) -> None:
    assert {name: str(found) for name, found in outcomes.items() if isinstance(found, ProxyError)} == {}


def assert_named(outcome: Fetched | ProxyError, number: int) -> None:
    assert isinstance(outcome, ProxyError)
    assert outcome.kind is Kind.UPSTREAM_UNSUPPORTED_CHOICE, str(outcome)
    assert outcome.detail.endswith(f"an answer to the extension {extension_name(number)}"), str(outcome)


# --- what is done -------------------------------------------------------------------------------------


def test_the_server_itself(bench: Bench, server: Server) -> None:
    assert_all_good(bench.fetch(server.port, [bench.spec(name) for name in MODERN]))
    assert len(server.seen) == len(MODERN) > 50
    assert all([kind for kind, _ in seen.flight] == [tls13.FINISHED] for seen in server.seen)


@pytest.mark.parametrize("algorithm", COMPRESSIONS)
def test_compressed_certificates(bench: Bench, server: Server, algorithm: int) -> None:
    """RFC 8879, for every profile that offers the algorithm."""
    specs = [bench.spec(name) for name in COMPRESSING]
    specs = [spec for spec in specs if algorithm in spec.cert_compression]
    assert specs
    server.answers = Answers(compression=(algorithm, COMPRESSIONS[algorithm]))
    assert_all_good(bench.fetch(server.port, specs))


def test_every_profile_that_offers_compression_was_tried(bench: Bench) -> None:
    assert len(COMPRESSING) > 40
    assert all(set(bench.spec(name).cert_compression) <= set(COMPRESSIONS) for name in COMPRESSING)
    assert all(bench.spec(name).cert_compression for name in COMPRESSING)


@pytest.mark.parametrize("code_point", ALPS_TYPES)
def test_application_settings(bench: Bench, server: Server, code_point: int) -> None:
    """draft-vvv-tls-alps §4: the client answers the server's settings with its own, in a message."""
    names = [name for name in WITH_ALPS if hello_of(name).extension(code_point) is not None]
    assert len(names) > 5
    server.answers = Answers(encrypted_extensions=(ALPN_H2, (code_point, b"settings")))
    assert_all_good(bench.fetch(server.port, [bench.spec(name) for name in names]))
    for seen in server.seen:
        (kind, body), finished = seen.flight
        assert (kind, finished[0]) == (tls13.ENCRYPTED_EXTENSIONS, tls13.FINISHED)
        assert body[2:4] == code_point.to_bytes(2, "big")


HARMLESS13 = {28: (b"\x40\1", b"\x40\1"), 58: (b"\2\1", b"\2")}
"""By what is offered and what is answered: record_size_limit (RFC 8449), ticket_request (RFC 9149)."""

HARMLESS12 = {3: (b"\0\0", b""), 17: (b"\0\7\2\0\4\0\0\0\0", b""), 28: (b"\x40\0", b"\x40\0")}
"""trusted_ca_keys (RFC 6066 §6), status_request_v2 (RFC 6961), record_size_limit."""


@pytest.mark.parametrize("number", HARMLESS13)
def test_answers_that_change_nothing(bench: Bench, number: int) -> None:
    offered, answer = HARMLESS13[number]
    hello = offering(bench.exact("openssl-3.0"), number, offered)
    found = bench.answered(hello, Answers(encrypted_extensions=((number, answer),)))
    assert isinstance(found, Fetched), str(found)


@pytest.mark.parametrize("number", HARMLESS12)
def test_answers_that_change_nothing_in_tls12(bench: Bench, number: int) -> None:
    """The server hangs up when the client has gone on."""
    offered, answer = HARMLESS12[number]
    hello = offering(bench.exact("openssl-3.0"), number, offered)
    found = bench.answered12(hello, [(0xFF01, b"\0"), (number, answer)])
    assert isinstance(found, ProxyError)
    assert found.kind is Kind.UPSTREAM_CLOSED, str(found)


# --- what is refused ----------------------------------------------------------------------------------

REFUSED = {
    1: b"\4",  # max_fragment_length: changes records (RFC 6066 §4)
    2: b"",  # client_certificate_url (RFC 6066 §5)
    4: b"",  # truncated_hmac: changes records (RFC 6066 §7)
    6: b"\1\x40",  # user_mapping: one more message (RFC 4681 §2)
    9: b"\0",  # cert_type (RFC 6091 §3.2)
    12: b"",  # srp (RFC 5054 §2.8)
    14: b"\0\2\0\1\0",  # use_srtp (RFC 5764 §4.1.1)
    15: b"\1",  # heartbeat: one more kind of record (RFC 6520 §2)
    19: b"\0",  # client_certificate_type (RFC 7250 §4.2)
    20: b"\0",  # server_certificate_type
    21: b"",  # padding: never answered (RFC 7685 §3)
    22: b"",  # encrypt_then_mac: changes records (RFC 7366 §2)
    24: b"\1\0\1\2",  # token_binding: asks for more than a handshake (RFC 8472 §3)
    25: b"",  # cached_info: changes Certificate (RFC 7924 §3)
    26: b"",  # tls_lts: changes the key derivation (draft-gutmann-tls-lts)
    49: b"",  # post_handshake_auth: never answered (RFC 8446 §4.2.6)
    50: b"\0\2\4\3",  # signature_algorithms_cert: never answered (RFC 8446 §4.2)
    55: b"\0",  # external_id_hash (RFC 8844 §3)
    57: b"\0\0",  # quic_transport_parameters (RFC 9001 §8.2)
    13172: b"\x08http/1.1",  # next_protocol_negotiation: one more message (draft-agl-tls-nextprotoneg)
    30032: b"",  # channel_id: one more message (draft-balfanz-tls-channelid)
    0x1234: b"?",
}
PADDING = 21  # never an entry


@pytest.mark.parametrize("number", [*REFUSED, 3, 17])
def test_other_answers_in_encrypted_extensions(bench: Bench, number: int) -> None:
    """3 and 17 are for TLS 1.2 (RFC 8446 §4.2, §4.4.2.1)."""
    hello = bench.exact("openssl-3.0")
    if number != PADDING:
        hello = offering(hello, number, b"")
    answer = REFUSED.get(number, b"")
    assert_named(bench.answered(hello, Answers(encrypted_extensions=((number, answer),))), number)


@pytest.mark.parametrize("number", [*REFUSED, 58])
def test_other_answers_in_a_serverhello_of_tls12(bench: Bench, number: int) -> None:
    """58, ticket_request, is for TLS 1.3."""
    hello = bench.exact("openssl-3.0")
    if number != PADDING:
        hello = offering(hello, number, b"")
    assert_named(bench.answered12(hello, [(0xFF01, b"\0"), (number, REFUSED.get(number, b"\1"))]), number)


@pytest.mark.parametrize("number", [1, 22, 28, 58, 0x1234])
@pytest.mark.parametrize("message", ["server_hello", "certificate"])
def test_answers_in_messages_that_have_no_room_for_them(bench: Bench, message: str, number: int) -> None:
    """RFC 8446 §4.2: ServerHello and Certificate have their own few."""
    hello = offering(bench.exact("openssl-3.0"), number, b"")
    listed = ((number, b""),)
    answers = Answers(server_hello=listed) if message == "server_hello" else Answers(certificate=listed)
    assert_named(bench.answered(hello, answers), number)


@pytest.mark.parametrize("number", [28, 58, 3, 17, 0x1234])
def test_an_answer_to_what_was_not_offered(bench: Bench, number: int) -> None:
    hello = bench.exact("safari-26.0")
    assert hello.entry(number) is None
    assert_named(bench.answered(hello, Answers(encrypted_extensions=((number, b"\x40\1"),))), number)


@pytest.mark.parametrize(("number", "answer"), [(28, b"\0\x3f"), (28, b"\x40\1\0"), (58, b""), (58, b"\1\1")])
def test_malformed_answers(bench: Bench, number: int, answer: bytes) -> None:
    hello = offering(bench.exact("openssl-3.0"), number, HARMLESS13[number][0])
    assert isinstance(bench.answered(hello, Answers(encrypted_extensions=((number, answer),))), ProxyError)


# --- delegated credentials ------------------------------------------------------------------------------

ECDSA_P256, RSA_PSS_RSAE, RSA_PSS_PSS = 0x0403, 0x0804, 0x0809
RSA_ENCRYPTION = bytes.fromhex("300d06092a864886f70d0101010500")
RSASSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")  # without parameters (RFC 4055 §3.1)


def credential(certificate: Path, spki: bytes, algorithm: int) -> bytes:
    """For two days from the certificate's begin, a day ago; signed by its key (RFC 9345 §4)."""
    leaf, key_der = der_pair(certificate)
    key = serialization.load_der_private_key(key_der, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    body = (2 * 86400).to_bytes(4, "big") + algorithm.to_bytes(2, "big")
    body += len(spki).to_bytes(3, "big") + spki + ECDSA_P256.to_bytes(2, "big")
    said = b" " * 64 + b"TLS, server delegated credentials\0" + leaf + body
    signature = key.sign(said, ec.ECDSA(hashes.SHA256()))
    return body + len(signature).to_bytes(2, "big") + signature


def spki_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "rsa-pss"])
def test_what_a_credential_may_delegate_to(bench: Bench, authority: Authority, kind: str) -> None:
    """RFC 9345 §4 forbids rsaEncryption, whatever is offered. It allows RSASSA-PSS, which BoringSSL has
    not."""
    number = ExtensionType.DELEGATED_CREDENTIAL
    offered = Entry(number, Numbers((ECDSA_P256, RSA_PSS_RSAE, RSA_PSS_PSS)))
    hello = bench.exact("firefox-esr-153")
    hello = replace(
        hello, extensions=tuple(offered if entry.type == number else entry for entry in hello.extensions)
    )
    certificate = authority.issue(HOST, delegation=True)
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm, spki = ECDSA_P256, spki_of(key)
    if kind != "ecdsa":
        algorithm, spki = RSA_PSS_RSAE, spki_of(rsa_key())
    if kind == "rsa-pss":
        inner = spki[spki.index(RSA_ENCRYPTION) :].replace(RSA_ENCRYPTION, RSASSA_PSS, 1)
        algorithm, spki = RSA_PSS_PSS, b"\x30\x82" + len(inner).to_bytes(2, "big") + inner
    listed = ((number, credential(certificate, spki, algorithm)),)
    with Server(certificate, Answers(certificate=listed, delegated=key)) as server:
        found = bench.fetch(server.port, [spec_of(hello)])["probe"]
    if kind == "ecdsa":
        assert isinstance(found, Fetched), str(found)
    else:
        assert isinstance(found, ProxyError)
        assert found.kind is Kind.UPSTREAM_TLS_ERROR
        assert found.detail.endswith(
            "INVALID_DELEGATED_CREDENTIAL" if kind == "rsa" else "UNSUPPORTED_ALGORITHM"
        )


# --- versions -----------------------------------------------------------------------------------------


def test_a_version_in_a_gap_of_the_list(bench: Bench) -> None:
    """RFC 8446 §4.1.3: a client that lists TLS 1.3 and 1.1 has not offered TLS 1.2."""
    hello = with_versions(bench.exact("safari-15.3"), TLS13, TLS11)
    for version in (TLS12, 0x0301):
        found = bench.answered12(hello, [(0xFF01, b"\0")], version=version)
        assert isinstance(found, ProxyError)
        assert found.kind is Kind.UPSTREAM_PROTOCOL_VERSION, str(found)
    with Server(bench.certificate) as server:
        assert_all_good(bench.fetch(server.port, [spec_of(hello)]))


def test_tls12_without_a_list_of_versions(bench: Bench) -> None:
    """It is all that such a hello offers."""
    hello = bench.exact("openssl-3.0")
    dropped = (ExtensionType.SUPPORTED_VERSIONS, ExtensionType.KEY_SHARE, ExtensionType.COOKIE)
    hello = replace(hello, extensions=tuple(entry for entry in hello.extensions if entry.type not in dropped))
    for version, kind in ((TLS12, Kind.UPSTREAM_CLOSED), (TLS11, Kind.UPSTREAM_PROTOCOL_VERSION)):
        found = bench.answered12(hello, [(0xFF01, b"\0")], version=version)
        assert isinstance(found, ProxyError)
        assert found.kind is kind, str(found)
