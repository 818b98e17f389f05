"""The short way gives what the long way gives, whatever the bytes are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.known import MAX_PART_BYTES, MAX_SHAPES, MAX_TYPES, KnownJa4
from polytls.wire.client_hello import HelloError, parse_client_hello
from tests.proxy.harness import client_hello

GREASE = tuple(0x0A0A + 0x1010 * step for step in range(16))


def slowly(records: bytes) -> str | None:
    try:
        return ja4(parse_client_hello(records)).ja4
    except HelloError:
        return None


def extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def hello(
    suites: tuple[int, ...], extensions: list[bytes], session: bytes = b"", version: int = 0x0303
) -> bytes:
    listed = b"".join(value.to_bytes(2, "big") for value in suites)
    block = b"".join(extensions)
    body = version.to_bytes(2, "big") + bytes(32) + bytes((len(session),)) + session
    body += len(listed).to_bytes(2, "big") + listed + b"\x01\x00" + len(block).to_bytes(2, "big") + block
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def list_of(values: tuple[int, ...], prefix: int) -> bytes:
    packed = b"".join(value.to_bytes(2, "big") for value in values)
    return len(packed).to_bytes(prefix, "big") + packed


def greasy(grease: int, turned: int = 0) -> bytes:
    extensions = [
        extension(grease, b""),
        extension(0, b"\x00\x06\x00\x00\x03a.b"),
        extension(13, list_of((grease, 0x0403, 0x0804), 2)),
        extension(16, b"\x00\x03\x02h2"),
        extension(43, list_of((grease, 0x0304, 0x0303), 1)),
    ]
    return hello((grease, 0x1301, 0x1302), extensions[turned:] + extensions[:turned])


def test_a_real_hello() -> None:
    known = KnownJa4()
    for _ in range(3):
        records = client_hello("origin.test", ("h2", "http/1.1"))
        assert known.of(records) == slowly(records)
        assert known.of(records) is not None
    assert len(known) == 1


def test_a_client_that_permutes_and_greases_is_one_shape() -> None:
    known = KnownJa4()
    found = {known.of(greasy(value, turned)) for value in GREASE for turned in range(5)}
    assert len(found) == 1
    assert len(known) == 1


def test_what_tells_two_clients_apart_is_in_the_shape() -> None:
    known = KnownJa4()
    plain = [extension(13, list_of((0x0403, 0x0804), 2)), extension(16, b"\x00\x03\x02h2")]
    hellos = [
        hello((0x1301,), plain),
        hello((0x1302,), plain),
        hello((0x1301,), plain, version=0x0302),
        hello((0x1301,), plain[:1]),
        hello((0x1301,), [extension(13, list_of((0x0804, 0x0403), 2)), plain[1]]),
        hello((0x1301,), [plain[0], extension(16, b"\x00\x09\x08http/1.1")]),
        hello((0x1301,), [*plain, extension(43, list_of((0x0304,), 1))]),
        hello((0x1301,), [*plain, extension(0, b"\x00\x06\x00\x00\x03a.b")]),
    ]
    assert [known.of(one) for one in hellos] == [slowly(one) for one in hellos]
    assert len({known.of(one) for one in hellos}) == len(hellos)


def test_several_records_take_the_long_way() -> None:
    whole = client_hello("origin.test")
    message = whole[5:]
    split = b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in (message[:50], message[50:])
    )
    known = KnownJa4()
    assert known.of(split) == slowly(whole)
    assert len(known) == 0


def test_shapes_are_bounded() -> None:
    known = KnownJa4()
    for number in range(MAX_SHAPES + 10):
        known.of(hello((number + 1,), []))
    assert len(known) == MAX_SHAPES


@pytest.mark.parametrize(
    "records",
    [
        hello(tuple(range(0x2000, 0x2000 + MAX_PART_BYTES // 2 + 1)), []),
        hello((0x1301,), [extension(number, b"") for number in range(0x3000, 0x3001 + MAX_TYPES)]),
        hello((0x1301,), [extension(16, list_of((0x0161,) * (MAX_PART_BYTES // 2), 2))]),
        hello((0x1301,), [extension(13, list_of((0x0403,) * (MAX_PART_BYTES // 2), 2))]),
    ],
    ids=["suites", "types", "protocols", "algorithms"],
)
def test_what_is_far_longer_than_real_ones_is_not_kept(records: bytes) -> None:
    known = KnownJa4()
    assert known.of(records) == slowly(records)
    assert known.of(records) is not None
    assert len(known) == 0


@pytest.mark.parametrize("data", [b"", b"\x16", b"GET / HTTP/1.1\r\n\r\n", bytes(64)])
def test_what_is_no_hello_has_none(data: bytes) -> None:
    assert KnownJa4().of(data) is None


KNOWN = KnownJa4()  # kept between examples: what one left behind must not answer for another
BASES = [greasy(GREASE[3]), greasy(GREASE[7], 2), client_hello("origin.test", ("h2",)), hello((0x1301,), [])]


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    st.integers(-3, 3),
)
def test_mutated_hellos_read_alike_on_both_ways(
    base: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    records = bytearray(base if cut >= 0 else base[:cut])
    records += bytes(max(cut, 0))
    for at, value in changes:
        records[at % len(records)] = value
    assert KNOWN.of(bytes(records)) == slowly(bytes(records))


@given(st.lists(st.sampled_from((*GREASE, 0, 13, 16, 43, 51)), max_size=6), st.binary(max_size=12))
def test_extensions_of_any_kind_and_body(numbers: list[int], body: bytes) -> None:
    records = hello((GREASE[0], 0x1301), [extension(number, body) for number in numbers])
    assert KNOWN.of(records) == slowly(records)
