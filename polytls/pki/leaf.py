"""Leaves: the certificates that clients are shown in MITM mode, one per CONNECT host.

Theory of operation
-------------------
Keys are generated ahead, one ECDSA P-256 and one RSA-2048 per process (`LeafKeys`), and every leaf of a
kind has the same key: a new host costs one signature by the root and nothing else that is slow. Why that
is sound, and what was measured, is in docs/decisions/0002-leaf-keys.md.

`mint_leaf` follows RFC 5280 and the strictest verifiers in use (OpenSSL's ``-x509_strict``, Chromium,
Go): the host is a subjectAltName of the right type, and also the common name where one can hold it
(at most 64 characters). A longer host leaves the subject empty, and then subjectAltName is critical
(§4.1.2.6). Serial numbers are random. A leaf is valid for at most 397 days, is never valid before or
after the root, and begins a day back because clients' clocks are wrong too.

Everything here may be called from any thread. Key bytes are in no `repr`.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.pki.template import LeafTemplate, Subject

if TYPE_CHECKING:
    from polytls.pki.root import RootCA

LEAF_RSA_BITS = 2048
# What the CA/Browser Forum's baseline requirements (6.3.2) advised for public CAs from 2020 on. Clients that
# bound leaves of private roots too allow more (Apple: 825 days), so this is accepted everywhere.
MAX_LEAF_DAYS = 397
BACKDATE = timedelta(days=1)
_LONGEST: Final = timedelta(days=MAX_LEAF_DAYS, seconds=-1)  # both ends belong to the validity (§4.1.2.5)
MAX_COMMON_NAME_CHARS = 64  # ub-common-name, RFC 5280 appendix A.1
MAX_DNS_NAME_CHARS = 253  # RFC 1035 §2.3.4: 255 octets on the wire
# What `polytls.wire.authority` accepts: deployed names break the host name rule (RFC 1123 §2.1). A wildcard
# is no host.
_DNS_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")

_NOT_A_CA: Final = x509.BasicConstraints(ca=False, path_length=None)
_FOR_TLS_SERVERS: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


class LeafKind(Enum):
    """The algorithm of a leaf's key."""

    ECDSA = "ecdsa"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A minted certificate. `chain_der` is what the handshake sends: the leaf, then, only where the CA is
    an intermediate, the CA's certificate. Its private key is `LeafKeys.private_der(kind)`."""

    host: str
    kind: LeafKind
    serial: int
    not_before: datetime
    not_after: datetime
    chain_der: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LeafKey:
    """One key, with all that a leaf says about it prepared. `private_der` is PKCS #8, unencrypted."""

    private_der: bytes
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    identifier: x509.SubjectKeyIdentifier
    usage: x509.KeyUsage


class LeafKeys:
    """The private keys of all leaves of this process. Made by `LeafKeys.generate`."""

    __slots__ = ("_by_kind", "_templates")

    def __init__(self, by_kind: dict[LeafKind, Future[LeafKey]]) -> None:
        self._by_kind = by_kind
        self._templates: dict[LeafKind, tuple[RootCA, LeafTemplate]] = {}

    @classmethod
    def generate(cls) -> LeafKeys:
        """Generate both keys: ECDSA at once (10 µs), RSA on a thread of its own (50 ms, give or take a lot).

        Whoever needs the RSA key earlier waits for it.
        """
        keys = cls({kind: Future() for kind in LeafKind})
        keys._fulfil(LeafKind.ECDSA)
        # Not a daemon: an interpreter that exits must not tear OpenSSL down under a running generation.
        threading.Thread(target=keys._fulfil, args=(LeafKind.RSA,), name="polytls-leaf-key").start()
        return keys

    def private_der(self, kind: LeafKind) -> bytes:
        """Return the private key for the engine: PKCS #8 DER, unencrypted. Waits as `key` does."""
        return self.key(kind).private_der

    def key(self, kind: LeafKind) -> LeafKey:
        """Return the key of that kind, waiting until it is generated."""
        return self._by_kind[kind].result()

    def template(self, root: RootCA, kind: LeafKind) -> LeafTemplate:
        """Return what the leaves under `root` with the key of that kind have in common, waiting as `key`
        does. That of the last root is kept: a process has one."""
        known = self._templates.get(kind)
        if known is None or known[0] is not root:
            # Two threads may both come here; what they make is the same.
            known = self._templates[kind] = (root, _template(root, self.key(kind)))
        return known[1]

    def _fulfil(self, kind: LeafKind) -> None:
        future = self._by_kind[kind]
        try:
            future.set_result(_generate(kind))
        except Exception as error:  # noqa: BLE001  whoever waits for the key gets it
            future.set_exception(error)

    def __repr__(self) -> str:
        states = (f"{kind.value} {'ready' if f.done() else 'pending'}" for kind, f in self._by_kind.items())
        return f"LeafKeys({', '.join(states)})"


