"""Bytes through both modes: whatever their number and order, they arrive, and they are counted.

Both ends are sockets of the test's, so that every byte is known.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.clients import (
    client_context,
    connect_head,
    memory_client,
    read_all,
    read_head,
    tls_tunnel,
    tunnel,
)
from tests.peers.origin import Origin, Seen, end_in_order, origin_context, pattern
from tests.peers.serve import HANG_SECONDS, Serve, assert_went_well

PIECES = 60
MAX_PIECE_BYTES = 300_000
SEEDS = [1, 2, 3]

Handler = Callable[[socket.socket], None]


def _sizes(seed: int) -> list[int]:
    """Many small ones, some around a TLS record's 16 KiB, some large."""
    chance = random.Random(seed)
    edges = (1, 2, 5, 16383, 16384, 16385, 32768, 65536, 65537)
    return [
        chance.choice(edges) if chance.random() < 0.4 else int(MAX_PIECE_BYTES ** chance.random())
        for _ in range(PIECES)
    ]


def _total(seed: int) -> int:
    return sum(_sizes(seed))


def _send_pieces(connection: socket.socket, seed: int) -> None:
    data, start = pattern(_total(seed)), 0
    for size in _sizes(seed):
        connection.sendall(data[start : start + size])
        start += size


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := connection.recv(1 << 16)):
        received += data
    return bytes(received)


class Worker:
    """A function in a thread; `join` raises what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - `join` raises it
            self._failure = error

    def join(self) -> None:
        self._thread.join(HANG_SECONDS)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure


@contextlib.contextmanager
def plain_origin(handler: Handler) -> Iterator[int]:
    """One TCP connection, given to `handler`. Leaving waits for it, and raises what it raised."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG_SECONDS)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(HANG_SECONDS)
            with connection:
                handler(connection)

        worker = Worker(serve)
        yield listener.getsockname()[1]
        worker.join()


def test_random_sizes_through_passthrough(passthrough: Serve, host: str) -> None:
    seed_up, seed_down = 11, 12

    def handler(connection: socket.socket) -> None:
        sender = Worker(lambda: _send_pieces(connection, seed_down))
        assert _receive(connection, _total(seed_up)) == pattern(_total(seed_up))
        sender.join()
        assert connection.recv(1) == b""

    with plain_origin(handler) as port, tunnel(passthrough, host, port) as connection:
        sender = Worker(lambda: _send_pieces(connection, seed_up))
        assert _receive(connection, _total(seed_down)) == pattern(_total(seed_down))
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    record = passthrough.record(host)
    assert record["outcome"] == "completed"
    assert (record["bytes_up"], record["bytes_down"]) == (_total(seed_up), _total(seed_down))


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_sizes_through_mitm(
    mitm: Serve, certificate: Path, host: str, maximum: ssl.TLSVersion, seed: int
) -> None:
    """One direction after the other: Python's `ssl` does not send and receive at once on one connection. What
    came in one piece may leave in many."""

    def handler(connection: ssl.SSLSocket, _seen: Seen) -> None:
        assert _receive(connection, _total(seed)) == pattern(_total(seed))
        _send_pieces(connection, 100 + seed)
        assert connection.recv(1) == b""  # close_notify
        end_in_order(connection)

    context = client_context(mitm.root_pem, maximum=maximum)
    served = origin_context(certificate, alpn=(), maximum=maximum)
    with Origin(served, handler) as origin:
        with tls_tunnel(mitm, host, origin.port, context) as connection:
            _send_pieces(connection, seed)
            assert _receive(connection, _total(100 + seed)) == pattern(_total(100 + seed))
            connection.unwrap()
        assert origin.failures.empty(), origin.failures.get()
    record = mitm.record(host)
    assert (record["outcome"], record["truncated"]) == ("completed", False), record
    assert (record["bytes_up"], record["bytes_down"]) == (_total(seed), _total(100 + seed))


