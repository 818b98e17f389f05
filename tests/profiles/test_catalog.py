"""Names, aliases and bases; and the built-in profiles against what real browsers were seen to send."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles.catalog import Catalog
from polytls.profiles.parse import OPTIONAL_KEYS
from polytls.profiles.show import as_table, as_toml
from polytls.profiles.spec import MAX_NAME_CHARS, HelloSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOLDENS = Path(__file__).resolve().parents[3] / "shared" / "goldens"
BUILTIN = Catalog.load({}, "none")
BROWSERS = ("chrome", "firefox", "safari")

Tables = dict[str, dict[str, object]]


def builtin(name: str) -> HelloSpec:
    return BUILTIN.require(name, source="test", key="")


def configured(tables: Tables, name: str) -> HelloSpec:
    return Catalog.load(tables, "f.toml").require(name, source="test", key="")


def problem(tables: Tables) -> str:
    with pytest.raises(ProfileError) as caught:
        Catalog.load(tables, "f.toml")
    return str(caught.value)


def test_builtin_names_and_aliases() -> None:
    dated = ("chrome-143-macos-arm64", "firefox-145-macos-arm64", "safari-26.2-macos-arm64")
    assert BUILTIN.names() == tuple(sorted(("default", *BROWSERS, *dated)))
    assert [spec.name for spec in BUILTIN.specs()] == sorted(("default", *dated))
    for alias, name in zip(BROWSERS, dated, strict=True):
        assert builtin(alias).name == name
        assert BUILTIN.aliases_of(builtin(alias)) == (alias,)


def test_names_are_found_in_any_case() -> None:
    assert BUILTIN.find("ChRoMe") == BUILTIN.find("chrome")
    assert BUILTIN.find("nope") is None
    assert configured({"MyLab": {"grease": False}}, "mylab").name == "mylab"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ProfileError) as caught:
        BUILTIN.require("firefix", source="option --profile", key="proxy.upstream.default_profile")
    text = str(caught.value)
    assert text.startswith('option --profile: proxy.upstream.default_profile: "firefix": unknown profile ')
    assert '(did you mean "firefox"?)' in text
    assert all(name in text for name in BUILTIN.names())


def test_the_default_profile_is_chrome_with_http11_alone() -> None:
    changed = {"alpn_protos": ["http/1.1"], "alps_protos": [], "description": builtin("default").description}
    assert as_table(builtin("default")) == {**as_table(builtin("chrome")), **changed}


def test_without_base_a_builtin_name_begins_from_that_builtin() -> None:
    spec = configured({"firefox-145-macos-arm64": {"permute_extensions": True}}, "firefox")
    assert spec.permute_extensions
    assert spec.groups == builtin("firefox").groups
    assert spec.base == "firefox-145-macos-arm64"


def test_a_configured_profile_may_take_the_name_of_an_alias() -> None:
    catalog = Catalog.load({"chrome": {"base": "chrome", "grease": False}}, "f.toml")
    assert catalog.require("chrome", source="", key="").name == "chrome"
    assert not catalog.require("chrome", source="", key="").grease
    assert catalog.require("chrome-143-macos-arm64", source="", key="") == builtin("chrome")
    assert catalog.names().count("chrome") == 1


def test_without_base_a_new_name_begins_from_default_as_configured() -> None:
    tables: Tables = {"mine": {"grease": False}, "default": {"permute_extensions": False}}
    assert configured({"mine": {}}, "mine").alpn == ("http/1.1",)
    assert not configured(tables, "mine").permute_extensions
    assert configured(tables, "mine").base == "default"


def test_bases_chain_and_builtins_do_not_change_each_other() -> None:
    tables: Tables = {"a": {"base": "b", "grease": True}, "b": {"base": "Firefox", "alpn_protos": []}}
    assert configured(tables, "a").alpn == ()
    assert configured(tables, "a").groups == builtin("firefox").groups
    assert configured(tables, "firefox") == builtin("firefox")


def test_aliases_of_configured_profiles() -> None:
    tables: Tables = {"lab": {"aliases": ["Work", "play"]}, "other": {"base": "work"}}
    catalog = Catalog.load(tables, "f.toml")
    assert catalog.aliases_of(catalog.require("lab", source="", key="")) == ("play", "work")
    assert catalog.require("other", source="", key="").base == "lab"


def test_the_example_of_the_specification() -> None:
    tables: Tables = {
        "default": {"permute_extensions": True},
        "chrome-143-macos-arm64": {"permute_extensions": True},
        "firefox-145-macos-arm64": {"alpn_protos": ["h2", "http/1.1"], "permute_extensions": False},
        "safari-26.2-macos-arm64": {
            "alpn_protos": ["h2", "http/1.1"],
            "enable_ech_grease": False,
            "cert_compression": ["zlib"],
        },
    }
    assert Catalog.load(tables, "f.toml").specs() == BUILTIN.specs()


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            {"a": {"base": "b"}, "b": {"base": "a"}},
            "profiles.a.base: profiles are based on each other (a -> b -> a)",
        ),
        ({"default": {"base": "m"}, "m": {}}, "profiles.default.base: profiles are based on each other"),
        ({"x": {"base": "b"}, "b": {"base": "c"}, "c": {"base": "b"}}, "profiles.b.base: profiles are based"),
        ({"a": {"base": "a"}}, 'profiles.a.base: "a": unknown profile'),
        ({"a": {"base": "chrom"}}, 'profiles.a.base: "chrom": unknown profile (did you mean "chrome"?)'),
        ({"a": {"base": 1}}, "profiles.a.base: got 1; allowed: the name of a profile"),
        ({"a": {"aliases": "b"}}, "profiles.a.aliases: is a string; allowed: an array of names"),
        ({"a": {"aliases": ["b c"]}}, 'profiles.a.aliases: holds "b c"; allowed: '),
        ({"a": {"aliases": ["chrome"]}}, 'profiles.a.aliases: "chrome" already names a profile'),
        ({"a": {"aliases": ["default"]}}, 'profiles.a.aliases: "default" already names a profile'),
        ({"a": {"aliases": ["b"]}, "b": {}}, 'profiles.a.aliases: "b" already names a profile'),
        ({"a": {"aliases": ["c"]}, "b": {"aliases": ["c"]}}, 'profiles.b.aliases: "c" already names'),
        ({"A": {}, "a": {}}, "profiles.a: is defined twice"),
        ({"a b": {}}, 'profiles."a b": is not a profile name; allowed: 1 to 64 letters'),
        ({"": {}}, 'profiles."": is not a profile name'),
        ({"\u212a": {}}, "is not a profile name"),  # KELVIN SIGN, whose lower case is an ASCII k
        (
            {"safari-26.2": {"greas": True}},
            'profiles."safari-26.2".greas: unknown key (did you mean "grease"?)',
        ),
    ],
)
def test_errors(tables: Tables, sentence: str) -> None:
    text = problem(tables)
    assert text.startswith("f.toml: ")
    assert sentence in text


@pytest.mark.parametrize(
    ("length", "fits"), [(MAX_NAME_CHARS - 1, True), (MAX_NAME_CHARS, True), (MAX_NAME_CHARS + 1, False)]
)
def test_name_length(length: int, fits: bool) -> None:
    if fits:
        assert configured({"x" * length: {}}, "x" * length).base == "default"
    else:
        assert "is not a profile name" in problem({"x" * length: {}})


def test_a_long_chain_of_bases_is_followed() -> None:
    tables: Tables = {f"p{number}": {"base": f"p{number + 1}"} for number in range(3000)}
    tables["p3000"] = {"grease": False}
    assert not configured(tables, "p0").grease


names = st.sampled_from(("a", "b", "c", "chrome", "firefox-145-macos-arm64", "default", "A"))


@given(
    st.dictionaries(
        names,
        st.fixed_dictionaries({}, optional={"base": names, "aliases": st.lists(names, max_size=2)}),
    )
)
def test_any_web_of_names_resolves_or_is_a_profile_error(tables: Tables) -> None:
    try:
        catalog = Catalog.load(tables, "f.toml")
    except ProfileError:
        return
    for name in catalog.names():
        assert catalog.find(name) is not None


@pytest.mark.parametrize("spec", BUILTIN.specs(), ids=lambda spec: spec.name)
def test_what_is_shown_reads_back(spec: HelloSpec) -> None:
    table = tomllib.loads(as_toml(spec))["profiles"][spec.name]
    assert table == as_table(spec)
    assert configured({"copy": table}, "copy").cipher_ids == spec.cipher_ids
    assert all(knob in OPTIONAL_KEYS or knob in table for knob in as_table(spec))


def test_control_characters_are_shown_as_toml() -> None:
    spec = configured({"x": {"description": 'a \\ and " stay'}}, "x")
    assert tomllib.loads(as_toml(spec))["profiles"]["x"]["description"] == 'a \\ and " stay'


def hello_shape(spec: HelloSpec) -> tuple[object, ...]:
    """What JA3 and JA4 are made of, as far as a profile decides it."""
    extensions = {
        "grease": spec.grease,
        "alps": bool(spec.alps),
        "ech": spec.ech_grease,
        "ticket": spec.session_tickets,
        "compression": bool(spec.cert_compression),
    }
    return spec.cipher_ids, tuple(extensions.items()), spec.groups, spec.sigalgs, spec.alpn


def test_the_three_browsers_and_the_default_differ() -> None:
    shapes = [hello_shape(builtin(name)) for name in (*BROWSERS, "default")]
    assert len({str(shape) for shape in shapes}) == 4
    # JA3 and JA4 hash ciphers, groups and extensions; each pair of browsers differs in its ciphers alone.
    assert len({builtin(name).cipher_ids for name in BROWSERS}) == 3
    assert len({frozenset(builtin(name).cipher_ids) for name in BROWSERS}) == 3  # JA4 sorts them


def golden(name: str) -> dict[str, Any]:
    path = GOLDENS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"captured hellos are not beside the repository: {path} is absent")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def seen(name: str) -> dict[str, list[int]]:
    """Ciphers, extensions and groups of a real capture's JA3, in order where the service kept it, and
    signature algorithms of its JA4_r. GREASE and the PSK of a resumed connection are left out of these."""
    tls = golden(name)["tls"]
    _, ciphers, extensions, groups, _ = tls["ja3"].split(",")
    sigalgs = tls["ja4_r"].split("_")[-1].split(",")
    return {
        "ciphers": [int(number) for number in ciphers.split("-")],
        "extensions": [int(number) for number in extensions.split("-")],
        "groups": [int(number) for number in groups.split("-")],
        "sigalgs": [int(number, 16) for number in sigalgs],
    }


@pytest.mark.parametrize(
    ("name", "ciphers_left_out", "groups_left_out", "sigalgs_repeated"),
    [("chrome", [], [], []), ("firefox", [], [256, 257], []), ("safari", [0xC008, 0xC012], [], [0x0805])],
)
def test_builtins_are_the_real_browsers_but_for_the_declared_differences(
    name: str, ciphers_left_out: list[int], groups_left_out: list[int], sigalgs_repeated: list[int]
) -> None:
    spec, real = builtin(name), seen(f"real-{name}")
    tls12 = [number for number in real["ciphers"] if number >> 8 != 0x13]
    assert list(spec.cipher_ids) == [number for number in tls12 if number not in ciphers_left_out]
    assert list(spec.groups) == [number for number in real["groups"] if number not in groups_left_out]
    assert list(spec.sigalgs) == list(dict.fromkeys(real["sigalgs"]))
    assert len(real["sigalgs"]) - len(spec.sigalgs) == len(sigalgs_repeated)
    extensions = real["extensions"]
    assert spec.ocsp_stapling == (5 in extensions)
    assert spec.signed_cert_timestamps == (18 in extensions)
    assert spec.ech_grease == (0xFE0D in extensions)
    assert spec.alps_new_codepoint or 0x44CD not in extensions
    assert bool(spec.alps) == (0x44CD in extensions)


@pytest.mark.parametrize(
    ("name", "imitation"), [("chrome", "chrome146"), ("firefox", "firefox144"), ("safari", "safari260")]
)
def test_builtins_agree_with_the_full_captures(name: str, imitation: str) -> None:
    """What the echo service does not report: order of compression algorithms, key shares, GREASE."""
    spec, profile = builtin(name), golden(imitation)["profile"]
    bodies = profile["bodies"]
    shares = [share.split(":")[0] for share in bodies["0033"][0].split(",") if not share.startswith("GREASE")]
    assert spec.key_shares == tuple(int(share, 16) for share in shares)
    assert spec.cert_compression == tuple(int(number, 16) for number in bodies["001b"][0].split(","))
    assert ",".join(spec.alpn) == bodies["0010"][0]
    assert spec.permute_extensions == profile["permuted"]
    assert spec.grease == profile["ciphers"][0].startswith("GREASE")
    # Real Safari sends no session_ticket (real-safari.json); its imitation does.
    assert spec.session_tickets == (name != "safari")
