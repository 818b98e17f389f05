"""Mutations of seeds, as a hypothesis strategy: everything in them is drawn, so that failures shrink."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

_BOUNDS = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
_MOVES = ("flip", "set", "bound", "remove", "insert", "double", "splice", "length", "cut")


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to four changes; sometimes one as it is."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(1, 8) | st.integers(1, 300))
        match draw(st.sampled_from(_MOVES)):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[at : at + size] = draw(st.binary(max_size=min(size, 16)))
            case "bound" if at < len(data):
                data[at] = draw(st.sampled_from(_BOUNDS))
            case "remove":
                del data[at : at + size]
            case "insert":
                data[at:at] = draw(
                    st.binary(max_size=16) | st.sampled_from((b"\n", b'"', b"[[a]]\n", b"\0\0"))
                )
            case "double":
                data[at:at] = data[at : at + size]
            case "length" if at + 2 <= len(data):
                value = int.from_bytes(data[at : at + 2], "big") + draw(st.sampled_from((-2, -1, 1, 2, 256)))
                data[at : at + 2] = (value % 65536).to_bytes(2, "big")
            case "cut":
                del data[at:]
            case _:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)
