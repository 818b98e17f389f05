"""The patch applier: what fits exactly is applied, everything else is refused by name."""

from __future__ import annotations

import contextlib
import difflib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.patch import PatchError, apply_patches, ordered_patches, parse

ORIGINAL = b"one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n"

CHANGE = b"""\
Why this is needed.
---
 file.c | 2 +-

diff --git a/file.c b/file.c
index 0000001..0000002 100644
--- a/file.c
+++ b/file.c
@@ -2,3 +2,4 @@ context that is shown but not used
 two
-three
+THREE
+and a half
 four
@@ -7,2 +8,1 @@
-seven
 eight
--
2.39.0
"""


def apply(tree: Path, *patches: bytes) -> None:
    """Writes the patches outside the tree and applies them in order."""
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for number, patch in enumerate(patches, start=1):
            paths.append(Path(directory, f"{number:04d}-test.patch"))
            paths[-1].write_bytes(patch)
        apply_patches(paths, tree)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "file.c").write_bytes(ORIGINAL)
    return tmp_path


def test_changes_a_file_as_a_mailed_patch_says(tree: Path) -> None:
    apply(tree, CHANGE.replace(b"--\n2.39", b"-- \n2.39"))
    assert (tree / "file.c").read_bytes() == b"one\ntwo\nTHREE\nand a half\nfour\nfive\nsix\neight\n"


def test_adds_and_deletes_files(tree: Path) -> None:
    apply(
        tree,
        b"--- /dev/null\n+++ b/new/dir/added.h\n@@ -0,0 +1,2 @@\n+a\n+b\n\\ No newline at end of file\n",
        b"--- a/file.c\n+++ /dev/null\n@@ -1,8 +0,0 @@\n"
        + b"".join(b"-" + line for line in ORIGINAL.splitlines(keepends=True)),
    )
    assert (tree / "new/dir/added.h").read_bytes() == b"a\nb"
    assert not (tree / "file.c").exists()


def test_later_patches_see_what_earlier_ones_did(tree: Path) -> None:
    apply(
        tree,
        b"--- a/file.c\n+++ b/file.c\n@@ -1 +1 @@\n-one\n+uno\n",
        b"--- a/file.c\n+++ b/file.c\n@@ -1 +1 @@\n-uno\n+eins\n",
    )
    assert (tree / "file.c").read_bytes().startswith(b"eins\n")


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        pytest.param(b"@@ -1 +1 @@\n-two\n+2\n", "line 1 is not what the patch expects", id="context"),
        pytest.param(b"@@ -2 +2 @@\n-one\n+1\n", "line 2 is not what", id="offset"),
        pytest.param(b"@@ -1 +1 @@\n-one \n+1\n", "line 1 is not what", id="trailing space"),
        pytest.param(b"@@ -1 +1 @@\n-one\r\n+1\n", "line 1 is not what", id="line end"),
        pytest.param(b"@@ -8 +8 @@\n-eight\n\\ No newline\n+8\n", "line 8 is not what", id="no newline"),
        pytest.param(b"@@ -9 +9 @@\n-nine\n+9\n", "line 9 is not what", id="past the end"),
        pytest.param(b"@@ -99 +99 @@\n-one\n+1\n", "line 99 is not where", id="far past the end"),
        pytest.param(b"@@ -1 +2 @@\n-one\n+1\n", "wrong new line number", id="new number"),
        pytest.param(
            b"@@ -2 +2 @@\n-two\n+2\n@@ -1 +1 @@\n-one\n+1\n", "line 1 is not where", id="hunks out of order"
        ),
        pytest.param(b"@@ -1 +1,2 @@\n-one\n+1\n", "fewer lines than", id="too few lines"),
        pytest.param(b"@@ -1 +1 @@\n-one\n+1\n+2\n", "more lines than", id="too many lines"),
        pytest.param(b"@@ -1,2 +1 @@\n-one\n+1\n+2\n-two\n", "contradict", id="wrong counts"),
        pytest.param(b"@@ -1,3 +1,2 @@\n one\n\n-three\n", "fewer lines than", id="stripped context"),
        pytest.param(b"@@ nonsense\n", "cannot be read", id="header"),
        pytest.param(b"", "a file without a hunk", id="empty"),
    ],
)
def test_refuses_what_does_not_fit(tree: Path, patch: bytes, reason: str) -> None:
    with pytest.raises(PatchError, match=reason) as raised:
        apply(tree, b"--- a/file.c\n+++ b/file.c\n" + patch)
    assert "0001-test.patch" in str(raised.value)
    assert "regenerate" in str(raised.value)
    assert (tree / "file.c").read_bytes() == ORIGINAL


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        pytest.param(b"only words\n", "changes no file", id="no file"),
        pytest.param(b"@@ -1 +1 @@\n-one\n+1\n", "before any file", id="no names"),
        pytest.param(b"rename from a\nrename to b\n", "not supported", id="rename"),
        pytest.param(b"old mode 100644\nnew mode 100755\n", "not supported", id="mode"),
        pytest.param(b"GIT binary patch\nliteral 1\n", "not supported", id="binary"),
        pytest.param(b"--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", "not supported", id="two names"),
        pytest.param(b"--- file.c\n+++ file.c\n@@ -1 +1 @@\n-one\n+1\n", "not inside", id="no prefix"),
        pytest.param(b"--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", "not inside", id="parent"),
        pytest.param(b"--- a//etc/x\n+++ b//etc/x\n@@ -1 +1 @@\n-a\n+b\n", "not inside", id="absolute"),
        pytest.param(b"--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", "both sides", id="nothing"),
        pytest.param(b"--- a/gone\n+++ b/gone\n@@ -1 +1 @@\n-a\n+b\n", "is not there", id="missing file"),
        pytest.param(
            b"--- /dev/null\n+++ b/file.c\n@@ -0,0 +1 @@\n+a\n", "already there", id="existing file"
        ),
        pytest.param(b"--- a/file.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", "holds more", id="half deleted"),
    ],
)
def test_refuses_what_it_does_not_understand(tree: Path, patch: bytes, reason: str) -> None:
    with pytest.raises(PatchError, match=reason):
        apply(tree, patch)


