"""The numbers of TLS and their names, as the IANA registries give them.

Theory of operation
-------------------
Tables, and look-ups in both directions. A number always has a text: its registered name, ``GREASE`` for
the values that RFC 8701 reserves, else the number itself in hexadecimal; that is what reports print. A name
has a number or None: that is what profiles are read by, and a wrong name is theirs to explain. Names are
found without regard to case, and groups also by the names that people type (P-256).

Sources: the registries "TLS Cipher Suites" (in `cipher_suites`), "TLS Supported Groups", "TLS
SignatureScheme" and "TLS ExtensionType Values". Entries that are not registered, or no longer, but that real
clients send are marked with where they come from.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from polytls.wire.cipher_suites import CIPHER_SUITES

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExtensionType(IntEnum):
    """Extensions that some part of the program names; `EXTENSIONS` has them all."""

    SERVER_NAME = 0
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    PADDING = 21
    EXTENDED_MASTER_SECRET = 23
    COMPRESS_CERTIFICATE = 27
    RECORD_SIZE_LIMIT = 28
    DELEGATED_CREDENTIAL = 34
    SESSION_TICKET = 35
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    APPLICATION_SETTINGS_OLD = 17513
    APPLICATION_SETTINGS = 17613
    TRUST_ANCHORS = 51764
    ENCRYPTED_CLIENT_HELLO = 65037
    RENEGOTIATION_INFO = 65281


EXTENSIONS: Mapping[int, str] = MappingProxyType(
    {
        0: "server_name",
        1: "max_fragment_length",
        2: "client_certificate_url",
        3: "trusted_ca_keys",
        4: "truncated_hmac",
        5: "status_request",
        6: "user_mapping",
        7: "client_authz",
        8: "server_authz",
        9: "cert_type",
        10: "supported_groups",
        11: "ec_point_formats",
        12: "srp",
        13: "signature_algorithms",
        14: "use_srtp",
        15: "heartbeat",
        16: "application_layer_protocol_negotiation",
        17: "status_request_v2",
        18: "signed_certificate_timestamp",
        19: "client_certificate_type",
        20: "server_certificate_type",
        21: "padding",
        22: "encrypt_then_mac",
        23: "extended_master_secret",
        24: "token_binding",
        25: "cached_info",
        26: "tls_lts",
        27: "compress_certificate",
        28: "record_size_limit",
        29: "pwd_protect",
        30: "pwd_clear",
        31: "password_salt",
        32: "ticket_pinning",
        33: "tls_cert_with_extern_psk",
        34: "delegated_credential",
        35: "session_ticket",
        36: "TLMSP",
        37: "TLMSP_proxying",
        38: "TLMSP_delegate",
        39: "supported_ekt_ciphers",
        41: "pre_shared_key",
        42: "early_data",
        43: "supported_versions",
        44: "cookie",
        45: "psk_key_exchange_modes",
        47: "certificate_authorities",
        48: "oid_filters",
        49: "post_handshake_auth",
        50: "signature_algorithms_cert",
        51: "key_share",
        52: "transparency_info",
        53: "connection_id_deprecated",
        54: "connection_id",
        55: "external_id_hash",
        56: "external_session_id",
        57: "quic_transport_parameters",
        58: "ticket_request",
        59: "dnssec_chain",
        60: "sequence_number_encryption_algorithms",
        61: "rrc",
        62: "tls_flags",
        13172: "next_protocol_negotiation",  # draft-agl-tls-nextprotoneg
        17513: "application_settings_old",  # draft-vvv-tls-alps, first code point (BoringSSL)
        17613: "application_settings",  # draft-vvv-tls-alps, second code point (BoringSSL)
        30031: "channel_id_old",  # draft-balfanz-tls-channelid
        30032: "channel_id",  # draft-balfanz-tls-channelid
        51764: "trust_anchors",  # draft-ietf-tls-trust-anchor-ids (BoringSSL)
        64768: "ech_outer_extensions",
        65037: "encrypted_client_hello",
        65281: "renegotiation_info",
        65486: "encrypted_server_name",  # draft-ietf-tls-esni before it became ECH
    }
)

GROUPS: Mapping[int, str] = MappingProxyType(
    {
        1: "sect163k1",
        2: "sect163r1",
        3: "sect163r2",
        4: "sect193r1",
        5: "sect193r2",
        6: "sect233k1",
        7: "sect233r1",
        8: "sect239k1",
        9: "sect283k1",
        10: "sect283r1",
        11: "sect409k1",
        12: "sect409r1",
        13: "sect571k1",
        14: "sect571r1",
        15: "secp160k1",
        16: "secp160r1",
        17: "secp160r2",
        18: "secp192k1",
        19: "secp192r1",
        20: "secp224k1",
        21: "secp224r1",
        22: "secp256k1",
        23: "secp256r1",
        24: "secp384r1",
        25: "secp521r1",
        26: "brainpoolP256r1",
        27: "brainpoolP384r1",
        28: "brainpoolP512r1",
        29: "x25519",
        30: "x448",
        31: "brainpoolP256r1tls13",
        32: "brainpoolP384r1tls13",
        33: "brainpoolP512r1tls13",
        34: "GC256A",
        35: "GC256B",
        36: "GC256C",
        37: "GC256D",
        38: "GC512A",
        39: "GC512B",
        40: "GC512C",
        41: "curveSM2",
        256: "ffdhe2048",
        257: "ffdhe3072",
        258: "ffdhe4096",
        259: "ffdhe6144",
        260: "ffdhe8192",
        512: "MLKEM512",
        513: "MLKEM768",
        514: "MLKEM1024",
        4587: "SecP256r1MLKEM768",
        4588: "X25519MLKEM768",
        4589: "SecP384r1MLKEM1024",
        4590: "curveSM2MLKEM768",
        16696: "CECPQ2",  # BoringSSL's experiment of 2019
        25497: "X25519Kyber768Draft00",
        25498: "SecP256r1Kyber768Draft00",
        65281: "arbitrary_explicit_prime_curves",
        65282: "arbitrary_explicit_char2_curves",
    }
)

SIGNATURE_SCHEMES: Mapping[int, str] = MappingProxyType(
    {
        # Pairs of hash and signature (RFC 5246 §7.4.1.4.1) which TLS 1.3 did not name again.
        0x0101: "rsa_pkcs1_md5",
        0x0202: "dsa_sha1",
        0x0301: "rsa_pkcs1_sha224",
        0x0302: "dsa_sha224",
        0x0303: "ecdsa_sha224",
        0x0402: "dsa_sha256",
        0x0502: "dsa_sha384",
        0x0602: "dsa_sha512",
        # The registry.
        0x0201: "rsa_pkcs1_sha1",
        0x0203: "ecdsa_sha1",
        0x0401: "rsa_pkcs1_sha256",
        0x0403: "ecdsa_secp256r1_sha256",
        0x0420: "rsa_pkcs1_sha256_legacy",
        0x0501: "rsa_pkcs1_sha384",
        0x0503: "ecdsa_secp384r1_sha384",
        0x0520: "rsa_pkcs1_sha384_legacy",
        0x0601: "rsa_pkcs1_sha512",
        0x0603: "ecdsa_secp521r1_sha512",
        0x0620: "rsa_pkcs1_sha512_legacy",
        0x0704: "eccsi_sha256",
        0x0705: "iso_ibs1",
        0x0706: "iso_ibs2",
        0x0707: "iso_chinese_ibs",
        0x0708: "sm2sig_sm3",
        0x0709: "gostr34102012_256a",
        0x070A: "gostr34102012_256b",
        0x070B: "gostr34102012_256c",
        0x070C: "gostr34102012_256d",
        0x070D: "gostr34102012_512a",
        0x070E: "gostr34102012_512b",
        0x070F: "gostr34102012_512c",
        0x0804: "rsa_pss_rsae_sha256",
        0x0805: "rsa_pss_rsae_sha384",
        0x0806: "rsa_pss_rsae_sha512",
        0x0807: "ed25519",
        0x0808: "ed448",
        0x0809: "rsa_pss_pss_sha256",
        0x080A: "rsa_pss_pss_sha384",
        0x080B: "rsa_pss_pss_sha512",
        0x081A: "ecdsa_brainpoolP256r1tls13_sha256",
        0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
        0x081C: "ecdsa_brainpoolP512r1tls13_sha512",
        0x0904: "mldsa44",
        0x0905: "mldsa65",
        0x0906: "mldsa87",
    }
)

VERSIONS: Mapping[int, str] = MappingProxyType(
    {
        0x0002: "SSL 2.0",
        0x0300: "SSL 3.0",
        0x0301: "TLS 1.0",
        0x0302: "TLS 1.1",
        0x0303: "TLS 1.2",
        0x0304: "TLS 1.3",
        0xFEFF: "DTLS 1.0",
        0xFEFD: "DTLS 1.2",
        0xFEFC: "DTLS 1.3",
    }
)

_GROUP_ALIASES = {"p-224": 21, "p-256": 23, "prime256v1": 23, "p-384": 24, "p-521": 25}


def is_grease(value: int) -> bool:
    """Whether a 16-bit value is one of the sixteen that RFC 8701 §2 reserves: 0x0a0a, 0x1a1a, … 0xfafa."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def is_grease_psk_mode(value: int) -> bool:
    """Whether a PSK key exchange mode is one of the eight that RFC 8701 §2 reserves: 0x0b, 0x2a, … 0xe4."""
    return 0x0B <= value <= 0xE4 and (value - 0x0B) % 0x1F == 0


