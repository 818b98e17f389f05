"""An ECHConfigList -> values: which keys a server publishes for Encrypted ClientHello (RFC 9849 §4).

Theory of operation
-------------------
A list holds configs of any version, each with its length, so that a reader steps over those it does not
know. `parse_ech_configs` returns those of the one version there is, in the order of the list, which is the
server's preference. A list that does not hold together is an error as a whole; a config that does, and that
cannot be used here, is none: `usable` says whether one can be.

What can be used is what the engine has: X25519, HKDF-SHA256, and the three AEADs of RFC 9180. The engine
makes the same choice by itself, out of the same bytes; this module is there so that a useless list is found
when the program starts, and not by the first tunnel, and so that a rejection can be told from a refusal.

Left out: making configs, and the keys that go with them, which are a server's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from polytls.errors import PolytlsError
from polytls.wire.cursor import Cursor, CursorError

VERSION = 0xFE0D
"""RFC 9849 §4: the version of a config is the number of the extension."""

X25519 = 0x0020
HKDF_SHA256 = 0x0001
AEADS = frozenset({0x0001, 0x0002, 0x0003})
"""AES-128-GCM, AES-256-GCM, ChaCha20Poly1305 (RFC 9180 §7.3)."""

_MANDATORY = 0x8000  # RFC 9849 §4.2: an extension of this kind that is not known makes its config useless
_LABEL = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NUMBER = re.compile(rb"[0-9]+|0[xX][0-9A-Fa-f]*")  # the last label of what some take for an IPv4 address


class EchConfigError(PolytlsError, ValueError):
    """The bytes are no ECHConfigList. The message says why."""


@dataclass(frozen=True, slots=True)
class EchConfig:
    """One config. `suites` are pairs (KDF, AEAD) by RFC 9180's numbers; `extensions` the types of its
    extensions, none of which has been defined."""

    config_id: int
    kem: int
    public_key: bytes = field(repr=False)
    suites: tuple[tuple[int, int], ...]
    maximum_name_length: int
    public_name: bytes
    extensions: tuple[int, ...]

    @property
    def usable(self) -> bool:
        """Can the engine encrypt a hello by it?"""
        return (
            self.kem == X25519
            and len(self.public_key) == 32
            and any(kdf == HKDF_SHA256 and aead in AEADS for kdf, aead in self.suites)
            and is_public_name(self.public_name)
            and not any(number & _MANDATORY for number in self.extensions)
        )


def parse_ech_configs(data: bytes) -> tuple[EchConfig, ...]:
    """The configs of a known version in an ECHConfigList, in order. Raises `EchConfigError`."""
    cursor = Cursor(data)
    try:
        configs = Cursor(cursor.vec16())
        cursor.finish()
        if not configs.remaining:
            raise EchConfigError("the list of ECH configs is empty")
        found = []
        while configs.remaining:
            version, contents = configs.u16(), configs.vec16()
            if version == VERSION:
                found.append(_config(Cursor(contents)))
    except CursorError as problem:
        raise EchConfigError(f"the list of ECH configs is malformed: {problem}") from None
    return tuple(found)


def usable_ech_configs(data: bytes) -> tuple[EchConfig, ...]:
    """As `parse_ech_configs`, those that can be used alone. Raises `EchConfigError` where that is none."""
    found = parse_ech_configs(data)
    usable = tuple(config for config in found if config.usable)
    if not usable:
        raise EchConfigError(
            f"none of its ECH configs can be used ({len(found)} of the version of RFC 9849);"
            " needed are X25519, HKDF-SHA256, an AEAD of RFC 9180, a DNS name, and no mandatory extension"
        )
    return usable


def is_public_name(name: bytes) -> bool:
    """Is it a DNS name that nobody takes for an address? (RFC 9849 §4 and §6.1.7)"""
    labels = name.split(b".")
    return all(_LABEL.fullmatch(label) for label in labels) and not _NUMBER.fullmatch(labels[-1])


def _config(contents: Cursor) -> EchConfig:
    config_id, kem, public_key = contents.u8(), contents.u16(), contents.vec16()
    numbers = Cursor(contents.vec16()).u16s()
    maximum_name_length, public_name = contents.u8(), contents.vec8()
    extensions = []
    rest = Cursor(contents.vec16())
    while rest.remaining:
        extensions.append(rest.u16())
        rest.vec16()
    contents.finish()
    if not public_key or not public_name or not numbers or len(numbers) % 2:
        raise EchConfigError("the list of ECH configs is malformed: a part that a config must have is empty")
    return EchConfig(
        config_id=config_id,
        kem=kem,
        public_key=public_key,
        suites=tuple(zip(numbers[::2], numbers[1::2], strict=True)),
        maximum_name_length=maximum_name_length,
        public_name=public_name,
        extensions=tuple(extensions),
    )
