"""Every await can be cancelled, at every operation, and nothing is left of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polytls.engine import ClientContext, Credential, Engine, ServerContext, SocketAddress, Stream
from tests.engine.conftest import HOST
from tests.engine.harness import (
    HANG_SECONDS,
    Client,
    black_hole,
    client_of,
    running,
    tunnel_of,
)
from tests.peers.clients import memory_client

TURNS = (0, 1, 5)
"""Turns of the event loop between start and cancellation: before the engine took it, and after."""
MANY_BYTES = 64 << 20  # no socket buffer takes that

Operation = Callable[[Engine, Client, Stream], Awaitable[object]]
NO_LIMITS: Any = {"idle": 0.0, "lifetime": 0.0, "half_idle": 0.0}


def _operations(chrome: ClientContext, credential: Credential, server: ServerContext) -> dict[str, Operation]:
    """None of them ends by itself: neither the client nor the origin says a word."""
    timeout = HANG_SECONDS
    return {
        "read": lambda _, client, upstream: client.stream.read(1, timeout=timeout),
        "read_head": lambda _, client, upstream: client.stream.read_head(100, timeout=timeout),
        "write": lambda _, client, upstream: client.stream.write(bytes(MANY_BYTES), timeout=timeout),
        "peek_hello": lambda _, client, upstream: client.stream.peek_hello(timeout=timeout),
        "connect_tls": lambda _, client, upstream: upstream.connect_tls(
            chrome, host=HOST, port=443, alpn=[b"h2"], timeout=timeout
        ),
        "accept_tls": lambda _, client, upstream: client.stream.accept_tls(
            server, credential, alpn=None, timeout=timeout
        ),
        "relay": lambda _, client, upstream: client.stream.relay(upstream, **NO_LIMITS),
        "answer, peek": lambda engine, client, upstream: (
            engine.chain()
            .write(client.stream, b"200", timeout=timeout)
            .peek_hello(client.stream, timeout=timeout)
            .run()
        ),
        "answer, relay": lambda engine, client, upstream: (
            engine.chain()
            .write(client.stream, b"200", timeout=timeout)
            .relay(client.stream, upstream, **NO_LIMITS)
            .run()
        ),
        "both handshakes, relay": lambda engine, client, upstream: (
            engine.chain()
            .connect_tls(upstream, chrome, host=HOST, port=443, alpn=[b"h2"], timeout=timeout)
            .accept_tls_like(
                client.stream, server, credential, upstream=upstream, alpn=((None, None),), timeout=timeout
            )
            .relay(client.stream, upstream, **NO_LIMITS)
            .run()
        ),
    }


NAMES = (
    "read",
    "read_head",
    "write",
    "peek_hello",
    "connect_tls",
    "accept_tls",
    "relay",
    "answer, peek",
    "answer, relay",
    "both handshakes, relay",
)


async def _cancel(task: asyncio.Future[Any], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", NAMES)
def test_cancelled(chrome: ClientContext, credential: Credential, name: str, turns: int) -> None:
    operations = _operations(chrome, credential, ServerContext())
    assert tuple(operations) == NAMES

    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, _):
            await _cancel(asyncio.ensure_future(operations[name](engine, client, upstream)), turns)

    asyncio.run(main())


@pytest.mark.parametrize("turns", TURNS)
def test_connect_is_cancelled(turns: int) -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with black_hole() as hole:
                dial = engine.connect(client.stream, [hole] * 3, stagger=0.001, timeout=HANG_SECONDS)
                await _cancel(asyncio.ensure_future(dial), turns)

    asyncio.run(main())


def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    """Cancelled at the very moment: the completion with the new stream may be there already."""

    async def main() -> None:
        async with running() as engine:
            for turns in range(8):
                async with tunnel_of(engine) as (client, _, origin):
                    address = SocketAddress(*origin.getsockname())
                    dial = asyncio.ensure_future(
                        engine.connect(client.stream, [address], timeout=HANG_SECONDS)
                    )
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    dial.cancel()
                    try:
                        connected = await dial
                    except asyncio.CancelledError:
                        continue
                    connected.stream.close()

    asyncio.run(main())


def test_the_relay_after_a_handshake_is_cancelled(credential: Credential) -> None:
    """The linked operation: its first half is done, and told; its second is under way."""
    agreed: list[int] = []

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with running() as engine, tunnel_of(engine) as (client, upstream, _):
            handshaken = asyncio.Event()

            def on_handshake(facts: object) -> None:
                agreed.append(1)
                handshaken.set()

            chain = engine.chain().accept_tls(
                client.stream,
                ServerContext(),
                credential,
                alpn=None,
                timeout=HANG_SECONDS,
                done=on_handshake,
            )
            relay = asyncio.ensure_future(chain.relay(client.stream, upstream, **NO_LIMITS).run())
            await asyncio.to_thread(_handshake, context, client)
            await asyncio.wait_for(handshaken.wait(), HANG_SECONDS)
            await _cancel(relay, 1)

    asyncio.run(main())
    assert agreed == [1]


def _handshake(context: ssl.SSLContext, client: Client) -> None:
    tls, incoming, outgoing, hello = memory_client(context, HOST)
    client.socket.sendall(hello)
    while True:
        incoming.write(client.socket.recv(1 << 16))
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
        client.socket.sendall(outgoing.read())
        return


def test_a_relay_is_ended_in_order() -> None:
    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, origin):
            assert not client.stream.end()  # nothing is under way
            relay = asyncio.create_task(client.stream.relay(upstream, **NO_LIMITS))
            client.socket.sendall(b"hello")
            assert await asyncio.to_thread(origin.recv, 100) == b"hello"
            assert client.stream.end()
            facts = await asyncio.wait_for(relay, HANG_SECONDS)
            assert (facts.failure, facts.bytes_up, facts.bytes_down) == ("cancelled", 5, 0)
            client.socket.settimeout(HANG_SECONDS)
            assert client.socket.recv(1) == b""
            assert origin.recv(1) == b""

    asyncio.run(main())


def test_many_cancellations_leave_nothing(chrome: ClientContext, certificate: Path) -> None:
    async def one(engine: Engine, turns: int) -> None:
        async with tunnel_of(engine) as (_, upstream, _origin):
            handshake = upstream.connect_tls(chrome, host=HOST, port=443, alpn=[b"h2"], timeout=HANG_SECONDS)
            await _cancel(asyncio.ensure_future(handshake), turns)

    async def main() -> None:
        async with running() as engine:
            await asyncio.gather(*(one(engine, turns % 7) for turns in range(100)))

    asyncio.run(main())
