"""JA4: a fingerprint that can be read, sorted and cut into its parts.

Theory of operation
-------------------
``a_b_c`` as JA4.md of FoxIO describes it: *a* tells transport, version, SNI, counts and ALPN; *b* is a hash
of the cipher suites, *c* of the extensions and signature algorithms. There are four forms: sorted or in
original order (``_o``), hashed or raw (``_r``). Only the sorted ones leave server_name and ALPN out of *c*,
*a* having told them already. GREASE (RFC 8701) is ignored everywhere.

The section named beside a rule is JA4.md's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polytls.wire.client_hello import ClientHello

MAX_COUNT = 99
"""JA4.md, "Number of Ciphers": two digits, and more counts as 99."""

_HASH_CHARS = 12
_NOTHING = "0" * _HASH_CHARS  # instead of a hash of nothing, so that a reader sees that there is nothing
_IN_A = frozenset({ExtensionType.SERVER_NAME.value, ExtensionType.ALPN.value})
_VERSIONS = {
    0x0002: "s2",
    0x0300: "s3",
    0x0301: "10",
    0x0302: "11",
    0x0303: "12",
    0x0304: "13",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}


class Transport(Enum):
    """What carried the hello; the value is JA4's letter."""

    TCP = "t"
    QUIC = "q"
    DTLS = "d"


@dataclass(frozen=True, slots=True)
class Ja4:
    """The four forms. `ja4_o` and `ja4_ro` keep the original order."""

    ja4: str
    ja4_r: str
    ja4_o: str
    ja4_ro: str


def ja4(hello: ClientHello, transport: Transport = Transport.TCP) -> Ja4:
    """Raises `HelloError` where an extension that JA4 looks into is malformed."""
    ciphers = _hex(hello.cipher_suites)
    extensions = _hex(hello.extension_types)
    described = _hex(value for value in hello.extension_types if value not in _IN_A)
    algorithms = _hex(hello.signature_algorithms)
    a = _a(hello, transport, len(ciphers), len(extensions))
    hashed, raw = _forms(a, sorted(ciphers), sorted(described), algorithms)
    hashed_original, raw_original = _forms(a, ciphers, extensions, algorithms)
    return Ja4(hashed, raw, hashed_original, raw_original)


def _a(hello: ClientHello, transport: Transport, ciphers: int, extensions: int) -> str:
    sni = "i" if hello.extension(ExtensionType.SERVER_NAME) is None else "d"
    counts = f"{min(ciphers, MAX_COUNT):02}{min(extensions, MAX_COUNT):02}"
    return f"{transport.value}{_version(hello)}{sni}{counts}{_alpn(hello)}"


def _version(hello: ClientHello) -> str:
    """ "TLS and DTLS Version": the highest of supported_versions, else the hello's own."""
    offered = [value for value in hello.supported_versions if not is_grease(value)]
    # DTLS numbers are the complement of the version, so that its highest version is its lowest number.
    best = max(offered, key=_rank) if offered else hello.legacy_version
    return _VERSIONS.get(best, "00")


def _rank(version: int) -> int:
    return 0xFFFF - version if version >= 0xFE00 else version


def _alpn(hello: ClientHello) -> str:
    first = next(iter(hello.alpn), b"")
    return protocol_ends(first) if first else "00"


def protocol_ends(first: bytes) -> str:
    """ "ALPN Extension Value": the ends of the first protocol (not empty), or of its hexadecimal form."""
    ends = bytes((first[0], first[-1]))
    if ends.isalnum():  # of bytes: ASCII alone
        return ends.decode("ascii")
    digits = first.hex()
    return digits[0] + digits[-1]


def _forms(
    a: str, ciphers: Sequence[str], extensions: Sequence[str], algorithms: Sequence[str]
) -> tuple[str, str]:
    """Hashed and raw. "Extension hash": no underscore where there are no signature algorithms."""
    b = ",".join(ciphers)
    c = ",".join(extensions)
    if algorithms:
        c += "_" + ",".join(algorithms)
    hashed_c = _hash(c) if extensions else _NOTHING
    return f"{a}_{_hash(b) if b else _NOTHING}_{hashed_c}", f"{a}_{b}_{c}"


def _hex(values: Iterable[int]) -> list[str]:
    return [f"{value:04x}" for value in values if not is_grease(value)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_HASH_CHARS]
