"""The CA's files on disk: who may read them, and how a new pair appears whole or not at all.

Theory of operation
-------------------
A new pair is *staged*, each file beside its final place under a hidden name and flushed to the disk, and
then *published* by renaming: first the key, then the certificate. So a certificate in place means that
its key is in place too, and whatever moment a crash picks, the next start finds one of these:

* no final file: staged leftovers are worthless and are discarded;
* the key alone, its certificate still staged: renaming the certificate finishes the work;
* both.

Which of these holds, and what to do, is decided in `polytls.pki.root` under `locked`, an advisory `flock`
that the kernel drops when its holder dies. The lock file stays: removing it would let two processes
lock two different files of the same name.

Who may read a secret
---------------------
`read_secret` refuses what the user can and should mend, and accepts what an orchestrator decided:

* any access for others, or write access for the group: refused;
* read access for the group: refused where the file is our own (0600 is one `chmod` away), accepted where
  another user owns it, because that is how a service is granted a key (0640 or 0440 ``root:service``);
* on a read-only mount everything is accepted. Secrets mounted into a container are 0444 or 0644 by
  default, nobody inside can change that, and the mount is what bounds their readers.

Left out: the permissions of the directories above. POSIX only, as the engine is.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from polytls.errors import CAError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A 16,384-bit RSA key is 13 KB of PEM; what is far larger is some other file.
MAX_FILE_BYTES = 256 * 1024
# The holder generates one RSA key, which takes well under a second.
LOCK_TIMEOUT_SECONDS = 30.0
LOCK_POLL_SECONDS = 0.02
LOCK_NAME = ".polytls-ca.lock"

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
DIRECTORY_MODE = 0o700


def read_secret(path: Path, what: str) -> bytes:
    """Return the content of a file that others must not be able to read (the rule is above).

    `what` names the content in errors ("CA key"). Raises CAError if the file cannot be read, is not a
    regular file, is larger than `MAX_FILE_BYTES`, or if its permissions are too wide.
    """
    return _read(path, what, secret=True)


def read_public(path: Path, what: str) -> bytes:
    """Return the content of a file that anyone may read. Raises CAError as `read_secret` does."""
    return _read(path, what, secret=False)


def present(path: Path) -> bool:
    """Say whether something is there. A dangling link counts: it is a fault to report, not a free place."""
    return os.path.lexists(path)


def make_directory(path: Path, mode: int) -> None:
    """Create a directory, and those above it, unless it exists. The mode holds under any umask."""
    with _reported(f"the directory {path} cannot be created"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            path.chmod(mode)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock against other processes, and other threads of this one.

    Raises CAError if the lock cannot be created, or is not free within `LOCK_TIMEOUT_SECONDS`.
    """
    path = directory / LOCK_NAME
    with _reported(f"the lock file {path} cannot be opened (a new root CA needs a writable directory)"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, KEY_MODE)
    try:
        _acquire(descriptor, path)
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def staged(path: Path) -> Path:
    """Return where a file waits before it is published: the same directory, so that a rename is atomic."""
    return path.with_name(f".{path.name}.new")


def stage(path: Path, data: bytes, mode: int) -> None:
    """Write `data` beside `path`, complete and flushed to the disk. Call it under `locked`.

    The file is 0600 from its first instant and gets `mode` (whatever the umask) before any content.
    """
    place = staged(path)
    with _reported(f"{place} cannot be written"):
        place.unlink(missing_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEY_MODE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)


def publish(path: Path) -> None:
    """Rename a staged file to its final name and flush the directory. Call it under `locked`."""
    with _reported(f"{path} cannot be put in place"):
        staged(path).replace(path)
        _flush_directory(path.parent)


def discard_staged(path: Path) -> None:
    """Remove what a crash left staged for `path`, if anything. Call it under `locked`."""
    place = staged(path)
    with _reported(f"{place}, left over by an earlier start, cannot be removed"):
        place.unlink(missing_ok=True)


def _read(path: Path, what: str, *, secret: bool) -> bytes:
    with _reported(f"the {what} {path} cannot be read"):
        # O_NONBLOCK: opening a FIFO by mistake must not hang the start
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Everything is judged on the open file: the name may change its meaning in between.
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CAError(f"the {what} {path} is not a regular file: name the PEM file itself")
            if secret:
                read_only = bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
                _check_permissions(path, what, status, read_only=read_only)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise CAError(
            f"the {what} {path} is larger than {MAX_FILE_BYTES} bytes: check that it is the right file"
        )
    return data


def _check_permissions(path: Path, what: str, status: os.stat_result, *, read_only: bool) -> None:
    refused = stat.S_IRWXO | stat.S_IWGRP
    if status.st_uid == os.geteuid():
        refused |= stat.S_IRGRP
    if status.st_mode & refused and not read_only:
        mode = stat.S_IMODE(status.st_mode)
        raise CAError(
            f"the {what} {path} is open to other users of this machine (mode {mode:04o}):"
            f" run `chmod 600 {path}`, and replace it if someone else may have read it"
        )


def _acquire(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CAError(
                    f"another process has held {path} for {LOCK_TIMEOUT_SECONDS:.0f} s: end it, start again"
                ) from None
        except OSError as error:
            raise CAError(
                f"{path} cannot be locked ({error.strerror}): put the CA on a file system that has locks"
            ) from error
        time.sleep(LOCK_POLL_SECONDS)  # flock has no deadline of its own


def _flush_directory(path: Path) -> None:
    # Some file systems refuse this. The rename is atomic all the same; it may only be lost whole.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _reported(problem: str) -> Iterator[None]:
    """Turn the operating system's error into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise CAError(f"{problem}: {error.strerror or error}") from error
