"""Names, aliases and bases. (What the built-in profiles send is in test_goldens.)"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles.catalog import Catalog, builtin_table
from polytls.profiles.knobs import KNOBS
from polytls.profiles.show import as_table, as_toml
from polytls.profiles.spec import MAX_NAME_CHARS, HelloSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILTIN = Catalog.load({}, "none")

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
    newest = {
        "chrome": "chrome-152",
        "edge": "edge-101",
        "firefox": "firefox-155",
        "safari": "safari-27.0",
        "tor": "tor-14.5",
        "curl": "curl-7.88",
    }
    dated = {
        "chrome-143-macos-arm64": "chrome-142",
        "firefox-145-macos-arm64": "firefox-144",
        "safari-26.2-macos-arm64": "safari-26.0.1",
    }
    assert {*newest, *newest.values(), *dated, "default"} <= set(BUILTIN.names())
    for alias, name in (newest | dated).items():
        assert builtin(alias).name == name
        assert alias in BUILTIN.aliases_of(builtin(alias))
    for spec in BUILTIN.specs():
        assert (spec.template is None) == (spec.name == "default")
        assert spec.description


def test_only_what_is_asked_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(name: str) -> dict[str, object]:
        read.append(name)
        return builtin_table(name)

    monkeypatch.setattr("polytls.profiles.catalog.builtin_table", noted)
    catalog = Catalog.load({}, "f.toml")
    assert catalog.names() == BUILTIN.names()
    assert read == []
    assert catalog.find("firefox") is catalog.find("FIREFOX-155")
    assert read == ["firefox-155"]


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
    own = {"alpn_protos", "alps_protos", "description", "cert_compression"}  # the last: what is decompressed
    default, chrome = builtin("default"), builtin("chrome-142")
    for knob in KNOBS:
        if knob.key not in own:
            assert knob.show(default) == knob.show(chrome), knob.key
    assert (default.alpn, default.alps) == (("http/1.1",), ())


def test_without_base_a_builtin_name_begins_from_that_builtin() -> None:
    spec = configured({"firefox-155": {"permute_extensions": True}}, "firefox")
    assert spec.permute_extensions
    assert spec.groups == builtin("firefox").groups
    assert spec.base == "firefox-155"


def test_what_is_known_is_what_is_found() -> None:
    catalog = Catalog.load({"mine": {"aliases": ["ours"]}, "chrome": {}}, "f.toml")
    for name in (*catalog.names(), "MINE", "Chrome", "FIREFOX", "none", "", "mirror", "default.toml"):
        assert catalog.knows(name) is (catalog.find(name) is not None), name


def test_a_configured_profile_may_take_the_name_of_an_alias() -> None:
    catalog = Catalog.load({"chrome": {"base": "chrome", "grease": False}}, "f.toml")
    assert catalog.require("chrome", source="", key="").name == "chrome"
    assert not catalog.require("chrome", source="", key="").grease
    assert catalog.require("chrome-152", source="", key="") == builtin("chrome")
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
    catalog = Catalog.load(tables, "f.toml")
    for name in tables:
        assert catalog.require(name, source="", key="").template == builtin(name).template
        assert catalog.require(name, source="", key="").alpn == builtin(name).alpn


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


@settings(deadline=None)  # some sixty files are read
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
    copy = configured({"copy": table}, "copy")
    assert (copy.cipher_ids, copy.template, copy.alpn) == (spec.cipher_ids, spec.template, spec.alpn)
    assert (copy.captured_from, copy.exact) == (spec.captured_from, spec.exact)


def test_control_characters_are_shown_as_toml() -> None:
    spec = configured({"x": {"description": 'a \\ and " stay'}}, "x")
    assert tomllib.loads(as_toml(spec))["profiles"]["x"]["description"] == 'a \\ and " stay'


@pytest.mark.parametrize("table", [{"mirror": {}}, {"Mirror": {}}, {"own": {"aliases": ["mirror"]}}])
def test_mirror_is_nobodys_name(table: dict[str, dict[str, object]]) -> None:
    with pytest.raises(ProfileError, match="own hello"):
        Catalog.load(table, "own.toml")
