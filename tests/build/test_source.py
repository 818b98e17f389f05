"""Fetching and unpacking the pinned source, with the real package client and archives made here."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from provision import source
from provision.errors import ProvisionError

BORINGSSL = Path(__file__).parents[2] / "native" / "boringssl"
INSIDE = "third_party/boringssl-with-bazel"

COMPLETE = {
    "LICENSE": b"the licence",
    "PKG-INFO": b"Metadata-Version: 2.1\nName: tinypin\nVersion: 1.0\n",
    # A set-up script that must never run.
    "setup.py": b"raise SystemExit('the set-up script was run')",
    "pyproject.toml": b'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    f"{INSIDE}/crypto/mem.cc": b"mem",
    f"{INSIDE}/gen/crypto/err_data.cc": b"err",
    f"{INSIDE}/include/openssl/ssl.h": b"ssl",
    f"{INSIDE}/ssl/ssl_lib.cc": b"lib",
    f"{INSIDE}/third_party/fiat/p256_64.h": b"fiat",
    f"{INSIDE}/third_party/other/left_out.h": b"other",
}


def make_archive(path: Path, files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> source.Pin:
    with tarfile.open(path / "tinypin-1.0.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tinypin-1.0/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    sha256 = hashlib.sha256((path / "tinypin-1.0.tar.gz").read_bytes()).hexdigest()
    return write_pin(path, sha256)


def write_pin(path: Path, sha256: str) -> source.Pin:
    requirements = path / "requirements.txt"
    requirements.write_text(f"# why\ntinypin==1.0 --hash=sha256:{sha256}\n", encoding="utf-8")
    return source.read_pin(requirements)


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for its whole index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_the_committed_pin_is_exact() -> None:
    pin = source.read_pin(BORINGSSL / "requirements.txt")
    assert pin.name == "grpcio"
    assert pin.archive == f"grpcio-{pin.version}.tar.gz"


@pytest.mark.parametrize("text", ["", "grpcio==1.0\n", "grpcio>=1.0 --hash=sha256:" + "0" * 64])
def test_refuses_an_inexact_pin(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ProvisionError, match="must pin exactly one"):
        source.read_pin(tmp_path / "requirements.txt")


def test_downloads_without_running_the_package(local_index: Path) -> None:
    pin = make_archive(local_index, COMPLETE)
    destination = local_index / "out"
    destination.mkdir()
    archive = source.download(pin, destination, BORINGSSL / "inert_backend")
    assert archive.read_bytes() == (local_index / pin.archive).read_bytes()


def test_refuses_a_download_with_another_checksum(local_index: Path) -> None:
    make_archive(local_index, COMPLETE)
    pin = write_pin(local_index, "0" * 64)
    destination = local_index / "out"
    destination.mkdir()
    with pytest.raises(ProvisionError, match="does not have the pinned SHA-256 and was not used"):
        source.download(pin, destination, BORINGSSL / "inert_backend")
    assert not list(destination.iterdir())


def test_says_what_to_do_without_an_index(local_index: Path) -> None:
    pin = write_pin(local_index, "0" * 64)
    with pytest.raises(ProvisionError, match=r"check the network .* POLYTLS_BORINGSSL_SOURCE"):
        source.download(pin, local_index, BORINGSSL / "inert_backend")


def test_verifies_by_itself(tmp_path: Path) -> None:
    pin = make_archive(tmp_path, COMPLETE)
    source.verify(tmp_path / pin.archive, pin.sha256)
    with (tmp_path / pin.archive).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ProvisionError, match="does not have the pinned SHA-256"):
        source.verify(tmp_path / pin.archive, pin.sha256)


def test_unpacks_only_what_is_needed(tmp_path: Path) -> None:
    pin = make_archive(tmp_path, COMPLETE)
    source.unpack(tmp_path / pin.archive, tmp_path / "tree")
    found = {path.relative_to(tmp_path / "tree").as_posix() for path in (tmp_path / "tree").rglob("*.*")}
    assert found == {
        "crypto/mem.cc",
        "gen/crypto/err_data.cc",
        "include/openssl/ssl.h",
        "ssl/ssl_lib.cc",
        "third_party/fiat/p256_64.h",
    }
    assert (tmp_path / "tree/LICENSE").read_bytes() == b"the licence"


def test_refuses_links_in_the_archive(tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"tinypin-1.0/{INSIDE}/crypto/link.cc")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    pin = make_archive(tmp_path, COMPLETE, link)
    with pytest.raises(ProvisionError, match="is no plain file"):
        source.unpack(tmp_path / pin.archive, tmp_path / "tree")


def test_nothing_leaves_the_destination(tmp_path: Path) -> None:
    escape = {f"{INSIDE}/crypto/../../../../../escaped.cc": b"out"}
    pin = make_archive(tmp_path, {**COMPLETE, **escape})
    source.unpack(tmp_path / pin.archive, tmp_path / "a" / "b" / "tree")
    assert not list(tmp_path.rglob("escaped.cc"))


def test_refuses_an_archive_without_boringssl(tmp_path: Path) -> None:
    pin = make_archive(tmp_path, {name: body for name, body in COMPLETE.items() if "/ssl/" not in name})
    with pytest.raises(ProvisionError, match="it lacks ssl"):
        source.unpack(tmp_path / pin.archive, tmp_path / "tree")


def test_a_checkout_is_known_by_its_contents(tmp_path: Path) -> None:
    pin = make_archive(tmp_path, COMPLETE)
    checkout = tmp_path / "checkout"
    source.unpack(tmp_path / pin.archive, checkout)
    first = source.checkout_identity(checkout)
    (checkout / "notes.txt").write_text("not taken, so it does not count", encoding="utf-8")
    assert source.checkout_identity(checkout) == first
    source.copy_checkout(checkout, tmp_path / "copy")
    assert source.checkout_identity(tmp_path / "copy") == first
    (checkout / "ssl/ssl_lib.cc").write_bytes(b"changed")
    assert source.checkout_identity(checkout) != first


def test_refuses_a_directory_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"is no BoringSSL source .* POLYTLS_BORINGSSL_SOURCE"):
        source.checkout_identity(tmp_path)
