"""Reading bytes without ever reading past them.

Theory of operation
-------------------
TLS structures are fixed-width big-endian integers and vectors with a length prefix (RFC 8446 §3). A
`Cursor` walks over one such structure. It either returns what was asked for, or raises `CursorError` and
stays where it was; it has no third outcome. A structure ends with `finish()`, so that what follows the
last field is an error rather than something nobody looked at.

A cursor knows widths and nothing of what they mean: parsers built on it turn its error into their own.
"""

from __future__ import annotations

import struct

from polytls.errors import PolytlsError


class CursorError(PolytlsError, ValueError):
    """The bytes end before the structure does, or go on after it."""


class Cursor:
    """A position in `data`. All integers are unsigned and big-endian."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._position

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise CursorError(f"{length} bytes needed at offset {self._position}, {self.remaining} left")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u24(self) -> int:
        return int.from_bytes(self.take(3), "big")

    def vec8(self) -> bytes:
        """A vector whose length in bytes is one byte: ``opaque x<0..2^8-1>``."""
        return self._vector(1)

    def vec16(self) -> bytes:
        """A vector whose length in bytes is two bytes: ``opaque x<0..2^16-1>``."""
        return self._vector(2)

    def u16s(self) -> tuple[int, ...]:
        """Everything left, as 16-bit integers in order."""
        if self.remaining % 2:
            raise CursorError(f"a list of 16-bit values has an odd length, {self.remaining} bytes")
        count = self.remaining // 2
        return struct.unpack(f">{count}H", self.take(2 * count))

    def finish(self) -> None:
        """Require that nothing is left."""
        if self.remaining:
            raise CursorError(f"{self.remaining} bytes follow the end at offset {self._position}")

    def _vector(self, width: int) -> bytes:
        start = self._position
        length = int.from_bytes(self.take(width), "big")
        try:
            return self.take(length)
        except CursorError:
            self._position = start
            raise
