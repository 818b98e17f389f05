"""Servers that choose what a profile only shows: a failure of its own kind, which names the choice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.engine import ClientContext, Trust
from polytls.errors import Kind, ProxyError, Side, Stage
from polytls.wire import iana
from polytls.wire.iana import ExtensionType
from tests.engine.dialer import dialing
from tests.golden.known import NAMES, hello_of
from tests.golden.recorder import HOST
from tests.peers.tools import s_server

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

ENCRYPT_THEN_MAC = 22

Outcomes = dict[str, ProxyError | None]
Serve = Callable[..., Outcomes]


@pytest.fixture(scope="module")
def certificates(authority: Authority) -> dict[str, Path]:
    return {"ecdsa": authority.issue(HOST), "rsa": authority.issue(HOST, use_rsa=True)}


@pytest.fixture
def outcomes(catalog: Catalog, trust: Trust, certificates: dict[str, Path]) -> Serve:
    """One connection with each of some profiles to an OpenSSL server: its failure, or None."""

    def run(names: list[str], certificate: str, *options: str) -> Outcomes:
        async def main(port: int) -> Outcomes:
            found: Outcomes = {}
            async with dialing() as dialer:
                for name in names:
                    spec = catalog.require(name, source="test", key="")
                    context = ClientContext(spec, trust, verify_chain=True, verify_host=True)
                    try:
                        await dialer.fetch(spec, context, HOST, port)
                        found[name] = None
                    except ProxyError as error:
                        found[name] = error
            return found

        with s_server(certificates[certificate], "-www", *options) as port:
            return asyncio.run(main(port))

    return run


def assert_all_name(outcomes: Outcomes, choice: str) -> None:
    assert outcomes
    for name, error in outcomes.items():
        assert error is not None, name
        assert (error.side, error.stage) == (Side.UPSTREAM, Stage.UPSTREAM_TLS), name
        assert error.kind is Kind.UPSTREAM_UNSUPPORTED_CHOICE, (name, str(error))
        assert error.detail.endswith(choice), (name, error.detail)


def with_suite(suite: int) -> list[str]:
    return [name for name in NAMES if suite in hello_of(name).cipher_suites]


def with_group(group: int) -> list[str]:
    return [name for name in NAMES if group in hello_of(name).supported_groups]


@pytest.mark.parametrize(
    ("suite", "certificate", "cipher"),
    [
        (0xC024, "ecdsa", "ECDHE-ECDSA-AES256-SHA384"),
        (0xC0AC, "ecdsa", "ECDHE-ECDSA-AES128-CCM"),
        (0xC028, "rsa", "ECDHE-RSA-AES256-SHA384"),
        (0x009E, "rsa", "DHE-RSA-AES128-GCM-SHA256"),
        (0x009F, "rsa", "DHE-RSA-AES256-GCM-SHA384"),
        (0xCCAA, "rsa", "DHE-RSA-CHACHA20-POLY1305"),
        (0x0039, "rsa", "DHE-RSA-AES256-SHA"),
        (0x003D, "rsa", "AES256-SHA256"),
    ],
)
def test_a_suite_of_tls12(outcomes: Serve, suite: int, certificate: str, cipher: str) -> None:
    found = outcomes(with_suite(suite), certificate, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert_all_name(found, f"the cipher suite {iana.cipher_suite_name(suite)}")


def test_a_suite_of_tls13(outcomes: Serve) -> None:
    found = outcomes(with_suite(0x1304), "ecdsa", "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256")
    assert_all_name(found, "the cipher suite TLS_AES_128_CCM_SHA256")


@pytest.mark.parametrize(("group", "name"), [(0x0100, "ffdhe2048"), (0x0101, "ffdhe3072"), (0x001E, "X448")])
def test_a_group_by_retry(outcomes: Serve, group: int, name: str) -> None:
    found = outcomes(with_group(group), "ecdsa", "-tls1_3", "-groups", name)
    assert_all_name(found, f"the group {iana.group_name(group)}")


def test_a_group_of_tls12(outcomes: Serve) -> None:
    found = outcomes(with_group(0x001E), "ecdsa", "-tls1_2", "-groups", "X448")
    assert_all_name(found, "the group x448")


def test_encrypt_then_mac(outcomes: Serve) -> None:
    """RFC 7366 §3: a server answers it with a CBC suite, and changes the record layer."""
    names = [name for name in with_suite(0xC009) if hello_of(name).extension(ENCRYPT_THEN_MAC) is not None]
    found = outcomes(names, "ecdsa", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    assert_all_name(found, "encrypt_then_mac")


def test_what_is_not_even_shown_is_the_servers_refusal(outcomes: Serve) -> None:
    names = [name for name in NAMES if name not in with_group(0x001E)]
    for error in outcomes(names, "ecdsa", "-tls1_3", "-groups", "X448").values():
        assert error is not None
        assert error.kind is Kind.UPSTREAM_ALERT


@pytest.mark.parametrize(
    ("certificate", "cipher", "suite"),
    [
        ("ecdsa", "ECDHE-ECDSA-AES128-SHA256", 0xC023),
        ("rsa", "ECDHE-RSA-AES128-SHA256", 0xC027),
        ("ecdsa", "ECDHE-ECDSA-AES256-SHA", 0xC00A),
    ],
)
def test_suites_that_a_default_client_would_not_accept(
    outcomes: Serve, certificate: str, cipher: str, suite: int
) -> None:
    names = [name for name in with_suite(suite) if hello_of(name).extension(ENCRYPT_THEN_MAC) is None]
    assert names
    found = outcomes(names, certificate, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert set(found.values()) == {None}


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_old_versions_that_safari_still_offers(outcomes: Serve, option: str) -> None:
    names = [name for name in NAMES if 0x0301 in hello_of(name).supported_versions]
    assert names
    found = outcomes(names, "ecdsa", option, "-cipher", "ALL:@SECLEVEL=0")
    expected = {
        name for name in names if hello_of(name).extension(ENCRYPT_THEN_MAC) is None
    }  # they would choose it with any suite of those versions
    assert {name for name, error in found.items() if error is None} == expected
    assert ExtensionType.SUPPORTED_VERSIONS in hello_of(names[0]).extension_types
