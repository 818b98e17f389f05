"""The second hello of a connection (after a HelloRetryRequest) and of a session (resumed).

It has otherwise than the first what the captured client's has, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polytls.engine import ClientContext, TlsFacts, Trust
from polytls.errors import ProxyError
from polytls.wire.iana import ExtensionType
from tests.engine.dialer import dialing
from tests.golden.known import (
    NAMES,
    capture,
    ech_payload_bytes,
    offers,
    permutes,
    psk_bytes,
    stored_told,
    told,
)
from tests.golden.recorder import GROUPS, HOST, Answer, Recorder, SentHello, record_types

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from tests.peers.certificates import Authority

CONNECTIONS = 3
CHANGE_CIPHER_SPEC, HANDSHAKE, APPLICATION_DATA = 20, 22, 23  # RFC 8446 §5.1
SHARE_BYTES = {"secp384r1": 97, "secp521r1": 133}

NO_RESUMPTION = [name for name in NAMES if not capture(name)["resumed"]]
NO_PSK = ("tor-14.5",)
"""The imitation offers a session without psk_key_exchange_modes, which RFC 8446 §4.2.9 does not allow. Tor
Browser keeps no sessions."""
RESUMING = [name for name in NAMES if capture(name)["resumed"] and name not in NO_PSK]
REAL = [name for name in NAMES if not capture(name)["imitation"]]
COOKIE_WITH_GROUP = [name for name in NAMES if capture(name)["retry_cookie_group"]]
"""GnuTLS refuses a HelloRetryRequest that wants nothing but its cookie: theirs asked for a group as well."""

Pairs = Mapping[str, list[tuple[SentHello, SentHello]]]


class Bench:
    """Makes contexts of built-in profiles, and connections with them."""

    def __init__(self, catalog: Catalog, authority: Authority, trust: Trust) -> None:
        self.catalog = catalog
        self.trust = trust
        self.certificate: Path = authority.issue(HOST)

    def retried(self, answer: Answer, group: str | None, names: Sequence[str]) -> Pairs:
        """Both hellos of every connection, by profile."""

        async def main() -> Pairs:
            with Recorder(answer, self.certificate, group) as recorder:
                async with dialing() as dialer:
                    for name in names:
                        spec = self.catalog.require(name, source="test", key="")
                        context = ClientContext(spec, self.trust, verify_chain=True, verify_host=True)
                        for _ in range(CONNECTIONS):
                            # A server that wants its cookie back hangs up when it has it.
                            over = (
                                pytest.raises(ProxyError)
                                if answer is Answer.COOKIE
                                else contextlib.nullcontext()
                            )
                            with over:
                                fetched = await dialer.fetch(spec, context, HOST, recorder.port)
                                assert fetched.facts.retried, name
                taken = iter(recorder.connections)
            return {name: [_pair(next(taken)) for _ in range(CONNECTIONS)] for name in names}

        return asyncio.run(main())

    def visits(self, name: str, answer: Answer, group: str | None, count: int) -> Recorder:
        """A recorder, left, with `count` connections of one context."""

        async def main(port: int) -> None:
            spec = self.catalog.require(name, source="test", key="")
            context = ClientContext(spec, self.trust, verify_chain=True, verify_host=True)
            async with dialing() as dialer:
                for _ in range(count):
                    await dialer.fetch(spec, context, HOST, port)

        with Recorder(answer, self.certificate, group) as recorder:
            asyncio.run(main(recorder.port))
        return recorder

    def resumed(self, names: Sequence[str]) -> Mapping[str, tuple[SentHello, SentHello, TlsFacts]]:
        """A full hello, the next one, and what became of the second, by profile."""

        async def main() -> Mapping[str, tuple[SentHello, SentHello, TlsFacts]]:
            facts = {}
            with Recorder(Answer.TICKETS, self.certificate) as recorder:
                async with dialing() as dialer:
                    for name in names:
                        spec = self.catalog.require(name, source="test", key="")
                        context = ClientContext(spec, self.trust, verify_chain=True, verify_host=True)
                        for _ in range(2):
                            fetched = await dialer.fetch(spec, context, HOST, recorder.port)
                            facts[name] = fetched.facts
                taken = iter(recorder.connections)
            return {name: (next(taken)[0], next(taken)[0], facts[name]) for name in names}

        return asyncio.run(main())


def _pair(sent: list[SentHello]) -> tuple[SentHello, SentHello]:
    first, second = sent
    return first, second


@pytest.fixture(scope="module")
def bench(catalog: Catalog, authority: Authority, trust: Trust) -> Bench:
    return Bench(catalog, authority, trust)


@pytest.fixture(scope="module")
def to_p384(bench: Bench) -> Pairs:
    return bench.retried(Answer.RETRY, "secp384r1", NAMES)


@pytest.fixture(scope="module")
def to_p521(bench: Bench) -> Pairs:
    return bench.retried(
        Answer.RETRY, "secp521r1", [name for name in NAMES if offers(name, GROUPS["secp521r1"])]
    )


@pytest.fixture(scope="module")
def with_cookie(bench: Bench) -> Pairs:
    return bench.retried(Answer.COOKIE, None, NAMES)


@pytest.fixture(scope="module")
def with_cookie_and_group(bench: Bench) -> Pairs:
    return bench.retried(Answer.COOKIE, "secp384r1", NAMES)


@pytest.fixture(scope="module")
def again(bench: Bench) -> Mapping[str, tuple[SentHello, SentHello, TlsFacts]]:
    return bench.resumed(NAMES)


def told_of(name: str, pair: tuple[SentHello, SentHello]) -> dict[str, Any]:
    first, second = pair
    return told(first.records, second.records, permuted=permutes(name))


def test_every_client_has_a_second_hello() -> None:
    assert all(offers(name, GROUPS["secp384r1"]) for name in NAMES)
    assert {capture(name)["retry_group"] for name in NAMES} == {"secp384r1"}
    assert len(RESUMING) > 50


@pytest.mark.parametrize("name", NAMES)
def test_asked_for_another_group(to_p384: Pairs, name: str) -> None:
    expected = stored_told(name, "retry")
    for pair in to_p384[name]:
        assert told_of(name, pair) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if offers(name, GROUPS["secp521r1"])])
def test_asked_for_the_largest_group(to_p521: Pairs, name: str) -> None:
    """No capture has it. Beside the share it is the same as for P-384."""
    expected = stored_told(name, "retry")
    expected["changed"] = {"0033": f"0019:{SHARE_BYTES['secp521r1']}"}
    expected["growth"] += SHARE_BYTES["secp521r1"] - SHARE_BYTES["secp384r1"]
    for pair in to_p521[name]:
        assert told_of(name, pair) == expected


@pytest.mark.parametrize("name", [name for name in REAL if name not in COOKIE_WITH_GROUP])
def test_asked_for_its_cookie(with_cookie: Pairs, name: str) -> None:
    expected = stored_told(name, "retry_cookie")
    for pair in with_cookie[name]:
        assert told_of(name, pair) == expected


@pytest.mark.parametrize("name", COOKIE_WITH_GROUP)
def test_asked_for_its_cookie_and_a_group(with_cookie_and_group: Pairs, name: str) -> None:
    expected = stored_told(name, "retry_cookie")
    for pair in with_cookie_and_group[name]:
        assert told_of(name, pair) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_cookie_comes_back_in_one_place(
    with_cookie: Pairs, with_cookie_and_group: Pairs, name: str
) -> None:
    """Some imitations forget it. RFC 8446 §4.2.2 does not allow that, and what is imitated does not."""
    for pairs, changed in ((with_cookie, {}), (with_cookie_and_group, {"0033": "0018:97"})):
        for pair in pairs[name]:
            found = told_of(name, pair)
            (added,) = found["added"]
            assert (added[:4], added[-9:]) == ("002c", "cookie=32")
            assert (found["changed"], found["removed"]) == (changed, [])
            assert found["same_random"]
            assert found["same_session_id"]
            assert found["same_order"]
            assert found["same_ech"]
            assert found["same_grease_extensions"]


@pytest.mark.parametrize("name", NAMES)
def test_a_change_cipher_spec_comes_before_it_where_the_clients_does(to_p384: Pairs, name: str) -> None:
    (expected,) = capture(name)["retry_changes"]["after_change_cipher_spec"]
    assert {second.after_change_cipher_spec for _, second in to_p384[name]} == {expected}


@pytest.mark.parametrize(("answer", "group"), [(Answer.FULL, None), (Answer.RETRY, "secp384r1")])
@pytest.mark.parametrize("name", ["gnutls-3.7", "java-17", "wget-1.21", "openssl-3.0", "firefox-esr-153"])
def test_one_change_cipher_spec_at_the_latest_before_what_is_encrypted(
    bench: Bench, name: str, answer: Answer, group: str | None
) -> None:
    """RFC 8446 §D.4. The real clients' records were looked at; they come in this order."""
    late = not group or name in ("gnutls-3.7", "java-17", "wget-1.21")
    hellos = [HANDSHAKE] * (2 if group else 1)
    plain = [*hellos, CHANGE_CIPHER_SPEC] if late else [HANDSHAKE, CHANGE_CIPHER_SPEC, HANDSHAKE]
    (sent,) = bench.visits(name, answer, group, 1).sent
    types = record_types(sent)
    assert types[: len(plain)] == plain
    assert set(types[len(plain) :]) == {APPLICATION_DATA}


