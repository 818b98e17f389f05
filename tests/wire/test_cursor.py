from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.wire.cursor import Cursor, CursorError


def test_integers_are_big_endian() -> None:
    cursor = Cursor(bytes.fromhex("01 0203 040506"))
    assert (cursor.u8(), cursor.u16(), cursor.u24()) == (0x01, 0x0203, 0x040506)
    cursor.finish()


def test_vectors_and_lists() -> None:
    cursor = Cursor(bytes.fromhex("02aabb 0001cc 00 0001 0203"))
    assert cursor.vec8() == b"\xaa\xbb"
    assert cursor.vec16() == b"\xcc"
    assert cursor.vec8() == b""
    assert cursor.u16s() == (1, 0x0203)
    assert cursor.remaining == 0
    assert cursor.u16s() == ()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ("", Cursor.u8),
        ("01", Cursor.u16),
        ("0102", Cursor.u24),
        ("02aa", Cursor.vec8),
        ("00", Cursor.vec16),
        ("0002aa", Cursor.vec16),
        ("010203", Cursor.u16s),
    ],
)
def test_too_short_raises_and_stays(data: str, read) -> None:  # type: ignore[no-untyped-def]
    cursor = Cursor(bytes.fromhex(data))
    before = cursor.remaining
    with pytest.raises(CursorError):
        read(cursor)
    assert cursor.remaining == before


def test_finish_refuses_what_is_left() -> None:
    with pytest.raises(CursorError, match="1 bytes follow the end at offset 0"):
        Cursor(b"x").finish()


@given(data=st.binary(max_size=40), width=st.integers(0, 50))
def test_take_is_a_slice_or_the_error(data: bytes, width: int) -> None:
    cursor = Cursor(data)
    if width <= len(data):
        assert cursor.take(width) == data[:width]
        assert cursor.remaining == len(data) - width
    else:
        with pytest.raises(CursorError, match="needed at offset 0"):
            cursor.take(width)
