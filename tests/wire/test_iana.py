from __future__ import annotations

import pytest

from polytls.wire import iana
from polytls.wire.cipher_suites import CIPHER_SUITES

TABLES = [
    (CIPHER_SUITES, iana.cipher_suite_name, iana.cipher_suite_number),
    (iana.EXTENSIONS, iana.extension_name, iana.extension_number),
    (iana.GROUPS, iana.group_name, iana.group_number),
    (iana.SIGNATURE_SCHEMES, iana.signature_scheme_name, iana.signature_scheme_number),
]


@pytest.mark.parametrize(("table", "name_of", "number_of"), TABLES)
def test_names_and_numbers_are_one_to_one(table, name_of, number_of) -> None:  # type: ignore[no-untyped-def]
    assert len(set(table.values())) == len(table)
    for number, name in table.items():
        assert not iana.is_grease(number)
        assert name_of(number) == name
        assert number_of(name) == number_of(name.upper()) == number
    assert number_of("no such name") is None
    assert name_of(0x9999) == "0x9999"
    assert name_of(0x7A7A) == "GREASE"


def test_grease_values_are_exactly_those_of_rfc_8701() -> None:
    expected = {nibble << 12 | 0x0A00 | nibble << 4 | 0x0A for nibble in range(16)}
    assert {value for value in range(0x10000) if iana.is_grease(value)} == expected


def test_grease_psk_modes_are_exactly_those_of_rfc_8701() -> None:
    expected = {0x0B, 0x2A, 0x49, 0x68, 0x87, 0xA6, 0xC5, 0xE4}
    assert {value for value in range(0x100) if iana.is_grease_psk_mode(value)} == expected


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("X25519", 29),
        ("P-256", 23),
        ("p-384", 24),
        ("P-521", 25),
        ("prime256v1", 23),
        ("secp256r1", 23),
        ("ffdhe2048", 256),
        ("X25519MLKEM768", 0x11EC),
        ("X25519Kyber768Draft00", 0x6399),
    ],
)
def test_groups_by_the_names_people_type(name: str, number: int) -> None:
    assert iana.group_number(name) == number


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0x0005, "TLS_RSA_WITH_RC4_128_SHA"),
        (0x00FF, "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
        (0x1301, "TLS_AES_128_GCM_SHA256"),
        (0x5600, "TLS_FALLBACK_SCSV"),
        (0xC02F, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        (0xC071, "TLS_ECDHE_PSK_WITH_ARIA_256_CBC_SHA384"),
        (0xC0AA, "TLS_PSK_DHE_WITH_AES_128_CCM_8"),
        (0xCCA9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ],
)
def test_cipher_suites_of_the_registry(number: int, name: str) -> None:
    assert iana.cipher_suite_name(number) == name


def test_versions() -> None:
    assert iana.version_name(0x0304) == "TLS 1.3"
    assert iana.version_name(0xFEFC) == "DTLS 1.3"
    assert iana.version_name(0x0305) == "0x0305"


def test_every_named_extension_type_is_in_the_table() -> None:
    assert {extension.value for extension in iana.ExtensionType} <= set(iana.EXTENSIONS)
