from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.wire.client_hello import (
    MAX_RECORD_BYTES,
    ClientHello,
    Extension,
    HelloError,
    KeyShare,
    parse_client_hello,
    parse_client_hello_message,
)
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_GOLDENS = REPOSITORY.parent / "shared" / "goldens"
GOLDEN = json.loads((REPOSITORY / "tests" / "golden" / "hellos.json").read_text("utf-8"))
CAPTURED = {entry["name"]: bytes.fromhex(entry["hello"]) for entry in GOLDEN["captured"]}
RANDOM = bytes(range(32))

PROPERTIES: list[Callable[[ClientHello], object]] = [
    lambda hello: hello.sni,
    lambda hello: hello.alpn,
    lambda hello: hello.supported_groups,
    lambda hello: hello.point_formats,
    lambda hello: hello.signature_algorithms,
    lambda hello: hello.signature_algorithms_cert,
    lambda hello: hello.delegated_credentials,
    lambda hello: hello.supported_versions,
    lambda hello: hello.key_shares,
    lambda hello: hello.psk_key_exchange_modes,
    lambda hello: hello.certificate_compression,
    lambda hello: hello.record_size_limit,
]


def vec8(data: bytes) -> bytes:
    return len(data).to_bytes(1, "big") + data


def vec16(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def body(*extensions: tuple[int, bytes], tail: bytes | None = None, session_id: bytes = b"") -> bytes:
    block = b"".join(number.to_bytes(2, "big") + vec16(data) for number, data in extensions)
    end = vec16(block) if tail is None else tail
    return b"\x03\x03" + RANDOM + vec8(session_id) + vec16(b"\x13\x01\xc0\x2f") + vec8(b"\x00") + end


def message(data: bytes) -> bytes:
    return b"\x01" + len(data).to_bytes(3, "big") + data


def record(data: bytes, version: bytes = b"\x03\x01") -> bytes:
    return b"\x16" + version + vec16(data)


def records(data: bytes, size: int) -> bytes:
    return b"".join(record(data[start : start + size]) for start in range(0, len(data), size))


def shared_hellos() -> Iterator[tuple[str, bytes]]:
    for path in sorted(SHARED_GOLDENS.glob("*.json")):
        for index, sample in enumerate(json.loads(path.read_text("utf-8")).get("samples", [])):
            yield f"{path.stem}-{index}", bytes.fromhex(sample)


def test_what_chrome_100_sends() -> None:
    hello = parse_client_hello(CAPTURED["chrome100"])
    assert (hello.record_version, hello.legacy_version) == (0x0301, 0x0303)
    assert (len(hello.random), len(hello.session_id)) == (32, 32)
    assert hello.compression_methods == (0,)
    assert is_grease(hello.cipher_suites[0])
    assert hello.cipher_suites[1:4] == (0x1301, 0x1302, 0x1303)
    assert hello.sni == b"golden.test"
    assert hello.alpn == (b"h2", b"http/1.1")
    assert hello.supported_groups[1:] == (29, 23, 24)
    assert hello.point_formats == (0,)
    assert hello.signature_algorithms[:2] == (0x0403, 0x0804)
    assert hello.supported_versions[1:] == (0x0304, 0x0303)
    assert [(share.group, len(share.key_exchange)) for share in hello.key_shares[1:]] == [(29, 32)]
    assert hello.psk_key_exchange_modes == (1,)
    assert hello.certificate_compression == (2,)
    assert hello.record_size_limit is None
    assert hello.delegated_credentials == hello.signature_algorithms_cert == ()
    assert is_grease(hello.extension_types[0])
    assert hello.extension_types[1:5] == (0x0000, 0x0017, 0xFF01, 0x000A)
    assert hello.extension(ExtensionType.APPLICATION_SETTINGS_OLD) == bytes.fromhex("0003026832")


def test_what_firefox_133_sends() -> None:
    hello = parse_client_hello(CAPTURED["firefox133"])
    assert hello.record_size_limit == 0x4001
    assert hello.delegated_credentials[0] == 0x0403
    assert [share.group for share in hello.key_shares] == [0x11EC, 29, 23]


def test_random_session_id_and_keys_are_not_in_the_repr() -> None:
    hello = parse_client_hello(CAPTURED["chrome100"])
    text = repr((hello.key_shares, hello)).split("extensions=")[0]
    assert repr(hello.random) not in text
    assert repr(hello.session_id) not in text
    assert "key_exchange" not in text


def test_a_message_without_records() -> None:
    data = body((0x002B, vec8(b"\x03\x04")), (0x1234, b"?"), session_id=b"s" * 32)
    hello = parse_client_hello_message(data)
    assert hello == ClientHello(
        record_version=None,
        legacy_version=0x0303,
        random=RANDOM,
        session_id=b"s" * 32,
        cipher_suites=(0x1301, 0xC02F),
        compression_methods=(0,),
        extensions=(Extension(0x002B, b"\x02\x03\x04"), Extension(0x1234, b"?")),
    )


@pytest.mark.parametrize("tail", [b"", b"\x00\x00"])
def test_no_extensions(tail: bytes) -> None:
    hello = parse_client_hello_message(body(tail=tail))
    assert hello.extensions == ()
    assert hello.extension_types == ()
    assert hello.sni is None
    assert hello.extension(0) is None
    assert all(not read(hello) for read in PROPERTIES)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100, 10_000])
