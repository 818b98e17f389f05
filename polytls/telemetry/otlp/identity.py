"""Which trace and span a tunnel is: the same answer to whoever asks, without anybody keeping it.

A tunnel's span id, and its trace id where the caller gave none, are a keyed hash of its number; the key is
new for each start. So log lines, spans and exported logs name the same ids although they are made on
different threads, at different times, from the record alone. BLAKE2 with a secret key is as good as random
to whoever does not have it, which is what ratio samplers need of a trace id.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.events import TunnelRecord

_TRACE_BYTES, _SPAN_BYTES = 16, 8
_SPAN_IDS = 1 << 64


class Identity:
    """`key`: 16 bytes; for tests. Thread-safe."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(16)

    def of(self, record: TunnelRecord) -> tuple[int, int]:
        """Trace id and span id of a tunnel. Neither is 0."""
        digest = blake2b(
            record.id.to_bytes(8, "big"), digest_size=_TRACE_BYTES + _SPAN_BYTES, key=self._key
        ).digest()
        parent = record.parent
        trace = parent.trace_id if parent else int.from_bytes(digest[:_TRACE_BYTES], "big")
        return trace or 1, int.from_bytes(digest[_TRACE_BYTES:], "big") or 1


def child_id(span_id: int, number: int) -> int:
    """The id of a tunnel's child span: unlike the tunnel's and those of its other children."""
    return (span_id + number) % _SPAN_IDS or _SPAN_IDS // 2
