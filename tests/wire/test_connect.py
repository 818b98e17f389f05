from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.wire.authority import Authority, parse_authority
from polytls.wire.connect import MAX_HEAD_BYTES, MAX_HEADERS, TLS_ON_PLAIN_PORT, ConnectRequest, parse_connect

LINE = b"CONNECT example.com:443 HTTP/1.1\r\n"
CURL = (
    LINE
    + b"Host: example.com:443\r\nUser-Agent: curl/8.5.0\r\nProxy-Connection: Keep-Alive\r\n"
    + b"X-PolyTLS-Upstream-Profile: firefox\r\n\r\n"
)
VALID_HEADS = [
    CURL,
    LINE + b"\r\n",
    b"\r\n" + LINE + b"\r\n",
    b"CONNECT [2001:db8::1]:443 HTTP/1.0\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
    "CONNECT bücher.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode(),
]


def refused(head: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        parse_connect(head)
    error = caught.value
    assert (error.side, error.stage) == (Side.CLIENT, Stage.HEAD)
    assert error.detail.isprintable()
    return error


def with_fields(*fields: bytes) -> bytes:
    return LINE + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def test_what_curl_sends() -> None:
    assert parse_connect(CURL) == ConnectRequest(
        authority=Authority("example.com", 443),
        profile="firefox",
        headers=(
            (b"Host", b"example.com:443"),
            (b"User-Agent", b"curl/8.5.0"),
            (b"Proxy-Connection", b"Keep-Alive"),
            (b"X-PolyTLS-Upstream-Profile", b"firefox"),
        ),
        http_version="1.1",
        agent=b"curl/8.5.0",
    )


def test_header_values_are_not_in_the_repr() -> None:
    request = parse_connect(with_fields(b"Proxy-Authorization: Basic c2VjcmV0"))
    assert "c2VjcmV0" not in repr(request)


def test_order_case_and_repetition_are_kept_and_white_space_is_not() -> None:
    request = parse_connect(with_fields(b"b: 1", b"A:\t 2 x \t", b"b:", b"c: \xff\xfe"))
    assert request.headers == ((b"b", b"1"), (b"A", b"2 x"), (b"b", b""), (b"c", b"\xff\xfe"))
    assert request.profile is None


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_versions(version: str) -> None:
    assert parse_connect(f"CONNECT a:1 HTTP/{version}\r\n\r\n".encode()).http_version == version


def test_a_utf8_host_becomes_a_labels() -> None:
    head = "CONNECT BÜCHER.example:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert parse_connect(head).authority == Authority("xn--bcher-kva.example", 443)


def test_one_empty_line_before_the_request_is_skipped() -> None:
    assert parse_connect(b"\r\n" + CURL) == parse_connect(CURL)
    assert refused(b"\r\n\r\n" + CURL).kind is Kind.MALFORMED_HEAD


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"CONNECT",
        b"CONNECT example.com:443",
        b"CONNECT  example.com:443 HTTP/1.1",
        b"CONNECT example.com:443  HTTP/1.1",
        b"CONNECT\texample.com:443 HTTP/1.1",
        b"CONNECT example.com:443\tHTTP/1.1",
        b"CONNECT example.com:443 HTTP/1.1 ",
        b" CONNECT example.com:443 HTTP/1.1",
        b"CONNECT exa mple.com:443 HTTP/1.1",
        b"CONNECT example.com:443 http/1.1",
        b"CONNECT example.com:443 HTTP/1.10",
        b"CONNECT example.com:443 HTTP/11",
        b"CONNECT example.com:443 RTSP/1.0",
        b"CONNECT exam\x00ple.com:443 HTTP/1.1",
        b"C(NNECT example.com:443 HTTP/1.1",
        b"\xffCONNECT example.com:443 HTTP/1.1",
        b"CONNECT example.com:443 HTTP/1.1\r",
        b"CONNECT example.com:443 HTTP/1.1\nHost: x",
    ],
)
def test_malformed_request_lines(line: bytes) -> None:
    error = refused(line + b"\r\n\r\n")
    assert error.kind is Kind.MALFORMED_HEAD
    assert "CONNECT host:port HTTP/1.1" in error.detail


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"3.0"])
def test_other_versions_are_refused(version: bytes) -> None:
    error = refused(b"CONNECT a:1 HTTP/" + version + b"\r\n\r\n")
    assert error.kind is Kind.MALFORMED_HEAD
    assert "use HTTP/1.1" in error.detail


