"""What a client is shown for a failure. The one table; nothing else answers for one.

How a client can be told depends on how far its tunnel is, that is on the `Phase` of the stage it is at:

* REQUEST, before the 200: an HTTP reply in the clear, and nothing else.
* HELLO, after the 200, before our half of a TLS handshake: the client waits for a ServerHello, so it is
  told by a TLS alert, or by completing its handshake and answering its request with a page.
* DEAF: bytes of either sort would be taken for the origin's (a relay) or TLS has already said what it had to
  (a handshake of ours): the connection is closed.

An HTTP reply is therefore never written into an open tunnel, nor an alert before it is open.

The body of every reply is one line, ``polytls: kind: detail``. `kind` is the word of `errors.Kind` that the
log has too.

Alert for an upstream that cannot be used, where the client cannot be shown a page: handshake_failure (40),
"no acceptable set of parameters": what the client asked for cannot be negotiated with this origin.
access_denied (49) would say that a policy refused this client, internal_error (80) that the proxy is broken;
neither is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from polytls.errors import Kind, ProxyError, Stage
from polytls.settings import NonTls

# TLS alerts (RFC 8446 §6.2, RFC 7301 §3.2 for the last).
HANDSHAKE_FAILURE = 40
INTERNAL_ERROR = 80
UNRECOGNIZED_NAME = 112
NO_APPLICATION_PROTOCOL = 120

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
"""No Content-Length and no Transfer-Encoding: what follows is the tunnel (RFC 9110 §9.3.6)."""

RETRY_TUNNELS_SECONDS = 1
"""Tunnels are short: a place is free again soon."""
RETRY_DRAINING_SECONDS = 5
"""About what a restart takes."""

MAX_DETAIL_CHARS = 2000
"""Of a detail, in a reply: the longest honest one lists every profile."""


class Phase(Enum):
    """What the client can still be told; see the module's docstring."""

    REQUEST = "request"
    HELLO = "hello"
    DEAF = "deaf"


PHASES: MappingProxyType[Stage, Phase] = MappingProxyType(
    {
        Stage.HEAD: Phase.REQUEST,
        Stage.AUTH: Phase.REQUEST,
        Stage.ACCESS: Phase.REQUEST,
        Stage.LIMITS: Phase.REQUEST,
        Stage.CONNECT: Phase.REQUEST,
        Stage.HELLO: Phase.HELLO,  # from the 200 on
        Stage.UPSTREAM_TLS: Phase.HELLO,
        Stage.LEAF: Phase.HELLO,
        Stage.ALPN: Phase.HELLO,
        Stage.CLIENT_TLS: Phase.DEAF,
        Stage.RELAY: Phase.DEAF,
    }
)
"""The phase of a tunnel that is at a stage."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a kind looks like from the client's side.

    `status`: the HTTP reply before the 200; None where there is nobody left to read it, or where the kind
    cannot happen there. After the 200: `alert` is sent if set; with `page`, the client is shown a page
    instead if it can be; `non_tls` closes by resetting where the settings say so. Neither: just closed.
    """

    status: int | None = None
    alert: int | None = None
    page: bool = False
    non_tls: bool = False
    headers: tuple[str, ...] = ()


_GONE = Row()
_RELAY = Row()
_NON_TLS = Row(non_tls=True)
_BAD_REQUEST = Row(status=400)
_TOO_LARGE = Row(status=431)
_BAD_GATEWAY = Row(status=502)
_GATEWAY_TIMEOUT = Row(status=504)
_UPSTREAM = Row(status=502, alert=HANDSHAKE_FAILURE, page=True)
_WRONG_NAME = Row(alert=UNRECOGNIZED_NAME)
_CLIENT_TLS = Row()  # the handshake has sent its own alert, or received one

