from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.proxy.refuse import (
    ESTABLISHED,
    PHASES,
    TABLE,
    Answer,
    Close,
    Page,
    Phase,
    page_reply,
    refusal,
)
from polytls.settings import NonTls

REQUEST_STAGES = [stage for stage in Stage if PHASES[stage] is Phase.REQUEST]
HELLO_STAGES = [stage for stage in Stage if PHASES[stage] is Phase.HELLO]
DEAF_STAGES = [stage for stage in Stage if PHASES[stage] is Phase.DEAF]

# The failure table of docs/architecture.md, section 6, kind by kind.
BEFORE_THE_200 = {
    Kind.NOT_CONNECT: 405,
    Kind.MALFORMED_HEAD: 400,
    Kind.BAD_AUTHORITY: 400,
    Kind.UNKNOWN_PROFILE: 400,
    Kind.HEAD_TOO_LARGE: 431,
    Kind.TOO_MANY_HEADERS: 431,
    Kind.HEAD_TIMEOUT: 408,
    Kind.TOO_MANY_TUNNELS: 503,
    Kind.DRAINING: 503,
    Kind.OUT_OF_SOCKETS: 503,
    Kind.NAME_NOT_FOUND: 502,
    Kind.RESOLVE_FAILED: 502,
    Kind.RESOLVE_TIMEOUT: 504,
    Kind.CONNECT_REFUSED: 502,
    Kind.CONNECT_UNREACHABLE: 502,
    Kind.CONNECT_TIMEOUT: 504,
    Kind.DRAINED: 503,
    Kind.CANCELLED: 503,
    Kind.OUT_OF_MEMORY: 503,
    Kind.INTERNAL: 500,
}
PAGES = {
    Kind.CERTIFICATE_EXPIRED,
    Kind.CERTIFICATE_NOT_YET_VALID,
    Kind.CERTIFICATE_SELF_SIGNED,
    Kind.CERTIFICATE_UNKNOWN_ROOT,
    Kind.CERTIFICATE_WRONG_HOST,
    Kind.CERTIFICATE_WRONG_USAGE,
    Kind.CERTIFICATE_INVALID,
    Kind.UPSTREAM_ALERT,
    Kind.UPSTREAM_PROTOCOL_VERSION,
    Kind.UPSTREAM_NOT_TLS,
    Kind.UPSTREAM_CLOSED,
    Kind.UPSTREAM_RESET,
    Kind.UPSTREAM_HANDSHAKE_TIMEOUT,
    Kind.HELLO_NOT_REPRODUCIBLE,
    Kind.UPSTREAM_UNSUPPORTED_CHOICE,
    Kind.UPSTREAM_TLS_ERROR,
    Kind.ECH_REJECTED,
    Kind.ECH_UNUSABLE,
}
ALERTS = {
    Kind.SNI_MISMATCH: 112,
    Kind.SNI_MISSING: 112,
    Kind.ALPN_MISMATCH: 120,
    Kind.LEAF_FAILED: 80,
    Kind.OUT_OF_MEMORY: 80,
    Kind.INTERNAL: 80,
}
MAY_RESET = {Kind.NOT_TLS, Kind.HELLO_MALFORMED, Kind.HELLO_TOO_LARGE, Kind.HELLO_TIMEOUT}


def failure(kind: Kind, detail: str = "it went wrong") -> ProxyError:
    return ProxyError(Side.PROXY, Stage.HEAD, kind, detail)


def parsed(data: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """What a strict HTTP client makes of a reply."""

    class Socket:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
    response.begin()
    return response, response.read()


def test_every_kind_has_a_row_and_every_stage_a_phase() -> None:
    assert set(TABLE) == set(Kind)
    assert set(PHASES) == set(Stage)


@pytest.mark.parametrize("kind", BEFORE_THE_200, ids=lambda kind: kind.value)
def test_before_the_200_a_failure_is_an_http_reply(kind: Kind) -> None:
    for stage in REQUEST_STAGES:
        shown = refusal(failure(kind), stage, non_tls=NonTls.CLOSE, http11=False)
        assert isinstance(shown, Answer)
        assert shown.status == BEFORE_THE_200[kind]
        response, body = parsed(shown.data)
        assert response.status == shown.status
        assert response.headers["Connection"] == "close"
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert int(response.headers["Content-Length"]) == len(body)
        assert body == f"polytls: {kind.value}: it went wrong\n".encode()


def test_the_replies_say_what_to_do_next() -> None:
    def headers(kind: Kind) -> http.client.HTTPMessage:
        shown = refusal(failure(kind), Stage.HEAD, non_tls=NonTls.CLOSE, http11=False)
        assert isinstance(shown, Answer)
        return parsed(shown.data)[0].headers

    assert headers(Kind.NOT_CONNECT)["Allow"] == "CONNECT"
    assert headers(Kind.TOO_MANY_TUNNELS)["Retry-After"] == "1"
    assert headers(Kind.DRAINING)["Retry-After"] == "5"
    assert headers(Kind.OUT_OF_SOCKETS)["Retry-After"] == "1"


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
@pytest.mark.parametrize("http11", [False, True])
@pytest.mark.parametrize("non_tls", NonTls)
def test_after_the_200_there_is_no_http_reply_in_the_clear(kind: Kind, http11: bool, non_tls: NonTls) -> None:
    for stage in HELLO_STAGES:
        shown = refusal(failure(kind), stage, non_tls=non_tls, http11=http11)
        if kind in PAGES:
            assert shown == (Page(alert=40) if http11 else Close(alert=40))
        elif kind in MAY_RESET:
            assert shown == Close(reset=non_tls is NonTls.RESET)
        else:
            assert shown == Close(alert=ALERTS.get(kind))
    for stage in DEAF_STAGES:
        assert refusal(failure(kind), stage, non_tls=non_tls, http11=http11) == Close()


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_before_the_200_there_is_neither_alert_nor_page(kind: Kind) -> None:
    shown = refusal(failure(kind), Stage.CONNECT, non_tls=NonTls.RESET, http11=True)
    assert isinstance(shown, Answer) or shown == Close()


def test_the_200_leaves_nothing_in_front_of_the_tunnel() -> None:
    assert ESTABLISHED == b"HTTP/1.1 200 Connection Established\r\n\r\n"


def test_the_page_is_a_502_that_says_why() -> None:
    error = failure(Kind.CERTIFICATE_EXPIRED, "the certificate of example.com ended on 2020-01-01")
    response, body = parsed(page_reply(error, b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    assert response.status == 502
    assert body == b"polytls: certificate_expired: the certificate of example.com ended on 2020-01-01\n"


def test_the_page_for_a_head_request_is_its_header_alone() -> None:
    error = failure(Kind.UPSTREAM_CLOSED)
    whole = page_reply(error, b"GET / HTTP/1.1\r\n\r\n")
    header = page_reply(error, b"HEAD / HTTP/1.1\r\n\r\n")
    assert header == whole[: whole.index(b"\r\n\r\n") + 4]
    assert b"\r\nContent-Length: " in header


@given(st.text(max_size=3000))
def test_no_detail_can_add_a_line(detail: str) -> None:
    data = page_reply(failure(Kind.UPSTREAM_ALERT, detail), b"GET / HTTP/1.1\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.count(b"\r\n") == 4
    assert body.endswith(b"\n")
    assert body[:-1].decode().isprintable()
    assert f"Content-Length: {len(body)}".encode() in head
