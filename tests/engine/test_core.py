"""`Engine`: starting, listening, connecting, closing; handles that are no longer any."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
from pathlib import Path

import pytest

from polytls.engine import Engine, SocketAddress
from polytls.errors import EngineError, Kind, PolytlsError, ProxyError, Side, Stage
from polytls.settings import Address
from tests.engine.harness import (
    HANG_SECONDS,
    HEAD,
    Acceptor,
    black_hole,
    client_of,
    listening,
    nobody,
    running,
    settled,
    tunnel_of,
)

LINUX_UNREACHABLE = SocketAddress("255.255.255.255", 443)
"""Nobody can connect to the broadcast address; the kernel says so at once."""


def test_threads() -> None:
    async def main() -> None:
        async with running(threads=3) as engine:
            assert engine.threads == 3
        async with running(threads=0) as engine:
            assert engine.threads >= 1

    asyncio.run(main())
    assert "BoringSSL" in Engine.versions()


def _loop_threads() -> int:
    """Threads of this process that bear the name of a loop: they name themselves, and take a moment to go."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            names.append((task / "comm").read_text().strip())
    return sum(re.fullmatch(r"polytls-\d+", name) is not None for name in names)


def test_closing_ends_the_threads_and_may_be_repeated() -> None:
    async def until(count: int) -> None:
        deadline = asyncio.get_running_loop().time() + HANG_SECONDS
        while _loop_threads() != count:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.002)

    async def main() -> None:
        before = _loop_threads()  # other tests may have an engine of their own
        engine = Engine.start(threads=4)
        await until(before + 4)
        await engine.close()
        await engine.close()
        assert engine.closed
        await until(before)

    asyncio.run(main())


def test_two_engines_know_nothing_of_each_other() -> None:
    async def main() -> None:
        async with running() as one, running() as two, client_of(one) as client:
            assert two.stats().streams == 0
            await two.close()
            client.socket.sendall(b"still there")
            assert await client.stream.read(100, timeout=HANG_SECONDS) == b"still there"

    asyncio.run(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        async with running() as engine:
            with listening() as (_, address), pytest.raises(OSError, match="in use") as caught:
                engine.listen(
                    Address(address.ip, address.port),
                    backlog=1,
                    head_limit=100,
                    head_timeout=1,
                    on_accept=lambda _accepted: None,
                )
            assert caught.value.errno == errno.EADDRINUSE

    asyncio.run(main())


def test_an_address_of_another_machine() -> None:
    async def main() -> None:
        async with running() as engine:
            with pytest.raises(OSError, match=r".") as caught:
                engine.listen(
                    Address("192.0.2.1", 0),  # RFC 5737: nobody's
                    backlog=1,
                    head_limit=100,
                    head_timeout=1,
                    on_accept=lambda _accepted: None,
                )
            assert caught.value.errno == errno.EADDRNOTAVAIL

    asyncio.run(main())


def test_a_listener_that_is_closed_accepts_nobody() -> None:
    async def main() -> None:
        async with running() as engine:
            acceptor = Acceptor(engine)
            address = acceptor.listener.address
            assert address.port != 0
            client = await acceptor.client()
            acceptor.listener.close()
            acceptor.listener.close()
            client.socket.sendall(b"I was there before")
            assert await client.stream.read(100, timeout=HANG_SECONDS) == b"I was there before"
            client.stream.close()
            client.socket.close()
            await settled(engine)  # the loop threads have got that far

            def refused() -> bool:
                try:
                    socket.create_connection((address.host, address.port), timeout=HANG_SECONDS).close()
                except ConnectionRefusedError:
                    return True
                return False

            assert refused()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "failure"),
    [
        (HEAD, None),
        (b"x" * 20000, "too_large"),
        (HEAD[:-2], "closed"),
        (b"\x16\x03\x01\x00\x05hello", "malformed"),
    ],
)
def test_what_listeners_tell(sent: bytes, failure: str | None) -> None:
    async def main() -> None:
        async with running() as engine:
            acceptor = Acceptor(engine)
            address = acceptor.listener.address
            with socket.create_connection((address.host, address.port)) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                accepted = await acceptor.next()
                assert accepted.failure == failure
                host, port = client.getsockname()
                assert accepted.client == f"{host}:{port}"
                assert accepted.started_ns <= accepted.ended_ns
                if failure is None:
                    assert accepted.head == HEAD
                accepted.stream.close()
            acceptor.listener.close()

    asyncio.run(main())


def test_a_slow_head() -> None:
    async def main() -> None:
        async with running() as engine:
            acceptor = Acceptor(engine, head_timeout=0.05)
            address = acceptor.listener.address
            with socket.create_connection((address.host, address.port)) as client:
                client.sendall(HEAD[:10])
                accepted = await acceptor.next()
                assert accepted.failure == "timeout"
                await accepted.stream.write(b"too slow", timeout=HANG_SECONDS)
                accepted.stream.close()
                client.settimeout(HANG_SECONDS)
                assert client.recv(100) == b"too slow"
            acceptor.listener.close()

    asyncio.run(main())


# Connecting


