"""What the pinned BoringSSL can offer, by name and number.

The knobs of a profile are checked against these tables before anything native is asked, so that a
mistake is reported with the key it was made in and the names that exist. The tables hold what the
library really implements, not what the registry lists: a name that is missing here could be shown in a
hello but never honoured. Sources, in the pinned tree: groups `ssl/ssl_key_share.cc` (kNamedGroups),
cipher suites `ssl/ssl_cipher.cc` (kCiphers), signature algorithms `ssl/ssl_privkey.cc`
(kSignatureAlgorithmNames), numbers from the IANA TLS registries.

Left out on purpose: suites that need a pre-shared key (never offered without one), the TLS 1.3 suites
(fixed in BoringSSL: its API neither adds, drops nor orders them), and ``rsa_pkcs1_md5_sha1`` (a stand-in
for TLS 1.0, not a code point).
"""

from __future__ import annotations

from dataclasses import dataclass

from polytls.profiles.wording import WrongValueError, shown, type_of, unknown


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing with a number: its id on the wire, the name we print, and the other accepted names."""

    id: int
    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """A table of entries. `what` is the word for one of them in an error."""

    what: str
    entries: tuple[Entry, ...]

    def find(self, name: str) -> Entry | None:
        """The entry with this name or alias, case as written."""
        for entry in self.entries:
            if name == entry.name or name in entry.aliases:
                return entry
        return None

    def name_of(self, number: int) -> str:
        """The printed name of an id. KeyError for an id that is not in the table."""
        for entry in self.entries:
            if entry.id == number:
                return entry.name
        raise KeyError(number)

    def parse(self, value: object) -> tuple[Entry, ...]:
        """A ``"A:B:C"`` string or an array of names, order kept, nothing twice (BoringSSL refuses
        repeated groups and signature algorithms). Raises `WrongValueError`."""
        found: list[Entry] = []
        for name in _listed(value):
            entry = self.find(name)
            if entry is None:
                raise WrongValueError(f"{shown(name)}: {unknown(self.what, name, self.names())}")
            if entry in found:
                raise WrongValueError(f"{shown(name)} is listed twice; allowed: each {self.what} once")
            found.append(entry)
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """The printed names, in the order of the table."""
        return tuple(entry.name for entry in self.entries)


def _listed(value: object) -> list[str]:
    allowed = 'a string of names joined by ":" or an array of names'
    if isinstance(value, str):
        return value.split(":") if value else []
    if not isinstance(value, (list, tuple)):
        raise WrongValueError(f"is {type_of(value)}; allowed: {allowed}")
    for item in value:
        if not isinstance(item, str):
            raise WrongValueError(f"holds {type_of(item)}; allowed: {allowed}")
    return list(value)


GROUPS = Names(
    "group",
    (
        Entry(0x11EC, "X25519MLKEM768"),
        Entry(0x001D, "X25519", ("x25519",)),
        Entry(0x0017, "P-256", ("prime256v1", "secp256r1")),
        Entry(0x0018, "P-384", ("secp384r1",)),
        Entry(0x0019, "P-521", ("secp521r1",)),
        Entry(0x6399, "X25519Kyber768Draft00"),
        Entry(0x0202, "MLKEM1024"),
    ),
)

CIPHERS = Names(
    "TLS 1.2 cipher suite",
    (
        Entry(0xC02B, "ECDHE-ECDSA-AES128-GCM-SHA256", ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",)),
        Entry(0xC02F, "ECDHE-RSA-AES128-GCM-SHA256", ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",)),
        Entry(0xC02C, "ECDHE-ECDSA-AES256-GCM-SHA384", ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",)),
        Entry(0xC030, "ECDHE-RSA-AES256-GCM-SHA384", ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",)),
        Entry(0xCCA9, "ECDHE-ECDSA-CHACHA20-POLY1305", ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",)),
        Entry(0xCCA8, "ECDHE-RSA-CHACHA20-POLY1305", ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",)),
        Entry(0xC009, "ECDHE-ECDSA-AES128-SHA", ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",)),
        Entry(0xC013, "ECDHE-RSA-AES128-SHA", ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",)),
        Entry(0xC00A, "ECDHE-ECDSA-AES256-SHA", ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",)),
        Entry(0xC014, "ECDHE-RSA-AES256-SHA", ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",)),
        Entry(0xC023, "ECDHE-ECDSA-AES128-SHA256", ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",)),
        Entry(0xC027, "ECDHE-RSA-AES128-SHA256", ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",)),
        Entry(0x009C, "AES128-GCM-SHA256", ("TLS_RSA_WITH_AES_128_GCM_SHA256",)),
        Entry(0x009D, "AES256-GCM-SHA384", ("TLS_RSA_WITH_AES_256_GCM_SHA384",)),
        Entry(0x002F, "AES128-SHA", ("TLS_RSA_WITH_AES_128_CBC_SHA",)),
        Entry(0x0035, "AES256-SHA", ("TLS_RSA_WITH_AES_256_CBC_SHA",)),
        Entry(0x000A, "DES-CBC3-SHA", ("TLS_RSA_WITH_3DES_EDE_CBC_SHA",)),
    ),
)

TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""In BoringSSL's order where the processor has AES instructions; without them the third comes first."""

SIGALGS = Names(
    "signature algorithm",
    (
        Entry(0x0403, "ecdsa_secp256r1_sha256", ("ECDSA+SHA256",)),
        Entry(0x0503, "ecdsa_secp384r1_sha384", ("ECDSA+SHA384",)),
        Entry(0x0603, "ecdsa_secp521r1_sha512", ("ECDSA+SHA512",)),
        Entry(0x0203, "ecdsa_sha1", ("ECDSA+SHA1",)),
        Entry(0x0804, "rsa_pss_rsae_sha256", ("RSA-PSS+SHA256", "PSS+SHA256")),
        Entry(0x0805, "rsa_pss_rsae_sha384", ("RSA-PSS+SHA384", "PSS+SHA384")),
        Entry(0x0806, "rsa_pss_rsae_sha512", ("RSA-PSS+SHA512", "PSS+SHA512")),
        Entry(0x0401, "rsa_pkcs1_sha256", ("RSA+SHA256",)),
        Entry(0x0501, "rsa_pkcs1_sha384", ("RSA+SHA384",)),
        Entry(0x0601, "rsa_pkcs1_sha512", ("RSA+SHA512",)),
        Entry(0x0201, "rsa_pkcs1_sha1", ("RSA+SHA1",)),
        Entry(0x0420, "rsa_pkcs1_sha256_legacy"),
        Entry(0x0807, "ed25519"),
        Entry(0x0904, "mldsa44"),
        Entry(0x0905, "mldsa65"),
        Entry(0x0906, "mldsa87"),
    ),
)

CERT_COMPRESSION = Names("algorithm", (Entry(1, "zlib"), Entry(2, "brotli"), Entry(3, "zstd")))
"""RFC 8879 §7.3."""

VERSIONS = Names(
    "TLS version",
    (
        Entry(0x0301, "TLS1", ("TLS1.0",)),
        Entry(0x0302, "TLS1.1"),
        Entry(0x0303, "TLS1.2"),
        Entry(0x0304, "TLS1.3"),
    ),
)
