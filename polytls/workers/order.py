"""What supervisor and worker tell each other, over a socket pair that both hold one end of.

Down: the length (4 bytes), then an `Order`, pickled; after that one byte for each wish to stop, the first to
drain, the second to end at once. An end of file is such a wish, too: the supervisor is gone. Up: one
`Answer`, as a line of JSON, when the worker listens or when it cannot. That the worker is gone is an end of
file.

Pickles only go from a process to one that it has started itself.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.settings import Settings

STOP = b"s"

_LENGTH = struct.Struct(">I")
_MAX_ANSWER_BYTES = 1 << 20
"""A sentence or two."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do. `settings` are its own: its share of tunnels and threads, and the port that was
    really taken. `tunnels` is the limit of all workers together. The rest are descriptors it inherits."""

    settings: Settings
    origins: dict[str, str]
    number: int
    workers: int
    tunnels: int
    listener: int
    numbers: int
    lines: int
    notes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: `problem` is None where the worker listens, else a sentence, about a user's mistake or
    something else."""

    threads: int = 0
    root_fingerprint: str | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    users_mistake: bool = False


def send_order(channel: socket.socket, order: Order) -> None:
    """Blocks while the worker has not begun to read, if the order is longer than a socket's buffer."""
    data = pickle.dumps(order)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive_order(channel: socket.socket) -> Order | None:
    """None: whoever was about to send one is gone."""
    length = _receive(channel, _LENGTH.size)
    data = length and _receive(channel, _LENGTH.unpack(length)[0])
    if not data:
        return None
    order = pickle.loads(data)  # of the process that started this one
    assert isinstance(order, Order)
    return order


def send_answer(channel: socket.socket, answer: Answer) -> None:
    """Where nobody hears it any more, the channel has ended, which is told as such."""
    with contextlib.suppress(ConnectionError):
        channel.sendall(json.dumps(asdict(answer)).encode() + b"\n")


class Answers:
    """Reads the one answer of a worker, as it comes."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> Answer | None:
        """The answer, once it is whole."""
        self._data = (self._data + data)[:_MAX_ANSWER_BYTES]
        line, newline, _ = self._data.partition(b"\n")
        if not newline:
            return None
        self._data = b""
        found = json.loads(line)
        return Answer(**{**found, "warnings": tuple(found["warnings"])})


def _receive(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data
