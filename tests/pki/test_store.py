"""Permissions, sizes, locks: the file system as it is, not a model of it."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING

import pytest

from polytls.errors import CAError
from polytls.pki import store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "private.key"
    path.write_bytes(b"content")
    path.chmod(0o600)
    return path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def any_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_secret_of_ones_own(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert store.read_secret(file, "CA key") == b"content"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o601, 0o666])
def test_a_secret_that_is_open_to_others(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(CAError, match=f"private.key is open to .*mode {mode:04o}.*chmod 600 {file}"):
        store.read_secret(file, "CA key")
    assert store.read_public(file, "CA key") == b"content"


@pytest.mark.parametrize(
    ("mode", "accepted"), [(0o440, True), (0o640, True), (0o660, False), (0o444, False), (0o644, False)]
)
def test_a_secret_granted_by_another_user(
    file: Path, mode: int, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(mode)
    # who we are is all that is pretended: giving files away needs root
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    if accepted:
        assert store.read_secret(file, "CA key") == b"content"
    else:
        with pytest.raises(CAError, match="open to other users"):
            store.read_secret(file, "CA key")


@pytest.mark.parametrize("mode", [0o440, 0o444, 0o644])
def test_a_secret_on_a_read_only_mount(file: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(mode)
    real = os.fstatvfs

    def read_only(descriptor: int) -> os.statvfs_result:
        values = list(real(descriptor))
        values[8] |= os.ST_RDONLY  # f_flag
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "fstatvfs", read_only)
    assert store.read_secret(file, "CA key") == b"content"


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_the_size_limit(file: Path, excess: int) -> None:
    file.write_bytes(b"x" * (store.MAX_FILE_BYTES + excess))
    if excess > 0:
        with pytest.raises(CAError, match="larger than"):
            store.read_public(file, "CA certificate")
    else:
        assert len(store.read_public(file, "CA certificate")) == store.MAX_FILE_BYTES + excess


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, problem in [("fifo", "regular file"), (".", "regular file"), ("dangling", "No such file")]:
        with pytest.raises(CAError, match=problem):
            store.read_secret(tmp_path / name, "CA key")
    assert store.present(tmp_path / "dangling")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # what even root cannot open
    with pytest.raises(CAError, match=r"CA key .*loop cannot be read: Too many levels of symbolic links"):
        store.read_secret(loop, "CA key")


def test_modes_hold_under_any_umask(tmp_path: Path, any_umask: int) -> None:
    directory = tmp_path / "new" / "ca" if any_umask != 0o777 else tmp_path / "ca"
    store.make_directory(directory, 0o700)
    store.stage(directory / "file", b"content", 0o640)
    store.publish(directory / "file")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "file").stat().st_mode) == 0o640


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store.make_directory(tmp_path, 0o700)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_directory_cannot_be_made_below_a_file(file: Path) -> None:
    for path in (file, file / "ca"):
        with pytest.raises(CAError, match="cannot be created"):
            store.make_directory(path, 0o700)


def test_staging_replaces_what_a_crash_left(file: Path) -> None:
    store.staged(file).write_bytes(b"left over")
    store.stage(file, b"new", 0o600)
    assert file.read_bytes() == b"content"
    store.publish(file)
    assert file.read_bytes() == b"new"
    assert not store.present(store.staged(file))


def test_staging_does_not_write_through_a_link(file: Path, tmp_path: Path) -> None:
    store.staged(file).symlink_to(tmp_path / "elsewhere")
    store.stage(file, b"new", 0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "private.key"
    with pytest.raises(CAError, match="cannot be written: No such file"):
        store.stage(gone, b"", 0o600)
    with pytest.raises(CAError, match="cannot be put in place"):
        store.publish(gone)
    with pytest.raises(CAError, match=r"lock file .* needs a writable directory"), store.locked(gone.parent):
        pass


def test_a_lock_that_is_not_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_SECONDS", 0.05)
    with (
        store.locked(tmp_path),
        pytest.raises(CAError, match=r"another process has held .*polytls-ca.lock"),
        store.locked(tmp_path),
    ):
        pass
    with store.locked(tmp_path):  # and now it is free
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CAError, match=r"cannot be locked \(No locks available\)"), store.locked(tmp_path):
        pass