def test_gnutls_keeps_a_session_id_as_long_as_it_resumes(bench: Bench) -> None:
    def ids() -> list[bytes]:
        taken = bench.visits("gnutls-3.7", Answer.TICKETS, None, 4).connections
        return [hellos[0].parsed.session_id for hellos in taken]

    first, second = ids(), ids()
    assert len(set(first)) == len(set(second)) == 1
    assert first != second  # of another session


@pytest.mark.parametrize("name", RESUMING)
def test_resuming(again: Mapping[str, tuple[SentHello, SentHello, TlsFacts]], name: str) -> None:
    first, second, facts = again[name]
    assert facts.resumed
    # Real Firefox is known to leave session_ticket out.
    model = "firefox-esr-153" if name.startswith("firefox") else name
    expected = stored_told(model, "resumed")
    if name.startswith("chrome-152"):
        expected["changed"].pop("ca34")  # the imitation shuffles its trust anchors, the real one does not
    assert told_of(name, (first, second)) == expected


@pytest.mark.parametrize("name", [*NO_RESUMPTION, *NO_PSK])
def test_who_never_resumes(again: Mapping[str, tuple[SentHello, SentHello, TlsFacts]], name: str) -> None:
    _, second, facts = again[name]
    assert not facts.resumed
    assert second.parsed.extension(ExtensionType.PRE_SHARED_KEY) is None
    assert not second.parsed.extension(ExtensionType.SESSION_TICKET)


@pytest.mark.parametrize("name", [name for name in RESUMING if name.startswith("firefox")])
def test_firefoxs_ech_grows_with_the_session(
    again: Mapping[str, tuple[SentHello, SentHello, TlsFacts]], name: str
) -> None:
    first, second, _ = again[name]
    assert ech_payload_bytes(first.records) == 239
    psk = psk_bytes(second.records)
    assert psk
    assert ech_payload_bytes(second.records) == 239 + -(-psk // 32) * 32
