"""The process that starts workers, passes on the wish to stop, and replaces those that die.

One loop over a selector: signals (by a wake-up descriptor) and the workers' channels. A `Seat` is a worker's
number and socket, whoever sits in it. A worker that dies has its seat filled again: at once, unless its
predecessor died too without having lived for `SETTLED_SECONDS`. Then it waits, twice as long from death to
death, so that a fault that every start runs into costs little. Meanwhile the socket does not listen, and the
kernel gives connections to the others.

SIGHUP has it read the configuration anew and offer it to the workers (`polytls.workers.offers`).

Before the first announcement it is different: if one worker cannot start, none does, and the first reason
given is the only one told.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from polytls.errors import PolytlsError, UserError
from polytls.settings import EngineSettings, LimitSettings, Settings
from polytls.started import Started, has_terminal
from polytls.telemetry.log import LineWriter, to_stream
from polytls.workers.board import Board, Turns
from polytls.workers.offers import Offers
from polytls.workers.order import STOP, Answer, Answers, Order, send_order
from polytls.workers.seat import Seat, await_end, manner
from polytls.workers.shares import open_listeners, share

if TYPE_CHECKING:
    from polytls.config import LoadedSettings

SETTLED_SECONDS = 10.0
"""Who lived longer did not die of how it was started."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Before the next attempt to fill a seat; it doubles from the first to the longest."""
STRAGGLER_SECONDS = 10.0
"""Beyond the drain time, for a worker to end; one that hangs must not keep the proxy from stopping."""
FAREWELL_SECONDS = 5.0
"""For a worker whose channel has ended to be gone, and for those that a failed start leaves behind."""

_CHANNEL_BYTES = 65_536
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The interpreter is told where modules are: by itself it would look in the working directory first.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from polytls.workers.worker import main; sys.exit(main({fd}))"


class WorkerError(PolytlsError):
    """A worker ended before it had said what it could not do."""


