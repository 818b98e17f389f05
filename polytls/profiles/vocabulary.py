"""The words of a profile for the numbers of TLS, one `Vocabulary` for each sort.

Names are the registries' (`polytls.wire.iana`), found without regard to case. A number without a name is
written in hexadecimal, so that everything on the wire can be written; GREASE is one word wherever it may
stand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.profiles.exact import GREASE
from polytls.profiles.wording import WrongValueError, nearest, shown, type_of
from polytls.wire import iana
from polytls.wire.cipher_suites import CIPHER_SUITES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GREASE_WORD = "GREASE"

MAX_LIST_ITEMS = 512
"""No real list has a tenth of it; more is a mistake, or an attempt to make us work."""

_HEX_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,4}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Wire numbers of one sort by name. Names are found without regard to case; numbers without a name are
    written in hexadecimal, ``"0xc008"``. `grease` says whether ``"GREASE"`` may stand in such a list."""

    what: str
    names: Mapping[int, str]
    find: Callable[[str], int | None]
    """The number of a name in lower case."""
    grease: bool
    max_number: int = 0xFFFF

    def number(self, word: object) -> int:
        """Raises `WrongValueError`."""
        allowed = f'names of {self.what}s, numbers as "0x001d"' + (', "GREASE"' if self.grease else "")
        if not isinstance(word, str):
            raise WrongValueError(f"holds {type_of(word)}; allowed: {allowed}")
        lower = word.lower()
        if lower == GREASE_WORD.lower() and self.grease:
            return GREASE
        if _HEX_NUMBER.fullmatch(word):
            number = int(word, 16)
            if number > self.max_number:
                raise WrongValueError(f"holds {shown(word)}; allowed: at most {self.max_number:#x}")
            if self.grease and iana.is_grease(number):
                raise WrongValueError(f'holds {shown(word)}, a GREASE value; allowed: "GREASE", drawn afresh')
            return number
        found = self.find(lower)
        if found is None:
            guess = nearest(word, self.names.values())
            hint = f" (did you mean {shown(guess)}?)" if guess else ""
            raise WrongValueError(f"{shown(word)}: unknown {self.what}{hint}; allowed: {allowed}")
        return found

    def word(self, number: int) -> str:
        """What `number` reads as the same number."""
        if number == GREASE and self.grease:
            return GREASE_WORD
        digits = 4 if self.max_number > 0xFF else 2
        return self.names.get(number) or f"0x{number:0{digits}x}"


def _small(
    what: str, names: Mapping[int, str], *, grease: bool = False, max_number: int = 0xFFFF
) -> Vocabulary:
    """A vocabulary small enough to be its own index."""
    numbers = {name.lower(): number for number, name in names.items()}
    return Vocabulary(what, names, numbers.get, grease, max_number)


_VERSIONS = {0x0300: "SSL3.0", 0x0301: "TLS1.0", 0x0302: "TLS1.1", 0x0303: "TLS1.2", 0x0304: "TLS1.3"}

CIPHER_WORDS = Vocabulary("cipher suite", CIPHER_SUITES, iana.cipher_suite_number, grease=True)
GROUP_WORDS = Vocabulary("group", iana.GROUPS, iana.group_number, grease=True)
SCHEME_WORDS = Vocabulary(
    "signature algorithm", iana.SIGNATURE_SCHEMES, iana.signature_scheme_number, grease=True
)
VERSION_WORDS = _small("TLS version", _VERSIONS, grease=True)
RECORD_VERSION_WORDS = _small("TLS version", _VERSIONS)
COMPRESSION_WORDS = _small("compression method", {0: "null", 1: "DEFLATE"}, max_number=0xFF)  # RFC 3749
COMPRESSOR_WORDS = _small("algorithm", {1: "zlib", 2: "brotli", 3: "zstd"})  # RFC 8879 §7.3
POINT_WORDS = _small(  # RFC 8422 §5.1.2
    "point format",
    {0: "uncompressed", 1: "ansiX962_compressed_prime", 2: "ansiX962_compressed_char2"},
    max_number=0xFF,
)
MODE_WORDS = _small(  # RFC 8446 §4.2.9
    "PSK key exchange mode", {0: "psk_ke", 1: "psk_dhe_ke"}, max_number=0xFF
)
AEAD_WORDS = _small("AEAD", {1: "AES-128-GCM", 2: "AES-256-GCM", 3: "ChaCha20Poly1305"})  # RFC 9180 §7.3


def read_numbers(vocabulary: Vocabulary, value: object) -> tuple[int, ...]:
    """An array of names. Raises `WrongValueError`."""
    return tuple(vocabulary.number(item) for item in read_array(value, f"an array of {vocabulary.what}s"))


def read_array(value: object, allowed: str) -> list[object]:
    """A TOML array of a sane length. Raises `WrongValueError`."""
    if not isinstance(value, (list, tuple)):
        raise WrongValueError(f"is {type_of(value)}; allowed: {allowed}")
    if len(value) > MAX_LIST_ITEMS:
        raise WrongValueError(f"has {len(value)} items; allowed: at most {MAX_LIST_ITEMS}")
    return list(value)
