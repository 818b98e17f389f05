"""What a hostile hello can cost in mirror mode. That real ones are mirrored is tests/e2e/test_mirror.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from polytls.errors import Kind, ProxyError
from polytls.proxy.mirror import MAX_EXTENSIONS, MAX_KEY_SHARES, MAX_PARTS_TOLD, MAX_SHAPES, Mirror

if TYPE_CHECKING:
    from polytls.engine import ClientContext
    from polytls.profiles import HelloSpec

X448 = 0x001E


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def vec16(data: bytes) -> bytes:
    return u16(len(data)) + data


def extension(number: int, body: bytes = b"") -> bytes:
    return u16(number) + vec16(body)


def shares(groups: list[int]) -> bytes:
    return extension(51, vec16(b"".join(u16(group) + vec16(b"x") for group in groups)))


def records(extensions: bytes) -> bytes:
    body = u16(0x0303) + bytes(32) + b"\0" + vec16(u16(0xC02B)) + b"\1\0" + vec16(extensions)
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + vec16(message)


def no_context(_spec: HelloSpec) -> ClientContext:
    return cast("ClientContext", None)


def refusal(extensions: bytes, *, drop: bool = False) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        Mirror(no_context, drop=drop).offer(records(extensions))
    assert caught.value.kind is Kind.HELLO_NOT_REPRODUCIBLE
    return caught.value


def many(count: int) -> bytes:
    return b"".join(extension(0x4000 + number) for number in range(count))


def test_as_many_extensions_as_are_allowed() -> None:
    assert Mirror(no_context, drop=False).offer(records(many(MAX_EXTENSIONS))).alpn == ()


def test_as_many_shapes_are_kept_as_are_allowed() -> None:
    made: list[HelloSpec] = []

    def make(spec: HelloSpec) -> ClientContext:
        made.append(spec)
        return no_context(spec)

    mirror = Mirror(make, drop=False)
    shapes = [records(extension(0x4000 + number)) for number in range(MAX_SHAPES + 1)]
    for shape in (*shapes[:-1], shapes[0]):  # the second is the one not used for longest
        mirror.offer(shape)
    assert len(made) == MAX_SHAPES
    for shape in (shapes[-1], shapes[0], shapes[2]):
        mirror.offer(shape)
    assert len(made) == MAX_SHAPES + 1
    mirror.offer(shapes[1])
    assert len(made) == MAX_SHAPES + 2


@pytest.mark.parametrize("count", [MAX_EXTENSIONS + 1, 3900])
def test_more_extensions_than_any_client_has(count: int) -> None:
    assert f"it has {count} extensions" in refusal(many(count)).detail


@pytest.mark.parametrize("drop", [False, True])
def test_more_key_shares_than_any_client_has(drop: bool) -> None:
    detail = refusal(shares([X448] * (MAX_KEY_SHARES + 1)), drop=drop).detail
    assert f"it has {MAX_KEY_SHARES + 1} key shares" in detail


def test_what_cannot_be_sent_is_told_within_bounds() -> None:
    detail = refusal(shares([0x5000 + number for number in range(MAX_KEY_SHARES)])).detail
    assert detail.count(";") <= MAX_PARTS_TOLD
    assert "more" in detail
