"""JA3: the MD5 of five lists of a ClientHello, and its form that does not depend on extension order.

Theory of operation
-------------------
The text is ``version,ciphers,extensions,groups,point formats`` in decimal: five fields separated by commas,
values in wire order separated by hyphens, an absent list being empty (Salesforce's description of 2017).
The version is the hello's legacy_version; the record's and supported_versions are not looked at. GREASE
values (RFC 8701) are left out of every list.

Clients that permute their extensions have a new JA3 with every hello. JA3N is the same text with the
extensions sorted by number, and is as stable as the client.

MD5 is the format's name for a text, not a protection of anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.wire.iana import is_grease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polytls.wire.client_hello import ClientHello


@dataclass(frozen=True, slots=True)
class Ja3:
    """Texts, and their MD5 in lower-case hexadecimal."""

    ja3: str
    ja3_hash: str
    ja3n: str
    ja3n_hash: str


def ja3(hello: ClientHello) -> Ja3:
    """Raises `HelloError` where supported_groups or ec_point_formats is malformed."""
    extensions = [value for value in hello.extension_types if not is_grease(value)]
    original, normal = (_text(hello, order) for order in (extensions, sorted(extensions)))
    return Ja3(original, _md5(original), normal, _md5(normal))


def _text(hello: ClientHello, extensions: Iterable[int]) -> str:
    lists = (hello.cipher_suites, extensions, hello.supported_groups, hello.point_formats)
    return ",".join([str(hello.legacy_version), *map(_join, lists)])


def _join(values: Iterable[int]) -> str:
    return "-".join(str(value) for value in values if not is_grease(value))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("ascii"), usedforsecurity=False).hexdigest()
