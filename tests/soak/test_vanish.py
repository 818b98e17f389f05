"""The origin goes away: at every step of a tunnel, by every way there is to go.

Each tunnel ends in one record with the kind that says so, within its deadline, and the next tunnel goes well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import struct
import threading
from enum import Enum
from typing import TYPE_CHECKING

import pytest

from tests.bench.spawn import Origin, origin
from tests.soak.clients import PATIENCE_SECONDS, Conversation, attempt, conversation, outcomes
from tests.soak.load import ORIGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.soak.driver import Driven

HOST = "get-1.origin.test"
TIMEOUTS = {"connect": 1.0, "handshake": 1.0, "hello": 5.0, "idle": 1.0, "half_closed": 1.0}


class Step(Enum):
    """Up to where the origin goes along."""

    ACCEPT = "accept"  # it accepts, and reads nothing
    HELLO = "hello"  # it has read the ClientHello
    FLIGHT = "flight"  # it has sent half of its flight
    FINISHED = "finished"  # its handshake is done
    BODY = "body"  # it has sent half of its answer


class Way(Enum):
    """How it then goes."""

    FIN = "fin"
    RESET = "reset"
    SILENCE = "silence"


_HANDSHAKE = {
    Way.FIN: {"upstream_closed", "upstream_reset"},
    Way.RESET: {"upstream_closed", "upstream_reset"},
    Way.SILENCE: {"upstream_handshake_timeout"},
}
ENDINGS = {
    Step.ACCEPT: _HANDSHAKE,
    Step.HELLO: _HANDSHAKE,
    Step.FLIGHT: _HANDSHAKE,
    # A FIN in the relay ends that direction, as a truncation; then the client leaves.
    Step.FINISHED: {Way.FIN: {"completed"}, Way.RESET: {"upstream_reset"}, Way.SILENCE: {"idle_timeout"}},
    Step.BODY: {Way.FIN: {"completed"}, Way.RESET: {"upstream_reset"}, Way.SILENCE: {"idle_timeout"}},
}


class Vanishing:
    """An origin for one connection, which goes along up to `step` and then goes away."""

    def __init__(self, directory: Path, step: Step, way: Way) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "leaf.pem", directory / "leaf.key")
        self._step, self._way = step, way
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()  # silence lasts until then
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(OSError), connection:
            self._go_along(connection)
            if self._way is Way.RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if self._way is Way.SILENCE:
                self.over.wait(PATIENCE_SECONDS)

    def _go_along(self, connection: socket.socket) -> None:
        if self._step is Step.ACCEPT:
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65536))
        if self._step is Step.HELLO:
            return
        flight = self._shake(tls, outgoing)
        if self._step is Step.FLIGHT:
            connection.sendall(flight[: len(flight) // 2])
            return
        connection.sendall(flight)
        while True:
            incoming.write(connection.recv(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        connection.sendall(outgoing.read())
        if self._step is Step.FINISHED:
            return
        while True:  # the request
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.read(65536)
                break
            incoming.write(connection.recv(65536))
        tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
        connection.sendall(outgoing.read())

    @staticmethod
    def _shake(tls: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        return outgoing.read()

    def close(self) -> None:
        self.over.set()
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="module")
def proxy(upstream: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    from tests.soak.driver import driven

    with driven(tmp_path_factory.mktemp("proxy"), upstream.ca, wanted={"timeouts": TIMEOUTS}) as found:
        yield found


def _one_more(before: dict[str, int], after: dict[str, int]) -> str:
    grown = [name for name, count in after.items() for _ in range(count - before.get(name, 0))]
    assert len(grown) == 1, grown
    return grown[0]


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("step", Step)
def test_an_origin_that_goes_away(proxy: Driven, upstream: Origin, step: Step, way: Way) -> None:
    before = outcomes(proxy.snapshot())
    gone = Vanishing(upstream.ca.parent, step, way)
    try:
        said = attempt(proxy, HOST, gone.port)
        ended = _one_more(before, outcomes(proxy.snapshot()))
    finally:
        gone.close()
    # A reset may come before anybody has looked at the connection, which is then as good as never made.
    if (step, way, ended) == (Step.ACCEPT, Way.RESET, "connect_unreachable"):
        assert said == "refused 502"
    else:
        assert said.startswith("failed: "), said
        assert ended in ENDINGS[step][way]
    assert attempt(proxy, HOST, upstream.port) == "ok"


def _answers(talk: Conversation) -> bool:
    try:
        talk.get(5000, 2)
    except OSError:
        return False
    return True


def test_an_origin_that_never_accepts(proxy: Driven, upstream: Origin) -> None:
    before = outcomes(proxy.snapshot())
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):  # Linux drops what a full backlog cannot take
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        assert attempt(proxy, HOST, hole.getsockname()[1]) == "refused 504"
    assert _one_more(before, outcomes(proxy.snapshot())) == "connect_timeout"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_origin_that_is_killed_or_stopped(
    start: Callable[..., Driven], tmp_path: Path, how: signal.Signals
) -> None:
    """A real one, with tunnels in their relay; those to another origin go on."""
    with (
        origin(ORIGIN, tmp_path / "doomed") as doomed,
        origin(ORIGIN, tmp_path / "other") as other,
    ):
        roots = tmp_path / "roots.pem"
        roots.write_bytes(doomed.ca.read_bytes() + other.ca.read_bytes())
        subject = start(ca=str(roots), timeouts=TIMEOUTS)
        with (
            conversation(subject, "get-1.origin.test", doomed.port) as lost,
            conversation(subject, "get-2.origin.test", other.port) as kept,
        ):
            lost.get(5000, 1)
            kept.get(5000, 1)
            os.kill(doomed.pid, how)
            said: list[bool] = []
            asking = threading.Thread(target=lambda: said.append(_answers(lost)))
            asking.start()
            while asking.is_alive():  # no tunnel that is used idles
                kept.get(5000, 2)
            asking.join()
            assert said == [False]
            new = attempt(subject, "get-3.origin.test", doomed.port)
            assert new.startswith("refused 502" if how is signal.SIGKILL else "failed: ")
        if how is signal.SIGSTOP:
            os.kill(doomed.pid, signal.SIGCONT)
        # `kept` may have idled while the new one waited.
        assert attempt(subject, "get-4.origin.test", other.port) == "ok"
        ended = outcomes(subject.snapshot())
    assert set(ended) <= {
        "completed",
        "upstream_reset",
        "connect_refused",
        "idle_timeout",
        "upstream_handshake_timeout",
    }, ended
    assert sum(ended.values()) == 4
