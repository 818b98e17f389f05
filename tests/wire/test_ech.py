"""ECHConfigLists (RFC 9849 §4): what is read, what can be used, and that all else is one error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.wire.ech import (
    EchConfig,
    EchConfigError,
    is_public_name,
    parse_ech_configs,
    usable_ech_configs,
)

KEY = bytes(range(32))


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def vec(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


def config(
    *,
    version: int = 0xFE0D,
    kem: int = 0x20,
    key: bytes = KEY,
    suites: bytes = u16(1) + u16(1),
    name: bytes = b"public.test",
    extensions: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    body = b"\x07" + u16(kem) + vec(key) + vec(suites) + b"\x2a" + vec(name, 1) + vec(extensions) + tail
    return u16(version) + vec(body)


def test_a_config() -> None:
    found = parse_ech_configs(vec(config(suites=u16(1) + u16(1) + u16(1) + u16(3))))
    assert found == (
        EchConfig(
            config_id=7,
            kem=0x20,
            public_key=KEY,
            suites=((1, 1), (1, 3)),
            maximum_name_length=42,
            public_name=b"public.test",
            extensions=(),
        ),
    )
    assert found[0].usable
    assert KEY.hex() not in repr(found)


def test_unknown_versions_are_stepped_over() -> None:
    unknown = u16(0xFE0A) + vec(b"whatever it is")
    found = usable_ech_configs(vec(unknown + config() + unknown))
    assert [one.public_name for one in found] == [b"public.test"]
    assert parse_ech_configs(vec(unknown)) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kem": 0x10},
        {"key": bytes(31)},
        {"suites": u16(2) + u16(1)},
        {"suites": u16(1) + u16(0xFFFF)},
        {"name": b"-.test"},
        {"extensions": u16(0x8001) + vec(b"")},
        {"version": 0xFE0A},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_cannot_be_used(wrong: dict[str, object]) -> None:
    data = vec(config(**wrong))  # type: ignore[arg-type]
    parse_ech_configs(data)
    with pytest.raises(EchConfigError, match="none of its ECH configs can be used"):
        usable_ech_configs(data)
    assert len(usable_ech_configs(vec(config(**wrong) + config()))) == 1  # type: ignore[arg-type]


def test_an_extension_that_is_not_mandatory_does_no_harm() -> None:
    (found,) = usable_ech_configs(vec(config(extensions=u16(0x7FFF) + vec(b"?"))))
    assert found.extensions == (0x7FFF,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        vec(b""),
        vec(config()) + b"\0",
        vec(config())[:-1],
        vec(config()[:-1]),
        vec(config(key=b"")),
        vec(config(name=b"")),
        vec(config(suites=b"")),
        vec(config(suites=u16(1))),
        vec(config(suites=b"\0")),
        vec(config(tail=b"\0")),
        vec(config(extensions=b"\0")),
    ],
)
def test_what_is_no_list(data: bytes) -> None:
    with pytest.raises(EchConfigError):
        parse_ech_configs(data)


@pytest.mark.parametrize(
    "name", [b"a", b"a.b", b"xn--bcher-kva.example", b"1.a", b"A-b.C", b"a" * 63 + b".b", b"1a"]
)
def test_public_names(name: bytes) -> None:
    assert is_public_name(name)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"a.",
        b".a",
        b"a..b",
        b"-a",
        b"a-",
        b"a_b",
        b"a b",
        b"a" * 64,
        b"1.2.3.4",
        b"a.1",
        b"a.0x1f",
        b"a.0x",
    ],
)
def test_what_is_no_public_name(name: bytes) -> None:
    assert not is_public_name(name)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for candidate in (data, vec(data), vec(config()[:4] + data)):
        with contextlib.suppress(EchConfigError):
            found = parse_ech_configs(candidate)
            assert all(one.public_key and one.public_name and one.suites for one in found)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF).filter(lambda version: version != 0xFE0D) | st.just(0xFE0D),
            st.binary(min_size=1, max_size=40),
            st.binary(min_size=1, max_size=40),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_written_is_read_back(wanted: list[tuple[int, bytes, bytes]]) -> None:
    data = vec(b"".join(config(version=v, key=key, name=name) for v, key, name in wanted))
    found = parse_ech_configs(data)
    assert [(one.public_key, one.public_name) for one in found] == [
        (key, name) for version, key, name in wanted if version == 0xFE0D
    ]
