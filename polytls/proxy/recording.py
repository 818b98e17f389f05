"""What the engine's facts say in a tunnel's record: nanoseconds to seconds, numbers to IANA's names, and how
a relay ended to the words of `errors.Kind`. Computes, and writes into one record; decides nothing.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.events import TlsRecord, TunnelRecord
from polytls.wire.iana import cipher_suite_name, group_name, version_name

if TYPE_CHECKING:
    from polytls.engine import Connected, HelloFacts, RelayFacts, SocketAddress, TlsFacts
    from polytls.fingerprint.known import KnownJa4
    from polytls.proxy.tracker import Tunnel

_NS = 1e-9
_REMEMBERED = 1024  # what handshakes agree on: a handful, whoever connects

# How a relay ended (status names of native.h) -> the kind where the client's end did, and upstream's.
_RELAY_KINDS = MappingProxyType(
    {
        "reset": (Kind.CLIENT_RESET, Kind.UPSTREAM_RESET),
        "closed": (Kind.CLIENT_RESET, Kind.UPSTREAM_RESET),  # gone while there was something to write to it
        "io": (Kind.CLIENT_RESET, Kind.UPSTREAM_RESET),
        "timeout": (Kind.CLIENT_RESET, Kind.UPSTREAM_RESET),  # of the 200 before it: it was not taken
        "tls": (Kind.RELAY_TLS_ERROR, Kind.RELAY_TLS_ERROR),
        "alert": (Kind.RELAY_TLS_ERROR, Kind.RELAY_TLS_ERROR),
    }
)
# And how it did where it was neither end's doing.
_OURS = MappingProxyType(
    {
        "idle": (Kind.IDLE_TIMEOUT, "no byte was moved for the idle time"),
        "lifetime": (Kind.LIFETIME, "the tunnel reached its longest lifetime"),
        "nomem": (Kind.OUT_OF_MEMORY, "the proxy has no memory left for this tunnel"),
    }
)


def connected(record: TunnelRecord, facts: Connected) -> None:
    record.upstream = _text(facts.address)
    if record.starts is not None:
        record.starts.connect = facts.started_ns
    record.timings.connect = (facts.ended_ns - facts.started_ns) * _NS


def hello(record: TunnelRecord, facts: HelloFacts) -> None:
    if facts.sni is not None:
        sni = facts.sni.decode("ascii", "backslashreplace")
        record.sni = record.host if sni == record.host else sni  # one text, for as long as the tunnel lives
    if record.starts is not None:
        record.starts.hello = facts.started_ns
    record.timings.hello = (facts.ended_ns - facts.started_ns) * _NS


def upstream_tls(record: TunnelRecord, facts: TlsFacts) -> None:
    record.upstream_tls = _tls(facts)
    if record.starts is not None:
        record.starts.upstream_handshake = facts.started_ns
    record.timings.upstream_handshake = (facts.ended_ns - facts.started_ns) * _NS


def upstream_hello(record: TunnelRecord, sent: bytes | None, known: KnownJa4 | None) -> None:
    """What upstream was sent, byte for byte: with this tunnel's SNI, ALPN, padding and session."""
    if known is not None and sent is not None:
        record.upstream_ja4 = known.of(sent)


def client_tls(record: TunnelRecord, facts: TlsFacts) -> None:
    record.client_tls = _tls(facts)
    if record.starts is not None:
        record.starts.client_handshake = facts.started_ns
    record.timings.client_handshake = (facts.ended_ns - facts.started_ns) * _NS


def relayed(tunnel: Tunnel, facts: RelayFacts) -> None:
    """The relay is over: what it moved, and what it ended in if not in order."""
    record = tunnel.record
    record.bytes_up, record.bytes_down = facts.bytes_up, facts.bytes_down
    record.truncated = facts.truncated
    if record.starts is not None:
        record.starts.relay = facts.started_ns
    record.timings.relay = (facts.ended_ns - facts.started_ns) * _NS
    if facts.first_byte_ns:
        record.timings.first_byte = (facts.first_byte_ns - facts.started_ns) * _NS
    if facts.failure is not None:
        tunnel.fail(_relay_failure(tunnel, facts.failure, facts))


def _relay_failure(tunnel: Tunnel, failure: str, facts: RelayFacts) -> ProxyError:
    if failure in ("cancelled", "shutdown"):
        return tunnel.cut_short()
    if failure in _OURS:
        kind, detail = _OURS[failure]
        return ProxyError(Side.PROXY, Stage.RELAY, kind, detail)
    side = Side.CLIENT if facts.failed_client else Side.UPSTREAM
    kinds = _RELAY_KINDS.get(failure, (Kind.INTERNAL, Kind.INTERNAL))
    who = "the client" if side is Side.CLIENT else "upstream"
    detail = f"the relay was ended by {who} ({facts.detail or failure})"
    return ProxyError(side, Stage.RELAY, kinds[not facts.failed_client], detail)


@lru_cache(_REMEMBERED)
def _text(address: SocketAddress) -> str:
    return str(address)


def _tls(facts: TlsFacts) -> TlsRecord:
    return _named(facts.version, facts.cipher, facts.group, facts.alpn, facts.resumed)


@lru_cache(_REMEMBERED)
def _named(version: int, cipher: int, group: int, alpn: bytes | None, resumed: bool) -> TlsRecord:
    return TlsRecord(
        version=version_name(version).replace(" ", ""),
        cipher=cipher_suite_name(cipher),
        group=group_name(group) if group else "none",  # 0: a TLS 1.2 RSA key exchange
        alpn=None if alpn is None else alpn.decode("ascii", "backslashreplace"),
        resumed=resumed,
    )
