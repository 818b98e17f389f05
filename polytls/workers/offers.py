"""The configuration that all workers go by, and the next one while it is offered to them.

Theory of operation
-------------------
SIGHUP has the supervisor read the configuration, once for all, and offer it to the workers. Each takes it or
not, and says so in a line of its own; they look at the same files, and so agree. What one of them has taken
is what those have to begin with that are started later.

There is one offer at a time: the next is read when every worker has answered, or is gone. Else each would
leave out others of a quick series, and they would end in different configurations. What cannot be offered is
told to the user here, and to the workers too, since it is they who export what happens.

Where nobody serves there is nobody to ask: it is taken for who is started next, at once. It may be what mends
a configuration by which none could.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING

from polytls.config.change import require_takeable
from polytls.errors import PolytlsError, UserError
from polytls.events import NotReloaded, note_of
from polytls.settings import Mode, Settings
from polytls.workers.order import Change, Refusal, send_change

if TYPE_CHECKING:
    from polytls.config import LoadedSettings
    from polytls.workers.seat import Seat

READ_SECONDS = 5.0
"""For the configuration's file to be read again. One that never answers (a pipe, a dead file server) must not
keep the proxy from stopping, nor from filling seats."""


class Offers:
    """`seats` are everybody's. `own` gives a worker's share of settings. `reread` gives the configuration
    anew; None: it stays what it is. `note` tells the user a sentence."""

    def __init__(
        self,
        settings: Settings,
        origins: Mapping[str, str],
        *,
        seats: Sequence[Seat],
        own: Callable[[Settings, Seat], Settings],
        reread: Callable[[], LoadedSettings] | None,
        note: Callable[[str], None],
    ) -> None:
        self.settings = settings
        """What workers begin with, those of all of them together; `origins` says where they are from."""
        self.origins = dict(origins)
        self._seats = seats
        self._own = own
        self._reread = reread
        self._note = note
        self._most_tunnels = settings.limits.tunnels  # that every worker has room for its share of
        self._root_loaded = settings.mode is Mode.MITM
        self._offer: LoadedSettings | None = None  # until everybody has answered
        self._number = 0  # of the offer, or of the one before
        self._heard = False  # somebody has answered
        self._wished = False

    def wish(self) -> None:
        """Have the configuration read again, as soon as `proceed` finds the last offer settled."""
        self._wished = True

    def proceed(self) -> None:
        """Make the offer that is wished, if it is time for one. Blocks for `READ_SECONDS` at the most."""
        if all(seat.answered == self._number for seat in self._seats) and (
            self._heard or all(seat.channel is not None for seat in self._seats)
        ):
            self._offer = None
        if not self._wished or self._offer is not None:
            return
        self._wished = False
        if self._reread is None:
            return
        try:
            loaded = _read_within(READ_SECONDS, self._reread)
            require_takeable(
                self.settings,
                loaded.settings,
                root_loaded=self._root_loaded,
                most_tunnels=self._most_tunnels,
            )
        except (PolytlsError, OSError) as error:
            self._refuse(str(error))
            return
        except Exception:  # noqa: BLE001 - whatever it is, the proxy goes on as it was
            self._refuse(f"a defect of PolyTLS, please report it\n{traceback.format_exc()}")
            return
        self._offer, self._heard = loaded, False
        self._number += 1
        if not any(seat.serves for seat in self._seats) and any(seat.due is not None for seat in self._seats):
            self._take(loaded)
            for seat in self._seats:
                seat.fill_now()
        for seat in self._seats:
            self._send(seat)

    def seated(self, seat: Seat) -> None:
        """A worker was started, with the settings there are; it hears of an offer as the others do."""
        self._most_tunnels = min(self._most_tunnels, self.settings.limits.tunnels)
        self._send(seat)

    def answered(self, seat: Seat, number: int, taken: bool) -> None:
        """A worker says what became of an offer. What one has taken, those have that come later."""
        if number != self._number or self._offer is None:
            return
        seat.answered, self._heard = number, True
        if taken:
            self._take(self._offer)

    def gone(self, seat: Seat) -> None:
        """No answer will come from there."""
        seat.answered = self._number

    def _take(self, loaded: LoadedSettings) -> None:
        self.settings, self.origins = loaded.settings, loaded.origins
        self._root_loaded |= self.settings.mode is Mode.MITM

    def _send(self, seat: Seat) -> None:
        seat.answered = self._number
        if self._offer is None or seat.channel is None:  # whoever comes next has it by `seated`
            return
        change = Change(self._number, self._own(self._offer.settings, seat), self._offer.origins)
        with contextlib.suppress(OSError):  # it is gone, which will be heard
            send_change(seat.channel, change)
            seat.answered = 0

    def _refuse(self, reason: str) -> None:
        self._note(note_of(NotReloaded(reason)) or "")
        for seat in self._seats:
            if seat.channel is not None:
                with contextlib.suppress(OSError):  # it is gone, which will be heard
                    send_change(seat.channel, Refusal(reason))


def _read_within(seconds: float, read: Callable[[], LoadedSettings]) -> LoadedSettings:
    """What `read` gives, or raises. Raises UserError where it takes longer."""
    came: list[LoadedSettings | Exception] = []

    def work() -> None:
        try:
            came.append(read())
        except Exception as error:  # noqa: BLE001 - for whoever asked
            came.append(error)

    thread = Thread(target=work, name="polytls-reload", daemon=True)
    thread.start()
    thread.join(seconds)
    if not came:
        raise UserError(f"the configuration could not be read within {seconds:g} s; see what its file is")
    if isinstance(came[0], Exception):
        raise came[0]
    return came[0]
