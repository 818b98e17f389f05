from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.wire.authority import Authority, HostError, parse_authority, parse_host, same_host

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63] * 3 + ["a" * 61])


@pytest.mark.parametrize(
    ("raw", "host", "port"),
    [
        (b"example.com:443", "example.com", 443),
        (b"EXAMPLE.com:1", "example.com", 1),
        (b"example.com.:65535", "example.com", 65535),
        (b"localhost:00443", "localhost", 443),
        (b"_dmarc.r3---sn-x.-a-.example:80", "_dmarc.r3---sn-x.-a-.example", 80),
        (b"xn--bcher-kva.example:443", "xn--bcher-kva.example", 443),
        ("bücher.example:443".encode(), "xn--bcher-kva.example", 443),
        ("BÜCHER\u3002example:443".encode(), "xn--bcher-kva.example", 443),
        ("faß.example:443".encode(), "xn--fa-hia.example", 443),
        ("a_b.bücher.example:443".encode(), "a_b.xn--bcher-kva.example", 443),
        (b"127.0.0.1:8080", "127.0.0.1", 8080),
        (b"127.0.0.1.:8080", "127.0.0.1", 8080),
        ("\uff11\uff12\uff17.0.0.1:443".encode(), "127.0.0.1", 443),
        (b"[::1]:443", "::1", 443),
        (b"[2001:DB8:0:0::0001]:443", "2001:db8::1", 443),
        (b"[::ffff:10.0.0.1]:443", "::ffff:10.0.0.1", 443),
        (b"[::ffff:0a00:0001]:443", "::ffff:10.0.0.1", 443),
        (b"1.example:443", "1.example", 443),
        (b"0xf.example:443", "0xf.example", 443),
        (b"a.0xfg:443", "a.0xfg", 443),
        (NAME_253.encode() + b".:443", NAME_253, 443),
    ],
)
def test_accepted(raw: bytes, host: str, port: int) -> None:
    authority = parse_authority(raw)
    assert authority == Authority(host, port)
    assert parse_authority(str(authority).encode()) == authority


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "port is missing"),
        (b"example.com", "port is missing"),
        (b"[::1]", "port is missing"),
        (b"example.com:", "port must be"),
        (b"example.com:0", "port must be"),
        (b"example.com:65536", "port must be"),
        (b"example.com:000443", "port must be"),
        (b"example.com:+80", "port must be"),
        (b"example.com:-80", "port must be"),
        (b"example.com: 80", "port must be"),
        (b"example.com:80 ", "port must be"),
        (b"example.com:80\n", "port must be"),
        (b"example.com:https", "port must be"),
        ("example.com:\uff14\uff14\uff13".encode(), "port must be"),
        (b":443", "the host is empty"),
        (b".:443", "empty label"),
        (b"a..b:443", "empty label"),
        (b".a:443", "empty label"),
        (b"a..:443", "empty label"),
        ("\u00ad:443".encode(), "empty label"),
        (b"user:secret@example.com:443", "user information"),
        (b"http://example.com:443", "host:port alone"),
        (b"example.com:443/", "host:port alone"),
        (b"example.com?x:443", "host:port alone"),
        (b"example.com#x:443", "host:port alone"),
        (b"exa mple.com:443", "letters, digits"),
        (b"example.com\x00:443", "letters, digits"),
        (b"example%2ecom:443", "letters, digits"),
        (b"*.example.com:443", "letters, digits"),
        (b"a\\b:443", "letters, digits"),
        ("a\uff0fb.example:443".encode(), "letters, digits"),
        (b"\xff.example:443", "neither ASCII nor UTF-8"),
        ("\u0378.example:443".encode(), "no domain name may have"),
        ("☕.example:443".encode(), "IDNA 2008"),
        ("-ü.example:443".encode(), "IDNA 2008"),
        (b"::1:443", "needs brackets"),
        (b"[::1:443", "needs brackets"),
        (b"a:b:443", "needs brackets"),
        (b"[::1%eth0]:443", "zone"),
        (b"[fe80::1%25eth0]:443", "zone"),
        (b"[]:443", "not an IPv6 address"),
        (b"[example.com]:443", "not an IPv6 address"),
        (b"[127.0.0.1]:443", "not an IPv6 address"),
        (b"[v1.x]:443", "not an IPv6 address"),
        (b"[1::2::3]:443", "not an IPv6 address"),
        (b"127.1:443", "IPv4"),
        (b"2130706433:443", "IPv4"),
        (b"0x7f.1:443", "IPv4"),
        (b"0x7f000001:443", "IPv4"),
        (b"0x:443", "IPv4"),
        (b"010.0.0.1:443", "IPv4"),
        (b"256.0.0.1:443", "IPv4"),
        (b"1.2.3.4.5:443", "IPv4"),
        (b"example.1:443", "IPv4"),
        (b"a" * 64 + b":443", "a label is longer than 63"),
        (("ü" * 64 + ":443").encode(), "a label is longer than 63"),
        (("ü" * 63 + ":443").encode(), "IDNA 2008"),
        (NAME_253.encode() + b"a:443", "longer than 253"),
        ((NAME_253 + "a.b").encode() + b":443", "longer than 253"),
        (("ü." * 126 + "a").encode() + b":443", "longer than 253"),
    ],
)
def test_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ProxyError, match=reason) as caught:
        parse_authority(raw)
    assert (caught.value.side, caught.value.stage) == (Side.CLIENT, Stage.HEAD)
    assert caught.value.kind is Kind.BAD_AUTHORITY
    assert caught.value.detail.isprintable()


