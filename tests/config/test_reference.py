"""The documents say what the code does: config/*.toml and docs/configuration.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from polytls.config.layers import from_table, parse_toml, profile_tables
from polytls.config.load import load_settings
from polytls.config.reference import as_markdown, as_toml
from polytls.config.schema import KEYS
from polytls.profiles.catalog import Catalog
from polytls.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "config" / "polytls.toml"
DOCUMENT = ROOT / "docs" / "configuration.md"

_COMMENTED_ENTRY = re.compile(r'^# (?=[a-z_]+ = |"[^"]+" = |\[profiles)', re.MULTILINE)


def reference() -> str:
    return REFERENCE.read_text(encoding="utf-8")


def test_the_reference_file_is_current() -> None:
    assert reference() == as_toml(), "run: python -m polytls.config.reference toml > config/polytls.toml"


def test_the_reference_file_loads_to_exactly_the_defaults() -> None:
    loaded = load_settings(REFERENCE, {}, {})
    assert replace(loaded.settings, source=Settings().source) == Settings()


def test_every_key_with_a_default_stands_in_the_reference_file_active() -> None:
    table = parse_toml(reference().encode(), "config/polytls.toml")
    active = {given.key.path for given in from_table(table, "x")}
    assert active == {key.path for key in KEYS if key.default is not None}


def test_the_commented_out_examples_are_valid_and_complete() -> None:
    uncommented = _COMMENTED_ENTRY.sub("", reference())
    # The two passphrase sources exclude each other: keep one at a time.
    paths = set()
    for dropped in ("ca_key_passphrase_env", "ca_key_passphrase_file"):
        text = re.sub(rf"^{dropped} = .*$", "", uncommented, flags=re.MULTILINE)
        table = parse_toml(text.encode(), "config/polytls.toml")
        paths |= {given.key.path for given in from_table(table, "x")}
        profiles = profile_tables(table, "x")
        assert Catalog.load(profiles, "x").find("lab-http1") is not None
    assert paths == {key.path for key in KEYS}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_is_explained_above_itself(key: object) -> None:
    assert isinstance(key, type(KEYS[0]))
    table, _, name = key.path.rpartition(".")
    entry = rf"\[{re.escape(key.path)}\]" if key.kind.merges else rf"(?:# )?{name} = "
    section = reference() if key.kind.merges else reference().partition(f"[{table}]\n")[2]
    found = re.search(rf"((?:^# .*\n)+?)^{entry}", section, flags=re.MULTILINE)
    assert found is not None
    comment = " ".join(line.removeprefix("# ") for line in found[1].splitlines())
    assert key.doc in comment
    assert f"Allowed: {key.kind.expects}." in comment


def test_the_lab_example_loads_and_its_profiles_resolve() -> None:
    settings = load_settings(ROOT / "config" / "lab.toml", {}, {}).settings
    assert settings.upstream.resolve == (("*.lab.test", "127.0.0.1:8443"),)
    catalog = Catalog.load(settings.profile_tables, settings.source)
    lab = catalog.require(settings.upstream.default_profile, source="lab.toml", key="")
    assert lab.groups == (29, 23, 24)
    assert lab.key_shares == (29, 23)


def test_the_table_of_keys_is_current() -> None:
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(
        "<!-- keys: written by polytls.config.reference -->\n"
    )
    table, _, _ = rest.partition("<!-- /keys -->")
    assert table == as_markdown(), "run: python -m polytls.config.reference markdown"
