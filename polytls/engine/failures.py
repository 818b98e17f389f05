"""What went wrong natively, said in the proxy's words.

The engine reports a status, and with it an errno, an alert or a verification error. What that means depends
on which operation it was and whose stream. This module is that table, and the only place that reads statuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from polytls.engine._native import ffi, lib
from polytls.errors import EchRejectedError, EngineError, Kind, PolytlsError, ProxyError, Side, Stage
from polytls.wire.iana import cipher_suite_name, extension_name, group_name

# X509_V_ERR_* (openssl/x509.h); everything else is CERTIFICATE_INVALID.
_VERIFY_KINDS = {
    2: Kind.CERTIFICATE_UNKNOWN_ROOT,  # UNABLE_TO_GET_ISSUER_CERT
    9: Kind.CERTIFICATE_NOT_YET_VALID,
    10: Kind.CERTIFICATE_EXPIRED,
    18: Kind.CERTIFICATE_SELF_SIGNED,  # DEPTH_ZERO_SELF_SIGNED_CERT
    19: Kind.CERTIFICATE_UNKNOWN_ROOT,  # SELF_SIGNED_CERT_IN_CHAIN: a root came along that is not ours
    20: Kind.CERTIFICATE_UNKNOWN_ROOT,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: Kind.CERTIFICATE_UNKNOWN_ROOT,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
    26: Kind.CERTIFICATE_WRONG_USAGE,  # INVALID_PURPOSE
    62: Kind.CERTIFICATE_WRONG_HOST,  # HOSTNAME_MISMATCH
    64: Kind.CERTIFICATE_WRONG_HOST,  # IP_ADDRESS_MISMATCH
}

# RFC 8446 §6: the alerts by which a client says that it does not like our certificate.
_CERTIFICATE_ALERTS = frozenset({42, 43, 44, 45, 46, 48})
_ALERT_PROTOCOL_VERSION = 70

_CHOICE = re.compile(r"(cipher suite|group) 0x([0-9a-f]{4})")
_ANSWER = re.compile(r"extension ([0-9]{1,5})")

_HANG_UPS = frozenset({lib.PTL_E_CLOSED, lib.PTL_E_RESET, lib.PTL_E_IO})
_OUR_MISTAKES = frozenset({lib.PTL_E_STALE, lib.PTL_E_BUSY, lib.PTL_E_INVALID})

_RAISE_FILES = (
    "the proxy has no socket left to reach upstream with: raise its limit of open files (ulimit -Hn,"
    " LimitNOFILE), start more --workers, or lower limits.tunnels"
)
_INSTALL_ROOT = "the client does not trust the root CA: install it there (`polytls ca export` writes it)"


def status_name(status: int) -> str:
    """The engine's name of a status, such as "timeout"."""
    return ffi.string(lib.ptl_status_name(status)).decode()


@dataclass(frozen=True, slots=True)
class Failure:
    """The part of a failed completion that says why."""

    kind: int  # PTL_OP_*
    status: int  # PTL_E_*
    alert: int
    verify_error: int
    flight_sent: bool
    data: bytes

    @property
    def detail(self) -> str:
        """The engine's sentence about it."""
        return self.data.decode("utf-8", errors="replace")


def error_of(failure: Failure, side: Side) -> PolytlsError:
    """The error that an operation on `side`'s stream raises: a ProxyError, or an EngineError where the
    engine was used wrongly."""
    status = failure.status
    if status in _OUR_MISTAKES:
        return EngineError(f"operation {failure.kind}: {status_name(status)}: {failure.detail}")
    stage = _stage(failure.kind, side)
    if status == lib.PTL_E_CANCELLED:
        return ProxyError(Side.PROXY, stage, Kind.CANCELLED, "the operation was cancelled")
    if status == lib.PTL_E_SHUTDOWN:
        return ProxyError(Side.PROXY, stage, Kind.CANCELLED, "the proxy is stopping")
    if status == lib.PTL_E_NOMEM:
        return ProxyError(
            Side.PROXY, stage, Kind.OUT_OF_MEMORY, "the proxy has no memory left for this tunnel"
        )
    if status == lib.PTL_E_NO_SOCKET:
        return ProxyError(Side.PROXY, stage, Kind.OUT_OF_SOCKETS, f"{_RAISE_FILES} ({failure.detail})")
    if failure.kind == lib.PTL_OP_CONNECT:
        return _connect_error(failure)
    if failure.kind == lib.PTL_OP_CONNECT_TLS:
        return _upstream_tls_error(failure)
    if failure.kind == lib.PTL_OP_ACCEPT_TLS:
        return _client_tls_error(failure)
    if failure.kind == lib.PTL_OP_PEEK_HELLO:
        return _hello_error(failure)
    return _io_error(failure, side, stage)


