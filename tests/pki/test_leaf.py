"""Leaves, judged by OpenSSL, by a real handshake, and field by field."""

from __future__ import annotations

import ipaddress
import ssl
import subprocess
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError, Stage
from polytls.pki import leaf as leaf_module
from polytls.pki.leaf import MAX_COMMON_NAME_CHARS, MAX_LEAF_DAYS, Leaf, LeafKeys, LeafKind, mint_leaf
from polytls.pki.root import RootCA, load, load_or_create
from polytls.wire.authority import HostError, parse_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST_64 = "a" * 56 + ".example"
HOST_65 = "a" * 57 + ".example"
HOST_253 = ".".join(["a" * 49] * 5) + ".abc"
HOSTS = [
    "leaf.example",
    "xn--bcher-kva.example",
    "under_score.example",
    "-a.b-.r3---sn-x.example",
    "localhost",
    "192.0.2.1",
    "2001:db8::1",
    "::1",
    HOST_64,
    HOST_65,
    HOST_253,
]


def parsed(leaf: Leaf) -> x509.Certificate:
    return x509.load_der_x509_certificate(leaf.chain_der[0])


def san(certificate: x509.Certificate) -> x509.Extension[x509.SubjectAlternativeName]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize("kind", LeafKind)
@pytest.mark.parametrize("host", HOSTS)
def test_openssl_verifies_strictly(
    root: RootCA,
    keys: LeafKeys,
    now: datetime,
    tmp_path: Path,
    tool: Callable[[str], str],
    host: str,
    kind: LeafKind,
) -> None:
    openssl = tool("openssl")
    leaf = mint_leaf(root, keys, host, kind, now=now, days=90)
    (tmp_path / "root.pem").write_bytes(root.certificate_pem)
    (tmp_path / "leaf.pem").write_text(ssl.DER_cert_to_PEM_cert(leaf.chain_der[0]))
    name = ["-verify_ip", host] if is_address(host) else ["-verify_hostname", host]
    files = ["-CAfile", str(tmp_path / "root.pem"), str(tmp_path / "leaf.pem")]
    done = subprocess.run(
        [openssl, "verify", "-x509_strict", "-purpose", "sslserver", *name, *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Shake hands in memory and return the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    pending = list(ends)
    for _ in range(10):  # two round trips at most
        for end in list(pending):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            pending.remove(end)
        if not pending:
            return ends[0]
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", LeafKind)
@pytest.mark.parametrize("host", ["leaf.example", "192.0.2.1", "2001:db8::1", HOST_65])
def test_a_python_client_shakes_hands(
    root: RootCA,
    keys: LeafKeys,
    now: datetime,
    server_context: Callable[[Leaf], ssl.SSLContext],
    host: str,
    kind: LeafKind,
    version: ssl.TLSVersion,
) -> None:
    client = ssl.create_default_context(cadata=root.certificate_pem.decode())
    client.maximum_version = client.minimum_version = version
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = server_context(mint_leaf(root, keys, host, kind, now=now, days=90))
    assert handshake(server, client, host).version() == version.name.replace("_", ".")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, client, "other.example")


def test_an_rsa_leaf_serves_rsa_key_exchange(
    root: RootCA, keys: LeafKeys, now: datetime, server_context: Callable[[Leaf], ssl.SSLContext]
) -> None:
    client = ssl.create_default_context(cadata=root.certificate_pem.decode())
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES128-SHA256:@SECLEVEL=1")
    server = server_context(mint_leaf(root, keys, "leaf.example", LeafKind.RSA, now=now, days=90))
    server.set_ciphers("AES128-SHA256:@SECLEVEL=1")
    cipher = handshake(server, client, "leaf.example").cipher()
    assert cipher is not None
    assert cipher[0] == "AES128-SHA256"


def test_every_field(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    leaf = mint_leaf(root, keys, "leaf.example", LeafKind.ECDSA, now=now, days=90)
    certificate = parsed(leaf)
    extensions = certificate.extensions
    assert len(leaf.chain_der) == 1
    assert certificate.version is x509.Version.v3
    assert certificate.issuer == root.certificate.subject
    assert certificate.subject.rfc4514_string() == "CN=leaf.example"
    assert certificate.serial_number == leaf.serial
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
        leaf.not_before,
        leaf.not_after,
    )
    assert san(certificate).value == x509.SubjectAlternativeName([x509.DNSName("leaf.example")])
    assert not san(certificate).critical
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(False, None)
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == identifier.digest
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


@pytest.mark.parametrize(("kind", "deciphers"), [(LeafKind.ECDSA, False), (LeafKind.RSA, True)])
def test_key_usage(root: RootCA, keys: LeafKeys, now: datetime, kind: LeafKind, deciphers: bool) -> None:
    certificate = parsed(mint_leaf(root, keys, "leaf.example", kind, now=now, days=90))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment is deciphers
    assert not usage.value.key_cert_sign


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_is_an_ip_san_and_the_common_name(
    root: RootCA, keys: LeafKeys, now: datetime, host: str
) -> None:
    certificate = parsed(mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=90))
    assert list(san(certificate).value) == [x509.IPAddress(ipaddress.ip_address(host))]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == host


