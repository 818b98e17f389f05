"""Knobs over an exact base: one edit, and everything else as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles.catalog import Catalog
from polytls.profiles.exact import GREASE, Ech, ExactHello, Numbers, Protocols, Raw
from polytls.profiles.knobs import KNOBS
from polytls.profiles.template import compile_template

if TYPE_CHECKING:
    from polytls.profiles.spec import HelloSpec

BUILTIN = Catalog.load({}, "none")


def builtin(name: str) -> ExactHello:
    exact = BUILTIN.require(name, source="test", key="").exact
    assert exact is not None
    return exact


def over(base: str, **knobs: object) -> HelloSpec:
    catalog = Catalog.load({"mine": {"base": base, **knobs}}, "f.toml")
    return catalog.require("mine", source="test", key="")


def exact(base: str, **knobs: object) -> ExactHello:
    spec = over(base, **knobs)
    assert spec.exact is not None
    assert spec.template == compile_template(spec.exact)
    return spec.exact


def problem(base: str, **knobs: object) -> str:
    with pytest.raises(ProfileError) as caught:
        over(base, **knobs)
    return str(caught.value).removeprefix("f.toml: profiles.mine.")


def changed(base: str, **knobs: object) -> set[str]:
    """The extensions and other fields in which the edited hello is not the base's."""
    old, new = builtin(base), exact(base, **knobs)
    entries = {entry.type: entry.body for entry in old.extensions if entry.type != GREASE}
    others = {entry.type: entry.body for entry in new.extensions if entry.type != GREASE}
    kinds = {number for number in entries.keys() | others.keys() if entries.get(number) != others.get(number)}
    fields = ("cipher_suites", "compression_methods", "permute", "padding", "record_version", "reuse_x25519")
    names = {name for name in fields if getattr(old, name) != getattr(new, name)}
    return names | {f"{number:04x}" for number in kinds}


def test_nothing_written_is_the_base() -> None:
    spec = over("firefox-155")
    assert spec.exact == builtin("firefox-155")
    assert (spec.base, spec.description, spec.captured_from) == ("firefox-155", "", "")


def test_what_the_base_does_already_is_no_edit() -> None:
    for name in ("chrome-152", "firefox-155", "safari-27.0", "curl-7.88"):
        spec = BUILTIN.require(name, source="test", key="")
        knobs = {knob.key: knob.show(spec) for knob in KNOBS}
        # These two say less than the exact lists: what BoringSSL cannot do, and what is offered.
        for inexact in ("curves_list", "cipher_list", "sigalgs_list", "cert_compression"):
            del knobs[inexact]
        assert exact(name, **knobs) == spec.exact


@pytest.mark.parametrize(
    ("base", "knob", "value", "where"),
    [
        ("chrome", "permute_extensions", False, {"permute"}),
        ("firefox", "permute_extensions", True, {"permute"}),
        ("chrome", "alpn_protos", ["h2"], {"0010"}),
        ("chrome", "alpn_protos", ["http/1.1"], {"0010", "44cd"}),
        ("chrome", "alpn_protos", [], {"0010", "44cd"}),
        ("chrome", "alps_protos", [], {"44cd"}),
        ("chrome", "alps_use_new_codepoint", False, {"44cd", "4469"}),
        ("chrome", "curves_list", "X25519:P-256", {"000a", "0033"}),
        ("firefox", "curves_list", "X25519MLKEM768:X25519:P-256", {"000a"}),
        ("firefox", "key_shares", "X25519", {"0033", "reuse_x25519"}),
        ("safari", "cipher_list", "ECDHE-RSA-AES128-GCM-SHA256", {"cipher_suites"}),
        ("safari", "sigalgs_list", "ed25519", {"000d"}),
        ("firefox", "cert_compression", "brotli", {"001b"}),
        ("firefox", "cert_compression", [], {"001b"}),
        ("chrome", "enable_ocsp_stapling", False, {"0005"}),
        ("chrome", "enable_signed_cert_timestamps", False, {"0012"}),
        ("chrome", "enable_ech_grease", False, {"fe0d"}),
        ("chrome", "session_tickets", False, {"0023"}),
        ("chrome", "session_resumption", False, set()),
        ("chrome", "min_tls", "TLS1", {"002b"}),
        ("chrome", "min_tls", "TLS1.3", {"002b"}),
        ("safari", "enable_ech_grease", True, {"fe0d"}),
        ("openssl", "alpn_protos", ["h2"], {"0010"}),
        ("firefox", "alps_protos", ["h2"], {"44cd"}),
        ("firefox", "grease", True, {"cipher_suites", "000a", "0033", "002b"}),
        ("safari", "grease", False, {"cipher_suites", "000a", "0033", "002b"}),
    ],
)
def test_an_edit_changes_its_own_place(base: str, knob: str, value: object, where: set[str]) -> None:
    assert changed(base, **{knob: value}) == where