def _stage(kind: int, side: Side) -> Stage:
    stages = {
        lib.PTL_OP_CONNECT: Stage.CONNECT,
        lib.PTL_OP_CONNECT_TLS: Stage.UPSTREAM_TLS,
        lib.PTL_OP_ACCEPT_TLS: Stage.CLIENT_TLS,
        lib.PTL_OP_PEEK_HELLO: Stage.HELLO,
        lib.PTL_OP_RELAY: Stage.RELAY,
    }
    return stages.get(kind, Stage.HEAD if side is Side.CLIENT else Stage.CONNECT)


def _connect_error(failure: Failure) -> ProxyError:
    match failure.status:
        case lib.PTL_E_RESET:  # of the client: native.h, PTL_OP_CONNECT
            detail = "the client went away while upstream was being dialled"
            return ProxyError(Side.CLIENT, Stage.CONNECT, Kind.CLIENT_CLOSED, detail)
        case lib.PTL_E_REFUSED:
            kind, what = Kind.CONNECT_REFUSED, "upstream refused the connection"
        case lib.PTL_E_TIMEOUT:
            kind, what = Kind.CONNECT_TIMEOUT, "upstream did not answer in time"
        case _:
            kind, what = Kind.CONNECT_UNREACHABLE, "upstream cannot be reached"
    return ProxyError(Side.UPSTREAM, Stage.CONNECT, kind, f"{what} ({failure.detail})")


def _hello_error(failure: Failure) -> ProxyError:
    match failure.status:
        case lib.PTL_E_NOT_TLS:
            kind, detail = Kind.NOT_TLS, "the client does not begin with a TLS handshake"
        case lib.PTL_E_MALFORMED:
            kind, detail = Kind.HELLO_MALFORMED, "the client's first message is no well-formed ClientHello"
        case lib.PTL_E_TOO_LARGE:
            kind, detail = Kind.HELLO_TOO_LARGE, "the client's ClientHello is larger than allowed"
        case lib.PTL_E_TIMEOUT:
            kind, detail = Kind.HELLO_TIMEOUT, "the client sent no whole ClientHello in time"
        case _:
            kind, detail = Kind.CLIENT_CLOSED, "the client went away before its ClientHello was whole"
    return ProxyError(Side.CLIENT, Stage.HELLO, kind, detail)


def _upstream_tls_error(failure: Failure) -> ProxyError:
    alert: int | None = None
    match failure.status:
        case lib.PTL_E_ECH_REJECTED:
            return EchRejectedError(failure.data)
        case lib.PTL_E_ECH_UNUSABLE:
            kind = Kind.ECH_UNUSABLE
            detail = f"nothing was sent, so as not to name the host in the clear: {failure.detail}"
        case lib.PTL_E_VERIFY:
            kind = _VERIFY_KINDS.get(failure.verify_error, Kind.CERTIFICATE_INVALID)
            detail = f"upstream's certificate is not accepted: {failure.detail}"
        case lib.PTL_E_KEY_USAGE:
            kind = Kind.CERTIFICATE_WRONG_USAGE
            detail = "upstream's certificate forbids, by its key usage, what the handshake needs"
        case lib.PTL_E_ALERT if failure.alert != _ALERT_PROTOCOL_VERSION:
            kind, alert = Kind.UPSTREAM_ALERT, failure.alert
            detail = f"upstream ended the handshake with the alert {failure.detail} ({failure.alert})"
        case lib.PTL_E_ALERT | lib.PTL_E_TLS_VERSION:
            kind, alert = Kind.UPSTREAM_PROTOCOL_VERSION, failure.alert or None
            detail = "upstream speaks no TLS version that the profile offers"
        case lib.PTL_E_CHOICE:
            kind = Kind.UPSTREAM_UNSUPPORTED_CHOICE
            detail = (
                f"upstream chose what the profile shows but this proxy cannot do: {_named(failure.detail)}"
            )
        case lib.PTL_E_NOT_TLS:
            kind, detail = Kind.UPSTREAM_NOT_TLS, "upstream does not speak TLS on this port"
        case lib.PTL_E_TIMEOUT:
            kind = Kind.UPSTREAM_HANDSHAKE_TIMEOUT
            detail = "upstream did not finish its TLS handshake in time"
        case status if status in _HANG_UPS:
            kind = Kind.UPSTREAM_CLOSED
            detail = f"upstream hung up during its TLS handshake ({failure.detail})"
        case _:
            kind, detail = (
                Kind.UPSTREAM_TLS_ERROR,
                f"the TLS handshake with upstream failed: {failure.detail}",
            )
    return ProxyError(Side.UPSTREAM, Stage.UPSTREAM_TLS, kind, detail, alert=alert)


