"""A thousand tunnels at once, all of them open at the same moment, and none of them lost."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

from tests.peers.clients import client_context, connect
from tests.peers.origin import origin_context, pattern
from tests.peers.serve import Serve, went_well

TUNNELS = 1000
AT_ONCE = 100
"""Handshakes under way in this process; the tunnels stay open."""
ANSWER_BYTES = 2000
ALLOWED_SECONDS = 60.0
"""Some 4 s on two cores, most of it Python's TLS at both ends."""


async def _origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ANSWER_BYTES)
            writer.write(pattern(ANSWER_BYTES))
    except asyncio.IncompleteReadError:
        pass  # the client is done
    finally:
        writer.close()


class Many:
    """The clients. Every one asks once when its tunnel is up, waits until all are, and asks again."""

    def __init__(self, proxy: Serve, host: str, port: int) -> None:
        self._proxy, self._host, self._port = proxy, host, port
        self._context = client_context(proxy.root_pem)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._up = 0
        self._all_up = asyncio.Event()

    async def one(self) -> None:
        async with self._turns:
            plain = await connect(self._proxy.host_and_port, self._host, self._port)
            reader, writer = await asyncio.open_connection(
                sock=plain, ssl=self._context, server_hostname=self._host
            )
            await self._ask(reader, writer)
        self._up += 1
        if self._up == TUNNELS:
            self._all_up.set()
        await self._all_up.wait()
        await self._ask(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % self._host.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(ANSWER_BYTES) == pattern(ANSWER_BYTES)


def test_a_thousand_tunnels_at_once(mitm: Serve, certificate: Path, host: str) -> None:
    async def run(served: ssl.SSLContext) -> None:
        server = await asyncio.start_server(_origin, "127.0.0.1", 0, ssl=served, backlog=TUNNELS)
        async with server:
            many = Many(mitm, host, server.sockets[0].getsockname()[1])
            clients = [asyncio.create_task(many.one()) for _ in range(TUNNELS)]
            try:
                await asyncio.wait_for(asyncio.gather(*clients), ALLOWED_SECONDS)
            finally:
                for client in clients:
                    client.cancel()
                await asyncio.gather(*clients, return_exceptions=True)

    started = time.monotonic()
    asyncio.run(run(origin_context(certificate, alpn=("http/1.1",))))
    records = mitm.records(host, TUNNELS)
    assert time.monotonic() - started < ALLOWED_SECONDS
    failed = [record for record in records if not went_well(record)]
    assert len(records) == TUNNELS
    assert not failed, failed[:3]
    answered = 2 * (ANSWER_BYTES + len(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n"))
    assert {record["bytes_down"] for record in records} == {answered}