def test_a_message_may_span_records(size: int) -> None:
    data = body((0x0000, vec16(b"\x00" + vec16(b"a.example"))))
    assert parse_client_hello(records(message(data), size)) == parse_client_hello_message(
        data, record_version=0x0301
    )


def test_the_first_record_gives_the_version_and_later_records_are_not_read() -> None:
    whole = message(body())
    stream = (
        record(whole[:9], b"\x03\x01") + record(whole[9:], b"\x03\x03") + b"\x17\x03\x03\xff\xff early data"
    )
    assert parse_client_hello(stream).record_version == 0x0301


@pytest.mark.parametrize("size", [MAX_RECORD_BYTES - 1, MAX_RECORD_BYTES, MAX_RECORD_BYTES + 1])
def test_record_size_at_its_limit(size: int) -> None:
    padding = size - len(message(body((21, b""))))
    stream = record(message(body((21, bytes(padding)))))
    if size <= MAX_RECORD_BYTES:
        assert parse_client_hello(stream).extension(21) == bytes(padding)
    else:
        with pytest.raises(HelloError, match="this one 16385"):
            parse_client_hello(stream)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "cut short"),
        (b"GET / HTTP/1.1\r\n", "starts with byte 0x47"),
        (bytes.fromhex("8046010301"), "starts with byte 0x80"),
        (bytes.fromhex("16fefd0001"), "version is 0xfefd"),
        (bytes.fromhex("1602000001"), "version is 0x0200"),
        (record(b""), "this one 0"),
        (record(b"\x02\x00\x00\x00"), "type 2, not a ClientHello"),
        (record(b"\x01") + b"\x15\x03\x01\x00\x02", "starts with byte 0x15"),
        (record(message(body()) + b"\x00"), "1 bytes follow the ClientHello"),
        (record(message(b"")), "the ClientHello is malformed: 2 bytes needed"),
        (record(message(body() + b"\x00")), "1 bytes follow the end"),
        (record(message(body(session_id=b"s" * 33))), "session id has 33 bytes"),
        (record(message(body((5, b""), (16, b""), (5, b"x")))), "extension 0x0005 is there twice"),
        (record(message(body(tail=vec16(b"\x00\x05\x00")))), "2 bytes needed"),
        (record(message(body(tail=vec16(b"\x00\x05\x00\x02x")))), "2 bytes needed"),
    ],
)
def test_refused(stream: bytes, reason: str) -> None:
    with pytest.raises(HelloError, match=reason):
        parse_client_hello(stream)


def test_an_odd_cipher_list_is_refused() -> None:
    data = b"\x03\x03" + RANDOM + b"\x00" + vec16(b"\x13\x01\xc0") + vec8(b"\x00")
    with pytest.raises(HelloError, match="odd length"):
        parse_client_hello_message(data)


@pytest.mark.parametrize(
    ("number", "data", "read", "value"),
    [
        (0, vec16(b"\x00" + vec16(b"A.example")), lambda hello: hello.sni, b"A.example"),
        (16, vec16(vec8(b"") + vec8(b"\xff")), lambda hello: hello.alpn, (b"", b"\xff")),
        (16, vec16(b""), lambda hello: hello.alpn, ()),
        (50, vec16(b"\x04\x03"), lambda hello: hello.signature_algorithms_cert, (0x0403,)),
        (51, vec16(b"\x00\x1d" + vec16(b"k")), lambda hello: hello.key_shares, (KeyShare(29, b"k"),)),
        (51, vec16(b""), lambda hello: hello.key_shares, ()),
    ],
)
def test_bodies(number: int, data: bytes, read: Callable[[ClientHello], object], value: object) -> None:
    assert read(parse_client_hello_message(body((number, data)))) == value


