"""Several workers as whoever runs them sees them, and tunnels through them."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.serve import HANG_SECONDS, Serve

if TYPE_CHECKING:
    from collections.abc import Iterator


class RefusedError(Exception):
    """What a tunnel was answered."""


def workers_of(served: Serve) -> list[int]:
    """The process numbers of the workers that run now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            state, parent = rest.rpartition(") ")[2].split()[:2]
            if int(parent) == served.pid and state != "Z":
                found.append(int(pid))
    return sorted(found)


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def open_tunnel(served: Serve, host: str, port: int) -> socket.socket:
    """A tunnel, after its 200."""
    connection = socket.create_connection(served.host_and_port, timeout=HANG_SECONDS)
    connection.sendall(b"CONNECT %b:%d HTTP/1.1\r\n\r\n" % (host.encode(), port))
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, reply
        reply += part
    if not reply.startswith(b"HTTP/1.1 200 "):
        connection.close()
        raise RefusedError(reply.split()[1].decode())
    return connection


def ping(connection: socket.socket) -> bool:
    """Whether the tunnel is alive, up to an origin that echoes."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except ConnectionError:
        return False


def spread(served: Serve, host: str, port: int, workers: int) -> list[socket.socket]:
    """Tunnels, enough for every worker to have at least one: the chance that one has none is below e**-64."""
    return [open_tunnel(served, host, port) for _ in range(64 * workers)]


def until(condition: object) -> Iterator[None]:
    """For `for _ in until(...)`: turns, a moment apart, that end in a failure when they take too long."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
    raise TimeoutError(condition)
