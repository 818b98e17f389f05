"""The root CA: created on the first run, loaded and checked on every other.

Theory of operation
-------------------
`load_or_create` is what a start calls. A pair that is in place is only read, without a lock and without
write access. Otherwise, under the directory's lock (`polytls.pki.store`), the state is looked at again
and one of three things happens: a pair is created, a creation that a crash interrupted is finished, or
what is there stays untouched and `load` says what is wrong with it. Nothing that exists is overwritten.

`load` does not trust what it reads: every way in which the pair could make clients fail later (mismatch,
not a CA, expired, a key too weak) is a `CAError` now, with the file's name and what to do.

A root that is made here is RSA-2048, because every client can verify that, and may sign leaves only
(path length 0). Brought along may be RSA of at least 2048 bits or ECDSA on P-256 or P-384, and an
intermediate of an organisation's own CA, which is then sent with each leaf.

The private key stays inside `RootCA`: no attribute of its public face, no `repr`, no log. The one thing
to do with it is `sign_leaf`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polytls.errors import CAError
from polytls.pki import store
from polytls.pki.passphrase import read_passphrase
from polytls.pki.template import SignatureAlgorithm
from polytls.settings import RootKey

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RootCA", "load", "load_or_create", "read_passphrase"]

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MIN_RSA_BITS = 2048  # less is refused by every current client
NEW_RSA_BITS = 2048  # a leaf costs one signature, and 3072 bits triple its price
ROOT_DAYS = 3650  # trusting a root is manual work; ten years outlive the machine it runs on
# Clients' clocks are wrong too, and a certificate from the future is refused.
BACKDATE = timedelta(days=1)

_REPLACE = "remove both files to have a new root CA created (clients must then trust the new one)"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RootCA:
    """A loaded and checked CA. Built by `load` and `load_or_create`.

    `certificate_pem` is the certificate alone, whatever else its file holds. `not_before` and `not_after` are
    its validity, UTC: no leaf lives longer. `sent_with_leaf` is what a
    client needs in the handshake after the leaf, DER: nothing for a root, which the client must have
    already (RFC 8446 §4.4.2), and the CA's own certificate for an intermediate.
    """

    certificate: x509.Certificate
    certificate_pem: bytes
    sent_with_leaf: tuple[bytes, ...]
    authority_key_identifier: x509.AuthorityKeyIdentifier
    not_before: datetime
    not_after: datetime
    signature_algorithm: SignatureAlgorithm
    _key: SigningKey = field(repr=False)
    _sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def subject(self) -> str:
        """The subject in the string form of RFC 4514."""
        return self.certificate.subject.rfc4514_string()

    @property
    def fingerprint_sha256(self) -> str:
        """SHA-256 of the DER certificate as viewers show it: ``AB:CD:…``, 32 octets."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def signs_fast(self) -> bool:
        """Whether a signature costs tens of microseconds (ECDSA) and not hundreds (RSA)."""
        return self.signature_algorithm is not SignatureAlgorithm.RSA_SHA256

    def sign_leaf(self, tbs: bytes) -> bytes:
        """The signature of a leaf's TBSCertificate, by `signature_algorithm`. For `polytls.pki.leaf` alone.
        Thread-safe."""
        return self._sign(tbs)

    def __repr__(self) -> str:
        return f"RootCA({self.subject}, sha256 {self.fingerprint_sha256}, until {self.not_after:%Y-%m-%d})"


