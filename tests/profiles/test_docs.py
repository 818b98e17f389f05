"""docs/profiles.md says what the code does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polytls.profiles.bodies import CODECS, SIMPLE, extension_word
from polytls.profiles.boringssl import CERT_COMPRESSION, GROUPS, SIGALGS
from polytls.profiles.catalog import Catalog
from polytls.profiles.exact_toml import KEYS
from polytls.profiles.http2_toml import KEYS as HTTP2_KEYS
from polytls.profiles.show import knobs_as_markdown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")


def test_the_table_of_knobs_is_current() -> None:
    _, _, rest = DOCUMENT.partition("<!-- knobs: written by polytls.profiles.show -->\n")
    table, _, _ = rest.partition("<!-- /knobs -->")
    assert table == knobs_as_markdown()


@pytest.mark.parametrize("name", Catalog.load({}, "none").names())
def test_every_builtin_is_named(name: str) -> None:
    assert f"`{name}`" in DOCUMENT


def test_every_group_and_compression_algorithm_is_named() -> None:
    for entry in (*GROUPS.entries, *CERT_COMPRESSION.entries):
        for name in (entry.name, *entry.aliases):
            assert f"`{name}`" in DOCUMENT


def test_every_family_of_signature_algorithms_is_named() -> None:
    for entry in SIGALGS.entries:
        assert entry.name.rstrip("0123456789") in DOCUMENT


def test_the_example_of_an_exact_profile_is_one() -> None:
    _, _, rest = DOCUMENT.partition("## Exact profiles")
    text = rest.partition("```toml\n")[2].partition("```")[0]
    spec = Catalog.load(tomllib.loads(text)["profiles"], "docs/profiles.md").find("lab")
    assert spec is not None
    assert spec.template is not None


def test_the_example_of_http2_is_one() -> None:
    _, _, rest = DOCUMENT.partition("## HTTP/2")
    table = tomllib.loads(rest.partition("```toml\n")[2].partition("```")[0])["profiles"]
    spec = Catalog.load({"lab": {"base": "chrome", **table["lab"]}}, "docs/profiles.md").find("lab")
    assert spec is not None
    assert spec.http2 is not None
    assert spec.http2.akamai.endswith("|15663105|0|m,a,s,p")


@pytest.mark.parametrize(
    "word", [*KEYS, *HTTP2_KEYS, *(codec.key for codec in CODECS.values()), *map(extension_word, SIMPLE)]
)
def test_every_word_of_an_exact_profile_is_named(word: str) -> None:
    assert f"`{word}`" in DOCUMENT
