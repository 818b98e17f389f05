"""What a native status means: row by row, and that every combination means something."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from polytls.engine._native import lib
from polytls.engine.failures import Failure, error_of, status_name
from polytls.errors import EngineError, Kind, ProxyError, Side, Stage

STATUSES = {name: getattr(lib, name) for name in dir(lib) if name.startswith("PTL_E_")}
OPERATIONS = {name: getattr(lib, name) for name in dir(lib) if name.startswith("PTL_OP_")}
CLIENT, UPSTREAM, PROXY = Side.CLIENT, Side.UPSTREAM, Side.PROXY

PLAIN = Failure(kind=0, status=0, alert=0, verify_error=0, flight_sent=False, data=b"the detail")


def _failure(operation: str, status: str, **more: object) -> Failure:
    known = {"kind": OPERATIONS[f"PTL_OP_{operation}"], "status": STATUSES[f"PTL_E_{status}"]}
    return dataclasses.replace(PLAIN, **known, **more)  # type: ignore[arg-type]


ROWS: list[tuple[str, Side, str, dict[str, object], Side, Stage, Kind]] = [
    # operation, whose stream, status, what else is known -> side, stage, kind
    ("CONNECT", UPSTREAM, "REFUSED", {}, UPSTREAM, Stage.CONNECT, Kind.CONNECT_REFUSED),
    ("CONNECT", UPSTREAM, "UNREACHABLE", {}, UPSTREAM, Stage.CONNECT, Kind.CONNECT_UNREACHABLE),
    ("CONNECT", UPSTREAM, "TIMEOUT", {}, UPSTREAM, Stage.CONNECT, Kind.CONNECT_TIMEOUT),
    ("CONNECT", UPSTREAM, "CANCELLED", {}, PROXY, Stage.CONNECT, Kind.CANCELLED),
    ("PEEK_HELLO", CLIENT, "NOT_TLS", {}, CLIENT, Stage.HELLO, Kind.NOT_TLS),
    ("PEEK_HELLO", CLIENT, "MALFORMED", {}, CLIENT, Stage.HELLO, Kind.HELLO_MALFORMED),
    ("PEEK_HELLO", CLIENT, "TOO_LARGE", {}, CLIENT, Stage.HELLO, Kind.HELLO_TOO_LARGE),
    ("PEEK_HELLO", CLIENT, "TIMEOUT", {}, CLIENT, Stage.HELLO, Kind.HELLO_TIMEOUT),
    ("PEEK_HELLO", CLIENT, "CLOSED", {}, CLIENT, Stage.HELLO, Kind.CLIENT_CLOSED),
    ("PEEK_HELLO", CLIENT, "RESET", {}, CLIENT, Stage.HELLO, Kind.CLIENT_CLOSED),
    ("CONNECT_TLS", UPSTREAM, "ALERT", {"alert": 40}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_ALERT),
    (
        "CONNECT_TLS",
        UPSTREAM,
        "ALERT",
        {"alert": 70},
        UPSTREAM,
        Stage.UPSTREAM_TLS,
        Kind.UPSTREAM_PROTOCOL_VERSION,
    ),
    (
        "CONNECT_TLS",
        UPSTREAM,
        "TLS_VERSION",
        {},
        UPSTREAM,
        Stage.UPSTREAM_TLS,
        Kind.UPSTREAM_PROTOCOL_VERSION,
    ),
    ("CONNECT_TLS", UPSTREAM, "KEY_USAGE", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.CERTIFICATE_WRONG_USAGE),
    ("CONNECT_TLS", UPSTREAM, "NOT_TLS", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_NOT_TLS),
    ("CONNECT_TLS", UPSTREAM, "TIMEOUT", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_HANDSHAKE_TIMEOUT),
    ("CONNECT_TLS", UPSTREAM, "CLOSED", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_CLOSED),
    ("CONNECT_TLS", UPSTREAM, "RESET", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_CLOSED),
    ("CONNECT_TLS", UPSTREAM, "TLS", {}, UPSTREAM, Stage.UPSTREAM_TLS, Kind.UPSTREAM_TLS_ERROR),
    ("CONNECT_TLS", UPSTREAM, "SHUTDOWN", {}, PROXY, Stage.UPSTREAM_TLS, Kind.CANCELLED),
    ("ACCEPT_TLS", CLIENT, "ALPN", {"alert": 120}, CLIENT, Stage.ALPN, Kind.ALPN_MISMATCH),
    ("ACCEPT_TLS", CLIENT, "ALERT", {"alert": 48}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_REJECTS_LEAF),
    ("ACCEPT_TLS", CLIENT, "ALERT", {"alert": 42}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_REJECTS_LEAF),
    ("ACCEPT_TLS", CLIENT, "ALERT", {"alert": 40}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_ALERT),
    (
        "ACCEPT_TLS",
        CLIENT,
        "CLOSED",
        {"flight_sent": True},
        CLIENT,
        Stage.CLIENT_TLS,
        Kind.CLIENT_REJECTS_LEAF,
    ),
    (
        "ACCEPT_TLS",
        CLIENT,
        "RESET",
        {"flight_sent": True},
        CLIENT,
        Stage.CLIENT_TLS,
        Kind.CLIENT_REJECTS_LEAF,
    ),
    ("CONNECT", CLIENT, "RESET", {}, CLIENT, Stage.CONNECT, Kind.CLIENT_CLOSED),
    ("ACCEPT_TLS", CLIENT, "CLOSED", {}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_CLOSED),
    ("ACCEPT_TLS", CLIENT, "TLS_SHARED", {}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_NO_SHARED_PARAMETERS),
    ("ACCEPT_TLS", CLIENT, "TLS_VERSION", {}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_NO_SHARED_PARAMETERS),
    ("ACCEPT_TLS", CLIENT, "TIMEOUT", {}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_HANDSHAKE_TIMEOUT),
    ("ACCEPT_TLS", CLIENT, "TLS", {}, CLIENT, Stage.CLIENT_TLS, Kind.CLIENT_TLS_ERROR),
    ("READ_HEAD", CLIENT, "TIMEOUT", {}, CLIENT, Stage.HEAD, Kind.HEAD_TIMEOUT),
    ("READ_HEAD", CLIENT, "TOO_LARGE", {}, CLIENT, Stage.HEAD, Kind.HEAD_TOO_LARGE),
    ("READ_HEAD", CLIENT, "MALFORMED", {}, CLIENT, Stage.HEAD, Kind.MALFORMED_HEAD),
    ("WRITE", CLIENT, "RESET", {}, CLIENT, Stage.HEAD, Kind.CLIENT_CLOSED),
    ("READ", UPSTREAM, "CLOSED", {}, UPSTREAM, Stage.CONNECT, Kind.UPSTREAM_CLOSED),
    ("READ", CLIENT, "NOMEM", {}, PROXY, Stage.HEAD, Kind.OUT_OF_MEMORY),
    ("CONNECT", UPSTREAM, "NOMEM", {}, PROXY, Stage.CONNECT, Kind.OUT_OF_MEMORY),
    ("CONNECT", UPSTREAM, "NO_SOCKET", {}, PROXY, Stage.CONNECT, Kind.OUT_OF_SOCKETS),
]


@pytest.mark.parametrize(("operation", "stream", "status", "more", "side", "stage", "kind"), ROWS)
def test_row(
    operation: str, stream: Side, status: str, more: dict[str, object], side: Side, stage: Stage, kind: Kind
) -> None:
    error = error_of(_failure(operation, status, **more), stream)
    assert isinstance(error, ProxyError)
    assert (error.side, error.stage, error.kind) == (side, stage, kind)


# X509_V_ERR_* of openssl/x509.h
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2, Kind.CERTIFICATE_UNKNOWN_ROOT),
        (9, Kind.CERTIFICATE_NOT_YET_VALID),
        (10, Kind.CERTIFICATE_EXPIRED),
        (18, Kind.CERTIFICATE_SELF_SIGNED),
        (19, Kind.CERTIFICATE_UNKNOWN_ROOT),
        (20, Kind.CERTIFICATE_UNKNOWN_ROOT),
        (21, Kind.CERTIFICATE_UNKNOWN_ROOT),
        (26, Kind.CERTIFICATE_WRONG_USAGE),
        (62, Kind.CERTIFICATE_WRONG_HOST),
        (64, Kind.CERTIFICATE_WRONG_HOST),
        (1, Kind.CERTIFICATE_INVALID),
        (7, Kind.CERTIFICATE_INVALID),
        (9999, Kind.CERTIFICATE_INVALID),
    ],
)
def test_verification(number: int, kind: Kind) -> None:
    error = error_of(_failure("CONNECT_TLS", "VERIFY", verify_error=number), UPSTREAM)
    assert isinstance(error, ProxyError)
    assert error.kind is kind
    assert "the detail" in error.detail


@pytest.mark.parametrize("alert", [42, 43, 44, 45, 46, 48, 49, 40, 80, 0])
def test_alerts_are_kept(alert: int) -> None:
    for operation, side in (("CONNECT_TLS", UPSTREAM), ("ACCEPT_TLS", CLIENT)):
        error = error_of(_failure(operation, "ALERT", alert=alert), side)
        assert isinstance(error, ProxyError)
        assert error.alert == alert
        assert str(alert) in error.detail


@pytest.mark.parametrize("status", ["STALE", "BUSY", "INVALID"])
def test_our_own_mistakes_are_no_tunnels_failure(status: str) -> None:
    for operation in ("READ", "CONNECT", "CONNECT_TLS", "ACCEPT_TLS", "RELAY"):
        assert isinstance(error_of(_failure(operation, status), CLIENT), EngineError)


@pytest.mark.parametrize("side", [CLIENT, UPSTREAM])
def test_everything_means_something(side: Side) -> None:
    assert len(STATUSES) >= 24
    assert len(OPERATIONS) == 10
    for kind, status, sent in itertools.product(OPERATIONS.values(), STATUSES.values(), (False, True)):
        failure = dataclasses.replace(PLAIN, kind=kind, status=status, flight_sent=sent)
        error = error_of(failure, side)
        assert isinstance(error, (ProxyError, EngineError))
        assert str(error)
        assert not str(error).endswith("\n")


def test_every_status_has_a_name_of_its_own() -> None:
    names = {status_name(status) for status in STATUSES.values()}
    assert len(names) == len(STATUSES)
    for name, status in STATUSES.items():
        assert status_name(status) == name.removeprefix("PTL_E_").lower()
    assert status_name(9999)
