"""Chains: one submission, one await, everything told in order, and a relay that nobody waits for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from polytls.engine import ClientContext, Credential, RelayFacts, ServerContext, SocketAddress
from polytls.errors import Kind, ProxyError, Stage
from tests.engine.conftest import HOST
from tests.engine.harness import (
    HANG_SECONDS,
    client_of,
    listening,
    nobody,
    running,
    tunnel_of,
)
from tests.peers.clients import memory_client
from tests.peers.tools import s_server

if TYPE_CHECKING:
    from pathlib import Path

NO_LIMITS: Any = {"idle": 0.0, "lifetime": 0.0, "half_idle": 0.0}


def test_a_relay_that_nobody_waits_for_tells_its_end() -> None:
    told: list[str] = []
    ended: asyncio.Queue[RelayFacts] = asyncio.Queue()

    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with listening() as (listener, address):
                chain = engine.chain()
                chain.connect(
                    client.stream, [address], timeout=HANG_SECONDS, done=lambda _: told.append("up")
                )
                chain.write(client.stream, b"200", timeout=HANG_SECONDS)
                chain.relay(client.stream, None, **NO_LIMITS, ended=ended.put_nowait)
                await chain.run()  # while the tunnel goes on
                assert told == ["up"]
                assert ended.empty()
                origin, _ = listener.accept()
                with origin:
                    assert await asyncio.to_thread(client.socket.recv, 3) == b"200"
                    client.socket.sendall(b"ping")
                    assert await asyncio.to_thread(origin.recv, 4) == b"ping"
                    client.socket.shutdown(socket.SHUT_WR)
                facts = await asyncio.wait_for(ended.get(), HANG_SECONDS)
                assert (facts.failure, facts.bytes_up) == (None, 4)

    asyncio.run(main())


def test_a_relay_whose_chain_fails_never_began() -> None:
    ended: list[RelayFacts] = []

    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            chain = engine.chain().connect(client.stream, [nobody()], timeout=HANG_SECONDS)
            chain.write(client.stream, b"200", timeout=HANG_SECONDS)
            with pytest.raises(ProxyError) as caught:
                await chain.relay(client.stream, None, **NO_LIMITS, ended=ended.append).run()
            assert (caught.value.stage, caught.value.kind) == (Stage.CONNECT, Kind.CONNECT_REFUSED)
            await client.stream.write(b"502", timeout=HANG_SECONDS)  # it is as it was
            assert await asyncio.to_thread(client.socket.recv, 3) == b"502"

    asyncio.run(main())
    assert ended == []


def test_a_relay_alone_is_begun_and_not_waited_for() -> None:
    ended: asyncio.Queue[RelayFacts] = asyncio.Queue()

    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, origin):
            await engine.chain().relay(client.stream, upstream, **NO_LIMITS, ended=ended.put_nowait).run()
            client.socket.sendall(b"x")
            assert await asyncio.to_thread(origin.recv, 1) == b"x"
            assert client.stream.end()
            facts = await asyncio.wait_for(ended.get(), HANG_SECONDS)
            assert (facts.failure, facts.bytes_up) == ("cancelled", 1)
            assert not client.stream.end()

    asyncio.run(main())


def test_what_a_step_s_listener_raises_ends_the_wait() -> None:
    """The chain itself goes on natively, and what it makes is disposed of by whoever heard of it."""

    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with listening() as (_, address):
                made: list[Any] = []

                def refuse(connected: object) -> None:
                    made.append(connected)
                    raise ValueError("not this one")

                chain = engine.chain().connect(client.stream, [address], timeout=HANG_SECONDS, done=refuse)
                with pytest.raises(ValueError, match="not this one"):
                    await chain.write(client.stream, b"200", timeout=HANG_SECONDS).run()
                made[0].stream.close(reset=True)

    asyncio.run(main())


@pytest.mark.parametrize("chosen", ["h2", "http/1.1", None])
def test_the_client_agrees_on_what_upstream_chose(
    chrome: ClientContext, credential: Credential, certificate: Path, chosen: str | None
) -> None:
    options = [] if chosen is None else ["-alpn", chosen]
    pairs = ((b"h2", b"h2"), (b"http/1.1", b"http/1.1"), (None, b"http/1.1"))
    context = _client_context(["h2", "http/1.1"])

    async def main(port: int) -> None:
        async with running() as engine, client_of(engine) as client:
            upstream = await _dialled(engine, client, port)
            tls, incoming, outgoing, hello = memory_client(context, HOST)
            client.socket.sendall(hello)
            chain = engine.chain().connect_tls(
                upstream, chrome, host=HOST, port=443, alpn=[b"h2", b"http/1.1"], timeout=HANG_SECONDS
            )
            accept = chain.accept_tls_like(
                client.stream,
                ServerContext(),
                credential,
                upstream=upstream,
                alpn=pairs,
                timeout=HANG_SECONDS,
            ).run()
            agreed = asyncio.ensure_future(accept)
            await asyncio.to_thread(_shake, tls, incoming, outgoing, client.socket)
            facts = await agreed
            assert facts.alpn == (chosen or "http/1.1").encode()
            assert tls.selected_alpn_protocol() == (chosen or "http/1.1")
            upstream.close()

    with s_server(certificate, "-www", *options) as port:
        asyncio.run(main(port))


def test_a_choice_that_fits_nothing_is_told_before_the_client_hears_of_it(
    chrome: ClientContext, credential: Credential, certificate: Path
) -> None:
    async def main(port: int) -> None:
        async with running() as engine, client_of(engine) as client:
            upstream = await _dialled(engine, client, port)
            *_, hello = memory_client(_client_context(["h2"]), HOST)
            client.socket.sendall(hello)
            chain = engine.chain().connect_tls(
                upstream, chrome, host=HOST, port=443, alpn=[b"h2"], timeout=HANG_SECONDS
            )
            with pytest.raises(ProxyError) as caught:
                await chain.accept_tls_like(
                    client.stream,
                    ServerContext(),
                    credential,
                    upstream=upstream,
                    alpn=((None, None),),
                    timeout=HANG_SECONDS,
                ).run()
            assert (caught.value.stage, caught.value.kind) == (Stage.ALPN, Kind.ALPN_MISMATCH)
            assert (await client.stream.peek_hello(timeout=HANG_SECONDS)).size == len(hello)
            upstream.close()

    with s_server(certificate, "-www", "-alpn", "h2") as port:
        asyncio.run(main(port))


async def _dialled(engine: Any, client: Any, port: int) -> Any:
    address = SocketAddress("127.0.0.1", port)
    return (await engine.connect(client.stream, [address], timeout=HANG_SECONDS)).stream


def _client_context(alpn: list[str]) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context


def _shake(tls: Any, incoming: Any, outgoing: Any, connection: socket.socket) -> None:
    while True:
        incoming.write(connection.recv(1 << 16))
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
        connection.sendall(outgoing.read())
        return