def test_an_error_never_repeats_a_password() -> None:
    with pytest.raises(ProxyError) as caught:
        parse_authority(b"user:secret@example.com:443")
    assert "secret" not in caught.value.detail


def test_an_error_repeats_little_and_escaped() -> None:
    with pytest.raises(ProxyError) as caught:
        parse_authority(b"\x1b[2J\xff" + b"x" * 500)
    assert r"\x1b[2J\xff" in caught.value.detail
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("host", "text", "is_ip"),
    [
        ("example.com", "example.com:443", False),
        ("1.example", "1.example:443", False),
        ("127.0.0.1", "127.0.0.1:443", True),
        ("::1", "[::1]:443", True),
    ],
)
def test_text_and_kind(host: str, text: str, is_ip: bool) -> None:
    authority = Authority(host, 443)
    assert str(authority) == text
    assert authority.is_ip is is_ip


@pytest.mark.parametrize("text", ["::1", "[::1]", "0:0::1"])
def test_parse_host_takes_ipv6_with_and_without_brackets(text: str) -> None:
    assert parse_host(text) == "::1"


@pytest.mark.parametrize("text", ["", "[", "[::1", "a b", "\ud800.example"])
def test_parse_host_refuses(text: str) -> None:
    with pytest.raises(HostError):
        parse_host(text)


@pytest.mark.parametrize(
    ("sni", "host", "same"),
    [
        (b"example.com", "example.com", True),
        (b"Example.COM.", "example.com", True),
        (b"example.com..", "example.com", False),
        (b"www.example.com", "example.com", False),
        (b"example.com\x00", "example.com", False),
        (b"", "example.com", False),
        ("bücher.example".encode(), "xn--bcher-kva.example", False),
        (b"XN--bcher-kva.example", "xn--bcher-kva.example", True),
        (b"127.0.0.1", "127.0.0.1", True),
        (b"127.1", "127.0.0.1", False),
        (b"::1", "::1", True),
        (b"[::1]", "::1", False),
        (b"localhost", "127.0.0.1", False),
    ],
)
def test_same_host(sni: bytes, host: str, same: bool) -> None:
    assert same_host(sni, host) is same


def outcome(raw: bytes) -> Authority | ProxyError:
    try:
        return parse_authority(raw)
    except ProxyError as error:
        return error


@settings(deadline=None)
@given(raw=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode() + b":443"))
def test_any_bytes_are_an_authority_or_that_one_error(raw: bytes) -> None:
    match outcome(raw):
        case ProxyError() as error:
            assert error.kind is Kind.BAD_AUTHORITY
            assert error.detail.isprintable()
        case Authority() as authority:
            assert parse_authority(str(authority).encode("ascii")) == authority


_HOSTISH = st.text(alphabet="aZ0189.-_xXüß\u3002\uff11:[]%\u00ad\u200d", max_size=20)


@settings(deadline=None, max_examples=300)
@given(text=_HOSTISH | st.text(st.characters(), max_size=20))
def test_a_host_has_one_spelling(text: str) -> None:
    try:
        host = parse_host(text)
    except HostError:
        return
    assert host.isascii()
    assert host == host.lower()
    assert parse_host(host) == host
    assert same_host(host.encode(), host)
