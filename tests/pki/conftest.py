"""A root CA and leaf keys, made once, and the tools that judge what is minted with them."""

from __future__ import annotations

import os
import shutil
import ssl
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from polytls.pki.leaf import Leaf, LeafKeys
from polytls.pki.root import RootCA, load_or_create

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `private.key` and `certificate.pem`. Tests copy from it and do not change it."""
    directory = tmp_path_factory.mktemp("pki") / "ca"
    load_or_create(directory / "private.key", directory / "certificate.pem", None)
    return directory


@pytest.fixture(scope="session")
def root(ca_dir: Path) -> RootCA:
    return load_or_create(ca_dir / "private.key", ca_dir / "certificate.pem", None)


@pytest.fixture(scope="session")
def keys() -> LeafKeys:
    return LeafKeys.generate()


@pytest.fixture(scope="session")
def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find an external program: without it the test is skipped, or fails where tools are required."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            problem = f"{name} is not installed"
            if os.environ.get("POLYTLS_REQUIRE_TOOLS") == "1":
                pytest.fail(f"{problem}, and POLYTLS_REQUIRE_TOOLS=1")
            pytest.skip(problem)
        return path

    return find


@pytest.fixture
def server_context(keys: LeafKeys, tmp_path: Path) -> Callable[[Leaf], ssl.SSLContext]:
    """Make the context of a TLS server that shows the given leaf."""

    def make(leaf: Leaf) -> ssl.SSLContext:
        key = serialization.load_der_private_key(keys.private_der(leaf.kind), None)
        file = tmp_path / "chain-and-key.pem"
        file.write_bytes(
            b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in leaf.chain_der)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    return make
