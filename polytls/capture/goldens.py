"""Captures of real clients, kept to compare with: a directory of JSON files, each named like a profile.

A file holds the hellos of one client (``samples``, in hexadecimal; `polytls.capture.records` reads it). It
may say that they are an imitation's: another program's that shows the hello of the client it is named for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.capture.sources import clients_from, one_client
from polytls.errors import UserError

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

_IMITATIONS = ("curl_cffi",)
"""What programs that show another client's hello call themselves, in the ``source`` of a golden."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Captures of the client that a profile follows, at least one. `name` is where they are, for people."""

    name: str
    hellos: tuple[ClientHello, ...]
    imitation: bool = False


@dataclass(frozen=True, slots=True)
class Goldens:
    """Captures of real clients in a directory, by name."""

    directory: Path
    _by_name: Mapping[str, Path]

    @classmethod
    def in_directory(cls, directory: Path) -> Goldens:
        """Nothing is read yet. Raises `UserError` for a directory without JSON files."""
        found: dict[str, Path] = {}
        for path in sorted(directory.glob("*.json")):
            name = _squashed(path.stem)
            if name in found:
                raise UserError(f"{found[name]} and {path} are captures of one name: remove one of them")
            found[name] = path
        if not found:
            raise UserError(f"{directory}: is no directory of captures: there is no NAME.json in it")
        return cls(directory, found)

    def of(self, names: Sequence[str]) -> tuple[Golden, ...]:
        """The captures under the first of `names` (of one profile) that has some; none where none has.

        Punctuation does not count: ``safari184_ios`` is ``safari-18.4-ios``. Raises `CaptureError`, OSError.
        """
        path = next((self._by_name[name] for name in map(_squashed, names) if name in self._by_name), None)
        if path is None:
            return ()
        client = one_client(clients_from(str(path), lambda _limit: b""), str(path))
        return (Golden(path.name, client.hellos, _is_imitation(path)),)


def _squashed(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _is_imitation(path: Path) -> bool:
    """What the file says of itself, where it is JSON of a golden's form."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    return document.get("imitation") is True or str(document.get("source", "")).startswith(_IMITATIONS)
