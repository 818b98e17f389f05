"""ECH that is rejected, and ECH that cannot be: what each is called, and that nothing is shown for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from polytls.errors import EchRejectedError, Kind, PolytlsError, ProxyError
from polytls.profiles import Catalog
from tests.engine.dialer import dialing
from tests.engine.ech_bench import FEW, KNOBS, PUBLIC, Bench
from tests.golden.recorder import GROUPS, HOST
from tests.peers import servers
from tests.peers.ech import EchKey, u16, unknown_config, vec

if TYPE_CHECKING:
    from polytls.engine import Trust


def rejection(
    ech_bench: Bench, *, give: Sequence[EchKey] = (), name: str = "chrome", **options: Any
) -> ProxyError:
    """A server with other keys than the config's."""
    keys = [key.option() for key in give] or [EchKey(PUBLIC, config_id=9).option(retry=False)]
    return ech_bench.failed(name, EchKey(PUBLIC).config_list, keys=keys, **options)


@pytest.mark.parametrize("name", [*FEW, KNOBS])
def test_a_rejection_brings_the_servers_configs(ech_bench: Bench, name: str) -> None:
    own = EchKey(PUBLIC, config_id=2)
    error = rejection(ech_bench, give=[own], name=name)
    assert isinstance(error, EchRejectedError)
    assert error.retry_configs == own.config_list


@pytest.mark.parametrize("name", ["chrome", "firefox", "safari", KNOBS])
def test_a_rejection_after_a_hello_retry_request(ech_bench: Bench, name: str) -> None:
    own = EchKey(PUBLIC, config_id=2)
    error = rejection(ech_bench, give=[own], name=name, curves=[GROUPS["secp384r1"]])
    assert isinstance(error, EchRejectedError)
    assert error.retry_configs == own.config_list


@pytest.mark.parametrize("options", [{}, {"maximum": 0x0303}], ids=["TLS 1.3", "TLS 1.2"])
def test_a_server_without_ech_rejects_and_gives_nothing(ech_bench: Bench, options: dict[str, Any]) -> None:
    error = ech_bench.failed("firefox", EchKey(PUBLIC).config_list, **options)
    assert isinstance(error, EchRejectedError)
    assert error.retry_configs == b""


def test_who_cannot_prove_the_public_name_is_not_believed(ech_bench: Bench) -> None:
    """Its certificate is even right for the host that is wanted."""
    own = EchKey(PUBLIC, config_id=2)
    error = ech_bench.failed(
        "chrome", EchKey(PUBLIC).config_list, ech_bench.certificates[:1], keys=[own.option()]
    )
    assert not isinstance(error, EchRejectedError)
    assert error.kind is Kind.CERTIFICATE_WRONG_HOST
    assert PUBLIC in error.detail


def test_whose_certificate_for_the_public_name_is_expired_is_not_believed(ech_bench: Bench) -> None:
    own = EchKey(PUBLIC, config_id=2)
    expired = ech_bench.authority.issue(PUBLIC, from_days=-2, to_days=-1)
    error = ech_bench.failed("chrome", EchKey(PUBLIC).config_list, [expired], keys=[own.option()])
    assert error.kind is Kind.CERTIFICATE_EXPIRED
    assert PUBLIC in error.detail


def test_who_accepts_must_be_the_host_inside(ech_bench: Bench) -> None:
    """The public name's certificate is no excuse then."""
    key = EchKey(PUBLIC)
    error = ech_bench.failed("chrome", key.config_list, ech_bench.certificates[1:], keys=[key.option()])
    assert error.kind is Kind.CERTIFICATE_WRONG_HOST
    assert "rejected ECH" not in error.detail


@pytest.mark.parametrize("retries", [["00"], ["fe0d000401020304"], ["fe0dffff"]])
def test_malformed_configs_to_try_again(ech_bench: Bench, retries: list[str]) -> None:
    error = rejection(ech_bench, retries=retries)
    assert not isinstance(error, EchRejectedError)
    assert error.kind is Kind.UPSTREAM_TLS_ERROR


def test_configs_of_another_version_are_handed_out_as_they_are(ech_bench: Bench) -> None:
    other = unknown_config()
    error = rejection(ech_bench, retries=[other.hex()])
    assert isinstance(error, EchRejectedError)
    assert error.retry_configs == vec(other)


@pytest.mark.parametrize(
    "configs",
    [
        vec(unknown_config()),
        EchKey("192.0.2.1").config_list,
        EchKey(PUBLIC, extensions=u16(0x8001) + vec(b"")).config_list,
        EchKey(PUBLIC, aeads=[0xFFFF]).config_list,
    ],
    ids=["version", "public name", "mandatory extension", "AEAD"],
)
@pytest.mark.parametrize("name", ["chrome", KNOBS])
def test_nothing_is_sent_where_no_config_can_be_used(ech_bench: Bench, name: str, configs: bytes) -> None:
    sent: list[bytes] = []
    error = ech_bench.failed(name, configs, sent=sent)
    assert error.kind is Kind.ECH_UNUSABLE
    assert b"".join(sent) == b""


def test_nothing_is_sent_with_a_profile_of_tls_1_2(trust: Trust, ech_bench: Bench) -> None:
    catalog = Catalog.load({"old": {"base": "default", "max_tls": "TLS1.2"}}, "test")
    old = Bench(catalog, trust, ech_bench.authority, ech_bench.directory)
    sent: list[bytes] = []
    error = old.failed("old", EchKey(PUBLIC).config_list, sent=sent)
    assert error.kind is Kind.ECH_UNUSABLE
    assert b"".join(sent) == b""


def test_a_malformed_list_is_a_mistake_of_ours(ech_bench: Bench) -> None:
    async def main() -> None:
        with servers.go_ech(ech_bench.certificates, ech_bench.directory) as port:
            async with dialing() as dialer:
                spec = ech_bench.catalog.require("chrome", source="test", key="")
                with pytest.raises(PolytlsError, match="invalid"):
                    await dialer.fetch(spec, ech_bench.context("chrome"), HOST, port, ech_configs=b"\0\5abc")

    asyncio.run(main())
