"""A directory of profiles of one's own: files -> entries.

Theory of operation
-------------------
Every ``NAME.toml`` in the directory is read, in the order of their names; directories below it, other files
and hidden ones (an editor's) are passed over. A file is one profile, as the built-in ones are, and called
like the file; or it has ``[profiles.NAME]`` tables and nothing else, as ``polytls profiles show`` and
``learn`` write them. Nothing is resolved here: a base may be a profile of another file.

What cannot be read or is no TOML is a `ProfileError` that names file and line: a directory that was given is
loaded whole or not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from polytls.errors import ProfileError
from polytls.profiles.entries import DIRECTORY, Entry, entries_of
from polytls.profiles.wording import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"

MAX_FILE_BYTES = 1 << 20
"""A profile has some 4 KB; a megabyte is some other file."""

MAX_FILES = 4096
"""In one directory: each is read at the start. Real collections have some hundred."""

_PROFILES = "profiles"


def read_directory(directory: Path) -> tuple[Entry, ...]:
    """Every profile of a directory. Raises `ProfileError`."""
    try:
        paths = sorted(path for path in directory.iterdir() if _is_profile(path))
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ProfileError(str(directory), "", _unreadable(error, "a directory of profiles")) from None
    if len(paths) > MAX_FILES:
        problem = f"has {len(paths)} profiles; allowed: at most {MAX_FILES} files"
        raise ProfileError(str(directory), "", problem)
    return tuple(entry for path in paths for entry in read_file(path))


def read_file(path: Path, *, strict: bool = True) -> tuple[Entry, ...]:
    """The profiles of one file, at least one. `strict`: beside ``[profiles]`` there is nothing; else what is
    there is a configuration's, and of no interest. Raises `ProfileError`."""
    source = str(path)
    table = _parsed(path, source)
    tables = table.get(_PROFILES)
    if tables is None:
        return entries_of({path.name.removesuffix(SUFFIX): table}, source, in_directory=True, whole_file=True)
    others = [key for key in table if key != _PROFILES]
    if strict and others:
        problem = f"is beside [profiles], in which a file has all its profiles; allowed: without {_PROFILES}"
        raise ProfileError(source, shown(others[0]), problem)
    if isinstance(tables, Mapping) and not strict:
        tables = {name: table for name, table in tables.items() if name != DIRECTORY}
    if not isinstance(tables, Mapping) or not tables:
        raise ProfileError(source, "", "has no profile in [profiles]; allowed: tables [profiles.NAME]")
    return entries_of(tables, source, in_directory=True)


def _is_profile(path: Path) -> bool:
    # A link that leads nowhere is somebody's profile: reading it says what is wrong.
    return path.name.endswith(SUFFIX) and not path.name.startswith(".") and not path.is_dir()


def _parsed(path: Path, source: str) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ProfileError(source, "", _unreadable(error, "a profile")) from None
    if len(raw) > MAX_FILE_BYTES:
        problem = f"is larger than {MAX_FILE_BYTES} bytes; allowed: a profile, which has some thousand"
        raise ProfileError(source, "", problem)
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError(source, "", f"is not TOML: not UTF-8 (at line {line})") from None
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise ProfileError(source, "", f"is not TOML: {error}") from None
    except RecursionError:
        raise ProfileError(source, "", "is not TOML: arrays or tables are nested too deeply") from None


def _unreadable(error: OSError | ValueError, what: str) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot be read as {what} ({reason}); check the path and its permissions"
