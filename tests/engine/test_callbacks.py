"""What a callback raises is told to the event loop and costs nobody else anything: the completions behind it,
in the same batch, are delivered. The engine is a real one; that its completions come in one batch is seen to
by giving the event loop no turn until all of them wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from polytls.errors import EngineError, ProxyError
from tests.engine.conftest import HOST
from tests.engine.harness import ANY_PORT, HANG_SECONDS, HEAD, Client, client_of, running, settled, tunnel_of
from tests.peers.clients import memory_client

if TYPE_CHECKING:
    from polytls.engine import Accepted, Engine, RelayFacts

NO_LIMITS: Any = {"idle": 0.0, "lifetime": 0.0, "half_idle": 0.0}
OTHERS = 3
"""Completions behind the one whose callback raises."""

ODD = (asyncio.CancelledError("odd"), StopIteration("odd"))
"""What no future can be given as it is."""


class Told(list[BaseException]):
    """What the event loop's handler of exceptions is told, from now on."""

    def __init__(self) -> None:
        super().__init__()
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.append(told["exception"]))


class Raising:
    """A callback that raises, and remembers what it was called with."""

    def __init__(self, error: BaseException) -> None:
        self.heard: list[Any] = []
        self._error = error

    def __call__(self, fact: object) -> None:
        self.heard.append(fact)
        raise self._error


@contextlib.asynccontextmanager
async def greeted() -> AsyncIterator[tuple[Engine, list[Client]]]:
    """An engine of one loop, which completes in the order of submission, and clients whose hello is there."""
    hello = memory_client(ssl.create_default_context(), HOST)[3]
    async with running(threads=1) as engine, contextlib.AsyncExitStack() as stack:
        yield engine, [await stack.enter_async_context(client_of(engine, hello)) for _ in range(OTHERS + 1)]


def until_waiting(engine: Engine, count: int) -> None:
    """Without a turn of the event loop, until so many completions wait to be drained."""
    give_up = time.monotonic() + HANG_SECONDS
    while engine.stats().completions < count:
        assert time.monotonic() < give_up


async def _launch(
    *,
    done: Callable[[Any], None] | None = None,
    over: Callable[[Exception | None], None],
    limit: int = 65536,
) -> list[BaseException]:
    """Several chains of which the first has these callbacks. What the loop was told; the others must have
    succeeded."""
    async with greeted() as (engine, clients):
        told = Told()
        ends: asyncio.Queue[Exception | None] = asyncio.Queue()
        first = engine.chain()
        first.peek_hello(clients[0].stream, timeout=HANG_SECONDS, limit=limit, done=done).launch(over)
        for client in clients[1:]:
            engine.chain().peek_hello(client.stream, timeout=HANG_SECONDS).launch(ends.put_nowait)
        until_waiting(engine, len(clients))
        for _ in range(OTHERS):
            assert await asyncio.wait_for(ends.get(), HANG_SECONDS) is None
        return told


