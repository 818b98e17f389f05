"""`Stream` against sockets and OpenSSL: what each operation tells, and what its failures are called."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polytls.engine import ClientContext, Credential, ServerContext, SocketAddress, Trust
from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.wire.client_hello import parse_client_hello
from tests.engine.conftest import HOST
from tests.engine.harness import HANG_SECONDS, Client, client_of, running, tunnel_of
from tests.peers.clients import memory_client
from tests.peers.origin import Origin, origin_context, pattern

if TYPE_CHECKING:
    from polytls.profiles import Catalog

NO_LIMITS: Any = {"idle": 0.0, "lifetime": 0.0, "half_idle": 0.0}


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_reading_takes_what_is_there_and_no_more_than_asked() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine, b"0123456789") as client:
            stream = client.stream
            assert await stream.read(4, timeout=HANG_SECONDS) == b"0123"
            assert await stream.read(100, timeout=HANG_SECONDS) == b"456789"
            client.socket.sendall(b"GET / HTTP/1.1\r\n\r\nrest")
            assert await stream.read_head(100, timeout=HANG_SECONDS) == b"GET / HTTP/1.1\r\n\r\n"
            assert await stream.read(100, timeout=HANG_SECONDS) == b"rest"
            client.socket.close()
            with pytest.raises(ProxyError) as caught:
                await stream.read(1, timeout=HANG_SECONDS)
            assert (caught.value.side, caught.value.kind) == (Side.CLIENT, Kind.CLIENT_CLOSED)

    asyncio.run(main())


def test_deadlines() -> None:
    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, _):
            for wait in (
                client.stream.read(1, timeout=0.02),
                client.stream.peek_hello(timeout=0.02),
                client.stream.write(bytes(64 << 20), timeout=0.02),
            ):
                with pytest.raises(ProxyError) as caught:
                    await wait
                assert caught.value.kind in (Kind.HEAD_TIMEOUT, Kind.HELLO_TIMEOUT)
            facts = await upstream.relay(client.stream, idle=0.02, lifetime=0, half_idle=0)
            assert facts.failure == "idle"
        async with running() as engine, tunnel_of(engine) as (client, upstream, _):
            facts = await client.stream.relay(upstream, idle=0, lifetime=0.02, half_idle=0)
            assert facts.failure in ("lifetime", "timeout")

    asyncio.run(main())


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_peek_consumes_nothing(pieces: int) -> None:
    context = _client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    *_, hello = memory_client(context, HOST)
    step = len(hello) // pieces + 1

    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            chain = engine.chain().write(client.stream, b"200", timeout=HANG_SECONDS)
            peek = asyncio.create_task(chain.peek_hello(client.stream, timeout=HANG_SECONDS, raw=True).run())
            assert await asyncio.to_thread(client.socket.recv, 3) == b"200"
            for start in range(0, len(hello), step):
                client.socket.sendall(hello[start : start + step])
                await asyncio.sleep(0)
            facts = await peek
            assert (facts.sni, facts.alpn) == (HOST.encode(), (b"h2", b"http/1.1"))
            assert (facts.size, facts.max_version, facts.ecdsa_ok) == (len(hello), 0x0304, True)
            assert facts.raw == hello
            assert parse_client_hello(facts.raw).sni == facts.sni
            again = await client.stream.peek_hello(timeout=HANG_SECONDS)
            assert (again.sni, again.raw) == (facts.sni, None)
            read = b""
            while len(read) < len(hello):
                read += await client.stream.read(1 << 16, timeout=HANG_SECONDS)
            assert read == hello

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Kind.NOT_TLS),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Kind.HELLO_MALFORMED),
        (b"\x16\x03\x01\x00\x00", Kind.HELLO_MALFORMED),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", Kind.HELLO_MALFORMED),
    ],
)
def test_what_is_no_hello(sent: bytes, kind: Kind) -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine, sent) as client:
            with pytest.raises(ProxyError) as caught:
                await client.stream.peek_hello(timeout=HANG_SECONDS)
            error = caught.value
            assert (error.side, error.stage, error.kind) == (Side.CLIENT, Stage.HELLO, kind)

    asyncio.run(main())


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_limit_of_a_hello_is_exact(over: int) -> None:
    *_, hello = memory_client(_client_context(), HOST)

    async def main() -> None:
        async with running() as engine, client_of(engine, hello) as client:
            peek = client.stream.peek_hello(limit=len(hello) - over, timeout=HANG_SECONDS)
            if over <= 0:
                assert (await peek).size == len(hello)
                return
            with pytest.raises(ProxyError) as caught:
                await peek
            assert caught.value.kind is Kind.HELLO_TOO_LARGE

    asyncio.run(main())


@pytest.mark.parametrize("profile", ["default", "chrome", "firefox", "safari"])
@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_as_a_tls_client(
    catalog: Catalog, trust: Trust, certificate: Path, profile: str, maximum: ssl.TLSVersion
) -> None:
    spec = catalog.require(profile, source="test", key="")
    context = ClientContext(spec, trust, verify_chain=True, verify_host=True)

    async def main(origin: Origin) -> None:
        async with running() as engine, client_of(engine) as client:
            address = SocketAddress("127.0.0.1", origin.port)
            upstream = (await engine.connect(client.stream, [address], timeout=HANG_SECONDS)).stream
            facts = await upstream.connect_tls(
                context, host=HOST, port=origin.port, alpn=[b"http/1.1"], timeout=HANG_SECONDS
            )
            assert facts.version == maximum.value
            assert facts.alpn == b"http/1.1"
            assert not facts.resumed
            assert facts.started_ns <= facts.ended_ns
            await upstream.write(b"GET / HTTP/1.1\r\n\r\n", timeout=HANG_SECONDS)
            assert (await upstream.read_head(1000, timeout=HANG_SECONDS)).startswith(b"HTTP/1.1 200 ")
            body = b""
            while not body.endswith(b"}"):
                body += await upstream.read(1 << 16, timeout=HANG_SECONDS)
            assert json.loads(body)["sni"] == HOST
            upstream.close()

    with Origin(origin_context(certificate, maximum=maximum)) as origin:
        asyncio.run(main(origin))


@pytest.mark.parametrize(
    ("offered", "agreed", "answered"),
    [
        (["h2", "http/1.1"], b"h2", "h2"),
        (["http/1.1"], b"http/1.1", "http/1.1"),
        ([], b"h2", None),  # a client without ALPN is not forced into it
        (["h2"], None, None),
    ],
)
def test_as_a_tls_server(
    credential: Credential, offered: list[str], agreed: bytes | None, answered: str | None
) -> None:
    context = _client_context()
    if offered:
        context.set_alpn_protocols(offered)

    def talk(client: Client) -> tuple[str | None, bytes]:
        with context.wrap_socket(client.socket, server_hostname=HOST, suppress_ragged_eofs=False) as tls:
            tls.sendall(pattern(100_000))
            answer = tls.recv(100)
            assert tls.recv(1) == b""  # close_notify: anything less would raise
            return tls.selected_alpn_protocol(), answer

    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            talking = asyncio.create_task(asyncio.to_thread(talk, client))
            facts = await client.stream.accept_tls(
                ServerContext(), credential, alpn=agreed, timeout=HANG_SECONDS
            )
            assert facts.version == 0x0304
            assert facts.alpn == (None if answered is None else answered.encode())
            received = b""
            while len(received) < 100_000:
                received += await client.stream.read(1 << 16, timeout=HANG_SECONDS)
            assert received == pattern(100_000)
            await client.stream.write(b"bye", timeout=HANG_SECONDS)
            client.stream.close()
            assert await talking == (answered, b"bye")

    asyncio.run(main())


def test_a_client_with_other_protocols_gets_an_alert(credential: Credential) -> None:
    context = _client_context()
    context.set_alpn_protocols(["http/1.1"])
    *_, hello = memory_client(context, HOST)

    async def main() -> None:
        async with running() as engine, client_of(engine, hello) as client:
            with pytest.raises(ProxyError) as caught:
                await client.stream.accept_tls(ServerContext(), credential, alpn=b"h2", timeout=HANG_SECONDS)
            assert (caught.value.kind, caught.value.alert) == (Kind.ALPN_MISMATCH, 120)
            client.stream.close()
            client.socket.settimeout(HANG_SECONDS)
            assert client.socket.recv(100) == b"\x15\x03\x03\x00\x02\x02\x78"

    asyncio.run(main())


def test_closing_with_an_alert_before_tls() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            client.stream.close(alert=112)
            client.socket.settimeout(HANG_SECONDS)
            assert client.socket.recv(100)[-2:] == b"\x02\x70"
            assert client.socket.recv(100) == b""

    asyncio.run(main())


def test_closing_by_reset() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            client.stream.close(reset=True)
            client.socket.settimeout(HANG_SECONDS)
            with pytest.raises(ConnectionResetError):
                client.socket.recv(1)

    asyncio.run(main())


def test_what_was_written_arrives_although_the_client_still_talks() -> None:
    """A close that resets would take the answer away from a client that has not read it yet."""

    async def main() -> None:
        async with running() as engine, client_of(engine, b"x" * 100_000) as client:
            await client.stream.write(b"the answer", timeout=HANG_SECONDS)
            client.stream.close()
            client.socket.settimeout(HANG_SECONDS)
            client.socket.sendall(b"y" * 1000)
            assert client.socket.recv(100) == b"the answer"
            assert client.socket.recv(100) == b""
            client.socket.close()

    asyncio.run(main())


def test_a_relay_tells_what_it_moved() -> None:
    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, origin):
            chain = engine.chain().write(client.stream, b"200", timeout=HANG_SECONDS)
            relay = asyncio.create_task(chain.relay(client.stream, upstream, **NO_LIMITS).run())
            assert await asyncio.to_thread(client.socket.recv, 3) == b"200"
            client.socket.sendall(b"up")
            assert await asyncio.to_thread(origin.recv, 10) == b"up"
            origin.sendall(b"down!")
            assert await asyncio.to_thread(client.socket.recv, 10) == b"down!"
            client.socket.close()
            origin.close()
            facts = await asyncio.wait_for(relay, HANG_SECONDS)
            assert (facts.failure, facts.bytes_up, facts.bytes_down) == (None, 2, 5)
            assert facts.started_ns <= facts.first_byte_ns <= facts.ended_ns

    asyncio.run(main())


def test_a_handshake_that_fails_leaves_upstream_open(credential: Credential) -> None:
    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, origin):
            client.socket.sendall(b"no TLS at all, by no means")
            chain = engine.chain().accept_tls(
                client.stream, ServerContext(), credential, alpn=None, timeout=HANG_SECONDS
            )
            with pytest.raises(ProxyError) as caught:
                await chain.relay(client.stream, upstream, **NO_LIMITS).run()
            assert caught.value.stage is Stage.CLIENT_TLS
            await upstream.write(b"still open", timeout=HANG_SECONDS)
            assert await asyncio.to_thread(origin.recv, 100) == b"still open"

    asyncio.run(main())
