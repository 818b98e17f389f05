"""What supervisor and worker tell each other, over a socket pair that both hold one end of.

Down: the length (4 bytes), then an `Order`, pickled; after that one byte for each wish. To stop: the first to
drain, the second to end at once; an end of file is such a wish, too: the supervisor is gone. To reload: the
byte brings the descriptor of a file in memory that holds a `Change`, or the `Refusal` of one, pickled, so
that the one who sends it never waits for one who does not read. Up: one `Answer`, as a line of JSON, when
the worker listens or when it cannot; then one for each change, whether it was taken. That the worker is gone
is an end of file.

Pickles only go from a process to one that it has started itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import struct
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.settings import Settings

STOP = b"s"
RELOAD = b"r"

_LENGTH = struct.Struct(">I")
_WISHES_BYTES = 64
_FD_BYTES = array("i").itemsize
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
    something else. `change`: it is about the change with this number, which was `taken` or not."""

    threads: int = 0
    root_fingerprint: str | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    users_mistake: bool = False
    change: int | None = None
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration to go by from now on. `settings` are the worker's own, as in an `Order`."""

    number: int
    settings: Settings
    origins: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """No worker is asked to take a configuration, which the supervisor has told the user: `reason` is why.
    They hear of it since it is they who export what happens."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a worker has been told since it last asked. `ended`: nobody will tell it anything any more."""

    stops: int
    changes: tuple[Change | Refusal, ...]
    ended: bool


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


def send_change(channel: socket.socket, change: Change | Refusal) -> None:
    """Never blocks. Raises OSError where the worker is gone, or has not listened for very long."""
    with os.fdopen(os.memfd_create("polytls-change", os.MFD_CLOEXEC), "w+b") as file:
        pickle.dump(change, file)
        file.flush()
        # Not `socket.send_fds`, nor below `recv_fds`: they take flags and let them fall.
        fds = array("i", [file.fileno()])
        channel.sendmsg([RELOAD], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_DONTWAIT)


def receive_wishes(channel: socket.socket) -> Wishes:
    """Never blocks."""
    try:
        # One descriptor at most: a receive ends with the byte that brings one (unix(7)).
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        data, brought, _, _ = channel.recvmsg(_WISHES_BYTES, socket.CMSG_LEN(_FD_BYTES), flags)
    except BlockingIOError:
        return Wishes(0, (), False)
    except ConnectionError:
        return Wishes(0, (), True)
    return Wishes(data.count(STOP), tuple(_change_in(data) for _, _, data in brought), not data)


def send_answer(channel: socket.socket, answer: Answer) -> None:
    """Where nobody hears it any more, the channel has ended, which is told as such."""
    with contextlib.suppress(ConnectionError):
        channel.sendall(json.dumps(asdict(answer)).encode() + b"\n")


class Answers:
    """Reads the answers of a worker, as they come."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> list[Answer]:
        """Those that are whole by now."""
        *lines, self._data = (self._data + data)[:_MAX_ANSWER_BYTES].split(b"\n")
        return [_answer_in(line) for line in lines]


def _answer_in(line: bytes) -> Answer:
    found = json.loads(line)
    return Answer(**{**found, "warnings": tuple(found["warnings"])})


def _change_in(rights: bytes) -> Change | Refusal:
    (fd,) = array("i", rights[:_FD_BYTES])
    with os.fdopen(fd, "rb") as file:
        file.seek(0)  # its place is shared with the one who wrote it
        change = pickle.load(file)  # of the process that started this one
    assert isinstance(change, (Change, Refusal))
    return change


def _receive(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data
