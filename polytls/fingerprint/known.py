"""JA4s of hellos that were seen before: for a proxy that names both hellos of every tunnel.

Theory of operation
-------------------
Reading a hello in full and hashing it costs some 55 µs. JA4 depends on the hello's *shape* alone: versions,
cipher suites, the types of its extensions and a few of their bodies. The shape is cut out of the bytes by
their lengths, for 10 µs, and what JA4 says of it is kept. JA4 looks neither at the order of
extensions nor at GREASE values, so the shape has neither: all hellos of one client are one.

A hello that the short way cannot follow (several records, a length that does not fit) or should not keep
(far longer than real ones) takes the long one.
`tests/fingerprint` holds the two ways to each other, mutated hellos included.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct, error, unpack, unpack_from
from typing import TYPE_CHECKING

from polytls.fingerprint.ja4 import ja4
from polytls.wire.client_hello import MAX_RECORD_BYTES, HelloError, parse_client_hello
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_SHAPES = 1024
"""Under 2 KB each for what clients send. The clients and profiles of a proxy have a few dozen."""
MAX_PART_BYTES = 512
"""Of the suites, and of a body that is looked into: real ones have up to some 200. What has more is read in
full each time and kept nowhere: who makes up hellos of 16 KB cannot fill the memory with them."""
MAX_TYPES = 128

_GREASE = frozenset(0x0A0A + 0x1010 * step for step in range(16))  # RFC 8701 §2
_HEAD = Struct(">BHHB")  # record: type, version, length; message: type
_EXTENSION = Struct(">HH")
_HANDSHAKE, _CLIENT_HELLO = 22, 1  # RFC 8446 §5.1, §4
_VERSION_AT = 9  # five bytes of record header, four of message header
_SESSION_AT = 43  # after legacy_version and random
_MAX_SESSION_BYTES = 32
_BODIES = (
    ExtensionType.ALPN.value,
    ExtensionType.SIGNATURE_ALGORITHMS.value,
    ExtensionType.SUPPORTED_VERSIONS.value,
)


class KnownJa4:
    """JA4 by shape, the least recently seen making room. For one thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, str | None] = OrderedDict()

    def of(self, records: bytes) -> str | None:
        """The JA4 of the hello in TLS records; None where it cannot be read."""
        shape = _shape(records)
        if shape is None:
            return _read(records)
        try:
            found = self._known[shape]
        except KeyError:
            found = self._known[shape] = _read(records)
            if len(self._known) > MAX_SHAPES:
                self._known.popitem(last=False)
        self._known.move_to_end(shape)
        return found

    def __len__(self) -> int:
        return len(self._known)


def _read(records: bytes) -> str | None:
    try:
        return ja4(parse_client_hello(records)).ja4
    except HelloError:
        return None


def _shape(records: bytes) -> Hashable | None:
    """What decides the JA4 of a hello in one record, whole and well-formed in its lengths; else None."""
    try:
        kind, version, size, message = _HEAD.unpack_from(records)
        end = 5 + size
        if kind != _HANDSHAKE or version >> 8 != 3 or message != _CLIENT_HELLO or end != len(records):
            return None
        if size > MAX_RECORD_BYTES or int.from_bytes(records[6:9], "big") != size - 4:
            return None
        session = records[_SESSION_AT]
        at = _SESSION_AT + 1 + session
        (length,) = unpack_from(">H", records, at)
        if session > _MAX_SESSION_BYTES or length % 2 or length > MAX_PART_BYTES:
            return None
        suites = unpack_from(f">{length // 2}H", records, at + 2)
        at += 2 + length
        at += 1 + records[at]
        (length,) = unpack_from(">H", records, at)
        at += 2
        if at + length != end:
            return None
        types, bodies = _extensions(records, at, end)
        if len(types) > MAX_TYPES:
            return None
    except (IndexError, error):
        return None
    return (
        records[_VERSION_AT : _VERSION_AT + 2],
        tuple(value for value in suites if value not in _GREASE),
        tuple(sorted(types)),
        bodies,
    )


def _extensions(records: bytes, at: int, end: int) -> tuple[list[int], Hashable]:
    """The types from `at` to `end`, and the bodies that JA4 looks into. Raises struct.error for a misfit."""
    types: list[int] = []
    bodies: dict[int, Hashable] = {}
    while at < end:
        number, length = _EXTENSION.unpack_from(records, at)
        at += 4 + length
        if at > end:
            raise error("an extension is longer than what holds it")
        types.append(number)
        if number in _BODIES:
            if length > MAX_PART_BYTES:
                raise error("a body is longer than what is kept")
            bodies[number] = _plain(number, records[at - length : at])
    if len(set(types)) != len(types):
        raise error("an extension is there twice")
    return [number for number in types if number not in _GREASE], tuple(map(bodies.get, _BODIES))


def _plain(number: int, body: bytes) -> tuple[Hashable, ...]:
    """A body without its GREASE values; its lengths stay, so that a malformed one is another."""
    prefix = 1 if number == ExtensionType.SUPPORTED_VERSIONS else 2
    if number == ExtensionType.ALPN or len(body) % 2 != prefix % 2:
        return (body,)
    values = unpack(f">{(len(body) - prefix) // 2}H", body[prefix:])
    return (len(body), body[:prefix], tuple(value for value in values if value not in _GREASE))
