"""What a laboratory needs: every name at one origin, other addresses to listen on, and an orderly end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.clients import client_context, connect_head, read_head, tls_tunnel
from tests.peers.origin import Origin, pattern
from tests.peers.serve import HANG_SECONDS, Serve, assert_went_well
from tests.peers.tools import fetch


def test_every_tunnel_may_lead_to_one_origin(
    serve: Callable[..., Serve], origin: Origin, host: str, tmp_path: Path
) -> None:
    """`default_upstream`: the CONNECT host is what SNI, leaf and verification go by, never looked up."""
    config = tmp_path / "lab.toml"
    config.write_text(f'[proxy.upstream]\ndefault_upstream = "127.0.0.1:{origin.port}"\n')
    lab = serve("--config", str(config), "--resolve", f"{host}:192.0.2.1")
    assert fetch(lab, f"https://{host}/").status == 200
    record = lab.record(host)
    assert_went_well(record)
    assert (record["port"], record["upstream"]) == (443, f"127.0.0.1:{origin.port}")
    assert record["sni"] == host


@pytest.mark.parametrize("threads", ["1", "4"])
def test_threads(serve: Callable[..., Serve], origin: Origin, host: str, threads: str) -> None:
    proxy = serve("--threads", threads)
    assert f", {threads} thread" in proxy.notes
    for _ in range(3):
        assert fetch(proxy, f"https://{host}:{origin.port}/").status == 200


def test_listening_on_ipv6(
    mitm: Serve, ca_dir: Path, options: tuple[str, ...], origin: Origin, host: str
) -> None:
    with Serve(ca_dir, *options, listen="[::1]:0") as proxy:
        assert proxy.address.startswith("[::1]:")
        assert fetch(proxy, f"https://{host}:{origin.port}/").status == 200
        assert proxy.record(host)["client"].startswith("[::1]:")


def test_an_open_tunnel_may_end_when_the_proxy_stops(
    serve: Callable[..., Serve], origin: Origin, host: str
) -> None:
    """SIGTERM: nobody new is let in, the tunnel that is open goes on, and then the proxy is gone."""
    proxy = serve("--drain-timeout", "30")
    context = client_context(proxy.root_pem, alpn=("http/1.1",))
    with tls_tunnel(proxy, host, origin.port, context) as connection:
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_note("stopping")
        assert _answer_to_a_newcomer(proxy, host, origin.port) in (b"", b"503")
        connection.sendall(f"GET /bytes/10 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        assert connection.recv(10) == pattern(10)
        connection.unwrap()
    assert proxy.stop() == 0
    assert_went_well(proxy.record(host))


def _answer_to_a_newcomer(proxy: Serve, host: str, port: int) -> bytes:
    """The status, or nothing where the connection is refused or cut."""
    try:
        with socket.create_connection(proxy.host_and_port, timeout=HANG_SECONDS) as connection:
            connection.sendall(connect_head(host, port))
            return read_head(connection)[9:12]
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return b""


def test_a_tunnel_that_does_not_end_is_ended(serve: Callable[..., Serve], origin: Origin, host: str) -> None:
    proxy = serve("--drain-timeout", "0.1")
    context = client_context(proxy.root_pem, alpn=("http/1.1",))
    with tls_tunnel(proxy, host, origin.port, context) as connection:
        proxy.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert proxy.stop() == 0
    record = proxy.record(host)
    assert (record["outcome"], record["side"], record["stage"]) == ("drained", "proxy", "relay")


def test_a_client_that_never_begins_is_drained_as_well(
    serve: Callable[..., Serve], origin: Origin, host: str
) -> None:
    proxy = serve("--drain-timeout", "0.1")
    with socket.create_connection(proxy.host_and_port, timeout=HANG_SECONDS) as connection:
        connection.sendall(connect_head(host, origin.port))
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        proxy.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert proxy.stop() == 0
    assert proxy.record(host)["outcome"] == "drained"
