"""What all workers share: numbers for tunnels, and turns at writing to one stdout.

All of it is anonymous shared memory (memfd) that the supervisor makes and workers inherit.

*Numbers.* Worker n of N gives its k-th tunnel the number k * N + n, k from 0 on. k is in the memory, so that
the one who takes a dead worker's place goes on where that one stopped: no number is given twice, and nothing
is locked.

*Turns.* A pipe keeps the bytes of one write together only up to PIPE_BUF (4096; POSIX, `write`), and a line
may be longer, or a write many lines. So who writes holds a lock: `flock` on a file description of its own,
which the kernel gives up for whoever dies. (Record locks of `fcntl` would belong to the process as a whole;
where one of its threads waits for stdout and another for stderr, the kernel may see a deadlock where there is
none.) A mark in the memory says that somebody is writing. Who finds it set has the lock of somebody who was
killed in the middle of a line, and begins on a new one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable

_NUMBER_BYTES = 8


class Turns:
    """Writing to a descriptor that several processes write to. Made by each of them, on the same memory `fd`.
    To be called from one thread; it may block, and raises what `write` does."""

    def __init__(self, fd: int, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lock = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        self._under_way = mmap.mmap(fd, 1)

    def __call__(self, data: bytes) -> None:
        """Write whole lines, between those of others."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if self._under_way[0]:
                data = b"\n" + data
            self._under_way[0] = 1
            self._write(data)
            self._under_way[0] = 0
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Others go on."""
        os.close(self._lock)
        self._under_way.close()


def numbers(fd: int, worker: int, workers: int) -> Callable[[], int]:
    """What gives each tunnel of a worker its number. `worker` counts from 1. For one thread."""
    counts = memoryview(mmap.mmap(fd, workers * _NUMBER_BYTES)).cast("Q")
    mine = worker - 1

    def next_number() -> int:
        count: int = counts[mine]
        counts[mine] = count + 1
        return count * workers + worker

    return next_number


class Board:
    """The memory, in the process that makes it. `numbers`, `lines` and `notes` are descriptors to inherit:
    for `numbers`, and for `Turns` at stdout and at stderr."""

    def __init__(self, workers: int) -> None:
        self.numbers = _memory("numbers", workers * _NUMBER_BYTES)
        self.lines = _memory("lines", 1)
        self.notes = _memory("notes", 1)

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return self.numbers, self.lines, self.notes

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)


def _memory(name: str, size: int) -> int:
    fd = os.memfd_create(f"polytls-{name}", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd
