"""The worker's side: a process that was started to serve on a socket it inherited, and does what it is told.

It hears no SIGINT, SIGTERM or SIGHUP (`polytls.workers` says why): its supervisor tells it what to do.
"""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

from polytls.errors import PolytlsError, UserError
from polytls.started import NOT_BUILT
from polytls.telemetry.log import to_stream
from polytls.workers.board import Turns, numbers
from polytls.workers.order import Answer, Change, Order, Refusal, receive_order, receive_wishes, send_answer

if TYPE_CHECKING:
    from polytls.program import Reload
    from polytls.started import Started

_FAILED = 1
"""The exit code of a worker that could not start; its answer says why."""


def main(channel_fd: int) -> int:
    """Serve by the order that comes over the channel. The process's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=channel_fd) as channel:
        order = receive_order(channel)
        if order is None:
            return 0
        answer = _serve(order, channel)
        if answer is None:
            return 0
        send_answer(channel, answer)
        return _FAILED


def _serve(order: Order, channel: socket.socket) -> Answer | None:
    """Serve until told to stop; None: so it was. Raises what nobody foresaw."""

    def announce(started: Started) -> None:
        send_answer(channel, Answer(started.threads, started.root_fingerprint, started.warnings))

    try:
        from polytls import program

        def hear() -> program.Heard:
            wishes = receive_wishes(channel)
            changes = [one for one in wishes.changes if isinstance(one, Change)]
            refused = [one.reason for one in wishes.changes if isinstance(one, Refusal)]
            reloads = tuple(_reload(change, channel) for change in changes)
            return program.Heard(wishes.stops, reloads, tuple(refused), wishes.ended)

        place = program.Place(
            number=order.number,
            tunnels=order.tunnels,
            listener=order.listener,
            commands=channel,
            hear=hear,
            ids=numbers(order.numbers, order.number, order.workers),
            lines=Turns(order.lines, to_stream(sys.stdout)),
            notes=Turns(order.notes, to_stream(sys.stderr)),
        )
        program.run(order.settings, origins=order.origins, announce=announce, place=place)
    except ModuleNotFoundError as error:
        if error.name != "polytls.engine._native":
            raise
        return Answer(problem=NOT_BUILT)
    except UserError as error:
        return Answer(problem=str(error), users_mistake=True)
    except PolytlsError as error:
        return Answer(problem=str(error))
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return Answer(problem=f"{about}{error.strerror or error}")
    return None


def _reload(change: Change, channel: socket.socket) -> Reload:
    from polytls.config import LoadedSettings
    from polytls.program import Reload

    return Reload(
        read=lambda: LoadedSettings(change.settings, change.origins),
        done=lambda taken: send_answer(channel, Answer(change=change.number, taken=taken)),
    )
