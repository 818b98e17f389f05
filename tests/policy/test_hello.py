from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import Kind
from polytls.policy.hello import (
    HTTP11,
    MAX_SHOWN_CHARS,
    AlpnChoice,
    AlpnPlan,
    Verdict,
    _answers,
    answers,
    check_sni,
    plan_alpn,
    settle_alpn,
    speaks_http11,
)
from polytls.settings import AlpnPolicy, SniPolicy

H2 = b"h2"
NARROW, STRICT = AlpnPolicy.NARROW, AlpnPolicy.STRICT

# Every list a side can have of the two protocols that matter and one that does not, None included.
LISTS: list[tuple[bytes, ...] | None] = [
    None,
    *(names for length in range(4) for names in itertools.permutations((H2, HTTP11, b"imap"), length)),
]


def test_a_verdict_that_nobody_made_denies() -> None:
    assert not Verdict().allowed
    assert Verdict().reason == "no rule allowed it"
    assert not AlpnPlan().verdict.allowed
    assert not AlpnChoice().verdict.allowed


@pytest.mark.parametrize(
    ("sni", "policy", "allowed", "kind", "reason"),
    [
        (b"example.com", "accept-absent", True, None, "the server name is the CONNECT host"),
        (b"example.com", "require", True, None, "the server name is the CONNECT host"),
        (b"EXAMPLE.com.", "require", True, None, "the server name is the CONNECT host"),
        (None, "accept-absent", True, None, "the hello has no server name, which the policy accepts"),
        (
            None,
            "require",
            False,
            Kind.SNI_MISSING,
            'the hello has no server name, and sni = "require" wants example.com',
        ),
        (
            b"evil.example",
            "accept-absent",
            False,
            Kind.SNI_MISMATCH,
            "the hello's server name is evil.example, the CONNECT host example.com; both must be the same",
        ),
        (
            b"evil.example",
            "require",
            False,
            Kind.SNI_MISMATCH,
            "the hello's server name is evil.example, the CONNECT host example.com; both must be the same",
        ),
        (
            b"",
            "accept-absent",
            False,
            Kind.SNI_MISMATCH,
            "the hello's server name is empty, the CONNECT host example.com; both must be the same",
        ),
        (
            b"a.example.com",
            "accept-absent",
            False,
            Kind.SNI_MISMATCH,
            "the hello's server name is a.example.com, the CONNECT host example.com; both must be the same",
        ),
    ],
)
def test_server_name(sni: bytes | None, policy: str, allowed: bool, kind: Kind | None, reason: str) -> None:
    verdict = check_sni(sni, "example.com", SniPolicy(policy))
    assert verdict.reason == reason
    assert verdict.allowed is allowed
    if kind is not None:
        assert verdict.kind is kind


@given(st.binary(max_size=300))
def test_a_reason_is_one_short_printable_line(sni: bytes) -> None:
    verdict = check_sni(sni, "example.com", SniPolicy.REQUIRE)
    assert verdict.reason.isprintable()
    assert len(verdict.reason) < MAX_SHOWN_CHARS + 100
    assert verdict.allowed == (sni.lower() in (b"example.com", b"example.com."))


@pytest.mark.parametrize("client", LISTS, ids=str)
@pytest.mark.parametrize("profile", [names for names in LISTS if names is not None], ids=str)
def test_narrow_offers_what_both_speak_in_the_profiles_order(
    client: tuple[bytes, ...] | None, profile: tuple[bytes, ...]
) -> None:
    plan = plan_alpn(client, profile, NARROW)
    spoken = {HTTP11} if client is None else set(client)
    if not profile:
        assert plan.verdict.allowed is (HTTP11 in spoken)
        assert plan.offer == ()
        return
    assert plan.verdict.allowed is bool(spoken & set(profile))
    assert plan.offer == tuple(name for name in profile if name in spoken)


@pytest.mark.parametrize("client", LISTS, ids=str)
@pytest.mark.parametrize("profile", [names for names in LISTS if names is not None], ids=str)
def test_strict_never_touches_the_profile(
    client: tuple[bytes, ...] | None, profile: tuple[bytes, ...]
) -> None:
    plan = plan_alpn(client, profile, STRICT)
    assert plan.verdict.allowed
    assert plan.verdict.reason == "the profile's protocols are offered untouched"
    assert plan.offer == profile


