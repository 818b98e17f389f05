"""Captures of real clients, kept to compare with: a directory of JSON files, each named like a profile.

A file holds the hellos of one client (``samples``, in hexadecimal; `polytls.capture.records` reads it). It
may say that they are an imitation's: another program's that shows the hello of the client it is named for.
It may also hold what the client says when it is asked again: ``retry``, ``retry_cookie`` and ``resumed`` are
lists of pairs (``first``, ``second``); only the first pair of each is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polytls.capture.asking import GROUP_NAME, Asking
from polytls.capture.pcap import CaptureError
from polytls.capture.sources import clients_from, one_client
from polytls.errors import UserError
from polytls.wire.client_hello import ClientHello, HelloError, parse_client_hello

_IMITATIONS = ("curl_cffi",)
"""What programs that show another client's hello call themselves, in the ``source`` of a golden."""


@dataclass(frozen=True, slots=True)
class Second:
    """Two hellos of the client, the second one for being asked again. `after_change_cipher_spec`: one came
    right before it; None: that was not noted."""

    asking: Asking
    first: ClientHello
    second: ClientHello
    after_change_cipher_spec: bool | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """Captures of the client that a profile follows, at least one. `name` is where they are, for people."""

    name: str
    hellos: tuple[ClientHello, ...]
    imitation: bool = False
    seconds: tuple[Second, ...] = ()


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
        document = _document(path)
        try:
            seconds = tuple(_seconds(document))
        except (HelloError, ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
            raise CaptureError(f"{path}: one of its second hellos cannot be read: {problem}") from None
        return (Golden(path.name, client.hellos, _is_imitation(document), seconds),)


def _squashed(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _document(path: Path) -> dict[str, Any]:
    """What the file says, where it is JSON of a golden's form; else nothing."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_imitation(document: Mapping[str, Any]) -> bool:
    return document.get("imitation") is True or str(document.get("source", "")).startswith(_IMITATIONS)


def _seconds(document: Mapping[str, Any]) -> Iterator[Second]:
    """Those that the program can ask for as well: with the same group, or none. Raises anything for a form
    that is wrong."""
    cookies = {None: Asking.COOKIE, GROUP_NAME: Asking.GROUP_AND_COOKIE}
    found = {
        "retry": Asking.GROUP if document.get("retry_group") == GROUP_NAME else None,
        "retry_cookie": cookies.get(document.get("retry_cookie_group")),
        "resumed": Asking.SESSION,
    }
    for key, asking in found.items():
        pairs = document.get(key) or []
        if not pairs or asking is None:
            continue
        changed = document.get(f"{key}_changes", {}).get("after_change_cipher_spec", [])
        first, again = (parse_client_hello(bytes.fromhex(pairs[0][side])) for side in ("first", "second"))
        yield Second(
            asking,
            first,
            again,
            after_change_cipher_spec=changed[0]
            if len(changed) == 1 and asking is not Asking.SESSION
            else None,
        )
