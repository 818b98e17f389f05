"""Tables, pictures, and the part of docs/performance.md that is written by machine."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.document import BEGIN, END, plots, replaced, write_document
from tests.bench.goals import judge
from tests.bench.measure import Sample
from tests.bench.plot import Bar, Line, bars, lines
from tests.bench.samples import results, sample
from tests.bench.spawn import BenchError
from tests.bench.table import markdown, report, shown

ROOT = Path(__file__).parents[2]
SOME = results(
    sample("mitm.c32", "yardstick", 0, cpu_ms=0.31),
    sample("mitm.c32", "polytls-x25519", 0, cpu_ms=0.4, main_thread_ms=0.07),
    sample("mitm.c1", "polytls-x25519", 0, added_p50_ms=0.61, added_p99_ms=1.2),
    sample("mitm.threads", "polytls-x25519/1", 0, per_second=1000, bound_cores=3000.0, bound_gil=9000.0),
    sample("mitm.threads", "polytls-x25519/2", 0, per_second=1800, bound_cores=3000.0, bound_gil=9000.0),
    Sample("mitm.bulk", "mitmproxy", 0, {}, 0, 0, error="it went away"),
    versions={"mitmproxy": "11.0"},
    notes=["net.*: network namespaces need root"],
)


def test_columns_are_aligned() -> None:
    made = markdown(["", "ms"], [["a", "1.00"], ["longer", "12.00"]]).splitlines()
    assert made == ["|        |    ms |", "|--------|------:|", "| a      |  1.00 |", "| longer | 12.00 |"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.123, "0.12"), (12.345, "12.35"), (123.4, "123"), (12345.6, "12,346")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_report_says_what_was_measured_and_what_was_not() -> None:
    made = report(SOME, judge(SOME))
    assert "2026-01-02 03:04 UTC, commit abc1234, 12 s: a machine." in made
    assert "mitmproxy 11.0." in made
    assert "0.61 / 1.20" in made
    assert "at most 1.35 x" in made
    assert "1.29 x |" in made
    assert "* net.*: network namespaces need root" in made
    assert "* mitm.bulk mitmproxy: it went away" in made
    assert "Passthrough**" not in made  # a table without rows has no title either
    assert "names never seen |" not in made  # nor a column without values


def test_pictures_are_well_formed() -> None:
    made = plots(SOME)
    assert set(made) == {"mitm-cpu.svg", "mitm-added.svg", "threads.svg"}
    for text in made.values():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


@given(
    st.lists(
        st.tuples(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C"])), st.floats(0, 1e9))
    ),
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C"])),
)
def test_any_text_and_number_makes_a_well_formed_picture(found: list[tuple[str, float]], title: str) -> None:
    ElementTree.fromstring(bars(title, "ms", [Bar(label, value) for label, value in found]))
    points = tuple((float(x), y) for x, (_, y) in enumerate(found))
    ElementTree.fromstring(lines(title, "threads", "a second", [Line(title, points)]))


def test_only_the_generated_part_changes(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_document(path, "new", {"one.svg": "<svg/>"})
    text = path.read_text()
    assert text == f"# Before\n\n{BEGIN}\n\nnew\n\n![one](performance/one.svg)\n\n{END}\n\nAfter.\n"
    assert (tmp_path / "performance" / "one.svg").read_text() == "<svg/>"
    write_document(path, "new", {"one.svg": "<svg/>"})
    assert path.read_text() == text


def test_a_document_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(BenchError, match="to write between"):
        replaced("# Nothing here\n", "new")


def test_the_document_has_a_place_for_it() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert replaced(text, "new").count("new") >= 1
    for picture in sorted((ROOT / "docs" / "performance").glob("*.svg")):
        ElementTree.parse(picture)
        assert f"performance/{picture.name}" in text, f"{picture.name} is shown nowhere"
