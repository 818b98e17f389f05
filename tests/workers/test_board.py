"""What workers share: numbers that nobody gives twice, lines that nobody writes into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.telemetry.log import to_stream
from polytls.workers.board import Board, Turns, numbers
from polytls.workers.shares import share

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
WRITERS = 4
LINES = 200
LINE_BYTES = 5000
"""More than PIPE_BUF."""


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board(3)
    yield made
    made.close()


def _writer(fd: int) -> object:
    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]

    return write


def test_numbers_are_unique_and_go_on_after_a_death(board: Board) -> None:
    givers = {worker: numbers(board.numbers, worker, 3) for worker in (1, 2, 3)}
    first = [givers[worker]() for worker in (1, 1, 2, 3, 2)]
    assert first == [1, 4, 2, 3, 5]
    successor = numbers(board.numbers, 2, 3)
    assert successor() == 8
    assert givers[1]() == 7


def test_shares_add_up() -> None:
    for total in range(1, 40):
        for workers in range(1, total + 1):
            shares = [share(total, number, workers) for number in range(1, workers + 1)]
            assert sum(shares) == total
            assert max(shares) - min(shares) <= 1
            assert min(shares) >= 1


def test_lines_of_several_writers_stay_whole(board: Board) -> None:
    reading, writing = os.pipe()

    def write(letter: str) -> None:
        turns = Turns(board.lines, _writer(writing))  # type: ignore[arg-type]
        for _ in range(LINES):
            turns(letter.encode() * LINE_BYTES + b"\n")
        turns.close()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"[:WRITERS]]
    for thread in threads:
        thread.start()
    with os.fdopen(reading, "rb") as pipe:
        lines = [pipe.readline() for _ in range(WRITERS * LINES)]
    for thread in threads:
        thread.join()
    os.close(writing)
    assert {len(line) for line in lines} == {LINE_BYTES + 1}
    assert all(len(set(line)) == 2 for line in lines)


def test_who_was_killed_in_the_middle_of_a_line_costs_that_line(board: Board) -> None:
    reading, writing = os.pipe()
    program = (
        "import sys; from polytls.telemetry.log import to_stream; from polytls.workers.board import Turns;"
        f"Turns({board.lines}, to_stream(sys.stdout))(b'x' * 1_000_000 + b'\\n')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=writing,
        pass_fds=(board.lines,),
        cwd=REPOSITORY,
    )
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(writing, "w") as stream:
        assert pipe.read(1) == b"x"  # it writes, and cannot come to an end
        process.send_signal(signal.SIGKILL)
        process.wait()
        next_one = threading.Thread(target=Turns(board.lines, to_stream(stream)), args=(b"next\n",))
        next_one.start()
        data = b""
        while not data.endswith(b"next\n"):
            data += pipe.read(65536)
        next_one.join()
    cut, line = data.decode().splitlines()
    assert set(cut) == {"x"}
    assert line == "next"


def test_a_write_that_fails_gives_up_its_turn(board: Board) -> None:
    def fail(data: bytes) -> None:
        raise OSError

    written: list[bytes] = []
    broken, whole = Turns(board.notes, fail), Turns(board.notes, written.append)
    with pytest.raises(OSError):  # noqa: PT011 - any
        broken(b"lost\n")
    whole(b"one\n")
    whole(b"two\n")
    assert written == [b"\none\n", b"two\n"]
    broken.close()
    whole.close()
