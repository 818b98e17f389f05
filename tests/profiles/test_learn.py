"""What is found in captures, what is refused by name, and that nothing else can come out."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.profiles.exact import GREASE, Anchors, Entry, ExactHello, Padding, Raw
from polytls.profiles.exact_toml import as_toml, parse_hello
from polytls.profiles.learn import CannotReproduceError, Learned, learn, learn_parsed
from polytls.profiles.template import compile_template
from polytls.wire.client_hello import ClientHello, Extension, HelloError, parse_client_hello
from polytls.wire.iana import is_grease
from tests.golden.profiles import samples

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def captured(name: str) -> list[ClientHello]:
    return [parse_client_hello(sample) for sample in samples(name)]


def with_body(hello: ClientHello, number: int, body: bytes) -> ClientHello:
    changed = (Extension(item.type, body) if item.type == number else item for item in hello.extensions)
    return replace(hello, extensions=tuple(changed))


def with_more(hello: ClientHello, *more: Extension) -> ClientHello:
    return replace(hello, extensions=(*hello.extensions, *more))


def refused(hellos: list[ClientHello]) -> tuple[str, ...]:
    with pytest.raises(CannotReproduceError) as caught:
        learn_parsed(hellos)
    assert all(part in str(caught.value) for part in caught.value.parts)
    return caught.value.parts


def cookie_after(hello: ExactHello) -> int:
    types = [entry.type for entry in hello.extensions]
    return types[types.index(44) - 1]


def test_a_permuting_client() -> None:
    hello = learn(samples("chrome-146")).hello
    assert hello.permute
    assert [entry.type for entry in hello.extensions if entry.fixed] == [GREASE, GREASE]
    assert (hello.extensions[0], hello.extensions[-1]) == (
        Entry(GREASE, fixed=True),
        Entry(GREASE, Raw(b"\0"), fixed=True),
    )
    movable = [entry.type for entry in hello.extensions[1:-1]]
    assert movable == sorted(movable)  # any order is as true; this one compares
    assert 44 in movable
    assert not learn(samples("chrome-146")[:1]).hello.permute  # one sample cannot tell


@pytest.mark.parametrize(
    ("name", "before"),
    [("firefox-155", 13), ("openssl-3.0", 51), ("curl-7.88", 51), ("safari-27.0", 43), ("edge-101", 43)],
)
def test_a_cookie_goes_where_the_library_puts_it(name: str, before: int) -> None:
    assert cookie_after(learn(samples(name)).hello) == before


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        ("chrome-100", Padding.BORINGSSL),  # seen
        ("chrome-136", Padding.BORINGSSL),  # too long to see
        ("curl-7.88", Padding.OPENSSL),
        ("openssl-3.0", Padding.NONE),  # seen not to
        ("firefox-155", Padding.NONE),
    ],
)
def test_padding(name: str, padding: Padding) -> None:
    assert learn(samples(name)).hello.padding is padding


@pytest.mark.parametrize("name", ["gnutls-3.7", "java-17", "openssl-3.0", "firefox-155", "chrome-146"])
def test_what_second_hellos_show_comes_from_the_library(name: str) -> None:
    hello = learn(samples(name)).hello
    assert hello.late_change_cipher_spec == (name in ("gnutls-3.7", "java-17"))
    assert hello.keep_session_id == (name == "gnutls-3.7")
    assert hello.new_shares_on_cookie == (name == "java-17")


def test_trust_anchors_are_sorted_where_they_are_shuffled() -> None:
    learned = learn(samples("chrome-152"))
    entry = learned.hello.entry(51764)
    assert entry is not None
    assert isinstance(entry.body, Anchors)
    assert list(entry.body.ids) == sorted(entry.body.ids)
    assert "trust_anchors come in another order each time; they were sorted" in learned.notes


def test_ech_payloads_of_boringssl_are_completed_and_others_are_not() -> None:
    chrome = captured("chrome-146")
    one = learn_parsed(chrome[:1])
    assert one.hello.ech is not None
    assert one.hello.ech.payloads == (144, 176, 208, 240)
    other = with_body(
        chrome[0], 0xFE0D, b"\0\0\1\0\3\7\0\x20" + bytes(32) + (239).to_bytes(2, "big") + bytes(239)
    )
    ech = learn_parsed([other]).hello.ech
    assert ech is not None
    assert (ech.aeads, ech.payloads, ech.psk_step) == ((3,), (239,), 0)  # one sample, of an unknown library
    ech = learn(samples("firefox-esr-153")).hello.ech
    assert ech is not None
    assert (ech.aeads, ech.payloads, ech.psk_step) == ((1, 3), (239,), 32)


def test_a_reused_x25519_key_is_seen() -> None:
    hello = captured("firefox-155")[0]
    assert not learn_parsed([hello]).hello.reuse_x25519
    body = hello.extension(51)
    assert body is not None
    key = next(share.key_exchange for share in hello.key_shares if share.group == 0x1D)
    at = body.index(bytes.fromhex("001d0020"))
    reused = with_body(hello, 51, body[: at - 32] + key + body[at:])
    assert learn_parsed([reused]).hello.reuse_x25519
    assert "its X25519 key is in the hybrid key share in some samples only" in refused([hello, reused])


def test_sessions_and_early_data_are_left_out_with_a_note() -> None:
    hello = with_more(captured("openssl-3.0")[0], Extension(42, b""), Extension(41, b"x"))
    learned = learn_parsed([hello])
    assert learned.hello == learn_parsed(captured("openssl-3.0")[:1]).hello
    assert learned.notes == (
        "pre_shared_key was left out: the engine offers sessions of its own",
        "early_data was left out: the proxy has none",
    )
    ticket = with_body(captured("openssl-3.0")[0], 35, b"ticket")
    assert (
        "the session ticket was left out: the engine offers sessions of its own"
        in learn_parsed([ticket]).notes
    )


CHROME = captured("chrome-146")[0]
OPENSSL = captured("openssl-3.0")[0]
X448_SHARE = b"\0\x3c\0\x1e\0\x38" + bytes(56)


@pytest.mark.parametrize(
    ("hellos", "part"),
    [
        (
            [replace(OPENSSL, legacy_version=0x0302)],
            "its legacy version is TLS 1.1, and the engine sends TLS 1.2",
        ),
        ([replace(OPENSSL, session_id=b"")], "its session id has 0 bytes, and the engine sends 32"),
        ([with_body(OPENSSL, 51, X448_SHARE)], "it has a key share of x448, which the engine cannot make"),
        (
            [with_body(OPENSSL, 51, b"\0\5\0\x1d\0\1x")],
            "its key share of x25519 has the wrong length",
        ),
        ([with_more(OPENSSL, Extension(44, b"\0\1x"))], "it answers a HelloRetryRequest (cookie)"),
        (
            [OPENSSL, with_more(OPENSSL, Extension(99, b""))],
            "the samples are not alike: 0x0063 is not in all",
        ),
        ([OPENSSL, with_body(OPENSSL, 11, b"\1\0")], "the body of ec_point_formats is different each time"),
        (
            [OPENSSL, replace(OPENSSL, cipher_suites=(0x1301,))],
            "the cipher suites differ between the samples",
        ),
        ([with_body(CHROME, 0xFE0D, b"\1")], "its encrypted_client_hello is not an outer one"),
        ([with_body(CHROME, 0xFF01, b"\1x")], "its renegotiation_info is not that of a first handshake"),
        (
            [with_body(CHROME, 16, b"\0\2\1\xff")],
            "the body of application_layer_protocol_negotiation is malformed",
        ),
        (
            [with_body(CHROME, 10, b"\0\4\x1a\x1a\x2a\x2a")],
            "its groups and key shares have different GREASE values",
        ),
        (
            [with_more(OPENSSL, Extension(21, bytes(9)))],
            "it is padded to 325 bytes, and the engine pads to 512",
        ),
        (
            [with_body(OPENSSL, 43, b"\2\3\4"), with_body(OPENSSL, 10, b"\0\0")],
            "the body of supported_groups is",
        ),
    ],
)
def test_what_cannot_be_reproduced_is_named(hellos: list[ClientHello], part: str) -> None:
    assert any(found.startswith(part) for found in refused(hellos))


def test_all_of_it_is_named_at_once() -> None:
    parts = refused([replace(with_body(OPENSSL, 51, X448_SHARE), legacy_version=0x0301)])
    assert len(parts) == 2


def test_nothing_to_learn_from() -> None:
    with pytest.raises(HelloError, match="no ClientHello to learn from"):
        learn([])
    with pytest.raises(HelloError):
        learn([b"GET / HTTP/1.1\r\n"])


def test_grease_extensions_that_wander_are_refused() -> None:
    first, second = captured("chrome-146")[:2]
    second = replace(second, extensions=(*second.extensions[1:], second.extensions[0]))
    assert is_grease(second.extensions[-1].type)
    assert "the GREASE extensions change their places" in refused([first, second])


NAMES = ("chrome-152", "firefox-155", "safari-27.0", "curl-7.88", "tor-14.5", "chrome-120")


def attempt(hellos: list[bytes]) -> Learned | None:
    try:
        return learn(hellos)
    except HelloError:
        return None


@given(
    st.sampled_from(NAMES),
    st.integers(1, 3),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 600), st.binary(min_size=1, max_size=3)), max_size=4
    ),
)
def test_mutated_captures_are_learned_or_refused(
    name: str, count: int, edits: list[tuple[int, int, bytes]]
) -> None:
    taken = [bytearray(sample) for sample in samples(name)[:count]]
    for which, offset, data in edits:
        sample = taken[which % count]
        sample[offset : offset + len(data)] = data
    learned = attempt([bytes(sample) for sample in taken])
    if learned is not None:
        # Whatever is learned can be written, read and compiled.
        assert parse_hello(tomllib.loads(as_toml(learned.hello)), "x", "x") == learned.hello
        compile_template(learned.hello)


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_bytes_are_refused(hellos: list[bytes]) -> None:
    attempt(hellos)


@given(
    st.sampled_from(NAMES),
    st.integers(0, 20),
    st.binary(max_size=12),
)
def test_any_body_in_any_extension_is_learned_or_refused(name: str, at: int, body: bytes) -> None:
    hello = captured(name)[0]
    changed = with_body(hello, hello.extensions[at % len(hello.extensions)].type, body)
    try:
        learned = learn_parsed([changed])
    except HelloError:
        return
    assert parse_hello(tomllib.loads(as_toml(learned.hello)), "x", "x") == learned.hello
    compile_template(learned.hello)
