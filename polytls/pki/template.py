"""What all leaves of one root and one key have in common, in DER, and the few octets that each adds.

Theory of operation
-------------------
Of a leaf's TBSCertificate (RFC 5280 §4.1) four things are its own: the serial number, the validity, the
subject and the subjectAltName. All else depends on the root and on the leaf's key, which a process has two
of. So a `LeafTemplate` has `cryptography` encode issuer, public key and extensions once, and a leaf is put
together from those octets and its own: a tenth of what a certificate costs that is built anew.

What is written here by hand is therefore little: tags and lengths (X.690 §8.1), an INTEGER, the two kinds
of time, a common name, and a subjectAltName with one name. It is held to `cryptography`'s builder octet for
octet, for any host, time and serial number, by tests/pki/test_template.py.

Nothing is parsed or judged here: whether a host can be named, and for how long, is `polytls.pki.leaf`'s
affair, and the signature is the root's. Values are immutable; any thread may use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

# Tags of X.690 §8 and X.680 §8.4.
_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING = 0x01, 0x02, 0x03, 0x04
_OBJECT_IDENTIFIER, _UTF8_STRING, _UTC_TIME, _GENERALIZED_TIME = 0x06, 0x0C, 0x17, 0x18
_SEQUENCE, _SET = 0x30, 0x31
_EXPLICIT_0, _EXPLICIT_3 = 0xA0, 0xA3  # version and extensions of a TBSCertificate
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # of a GeneralName, RFC 5280 §4.2.1.6

_SHORT_LENGTH_MAX = 0x7F
_GENERALIZED_FROM_YEAR = 2050  # RFC 5280 §4.1.2.5


class SignatureAlgorithm(Enum):
    """How a root signs: the DER of the AlgorithmIdentifier, complete."""

    RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")  # RFC 4055 §5: parameters are NULL
    ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758 §3.2: no parameters
    ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a leaf names: a DNS name in ASCII, or an address in 4 or 16 octets and as text.

    `common_name` is at most 64 characters of ASCII; None leaves the subject empty, and then the
    subjectAltName is critical (RFC 5280 §4.1.2.6).
    """

    octets: bytes
    is_address: bool
    common_name: str | None


class LeafTemplate:
    """The leaves of one issuer with one public key. `extensions` are in order, each with whether it is
    critical; the subjectAltName follows them."""

    __slots__ = ("_algorithm", "_extensions", "_issuer", "_public_key", "_sign", "_version")

    def __init__(
        self,
        *,
        issuer: x509.Name,
        public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...],
        algorithm: SignatureAlgorithm,
        sign: Callable[[bytes], bytes],
    ) -> None:
        """`sign` makes the issuer's signature of a TBSCertificate's DER, with `algorithm`."""
        self._version = _der(_EXPLICIT_0, _der(_INTEGER, b"\x02"))  # version 3
        self._algorithm: bytes = algorithm.value
        self._issuer = self._algorithm + issuer.public_bytes()
        self._public_key = public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._extensions = b"".join(
            _extension(extension, critical=critical) for extension, critical in extensions
        )
        self._sign = sign

    def certificate(self, serial: int, not_before: datetime, not_after: datetime, subject: Subject) -> bytes:
        """Sign a leaf: the DER of its Certificate. Times are as `tbs` wants them."""
        tbs = self.tbs(serial, not_before, not_after, subject)
        return _der(_SEQUENCE, tbs + self._algorithm + _der(_BIT_STRING, b"\0" + self._sign(tbs)))

    def tbs(self, serial: int, not_before: datetime, not_after: datetime, subject: Subject) -> bytes:
        """What is signed: the DER of a TBSCertificate. Times are in UTC and whole seconds; `serial` is
        positive."""
        return _der(
            _SEQUENCE,
            b"".join(
                (
                    self._version,
                    _der(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
                    self._issuer,
                    _der(_SEQUENCE, _time(not_before) + _time(not_after)),
                    _name(subject.common_name),
                    self._public_key,
                    _der(_EXPLICIT_3, _der(_SEQUENCE, self._extensions + _alternative_name(subject))),
                )
            ),
        )


def _der(tag: int, content: bytes) -> bytes:
    """A tag, the length in the fewest octets (X.690 §10.1), the content."""
    length = len(content)
    if length <= _SHORT_LENGTH_MAX:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _time(moment: datetime) -> bytes:
    """RFC 5280 §4.1.2.5: two digits of the year until 2049, four from then on; seconds, and Zulu."""
    year = moment.year
    rest = (moment.month, moment.day, moment.hour, moment.minute, moment.second)
    if year < _GENERALIZED_FROM_YEAR:
        return _der(_UTC_TIME, b"%02d%02d%02d%02d%02d%02dZ" % (year % 100, *rest))
    return _der(_GENERALIZED_TIME, b"%04d%02d%02d%02d%02d%02dZ" % (year, *rest))


def _name(common_name: str | None) -> bytes:
    """RFC 5280 §4.1.2.4: a sequence of one set of one attribute, or of nothing."""
    if common_name is None:
        return _NAMELESS
    value = _der(_UTF8_STRING, common_name.encode("ascii"))
    return _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME + value)))


def _alternative_name(subject: Subject) -> bytes:
    name = _der(_IP_ADDRESS if subject.is_address else _DNS_NAME, subject.octets)
    head = _ALTERNATIVE_NAME if subject.common_name is not None else _CRITICAL_ALTERNATIVE_NAME
    return _der(_SEQUENCE, head + _der(_OCTET_STRING, _der(_SEQUENCE, name)))


def _extension(extension: x509.ExtensionType, *, critical: bool) -> bytes:
    value = _der(_OCTET_STRING, extension.public_bytes())
    return _der(_SEQUENCE, _extension_head(extension.oid, critical=critical) + value)


def _extension_head(oid: x509.ObjectIdentifier, *, critical: bool) -> bytes:
    """What goes before an extension's value (RFC 5280 §4.1). Not being critical is the default, which DER
    leaves out."""
    arc = oid.dotted_string.removeprefix(_ID_CE)
    return _der(_OBJECT_IDENTIFIER, b"\x55\x1d" + bytes((int(arc),))) + (_TRUE if critical else b"")


_ID_CE: Final = "2.5.29."  # RFC 5280 §4.2.1: all of its extensions, and one octet after it each
_TRUE: Final = _der(_BOOLEAN, b"\xff")
_ALTERNATIVE_NAME: Final = _extension_head(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, critical=False)
_CRITICAL_ALTERNATIVE_NAME: Final = _extension_head(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, critical=True)
_COMMON_NAME: Final = _der(_OBJECT_IDENTIFIER, b"\x55\x04\x03")  # 2.5.4.3
_NAMELESS: Final = _der(_SEQUENCE, b"")
