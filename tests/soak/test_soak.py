"""The soak itself, for a moment: that it runs, that its books agree, and that it says when they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak import report
from tests.soak.__main__ import soak
from tests.soak.load import ORIGIN

if TYPE_CHECKING:
    from pathlib import Path


def test_a_soak_in_short(tmp_path: Path) -> None:
    if not ORIGIN.exists():
        pytest.skip("the native programs are not built: `make bench-build`")
    lines: list[str] = []
    found = soak(tmp_path, seconds=1.0, tunnels=0, seed=5, warm=150, say=lines.append)
    assert found.wrong == []
    assert all(made.reloads >= 4 for made in found.rounds[1:])
    assert len(found.checkpoints) == len(found.rounds) >= 2
    assert found.storm.struck > 100
    assert found.storm.failed == 0 < found.storm.tunnels
    assert report.as_json(found)["tunnels"] == found.tunnels >= 450
    shown = report.table(found)
    assert "Everything held." in shown
    for behaviour in ("get", "half-close", "origin-reset", "sni-mismatch", "alpn-mismatch", "reject-leaf"):
        assert f"| {behaviour} | " in shown


def test_the_report_has_its_place(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.write_document(document, "new")
    assert document.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