def _named(detail: str) -> str:
    """The engine names a suite or group by its number; people know the name."""
    answer = _ANSWER.search(detail)
    if answer is not None:
        return f"an answer to the extension {extension_name(int(answer[1]))}"
    found = _CHOICE.search(detail)
    if found is None:
        return detail
    number = int(found[2], 16)
    return f"the {found[1]} {cipher_suite_name(number) if found[1] == 'cipher suite' else group_name(number)}"


def _client_tls_error(failure: Failure) -> ProxyError:
    stage, alert = Stage.CLIENT_TLS, None
    match failure.status:
        case lib.PTL_E_ALPN:
            stage, kind, alert = Stage.ALPN, Kind.ALPN_MISMATCH, failure.alert
            detail = "the client does not offer the protocol that upstream chose"
        case lib.PTL_E_ALERT if failure.alert in _CERTIFICATE_ALERTS:
            kind, alert = Kind.CLIENT_REJECTS_LEAF, failure.alert
            detail = f"{_INSTALL_ROOT}; its alert was {failure.detail} ({failure.alert})"
        case lib.PTL_E_ALERT:
            kind, alert = Kind.CLIENT_ALERT, failure.alert
            detail = f"the client ended the handshake with the alert {failure.detail} ({failure.alert})"
        case status if status in _HANG_UPS and failure.flight_sent:
            kind = Kind.CLIENT_REJECTS_LEAF
            detail = f"the client hung up when it saw the certificate; probably {_INSTALL_ROOT}"
        case status if status in _HANG_UPS:
            kind, detail = Kind.CLIENT_CLOSED, "the client went away during its TLS handshake"
        case lib.PTL_E_TLS_SHARED | lib.PTL_E_TLS_VERSION:
            kind = Kind.CLIENT_NO_SHARED_PARAMETERS
            detail = f"the client offers nothing the proxy can agree to: {failure.detail}"
        case lib.PTL_E_TIMEOUT:
            kind = Kind.CLIENT_HANDSHAKE_TIMEOUT
            detail = "the client did not finish its TLS handshake in time"
        case _:
            kind, detail = (
                Kind.CLIENT_TLS_ERROR,
                f"the TLS handshake with the client failed: {failure.detail}",
            )
    return ProxyError(Side.CLIENT, stage, kind, detail, alert=alert)


def _io_error(failure: Failure, side: Side, stage: Stage) -> ProxyError:
    who = "the client" if side is Side.CLIENT else "upstream"
    if failure.status == lib.PTL_E_TIMEOUT:
        kind = Kind.HEAD_TIMEOUT if side is Side.CLIENT else Kind.UPSTREAM_CLOSED
        return ProxyError(side, stage, kind, f"{who} did not send or take its bytes in time")
    if failure.status == lib.PTL_E_TOO_LARGE:
        return ProxyError(side, stage, Kind.HEAD_TOO_LARGE, f"{who} sent a head larger than allowed")
    if failure.status == lib.PTL_E_MALFORMED:
        return ProxyError(side, stage, Kind.MALFORMED_HEAD, f"{who} sent bytes that are no HTTP head")
    kind = Kind.CLIENT_CLOSED if side is Side.CLIENT else Kind.UPSTREAM_CLOSED
    return ProxyError(side, stage, kind, f"{who} went away ({status_name(failure.status)})")
