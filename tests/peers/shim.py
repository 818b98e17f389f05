"""Ports in the middle, which keep what the client sends: `Tap` before a server, `Shim` before a proxy.

A shim is the far end of a proxy's tunnel, so that a client which knows of no proxy goes through one.

Each connection to it becomes a CONNECT to the proxy, and every byte the client sends is kept: what the
client's hello was, before the proxy had it. A client that sends CONNECT itself (to be told an address) is
answered here.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.golden.recorder import SentHello, sent_hellos
from tests.peers.clients import connect_head, read_head
from tests.peers.serve import HANG_SECONDS

if TYPE_CHECKING:
    from typing_extensions import Self

_READ_BYTES = 1 << 16


@dataclass
class _Kept:
    data: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens until left. `port` is where; every connection goes on to `target`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._kept: list[_Kept] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def sent(self) -> list[bytes]:
        """What each client sent so far, as accepted."""
        return [bytes(kept.data) for kept in self._kept]

    @property
    def connections(self) -> list[list[SentHello]]:
        """The hellos of each client that sent one."""
        return [hellos for data in self.sent if (hellos := sent_hellos(data))]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # left
            kept = _Kept()
            self._kept.append(kept)
            threading.Thread(target=self._serve, args=(client, kept), daemon=True).start()

    def _serve(self, client: socket.socket, kept: _Kept) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(HANG_SECONDS)
            with socket.create_connection(self._target, timeout=HANG_SECONDS) as server:
                if not self._begin(client, server):
                    return
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server, kept)
                back.join(HANG_SECONDS)

    def _begin(self, client: socket.socket, server: socket.socket) -> bool:
        """What comes before the client's bytes; False: there is nothing to be had."""
        return True


class Shim(Tap):
    """A tap whose target is a proxy, and whose connections are tunnels through it."""

    def __init__(self, proxy: tuple[str, int], host: str, port: int, *fields: str) -> None:
        """Tunnels go to `host` and `port`, with `fields` in the head of each CONNECT."""
        super().__init__(proxy)
        self._head = connect_head(host, port, *fields)

    def _begin(self, client: socket.socket, server: socket.socket) -> bool:
        if client.recv(1, socket.MSG_PEEK) == b"C":
            read_head(client)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        server.sendall(self._head)
        return read_head(server).startswith(b"HTTP/1.1 200 ")


def _copy(source: socket.socket, target: socket.socket, kept: _Kept | None = None) -> None:
    """Until the source ends; then the target is told."""
    with contextlib.suppress(OSError):
        while data := source.recv(_READ_BYTES):
            if kept is not None:
                kept.data += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
