"""Certificates for origins that the tests run: a root of their own, and leaves, some wrong in one way each.

`Authority` keeps its key in memory and writes PEM files into a directory of the test's. Everything is ECDSA
P-256, except where RSA is asked for (RSA keys are made once: they are slow to make and no secret).
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
_DELEGATION_USAGE = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Authority:
    """A root and what it signs. `pem` is the file with the root's certificate."""

    def __init__(self, directory: Path, name: str = "Test origins") -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._issued: dict[int, x509.Certificate] = {}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = _usage(key_cert_sign=True)
        builder = _builder(self._name, self._name, self._key, -1, 30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(self._key_identifier(), critical=False)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = directory / "origins-root.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *hosts: str,
        from_days: float = -1,
        to_days: float = 1,
        self_signed: bool = False,
        usage: Sequence[x509.ObjectIdentifier] = (SERVER_AUTH,),
        digital_signature: bool = True,
        cert_sign: bool | None = None,
        use_rsa: bool = False,
        responder: str | None = None,
        delegation: bool = False,
    ) -> Path:
        """A PEM file, certificate first and then its key, for `hosts` (names or IP addresses). `cert_sign`:
        its key usage allows to sign certificates; None: if it signed itself. `responder`: the URL of one that
        tells its status (OCSP); the authority's own certificate then comes with it. `delegation`: it may sign
        delegated credentials (RFC 9345 §4.2)."""
        key: Key = rsa_key() if use_rsa else ec.generate_private_key(ec.SECP256R1())
        subject = _name(hosts[0])
        issuer, signer = (subject, key) if self_signed else (self._name, self._key)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        key_usage = _usage(
            digital_signature=digital_signature,
            key_agreement=not digital_signature,
            key_cert_sign=self_signed if cert_sign is None else cert_sign,
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = (
            _builder(subject, issuer, key, from_days, to_days)
            .add_extension(names, critical=False)
            .add_extension(authority, critical=False)
            .add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
            .add_extension(key_usage, critical=True)
        )
        if responder is not None:
            told = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(responder)
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([told]), critical=False)
        if delegation:
            usage_of_it = x509.UnrecognizedExtension(_DELEGATION_USAGE, b"\x05\x00")
            builder = builder.add_extension(usage_of_it, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        self._issued[certificate.serial_number] = certificate
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        path = self._directory / f"origin-{next(self._numbers)}.pem"
        path.write_bytes(chain + (self.pem.read_bytes() if responder is not None else b"") + _pem(key))
        return path

    def status(self, serial: int) -> ocsp.OCSPResponse:
        """An OCSP response: the certificate that was issued with this number is good. KeyError: none was."""
        now = datetime.now(timezone.utc)
        return (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self._issued[serial],
                issuer=self.certificate,
                algorithm=hashes.SHA1(),  # names the issuer, as every responder does it
                cert_status=ocsp.OCSPCertStatus.GOOD,
                this_update=now - timedelta(minutes=5),
                next_update=now + timedelta(hours=1),
                revocation_time=None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
            .sign(self._key, hashes.SHA256())
        )

    def _key_identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())


def der_pair(pem_file: Path) -> tuple[bytes, bytes]:
    """Certificate and key (PKCS#8) of a file that `Authority.issue` wrote, as DER."""
    pem = pem_file.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    key = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE KEY") :], None)
    return certificate.public_bytes(serialization.Encoding.DER), key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, from_days: float, to_days: float
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=from_days))
        .not_valid_after(now + timedelta(days=to_days))
    )


def _usage(
    *, digital_signature: bool = False, key_agreement: bool = False, key_cert_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
