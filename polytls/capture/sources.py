"""What a person names -> what it holds: captures, and profiles in files.

Whatever is wrong with one is a `CaptureError` (or a
`ProfileError` from inside it) that begins with the file's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from polytls.capture.clients import Client, clients_of
from polytls.capture.pcap import CaptureError
from polytls.capture.records import MAX_FILE_BYTES, CapturedHello, printable, read_hellos
from polytls.fingerprint.texts import MAX_TEXT_CHARS, looks_like_text
from polytls.profiles import Catalog
from polytls.profiles.directory import read_file
from polytls.wire.client_hello import HelloError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytls.profiles.spec import HelloSpec

STDIN = "-"


def hellos_from(source: str, read_stdin: Callable[[int], bytes]) -> tuple[CapturedHello, ...]:
    """Every hello of a file, or of standard input (``-``). Raises `CaptureError`, OSError."""
    if source == STDIN:
        data = read_stdin(MAX_FILE_BYTES + 1)
    else:
        path = Path(source)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise CaptureError(f"{source}: this has {size} bytes; at most {MAX_FILE_BYTES} are read")
        data = path.read_bytes()
    try:
        return read_hellos(data)
    except CaptureError as problem:
        name = "standard input" if source == STDIN else source
        raise CaptureError(f"{name}: {problem}") from None


def text_in(source: str, read_stdin: Callable[[int], bytes]) -> str | None:
    """The fingerprint's text that a source is or holds; None where it is a capture. Raises OSError."""
    if source == STDIN:
        data = read_stdin(MAX_FILE_BYTES + 1)
    elif looks_like_text(source):
        return source
    elif "\0" not in source and Path(source).is_file():
        with Path(source).open("rb") as file:
            data = file.read(2 * MAX_TEXT_CHARS)
    else:
        return None
    text = data[: 2 * MAX_TEXT_CHARS].decode("ascii", errors="replace").strip()
    return text if looks_like_text(text) else None


def clients_from(source: str, read_stdin: Callable[[int], bytes]) -> tuple[Client, ...]:
    """Every client of a capture, at least one. Raises `CaptureError`, OSError."""
    try:
        clients = clients_of(hellos_from(source, read_stdin))
    except HelloError as problem:
        raise CaptureError(f"{source}: {problem}") from None
    if not clients:
        raise CaptureError(
            f"{source}: all that it holds answers a HelloRetryRequest; a first hello is needed"
        )
    return clients


def one_client(clients: Sequence[Client], source: str) -> Client:
    """The only one. Raises `CaptureError` that names them where there are several."""
    if len(clients) > 1:
        named = "; ".join(map(str, clients))
        raise CaptureError(f"{source}: holds {len(clients)} clients, and one is needed: {named}")
    return clients[0]


def profile_in(path: Path, catalog: Catalog | None = None) -> HelloSpec:
    """The only profile of a TOML file: a ``[profiles.NAME]`` table, or a file of its own as the built-in ones
    are. Its base may be any profile of `catalog`. Raises `CaptureError`, `ProfileError`."""
    found = read_file(path, strict=False)
    if len(found) > 1:
        names = ", ".join(printable(entry.name) for entry in found)
        raise CaptureError(
            f"{path}: has {len(found)} profiles ({names}); give it by --config, and name the profile"
        )
    (entry,) = found
    beside = (catalog or Catalog.load({}, str(path))).beside(entry)
    return beside.require(entry.name, source=str(path), key="profiles")
