"""Everything about one hello that a person or another program wants to see.

Theory of operation
-------------------
`fingerprint` reads a hello once into a `FingerprintReport`: the fingerprints and, in wire order, what they
were made of, by name (GREASE shown as such, unnamed numbers in hexadecimal). The report is values only, so
that comparing two of them compares two clients. It leaves out what is fresh in every hello: random,
session id, key material.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.fingerprint.ja3 import Ja3, ja3
from polytls.fingerprint.ja4 import Ja4, Transport, ja4
from polytls.wire import iana

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello


@dataclass(frozen=True, slots=True)
class FingerprintReport:
    """One hello, described. Tuples are in wire order.

    `sni` and `alpn` are text: bytes that are not printable ASCII are shown as ``\\xNN``. `key_shares` names
    groups. `record_version` is None where the hello came without records.
    """

    ja3: Ja3
    ja4: Ja4
    sni: str | None
    alpn: tuple[str, ...]
    record_version: str | None
    legacy_version: str
    supported_versions: tuple[str, ...]
    cipher_suites: tuple[str, ...]
    extensions: tuple[str, ...]
    supported_groups: tuple[str, ...]
    key_shares: tuple[str, ...]
    signature_algorithms: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON: one flat object; fingerprints under their usual names, tuples as lists."""
        return {
            "ja3": self.ja3.ja3,
            "ja3_hash": self.ja3.ja3_hash,
            "ja3n": self.ja3.ja3n,
            "ja3n_hash": self.ja3.ja3n_hash,
            "ja4": self.ja4.ja4,
            "ja4_r": self.ja4.ja4_r,
            "ja4_o": self.ja4.ja4_o,
            "ja4_ro": self.ja4.ja4_ro,
            "sni": self.sni,
            "alpn": list(self.alpn),
            "record_version": self.record_version,
            "legacy_version": self.legacy_version,
            "supported_versions": list(self.supported_versions),
            "cipher_suites": list(self.cipher_suites),
            "extensions": list(self.extensions),
            "supported_groups": list(self.supported_groups),
            "key_shares": list(self.key_shares),
            "signature_algorithms": list(self.signature_algorithms),
        }

    def as_text(self) -> str:
        """For a terminal: one line per fact, no line break at the end."""
        return "\n".join(f"{label:<22}{value}" for label, value in self._lines())

    def _lines(self) -> list[tuple[str, str]]:
        return [
            ("JA4", self.ja4.ja4),
            ("JA3", self.ja3.ja3_hash),
            ("JA3, sorted", self.ja3.ja3n_hash),
            ("server name", self.sni if self.sni is not None else "-"),
            ("ALPN", _row(self.alpn)),
            ("versions", _row(self.supported_versions or (self.legacy_version,))),
            ("cipher suites", _row(self.cipher_suites)),
            ("extensions", _row(self.extensions)),
            ("groups", _row(self.supported_groups)),
            ("key shares", _row(self.key_shares)),
            ("signature algorithms", _row(self.signature_algorithms)),
        ]


def fingerprint(hello: ClientHello, transport: Transport = Transport.TCP) -> FingerprintReport:
    """Describe one hello. Raises `HelloError` where an extension that is looked into is malformed."""
    return FingerprintReport(
        ja3=ja3(hello),
        ja4=ja4(hello, transport),
        sni=None if hello.sni is None else _text(hello.sni),
        alpn=tuple(map(_text, hello.alpn)),
        record_version=None if hello.record_version is None else iana.version_name(hello.record_version),
        legacy_version=iana.version_name(hello.legacy_version),
        supported_versions=tuple(map(iana.version_name, hello.supported_versions)),
        cipher_suites=tuple(map(iana.cipher_suite_name, hello.cipher_suites)),
        extensions=tuple(map(iana.extension_name, hello.extension_types)),
        supported_groups=tuple(map(iana.group_name, hello.supported_groups)),
        key_shares=tuple(iana.group_name(share.group) for share in hello.key_shares),
        signature_algorithms=tuple(map(iana.signature_scheme_name, hello.signature_algorithms)),
    )


def _text(raw: bytes) -> str:
    """Printable ASCII as it is, anything else escaped: it comes from a stranger and goes to a terminal."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in raw)


def _row(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "-"