@pytest.mark.parametrize(
    "line", [b"GET http://a/ HTTP/1.1", b"connect a:1 HTTP/1.1", b"BREW / HTTP/1.1", b"PRI * HTTP/2.0"]
)
def test_other_methods(line: bytes) -> None:
    error = refused(line + b"\r\nHost: a\r\n\r\n")
    assert error.kind is Kind.NOT_CONNECT
    assert line.split()[0].decode() in error.detail


def test_a_long_method_is_not_repeated_whole() -> None:
    assert len(refused(b"M" * 10_000 + b" / HTTP/1.1\r\n\r\n").detail) < 200


def test_bad_authority_keeps_its_kind() -> None:
    assert refused(b"CONNECT example.com HTTP/1.1\r\n\r\n").kind is Kind.BAD_AUTHORITY


@pytest.mark.parametrize(
    "field",
    [
        b"Name : x",
        b" Name: x",
        b"Name\t: x",
        b"Name",
        b": x",
        b"N\x00me: x",
        b"N@me: x",
        b"N\xc3\xa9me: x",
        b"Name: x\x00",
        b"Name: \x01",
        b"Name: \x7f",
        b"Name: x\ry",
        b"Name: x\ny: z",
        b"Name: x\r\n folded",
        b"Name: x\r\n\tfolded",
        b"Name:\r\n folded",
        b"Content-Length: x",
        b"Content-Length: +0",
        b"Content-Length: -0",
        b"Content-Length:",
        b"Content-Length: 0, 0",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
    ],
)
def test_malformed_fields(field: bytes) -> None:
    error = refused(with_fields(b"Host: a", field, b"Last: z"))
    assert error.kind is Kind.MALFORMED_HEAD
    assert "header field is malformed" in error.detail


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r\n\r\n"])
@pytest.mark.parametrize("start", [LINE[:-2], LINE + b"Host: a"])
def test_bare_line_feeds(start: bytes, end: bytes) -> None:
    assert refused(start + end).kind is Kind.MALFORMED_HEAD


@pytest.mark.parametrize("head", VALID_HEADS)
def test_every_truncation_is_malformed_or_refused(head: bytes) -> None:
    parse_connect(head)
    for length in range(len(head)):
        assert refused(head[:length]).kind is Kind.MALFORMED_HEAD


@pytest.mark.parametrize("extra", [b"\r", b"x", b"\x16\x03\x01", CURL])
def test_bytes_after_the_blank_line(extra: bytes) -> None:
    assert "follow the blank line" in refused(CURL + extra).detail


def test_tls_on_the_plain_port_is_told() -> None:
    error = refused(bytes.fromhex("16030102000100"))
    assert (error.kind, error.detail) == (Kind.MALFORMED_HEAD, TLS_ON_PLAIN_PORT)


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES, MAX_HEAD_BYTES + 1])
def test_head_size_at_its_limit(size: int) -> None:
    empty = with_fields(b"Pad: ")
    head = with_fields(b"Pad: " + b"x" * (size - len(empty)))
    assert len(head) == size
    if size <= MAX_HEAD_BYTES:
        parse_connect(head)
    else:
        assert refused(head).kind is Kind.HEAD_TOO_LARGE


@pytest.mark.parametrize("count", [MAX_HEADERS - 1, MAX_HEADERS, MAX_HEADERS + 1])
def test_header_count_at_its_limit(count: int) -> None:
    head = with_fields(*[b"N: x"] * count)
    if count <= MAX_HEADERS:
        assert len(parse_connect(head).headers) == count
    else:
        assert refused(head).kind is Kind.TOO_MANY_HEADERS


@pytest.mark.parametrize(
    "field",
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: identity",
        b"Content-Length: 1",
        b"Content-Length: 010 ",
    ],
)
def test_content_is_refused(field: bytes) -> None:
    error = refused(with_fields(field))
    assert error.kind is Kind.MALFORMED_HEAD
    assert "has no content" in error.detail


