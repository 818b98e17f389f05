"""`ExactHello`: one client's ClientHello as it stands on the wire, ordered and typed.

Theory of operation
-------------------
A profile by knobs says what BoringSSL should be ready for and leaves the writing to it. An exact profile
says what is written: every list in its order, every extension in its place. What is fresh in every real
hello is not in it: random, session id, public keys, the values of GREASE, the contents of ECH. The server's
name, the ALPN protocols a tunnel offers, sessions and cookies are put in for each connection; the hello
only has their place.

The values are what `polytls.profiles.template` compiles for the native engine, what
`polytls.profiles.exact_toml` reads and writes, and what `polytls.profiles.learn` finds in captures.

GREASE is one constant, `GREASE`, in whatever list it occurs. Which of a real hello's GREASE values are equal
follows from where they are: one value for the cipher suites, one for the groups and the key shares
together, one for each of two extensions, one for the versions, one for the signature algorithms.

`check` holds what the engine needs to keep a handshake correct; it mirrors the native parser, so that what
passes here is accepted there, and a mistake is told with its key rather than with an offset.

Left out, since BoringSSL decides them: legacy_version (0x0303), the session id (32 bytes where TLS 1.3 is
offered, else none), padding and pre_shared_key (last, when they are needed), early_data (never sent).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from polytls.profiles.boringssl import GROUPS
from polytls.wire.iana import ExtensionType, extension_name

GREASE = 0x0A0A
"""Stands for whatever value RFC 8701 §2 has drawn."""

MAX_ENTRIES = 255
"""The engine counts entries in one byte; real hellos have about twenty."""

MAX_BODIES_BYTES = 1 << 14
"""Of all bodies together: a hello has to fit one record (RFC 8446 §5.1); real ones are far below."""

MAX_GREASE_IN_LIST = 8
"""Clients put one or two; the template counts the bytes of a body's patches in one byte."""

MAX_GREASE_EXTENSIONS = 2
"""BoringSSL writes two, and no client more: there are two slots for them."""

TLS13 = 0x0304

HYBRIDS = (0x11EC, 0x6399)
"""Groups whose share holds an X25519 key beside one of ML-KEM or Kyber."""

X25519 = 0x001D

BUILTIN = frozenset(
    {
        ExtensionType.SERVER_NAME.value,
        ExtensionType.ALPN.value,
        ExtensionType.APPLICATION_SETTINGS.value,
        ExtensionType.APPLICATION_SETTINGS_OLD.value,
        ExtensionType.SESSION_TICKET.value,
        ExtensionType.RENEGOTIATION_INFO.value,
        ExtensionType.KEY_SHARE.value,
        ExtensionType.COOKIE.value,
        ExtensionType.ENCRYPTED_CLIENT_HELLO.value,
    }
)
"""Extensions whose bodies BoringSSL writes: they depend on the connection."""

_TYPED = frozenset(
    {
        ExtensionType.SUPPORTED_GROUPS.value,
        ExtensionType.SIGNATURE_ALGORITHMS.value,
        ExtensionType.SUPPORTED_VERSIONS.value,
    }
)
"""What BoringSSL will accept of a server comes out of these lists, so they have to be lists."""

NEVER_ENTRIES = {
    ExtensionType.PADDING.value: 'written last where it is needed; allowed: the key "padding" of hello',
    ExtensionType.PRE_SHARED_KEY.value: "written last where a session is resumed; allowed: to leave it out",
    ExtensionType.EARLY_DATA.value: "never sent: the proxy has no early data; allowed: to leave it out",
}


class Padding(Enum):
    """When the padding extension (RFC 7685) lifts a hello of 256 to 511 bytes to 512.

    BORINGSSL: the first hello, with at least one byte of padding. OPENSSL: the hello after a
    HelloRetryRequest as well, and an empty extension where four bytes or less are left.
    """

    NONE = "none"
    BORINGSSL = "boringssl"
    OPENSSL = "openssl"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of wire numbers in order, `GREASE` among them."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Protocols:
    """Protocol names, ASCII, most wanted first (ALPN and ALPS)."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Trust anchor identifiers as on the wire, in order (draft-ietf-tls-trust-anchor-ids)."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """The body of record_size_limit, in bytes (RFC 8449 §4)."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Ech:
    """The shape of a GREASE encrypted_client_hello (draft-ietf-tls-esni §6.2).

    One of `aeads` (HPKE numbers) and one of `payloads` (bytes, tag included) is drawn for each connection.
    With a PSK the payload grows by the length of pre_shared_key, rounded up to `psk_step` bytes; 0: it does
    not.
    """

    aeads: tuple[int, ...]
    payloads: tuple[int, ...]
    psk_step: int = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """A body that is the same every time; also the empty one of an extension that BoringSSL writes."""

    data: bytes = b""


