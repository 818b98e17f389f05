"""What was minted: one typed event per certificate that the root CA signed.

Theory of operation
-------------------
Whoever trusts the root trusts every leaf it signed, so every signature is accounted for. The cache hands
a `MintEvent` to an `AuditSink` after the signature and *before* the leaf can be shown to anyone; a sink
that raises makes the mint fail, because a leaf that is not on record must not be used. Events come from
the cache's worker threads, one call per mint and possibly several at once: a sink is thread-safe and
quick. Where events go (log line, file, metric) is the sink's affair: there is no I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a sink needs the words of this module, not the memory of `cryptography`
    from datetime import datetime

    from polytls.pki.leaf import LeafKind


@dataclass(frozen=True, slots=True)
class MintEvent:
    """One leaf was signed.

    `host` is the CONNECT host it is for. `serial_hex` is the serial number as certificate viewers print
    it: upper-case hexadecimal, two digits an octet, without separators. `not_after` is in UTC.
    """

    host: str
    kind: LeafKind
    serial_hex: str
    not_after: datetime


AuditSink = Callable[[MintEvent], None]
"""Takes each `MintEvent`, on any thread. Raising makes the mint that it tells of fail."""