@pytest.mark.parametrize("length", [MAX_COMMON_NAME_CHARS + d for d in (-1, 0, 1)])
def test_a_long_host_has_no_common_name_and_a_critical_san(
    root: RootCA, keys: LeafKeys, now: datetime, length: int
) -> None:
    host = "a" * (length - 8) + ".example"
    certificate = parsed(mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=90))
    long = length > MAX_COMMON_NAME_CHARS
    assert len(certificate.subject.rdns) == (0 if long else 1)
    assert san(certificate).critical is long
    assert san(certificate).value.get_values_for_type(x509.DNSName) == [host]


def test_the_final_dot_is_not_part_of_a_certificate_name(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    leaf = mint_leaf(root, keys, "leaf.example.", LeafKind.ECDSA, now=now, days=90)
    assert leaf.host == "leaf.example."
    assert san(parsed(leaf)).value.get_values_for_type(x509.DNSName) == ["leaf.example"]


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        "a..b",
        ".example",
        "example..",
        "*.example",
        "bücher.example",
        "a b.example",
        "a.example\n",
        "a.example\0.evil.example",
        "fe80::1%eth0",
        "[::1]",
        "192.0.2.1:443",
        "a" * 64 + ".example",
        "١٢٧.0.0.1",
    ],
)
def test_hosts_that_no_certificate_can_name(root: RootCA, keys: LeafKeys, now: datetime, host: str) -> None:
    with pytest.raises(ProxyError, match="neither a DNS name nor an address") as caught:
        mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=90)
    assert (caught.value.stage, caught.value.kind) == (Stage.LEAF, Kind.LEAF_FAILED)


def test_the_longest_name(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    longest = HOST_253
    assert len(longest) == 253
    mint_leaf(root, keys, longest, LeafKind.ECDSA, now=now, days=90)
    with pytest.raises(ProxyError):
        mint_leaf(root, keys, longest + "d", LeafKind.ECDSA, now=now, days=90)


labels = st.from_regex(r"[a-z0-9_-]{1,63}", fullmatch=True)
dns_names = (
    st.lists(labels, min_size=1, max_size=5)
    .map(".".join)
    .filter(lambda name: len(name) <= 253 and not is_address(name))
)


@settings(max_examples=60, deadline=None)
@given(
    host=st.one_of(dns_names, st.ip_addresses().filter(lambda a: not getattr(a, "scope_id", None)).map(str))
)
def test_any_host_is_named_exactly(root: RootCA, keys: LeafKeys, now: datetime, host: str) -> None:
    certificate = parsed(mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=1))
    assert [str(name.value) for name in san(certificate).value] == [host]
    certificate.verify_directly_issued_by(root.certificate)


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(dns_names, st.lists(st.text("aZ0_-éßж漢", min_size=1), min_size=1).map(".".join)))
def test_whatever_the_frontend_takes_for_a_host_is_minted(
    root: RootCA, keys: LeafKeys, now: datetime, text: str
) -> None:
    try:
        host = parse_host(text)
    except HostError:
        return
    assert mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=1).host == host


@settings(max_examples=100, deadline=None)
@given(host=st.text(max_size=80))
def test_any_text_is_minted_or_refused_by_name(
    root: RootCA, keys: LeafKeys, now: datetime, host: str
) -> None:
    with suppress(ProxyError):
        mint_leaf(root, keys, host, LeafKind.ECDSA, now=now, days=1)


# Validity


@pytest.mark.parametrize("days", [1, 90, MAX_LEAF_DAYS - 1, MAX_LEAF_DAYS])
def test_validity(root: RootCA, keys: LeafKeys, now: datetime, days: int) -> None:
    now += timedelta(days=30)  # the root is a day older than its creation: look at it from later on
    leaf = mint_leaf(root, keys, "leaf.example", LeafKind.ECDSA, now=now, days=days)
    assert leaf.not_before == now - timedelta(days=1)
    # both ends count
    assert leaf.not_after - leaf.not_before + timedelta(seconds=1) <= timedelta(days=MAX_LEAF_DAYS)
    if days < MAX_LEAF_DAYS - 1:
        assert leaf.not_after == now + timedelta(days=days)


@pytest.mark.parametrize("days", [0, -1, MAX_LEAF_DAYS + 1])
def test_days_out_of_range(root: RootCA, keys: LeafKeys, now: datetime, days: int) -> None:
    with pytest.raises(ValueError, match="1 to 397 days"):
        mint_leaf(root, keys, "leaf.example", LeafKind.ECDSA, now=now, days=days)


def test_never_beyond_the_root(root: RootCA, keys: LeafKeys) -> None:
    early = mint_leaf(root, keys, "a.example", LeafKind.ECDSA, now=root.not_before, days=90)
    assert early.not_before == root.not_before
    last = root.not_after - timedelta(seconds=1)
    late = mint_leaf(root, keys, "a.example", LeafKind.ECDSA, now=last, days=90)
    assert late.not_after == root.not_after
    for outside in (root.not_before - timedelta(seconds=1), root.not_after):
        with pytest.raises(ProxyError, match="clock"):
            mint_leaf(root, keys, "a.example", LeafKind.ECDSA, now=outside, days=90)


