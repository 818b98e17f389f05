"""Leaves by template, octet for octet against `cryptography`'s builder, which is the oracle."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polytls.pki.leaf import MAX_COMMON_NAME_CHARS, LeafKeys, LeafKind, mint_leaf
from polytls.pki.root import RootCA, load
from polytls.pki.template import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

UTC = timezone.utc
SIGNERS: dict[str, Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]] = {
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}
# An issuer's name is repeated as it is (RFC 5280 §4.1.2.4), whatever it is made of.
NAMES: dict[str, x509.Name] = {
    "rsa-2048": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]),
    "rsa-3072": x509.Name([]),
    "p256": x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Bücher " * 9),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
        ]
    ),
    "p384": x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "a"),
                    x509.NameAttribute(NameOID.USER_ID, "b"),
                ]
            )
        ]
    ),
}


@pytest.fixture(scope="module", params=list(SIGNERS))
def signer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RootCA:
    """A root of each kind of key, valid past 2050; those on NIST curves have no identifier of their own."""
    key, name = SIGNERS[request.param](), NAMES[request.param]
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2070, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(usage, True)
    )
    if isinstance(key, rsa.RSAPrivateKey):
        builder = builder.add_extension(x509.SubjectKeyIdentifier(b"of its own"), False)
    directory: Path = tmp_path_factory.mktemp("signer")
    (directory / "c").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (directory / "k").touch(0o600)
    (directory / "k").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return load(directory / "k", directory / "c", None)


def built(
    root: RootCA,
    keys: LeafKeys,
    host: str,
    kind: LeafKind,
    *,
    serial: int,
    between: Sequence[datetime],
) -> x509.Certificate:
    """The oracle: the leaf as `cryptography` builds it from its fields."""
    key = keys.key(kind)
    name: x509.GeneralName
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        text = host.removesuffix(".")
        name = x509.DNSName(text)
    else:
        text, name = str(address), x509.IPAddress(address)
    short = len(text) <= MAX_COMMON_NAME_CHARS
    signing = root._key
    p384 = isinstance(signing, ec.EllipticCurvePrivateKey) and signing.key_size == 384
    return (
        x509.CertificateBuilder()
        .issuer_name(root.certificate.subject)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if short else []))
        .public_key(key.public_key)
        .serial_number(serial)
        .not_valid_before(between[0])
        .not_valid_after(between[1])
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(key.usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key), False)
        .add_extension(root.authority_key_identifier, False)
        .add_extension(x509.SubjectAlternativeName([name]), not short)
        .sign(signing, hashes.SHA384() if p384 else hashes.SHA256())
    )


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


labels = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True)
dns_names = (
    st.lists(labels, min_size=1, max_size=6)
    .map(".".join)
    .filter(lambda name: len(name) <= 253 and not is_address(name))
)
addresses = st.ip_addresses().filter(lambda one: not getattr(one, "scope_id", None)).map(str)
hosts = st.one_of(dns_names, dns_names.map(lambda name: f"{name}."), addresses)
BEGIN, END = datetime(2001, 1, 2, tzinfo=UTC), datetime(2069, 12, 30, tzinfo=UTC)
moments = st.integers(0, int((END - BEGIN).total_seconds() * 1e6)).map(
    lambda microseconds: BEGIN + timedelta(microseconds=microseconds)
)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOST_64, HOST_65 = "a" * 56 + ".example", "a" * 57 + ".example"
HOST_253 = ".".join(["a" * 49] * 5) + ".abc"


@settings(max_examples=150, deadline=None)
@given(host=hosts, kind=st.sampled_from(LeafKind), now=moments, days=st.integers(1, 397))
@example(host=HOST_64, kind=LeafKind.ECDSA, now=NOON, days=90)
@example(host=HOST_65, kind=LeafKind.RSA, now=NOON, days=90)
@example(host=HOST_253, kind=LeafKind.ECDSA, now=NOON, days=1)
@example(host="leaf.example.", kind=LeafKind.ECDSA, now=NOON, days=1)
@example(host="192.0.2.1", kind=LeafKind.ECDSA, now=NOON, days=1)
@example(host="2001:db8::1", kind=LeafKind.RSA, now=NOON, days=1)
@example(host="::ffff:192.0.2.1", kind=LeafKind.RSA, now=NOON, days=1)
# UTCTime and GeneralizedTime on either side, and one of each.
@example(host="a.example", kind=LeafKind.ECDSA, now=datetime(2049, 12, 30, 23, 59, 59, tzinfo=UTC), days=1)
@example(host="a.example", kind=LeafKind.ECDSA, now=datetime(2049, 12, 31, 0, 0, 0, tzinfo=UTC), days=1)
@example(host="a.example", kind=LeafKind.ECDSA, now=datetime(2050, 1, 2, 0, 0, 0, tzinfo=UTC), days=1)
def test_a_leaf_is_what_the_builder_would_have_made(
    signer: RootCA, keys: LeafKeys, host: str, kind: LeafKind, now: datetime, days: int
) -> None:
    leaf = mint_leaf(signer, keys, host, kind, now=now, days=days)
    certificate = x509.load_der_x509_certificate(leaf.chain_der[0])
    between = (leaf.not_before, leaf.not_after)
    oracle = built(signer, keys, host, kind, serial=leaf.serial, between=between)
    assert certificate.tbs_certificate_bytes == oracle.tbs_certificate_bytes
    assert certificate.signature_algorithm_oid == oracle.signature_algorithm_oid
    certificate.verify_directly_issued_by(signer.certificate)
    if not signer.signs_fast:  # else the signature is random
        assert leaf.chain_der[0] == oracle.public_bytes(serialization.Encoding.DER)


@settings(max_examples=100, deadline=None)
@given(serial=st.integers(1, (1 << 159) - 1), kind=st.sampled_from(LeafKind))
@example(serial=0x7F, kind=LeafKind.ECDSA)
@example(serial=0x80, kind=LeafKind.ECDSA)
@example(serial=0xFF, kind=LeafKind.RSA)
@example(serial=0x100, kind=LeafKind.RSA)
@example(serial=(1 << 159) - 1, kind=LeafKind.ECDSA)
def test_any_serial_number(signer: RootCA, keys: LeafKeys, serial: int, kind: LeafKind) -> None:
    begin = datetime(2030, 2, 3, 4, 5, 6, tzinfo=UTC)
    between = (begin, begin + timedelta(days=1))
    tbs = keys.template(signer, kind).tbs(serial, *between, Subject(b"a.example", False, "a.example"))
    oracle = built(signer, keys, "a.example", kind, serial=serial, between=between)
    assert tbs == oracle.tbs_certificate_bytes


def test_a_template_is_kept_and_belongs_to_its_root(signer: RootCA, root: RootCA, keys: LeafKeys) -> None:
    first = keys.template(signer, LeafKind.ECDSA)
    assert keys.template(signer, LeafKind.ECDSA) is first
    assert keys.template(root, LeafKind.ECDSA) is not first
    for one in (signer, root, signer):
        leaf = mint_leaf(one, keys, "a.example", LeafKind.ECDSA, now=NOON, days=1)
        certificate = x509.load_der_x509_certificate(leaf.chain_der[0])
        certificate.verify_directly_issued_by(one.certificate)
