"""Addresses and names as they are written in a setting.

Hosts are read by `polytls.wire.authority.parse_host`, as those of a CONNECT are, so that a name in the
configuration and the same name in a request have one spelling. Every function returns the canonical form and
raises `WrongValueError` with the problem and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re

from polytls.profiles.wording import WrongValueError, shown
from polytls.settings import Address
from polytls.wire.authority import HostError, parse_host

MAX_PORT = 65535

WILDCARD = "*."
"""Before a name: every name below it, not the name itself."""

_PORT = re.compile(r"[0-9]{1,5}")

LISTEN_FORM = '"IPV4:PORT" or "[IPV6]:PORT", port 0 to 65535 (0: any free one)'
UPSTREAM_FORM = '"HOST:PORT", port 1 to 65535'
RESOLVE_NAME_FORM = 'a DNS name or "*.NAME"'
RESOLVE_TARGET_FORM = '"ADDR", "ADDR:PORT" or "[IPV6]:PORT", ADDR an IP address, port 1 to 65535'
COLLECTOR_FORM = '"http://HOST:PORT" or "https://HOST:PORT", with a path if need be, without credentials'

_URL = re.compile(r"https?://([^\s/?#@]+)(/[^\s?#]*)?")


def collector(text: str) -> str:
    """A collector's base URL, without a slash at its end. What was wrong is not repeated: it may hold a
    password."""
    match = _URL.fullmatch(text)
    if match is None:
        raise WrongValueError(f"is no such URL; allowed: {COLLECTOR_FORM}")
    try:
        if ":" in match[1].rpartition("]")[2]:
            _host_and_port(match[1], COLLECTOR_FORM, lowest=1)
        else:
            _host(match[1].strip("[]"), match[1], COLLECTOR_FORM)
    except WrongValueError:
        raise WrongValueError(f"is no such URL; allowed: {COLLECTOR_FORM}") from None
    return text.rstrip("/")


def listen_address(text: str) -> Address:
    """Where to listen: an address and a port. A name is refused, as it may mean several addresses."""
    host, port = _host_and_port(text, LISTEN_FORM, lowest=0)
    if not _is_address(host):
        raise _wrong(text, LISTEN_FORM)
    return Address(host, port)


def upstream_authority(text: str) -> str:
    """A host (name or address) and a port, as ``host:port`` in the spelling of CONNECT."""
    host, port = _host_and_port(text, UPSTREAM_FORM, lowest=1)
    return str(Address(host, port))


def resolve_name(text: str) -> str:
    """The name of a fixed resolution in lower case, ``*.`` kept."""
    wildcard = WILDCARD if text.startswith(WILDCARD) else ""
    host = _host(text[len(wildcard) :], text, RESOLVE_NAME_FORM)
    if _is_address(host):
        raise _wrong(text, RESOLVE_NAME_FORM)
    return wildcard + host


def resolve_target(text: str) -> str:
    """The address of a fixed resolution: ``ADDR``, ``ADDR:PORT`` or ``[V6]:PORT``; IPv6 alone is bare."""
    if _names_a_port(text):
        host, port = _host_and_port(text, RESOLVE_TARGET_FORM, lowest=1)
        target = str(Address(host, port))
    else:
        host = target = _host(text, text, RESOLVE_TARGET_FORM)
    if not _is_address(host):
        raise _wrong(text, RESOLVE_TARGET_FORM)
    return target


def resolve_entry(text: str) -> tuple[str, str]:
    """``NAME:ADDR``, as on the command line, as name and target. A name holds no colon."""
    name, colon, target = text.partition(":")
    if not colon:
        raise _wrong(text, f"NAME:ADDR, NAME {RESOLVE_NAME_FORM}, ADDR {RESOLVE_TARGET_FORM}")
    return resolve_name(name), resolve_target(target)


def _names_a_port(text: str) -> bool:
    # Outside brackets one colon precedes a port, and more belong to an IPv6 address.
    return "]:" in text if text.startswith("[") else text.count(":") == 1


def _host_and_port(text: str, form: str, *, lowest: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not _names_a_port(text) or not _PORT.fullmatch(port):
        raise _wrong(text, form)
    if not lowest <= int(port) <= MAX_PORT:
        raise _wrong(text, form)
    return _host(host, text, form), int(port)


def _host(host: str, text: str, form: str) -> str:
    try:
        return parse_host(host)
    except HostError as problem:
        raise WrongValueError(f"got {shown(text)}: {problem}; allowed: {form}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _wrong(text: str, form: str) -> WrongValueError:
    return WrongValueError(f"got {shown(text)}; allowed: {form}")
