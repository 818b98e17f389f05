"""A template -> ClientHellos, in Python: what the engine's C++ does with it, told a second time.

It follows the description of the format and shares no code with `polytls.profiles.template`, so that a
template is proven by what comes out of it: the hello of the client that it was learned from. Keys are random
bytes: nobody answers these hellos. Left out: a second hello, sessions, real ECH.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from polytls.wire.cursor import Cursor

RAW, BUILTIN, GREASE = 0, 1, 2
PERMUTE, REUSE_X25519, PAD, PAD_AFTER_RETRY, PAD_TO_EMPTY, NEW_SHARES_ON_COOKIE = 1, 2, 4, 8, 16, 32
FIXED, FULL_ONLY = 1, 2
SLOTS = 8
SHARE_BYTES = {0x11EC: 1216, 0x6399: 1216, 0x001D: 32, 0x0017: 65, 0x0018: 97, 0x0019: 133, 0x0202: 1568}
GREASE_VALUE = 0x0A0A


@dataclass(frozen=True)
class Entry:
    type: int
    kind: int
    slot: int
    flags: int
    body: bytes
    patches: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Template:
    """The parsed blob. CursorError, ValueError or AssertionError for a malformed one."""

    record_version: int
    flags: int
    cipher_suites: tuple[int, ...]
    compression_methods: bytes
    key_shares: tuple[int, ...]
    ech_aeads: tuple[int, ...]
    ech_payloads: tuple[int, ...]
    ech_psk_step: int
    entries: tuple[Entry, ...]


def parse(blob: bytes) -> Template:
    cursor = Cursor(blob)
    assert cursor.u8() == 1
    template = Template(
        record_version=cursor.u16(),
        flags=cursor.u8(),
        cipher_suites=Cursor(cursor.vec16()).u16s(),
        compression_methods=cursor.vec8(),
        key_shares=Cursor(cursor.vec16()).u16s(),
        ech_aeads=Cursor(cursor.vec16()).u16s(),
        ech_payloads=Cursor(cursor.vec16()).u16s(),
        ech_psk_step=cursor.u8(),
        entries=_entries(Cursor(cursor.vec16())),
    )
    cursor.finish()
    return template


def _entries(cursor: Cursor) -> tuple[Entry, ...]:
    found = []
    while cursor.remaining:
        number, kind, slot, flags = cursor.u16(), cursor.u8(), cursor.u8(), cursor.u8()
        body, rest = cursor.vec16(), Cursor(cursor.vec8())
        patches = []
        while rest.remaining:
            offset, patched = rest.u16(), rest.u8()
            assert offset + 2 <= len(body)
            assert patched < SLOTS
            patches.append((offset, patched))
        assert kind in (RAW, BUILTIN, GREASE)
        assert kind != BUILTIN or not body
        found.append(Entry(number, kind, slot, flags, body, tuple(patches)))
    plain = [entry.type for entry in found if entry.kind != GREASE]
    assert len(set(plain)) == len(plain)
    return tuple(found)


@dataclass(frozen=True)
class Connection:
    """What a connection adds to the template."""

    host: str
    alpn: tuple[str, ...]
    alps: tuple[str, ...]


def client_hello(template: Template, connection: Connection, random: Random) -> bytes:
    """One first hello, as records."""
    writer = _Writer(template, connection, random)
    return writer.hello()


class _Writer:
    def __init__(self, template: Template, connection: Connection, random: Random) -> None:
        self.template = template
        self.connection = connection
        self.random = random
        self.grease = [0x0A0A + 0x1010 * random.randrange(16) for _ in range(SLOTS)]
        while self.grease[2] == self.grease[3]:  # two extensions may not have one type
            self.grease[3] = 0x0A0A + 0x1010 * random.randrange(16)

    def hello(self) -> bytes:
        template = self.template
        suites = (self.grease[0] if suite == GREASE_VALUE else suite for suite in template.cipher_suites)
        extensions = b"".join(
            _u16(number) + _vec16(body) for entry in self._order() for number, body in self._extension(entry)
        )
        head = b"\3\3" + self.random.randbytes(32)
        head += _vec8(self.random.randbytes(32) if self._offers_tls13() else b"")
        head += _vec16(b"".join(map(_u16, suites))) + _vec8(template.compression_methods)
        extensions += self._padding(4 + len(head) + 2 + len(extensions))
        message = head + _vec16(extensions)
        handshake = b"\1" + len(message).to_bytes(3, "big") + message
        return b"\x16" + _u16(template.record_version) + _vec16(handshake)

    def _offers_tls13(self) -> bool:
        versions = [entry.body for entry in self.template.entries if entry.type == 43]
        return any(0x0304 in Cursor(body[1:]).u16s() for body in versions)

    def _order(self) -> list[Entry]:
        entries = list(self.template.entries)
        if not self.template.flags & PERMUTE:
            return entries
        movable = [entry for entry in entries if not entry.flags & FIXED]
        self.random.shuffle(movable)
        return [entry if entry.flags & FIXED else movable.pop() for entry in entries]

    def _extension(self, entry: Entry) -> list[tuple[int, bytes]]:
        if entry.kind == GREASE:
            return [(self.grease[entry.slot], entry.body)]
        if entry.kind == BUILTIN:
            body = self._builtin(entry.type)
            return [] if body is None else [(entry.type, body)]
        patched = bytearray(entry.body)
        for offset, slot in entry.patches:
            assert patched[offset : offset + 2] == _u16(GREASE_VALUE)
            patched[offset : offset + 2] = _u16(self.grease[slot])
        return [(entry.type, bytes(patched))]

    def _builtin(self, number: int) -> bytes | None:
        match number:
            case 0:
                return _vec16(b"\0" + _vec16(self.connection.host.encode()))
            case 16:
                return _protocols(self.connection.alpn) if self.connection.alpn else None
            case 0x44CD | 0x4469:
                return _protocols(self.connection.alps) if self.connection.alps else None
            case 35:
                return b""
            case 0xFF01:
                return b"\0"
            case 51:
                return _vec16(b"".join(self._shares()))
            case 44 | 42:
                return None
            case 0xFE0D:
                return self._ech()
            case _:
                raise AssertionError(f"{number:#06x} is not written by BoringSSL")

    def _shares(self) -> list[bytes]:
        x25519 = self.random.randbytes(32)
        shares = []
        for group in self.template.key_shares:
            if group == GREASE_VALUE:
                shares.append(_u16(self.grease[1]) + _vec16(b"\0"))
                continue
            key = self.random.randbytes(SHARE_BYTES[group])
            if self.template.flags & REUSE_X25519:
                key = {0x1D: x25519, 0x11EC: key[:-32] + x25519, 0x6399: x25519 + key[32:]}.get(group, key)
            shares.append(_u16(group) + _vec16(key))
        return shares

    def _ech(self) -> bytes:
        aead = self.random.choice(self.template.ech_aeads)
        payload = self.random.randbytes(self.random.choice(self.template.ech_payloads))
        shape = b"\0\0\1" + _u16(aead) + self.random.randbytes(1)
        return shape + _vec16(self.random.randbytes(32)) + _vec16(payload)

    def _padding(self, length: int) -> bytes:
        if not self.template.flags & PAD or not 0xFF < length < 0x200:
            return b""
        least = 0 if self.template.flags & PAD_TO_EMPTY else 1
        return _u16(21) + _vec16(bytes(max(0x200 - length - 4, least)))


def _protocols(names: tuple[str, ...]) -> bytes:
    return _vec16(b"".join(_vec8(name.encode()) for name in names))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _vec8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data
