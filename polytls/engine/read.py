"""How completions read: one function for each kind of success, from the native struct to a plain value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polytls.engine._native import ffi, lib
from polytls.engine.facts import Accepted, Connected, HelloFacts, RelayFacts, SocketAddress, TlsFacts
from polytls.engine.failures import status_name
from polytls.engine.stream import Stream
from polytls.errors import Side

if TYPE_CHECKING:
    from polytls.engine._native import CData
    from polytls.engine.core import Engine


def nothing(_completion: CData) -> None:
    return None


def data(completion: CData) -> bytes:
    """A copy of what a completion carries."""
    size = completion.data_len
    return ffi.buffer(completion.data, size)[:] if size else b""


def accepted(completion: CData, engine: Engine) -> Accepted:
    status = completion.status
    return Accepted(
        Stream(engine, completion.stream, Side.CLIENT),
        ffi.string(completion.peer).decode("ascii"),
        data(completion),
        status_name(status) if status else None,
        completion.started_ns,
        completion.ended_ns,
    )


def connected(completion: CData, engine: Engine, addresses: Sequence[SocketAddress]) -> Connected:
    return Connected(
        Stream(engine, completion.stream, Side.UPSTREAM),
        addresses[completion.address_index],
        completion.started_ns,
        completion.ended_ns,
    )


def hello(completion: CData) -> HelloFacts:
    carried = data(completion)
    sni_end = completion.sni_len
    alpn_end = sni_end + completion.alpn_len
    return HelloFacts(
        carried[:sni_end] if completion.has_sni else None,
        _names(carried[sni_end:alpn_end]) if completion.has_alpn else None,
        completion.version,
        bool(completion.ecdsa_ok),
        completion.bytes_out,
        carried[alpn_end:] or None,
        completion.started_ns,
        completion.ended_ns,
    )


def _names(wire: bytes) -> tuple[bytes, ...]:
    names = []
    at = 0
    while at < len(wire):  # the engine has checked that the list is well-formed
        end = at + 1 + wire[at]
        names.append(wire[at + 1 : end])
        at = end
    return tuple(names)


def split_hello(completion: CData) -> tuple[bytes, bytes | None]:
    """Of a TLS handshake's completion: what it says, and the ClientHello that was sent, if it has that."""
    carried, sent = data(completion), completion.bytes_out
    return (carried[:-sent], carried[-sent:]) if sent else (carried, None)


def tls(completion: CData) -> TlsFacts:
    protocol, sent = split_hello(completion)
    return TlsFacts(
        completion.version,
        completion.cipher,
        completion.group,
        completion.sigalg,
        protocol or None,
        bool(completion.resumed),
        bool(completion.retried),
        bool(completion.ech_accepted),
        completion.started_ns,
        completion.ended_ns,
        sent,
    )


def relayed(completion: CData) -> RelayFacts:
    failed = completion.status != lib.PTL_OK
    return RelayFacts(
        completion.bytes_out,
        completion.bytes_in,
        bool(completion.truncated),
        status_name(completion.status) if failed else None,
        failed and completion.side != lib.PTL_SIDE_OTHER,
        data(completion).decode("utf-8", errors="replace"),
        completion.first_byte_ns,
        completion.started_ns,
        completion.ended_ns,
    )