@pytest.mark.parametrize("zeros", [b"0", b"0 ", b"0" * 6000])
def test_no_content_may_be_said(zeros: bytes) -> None:
    parse_connect(with_fields(b"Content-Length: " + zeros))


def test_host_may_be_absent_but_not_twice() -> None:
    assert parse_connect(with_fields()).headers == ()
    assert "more than one Host" in refused(with_fields(b"Host: a", b"hOST: a")).detail


@pytest.mark.parametrize("value", ["chrome", "Chrome-120", "a.b_c", "x" * 64])
def test_profile(value: str) -> None:
    field = b"x-polytls-upstream-profile:  " + value.encode() + b" "
    assert parse_connect(with_fields(field)).profile == value
    assert (
        parse_connect(
            with_fields(field, field.upper().replace(value.upper().encode(), value.encode()))
        ).profile
        == value
    )


@pytest.mark.parametrize("value", [b"", b"x" * 65, b"a b", b"a,b", b"../x/y", b"\xc3\xbc", b"a\tb"])
def test_a_value_that_no_profile_can_have(value: bytes) -> None:
    error = refused(with_fields(b"X-PolyTLS-Upstream-Profile: " + value))
    assert error.kind is Kind.MALFORMED_HEAD
    assert "X-PolyTLS-Upstream-Profile must be" in error.detail


def test_two_different_profiles() -> None:
    name = b"X-PolyTLS-Upstream-Profile: "
    assert "different values" in refused(with_fields(name + b"chrome", name + b"firefox")).detail


@pytest.mark.parametrize(
    "head",
    [
        CURL,
        LINE + b"\r\n",
        with_fields(b"HOST: a", b"user-agent: b", b"Proxy-connection: keep-alive", b"Connection: keep-alive"),
        with_fields(b"Accept: */*", b"Accept-Encoding: gzip", b"Accept-Language: de", b"Content-Length: 0"),
        with_fields(b"User-Agent: " + b"u" * (1024 - len(with_fields(b"User-Agent: ")))),
    ],
)
def test_what_comes_again_and_again_is_remembered(head: bytes) -> None:
    assert parse_connect(bytes(head)) is parse_connect(bytes(head))


@pytest.mark.parametrize(
    "head",
    [
        with_fields(b"Proxy-Authorization: Basic c2VjcmV0"),
        with_fields(b"Host: a", b"authorization: Bearer x", b"User-Agent: b"),
        with_fields(b"Host: a", b"Cookie: session=1"),
        with_fields(b"X-Api-Key: 12345"),
        with_fields(b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        with_fields(b"X-PolyTLS-Something: else"),
        with_fields(b"Hosts: a"),
        with_fields(b"X-Host: a"),
        with_fields(b"User-Agent: " + b"u" * (1025 - len(with_fields(b"User-Agent: ")))),
    ],
)
def test_a_head_with_any_other_field_is_kept_nowhere(head: bytes) -> None:
    assert parse_connect(head) == parse_connect(head)
    assert parse_connect(head) is not parse_connect(head)


def outcome(head: bytes) -> ConnectRequest | ProxyError:
    try:
        return parse_connect(head)
    except ProxyError as error:
        return error


@st.composite
def mutated_heads(draw: st.DrawFn) -> bytes:
    head = bytearray(draw(st.sampled_from(VALID_HEADS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(head)))
        end = min(len(head), start + draw(st.integers(0, 6)))
        telling = st.sampled_from(
            [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\r\n\r\n", b"@", b"\xc3\xbc"]
        )
        head[start:end] = draw(telling | st.binary(max_size=6))
    return bytes(head)


@settings(deadline=None, max_examples=500)
@given(head=mutated_heads() | st.binary(max_size=80))
def test_any_head_is_a_request_or_that_one_error(head: bytes) -> None:
    request = outcome(head)
    if isinstance(request, ProxyError):
        assert request.stage is Stage.HEAD
        assert request.detail.isprintable()
        return
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
    assert b"\x00" not in head
    assert parse_authority(str(request.authority).encode()) == request.authority


@settings(deadline=None, max_examples=50)
@given(head=mutated_heads())
def test_any_truncation_too(head: bytes) -> None:
    for length in range(len(head)):
        truncated = outcome(head[:length])
        assert isinstance(truncated, ConnectRequest) or truncated.stage is Stage.HEAD