TABLE: MappingProxyType[Kind, Row] = MappingProxyType(
    {
        # head
        Kind.NOT_CONNECT: Row(status=405, headers=("Allow: CONNECT",)),  # RFC 9110 §15.5.6
        Kind.MALFORMED_HEAD: _BAD_REQUEST,
        Kind.BAD_AUTHORITY: _BAD_REQUEST,
        Kind.UNKNOWN_PROFILE: _BAD_REQUEST,
        Kind.HEAD_TOO_LARGE: _TOO_LARGE,
        Kind.TOO_MANY_HEADERS: _TOO_LARGE,
        Kind.HEAD_TIMEOUT: Row(status=408),
        Kind.HEAD_CLOSED: _GONE,
        # limits
        Kind.TOO_MANY_TUNNELS: Row(status=503, headers=(f"Retry-After: {RETRY_TUNNELS_SECONDS}",)),
        Kind.DRAINING: Row(status=503, headers=(f"Retry-After: {RETRY_DRAINING_SECONDS}",)),
        Kind.OUT_OF_SOCKETS: Row(status=503, headers=(f"Retry-After: {RETRY_TUNNELS_SECONDS}",)),
        # resolve and connect
        Kind.NAME_NOT_FOUND: _BAD_GATEWAY,
        Kind.RESOLVE_FAILED: _BAD_GATEWAY,
        Kind.RESOLVE_TIMEOUT: _GATEWAY_TIMEOUT,
        Kind.CONNECT_REFUSED: _BAD_GATEWAY,
        Kind.CONNECT_UNREACHABLE: _BAD_GATEWAY,
        Kind.CONNECT_TIMEOUT: _GATEWAY_TIMEOUT,
        # the client's ClientHello
        Kind.NOT_TLS: _NON_TLS,
        Kind.HELLO_MALFORMED: _NON_TLS,
        Kind.HELLO_TOO_LARGE: _NON_TLS,
        Kind.HELLO_TIMEOUT: _NON_TLS,
        Kind.CLIENT_CLOSED: _GONE,
        Kind.SNI_MISMATCH: _WRONG_NAME,
        Kind.SNI_MISSING: _WRONG_NAME,
        Kind.ALPN_MISMATCH: Row(alert=NO_APPLICATION_PROTOCOL),
        Kind.HELLO_NOT_REPRODUCIBLE: _UPSTREAM,
        # upstream TLS
        Kind.CERTIFICATE_EXPIRED: _UPSTREAM,
        Kind.CERTIFICATE_NOT_YET_VALID: _UPSTREAM,
        Kind.CERTIFICATE_SELF_SIGNED: _UPSTREAM,
        Kind.CERTIFICATE_UNKNOWN_ROOT: _UPSTREAM,
        Kind.CERTIFICATE_WRONG_HOST: _UPSTREAM,
        Kind.CERTIFICATE_WRONG_USAGE: _UPSTREAM,
        Kind.CERTIFICATE_INVALID: _UPSTREAM,
        Kind.UPSTREAM_ALERT: _UPSTREAM,
        Kind.UPSTREAM_PROTOCOL_VERSION: _UPSTREAM,
        Kind.UPSTREAM_UNSUPPORTED_CHOICE: _UPSTREAM,
        Kind.UPSTREAM_NOT_TLS: _UPSTREAM,
        Kind.UPSTREAM_CLOSED: _UPSTREAM,
        Kind.UPSTREAM_HANDSHAKE_TIMEOUT: _UPSTREAM,
        Kind.UPSTREAM_TLS_ERROR: _UPSTREAM,
        Kind.ECH_REJECTED: _UPSTREAM,
        Kind.ECH_UNUSABLE: _UPSTREAM,
        # leaf: without one no handshake can be completed, so there is no page either
        Kind.LEAF_FAILED: Row(alert=INTERNAL_ERROR),
        # client TLS
        Kind.CLIENT_REJECTS_LEAF: _CLIENT_TLS,
        Kind.CLIENT_ALERT: _CLIENT_TLS,
        Kind.CLIENT_NO_SHARED_PARAMETERS: _CLIENT_TLS,
        Kind.CLIENT_HANDSHAKE_TIMEOUT: _CLIENT_TLS,
        Kind.CLIENT_TLS_ERROR: _CLIENT_TLS,
        # relay
        Kind.CLIENT_RESET: _RELAY,
        Kind.UPSTREAM_RESET: _UPSTREAM,  # in a handshake; of a relay nothing is told (DEAF)
        Kind.RELAY_TLS_ERROR: _RELAY,
        Kind.IDLE_TIMEOUT: _RELAY,
        Kind.LIFETIME: _RELAY,
        Kind.DRAINED: Row(status=503, headers=(f"Retry-After: {RETRY_DRAINING_SECONDS}",)),
        # anywhere
        Kind.CANCELLED: Row(status=503),
        Kind.OUT_OF_MEMORY: Row(status=503, alert=INTERNAL_ERROR),
        Kind.INTERNAL: Row(status=500, alert=INTERNAL_ERROR),
    }
)

_REASONS = MappingProxyType(
    {
        400: "Bad Request",
        405: "Method Not Allowed",
        408: "Request Timeout",
        431: "Request Header Fields Too Large",
        500: "Internal Server Error",
        502: "Bad Gateway",
        503: "Service Unavailable",
        504: "Gateway Timeout",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Write these bytes, an HTTP reply with this status, then close."""

    status: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Complete the client's TLS handshake, read its request, answer it with `page_reply`; close. Where that
    cannot be done, close with `alert`."""

    alert: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close, after a fatal TLS alert where one is named, or by resetting the connection."""

    alert: int | None = None
    reset: bool = False


Refusal = Answer | Page | Close


def refusal(error: ProxyError, stage: Stage, *, non_tls: NonTls, http11: bool) -> Refusal:
    """What the client is shown for `error`, its tunnel being at `stage` (which need not be the error's).
    `http11`: it could read a page, as it speaks HTTP/1.1."""
    row, phase = TABLE[error.kind], PHASES[stage]
    if phase is Phase.REQUEST:
        if row.status is None:
            return Close()
        return Answer(row.status, _reply(row.status, error, row.headers))
    if phase is Phase.DEAF:
        return Close()
    if row.non_tls:
        return Close(reset=non_tls is NonTls.RESET)
    if row.page and http11 and row.alert is not None:
        return Page(row.alert)
    return Close(alert=row.alert)


def page_reply(error: ProxyError, request_head: bytes) -> bytes:
    """The page for a failure of upstream's TLS, as the answer to the client's own request: always 502.

    A HEAD request gets the same header and no body (RFC 9110 §9.3.2).
    """
    reply = _reply(502, error, ())
    if request_head.startswith(b"HEAD "):
        return reply[: reply.index(b"\r\n\r\n") + 4]
    return reply


def _reply(status: int, error: ProxyError, headers: tuple[str, ...]) -> bytes:
    body = f"polytls: {error.kind.value}: {_one_line(error.detail)}\n".encode("utf-8", "backslashreplace")
    lines = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def _one_line(detail: str) -> str:
    """Details may quote what a client or an origin sent: nothing of it may begin a new line or header."""
    if not detail.isprintable():
        detail = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in detail)
    return detail if len(detail) <= MAX_DETAIL_CHARS else detail[:MAX_DETAIL_CHARS] + "…"
