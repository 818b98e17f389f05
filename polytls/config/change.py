"""What is not the same in two configurations, and what of it a running proxy cannot take.

A reload takes all or nothing: where a key has changed that only a start can go by, the whole of it is refused
and the key named. A proxy is then never under half a configuration, and the file says what it does.

Why these keys: the listener exists, with its backlog and the deadline for heads, which the engine counts; so
do the loops, processes and pools; the log and the exporter have begun; the root CA is in clients' trust
stores, and its passphrase may be gone. As long as there was no MITM mode, no root CA was loaded, and its keys
may change.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from polytls.config.schema import KEYS
from polytls.errors import UserError

if TYPE_CHECKING:
    from polytls.settings import Settings

_AT_START = (
    "proxy.listen.",
    "proxy.timeouts.head",
    "engine.",
    "log.format",
    "telemetry.",
)
_WITH_ROOT = (
    "proxy.certificate.ca_",
    "proxy.certificate.root_key",
)
_TUNNELS = "proxy.limits.tunnels"


def changed_keys(before: Settings, now: Settings) -> list[str]:
    """The paths of keys whose values differ, in the schema's order. Tables of profiles are left out."""
    return [key.path for key in KEYS if key.field and _differs(key.field, before, now)]


def require_takeable(before: Settings, now: Settings, *, root_loaded: bool, most_tunnels: int) -> None:
    """Raises `UserError` that names every key for which the proxy has to be started anew. `most_tunnels`: for
    how many it was started."""
    fixed = (*_AT_START, *(_WITH_ROOT if root_loaded else ()))
    found = [path for path in changed_keys(before, now) if path.startswith(fixed)]
    if now.limits.tunnels > most_tunnels:
        found.append(f"{_TUNNELS} (above {most_tunnels}, which it was started with)")
    if found:
        raise UserError(f"a restart is needed to change {', '.join(found)}")


def _differs(field: str, before: Settings, now: Settings) -> bool:
    value = attrgetter(field)
    return bool(value(before) != value(now))
