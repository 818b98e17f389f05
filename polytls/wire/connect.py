"""A request head -> a CONNECT request, or the reason why not.

Theory of operation
-------------------
The native engine reads up to and including the blank line (LF CRLF, or LF LF: the earliest end anyone
could see) and hands over exactly those bytes. `parse_connect` is a function of them.

A proxy that reads a head more loosely than its neighbours can be made to disagree with them about where a
request ends, so one reading is accepted and every other refused. httptools (llhttp) does the header
fields: it refuses bare LF and CR, NUL and other controls, folded lines, white space before the colon and
names that are not tokens (RFC 9112 §5). What it lets pass is closed here:

* it takes several spaces, no version at all, HTTP/0.9 and HTTP/2.0, and stray line ends before the request:
  the request line is matched whole, first, by our own expression (RFC 9112 §3), and one empty line before it
  is skipped as RFC 9112 §2.2 asks;
* it knows a list of methods, and calls any other malformed: a method is any token, and all but CONNECT
  are answered alike;
* it refuses a UTF-8 host: it is given the authority in our own spelling instead of the client's;
* it leaves white space after a value: removed here (RFC 9112 §5.1);
* it allows content on CONNECT: see `_refuse_content`.

Absent Host fields are accepted although RFC 9112 §3.2 asks for 400: HTTP/1.0 clients have none, real
HTTP/1.1 clients forget it in CONNECT, and its value is ignored anyway (§3.2.3). Two are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import httptools

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.wire.authority import Authority, parse_authority

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HEAD_BYTES = 16384
"""The longest head that is read, blank line included. The engine stops reading there as well."""

MAX_HEADERS = 64
"""The most header fields in one head. Real CONNECT requests have fewer than ten."""

PROFILE_HEADER = b"X-PolyTLS-Upstream-Profile"
"""The field by which a client chooses the upstream profile of its tunnel."""

TLS_ON_PLAIN_PORT = "the client spoke TLS to the plain HTTP proxy port: use http:// in the proxy URL"

_TLS_HANDSHAKE_RECORD = b"\x16"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/([0-9]\.[0-9])")
_PROFILE_NAME = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_VERSIONS = (b"1.0", b"1.1")
_MAX_SHOWN_METHOD_BYTES = 32

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """One CONNECT request.

    `profile` is the value of `PROFILE_HEADER`, not yet looked up. `agent` is that of User-Agent, empty where
    there is none. `headers` keeps order, case and
    repetition, without white space around values; it may hold credentials and so is not in the repr.
    `http_version` is "1.0" or "1.1".
    """

    authority: Authority
    profile: str | None
    headers: Headers = field(repr=False)
    http_version: str
    agent: bytes = b""


_MAX_REMEMBERED_BYTES = 1024
_REMEMBERED_HEADS = 2048  # at most 2 MiB of heads: clients send the same few again and again

# What the CONNECT of curl, browsers and the usual libraries has, and what says nothing of who asks. A field
# that is not here may be a credential, whatever its name, or be another each time, as those of a trace are.
_REMEMBERED_FIELDS = (
    b"accept",
    b"accept-encoding",
    b"accept-language",
    b"cache-control",
    b"connection",
    b"content-length",
    b"host",
    b"keep-alive",
    b"pragma",
    b"proxy-connection",
    b"user-agent",
    PROFILE_HEADER.lower(),
)
# Only which heads are kept hangs on it: what does not fit is read by `_parse` like everything else.
_MAY_BE_REMEMBERED = re.compile(
    rb"[^\r\n]*\r\n(?:(?:" + b"|".join(_REMEMBERED_FIELDS) + rb"):[^\r\n]*\r\n)*\r\n", re.IGNORECASE
)


def parse_connect(head: bytes) -> ConnectRequest:
    """Read one complete head, blank line included and nothing after it.

    Raises `ProxyError` (client, head) and nothing else: malformed_head, not_connect, bad_authority,
    head_too_large or too_many_headers. A profile value that cannot be a profile's name (1 to 64 of
    ``A-Z a-z 0-9 . _ -``) is malformed_head; whether the name exists is not known here.

    What a head was read as is remembered where it is short and has no field but those of
    `_REMEMBERED_FIELDS`. Any other is read anew each time and kept nowhere: it may carry credentials.
    """
    if len(head) <= _MAX_REMEMBERED_BYTES and _MAY_BE_REMEMBERED.fullmatch(head):
        return _remembered(head)
    return _parse(head)


def _parse(head: bytes) -> ConnectRequest:
    if head.startswith(_TLS_HANDSHAKE_RECORD):
        raise _malformed(TLS_ON_PLAIN_PORT)
    if len(head) > MAX_HEAD_BYTES:
        raise _failure(Kind.HEAD_TOO_LARGE, f"the request head is longer than {MAX_HEAD_BYTES} bytes")
    target, version, fields = _request_line(head)
    authority = parse_authority(target)
    headers = _headers(b"CONNECT %s HTTP/%s" % (str(authority).encode("ascii"), version) + fields)
    if len(headers) > MAX_HEADERS:
        raise _failure(Kind.TOO_MANY_HEADERS, f"the request head has more than {MAX_HEADERS} header fields")
    if len(_values(headers, b"host")) > 1:
        raise _malformed("the request has more than one Host field")
    _refuse_content(headers)
    agent = b" ".join(_values(headers, b"user-agent"))
    return ConnectRequest(authority, _profile(headers), headers, version.decode("ascii"), agent)


_remembered = lru_cache(_REMEMBERED_HEADS)(_parse)


def _request_line(head: bytes) -> tuple[bytes, bytes, bytes]:
    """Target, version, and everything from the line's CRLF on."""
    request = head.removeprefix(b"\r\n")
    line, crlf, _ = request.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if not crlf or match is None:
        raise _malformed("the request line must read: CONNECT host:port HTTP/1.1, and end with CRLF")
    method, target, version = match.groups()
    if method != b"CONNECT":
        shown = method[:_MAX_SHOWN_METHOD_BYTES].decode("ascii")
        detail = f"the method is {shown}, but this proxy only tunnels: use CONNECT, as for an https:// URL"
        raise _failure(Kind.NOT_CONNECT, detail)
    if version not in _VERSIONS:
        raise _malformed(f"HTTP/{version.decode('ascii')} is not spoken here: use HTTP/1.1")
    return target, version, request[len(line) :]


