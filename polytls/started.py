"""What becomes of an attempt to serve, as values: it listens, and where; or it cannot.

Apart from `polytls.program`, so that who only tells of it (the command line, the supervisor of workers) loads
no engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.errors import PolytlsError

if TYPE_CHECKING:
    from polytls.settings import Address, Settings

NOT_BUILT = "the native engine is not built; build it with `make build`"
"""For who has a tree and no module of it."""


class ListenError(PolytlsError):
    """The address cannot be listened on; `errno` says why."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {error.strerror or error}")
        self.address = address
        self.errno = error.errno


@dataclass(frozen=True, slots=True)
class Started:
    """What there is to announce when the proxy listens. `threads` are those of each worker; `warnings` are
    sentences."""

    settings: Settings
    address: Address
    threads: int
    root_fingerprint: str | None
    warnings: tuple[str, ...]
    workers: int = 1


def has_terminal() -> bool:
    """Whether stderr leads to a terminal that is there: one that was closed is none any more. Who was started
    from it ends with it, and who has none takes SIGHUP for what it means to services: to reload."""
    return os.isatty(2)
