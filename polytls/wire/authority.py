"""Who a tunnel is for: one host and one port, in one spelling.

Theory of operation
-------------------
The target of a CONNECT is an authority, ``host ":" port`` (RFC 9110 §9.3.6, RFC 9112 §3.2.3). It is the
name that access rules, SNI comparison, certificate verification and the minted leaf all go by, so the same
host must never have two spellings. Every host in the program therefore comes from `parse_host`:

* a DNS name is lower-case A-labels without the trailing dot. A name with non-ASCII characters goes through
  UTS-46 mapping and IDNA 2008 (RFC 5891). An ASCII name is taken as DNS takes it: letters, digits, hyphens
  and underscores anywhere, because real names break the host name rule (``_dmarc``, ``r3---sn-x``), and a
  label that starts with ``xn--`` is not decoded;
* an IPv4 address is four decimal numbers. Whatever a resolver might take for an address in another notation
  (``127.1``, ``0x7f000001``, ``010.0.0.1``, full-width digits) is refused or mapped *before* anyone
  looks at it: a name whose last label is a number is an address or an error, never a name;
* an IPv6 address is RFC 5952 text, without brackets and without a zone, which has no meaning to another host.
  An IPv4-mapped one keeps its dotted tail (RFC 5952 §5), whatever the Python version prints.

Left out: whether the host exists or may be reached, and percent-encoding, which no CONNECT client uses and
which would be a second spelling.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import idna

from polytls.errors import Kind, PolytlsError, ProxyError, Side, Stage

MAX_NAME_CHARS = 253
"""RFC 1035 §2.3.4: 255 octets on the wire, which is 253 characters of text without the trailing dot."""

MAX_LABEL_CHARS = 63
"""RFC 1035 §2.3.4."""

MAX_SHOWN_CHARS = 80
"""How much of a bad authority an error repeats: enough to recognise it, too little to flood a log."""

_LABEL = re.compile(rf"[a-z0-9_-]{{1,{MAX_LABEL_CHARS}}}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")


class HostError(PolytlsError, ValueError):
    """A text is not a host. The message says why and does not repeat the text."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and a port, in the spelling of this module. Made by `parse_authority`.

    `host` is a result of `parse_host`; `port` is 1 to 65535.
    """

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address. Exact, because no DNS name of ours ends in a number."""
        return ":" in self.host or self.host.rpartition(".")[2].isdigit()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_authority(raw: bytes) -> Authority:
    """Read the target of a CONNECT: ``host:port``, UTF-8 where it is not ASCII.

    The port is mandatory (RFC 9112 §3.2.3). User information, paths, white space, IPv6 without brackets and
    zone identifiers are refused. Raises `ProxyError` (client, head, bad_authority) and nothing else.
    """
    try:
        return _authority(raw)
    except HostError as problem:
        detail = f"bad CONNECT target{_shown(raw)}: {problem}"
        raise ProxyError(Side.CLIENT, Stage.HEAD, Kind.BAD_AUTHORITY, detail) from None


def parse_host(text: str) -> str:
    """The one spelling of a host: a DNS name, or an address (IPv6 with or without brackets).

    Raises `HostError`.
    """
    if not text:
        raise HostError("the host is empty")
    if len(text) > MAX_NAME_CHARS + 1:  # one trailing dot; also bounds what the IDNA tables are asked
        raise HostError(f"the host is longer than {MAX_NAME_CHARS} characters")
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    name = text.lower() if text.isascii() else _mapped(text)
    labels = [_label(label) for label in name.removesuffix(".").split(".")]
    host = ".".join(labels)
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(host)
    if len(host) > MAX_NAME_CHARS:
        raise HostError(f"the host is longer than {MAX_NAME_CHARS} characters")
    return host


def same_host(sni: bytes, host: str) -> bool:
    """Whether a server name from a ClientHello names `host` (a result of `parse_host`).

    ASCII letters compare without case (RFC 4343), and one trailing dot is tolerated though RFC 6066 §3
    forbids it. RFC 6066 §3 also forbids addresses as server names; a client that sends one all the same
    is taken at its word when the text is the host's own.
    """
    try:
        name = sni.decode("ascii")
    except UnicodeDecodeError:
        return False  # RFC 6066 §3: a server name is ASCII, so U-labels name nothing
    return name.lower().removesuffix(".") == host


def _authority(raw: bytes) -> Authority:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise HostError("it is neither ASCII nor UTF-8") from None
    if "@" in text:
        raise HostError("user information is not allowed; send Proxy-Authorization instead")
    if any(mark in text for mark in "/?#"):
        raise HostError("it must be host:port alone, without scheme, path or query")
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        raise HostError("the port is missing; write host:port")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise HostError("the port must be a number from 1 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise HostError("an IPv6 address needs brackets, as in [2001:db8::1]:443")
    return Authority(parse_host(host), int(port))


def _mapped(text: str) -> str:
    try:
        return idna.uts46_remap(text, std3_rules=False, transitional=False)
    except UnicodeError:  # the base of every error that idna raises
        raise HostError("it contains a character that no domain name may have") from None


def _label(label: str) -> str:
    if not label:
        raise HostError("it has an empty label")
    if len(label) > MAX_LABEL_CHARS:
        raise HostError(f"a label is longer than {MAX_LABEL_CHARS} characters")
    if not label.isascii():
        try:
            return idna.alabel(label).decode("ascii")
        except UnicodeError:
            raise HostError("a label is not a valid internationalised name (IDNA 2008)") from None
    if not _LABEL.fullmatch(label):
        raise HostError("a label may hold letters, digits, hyphens and underscores only")
    return label


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        problem = "an IPv4 address is four decimal numbers from 0 to 255, without leading zeros"
        raise HostError(problem) from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise HostError("an IPv6 zone identifier means nothing to the proxy; leave it out")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise HostError("it is not an IPv6 address") from None
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped is not None else str(address)


def _shown(raw: bytes) -> str:
    """The bad target for the error's sentence, in printable ASCII; withheld where it may hold a password."""
    if b"@" in raw:
        return ""
    text = raw[:MAX_SHOWN_CHARS].decode("ascii", "backslashreplace")
    printable = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return f" {printable}..." if len(raw) > MAX_SHOWN_CHARS else f" {printable}"
