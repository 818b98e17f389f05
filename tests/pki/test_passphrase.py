"""Where the passphrase comes from, and what is said when it does not come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polytls.errors import CAError
from polytls.pki.passphrase import MAX_PASSPHRASE_BYTES, read_passphrase

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(0o600)
    return path


def test_no_source() -> None:
    assert read_passphrase(None, None, {"CA_PASSPHRASE": "unused"}) is None


def test_the_environment() -> None:
    assert (
        read_passphrase("CA_PASSPHRASE", None, {"CA_PASSPHRASE": "öffne dich\n"}) == "öffne dich\n".encode()
    )


def test_the_environment_in_any_encoding() -> None:
    assert read_passphrase("P", None, {"P": b"\xf6ffne".decode("utf-8", "surrogateescape")}) == b"\xf6ffne"


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"open", b"open"),
        (b"open\n", b"open"),
        (b"open\r\n", b"open"),
        (b"open\n\n", b"open\n"),
        (b" open \n", b" open "),
        (b"\xff\x00\n", b"\xff\x00"),
    ],
)
def test_a_file_ends_with_at_most_one_line_break(file: Path, content: bytes, passphrase: bytes) -> None:
    file.write_bytes(content)
    assert read_passphrase(None, file, {}) == passphrase


@pytest.mark.parametrize("size", [MAX_PASSPHRASE_BYTES - 1, MAX_PASSPHRASE_BYTES])
def test_long_passphrases(file: Path, size: int) -> None:
    file.write_bytes(b"x" * size + b"\n")
    assert read_passphrase(None, file, {}) == b"x" * size


def test_too_long_a_passphrase(file: Path) -> None:
    file.write_bytes(b"x" * (MAX_PASSPHRASE_BYTES + 1))
    with pytest.raises(CAError, match="1024 bytes, too long") as caught:
        read_passphrase(None, file, {})
    assert "xx" not in str(caught.value)


def test_two_sources(file: Path) -> None:
    with pytest.raises(CAError, match="two sources"):
        read_passphrase("CA_PASSPHRASE", file, {"CA_PASSPHRASE": "x"})


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(CAError, match=r"CA_PASSPHRASE.*is not set"):
        read_passphrase("CA_PASSPHRASE", None, {})


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(CAError, match="empty"):
        read_passphrase(None, file, {})


def test_an_empty_variable() -> None:
    with pytest.raises(CAError, match="empty"):
        read_passphrase("CA_PASSPHRASE", None, {"CA_PASSPHRASE": ""})


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CAError, match=r"passphrase .*nowhere cannot be read: No such file"):
        read_passphrase(None, tmp_path / "nowhere", {})


def test_a_file_that_others_can_read(file: Path) -> None:
    file.write_bytes(b"open")
    file.chmod(0o644)
    with pytest.raises(CAError, match=r"mode 0644.*chmod 600"):
        read_passphrase(None, file, {})
