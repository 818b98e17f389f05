"""`HelloSpec`: what one client offers, as one immutable, hashable value.

A spec is complete: every knob has its value here, whatever a table left to its base. It holds wire ids in
the order they go on the wire, so nothing below it looks up a name. Native contexts are cached by it:
two specs are equal when an origin could not tell them apart, plus the name, because upstream sessions are
kept per profile. Where a spec came from and what it is called in words does not count.

A profile is by knobs or exact. An exact one has a `template`: native code writes the hello from it, byte for
byte, and the other fields only say the same in the knobs' terms (`polytls.profiles.derive`) to whatever asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytls.profiles.boringssl import CIPHERS

if TYPE_CHECKING:
    from polytls.profiles.exact import ExactHello
    from polytls.profiles.http2 import Http2

MAX_NAME_CHARS = 64
"""Names travel in a request header and in log lines; the longest built-in one has 26."""

_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME_CHARS - 1}}}")


def canonical_name(name: str) -> str | None:
    """A profile name as it is stored and looked up: lower case. None where it cannot be a name:
    1 to 64 letters, digits, ``.``, ``_``, ``-``, beginning with a letter or digit, all ASCII."""
    lower = name.lower()
    return lower if name.isascii() and _NAME.fullmatch(lower) else None


@dataclass(frozen=True, slots=True)
class HelloSpec:
    """One client's offer. Field by field what the TOML knobs of `polytls.profiles.knobs` set.

    `alpn` empty: no ALPN extension. `key_shares` None: BoringSSL's choice (the first group, and the first
    of the other sort, post-quantum or not); empty: none are sent, which costs a HelloRetryRequest.
    `cipher_list` holds OpenSSL names of TLS 1.2 suites; the TLS 1.3 suites are BoringSSL's own three.
    `alps` names the protocols of the application_settings extension, under its new code point (0x44cd)
    or the old one (0x4469). `min_tls` and `max_tls` are wire versions, 0x0301 to 0x0304.
    """

    name: str
    grease: bool
    permute_extensions: bool
    alpn: tuple[str, ...]
    groups: tuple[int, ...]
    key_shares: tuple[int, ...] | None
    cipher_list: tuple[str, ...]
    sigalgs: tuple[int, ...]
    ocsp_stapling: bool
    signed_cert_timestamps: bool
    cert_compression: tuple[int, ...]
    min_tls: int
    max_tls: int
    ech_grease: bool
    alps: tuple[str, ...]
    alps_new_codepoint: bool
    session_tickets: bool
    resumption: bool
    template: bytes | None = field(default=None, repr=False)
    exact: ExactHello | None = field(default=None, repr=False, compare=False)
    """What `template` was compiled from; None for a profile by knobs."""
    http2: Http2 | None = field(default=None, compare=False)
    """How the client begins HTTP/2, where it is known; no part of what an origin is shown (`Http2`)."""
    base: str | None = field(default=None, compare=False)
    """The profile whose values were the starting point; None for a built-in, which spells out its own."""
    description: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    """Where it was defined, as errors name it: a file, or ``built-in NAME.toml``."""
    captured_from: str = field(default="", compare=False)
    """The client that an exact profile follows, in words; empty where it is not said."""
    captured_on: str = field(default="", compare=False)
    """When that client was observed: a date, or empty where it is not known."""

    unlike_capture: str = field(default="", compare=False)
    """In what an exact profile is, on purpose, not what it was captured from, and by what source; empty
    where it is the same in all."""

    @property
    def cipher_string(self) -> str:
        """`cipher_list` as BoringSSL's cipher string, which keeps the order."""
        return ":".join(self.cipher_list)

    @property
    def cipher_ids(self) -> tuple[int, ...]:
        """The wire ids of `cipher_list`, in order. KeyError for a name BoringSSL does not have."""
        ids = {entry.name: entry.id for entry in CIPHERS.entries}
        return tuple(ids[name] for name in self.cipher_list)