def test_the_clock_may_be_in_any_zone(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    elsewhere = now.astimezone(timezone(timedelta(hours=9)))
    leaf = mint_leaf(root, keys, "a.example", LeafKind.ECDSA, now=elsewhere, days=1)
    assert leaf.not_after == now + timedelta(days=1)


# Serials and keys


def test_serials_are_random_and_short_enough(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    serials = {mint_leaf(root, keys, "a.example", LeafKind.ECDSA, now=now, days=1).serial for _ in range(50)}
    assert len(serials) == 50
    assert all(0 < serial < 1 << 159 for serial in serials)  # 20 octets, the sign bit clear


def test_keys_are_of_their_kind_and_shared_by_leaves(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    for kind in LeafKind:
        private = serialization.load_der_private_key(keys.private_der(kind), None)
        for host in ("a.example", "b.example"):
            certificate = parsed(mint_leaf(root, keys, host, kind, now=now, days=1))
            assert certificate.public_key() == private.public_key()
        match private:
            case ec.EllipticCurvePrivateKey():
                assert kind is LeafKind.ECDSA
                assert private.curve.name == "secp256r1"
            case rsa.RSAPrivateKey():
                assert kind is LeafKind.RSA
                assert private.key_size == 2048
            case _:
                pytest.fail(f"{private!r}")


def test_processes_do_not_share_keys(keys: LeafKeys) -> None:
    other = LeafKeys.generate()
    assert all(other.private_der(kind) != keys.private_der(kind) for kind in LeafKind)


def test_a_key_that_cannot_be_generated_fails_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: LeafKind) -> leaf_module.LeafKey:
        raise RuntimeError(f"no entropy for {kind.value}")

    monkeypatch.setattr(leaf_module, "_generate", broken)
    broken_keys = LeafKeys.generate()
    for kind in LeafKind:
        with pytest.raises(RuntimeError, match=kind.value):
            broken_keys.private_der(kind)


def test_no_key_in_any_text(root: RootCA, keys: LeafKeys, now: datetime) -> None:
    for kind in LeafKind:
        leaf = mint_leaf(root, keys, "a.example", kind, now=now, days=1)
        secret = keys.private_der(kind)
        for text in (f"{keys!r} {keys}", f"{keys.key(kind)!r} {keys.key(kind)}", f"{leaf!r} {leaf}"):
            assert repr(secret)[2:-1] not in text
            assert secret.hex() not in text
            assert "\\x" not in text
            assert "private" not in text
    assert repr(keys) == "LeafKeys(ecdsa ready, rsa ready)"


# Other roots


def intermediate(root: RootCA, ca_dir: Path, directory: Path, now: datetime) -> RootCA:
    """A CA that a root without a path limit signed. It has no identifier of its own."""
    top_key, own_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    top, own = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)]) for cn in ("Top", "Own"))
    usage = root.certificate.extensions.get_extension_for_class(x509.KeyUsage).value

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(top)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(usage, True)
            .sign(top_key, hashes.SHA384())
        )

    directory.mkdir()
    (directory / "top.pem").write_bytes(certificate(top, top_key).public_bytes(serialization.Encoding.PEM))
    (directory / "ca.pem").write_bytes(certificate(own, own_key).public_bytes(serialization.Encoding.PEM))
    (directory / "ca.key").touch(0o600)
    (directory / "ca.key").write_bytes(
        own_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return load(directory / "ca.key", directory / "ca.pem", None)


def test_an_intermediate_is_sent_along(
    root: RootCA,
    ca_dir: Path,
    keys: LeafKeys,
    now: datetime,
    tmp_path: Path,
    server_context: Callable[[Leaf], ssl.SSLContext],
) -> None:
    own = intermediate(root, ca_dir, tmp_path / "own", now)
    leaf = mint_leaf(own, keys, "leaf.example", LeafKind.ECDSA, now=now, days=90)
    assert leaf.chain_der == (leaf.chain_der[0], own.certificate.public_bytes(serialization.Encoding.DER))
    assert leaf.not_after == own.not_after
    assert isinstance(parsed(leaf).signature_hash_algorithm, hashes.SHA384)  # RFC 8446 §4.2.3: P-384
    client = ssl.create_default_context(cafile=tmp_path / "own" / "top.pem")
    handshake(server_context(leaf), client, "leaf.example")


def test_an_encrypted_root_signs_too(keys: LeafKeys, now: datetime, tmp_path: Path) -> None:
    encrypted = load_or_create(tmp_path / "k", tmp_path / "c", b"open sesame")
    leaf = mint_leaf(encrypted, keys, "leaf.example", LeafKind.ECDSA, now=now, days=90)
    parsed(leaf).verify_directly_issued_by(encrypted.certificate)
