"""The corpora in the tree: small, and still about what is there now."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from polytls.engine import ClientContext
from polytls.profiles import Catalog
from tests.fuzz.targets import CORPUS, ROOT

MAX_CORPUS_BYTES = 500_000
"""They are cloned by everybody."""

STALE = "is refused; if the format of templates has changed, run native/fuzz/seeds.py"


def files(target: str, kind: str = "seed") -> list[Path]:
    return sorted((CORPUS / target).glob(f"{kind}-*"))


def taken(template: bytes) -> bool:
    base = Catalog.load({}, "test").require("firefox-155", source="test", key="")
    spec = dataclasses.replace(base, template=template)
    return ClientContext(spec, None, verify_chain=False, verify_host=False) is not None


def test_every_native_fuzzer_has_seeds() -> None:
    names = {path.name.removesuffix("_fuzz.cc") for path in (ROOT / "native" / "fuzz").glob("*_fuzz.cc")}
    assert names == {path.name for path in CORPUS.iterdir()}
    assert all(files(name) for name in names)


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) <= MAX_CORPUS_BYTES


@pytest.mark.parametrize("path", files("template"), ids=lambda path: path.name)
def test_seeds_are_templates_that_are_taken(path: Path) -> None:
    assert taken(path.read_bytes()), STALE


@pytest.mark.parametrize("path", files("answer"), ids=lambda path: path.name)
def test_answers_are_to_templates_that_are_taken(path: Path) -> None:
    """Else the fuzzer would end before it began."""
    data = path.read_bytes()
    template = data[3 : 3 + int.from_bytes(data[1:3], "big")]
    assert not template or taken(template), STALE
