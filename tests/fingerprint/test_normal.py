"""The judge of sameness: what it must see, and what it must not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.fingerprint.normal import difference, normalise
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello
from polytls.wire.iana import is_grease

CLIENTS = Path(__file__).parents[1] / "golden" / "clients"


def captured(name: str) -> list[ClientHello]:
    taken = json.loads((CLIENTS / f"{name}.json").read_text(encoding="utf-8"))["samples"]
    return [parse_client_hello(bytes.fromhex(sample)) for sample in taken]


CHROME = captured("chrome-146")
FIREFOX = captured("firefox-155")
SAFARI = captured("safari-17.0")


def with_body(hello: ClientHello, number: int, body: bytes) -> ClientHello:
    changed = (Extension(item.type, body) if item.type == number else item for item in hello.extensions)
    return replace(hello, extensions=tuple(changed))


def without(hello: ClientHello, number: int) -> ClientHello:
    return replace(hello, extensions=tuple(item for item in hello.extensions if item.type != number))


def changed_body(hello: ClientHello, number: int, old: str, new: str) -> ClientHello:
    body = hello.extension(number)
    assert body is not None
    assert bytes.fromhex(old) in body
    return with_body(hello, number, body.replace(bytes.fromhex(old), bytes.fromhex(new)))


@pytest.mark.parametrize("name", sorted(path.stem for path in CLIENTS.glob("*.json")))
def test_samples_of_one_client_are_the_same(name: str) -> None:
    hellos = captured(name)
    whole = normalise(hellos)
    for hello in hellos:
        if not name.startswith("chrome-152"):  # which has another order of trust anchors each time
            assert difference(whole, normalise([hello])) == []
    assert difference(whole, whole) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("firefox-155", "firefox-153"),  # one cipher suite
        ("chrome-131", "chrome-136"),  # ALPS moved
        ("chrome-124", "chrome-131"),  # Kyber became ML-KEM
        ("safari-15.3", "safari-15.5"),
        ("safari-17.0", "safari-18.0"),
        ("safari-26.0", "safari-27.0"),
        ("chrome-100", "chrome-116"),  # permutes
        ("openssl-3.0", "curl-7.88"),
    ],
)
def test_clients_that_differ_are_told_apart(one: str, other: str) -> None:
    first, second = normalise(captured(one)), normalise(captured(other))
    assert difference(first, second)
    assert difference(second, first)


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        (replace(SAFARI[0], record_version=0x0303), "record version: TLS 1.2, expected TLS 1.0"),
        (replace(SAFARI[0], session_id=b""), "bytes of session id: [0], expected [32]"),
        (replace(SAFARI[0], compression_methods=(0, 1)), "compression methods: (0, 1), expected (0,)"),
        (
            replace(SAFARI[0], cipher_suites=SAFARI[0].cipher_suites[1:]),
            "cipher suites: lacks GREASE",
        ),
        (
            replace(SAFARI[0], cipher_suites=(*SAFARI[0].cipher_suites, 0x1301)),
            "cipher suites: has TLS_AES_128_GCM_SHA256, which is not expected",
        ),
        (
            replace(SAFARI[0], cipher_suites=(*SAFARI[0].cipher_suites[:1], *SAFARI[0].cipher_suites[:0:-1])),
            "cipher suites: TLS_RSA_WITH_3DES_EDE_CBC_SHA at place 2, expected TLS_AES_128_GCM_SHA256",
        ),
        (without(SAFARI[0], 27), "extensions: lacks compress_certificate"),
        (
            replace(SAFARI[0], extensions=SAFARI[0].extensions[1:] + SAFARI[0].extensions[:1]),
            "extensions: server_name at place 1, expected GREASE",
        ),
        (changed_body(SAFARI[0], 13, "08050805", "08050806"), "signature_algorithms: "),
        (changed_body(SAFARI[0], 43, "0302", "0300"), "supported_versions: "),
        (with_body(SAFARI[0], 21, b"\0"), "padding: of 1 bytes in a hello of "),
        (without(SAFARI[0], 0), "extensions: lacks server_name"),
    ],
)
def test_what_must_be_seen(hello: ClientHello, sentence: str) -> None:
    found = difference(normalise(SAFARI), normalise([hello]))
    assert any(text.startswith(sentence) for text in found), found


def test_a_grease_share_of_another_value_is_seen() -> None:
    hello = CHROME[0]
    body = hello.extension(51)
    assert body is not None
    other = b"\x1a\x1a" if body[2:4] != b"\x1a\x1a" else b"\x2a\x2a"
    found = difference(normalise(CHROME), normalise([with_body(hello, 51, body[:2] + other + body[4:])]))
    assert found == ["not so: the GREASE group is that of the GREASE key share"]


def test_the_order_of_a_permuting_client() -> None:
    expected = normalise(CHROME)
    assert expected.permuted
    reverse = replace(
        CHROME[0],
        extensions=(CHROME[0].extensions[0], *CHROME[0].extensions[-2:0:-1], CHROME[0].extensions[-1]),
    )
    assert difference(expected, normalise([reverse])) == []
    same = normalise([CHROME[0], replace(CHROME[1], extensions=CHROME[0].extensions)])
    assert difference(expected, same) == ["extensions: in the same order each time, expected a new one"]
    wandering = replace(CHROME[0], extensions=(*CHROME[0].extensions[1:], CHROME[0].extensions[0]))
    wanders = "extensions: the GREASE ones are not where they are expected"
    assert wanders in difference(expected, normalise([wandering]))
    # The other way round: a client of one order may not permute.
    assert difference(
        normalise(FIREFOX[:1]), normalise([replace(FIREFOX[0], extensions=FIREFOX[0].extensions[::-1])])
    )


def test_ech_is_compared_by_what_may_be_drawn() -> None:
    ech = normalise(CHROME).ech
    assert ech is not None
    assert ech.payloads == {144, 176, 208, 240}
    nss = with_body(
        FIREFOX[0], 0xFE0D, b"\0\0\1\0\3\7\0\x20" + bytes(32) + (239).to_bytes(2, "big") + bytes(239)
    )
    other = with_body(
        FIREFOX[0], 0xFE0D, b"\0\0\1\0\1\7\0\x20" + bytes(32) + (239).to_bytes(2, "big") + bytes(239)
    )
    assert difference(normalise([nss]), normalise([other])) == []  # NSS draws either AEAD
    assert difference(normalise(FIREFOX), normalise([nss])) == [
        "encrypted_client_hello: AEAD 3, expected 1",
        "encrypted_client_hello: bytes of payload 239, expected 144 or 176 or 208 or 240",
    ]


def test_what_is_fresh_is_not_seen() -> None:
    hello = SAFARI[0]
    grease = {
        value: 0x0A0A if value != 0x0A0A else 0x1A1A for value in hello.cipher_suites if is_grease(value)
    }
    fresh = replace(
        hello,
        random=bytes(32),
        session_id=bytes(32),
        cipher_suites=tuple(grease.get(value, value) for value in hello.cipher_suites),
    )
    assert difference(normalise(SAFARI), normalise([fresh])) == []
    # Another name, and less padding for it.
    name = b"a.longer.name.test"
    body = (len(name) + 3).to_bytes(2, "big") + b"\0" + len(name).to_bytes(2, "big") + name
    padding, old = hello.extension(21), hello.extension(0)
    assert padding is not None
    assert old is not None
    longer = with_body(with_body(hello, 0, body), 21, bytes(len(padding) - len(body) + len(old)))
    assert difference(normalise(SAFARI), normalise([longer])) == []


def test_padding_of_other_bytes_and_none_where_it_is_due() -> None:
    padding = SAFARI[0].extension(21)
    assert padding is not None
    expected = normalise(SAFARI)
    odd = with_body(SAFARI[0], 21, b"\1" * len(padding))
    assert difference(expected, normalise([odd])) == [
        "padding: of bytes other than zero, expected to 512 bytes, last"
    ]
    assert difference(expected, normalise([without(SAFARI[0], 21)])) == [
        "padding: none, expected to 512 bytes, last"
    ]


def test_hellos_of_two_clients_are_not_one() -> None:
    with pytest.raises(HelloError, match="the list of cipher suites differs"):
        normalise([CHROME[0], FIREFOX[0]])
    with pytest.raises(HelloError, match="no ClientHello"):
        normalise([])


@given(st.sampled_from((CHROME[0], FIREFOX[0], SAFARI[0])), st.integers(0, 30), st.binary(max_size=8))
def test_any_body_is_normalised_or_a_hello_error(hello: ClientHello, at: int, body: bytes) -> None:
    changed = with_body(hello, hello.extensions[at % len(hello.extensions)].type, body)
    try:
        normal = normalise([changed])
    except HelloError:
        return
    assert difference(normal, normal) == []
    difference(normalise([hello]), normal)