RAISED = (ValueError("over"), *ODD)


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_of_a_success_raises(error: BaseException) -> None:
    over = Raising(error)
    assert asyncio.run(_launch(over=over)) == [error]
    assert over.heard == [None]


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_of_a_failure_raises(error: BaseException) -> None:
    over = Raising(error)
    assert asyncio.run(_launch(over=over, limit=1)) == [error]
    (heard,) = over.heard
    assert isinstance(heard, ProxyError)


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_of_what_a_step_s_listener_raised_raises(error: BaseException) -> None:
    done, over = Raising(KeyError("done")), Raising(error)
    assert asyncio.run(_launch(done=done, over=over)) == [error]
    (heard,) = over.heard
    assert isinstance(heard, KeyError)


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_what_no_waiter_can_be_given(error: BaseException) -> None:
    """It ends the wait with an error that names it, and is told itself."""
    heard: list[Exception | None] = []
    assert asyncio.run(_launch(done=Raising(error), over=heard.append)) == [error]
    (failure,) = heard
    assert isinstance(failure, EngineError)
    assert type(error).__name__ in str(failure)


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_what_no_future_can_be_given(error: BaseException) -> None:
    async def main() -> list[BaseException]:
        async with greeted() as (engine, clients):
            told = Told()
            chain = engine.chain().peek_hello(clients[0].stream, timeout=HANG_SECONDS, done=Raising(error))
            with pytest.raises(EngineError, match=type(error).__name__):
                await asyncio.wait_for(chain.run(), HANG_SECONDS)
            return told

    assert asyncio.run(main()) == [error]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_it_when_all_are_told(ending: type[BaseException]) -> None:
    ended: list[Exception | None] = []

    async def main() -> None:
        async with greeted() as (engine, clients):
            for index, client in enumerate(clients):
                chain = engine.chain().peek_hello(client.stream, timeout=HANG_SECONDS)
                chain.launch(ended.append if index else Raising(ending()))
            until_waiting(engine, len(clients))
            await asyncio.sleep(HANG_SECONDS)

    with pytest.raises(ending):
        asyncio.run(main())
    assert ended == [None] * OTHERS


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_that_a_relay_has_begun_raises(error: BaseException) -> None:
    """Where nothing is to be waited for, it is told at once: the chain was taken, and `launch` says so."""
    ended: asyncio.Queue[RelayFacts] = asyncio.Queue()

    async def main() -> None:
        async with running() as engine, tunnel_of(engine) as (client, upstream, origin):
            told = Told()
            chain = engine.chain().relay(client.stream, upstream, **NO_LIMITS, ended=ended.put_nowait)
            chain.launch(Raising(error))
            assert told == [error]
            client.socket.sendall(b"x")
            assert await asyncio.to_thread(origin.recv, 1) == b"x"
            assert client.stream.end()
            assert (await asyncio.wait_for(ended.get(), HANG_SECONDS)).bytes_up == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_of_a_relays_end_raises(error: BaseException) -> None:
    async def main() -> None:
        async with running(threads=1) as engine, contextlib.AsyncExitStack() as stack:
            told = Told()
            ends: asyncio.Queue[RelayFacts] = asyncio.Queue()
            raising = Raising(error)
            clients = []
            for index in range(OTHERS + 1):
                client, upstream, _ = await stack.enter_async_context(tunnel_of(engine))
                ended = ends.put_nowait if index else raising
                await engine.chain().relay(client.stream, upstream, **NO_LIMITS, ended=ended).run()
                clients.append(client)
            for client in clients:
                assert client.stream.end()
            until_waiting(engine, len(clients))
            for _ in range(OTHERS):
                assert (await asyncio.wait_for(ends.get(), HANG_SECONDS)).failure == "cancelled"
            assert told == [error]
            assert [facts.failure for facts in raising.heard] == ["cancelled"]

    asyncio.run(main())


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_who_is_told_of_a_client_raises(error: BaseException) -> None:
    """The client is let go: nobody else knows of it."""

    async def main() -> None:
        async with running(threads=1) as engine:
            told = Told()
            taken: asyncio.Queue[Accepted] = asyncio.Queue()
            raising = Raising(error)

            def accepted(client: Accepted) -> None:
                if not raising.heard:
                    raising(client)
                taken.put_nowait(client)

            listener = engine.listen(
                ANY_PORT, backlog=8, head_limit=16384, head_timeout=HANG_SECONDS, on_accept=accepted
            )
            where = (listener.address.host, listener.address.port)
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.create_connection(where, timeout=HANG_SECONDS))
                    for _ in range(OTHERS + 1)
                ]
                for client in clients:
                    client.sendall(HEAD)
                until_waiting(engine, len(clients))
                for _ in range(OTHERS):
                    (await asyncio.wait_for(taken.get(), HANG_SECONDS)).stream.close()
                assert told == [error]
                listener.close()
                assert (await settled(engine)).streams == 0

    asyncio.run(main())