def test_an_upgraded_connection_is_a_byte_stream(either: Serve, origin: Origin, host: str) -> None:
    """What WebSocket does: after 101 either side may speak at any time."""
    context = client_context(either.root_pem, alpn=("http/1.1",))
    with tls_tunnel(either, host, origin.port, context) as connection:
        head = f"GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        connection.sendall(head.encode())
        assert read_head(connection).startswith(b"HTTP/1.1 101 ")
        for size in (1, 2, 125, 126, 65536, 3):
            connection.sendall(pattern(size))
            assert _receive(connection, size) == pattern(size)
        assert connection.unwrap() is not None
    record = either.record(host)
    assert_went_well(record)


@pytest.mark.parametrize("cut", [None, 1, 100])
def test_a_hello_that_comes_with_the_head_is_not_lost(
    either: Serve, origin: Origin, host: str, cut: int | None
) -> None:
    """The client does not wait for the 200: head and ClientHello arrive in one packet, or in two."""
    context = client_context(either.root_pem, alpn=("http/1.1",))
    client, incoming, outgoing, hello = memory_client(context, host)
    early = connect_head(host, origin.port) + hello
    with socket.create_connection(either.host_and_port, timeout=HANG_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        split = len(early) if cut is None else len(early) - len(hello) + cut
        connection.sendall(early[:split])
        connection.sendall(early[split:])
        assert read_head(connection) == b"HTTP/1.1 200 Connection Established\r\n\r\n"

        def drive(step: Callable[[], object]) -> object:
            while True:
                try:
                    done = step()
                except ssl.SSLWantReadError:
                    done = None
                connection.sendall(outgoing.read())
                if done is not None:
                    return done
                data = connection.recv(1 << 16)
                assert data
                incoming.write(data)

        def handshake() -> bool:
            client.do_handshake()
            return True

        drive(handshake)
        client.write(f"GET /bytes/5 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(pattern(5)):
            part = drive(lambda: client.read(1 << 16))
            assert isinstance(part, bytes)
            answer += part
    assert either.record(host)["bytes_down"] > 5


def test_the_client_may_end_first(passthrough: Serve, host: str) -> None:
    """It has said all, and still gets the whole answer."""
    answer = pattern(1_000_000)

    def handler(connection: socket.socket) -> None:
        assert read_all(connection) == b"the request"
        connection.sendall(answer)

    with plain_origin(handler) as port, tunnel(passthrough, host, port) as connection:
        connection.sendall(b"the request")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == answer
    record = passthrough.record(host)
    assert (record["outcome"], record["bytes_up"], record["bytes_down"]) == ("completed", 11, len(answer))


def test_upstream_may_end_first(passthrough: Serve, host: str) -> None:
    upload = pattern(1_000_000)

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"no more from me")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == upload

    with plain_origin(handler) as port, tunnel(passthrough, host, port) as connection:
        assert read_all(connection) == b"no more from me"
        connection.sendall(upload)
        connection.shutdown(socket.SHUT_WR)
    record = passthrough.record(host)
    assert (record["outcome"], record["bytes_up"], record["bytes_down"]) == ("completed", len(upload), 15)


def test_passthrough_carries_what_is_no_tls(passthrough: Serve, host: str) -> None:
    """A server that speaks first, such as SSH or SMTP."""

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.lab.test\r\n")
        assert read_all(connection) == b"QUIT\r\n"

    with plain_origin(handler) as port, tunnel(passthrough, host, port) as connection:
        assert connection.recv(100) == b"220 mail.lab.test\r\n"
        connection.sendall(b"QUIT\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert passthrough.record(host)["outcome"] == "completed"


def test_truncation_is_told_to_the_other_side(mitm: Serve, certificate: Path, host: str) -> None:
    """An origin that ends by FIN alone: the client must not take the data for complete."""

    def handler(connection: ssl.SSLSocket, _seen: Seen) -> None:
        connection.sendall(b"half of it")  # and the `with` around us closes, without close_notify

    context = client_context(mitm.root_pem)
    with (
        Origin(origin_context(certificate, alpn=()), handler) as origin,
        tunnel(mitm, host, origin.port) as plain,
        context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False) as connection,
    ):
        assert _receive(connection, 10) == b"half of it"
        with pytest.raises(ssl.SSLEOFError):
            connection.recv(1)
    assert mitm.record(host)["truncated"] is True
