"""One table on one base: values, errors with their key path, and what is narrowed or refused together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles.boringssl import CERT_COMPRESSION, CIPHERS, GROUPS, SIGALGS, VERSIONS
from polytls.profiles.catalog import Catalog
from polytls.profiles.knobs import KNOBS, MAX_DESCRIPTION_CHARS, MAX_PROTOCOL_BYTES, MAX_PROTOCOLS
from polytls.profiles.parse import ALLOWED_KEYS, parse_profile
from polytls.profiles.show import as_table
from polytls.profiles.spec import HelloSpec

DEFAULT = Catalog.load({}, "none").require("default", source="test", key="")
CHROME = parse_profile(
    "chrome-by-knobs", {"alpn_protos": ["h2", "http/1.1"], "alps_protos": ["h2"]}, DEFAULT, "test"
)
"""An exact base is edited rather than overridden: see test_overrides."""


def parse(**table: object) -> HelloSpec:
    return parse_profile("mine", table, CHROME, "polytls.toml")


def problem(**table: object) -> str:
    with pytest.raises(ProfileError) as caught:
        parse(**table)
    assert caught.value.source == "polytls.toml"
    return str(caught.value).removeprefix("polytls.toml: ")


def test_an_empty_table_is_its_base_under_another_name() -> None:
    spec = parse()
    assert as_table(spec) == {**as_table(CHROME), "description": ""}
    assert (spec.name, spec.base, spec.source, spec.template) == ("mine", CHROME.name, "polytls.toml", None)


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("grease", False, "grease", False),
        ("permute_extensions", False, "permute_extensions", False),
        ("enable_ech_grease", False, "ech_grease", False),
        ("enable_ocsp_stapling", False, "ocsp_stapling", False),
        ("enable_signed_cert_timestamps", False, "signed_cert_timestamps", False),
        ("session_tickets", False, "session_tickets", False),
        ("session_resumption", False, "resumption", False),
        ("alps_use_new_codepoint", False, "alps_new_codepoint", False),
        ("alpn_protos", ["h2", "x"], "alpn", ("h2", "x")),
        ("alpn_protos", [], "alpn", ()),
        ("alps_protos", [], "alps", ()),
        ("curves_list", "X25519MLKEM768:X25519:P-256:P-384", "groups", (0x11EC, 29, 23, 24)),
        ("curves_list", ["secp256r1", "x25519"], "groups", (23, 29)),
        ("curves_list", "prime256v1:X25519Kyber768Draft00", "groups", (23, 0x6399)),
        ("key_shares", "X25519", "key_shares", (29,)),
        ("key_shares", "default", "key_shares", None),
        ("key_shares", [], "key_shares", ()),
        (
            "cipher_list",
            "AES128-SHA:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "cipher_list",
            ("AES128-SHA", "ECDHE-RSA-AES128-GCM-SHA256"),
        ),
        ("sigalgs_list", "ed25519:RSA-PSS+SHA256:ECDSA+SHA1", "sigalgs", (0x0807, 0x0804, 0x0203)),
        ("cert_compression", ["zstd", "zlib", "brotli"], "cert_compression", (3, 1, 2)),
        ("cert_compression", [], "cert_compression", ()),
        ("min_tls", "TLS1", "min_tls", 0x0301),
        ("min_tls", "TLS1.1", "min_tls", 0x0302),
        ("max_tls", "TLS1.2", "max_tls", 0x0303),
        ("description", "one line", "description", "one line"),
    ],
)
def test_values(key: str, value: object, field: str, expected: object) -> None:
    assert getattr(parse(**{key: value}), field) == expected


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            "curve_list",
            "X25519",
            'profiles.mine.curve_list: unknown key (did you mean "curves_list"?); allowed: ',
        ),
        ("grease", "yes", "profiles.mine.grease: is a string; allowed: true, false"),
        ("grease", 1, "profiles.mine.grease: is an integer; allowed: true, false"),
        (
            "curves_list",
            "X25519:P-25",
            'profiles.mine.curves_list: "P-25": unknown group (did you mean "P-256"?)',
        ),
        (
            "curves_list",
            "ffdhe2048",
            'profiles.mine.curves_list: "ffdhe2048": unknown group; allowed: X25519MLKEM',
        ),
        ("curves_list", "", "profiles.mine.curves_list: is empty; allowed: X25519MLKEM768, "),
        ("curves_list", "X25519::P-256", 'profiles.mine.curves_list: "": unknown group; allowed: '),
        ("curves_list", "P-256:secp256r1", 'profiles.mine.curves_list: "secp256r1" is listed twice; '),
        ("curves_list", 29, "profiles.mine.curves_list: is an integer; allowed: a string of names"),
        ("curves_list", ["X25519", 29], "profiles.mine.curves_list: holds an integer; allowed: "),
        ("cipher_list", [], "profiles.mine.cipher_list: is empty; allowed: ECDHE-"),
        (
            "cipher_list",
            "DHE-RSA-AES128-SHA",
            'profiles.mine.cipher_list: "DHE-RSA-AES128-SHA": unknown TLS 1.2',
        ),
        (
            "sigalgs_list",
            "rsa_pkcs1_md5_sha1",
            'profiles.mine.sigalgs_list: "rsa_pkcs1_md5_sha1": unknown sig',
        ),
        ("sigalgs_list", [], "profiles.mine.sigalgs_list: is empty; allowed: "),
        ("cert_compression", "gzip", 'profiles.mine.cert_compression: "gzip": unknown algorithm'),
        ("min_tls", "1.2", 'profiles.mine.min_tls: "1.2": unknown TLS version'),
        ("min_tls", 1.2, "profiles.mine.min_tls: is a float; allowed: TLS1, TLS1.1, TLS1.2, TLS1.3"),
        ("alpn_protos", "h2", "profiles.mine.alpn_protos: is a string; allowed: an array of at most 16"),
        ("alpn_protos", ["h2", "h2"], "profiles.mine.alpn_protos: is too long or names a protocol twice; "),
        ("alpn_protos", [""], 'profiles.mine.alpn_protos: holds ""; allowed: '),
        ("alpn_protos", ["ü"], 'profiles.mine.alpn_protos: holds "ü"; allowed: '),
        (
            "alps_protos",
            ["h3"],
            'profiles.mine.alps_protos: "h3" is not in alpn_protos; allowed: h2, http/1.1',
        ),
        (
            "key_shares",
            "P-521",
            "profiles.mine.key_shares: are not among the groups of curves_list in its order; ",
        ),
        ("key_shares", "X25519:X25519MLKEM768", "profiles.mine.key_shares: are not among the groups"),
        ("max_tls", "TLS1.1", "profiles.mine.min_tls: TLS1.2 is above max_tls TLS1.1; "),
        ("description", "two\nlines", 'profiles.mine.description: got "two\\nlines"; allowed: one line'),
    ],
)
def test_errors_name_file_key_and_what_is_allowed(key: str, value: object, sentence: str) -> None:
    assert problem(**{key: value}).startswith(sentence)


def test_a_tls13_suite_in_the_cipher_list_is_explained() -> None:
    assert problem(cipher_list="TLS_AES_128_GCM_SHA256").endswith(
        "the TLS 1.3 suites are fixed and are not listed here"
    )


@pytest.mark.parametrize(
    ("length", "fits"),
    [(MAX_PROTOCOL_BYTES - 1, True), (MAX_PROTOCOL_BYTES, True), (MAX_PROTOCOL_BYTES + 1, False)],
)
def test_protocol_name_limit(length: int, fits: bool) -> None:
    if fits:
        assert parse(alpn_protos=["x" * length]).alpn == ("x" * length,)
    else:
        assert "allowed" in problem(alpn_protos=["x" * length])


@pytest.mark.parametrize(
    ("count", "fits"), [(MAX_PROTOCOLS - 1, True), (MAX_PROTOCOLS, True), (MAX_PROTOCOLS + 1, False)]
)
def test_protocol_count_limit(count: int, fits: bool) -> None:
    names = [f"p{number}" for number in range(count)]
    if fits:
        assert parse(alpn_protos=names).alpn == tuple(names)
    else:
        assert "is too long" in problem(alpn_protos=names)


@pytest.mark.parametrize(
    ("length", "fits"),
    [(MAX_DESCRIPTION_CHARS - 1, True), (MAX_DESCRIPTION_CHARS, True), (MAX_DESCRIPTION_CHARS + 1, False)],
)
def test_description_limit(length: int, fits: bool) -> None:
    if fits:
        assert parse(description="x" * length).description == "x" * length
    else:
        assert "allowed: one line" in problem(description="x" * length)


def test_inherited_key_shares_and_alps_are_narrowed() -> None:
    assert parse(curves_list="P-256:X25519").key_shares == (29,)
    assert parse(curves_list="P-256:P-384").key_shares is None
    assert parse(alpn_protos=["http/1.1"]).alps == ()


def test_a_table_without_base_must_be_complete() -> None:
    whole = as_table(CHROME)
    assert parse_profile(CHROME.name, whole, None, "x") == CHROME
    del whole["grease"]
    with pytest.raises(ProfileError, match="has no base and leaves out grease"):
        parse_profile("chrome", whole, None, "x")


def test_equal_offers_are_equal_specs_whatever_their_words() -> None:
    first = parse(description="one")
    second = parse_profile("mine", {"description": "two"}, first, "elsewhere.toml")
    assert first == second
    assert hash(first) == hash(second)
    assert first != parse(grease=False)


def test_cipher_ids_and_string_keep_the_order() -> None:
    spec = parse(cipher_list="AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256")
    assert spec.cipher_ids == (0x002F, 0xC02F)
    assert spec.cipher_string == "AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256"


@pytest.mark.parametrize("names", [GROUPS, CIPHERS, SIGALGS, CERT_COMPRESSION, VERSIONS])
def test_tables_of_names_are_unambiguous(names: object) -> None:
    assert isinstance(names, type(GROUPS))
    ids = [entry.id for entry in names.entries]
    words = [word for entry in names.entries for word in (entry.name, *entry.aliases)]
    assert len(set(ids)) == len(ids)
    assert len(set(words)) == len(words)


def _listed(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True, max_size=6)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.datetimes(),
    st.binary(max_size=4),
)
toml = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
plausible = st.one_of(
    st.booleans(),
    _listed(GROUPS.names()),
    _listed(CIPHERS.names()),
    _listed(SIGALGS.names()),
    _listed(("h2", "http/1.1", "zlib", "brotli")),
    st.sampled_from(VERSIONS.names()),
    st.just("default"),
)
tables = st.dictionaries(
    st.one_of(st.sampled_from(ALLOWED_KEYS), st.text(max_size=6)), st.one_of(plausible, toml), max_size=5
)


def _loaded(table: dict[str, object]) -> Catalog | ProfileError:
    try:
        return Catalog.load({"mine": table}, "f.toml")
    except ProfileError as error:
        return error


@given(tables)
def test_any_table_gives_a_spec_or_a_profile_error(table: dict[str, object]) -> None:
    loaded = _loaded(table)
    if isinstance(loaded, ProfileError):
        assert loaded.source == "f.toml"
        assert str(loaded).isprintable()
        return
    spec = loaded.require("mine", source="", key="")
    assert spec.groups
    assert spec.cipher_ids
    assert set(spec.key_shares or ()) <= set(spec.groups)
    assert set(spec.alps) <= set(spec.alpn)
    assert spec.min_tls <= spec.max_tls
    # What is shown says the same thing again.
    assert parse_profile("mine", as_table(spec), None, "shown") == spec
    hash(spec)


def test_each_knob_sets_its_own_field() -> None:
    assert len({knob.field for knob in KNOBS}) == len(KNOBS)
    about = {"name", "template", "exact", "base", "source", "captured_from", "captured_on", "http2"}
    about.add("unlike_capture")
    assert {knob.field for knob in KNOBS} | about == set(HelloSpec.__dataclass_fields__)