def cipher_suite_name(value: int) -> str:
    return _name(CIPHER_SUITES, value)


def extension_name(value: int) -> str:
    return _name(EXTENSIONS, value)


def group_name(value: int) -> str:
    return _name(GROUPS, value)


def signature_scheme_name(value: int) -> str:
    return _name(SIGNATURE_SCHEMES, value)


def version_name(value: int) -> str:
    return _name(VERSIONS, value)


def cipher_suite_number(name: str) -> int | None:
    return _CIPHER_SUITE_NUMBERS.get(name.lower())


def extension_number(name: str) -> int | None:
    return _EXTENSION_NUMBERS.get(name.lower())


def group_number(name: str) -> int | None:
    return _GROUP_NUMBERS.get(name.lower())


def signature_scheme_number(name: str) -> int | None:
    return _SIGNATURE_SCHEME_NUMBERS.get(name.lower())


def _name(names: Mapping[int, str], value: int) -> str:
    return "GREASE" if is_grease(value) else names.get(value, f"{value:#06x}")


def _numbers(names: Mapping[int, str]) -> dict[str, int]:
    return {name.lower(): number for number, name in names.items()}


_CIPHER_SUITE_NUMBERS = _numbers(CIPHER_SUITES)
_EXTENSION_NUMBERS = _numbers(EXTENSIONS)
_GROUP_NUMBERS = {**_numbers(GROUPS), **_GROUP_ALIASES}
_SIGNATURE_SCHEME_NUMBERS = _numbers(SIGNATURE_SCHEMES)