Body = Numbers | Protocols | Anchors | Limit | Ech | Raw


@dataclass(frozen=True, slots=True)
class Entry:
    """One extension in its place. `type` is `GREASE` for one of the (at most two) GREASE extensions.

    `fixed`: keeps its place where the rest is permuted. `full_only`: left out where a session is resumed.
    """

    type: int
    body: Body = Raw()
    fixed: bool = False
    full_only: bool = False


@dataclass(frozen=True, slots=True)
class ExactHello:
    """One ClientHello. Tuples are in wire order; numbers are the wire's."""

    cipher_suites: tuple[int, ...]
    extensions: tuple[Entry, ...]
    record_version: int = 0x0301
    compression_methods: tuple[int, ...] = (0,)
    permute: bool = False
    """A new order for every connection, of what is not `fixed`; a retried hello keeps its order."""
    padding: Padding = Padding.NONE
    reuse_x25519: bool = False
    """The X25519 share holds the same public key as the hybrid one (NSS)."""
    new_shares_on_cookie: bool = False
    """A HelloRetryRequest with nothing but a cookie is answered with new key shares (Java)."""
    late_change_cipher_spec: bool = False
    """After a HelloRetryRequest the ChangeCipherSpec comes not before the second hello but before what is
    encrypted (GnuTLS, Java)."""
    keep_session_id: bool = False
    """A TLS 1.3 session is offered with the session id of the handshake it comes from (GnuTLS)."""

    def entry(self, extension_type: int) -> Entry | None:
        """The entry of this type, None where there is none."""
        for entry in self.extensions:
            if entry.type == extension_type:
                return entry
        return None

    def numbers(self, extension_type: int) -> tuple[int, ...]:
        """The list of this extension, GREASE included; empty where it is absent or not a list."""
        entry = self.entry(extension_type)
        return entry.body.values if entry is not None and isinstance(entry.body, Numbers) else ()

    def protocols(self, extension_type: int) -> tuple[str, ...]:
        """The protocol names of this extension; empty where it is absent."""
        entry = self.entry(extension_type)
        return entry.body.names if entry is not None and isinstance(entry.body, Protocols) else ()

    @property
    def ech(self) -> Ech | None:
        """The shape of the GREASE ECH; None where there is no such extension."""
        entry = self.entry(ExtensionType.ENCRYPTED_CLIENT_HELLO)
        return entry.body if entry is not None and isinstance(entry.body, Ech) else None

    @property
    def grease(self) -> bool:
        """Whether any list or extension has a GREASE value."""
        return (
            GREASE in self.cipher_suites
            or any(entry.type == GREASE for entry in self.extensions)
            or any(
                isinstance(entry.body, Numbers) and GREASE in entry.body.values for entry in self.extensions
            )
        )


class InexactError(Exception):
    """The hello could not be kept correct. `key` is the key of ``[hello]`` at fault, `position` the entry's
    index in `extensions` where it is one; `str()` is the problem."""

    def __init__(self, key: str, problem: str, position: int | None = None) -> None:
        super().__init__(problem)
        self.key = key
        self.position = position


def check(hello: ExactHello) -> None:
    """Raise `InexactError` for the first thing that the engine could not write or honour."""
    if not hello.cipher_suites:
        raise InexactError("cipher_suites", "is empty; allowed: at least one cipher suite")
    if 0 not in hello.compression_methods:
        problem = 'has no "null"; allowed: any list with it, as no other method is ever used'
        raise InexactError("compression_methods", problem)
    if len(hello.extensions) > MAX_ENTRIES:
        raise InexactError(
            "extensions", f"has {len(hello.extensions)} entries; allowed: at most {MAX_ENTRIES}"
        )
    size = sum(len(entry.body.data) for entry in hello.extensions if isinstance(entry.body, Raw))
    if size > MAX_BODIES_BYTES:
        raise InexactError("extensions", f"has {size} bytes of bodies; allowed: at most {MAX_BODIES_BYTES}")
    if hello.cipher_suites.count(GREASE) > MAX_GREASE_IN_LIST:
        raise InexactError("cipher_suites", f"has GREASE too often; allowed: {MAX_GREASE_IN_LIST} times")
    _check_entries(hello.extensions)
    _check_versions(hello)
    _check_shares(hello)
    _check_alps(hello)


def _check_entries(entries: tuple[Entry, ...]) -> None:
    seen: set[int] = set()
    grease = 0
    for position, entry in enumerate(entries):
        if entry.type == GREASE:
            grease += 1
            if grease > MAX_GREASE_EXTENSIONS:
                problem = f"is a third GREASE extension; allowed: at most {MAX_GREASE_EXTENSIONS}"
                raise InexactError("extensions", problem, position)
        elif entry.type in seen:
            problem = f"{extension_name(entry.type)} is there twice; allowed: each extension once"
            raise InexactError("extensions", problem, position)
        seen.add(entry.type)
        _check_entry(position, entry)


def _check_entry(position: int, entry: Entry) -> None:
    name = extension_name(entry.type)
    if entry.type in NEVER_ENTRIES:
        raise InexactError("extensions", f"{name} is {NEVER_ENTRIES[entry.type]}", position)
    if entry.full_only and entry.type != ExtensionType.SESSION_TICKET:
        problem = f"full_only is for session_ticket, not for {name}; allowed: false"
        raise InexactError("extensions", problem, position)
    if isinstance(entry.body, Raw) and entry.body.data and entry.type in BUILTIN:
        problem = f"the body of {name} is written for each connection; allowed: no body"
        raise InexactError("extensions", problem, position)
    if entry.type in _TYPED and not isinstance(entry.body, Numbers):
        raise InexactError(
            "extensions", f"the body of {name} is malformed; allowed: a list of names", position
        )
    if isinstance(entry.body, Numbers) and entry.body.values.count(GREASE) > MAX_GREASE_IN_LIST:
        problem = f"{name} has GREASE too often; allowed: {MAX_GREASE_IN_LIST} times"
        raise InexactError("extensions", problem, position)
    ech = entry.body
    if isinstance(ech, Ech) and not (ech.aeads and ech.payloads):
        problem = "encrypted_client_hello has no AEAD or no payload length; allowed: at least one of each"
        raise InexactError("extensions", problem, position)


def _check_versions(hello: ExactHello) -> None:
    """RFC 8446 §9.2: what a hello that offers TLS 1.3 has to have."""
    entry = hello.entry(ExtensionType.SUPPORTED_VERSIONS)
    if entry is None:
        return
    versions = [value for value in hello.numbers(ExtensionType.SUPPORTED_VERSIONS) if value != GREASE]
    if not any(0x0301 <= version <= TLS13 for version in versions):
        problem = "supported_versions names no version; allowed: at least one of TLS1.0 to TLS1.3"
        raise InexactError("extensions", problem, hello.extensions.index(entry))
    if TLS13 not in versions:
        return
    for needed in (
        ExtensionType.SUPPORTED_GROUPS,
        ExtensionType.SIGNATURE_ALGORITHMS,
        ExtensionType.KEY_SHARE,
    ):
        if hello.entry(needed) is None:
            problem = (
                f"has TLS1.3 in supported_versions but no {extension_name(needed)}; allowed: both or neither"
            )
            raise InexactError("extensions", problem)


def _check_shares(hello: ExactHello) -> None:
    entry = hello.entry(ExtensionType.KEY_SHARE)
    shares = hello.numbers(ExtensionType.KEY_SHARE)
    if entry is not None:
        position = hello.extensions.index(entry)
        groups = hello.numbers(ExtensionType.SUPPORTED_GROUPS)
        known = {group.id: group.name for group in GROUPS.entries}
        for share in shares:
            if share != GREASE and share not in known:
                problem = f"no key share can be made for {share:#06x}; allowed: {', '.join(known.values())}"
                raise InexactError("extensions", problem, position)
            if share not in groups:
                problem = (
                    "has a key share of a group that supported_groups lacks; allowed: groups of that list"
                )
                raise InexactError("extensions", problem, position)
        if len(set(shares)) != len(shares):
            raise InexactError("extensions", "has a key share twice; allowed: each group once", position)
    if hello.reuse_x25519 and not (X25519 in shares and any(hybrid in shares for hybrid in HYBRIDS)):
        problem = "is true without a share of x25519 and of a hybrid group; allowed: false"
        raise InexactError("reuse_x25519", problem)


def _check_alps(hello: ExactHello) -> None:
    """ALPS is negotiated for the protocol that ALPN chooses (draft-vvv-tls-alps §4), under one code point."""
    both = [
        hello.entry(alps)
        for alps in (ExtensionType.APPLICATION_SETTINGS, ExtensionType.APPLICATION_SETTINGS_OLD)
    ]
    if both[0] is not None and both[1] is not None:
        raise InexactError("extensions", "has both code points of ALPS; allowed: one of them")
    for alps in (ExtensionType.APPLICATION_SETTINGS, ExtensionType.APPLICATION_SETTINGS_OLD):
        entry = hello.entry(alps)
        if entry is not None and not set(hello.protocols(alps)) <= set(hello.protocols(ExtensionType.ALPN)):
            problem = f"{extension_name(alps)} names a protocol that alpn lacks; allowed: some of alpn's"
            raise InexactError("extensions", problem, hello.extensions.index(entry))
