"""JA3 and raw JA4 texts, read back: what they say of a ClientHello, and what they cannot (pure).

Theory of operation
-------------------
`read_text` takes the text that `polytls.fingerprint.ja3` and `ja4` write (``ja3``, ``ja4_r``, ``ja4_ro``) and
gives what it tells as `Told`: lists of numbers, in wire order or sorted, and whatever JA4's first part says.
GREASE is in none of them, and hashes tell nothing: both are refused, with what is needed instead.

A sorted JA4 leaves server_name and ALPN out of its list; its first part tells whether they are there. One in
original order has them. The two are told apart by their number, which the first part has as well; where
neither extension is sent, both forms are the same but for the order, and a sorted list is taken as sorted.

Whatever the text, the outcome is `Told` or `TextError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from polytls.errors import PolytlsError
from polytls.fingerprint.ja4 import MAX_COUNT
from polytls.wire.iana import ExtensionType, is_grease

MAX_TEXT_CHARS = 1 << 13
"""Real ones have 200 to 600; a list of the most items has some 3,000."""

MAX_ITEMS = 512
"""In one list: ten times as many as real ones have."""

_TLS12 = 0x0303
_JA3_LISTS = 4
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_LOOKS_JA3 = re.compile(r"[0-9]+,[0-9,-]*", re.ASCII)
_A = re.compile(r"([tqd])([0-9s][0-9])([di])([0-9]{2})([0-9]{2})([!-^`-~]{2})", re.ASCII)
_LOOKS_JA4 = re.compile(r"[tqd][0-9s][0-9][di][0-9]{4}.{2}_.*", re.ASCII)
_HEX4 = re.compile(r"[0-9a-f]{4}")
_HASH = re.compile(r"[0-9a-f]{12}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_VERSIONS = {"13": 0x0304, "12": 0x0303, "11": 0x0302, "10": 0x0301}
_NO_ALPN = "00"
_TWO = (ExtensionType.SERVER_NAME.value, ExtensionType.ALPN.value)


class TextError(PolytlsError):
    """The text is none that a hello could be made from. The sentence says what is wrong, or needed."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a text says. `form` is its name. None: the text does not say.

    `ordered`: cipher suites and extensions are in wire order; else sorted. `version` is the highest one
    offered; `alpn` the ends of the first protocol's name.
    """

    form: str
    text: str
    ordered: bool
    cipher_suites: tuple[int, ...]
    extensions: tuple[int, ...]
    groups: tuple[int, ...] | None = None
    point_formats: tuple[int, ...] | None = None
    signature_algorithms: tuple[int, ...] | None = None
    version: int | None = None
    alpn: str | None = None


def looks_like_text(text: str) -> bool:
    """Whether a text is meant as a fingerprint, good or not."""
    text = text.strip()
    return bool(_LOOKS_JA3.fullmatch(text) or _LOOKS_JA4.fullmatch(text) or _MD5.fullmatch(text))


def read_text(text: str) -> Told:
    """What a JA3, JA4_r or JA4_ro text says; blanks around it do not count. Raises `TextError`."""
    text = text.strip()
    if len(text) > MAX_TEXT_CHARS:
        raise TextError(f"this text has {len(text)} characters; at most {MAX_TEXT_CHARS} are read")
    if _MD5.fullmatch(text):
        raise TextError("this is a hash, and tells nothing: the JA3 text is needed (771,4865-…)")
    if _LOOKS_JA3.fullmatch(text):
        return _ja3(text)
    if _LOOKS_JA4.fullmatch(text):
        return _ja4(text)
    raise TextError("this is no JA3 text (771,4865-…,…) and no JA4_r text (t13d1516h2_002f,…_…)")


def _ja3(text: str) -> Told:
    fields = text.split(",")
    if len(fields) != 1 + _JA3_LISTS:
        raise TextError(f"a JA3 text has five parts, separated by commas; this has {len(fields)}")
    if fields[0] != str(_TLS12):
        raise TextError(
            f"it says version {fields[0][:8]}; the engine sends {_TLS12} (TLS 1.2), as clients do today"
        )
    what = ("cipher suite", "extension", "group", "point format")
    ciphers, extensions, groups, points = (
        _decimals(part, name, 0xFF if name == "point format" else 0xFFFF)
        for part, name in zip(fields[1:], what, strict=True)
    )
    for values, extension, name in (
        (groups, ExtensionType.SUPPORTED_GROUPS, "groups"),
        (points, ExtensionType.EC_POINT_FORMATS, "point formats"),
    ):
        if bool(values) != (extension.value in extensions):
            missing = f"no {name}" if not values else f"no extension {extension.value} for its {name}"
            raise TextError(f"it has {missing}: both are in a hello, or neither")
    _check(ciphers, extensions)
    return Told("JA3", text, True, ciphers, extensions, groups, points)


def _ja4(text: str) -> Told:
    first, *parts = text.split("_")
    found = _A.fullmatch(first)
    if found is None:
        raise TextError("its first part is not that of a JA4 (t13d1516h2)")
    transport, version, sni, cipher_count, extension_count, alpn = found.groups()
    if transport != "t":
        raise TextError("it is of QUIC or DTLS; the engine speaks TLS over TCP (t)")
    if version not in _VERSIONS:
        raise TextError(f"it says version {version}; the engine offers 10 to 13")
    if len(parts) == 2 and all(_HASH.fullmatch(part) for part in parts):
        raise TextError("this is a hash, and tells nothing: the raw form, JA4_r or JA4_ro, is needed")
    if len(parts) not in (2, 3):
        raise TextError(
            f"a raw JA4 has three or four parts, separated by underscores; this has {1 + len(parts)}"
        )
    ciphers, extensions = (_hexadecimals(part) for part in parts[:2])
    schemes = _hexadecimals(parts[2]) if len(parts) == 3 else ()
    if len(parts) == 3 and not schemes:
        raise TextError("it has an underscore and no signature algorithms behind it")
    _check_count("cipher suites", int(cipher_count), len(ciphers))
    ordered, extensions = _all_extensions(extensions, ciphers, int(extension_count), sni == "d", alpn)
    if bool(schemes) != (ExtensionType.SIGNATURE_ALGORITHMS.value in extensions):
        raise TextError("it has signature algorithms or their extension, 000d, but not both")
    if version == "13" and ExtensionType.SUPPORTED_VERSIONS.value not in extensions:
        raise TextError("it says TLS 1.3 without supported_versions, 002b, which alone can offer it")
    _check(ciphers, extensions)
    form = "JA4_ro" if ordered else "JA4_r"
    return Told(
        form,
        text,
        ordered,
        ciphers,
        extensions,
        signature_algorithms=schemes if schemes else None,
        version=_VERSIONS[version],
        alpn=None if alpn == _NO_ALPN else alpn,
    )


def _all_extensions(
    listed: tuple[int, ...], ciphers: tuple[int, ...], count: int, named: bool, alpn: str
) -> tuple[bool, tuple[int, ...]]:
    """Whether the lists are in wire order, and the extensions with the two that sorted lists leave out."""
    in_a = tuple(number for number, there in zip(_TWO, (named, alpn != _NO_ALPN), strict=True) if there)
    if any(number in listed for number in _TWO):
        if {number for number in _TWO if number in listed} != set(in_a):
            raise TextError("its first part and its list disagree about server_name (0000) or ALPN (0010)")
        _check_count("extensions", count, len(listed))
        return True, listed
    _check_count("extensions", count, len(listed) + len(in_a))
    is_sorted = list(listed) == sorted(listed) and list(ciphers) == sorted(ciphers)
    if not is_sorted and in_a:
        raise TextError("its lists are not sorted, and lack server_name (0000) or ALPN (0010) all the same")
    return not is_sorted, (*in_a, *listed)


def _check(ciphers: tuple[int, ...], extensions: tuple[int, ...]) -> None:
    if not ciphers:
        raise TextError("it names no cipher suite")
    if ExtensionType.COOKIE.value in extensions:
        raise TextError(
            "it is of a hello that answers a HelloRetryRequest (cookie, 44); a first one is needed"
        )
    if len(set(extensions)) != len(extensions):
        raise TextError("it names an extension twice, which no server accepts (RFC 8446 §4.2)")


def _check_count(what: str, said: int, listed: int) -> None:
    if said != min(listed, MAX_COUNT):
        raise TextError(f"its first part says {said} {what}, and there are {listed}")


def _decimals(part: str, what: str, most: int) -> tuple[int, ...]:
    return _numbers(part.split("-") if part else [], what, most, _NUMBER, 10)


def _hexadecimals(part: str) -> tuple[int, ...]:
    return _numbers(part.split(",") if part else [], "number", 0xFFFF, _HEX4, 16)


def _numbers(words: list[str], what: str, most: int, form: re.Pattern[str], base: int) -> tuple[int, ...]:
    if len(words) > MAX_ITEMS:
        raise TextError(f"it has {len(words)} items in one list; at most {MAX_ITEMS} are read")
    numbers = []
    for word in words:
        number = int(word, base) if form.fullmatch(word) else most + 1
        if number > most:
            raise TextError(f"{word[:16]!a} is no {what}")
        if most > 0xFF and is_grease(number):
            raise TextError(f"{word!a} is a GREASE value; these texts are without")
        numbers.append(number)
    return tuple(numbers)