@pytest.mark.parametrize(
    ("client", "profile", "reason"),
    [
        ((b"imap",), (H2, HTTP11), "the profile offers h2, http/1.1, the client imap: nothing in common"),
        ((H2,), (HTTP11,), "the profile offers http/1.1, the client h2: nothing in common"),
        (None, (H2,), "the profile offers h2, the client no ALPN, which means http/1.1: nothing in common"),
        ((), (H2,), "the profile offers h2, the client an empty list: nothing in common"),
        ((H2,), (), "the profile offers no ALPN, which means http/1.1; the client offers h2"),
        ((b"a\r\nb",), (H2,), "the profile offers h2, the client a\\x0d\\x0ab: nothing in common"),
    ],
)
def test_nothing_in_common_is_refused_with_both_lists(
    client: tuple[bytes, ...] | None, profile: tuple[bytes, ...], reason: str
) -> None:
    plan = plan_alpn(client, profile, NARROW)
    assert plan.verdict == Verdict(False, reason, Kind.ALPN_MISMATCH)


@pytest.mark.parametrize("client", LISTS, ids=str)
@pytest.mark.parametrize("choice", [None, H2, HTTP11, b"imap"])
def test_the_client_is_offered_upstreams_choice_or_refused(
    client: tuple[bytes, ...] | None, choice: bytes | None
) -> None:
    settled = settle_alpn(client, choice)
    meant = HTTP11 if choice is None else choice  # absent counts as http/1.1
    if client is None:
        assert settled.verdict.allowed is (meant == HTTP11)
        assert settled.protocol is None
    elif meant in client:
        assert settled.verdict.allowed
        assert settled.protocol == meant
    else:
        assert not settled.verdict.allowed
        assert settled.protocol is None


@pytest.mark.parametrize(
    ("client", "choice", "reason"),
    [
        (None, H2, "upstream chose h2; the client offers no ALPN, which means http/1.1"),
        ((HTTP11,), H2, "upstream chose h2; the client offers http/1.1"),
        ((H2,), None, "upstream chose no protocol, which means http/1.1; the client offers h2"),
        ((), None, "upstream chose no protocol, which means http/1.1; the client offers an empty list"),
    ],
)
def test_an_unsettled_protocol_is_refused_with_both_sides(
    client: tuple[bytes, ...] | None, choice: bytes | None, reason: str
) -> None:
    assert settle_alpn(client, choice).verdict == Verdict(False, reason, Kind.ALPN_MISMATCH)


@pytest.mark.parametrize("client", LISTS, ids=str)
def test_whatever_upstream_takes_of_a_narrow_offer_can_be_settled(
    client: tuple[bytes, ...] | None,
) -> None:
    plan = plan_alpn(client, (H2, HTTP11, b"imap"), NARROW)
    for choice in plan.offer:
        assert settle_alpn(client, choice).verdict.allowed


@pytest.mark.parametrize("client", LISTS, ids=str)
def test_who_can_read_a_page(client: tuple[bytes, ...] | None) -> None:
    assert speaks_http11(client) is (client is None or HTTP11 in client)


@pytest.mark.parametrize("client", LISTS)
@pytest.mark.parametrize("offer", [names for names in LISTS if names is not None])
def test_answers_are_what_will_be_settled(client: tuple[bytes, ...] | None, offer: tuple[bytes, ...]) -> None:
    told = dict(answers(client, offer))
    for choice in (*offer, None):
        settled = settle_alpn(client, choice)
        assert (choice in told) == settled.verdict.allowed
        assert told.get(choice) == settled.protocol
    assert set(told) <= {*offer, None}


def test_what_a_client_makes_up_is_not_kept() -> None:
    _answers.cache_clear()
    for number in range(50):
        made_up = tuple(b"%x.%x" % (number, at) for at in range(1000))
        assert answers((*made_up, H2), (H2, HTTP11)) == ((H2, H2),)
        assert answers((HTTP11, *made_up), (H2, HTTP11)) == ((HTTP11, HTTP11), (None, HTTP11))
        assert answers(made_up, (H2, HTTP11)) == ()
    assert _answers.cache_info().currsize == 3