def load_or_create(
    key_path: Path,
    cert_path: Path,
    passphrase: bytes | None,
    *,
    kind: RootKey = RootKey.RSA,
    now: datetime | None = None,
) -> RootCA:
    """Load the root CA, creating it first if neither file is there.

    A new key is of that `kind`, PKCS #8 PEM, mode 0600, encrypted if there is a `passphrase`; the certificate
    beside it is PEM, mode 0644; a missing key directory is created with mode 0700. Any number of processes
    may start at once: one creates the pair, all load that one. `now` (aware) stands in for the clock.

    Raises CAError as `load` does, and if the pair cannot be written.
    """
    if key_path.resolve() == cert_path.resolve():
        raise CAError(f"the CA key and the CA certificate are both {key_path}: name two files")
    if not (store.present(key_path) and store.present(cert_path)):
        store.make_directory(key_path.parent, store.DIRECTORY_MODE)
        with store.locked(key_path.parent):
            _make_whole(key_path, cert_path, passphrase, kind, now or _now())
    return load(key_path, cert_path, passphrase, now=now)


def load(key_path: Path, cert_path: Path, passphrase: bytes | None, *, now: datetime | None = None) -> RootCA:
    """Load an existing root CA and check it. Writes nothing. `now` (aware) stands in for the clock.

    Raises CAError, saying which file is at fault and what to do, if one is missing, unreadable, open to
    other users or not PEM; if key and passphrase do not go together; if key and certificate do not
    match; if the certificate is not valid now or may not sign leaves; if the key is of a kind or size
    that clients refuse.
    """
    _require_both(key_path, cert_path)
    certificate = _load_certificate(cert_path)
    key = _load_key(key_path, passphrase)
    if not _belong_together(key, certificate):
        raise CAError(
            f"the CA key {key_path} does not belong to the CA certificate {cert_path}:"
            f" restore the two files that were made together, or {_REPLACE}"
        )
    if not _signs(key, certificate):
        raise CAError(
            f"the CA key {key_path} is damaged, its signatures are wrong: restore it, or {_REPLACE}"
        )
    _check_validity(certificate, cert_path, now or _now())
    try:
        _check_authority(certificate, cert_path)
        authority = _authority_key_identifier(certificate, key)
    except ValueError as error:  # x509 extensions are parsed when they are first looked at
        raise CAError(f"the CA certificate {cert_path} is malformed ({error}): {_REPLACE}") from error
    intermediate = certificate.issuer != certificate.subject
    return RootCA(
        certificate=certificate,
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        sent_with_leaf=(certificate.public_bytes(serialization.Encoding.DER),) if intermediate else (),
        authority_key_identifier=authority,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        signature_algorithm=_signature_algorithm(key),
        _key=key,
        _sign=_signer(key),
    )


# Creating


def _make_whole(
    key_path: Path, cert_path: Path, passphrase: bytes | None, kind: RootKey, now: datetime
) -> None:
    """Create the pair, or finish one whose creation was interrupted. Called under the lock.

    A lone file that is none of our leftovers is left alone: `load` reports it.
    """
    certificate: x509.Certificate | None = None
    has_key, has_certificate = store.present(key_path), store.present(cert_path)
    if not has_key and not has_certificate:
        _create(key_path, cert_path, passphrase, kind, now)
    elif has_key and not has_certificate and store.present(store.staged(cert_path)):
        with suppress(CAError):  # cut short: not from the interrupted creation, which flushed it first
            certificate = _load_certificate(store.staged(cert_path))
        if certificate and _belong_together(_load_key(key_path, passphrase), certificate):
            store.publish(cert_path)


def _create(key_path: Path, cert_path: Path, passphrase: bytes | None, kind: RootKey, now: datetime) -> None:
    key: SigningKey
    match kind:
        case RootKey.RSA:
            key = rsa.generate_private_key(public_exponent=65537, key_size=NEW_RSA_BITS)
        case RootKey.ECDSA:
            key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, now)
    store.make_directory(cert_path.parent, 0o755)  # no-op beside the key, where it is 0700 already
    # A crash can leave the one of two staged files that this start would not overwrite.
    store.discard_staged(key_path)
    store.discard_staged(cert_path)
    store.stage(cert_path, certificate.public_bytes(serialization.Encoding.PEM), store.CERTIFICATE_MODE)
    store.stage(key_path, _key_pem(key, passphrase), store.KEY_MODE)
    store.publish(key_path)  # the key first: a certificate in place means the pair is whole
    store.publish(cert_path)


