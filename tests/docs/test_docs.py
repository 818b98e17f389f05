"""The documents hold: links resolve, commands and options exist, and the failure table is the code's.

`tests/config` and `tests/profiles` hold docs/configuration.md and docs/profiles.md against the code.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from polytls.cli import _parser
from polytls.errors import Kind
from polytls.events import Timings
from polytls.proxy.refuse import TABLE, Row

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "ca" / "README.md",
        ROOT / "docker" / "README.md",
        ROOT / "native" / "boringssl" / "README.md",
        ROOT / "tests" / "bench" / "README.md",
    ]
)
DECISIONS = ROOT / "docs" / "decisions"

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
_COMMAND = re.compile(r"(?<![\w./-])(?:\.venv/bin/)?polytls (serve|check|ca|profiles)\b([^`\n#]*)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_FILE = re.compile(r"`((?:polytls|native|tests|config|docs)/[\w./-]*[\w/])`")
_TARGET = re.compile(r"`make ([a-z-]+)`")


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors_of(document: Path) -> set[str]:
    """The fragments of its headings as code hosts make them: lower case, no punctuation, hyphens."""
    headings = _HEADING.findall(_FENCE.sub("", text_of(document)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a parser and of those below it."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= options_of(below)
    return found


def parser_of(verb: str) -> argparse.ArgumentParser:
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[verb]
            assert isinstance(parser, argparse.ArgumentParser)
            return parser
    raise AssertionError("the command line has no verbs")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_resolve(document: Path) -> None:
    prose = _CODE.sub("", _FENCE.sub("", text_of(document)))
    for target in _LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere: not ours to promise, and not to be asked by a test
        path, _, fragment = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{target}: there is no such file"
        if fragment:
            assert fragment in anchors_of(linked), f"{target}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_have_the_options_they_are_shown_with(document: Path) -> None:
    for verb, arguments in _COMMAND.findall(text_of(document)):
        unknown = set(_OPTION.findall(arguments)) - options_of(parser_of(verb))
        assert not unknown, f"polytls {verb}{arguments}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_and_targets_that_are_named_exist(document: Path) -> None:
    text = text_of(document)
    for path in _FILE.findall(text):
        assert "NAME" in path or "NNNN" in path or (ROOT / path).exists(), f"{path}: there is no such file"
    makefile = text_of(ROOT / "Makefile")
    for target in _TARGET.findall(text):
        assert re.search(rf"^{target}:|^\.PHONY:.*\b{target}\b", makefile, re.MULTILINE), f"make {target}"


def test_every_option_named_in_the_prose_exists_somewhere() -> None:
    ours = options_of(_parser())
    curl = {"--cacert", "--proxy-header", "--header", "--http1.1", "--connect-to"}
    prepare = {"--sanitize", "--source-only"}
    for document in DOCUMENTS:
        if document.name == "ca.md" or document.parent.name in ("docker", "bench"):
            continue  # full of other programs' options
        options = set(re.findall(r"`(--[a-z][a-z0-9.-]*)", text_of(document)))
        assert options <= ours | curl | prepare, name_of(document)


def expected(row: Row) -> tuple[str, str]:
    """The last two cells of a kind's line."""
    reply = "-" if row.status is None else str(row.status)
    if row.non_tls:
        return reply, "closed or reset"
    if row.page:
        return reply, f"page, else alert {row.alert}"
    return reply, "-" if row.alert is None else f"alert {row.alert}"


def test_the_failure_table_is_that_of_the_code() -> None:
    _, _, rest = text_of(ROOT / "docs" / "architecture.md").partition("<!-- failures:")
    table, end, _ = rest.partition("<!-- /failures -->")
    assert end
    lines = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", table, re.MULTILINE)
    assert [kind for kind, *_ in lines if kind not in {known.value for known in Kind}] == []
    assert {kind: (reply, later) for kind, _, reply, later in lines} == {
        kind.value: expected(row) for kind, row in TABLE.items()
    }
    assert len(lines) == len(TABLE) == len(Kind)


def test_kinds_in_the_troubleshooting_exist() -> None:
    text = text_of(ROOT / "docs" / "troubleshooting.md")
    words = set(re.findall(r"`((?:certificate|upstream|client|sni|alpn|not|hello)_[a-z_]+)`", text))
    assert words
    assert words <= {kind.value for kind in Kind} | set(Timings.__slots__)


def test_every_decision_is_listed_under_its_own_title_and_number() -> None:
    index = text_of(DECISIONS / "README.md")
    written = sorted(path for path in DECISIONS.glob("[0-9]*.md"))
    assert [path.name[:4] for path in written] == [f"{number:04}" for number in range(1, len(written) + 1)]
    for path in written:
        assert f"({path.name})" in index
        assert text_of(path).startswith(f"# {path.name[:4]}: ")


def test_every_document_is_in_the_index() -> None:
    index = text_of(ROOT / "docs" / "README.md")
    for document in (ROOT / "docs").glob("*.md"):
        assert document.name == "README.md" or f"({document.name})" in index