class _Collector:
    """What httptools calls back. Exceptions must not cross it, so that it only collects."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.strip(b" \t")))


def _headers(head: bytes) -> Headers:
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade as upgrade:
        # The ordinary end of a CONNECT: everything after this offset would be the tunnel's.
        if upgrade.args[0] != len(head):
            raise _malformed("bytes follow the blank line that ends the request head") from None
        return tuple(collector.headers)
    except httptools.HttpParserError as error:
        raise _malformed(f"a header field is malformed ({error})") from None
    raise _malformed("the request head ends before its blank line")


def _values(headers: Headers, lower_name: bytes) -> Sequence[bytes]:
    return [value for name, value in headers if name.lower() == lower_name]


def _refuse_content(headers: Headers) -> None:
    """Refuse a CONNECT that announces content.

    RFC 9110 §9.3.6 gives content on CONNECT no meaning. The bytes after the head are the tunnel's; a
    neighbour that believed the announcement would take them for content and read the rest as a second
    request (request smuggling, RFC 9112 §11.2). Content-Length: 0 announces nothing and is harmless.
    """
    if _values(headers, b"transfer-encoding"):
        raise _malformed("a CONNECT request has no content: leave out Transfer-Encoding")
    # httptools has refused what is not digits; int() would refuse thousands of them.
    if any(value.strip(b"0") for value in _values(headers, b"content-length")):
        raise _malformed("a CONNECT request has no content: leave out Content-Length")


def _profile(headers: Headers) -> str | None:
    name = PROFILE_HEADER.decode("ascii")
    values = set(_values(headers, PROFILE_HEADER.lower()))
    if not values:
        return None
    if len(values) > 1:
        raise _malformed(f"{name} is there twice, with different values")
    value = values.pop()
    if not _PROFILE_NAME.fullmatch(value):
        raise _malformed(f"{name} must be 1 to 64 letters, digits, dots, hyphens or underscores")
    return value.decode("ascii")


def _failure(kind: Kind, detail: str) -> ProxyError:
    return ProxyError(Side.CLIENT, Stage.HEAD, kind, detail)


def _malformed(detail: str) -> ProxyError:
    return _failure(Kind.MALFORMED_HEAD, detail)