def supervise(
    settings: Settings,
    *,
    origins: Mapping[str, str],
    announce: Callable[[Started], None],
    reread: Callable[[], LoadedSettings] | None = None,
) -> None:
    """Serve with `settings.engine.workers` processes until a signal says to stop; `announce` once all listen.
    `reread` gives the configuration anew, for SIGHUP; None: SIGHUP changes nothing.

    Raises as `App.start` does, `WorkerError`.
    """
    _occupy_standard_descriptors()
    with contextlib.closing(_Supervisor(settings, origins, announce, reread)) as supervisor:
        supervisor.run()


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        origins: Mapping[str, str],
        announce: Callable[[Started], None],
        reread: Callable[[], LoadedSettings] | None,
    ) -> None:
        self._attended = has_terminal()
        self._announce: Callable[[Started], None] | None = announce
        self._answers: dict[int, Answer] = {}
        self._wishes = 0  # to stop
        self._kill_at: float | None = None
        workers = settings.engine.workers
        # One core of each share is for the worker's Python, as in one process alone. Found once: what may be
        # used can change, and a reload would seem to change the setting.
        self._threads = settings.engine.threads or max(1, len(os.sched_getaffinity(0)) // workers - 1)
        self._address, listeners = open_listeners(settings.listen, workers)
        self._seats = [Seat(number, listener) for number, listener in enumerate(listeners, 1)]
        self._board = Board(workers)
        self._notes = LineWriter(
            Turns(self._board.notes, to_stream(sys.stderr)), lambda lines: f"... {lines} notes are missing"
        )
        self._offers = Offers(
            settings, origins, seats=self._seats, own=self._own, reread=reread, note=self._note
        )
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        with _signals() as wake_up:
            self._selector.register(wake_up, selectors.EVENT_READ)
            for seat in self._seats:
                self._fill(seat)
            while any(seat.process is not None or seat.due is not None for seat in self._seats):
                for key, _ in self._selector.select(self._pause()):
                    if key.data is None:
                        for number in wake_up.recv(_CHANNEL_BYTES):
                            if number == signal.SIGHUP and not self._terminal_gone():
                                self._offers.wish()
                            elif number in _SIGNALS:
                                self._pass_on()
                    else:
                        self._hear(key.data)
                self._keep_time()
                if not self._wishes:
                    self._offers.proceed()

    def close(self) -> None:
        """End what runs: nothing does, unless the start failed."""
        for seat in self._seats:
            if seat.channel is not None:
                seat.channel.close()  # which they understand
        deadline = time.monotonic() + FAREWELL_SECONDS
        for seat in self._seats:
            if seat.process is not None:
                await_end(seat.process, deadline - time.monotonic())
            seat.listener.close()
        self._notes.close()
        self._selector.close()
        self._board.close()

    # Stopping

    def _pass_on(self) -> None:
        self._wishes += 1
        if self._wishes == 1:
            self._kill_at = time.monotonic() + self._offers.settings.timeouts.drain + STRAGGLER_SECONDS
        else:
            self._kill_at = time.monotonic() + STRAGGLER_SECONDS
        for seat in self._seats:
            seat.due = None
            if seat.channel is not None:
                with contextlib.suppress(OSError):  # it is gone, which will be heard
                    seat.channel.send(STOP, socket.MSG_DONTWAIT)

    def _pause(self) -> float | None:
        times = [seat.due for seat in self._seats if seat.due is not None]
        if self._kill_at is not None:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _keep_time(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.due is not None and seat.due <= now:
                self._fill(seat)
            if self._kill_at is not None and self._kill_at <= now and seat.process is not None:
                seat.process.kill()
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None

    # Reloading

    def _terminal_gone(self) -> bool:
        return self._attended and not has_terminal()

    # Workers

    def _fill(self, seat: Seat) -> None:
        seat.due = None
        seat.answers, seat.listens, seat.problem = Answers(), False, None
        seat.started = time.monotonic()
        # One that ended in order has let go of the socket for everybody; this one has it listen again.
        seat.listener.listen(self._offers.settings.listen.backlog)
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = (theirs.fileno(), seat.listener.fileno(), *self._board.descriptors)
            program = _PROGRAM.format(path=sys.path, fd=theirs.fileno())
            seat.process = subprocess.Popen(
                [sys.executable, "-c", program, f"polytls-worker-{seat.number}"],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
        seat.channel = ours
        self._selector.register(ours, selectors.EVENT_READ, seat)
        with contextlib.suppress(OSError):  # it is gone already, which will be heard
            send_order(ours, self._order(seat))
        self._offers.seated(seat)

    def _own(self, settings: Settings, seat: Seat) -> Settings:
        """A worker's share of settings that are for all."""
        workers = len(self._seats)
        return replace(
            settings,
            listen=replace(settings.listen, address=self._address),
            engine=EngineSettings(threads=self._threads),
            limits=LimitSettings(tunnels=share(settings.limits.tunnels, seat.number, workers)),
        )

    def _order(self, seat: Seat) -> Order:
        settings = self._offers.settings
        numbers, lines, notes = self._board.descriptors
        return Order(
            settings=self._own(settings, seat),
            origins=self._offers.origins,
            number=seat.number,
            workers=len(self._seats),
            tunnels=settings.limits.tunnels,
            listener=seat.listener.fileno(),
            numbers=numbers,
            lines=lines,
            notes=notes,
        )

    def _hear(self, seat: Seat) -> None:
        assert seat.channel is not None
        try:
            data = seat.channel.recv(_CHANNEL_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._gone(seat)
            return
        for answer in seat.answers.take(data):
            if answer.change is not None:
                self._offers.answered(seat, answer.change, answer.taken)
            else:
                self._begun(seat, answer)

    def _begun(self, seat: Seat, answer: Answer) -> None:
        if answer.problem is None:
            self._listens(seat, answer)
            return
        if self._announce is not None and not self._wishes:
            raise (UserError if answer.users_mistake else PolytlsError)(answer.problem)
        seat.problem = answer.problem

    def _listens(self, seat: Seat, answer: Answer) -> None:
        seat.listens = True
        self._answers[seat.number] = answer
        if self._announce is None or len(self._answers) < len(self._seats):
            return
        announce, self._announce = self._announce, None
        warnings = dict.fromkeys(warning for each in self._answers.values() for warning in each.warnings)
        announce(
            Started(
                settings=self._offers.settings,
                address=self._address,
                threads=answer.threads,
                root_fingerprint=answer.root_fingerprint,
                warnings=tuple(warnings),
                workers=len(self._seats),
            )
        )

    def _gone(self, seat: Seat) -> None:
        assert seat.channel is not None
        assert seat.process is not None
        self._selector.unregister(seat.channel)
        seat.channel.close()
        seat.channel = None
        self._offers.gone(seat)
        how = manner(await_end(seat.process, FAREWELL_SECONDS), seat)
        who, seat.process = seat.name, None
        if self._wishes:
            if how is not None:
                self._note(f"{who} {how}")
            return
        how = how or "ended, though nobody told it to"
        if self._announce is not None:
            raise WorkerError(f"{who} {how} before it listened")
        pause = self._next_pause(seat)
        seat.due = time.monotonic() + pause
        if pause:
            with contextlib.suppress(OSError):  # its own end may have done so
                seat.listener.shutdown(socket.SHUT_RDWR)
        self._note(f"{who} {how}; it is started again{f' in {pause:g} s' if pause else ''}")

    def _next_pause(self, seat: Seat) -> float:
        if seat.listens and time.monotonic() - seat.started >= SETTLED_SECONDS:
            seat.pauses = 0
        seat.pauses += 1
        if seat.pauses == 1 and seat.listens:
            return 0.0
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(seat.pauses - 1, 10))

    def _note(self, text: str) -> None:
        self._notes.put(lambda: f"polytls: {text}")


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket from which the numbers of signals can be read. For the main thread, until the process's end:
    afterwards, one more signal must not turn an end in order into a death by signal."""
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        try:
            yield reading
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(before)


def _occupy_standard_descriptors() -> None:
    """Where 0, 1 or 2 were closed at our start, what is opened next would have their numbers, and be a
    worker's stdout."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