@pytest.mark.parametrize(
    ("number", "data", "read", "reason"),
    [
        (0, b"", PROPERTIES[0], "the server_name extension is malformed"),
        (0, vec16(b""), PROPERTIES[0], "1 bytes needed"),
        (0, vec16(b"\x01" + vec16(b"a")), PROPERTIES[0], "type 1, not a host name"),
        (0, vec16(b"\x00" + vec16(b"")), PROPERTIES[0], "host name is empty"),
        (0, vec16(b"\x00" + vec16(b"a") + b"\x00" + vec16(b"b")), PROPERTIES[0], "4 bytes follow"),
        (0, vec16(b"\x00" + vec16(b"a")) + b"x", PROPERTIES[0], "1 bytes follow"),
        (16, vec16(b"\x02h"), PROPERTIES[1], "the alpn extension is malformed"),
        (10, vec16(b"\x00\x1d\x00"), PROPERTIES[2], "odd length"),
        (11, b"\x02\x00", PROPERTIES[3], "2 bytes needed"),
        (13, vec16(b"\x04"), PROPERTIES[4], "odd length"),
        (43, b"\x03\x03\x04\x03", PROPERTIES[7], "odd length"),
        (51, vec16(b"\x00\x1d\x00\x02k"), PROPERTIES[8], "2 bytes needed"),
        (28, b"\x40", PROPERTIES[11], "the record_size_limit extension is malformed"),
    ],
)
def test_malformed_bodies(
    number: int, data: bytes, read: Callable[[ClientHello], object], reason: str
) -> None:
    hello = parse_client_hello_message(body((number, data)))
    with pytest.raises(HelloError, match=reason):
        read(hello)


@pytest.mark.parametrize("name", sorted(CAPTURED))
def test_every_truncation_is_refused(name: str) -> None:
    whole = CAPTURED[name]
    for length in range(len(whole)):
        with pytest.raises(HelloError):
            parse_client_hello(whole[:length])


@pytest.mark.skipif(not SHARED_GOLDENS.is_dir(), reason="the shared goldens are not beside the repository")
def test_shared_goldens_parse_and_their_truncations_do_not() -> None:
    hellos = dict(shared_hellos())
    assert hellos
    for name, whole in hellos.items():
        hello = parse_client_hello(whole)
        assert hello.sni == b"golden.test", name
        for read in PROPERTIES:
            read(hello)
        lengths = range(len(whole)) if name.endswith("-0") else range(0, len(whole), 97)
        for length in lengths:
            with pytest.raises(HelloError):
                parse_client_hello(whole[:length])


@st.composite
def mutated_hellos(draw: st.DrawFn) -> bytes:
    hello = bytearray(draw(st.sampled_from(sorted(CAPTURED.values()))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, min(len(hello), 400)))
        end = min(len(hello), start + draw(st.integers(0, 2)))
        hello[start:end] = draw(st.binary(max_size=2))
    return bytes(hello)


def reads_or_refuses(parse: Callable[[], ClientHello]) -> None:
    with suppress(HelloError):
        hello = parse()
        for read in PROPERTIES:
            with suppress(HelloError):
                read(hello)


@settings(deadline=None, max_examples=300)
@given(stream=mutated_hellos() | st.binary(max_size=80).map(lambda data: b"\x16\x03\x01" + data))
def test_any_records_are_a_hello_or_that_one_error(stream: bytes) -> None:
    reads_or_refuses(lambda: parse_client_hello(stream))


@settings(deadline=None, max_examples=300)
@given(
    extensions=st.dictionaries(
        st.sampled_from([extension.value for extension in ExtensionType]), st.binary(max_size=12), max_size=6
    )
)
def test_any_bodies_too(extensions: dict[int, bytes]) -> None:
    data = body(*extensions.items())
    assert parse_client_hello_message(data).extension_types == tuple(extensions)
    reads_or_refuses(lambda: parse_client_hello_message(data))
    reads_or_refuses(lambda: parse_client_hello(record(message(data[:-1]))))
