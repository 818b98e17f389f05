"""The root CA: made once however many start, never half, and refused with a reason when it is wrong."""

from __future__ import annotations

import shutil
import ssl
import stat
import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import polytls.pki
from polytls.errors import CAError
from polytls.pki import store
from polytls.pki.root import RootCA, load, load_or_create
from polytls.settings import RootKey

if TYPE_CHECKING:
    from collections.abc import Callable

PEM = serialization.Encoding.PEM
SOURCE = Path(polytls.pki.__file__).parent.parent.parent
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Pair:
    """A directory of its own for one pair, and where its files are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "private.key"
        self.certificate = directory / "certificate.pem"

    def create(self, passphrase: bytes | None = None) -> RootCA:
        return load_or_create(self.key, self.certificate, passphrase)

    def load(self, passphrase: bytes | None = None, now: datetime | None = None) -> RootCA:
        return load(self.key, self.certificate, passphrase, now=now)

    def refused(self, problem: str, passphrase: bytes | None = None, now: datetime | None = None) -> None:
        """Both ways of loading refuse, with one and the same sentence, and change nothing."""
        before = {path.name: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}
        with pytest.raises(CAError, match=problem) as first:
            self.load(passphrase, now)
        with pytest.raises(CAError, match=problem) as second:
            load_or_create(self.key, self.certificate, passphrase, now=now)
        after = {path.name: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}
        after.pop(store.LOCK_NAME, None)
        before.pop(store.LOCK_NAME, None)
        assert str(first.value) == str(second.value)
        assert after == before
        assert "\n" not in str(first.value)
        assert ": " in str(first.value)  # what happened: what to do

    def write_key(self, key: PrivateKey, passphrase: bytes | None = None) -> None:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        self.write_key_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))

    def write_key_bytes(self, data: bytes) -> None:
        self.key.touch(0o600)
        self.key.write_bytes(data)

    def write_certificate(self, key: PrivateKey, *extensions: x509.ExtensionType) -> None:
        now = datetime.now(timezone.utc)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Imported")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        self.certificate.write_bytes(builder.sign(key, algorithm).public_bytes(PEM))


def usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, sign, False, False, False)


IS_CA = x509.BasicConstraints(True, None)
MAY_SIGN = usage(sign=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "ca").mkdir()
    return Pair(tmp_path / "ca")


@pytest.fixture
def made(ca_dir: Path, pair: Pair) -> Pair:
    """A pair as a first run makes it."""
    for name in ("private.key", "certificate.pem"):
        shutil.copy(ca_dir / name, pair.directory / name)
    return pair


@pytest.fixture(scope="session")
def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


# The first run


def test_the_first_run(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "new" / "ca")
    root = pair.create()
    assert {path.name for path in pair.directory.iterdir()} == {
        "private.key",
        "certificate.pem",
        store.LOCK_NAME,
    }
    assert stat.S_IMODE(pair.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.certificate.stat().st_mode) == 0o644
    assert pair.key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")  # PKCS #8
    assert pair.certificate.read_bytes() == root.certificate_pem
    assert pair.create().certificate == root.certificate
    assert pair.load().certificate == root.certificate


def test_the_new_root(root: RootCA) -> None:
    certificate = root.certificate
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(True, 0)
    key_usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert key_usage.critical
    assert key_usage.value == x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    public = certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(public)
    assert certificate.version is x509.Version.v3
    assert 0 < certificate.serial_number < 1 << 159
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    certificate.verify_directly_issued_by(certificate)
    now = datetime.now(timezone.utc)
    assert timedelta(0) <= now - root.not_before - timedelta(days=1) < timedelta(hours=1)
    assert root.not_after - root.not_before == timedelta(days=3651)
    assert root.subject == f"CN=PolyTLS local root CA {identifier.digest[:4].hex()},O=PolyTLS"
    assert root.sent_with_leaf == ()


def test_openssl_agrees(root: RootCA, ca_dir: Path, tool: Callable[[str], str]) -> None:
    openssl, certificate = tool("openssl"), str(ca_dir / "certificate.pem")
    subprocess.run([openssl, "verify", "-x509_strict", "-CAfile", certificate, certificate], check=True)
    shown = subprocess.run(
        [openssl, "x509", "-noout", "-fingerprint", "-sha256", "-in", certificate],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip().split("=")[1] == root.fingerprint_sha256


def test_roots_differ(root: RootCA, pair: Pair) -> None:
    other = pair.create()
    assert other.subject != root.subject
    assert other.fingerprint_sha256 != root.fingerprint_sha256


def test_the_key_is_in_no_text(root: RootCA, ca_dir: Path) -> None:
    text = f"{root!r} {root}"
    assert text.startswith("RootCA(CN=PolyTLS local root CA ")
    assert root.fingerprint_sha256 in text
    assert "rsa" not in text.lower()
    body = (ca_dir / "private.key").read_text().splitlines()[1:-1]
    assert not any(line in text for line in body)


def test_a_root_does_not_change(root: RootCA) -> None:
    with pytest.raises(FrozenInstanceError):
        root.certificate_pem = b""  # type: ignore[misc]


def test_key_and_certificate_may_live_apart(tmp_path: Path) -> None:
    key, certificate = tmp_path / "private" / "ca.key", tmp_path / "public" / "ca.pem"
    assert load_or_create(key, certificate, None).certificate == load(key, certificate, None).certificate


def test_one_file_for_both(tmp_path: Path) -> None:
    with pytest.raises(CAError, match="name two files"):
        load_or_create(tmp_path / "ca.pem", tmp_path / "." / "ca.pem", None)
    assert list(tmp_path.iterdir()) == []


def test_a_pair_in_place_needs_no_write_access(made: Pair) -> None:
    made.create()
    assert not (made.directory / store.LOCK_NAME).exists()


# Several first starts, and starts that die

START = """
import sys
from pathlib import Path
from polytls.pki.root import load_or_create
directory = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(load_or_create(directory / "private.key", directory / "certificate.pem", None).fingerprint_sha256)
"""


def test_many_first_starts_make_one_pair(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(directory)],
            cwd=SOURCE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    fingerprints = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(fingerprints) == 1
    assert fingerprints == {Pair(directory).load().fingerprint_sha256 + "\n"}
    assert len(list(directory.iterdir())) == 3  # no leftovers: key, certificate, lock


# Kills the process without any clean-up at the n-th step that changes something on the disk.
DIE = """
import os, sys
from pathlib import Path
from polytls.pki.root import load_or_create
directory, left = Path(sys.argv[1]), int(sys.argv[2])
def dying(step):
    def run(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return step(*args, **kwargs)
    return run
os.open, os.fchmod, os.fsync = dying(os.open), dying(os.fchmod), dying(os.fsync)
Path.replace, Path.unlink, Path.mkdir = dying(Path.replace), dying(Path.unlink), dying(Path.mkdir)
load_or_create(directory / "private.key", directory / "certificate.pem", None)
"""
MOST_STEPS = 60


def test_a_start_that_dies_at_any_step_leaves_no_half_pair(tmp_path: Path) -> None:
    died, finished_by_next = 0, 0
    for step in range(MOST_STEPS):
        pair = Pair(tmp_path / f"ca-{step}")
        status = subprocess.run(
            [sys.executable, "-c", DIE, str(pair.directory), str(step)], cwd=SOURCE
        ).returncode
        assert status in (0, 9)
        if pair.certificate.exists():
            assert pair.key.exists()  # whoever sees a certificate may count on its key
        before = pair.key.read_bytes() if pair.key.exists() else None
        root = pair.create()
        assert before in (None, pair.key.read_bytes())  # a key that was published stays
        assert {path.name for path in pair.directory.iterdir()} - {store.LOCK_NAME} == {
            "private.key",
            "certificate.pem",
        }
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
        assert pair.load().certificate == root.certificate
        finished_by_next += before is not None and status == 9
        if status == 0:
            break
        died += 1
    else:
        pytest.fail(f"the first start takes more than {MOST_STEPS} steps")
    assert died > 10  # the steps are really counted
    assert finished_by_next > 0  # and one of them lies between the two renames


def test_a_foreign_leftover_is_not_used(made: Pair, pair: Pair, p256: ec.EllipticCurvePrivateKey) -> None:
    staged = store.staged(made.certificate)
    made.write_certificate(p256, IS_CA, MAY_SIGN)
    made.certificate.rename(staged)
    made.refused("certificate.pem is missing while")
    staged.write_bytes(b"-----BEGIN CERTIFICATE-----\ncut")
    made.refused("certificate.pem is missing while")


# What is refused


def test_nothing_there(pair: Pair) -> None:
    with pytest.raises(CAError, match=r"no root CA.*polytls serve"):
        pair.load()


def test_the_key_is_missing(made: Pair) -> None:
    made.key.unlink()
    made.refused("the CA key .*private.key is missing while .*certificate.pem is there")


def test_the_certificate_is_missing(made: Pair) -> None:
    made.certificate.unlink()
    made.refused("the CA certificate .*certificate.pem is missing while .*private.key is there")


def test_a_link_to_nowhere_is_not_replaced(made: Pair) -> None:
    made.key.unlink()
    made.key.symlink_to(made.directory / "unmounted")
    made.refused("private.key cannot be read: No such file")
    assert made.key.is_symlink()


def test_the_key_is_open_to_others(made: Pair) -> None:
    made.key.chmod(0o644)
    made.refused("mode 0644.*chmod 600")


@pytest.mark.parametrize("file", ["key", "certificate"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\x30\x82\x01\x00", "is not PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIE", "is cut short"),
        (b"-----BEGIN X-----\nMIIE\n-----END X-----\n", "holds something else"),
    ],
)
def test_a_file_that_is_damaged(made: Pair, file: str, content: bytes, problem: str) -> None:
    path: Path = getattr(made, file)
    path.write_bytes(content)
    made.refused(f"the CA {file} .*{path.name} {problem}")


@pytest.mark.parametrize("label", ["PRIVATE KEY", "CERTIFICATE"])
def test_pem_without_sense(made: Pair, label: str) -> None:
    path = made.key if label == "PRIVATE KEY" else made.certificate
    path.write_bytes(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n".encode())
    made.refused(f"{path.name} holds no .* that can be read")


def test_swapped_files(made: Pair) -> None:
    key, certificate = made.key.read_bytes(), made.certificate.read_bytes()
    made.key.write_bytes(certificate)
    made.certificate.write_bytes(key)
    made.refused("swapped")


def test_two_certificates(made: Pair) -> None:
    made.certificate.write_bytes(made.certificate.read_bytes() * 2)
    made.refused("holds 2 certificates")


def test_a_key_of_another_pair(made: Pair, p256: ec.EllipticCurvePrivateKey) -> None:
    made.write_key(p256)
    made.refused(r"private.key does not belong to .*certificate.pem")


def test_a_certificate_for_a_key_of_an_unknown_kind(made: Pair, p256: ec.EllipticCurvePrivateKey) -> None:
    made.write_certificate(p256, IS_CA, MAY_SIGN)
    der = ssl.PEM_cert_to_DER_cert(made.certificate.read_text())
    curve = bytes.fromhex("2a8648ce3d0301")  # ANSI X9.62 prime curves; 7 is P-256, 6 is hardly known
    der = der.replace(curve + b"\x07", curve + b"\x06")
    made.certificate.write_text(ssl.DER_cert_to_PEM_cert(der))
    made.refused("does not belong to")


def test_dates(made: Pair, root: RootCA) -> None:
    second = timedelta(seconds=1)
    made.load(now=root.not_before)
    made.load(now=root.not_after - second)
    made.refused("not valid before .*clock", now=root.not_before - second)
    made.refused("expired on", now=root.not_after)


@pytest.mark.parametrize(
    ("extensions", "problem"),
    [
        ((), "not a CA's"),
        ((x509.BasicConstraints(False, None), MAY_SIGN), "not a CA's"),
        ((IS_CA,), "no keyCertSign"),
        ((IS_CA, usage(sign=False)), "no keyCertSign"),
        ((IS_CA, MAY_SIGN, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])), "no serverAuth"),
        ((IS_CA, MAY_SIGN, x509.UnrecognizedExtension(x509.SubjectKeyIdentifier.oid, b"?")), "malformed"),
    ],
)
def test_a_certificate_that_may_not_sign(
    pair: Pair, p256: ec.EllipticCurvePrivateKey, extensions: tuple[x509.ExtensionType, ...], problem: str
) -> None:
    pair.write_key(p256)
    pair.write_certificate(p256, *extensions)
    pair.refused(f"certificate.pem .*{problem}")


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        (ec.generate_private_key(ec.SECP256R1()), True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), False),
        (ed25519.Ed25519PrivateKey.generate(), False),
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), False),
    ],
    ids=["p256", "p384", "p521", "ed25519", "rsa1024"],
)
def test_kinds_of_keys(pair: Pair, key: PrivateKey, accepted: bool) -> None:
    pair.write_key(key)
    pair.write_certificate(key, IS_CA, MAY_SIGN, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    if accepted:
        assert pair.create().subject == "CN=Imported"
    else:
        pair.refused("which clients refuse: use RSA with at least 2048 bits, or ECDSA")


def test_text_around_the_certificate_is_not_handed_on(made: Pair, root: RootCA) -> None:
    made.certificate.write_bytes(b"subject=me\n" + made.certificate.read_bytes() + b"bye\n")
    assert made.load().certificate_pem == root.certificate_pem


# Passphrases


def test_an_encrypted_key(pair: Pair) -> None:
    root = pair.create(b"open sesame")
    assert pair.key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert pair.load(b"open sesame").certificate == root.certificate
    pair.refused("is encrypted and no passphrase is configured")
    pair.refused("cannot be decrypted: the passphrase is wrong", b"close sesame")


def test_a_passphrase_for_a_plain_key(made: Pair) -> None:
    made.refused("a passphrase is configured but the CA key .* is not encrypted", b"open sesame")


def test_an_encrypted_key_in_the_traditional_format(pair: Pair, p256: ec.EllipticCurvePrivateKey) -> None:
    pair.write_key_bytes(
        p256.private_bytes(
            PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    pair.write_certificate(p256, IS_CA, MAY_SIGN)
    pair.load(b"open sesame")
    pair.refused("is encrypted and no passphrase", None)


def test_an_interrupted_start_is_finished_with_the_passphrase_alone(pair: Pair) -> None:
    root = pair.create(b"open sesame")
    pair.certificate.rename(store.staged(pair.certificate))
    with pytest.raises(CAError, match="no passphrase is configured"):
        pair.create()
    assert pair.create(b"open sesame").certificate == root.certificate


def test_a_root_on_p256_where_it_is_asked_for(tmp_path: Path) -> None:
    key, certificate = tmp_path / "private.key", tmp_path / "certificate.pem"
    made = load_or_create(key, certificate, b"passphrase", kind=RootKey.ECDSA)
    assert made.signs_fast
    assert made.certificate.signature_hash_algorithm is not None
    assert isinstance(made.certificate.public_key(), ec.EllipticCurvePublicKey)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = load_or_create(key, certificate, b"passphrase")
    assert again.certificate == made.certificate
    assert not load_or_create(tmp_path / "other" / "key", tmp_path / "other" / "cert", None).signs_fast
