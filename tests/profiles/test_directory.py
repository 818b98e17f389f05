"""Profiles in a directory: what is loaded, whose names win, and what is said of files that cannot be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.errors import ConfigError, ProfileError
from polytls.profiles.catalog import Catalog
from polytls.profiles.directory import MAX_FILE_BYTES, MAX_FILES, read_directory, read_file
from polytls.profiles.show import as_toml
from polytls.settings import ProfileSettings, Settings
from tests.golden.profiles import PROFILES

BUILTIN = Catalog.load({}, "none")
Tables = dict[str, dict[str, object]]


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / f"{name.replace('__', '-')}.toml").write_text(text, encoding="utf-8")


def load(directory: Path, tables: Tables | None = None) -> Catalog:
    return Catalog.of_settings(
        Settings(profiles=ProfileSettings(directory), profile_tables=tables or {}, source="polytls.toml")
    )


def problem(directory: Path, tables: Tables | None = None) -> str:
    with pytest.raises(ProfileError) as caught:
        load(directory, tables)
    assert isinstance(caught.value, ConfigError)
    return str(caught.value)


def test_every_form_of_file_is_loaded_beside_the_builtins(tmp_path: Path) -> None:
    exact = (PROFILES / "builtin" / "safari-18.0.toml").read_text()
    write(
        tmp_path,
        exact=exact,
        knobs='base = "firefox-155"\naliases = ["Office"]\nalpn_protos = ["http/1.1"]\n',
        shown=as_toml(BUILTIN.require("edge", source="", key="")).replace("edge-101", "lab-edge"),
        two='[profiles.one]\nbase = "two"\ngrease = true\n[profiles.two]\nbase = "exact"\n',
    )
    (tmp_path / "notes.txt").write_text("not a profile")
    (tmp_path / ".draft.toml").write_text("= not TOML either")
    (tmp_path / "old.toml").mkdir()
    catalog = load(tmp_path)
    assert set(catalog.names()) == {
        *BUILTIN.names(),
        *("exact", "knobs", "office", "lab-edge", "one", "two"),
    }
    assert sorted(catalog.configured) == ["exact", "knobs", "lab-edge", "one", "two"]
    found = {name: catalog.require(name, source="", key="") for name in catalog.names()}
    assert found["exact"].template == found["safari-18.0"].template
    assert found["exact"].http2 == found["safari-18.0"].http2
    assert found["office"].name == "knobs"
    assert found["office"].alpn == ("http/1.1",)
    assert found["office"].groups == found["firefox"].groups
    assert found["lab-edge"].template == found["edge"].template
    assert (found["one"].base, found["two"].base) == ("two", "exact")
    assert found["one"].grease
    assert found["exact"].source == str(tmp_path / "exact.toml")


def test_a_table_of_the_configuration_may_be_based_on_a_file_and_a_file_on_it(tmp_path: Path) -> None:
    write(tmp_path, lab='base = "chrome"\ngrease = false\n', more='base = "office"\n')
    catalog = load(tmp_path, {"office": {"base": "lab"}})
    assert [catalog.require(name, source="", key="").grease for name in ("office", "more")] == [False] * 2


@pytest.mark.parametrize("word", ["chrome-152", "chrome"])
def test_a_builtin_name_is_taken_with_override_only(tmp_path: Path, word: str) -> None:
    text = 'base = "firefox"\n'
    for name, path in ((word, ""), ("lab", "aliases: ")):
        directory = tmp_path / name
        directory.mkdir()
        aliases = f'aliases = ["{word}"]\n' if path else ""
        (directory / f"{name}.toml").write_text(text + aliases)
        assert problem(directory) == (
            f'{directory / name}.toml: {path}"{word}" already names a profile, the built-in chrome-152.toml;'
            " allowed: a name not in use, or override = true to take its place"
        )
        (directory / f"{name}.toml").write_text(text + aliases + "override = true\n")
        catalog = load(directory)
        own = catalog.require(word, source="", key="")
        assert (own.name, own.groups) == (name, BUILTIN.require("firefox", source="", key="").groups)
        # `chrome` is an alias of chrome-152: it goes where that goes, and not the other way round.
        other = catalog.require("chrome" if word == "chrome-152" else "chrome-152", source="", key="")
        assert (other == own) == (word == "chrome-152")
        names = [spec.name for spec in catalog.specs()]
        assert len(set(names)) == len(names)
        assert ("chrome-152" in names) == (word == "chrome" or name == "chrome-152")


def test_what_overrides_may_begin_from_what_it_overrides(tmp_path: Path) -> None:
    chrome = BUILTIN.require("chrome", source="", key="")
    write(
        tmp_path,
        chrome__152="override = true\ngrease = false\n",
        lab='override = true\nbase = "chrome-131"\naliases = ["chrome-131"]\npermute_extensions = false\n',
    )
    catalog = load(tmp_path)
    own = catalog.require("chrome", source="", key="")
    assert (own.name, own.grease, own.cipher_list) == ("chrome-152", False, chrome.cipher_list)
    assert catalog.require("chrome-131", source="", key="").name == "lab"
    assert catalog.require("lab", source="", key="").base == "chrome-131"


@pytest.mark.parametrize("override", ["", "override = true\n"])
@pytest.mark.parametrize(
    ("first", "second", "key", "word"),
    [
        ("", 'aliases = ["a"]\n', "aliases", "a"),
        ('aliases = ["x"]\n', 'aliases = ["X"]\n', "aliases", "x"),
    ],
)
def test_two_files_with_one_word_are_always_an_error(
    tmp_path: Path, override: str, first: str, second: str, key: str, word: str
) -> None:
    write(tmp_path, a=first + override, b=second + override)
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert problem(tmp_path) == (
        f'{b}: {key}: "{word}" names a profile of {a} as well; allowed: one of the two'
    )


def test_two_names_that_differ_in_case_or_form_of_file_clash(tmp_path: Path) -> None:
    write(tmp_path, lab="override = true\n", other="[profiles.LAB]\noverride = true\n")
    assert problem(tmp_path) == (
        f'{tmp_path / "other.toml"}: profiles.lab: "lab" names a profile of {tmp_path / "lab.toml"} as well;'
        " allowed: one of the two"
    )


def test_a_file_and_the_configuration_clash(tmp_path: Path) -> None:
    write(tmp_path, office="override = true\n")
    assert problem(tmp_path, {"office": {}}).startswith(
        f'{tmp_path / "office.toml"}: "office" names a profile of polytls.toml as well'
    )


def test_in_the_configuration_an_alias_of_a_builtin_is_taken_with_override(tmp_path: Path) -> None:
    catalog = load(tmp_path, {"lab": {"aliases": ["firefox"], "override": True}})
    assert catalog.require("firefox", source="", key="").name == "lab"


def test_bases_in_a_circle_of_files(tmp_path: Path) -> None:
    write(tmp_path, a='base = "b"\n', b='base = "a"\n')
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert problem(tmp_path) == (
        f"{a}: base: profiles are based on each other (a -> b -> a, in {a}, {b});"
        " name a base outside the circle"
    )


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("lab", "a = 1\nb = = 2\n", "is not TOML: Invalid value (at line 2, column 5)"),
        ("lab", b"a = 1\n# \xff\n", "is not TOML: not UTF-8 (at line 2)"),
        ("lab", "x = " + "[" * 100_000, "is not TOML: "),
        ("lab", "x = " + "1" * 5000, "is not TOML: "),
        ("lab", "#" * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES} bytes"),
        ("lab", "greas = true\n", 'greas: unknown key (did you mean "grease"?)'),
        ("lab", "grease = 1\n", "grease: is an integer; allowed: true, false"),
        ("lab", 'base = "nope"\n', 'base: "nope": unknown profile'),
        ("lab", "base = 1\n", "base: got 1; allowed: the name of a profile"),
        ("lab", "aliases = 1\n", "aliases: is an integer; allowed: an array of names"),
        ("lab", "override = 1\n", "override: is an integer; allowed: true, false"),
        ("lab", "[hello]\n", "hello.cipher_suites: is left out"),
        ("lab", "[http2]\n", "http2.settings: is left out"),
        ("lab", "[profiles.x]\ngreas = true\n", "profiles.x.greas: unknown key"),
        ("lab", "[profiles]\n", "has no profile in [profiles]"),
        ("lab", "profiles = 1\n", "has no profile in [profiles]"),
        ("lab", "[profiles]\ndirectory = 'x'\n", "profiles.directory: is a string; allowed: a table"),
        ("lab", "[proxy]\n[profiles.x]\n", '"proxy": is beside [profiles]'),
        ("my lab", "", '"my lab" is not a profile name; allowed: 1 to 64 letters'),
        ("mirror", "", '"mirror" is the name by which clients ask for their own hello'),
        ("Mirror", "override = true\n", '"mirror" is the name by which'),
        ("lab", "override = true\naliases = ['mirror']\n", '"mirror" is the name by which'),
        ("directory", "", '"directory" is the setting that names the profile directory'),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(
    tmp_path: Path, name: str, text: str | bytes, sentence: str
) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert problem(tmp_path).startswith(f"{path}: {sentence}")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert problem(missing) == (
        f"{missing}: cannot be read as a directory of profiles (No such file or directory);"
        " check the path and its permissions"
    )
    (tmp_path / "lost.toml").symlink_to(missing)
    assert problem(tmp_path).startswith(f"{tmp_path / 'lost.toml'}: cannot be read as a profile (No such")
    with pytest.raises(ProfileError, match="as a directory of profiles"):
        read_directory(Path("\0"))
    with pytest.raises(ProfileError, match="as a profile"):
        read_file(Path("\0.toml"))


@pytest.mark.parametrize(("count", "fits"), [(MAX_FILES, True), (MAX_FILES + 1, False)])
def test_number_of_files(tmp_path: Path, count: int, fits: bool) -> None:
    for number in range(count):
        (tmp_path / f"p{number}.toml").touch()
    if fits:
        assert len(read_directory(tmp_path)) == count
    else:
        with pytest.raises(ProfileError, match=f"has {count} profiles; allowed: at most {MAX_FILES}"):
            read_directory(tmp_path)


def test_every_builtin_may_be_copied_changed_and_put_in_its_own_place(tmp_path: Path) -> None:
    for path in (PROFILES / "builtin").glob("*.toml"):
        (tmp_path / path.name).write_text("override = true\n" + path.read_text())
    catalog = load(tmp_path)
    assert catalog.names() == BUILTIN.names()
    for name in BUILTIN.names():
        own, builtin = (one.require(name, source="", key="") for one in (catalog, BUILTIN))
        assert own == builtin
        assert own.source.startswith(str(tmp_path))
        assert catalog.aliases_of(own) == BUILTIN.aliases_of(builtin)


lines = st.sampled_from(
    (
        'base = "lab"',
        'base = "chrome"',
        'aliases = ["lab", "chrome"]',
        "override = true",
        "override = 1",
        "grease = false",
        "[profiles.lab]",
        "[profiles.chrome]",
        "[hello]",
        "[http2]",
        "settings = []",
        'pseudo_headers = [":method", ":scheme", ":path"]',
        "[profiles]",
        "= x",
        "\u0000",
    )
)


@settings(deadline=None)  # files
@given(st.lists(st.lists(lines, max_size=4).map("\n".join) | st.text(max_size=20), min_size=1, max_size=3))
def test_any_files_are_profiles_or_a_profile_error(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number, text in enumerate(texts):
            path = Path(name) / ("chrome.toml" if number == 2 else f"p{number}.toml")
            path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        sources: list[str] = []
        try:
            catalog = load(Path(name))
        except ProfileError as error:
            sources.append(error.source)
            catalog = BUILTIN
    assert all(source.startswith(name) for source in sources)
    for known in (*catalog.configured, "chrome", "chrome-152"):
        assert catalog.find(known) is not None