def test_lists_keep_their_grease_and_suites_their_neighbours() -> None:
    chrome = exact("chrome", cipher_list="AES128-SHA", curves_list="P-256")
    assert chrome.cipher_suites == (GREASE, 0x1301, 0x1302, 0x1303, 0x002F)
    assert chrome.numbers(10) == chrome.numbers(51) == (GREASE, 0x17)
    assert exact("curl", cipher_list="AES128-SHA").cipher_suites == (0x1302, 0x1303, 0x1301, 0x002F, 0x00FF)


def test_what_is_added_stands_last_but_for_grease() -> None:
    safari = exact("safari", enable_ech_grease=True, session_tickets=True)
    assert [entry.type for entry in safari.extensions[-3:]] == [0xFE0D, 35, GREASE]
    assert safari.ech == Ech((1,), (144, 176, 208, 240))
    firefox = exact("firefox", grease=True)
    assert firefox.extensions[0].type == firefox.extensions[-1].type == GREASE
    assert firefox.extensions[-1].body == Raw(b"\0")


def test_below_tls13_nothing_of_it_is_left() -> None:
    spec = over("chrome", max_tls="TLS1.2")
    assert (spec.min_tls, spec.max_tls) == (0x0303, 0x0303)
    assert spec.exact is not None
    left = {entry.type for entry in spec.exact.extensions}
    assert not left & {43, 51, 45, 44, 27, 17613, 0xFE0D, 51764}
    assert {0, 10, 13, 16, 23, 35, 0xFF01} <= left


def test_key_shares_of_the_librarys_choice() -> None:
    assert exact("firefox", key_shares="default").numbers(51) == (0x11EC, 0x1D)
    assert exact("openssl", key_shares="default").numbers(51) == (0x1D,)


@pytest.mark.parametrize(
    ("base", "knobs", "sentence"),
    [
        ("chrome", {"alps_protos": ["h3"]}, 'alps_protos: "h3" is not in alpn_protos; allowed: h2, http/1.1'),
        (
            "chrome",
            {"key_shares": "P-521"},
            "key_shares: are not among the groups of curves_list in its order",
        ),
        ("chrome", {"min_tls": "TLS1.3", "max_tls": "TLS1.2"}, "min_tls: TLS1.3 is above max_tls TLS1.2"),
        ("chrome", {"max_tls": "TLS1.1"}, "max_tls: TLS1.2 is above max_tls TLS1.1"),
        ("curl", {"max_tls": "TLS1.1"}, "max_tls: without TLS1.3 an exact profile offers TLS1.2 alone"),
        ("chrome", {"grease": "yes"}, "grease: is a string; allowed: true, false"),
        ("chrome", {"hello": {}}, "base: has no meaning beside [hello]"),
    ],
)
def test_errors(base: str, knobs: dict[str, object], sentence: str) -> None:
    assert problem(base, **knobs).startswith(sentence)


groups = st.lists(st.sampled_from(("X25519MLKEM768", "X25519", "P-256", "P-521")), min_size=1, unique=True)
knobs = st.fixed_dictionaries(
    {},
    optional={
        "grease": st.booleans(),
        "permute_extensions": st.booleans(),
        "alpn_protos": st.lists(st.sampled_from(("h2", "http/1.1")), unique=True),
        "alps_protos": st.lists(st.sampled_from(("h2", "http/1.1")), unique=True),
        "alps_use_new_codepoint": st.booleans(),
        "curves_list": groups,
        "key_shares": groups | st.just("default") | st.just([]),
        "cipher_list": st.just("AES128-SHA"),
        "sigalgs_list": st.just("ed25519"),
        "enable_ocsp_stapling": st.booleans(),
        "cert_compression": st.lists(st.sampled_from(("zlib", "zstd")), unique=True),
        "min_tls": st.sampled_from(("TLS1", "TLS1.1", "TLS1.2", "TLS1.3")),
        "max_tls": st.sampled_from(("TLS1", "TLS1.1", "TLS1.2", "TLS1.3")),
        "enable_ech_grease": st.booleans(),
        "session_tickets": st.booleans(),
    },
)


@given(st.sampled_from(("chrome", "firefox", "safari", "tor", "curl", "openssl", "python")), knobs)
def test_any_knobs_make_a_hello_that_compiles_or_a_profile_error(
    base: str, written: dict[str, object]
) -> None:
    try:
        spec = over(base, **written)
    except ProfileError:
        return
    assert spec.exact is not None
    assert spec.template == compile_template(spec.exact)
    if "alpn_protos" in written:
        assert list(spec.alpn) == written["alpn_protos"]
    if "grease" in written:
        assert spec.grease == written["grease"]
    for entry in spec.exact.extensions:
        assert not isinstance(entry.body, Protocols) or entry.body.names
        assert not isinstance(entry.body, Numbers) or entry.body.values or entry.type == 51