def _key_pem(key: SigningKey, passphrase: bytes | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _self_signed(key: SigningKey, now: datetime) -> x509.Certificate:
    """RFC 5280 §4.2.1: the extensions of a CA that signs leaves and nothing else."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Part of the key's own identifier in the name tells this root from the next one in a trust store.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PolyTLS"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"PolyTLS local root CA {identifier.digest[:4].hex()}"),
        ]
    )
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
    begin = now.astimezone(timezone.utc).replace(microsecond=0) - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + BACKDATE + timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


# Loading and checking


def _require_both(key_path: Path, cert_path: Path) -> None:
    match store.present(key_path), store.present(cert_path):
        case False, False:
            raise CAError(
                f"there is no root CA: neither {key_path} nor {cert_path} exists;"
                " `polytls serve` creates them on its first run"
            )
        case False, True:
            raise CAError(
                f"the CA key {key_path} is missing while {cert_path} is there: restore the key, or remove"
                " the certificate to have a new root CA created (clients must then trust the new one)"
            )
        case True, False:
            raise CAError(
                f"the CA certificate {cert_path} is missing while {key_path} is there: restore the"
                " certificate, or move the key away to have a new root CA created (clients must then trust"
                " the new one)"
            )


def _load_certificate(path: Path) -> x509.Certificate:
    data = store.read_public(path, "CA certificate")
    _check_pem(data, path, "CA certificate")
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise CAError(
            f"the CA certificate {path} holds no certificate that can be read: put the CA's PEM there, or"
            f" {_REPLACE}"
        ) from None
    if len(certificates) > 1:
        raise CAError(
            f"the CA certificate {path} holds {len(certificates)} certificates: leave only the one that"
            " belongs to the CA key"
        )
    return certificates[0]


def _load_key(path: Path, passphrase: bytes | None) -> SigningKey:
    data = store.read_secret(path, "CA key")
    _check_pem(data, path, "CA key")
    encrypted = b"ENCRYPTED" in data  # "BEGIN ENCRYPTED PRIVATE KEY" or "Proc-Type: 4,ENCRYPTED"
    if encrypted and not passphrase:
        raise CAError(
            f"the CA key {path} is encrypted and no passphrase is configured: name the environment variable"
            " or the file that holds it (ca_key_passphrase_env, ca_key_passphrase_file)"
        )
    if not encrypted and passphrase is not None:
        raise CAError(
            f"a passphrase is configured but the CA key {path} is not encrypted: encrypt it with"
            " `openssl pkcs8 -topk8`, or remove the passphrase setting"
        )
    try:
        # That its numbers fit together is tried out by `load`, which has it sign: a tenth of the time.
        key = serialization.load_pem_private_key(data, passphrase, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is not chained: nothing that was computed from the key belongs into a traceback.
        if encrypted:
            raise CAError(
                f"the CA key {path} cannot be decrypted: the passphrase is wrong or the file is damaged"
            ) from None
        raise CAError(
            f"the CA key {path} holds no private key that can be read: put the CA's PKCS #8 PEM key there,"
            f" or {_REPLACE}"
        ) from None
    return _accepted(key, path)


def _accepted(key: object, path: Path) -> SigningKey:
    match key:
        case rsa.RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return key
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return key
        case rsa.RSAPrivateKey():
            found = f"RSA with {key.key_size} bits"
        case ec.EllipticCurvePrivateKey():
            found = f"ECDSA on {key.curve.name}"
        case _:
            found = "of another algorithm"
    raise CAError(
        f"the CA key {path} is {found}, which clients refuse: use RSA with at least {MIN_RSA_BITS} bits, or"
        " ECDSA on P-256 or P-384"
    )


def _check_pem(data: bytes, path: Path, what: str) -> None:
    """Tell an empty or cut file, and two files that were swapped, from one that is merely not ours."""
    if not data.strip():
        raise CAError(f"the {what} {path} is empty: restore it, or {_REPLACE}")
    if b"-----BEGIN " not in data:
        raise CAError(f"the {what} {path} is not PEM: convert it, or name another file")
    if b"-----END " not in data:
        raise CAError(f"the {what} {path} is cut short: restore it, or {_REPLACE}")
    wanted = b"PRIVATE KEY-----" if what == "CA key" else b"CERTIFICATE-----"
    if wanted not in data:
        raise CAError(f"the {what} {path} holds something else: check that the two files are not swapped")


def _check_validity(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise CAError(
            f"the CA certificate {path} is not valid before {begin:%Y-%m-%d %H:%M} UTC: set this machine's"
            " clock right, or use another CA"
        )
    if now >= end:
        raise CAError(f"the CA certificate {path} expired on {end:%Y-%m-%d %H:%M} UTC: {_REPLACE}")


def _check_authority(certificate: x509.Certificate, path: Path) -> None:
    """RFC 5280 §4.2.1.9, §4.2.1.3 and §4.2.1.12: may this certificate sign server leaves?"""
    extensions = certificate.extensions
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise CAError(
            f"the CA certificate {path} is not a CA's (no CA:TRUE in its basic constraints): name a"
            " certificate that may sign others"
        )
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise CAError(
            f"the CA certificate {path} may not sign certificates (no keyCertSign in its key usage): name"
            " one that may"
        )
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # no such extension: any purpose
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes):
        raise CAError(
            f"the CA certificate {path} may not sign for TLS servers (no serverAuth in its extended key"
            " usage): name one that may"
        )


def _authority_key_identifier(certificate: x509.Certificate, key: SigningKey) -> x509.AuthorityKeyIdentifier:
    """RFC 5280 §4.2.1.1: the issuer's own identifier, or its usual derivation where it has none."""
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _belong_together(key: SigningKey, certificate: x509.Certificate) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # a certificate for a key that cannot be one of ours
        return False


def _signs(key: SigningKey, certificate: x509.Certificate) -> bool:
    """Whether a signature by `key` verifies. Any of its private numbers that is wrong makes it fail."""
    text, digest, public = b"PolyTLS", _signature_hash(key), certificate.public_key()
    try:
        match key:
            case rsa.RSAPrivateKey():
                assert isinstance(public, rsa.RSAPublicKey)
                public.verify(_signer(key)(text), text, padding.PKCS1v15(), digest)
            case ec.EllipticCurvePrivateKey():
                assert isinstance(public, ec.EllipticCurvePublicKey)
                public.verify(_signer(key)(text), text, ec.ECDSA(digest))
    except (InvalidSignature, ValueError, InternalError):
        return False
    return True


def _signature_algorithm(key: SigningKey) -> SignatureAlgorithm:
    if isinstance(key, rsa.RSAPrivateKey):
        return SignatureAlgorithm.RSA_SHA256
    if isinstance(_signature_hash(key), hashes.SHA384):
        return SignatureAlgorithm.ECDSA_SHA384
    return SignatureAlgorithm.ECDSA_SHA256


def _signer(key: SigningKey) -> Callable[[bytes], bytes]:
    """What signs with `key`: RSA PKCS #1 v1.5 or ECDSA. All that can be decided before is."""
    digest = _signature_hash(key)
    if isinstance(key, rsa.RSAPrivateKey):
        pkcs1 = padding.PKCS1v15()
        return lambda data: key.sign(data, pkcs1, digest)
    ecdsa = ec.ECDSA(digest)
    return lambda data: key.sign(data, ecdsa)


def _signature_hash(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """RFC 8446 §4.2.3 knows P-384 with SHA-384 only; everything else is signed with SHA-256."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return hashes.SHA384()
    return hashes.SHA256()


def _now() -> datetime:
    return datetime.now(timezone.utc)
