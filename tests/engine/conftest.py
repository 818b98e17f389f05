"""Certificates for the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from polytls.engine import ClientContext, Credential, Trust
from polytls.engine.roots import certificates_of
from polytls.profiles import Catalog
from tests.engine.ech_bench import Bench
from tests.peers.certificates import Authority, der_pair

HOST = "origin.lab.test"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("origins"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Path:
    """Of `origin.lab.test`, with its key."""
    return authority.issue(HOST)


@pytest.fixture(scope="session")
def credential(certificate: Path) -> Credential:
    leaf, key = der_pair(certificate)
    return Credential([leaf], key)


@pytest.fixture(scope="session")
def trust(authority: Authority) -> Trust:
    return Trust(certificates_of(authority.pem.read_bytes()))


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog.load({}, "test")


@pytest.fixture(scope="session")
def chrome(catalog: Catalog, trust: Trust) -> ClientContext:
    spec = catalog.require("chrome", source="test", key="")
    return ClientContext(spec, trust, verify_chain=True, verify_host=True)


@pytest.fixture(scope="session")
def ech_bench(
    catalog: Catalog, trust: Trust, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    return Bench(catalog, trust, authority, tmp_path_factory.mktemp("ech"))
