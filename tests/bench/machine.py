"""What the kernel says about processes and the machine.

CPU time is user and system time of a process and all that descend from it, by the scheduler's clock (ns),
plus what children that have ended left behind (clock ticks). Memory is PSS and private memory from
smaps_rollup: PSS counts shared pages by their share, and private memory is what a tunnel can have cost.
Kernel memory, such as of sockets, is in neither.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 13, 14  # fields behind the name in /proc/PID/stat, proc(5)
_BUSY_FIELDS = (1, 2, 3, 6, 7)  # user, nice, system, irq, softirq in the first line of /proc/stat
_CPUCLOCK_SCHED = 2  # of clockid_t made from a pid: time by the scheduler, CLOCK_PROCESS_CPUTIME_ID's way


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process tree, in KB."""

    pss_kb: int
    private_kb: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What a result has to be read with."""

    cpu: str
    cores: int
    kernel: str
    memory_mb: int
    python: str
    load: float

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_mb} MB, Linux {self.kernel}, "
            f"Python {self.python}, load before {self.load:.2f}"
        )


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=_first_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        memory_mb=int((_first_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def tree(root: int) -> tuple[int, ...]:
    """`root` and all processes that descend from it, as far as they are alive."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return tuple(pid for pid in found if _stat(pid))


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes so far, and of their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
        if fields := _stat(pid):
            total += (int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) / _TICKS_PER_SECOND
    return total


def main_thread_seconds(pid: int) -> float:
    """CPU time of a process's first thread: of PolyTLS, what its event loop and all other Python took."""
    try:
        return int((_PROC / str(pid) / "task" / str(pid) / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def memory(pids: Iterable[int]) -> Memory:
    """Of these processes together."""
    pss = private = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Pss":
                    pss += int(value.split()[0])
                elif name in ("Private_Clean", "Private_Dirty"):
                    private += int(value.split()[0])
    return Memory(pss, private)


def busy_seconds() -> float:
    """What all cores together have worked since the machine started."""
    fields = (_PROC / "stat").read_text().splitlines()[0].split()
    return sum(int(fields[index]) for index in _BUSY_FIELDS) / _TICKS_PER_SECOND


def _stat(pid: int) -> Sequence[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()  # the name before may contain anything


def _first_field(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
