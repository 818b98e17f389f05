"""What handshakes share: trusted roots, the context of a profile, the context for clients, credentials.

Each object owns one native object and gives it up when it is garbage-collected; operations under way hold
references of their own. All are immutable and may be shared between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from polytls.engine import decompress
from polytls.engine._native import ffi, lib
from polytls.errors import EngineError

if TYPE_CHECKING:
    from polytls.engine._native import CData
    from polytls.profiles.spec import HelloSpec

_ERROR_BYTES = 256
_REMEMBERED_LISTS = 1024  # of protocols: the same few come again and again

VERIFIED_CHAIN_SECONDS = 60
"""How long a chain that verified is taken as verified: long enough for a page and its tests, short enough
that a certificate's expiry is noticed."""
VERIFIED_CHAINS_MAX = 4096
"""32 bytes and some bookkeeping each."""


def _made(native: CData, error: CData) -> CData:
    if native == ffi.NULL:
        raise EngineError(ffi.string(error).decode(errors="replace"))
    return native


def _owned(native: CData, free: Callable[[CData], None], error: CData) -> CData:
    return ffi.gc(_made(native, error), free)


def _byte_arrays(items: Sequence[bytes]) -> tuple[CData, CData, list[CData]]:
    """(array of pointers, array of lengths, what must stay alive while they are used)."""
    held = [ffi.from_buffer(item) for item in items]
    pointers = ffi.new("const uint8_t *[]", [_pointer(item) for item in held])
    lengths = ffi.new("size_t[]", [len(item) for item in items])
    return pointers, lengths, held


def _pointer(buffer: CData) -> CData:
    return ffi.cast("const uint8_t *", buffer)


class Trust:
    """Roots that upstream chains must lead to."""

    __slots__ = ("native", "num_roots")

    def __init__(self, certificates: Sequence[bytes]) -> None:
        """`certificates`: DER. Those that do not parse are left out (`num_roots` counts the rest): system
        bundles hold some that a strict parser refuses, and a missing root only ever verifies less."""
        pointers, lengths, held = _byte_arrays(certificates)
        error = ffi.new("char[]", _ERROR_BYTES)
        added = ffi.new("size_t *")
        native = lib.ptl_trust_new(
            pointers,
            lengths,
            len(held),
            VERIFIED_CHAIN_SECONDS * 1000,
            VERIFIED_CHAINS_MAX,
            added,
            error,
            _ERROR_BYTES,
        )
        self.native = _owned(native, lib.ptl_trust_free, error)
        self.num_roots = int(added[0])


class Credential:
    """A certificate chain (DER, leaf first) with its private key (PKCS#8 DER). No repr of the key."""

    __slots__ = ("native",)

    def __init__(self, chain_der: Sequence[bytes], key_der: bytes) -> None:
        """Raises EngineError when the key cannot be parsed or does not match the chain."""
        pointers, lengths, held = _byte_arrays(chain_der)
        error = ffi.new("char[]", _ERROR_BYTES)
        key = _pointer(ffi.from_buffer(key_der))
        native = lib.ptl_credential_new(pointers, lengths, len(held), key, len(key_der), error, _ERROR_BYTES)
        self.native = _made(native, error)

    def __del__(self, free: Callable[[CData], None] = lib.ptl_credential_free) -> None:
        """There is one for each host that was ever seen: a third of what `ffi.gc` would take."""
        if hasattr(self, "native"):
            free(self.native)


class ServerContext:
    """What all client handshakes share."""

    __slots__ = ("native",)

    def __init__(self) -> None:
        error = ffi.new("char[]", _ERROR_BYTES)
        native = lib.ptl_server_context_new(error, _ERROR_BYTES)
        self.native = _owned(native, lib.ptl_server_context_free, error)


class ClientContext:
    """What all upstream handshakes of one profile share.

    Raises EngineError for a `hello` that BoringSSL cannot offer: the sentence says which part.
    """

    __slots__ = ("native",)

    def __init__(
        self, hello: HelloSpec, trust: Trust | None, *, verify_chain: bool, verify_host: bool
    ) -> None:
        decompress.install()
        native_hello, held = _native_hello(hello)
        verify = (lib.PTL_VERIFY_CHAIN if verify_chain else 0) | (
            lib.PTL_VERIFY_HOST if verify_chain and verify_host else 0
        )
        error = ffi.new("char[]", _ERROR_BYTES)
        trusted = trust.native if trust is not None else ffi.NULL
        native = lib.ptl_client_context_new(native_hello, trusted, verify, error, _ERROR_BYTES)
        del held  # the engine has copied what it needs
        if native == ffi.NULL:
            raise EngineError(f"profile {hello.name}: {ffi.string(error).decode(errors='replace')}")
        self.native = ffi.gc(native, lib.ptl_client_context_free)


@lru_cache(_REMEMBERED_LISTS)
def wire_list(names: tuple[bytes, ...]) -> bytes:
    """Protocol names in wire form: a length byte before each (RFC 7301 §3.1). ValueError for a name that is
    empty or longer than 255 bytes."""
    for name in names:
        if not 0 < len(name) < 256:
            raise ValueError(f"a protocol name has 1 to 255 bytes, not {len(name)}")
    return b"".join(bytes((len(name),)) + name for name in names)


def _native_hello(spec: HelloSpec) -> tuple[CData, list[CData]]:
    hello = ffi.new("ptl_hello *")
    held: list[CData] = []

    def numbers(values: Sequence[int]) -> CData:
        held.append(ffi.new("uint16_t[]", list(values)))
        return held[-1]

    def text(value: bytes) -> CData:
        held.append(ffi.new("char[]", value))
        return held[-1]

    hello.grease = spec.grease
    hello.permute_extensions = spec.permute_extensions
    hello.ech_grease = spec.ech_grease
    hello.ocsp_stapling = spec.ocsp_stapling
    hello.signed_cert_timestamps = spec.signed_cert_timestamps
    hello.session_tickets = spec.session_tickets
    hello.resumption = spec.resumption
    hello.alps_new_codepoint = spec.alps_new_codepoint
    hello.min_version = spec.min_tls
    hello.max_version = spec.max_tls
    hello.groups, hello.num_groups = numbers(spec.groups), len(spec.groups)
    if spec.key_shares is not None:
        hello.key_shares, hello.num_key_shares = numbers(spec.key_shares), len(spec.key_shares)
    hello.sigalgs, hello.num_sigalgs = numbers(spec.sigalgs), len(spec.sigalgs)
    hello.cipher_list = text(spec.cipher_string.encode("ascii"))
    hello.cert_compression = numbers(spec.cert_compression)
    hello.num_cert_compression = len(spec.cert_compression)
    alps = wire_list(tuple(name.encode("ascii") for name in spec.alps))
    hello.alps, hello.alps_len = _pointer(text(alps)), len(alps)
    if spec.template is not None:
        hello.template_bytes, hello.template_len = _pointer(text(spec.template)), len(spec.template)
    return hello, held