def test_the_next_address_is_tried_when_one_refuses() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with listening() as (_, good):
                wrong = nobody()
                connected = await engine.connect(
                    client.stream, [wrong, wrong, good], stagger=HANG_SECONDS, timeout=HANG_SECONDS
                )
                assert connected.address == good
                assert connected.stream.side is Side.UPSTREAM
                connected.stream.close()

    asyncio.run(main())


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with black_hole() as hole, listening() as (_, good):
                connected = await engine.connect(
                    client.stream, [hole, good], stagger=0.02, timeout=HANG_SECONDS
                )
                assert connected.address == good
                connected.stream.close()

    asyncio.run(main())


def test_ipv6() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
                address = SocketAddress("::1", listener.getsockname()[1])
                connected = await engine.connect(client.stream, [address], timeout=HANG_SECONDS)
                assert str(connected.address) == f"[::1]:{address.port}"
                connected.stream.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "timeout"),
    [
        (Kind.CONNECT_REFUSED, HANG_SECONDS),
        (Kind.CONNECT_UNREACHABLE, HANG_SECONDS),
        (Kind.CONNECT_TIMEOUT, 0.05),
    ],
)
def test_nobody_answers(kind: Kind, timeout: float) -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            with black_hole() as hole:
                addresses = {
                    Kind.CONNECT_REFUSED: [nobody(), nobody()],
                    Kind.CONNECT_UNREACHABLE: [LINUX_UNREACHABLE],
                    Kind.CONNECT_TIMEOUT: [hole],
                }[kind]
                with pytest.raises(ProxyError) as caught:
                    await engine.connect(client.stream, addresses, timeout=timeout)
            error = caught.value
            assert (error.side, error.stage, error.kind) == (Side.UPSTREAM, Stage.CONNECT, kind)
            for address in addresses:
                assert str(address) in error.detail

    asyncio.run(main())


# Handles


def test_a_handle_that_was_closed_is_nobodys() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            stream = client.stream
            stream.close()
            stream.close()
            for operation in (
                stream.read(1, timeout=HANG_SECONDS),
                stream.write(b"x", timeout=HANG_SECONDS),
                stream.peek_hello(timeout=HANG_SECONDS),
                engine.connect(stream, [nobody()], timeout=HANG_SECONDS),
            ):
                with pytest.raises(PolytlsError) as caught:
                    await operation
                assert isinstance(caught.value, EngineError), caught.value

    asyncio.run(main())


def test_a_stream_runs_one_operation_at_a_time() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            reading = asyncio.create_task(client.stream.read(100, timeout=HANG_SECONDS))
            await asyncio.sleep(0)
            with pytest.raises(EngineError, match="busy"):
                await client.stream.read(100, timeout=HANG_SECONDS)
            client.socket.sendall(b"for the first")
            assert await reading == b"for the first"

    asyncio.run(main())


def test_closing_a_stream_ends_its_operation() -> None:
    async def main() -> None:
        async with running() as engine, client_of(engine) as client:
            reading = asyncio.create_task(client.stream.read(100, timeout=HANG_SECONDS))
            await asyncio.sleep(0)
            client.stream.close()
            with pytest.raises(ProxyError) as caught:
                await reading
            assert caught.value.kind is Kind.CANCELLED

    asyncio.run(main())


# Closing


def test_closing_the_engine_with_everything_under_way() -> None:
    async def main() -> None:
        engine = Engine.start(threads=2)
        with black_hole() as hole:
            async with (
                tunnel_of(engine) as (client, upstream, _),
                client_of(engine) as reader,
                client_of(engine) as dialler,
            ):
                relay = asyncio.create_task(client.stream.relay(upstream, idle=0, lifetime=0, half_idle=0))
                read = asyncio.create_task(reader.stream.read(1, timeout=HANG_SECONDS))
                dial = asyncio.create_task(engine.connect(dialler.stream, [hole], timeout=HANG_SECONDS))
                await asyncio.sleep(0)
                await engine.close()
                facts = await asyncio.wait_for(relay, HANG_SECONDS)
                assert facts.failure in ("shutdown", "cancelled")
                for task in (read, dial):
                    with pytest.raises(PolytlsError):
                        await asyncio.wait_for(task, HANG_SECONDS)
                stats = engine.stats()
                assert (stats.streams, stats.operations, stats.impossible) == (0, 0, 0)
                client.socket.settimeout(HANG_SECONDS)
                assert client.socket.recv(1) == b""
                with pytest.raises(EngineError, match=r"closed|shutdown"):
                    await reader.stream.read(1, timeout=1)

    asyncio.run(main())


def test_what_came_when_nobody_listened_any_more() -> None:
    """Heads that were complete when the engine stopped must not end in an exception."""

    async def main() -> None:
        engine = Engine.start(threads=1)
        acceptor = Acceptor(engine)
        address = acceptor.listener.address
        clients = [socket.create_connection((address.host, address.port)) for _ in range(20)]
        for client in clients:
            client.sendall(HEAD)
        await engine.close()
        acceptor.listener.close()
        for client in clients:
            client.close()

    asyncio.run(main())