def test_refuses_a_path_through_a_symbolic_link(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x").write_bytes(b"one\n")
    (tree / "link").symlink_to(outside)
    with pytest.raises(PatchError, match="leads out of the source tree"):
        apply(tree, b"--- a/link/x\n+++ b/link/x\n@@ -1 +1 @@\n-one\n+1\n")
    assert (outside / "x").read_bytes() == b"one\n"


# Few different lines, so that files share some; some end in CR, the last may lack its line end.
_LINES = st.lists(
    st.sampled_from([b"a\n", b"b\n", b"\n", b"-- c\n", b"++ d\r\n", b"@@ e\n", b" f\n"]), max_size=12
)
_ENDS = st.sampled_from([b"", b"last"])

# How long files and a parser take says something of the machine and who else uses it, and nothing of the parser.
unhurried = settings(deadline=None)


def _unified(old: list[bytes], new: list[bytes], context: int) -> bytes:
    """What `git diff` writes, by the standard library, which leaves out the missing-line-end marks."""
    lines = difflib.diff_bytes(difflib.unified_diff, old, new, b"a/f", b"b/f", n=context)
    return b"".join(
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines
    )


@unhurried
@given(old=_LINES, new=_LINES, old_end=_ENDS, new_end=_ENDS, context=st.integers(0, 3))
def test_applies_every_difference_exactly(
    old: list[bytes], new: list[bytes], old_end: bytes, new_end: bytes, context: int
) -> None:
    before, after = [*old, *filter(None, [old_end])], [*new, *filter(None, [new_end])]
    if before == after:
        return
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "f").write_bytes(b"".join(before))
        apply(Path(directory), _unified(before, after, context))
        assert Path(directory, "f").read_bytes() == b"".join(after)


@unhurried
@given(st.binary(max_size=200) | st.lists(st.sampled_from(CHANGE.splitlines(keepends=True))).map(b"".join))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(PatchError):
        parse(text, "any.patch")


def test_patches_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("0002-b.patch", "0001-z.patch", "README.md"):
        (tmp_path / name).touch()
    assert [path.name for path in ordered_patches(tmp_path)] == ["0001-z.patch", "0002-b.patch"]
    assert ordered_patches(tmp_path / "absent") == ()


@pytest.mark.parametrize("names", [["0002-a.patch"], ["0001-a.patch", "0001-b.patch"], ["1-a.patch"]])
def test_refuses_gaps_and_repeats_in_the_numbers(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(PatchError, match="breaks the patch numbering"):
        ordered_patches(tmp_path)