def mint_leaf(root: RootCA, keys: LeafKeys, host: str, kind: LeafKind, *, now: datetime, days: int) -> Leaf:
    """Mint a leaf for `host`: a DNS name in ASCII (A-labels), an IPv4 or an IPv6 address without brackets.

    `now` is aware. The leaf is valid from a day before `now` to `days` after it, and within the root's
    validity; the whole is at most `MAX_LEAF_DAYS`. Costs one signature; waits for the RSA key at worst.

    Raises ProxyError (LEAF_FAILED) if no certificate can name the host, or if the root is not valid at
    `now`; ValueError if `days` is not in 1..`MAX_LEAF_DAYS`.
    """
    check_days(days)
    subject = _subject(host)
    not_before, not_after = _validity(root, now, days)
    serial = x509.random_serial_number()  # 159 random bits: positive, at most 20 octets (§4.1.2.2)
    leaf_der = keys.template(root, kind).certificate(serial, not_before, not_after, subject)
    return Leaf(host, kind, serial, not_before, not_after, (leaf_der, *root.sent_with_leaf))


def check_days(days: int) -> None:
    """Raise ValueError unless a leaf may be asked for that many days."""
    if not 1 <= days <= MAX_LEAF_DAYS:
        raise ValueError(f"a leaf is valid for 1 to {MAX_LEAF_DAYS} days, not {days}")


def _subject(host: str) -> Subject:
    """RFC 5280 §4.2.1.6: an address is an iPAddress, anything else a dNSName without the final dot."""
    if ":" in host or host[-1:].isdigit():  # else it is no address
        with suppress(ValueError):
            address = ipaddress.ip_address(host)
            if getattr(address, "scope_id", None):  # a zone (fe80::1%eth0) means nothing to anyone else
                raise _unnameable(host)
            return Subject(address.packed, True, str(address))
    name = host.removesuffix(".")
    if len(name) <= MAX_DNS_NAME_CHARS and _DNS_NAME.fullmatch(name):
        return Subject(name.encode("ascii"), False, name if len(name) <= MAX_COMMON_NAME_CHARS else None)
    raise _unnameable(host)


def _validity(root: RootCA, now: datetime, days: int) -> tuple[datetime, datetime]:
    now = now.astimezone(timezone.utc).replace(microsecond=0)
    begin, end = root.not_before, root.not_after
    if not begin <= now < end:
        raise _failed(
            f"the root CA is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d} and this machine's clock is"
            " outside of that: correct the clock, or replace the root CA and restart"
        )
    not_before = max(now - BACKDATE, begin)
    return not_before, min(now + timedelta(days=days), not_before + _LONGEST, end)


def _template(root: RootCA, key: LeafKey) -> LeafTemplate:
    return LeafTemplate(
        issuer=root.certificate.subject,
        public_key=key.public_key,
        extensions=(
            (_NOT_A_CA, True),
            (key.usage, True),
            (_FOR_TLS_SERVERS, False),
            (key.identifier, False),
            (root.authority_key_identifier, False),
        ),
        algorithm=root.signature_algorithm,
        sign=root.sign_leaf,
    )


def _generate(kind: LeafKind) -> LeafKey:
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    match kind:
        case LeafKind.ECDSA:
            private = ec.generate_private_key(ec.SECP256R1())
        case LeafKind.RSA:
            private = rsa.generate_private_key(public_exponent=65537, key_size=LEAF_RSA_BITS)
    public = private.public_key()
    return LeafKey(
        private_der=private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        public_key=public,
        identifier=x509.SubjectKeyIdentifier.from_public_key(public),
        usage=_usage(kind),
    )


def _usage(kind: LeafKind) -> x509.KeyUsage:
    """RFC 8446 §4.4.2.2 and RFC 5246 §7.4.2: sign handshakes; an RSA key in TLS 1.2 may also decipher."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=kind is LeafKind.RSA,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _unnameable(host: str) -> ProxyError:
    return _failed(f"the host {host!r} is neither a DNS name nor an address: no certificate can name it")


def _failed(detail: str) -> ProxyError:
    return ProxyError(Side.PROXY, Stage.LEAF, Kind.LEAF_FAILED, detail)
