"""What goes wrong while exporting becomes at most one warning a minute.

Theory of operation
-------------------
A collector that is away makes every batch fail, and the libraries
below say so every time, with tracebacks, to loggers that nobody configured. Here their loggers get one
handler and lose their way to the root. The first complaint is told at once; those that follow within a
minute are counted and told with the next one. Values of headers are cut out: an exception may repeat what
it could not send.

Loggers are the process's, so `install` remembers what it found and `remove` puts it back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

EVERY_SECONDS = 60.0
MAX_CHARACTERS = 300
"""Of a complaint: the start says what it is, the rest is nested exceptions."""

NAMES = ("opentelemetry", "urllib3", "requests", "grpc")
"""The libraries that export. urllib3 tells of malformed replies, grpc of broken channels."""


class Complaints(logging.Handler):
    """`warn` takes a sentence, on any thread; `clock` gives seconds."""

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        secrets: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._clock = clock
        self._told: float | None = None
        self._untold = 0
        self._telling = threading.Lock()
        self._found: list[tuple[logging.Logger, bool]] = []

    def install(self) -> None:
        for name in NAMES:
            logger = logging.getLogger(name)
            self._found.append((logger, logger.propagate))
            logger.propagate = False
            logger.addHandler(self)

    def remove(self) -> None:
        for logger, propagate in self._found:
            logger.removeHandler(self)
            logger.propagate = propagate
        self._found.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """What a library logged."""
        try:
            self.say(record.getMessage())
        except Exception:  # noqa: BLE001 - their mistake in formatting is not worth an exception of ours
            self.say("an exporter complained in a way that cannot be shown")

    def say(self, text: str) -> None:
        """Tell, or count, that something went wrong."""
        with self._telling:
            now = self._clock()
            if self._told is not None and now - self._told < EVERY_SECONDS:
                self._untold += 1
                return
            untold, self._untold, self._told = self._untold, 0, now
        more = f" (and {untold} more complaints since the last one)" if untold else ""
        self._warn(f"telemetry: {self._cleaned(text)}{more}")

    def _cleaned(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}..."
