"""A strict applier of unified diffs, so that neither `patch` nor `git` is needed to build.

Theory of operation
-------------------
The source is pinned by checksum, so a patch either fits exactly or is wrong: there is no fuzz, no
offset and no whitespace leniency. A hunk must find its context and removed lines at the very line it
names, its line counts must be true, hunks come in order, and its new line number must follow from the
hunks before it. Files are bytes; nothing is decoded and line ends are kept.

Understood: changed, added and deleted text files with `a/` and `b/` prefixes, as `git diff` and
`git format-patch` write them, with prose around them. Renames, copies, mode changes and binary patches
are refused by name, never skipped. Paths that leave the tree are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from provision.errors import ProvisionError

_PATCH_NAME = re.compile(r"(\d{4})-[a-z0-9][a-z0-9-]*\.patch")
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSUPPORTED = (
    b"rename ",
    b"copy ",
    b"old mode ",
    b"new mode ",
    b"GIT binary patch",
    b"Binary files ",
)


class PatchError(ProvisionError):
    """A patch is malformed or does not fit the source."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk; lines keep their line ends, line numbers count from 1 (0 for an empty side)."""

    old_start: int
    new_start: int
    old_lines: tuple[bytes, ...]
    new_lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FilePatch:
    """The hunks of one file. `old` is None for an added file, `new` is None for a deleted one."""

    old: PurePosixPath | None
    new: PurePosixPath | None
    hunks: tuple[Hunk, ...]


def ordered_patches(directory: Path) -> tuple[Path, ...]:
    """The `NNNN-name.patch` files of `directory` in order; empty if there is no such directory.

    Raises PatchError unless every `*.patch` is named so and the numbers run 0001, 0002, ... without
    gaps or repeats, so that two branches that add the same number cannot be merged unnoticed.
    """
    found = sorted(directory.glob("*.patch"))
    for expected, path in enumerate(found, start=1):
        matched = _PATCH_NAME.fullmatch(path.name)
        if matched is None or int(matched[1]) != expected:
            raise PatchError(
                f"{path.name} breaks the patch numbering: "
                f"name it {expected:04d}-short-words.patch in {directory}."
            )
    return tuple(found)


def apply_patches(patches: Iterable[Path], tree: Path) -> None:
    """Applies the patch files in order to `tree`, which is left half-changed if one does not fit."""
    for path in patches:
        for file_patch in parse(path.read_bytes(), path.name):
            _apply_file(file_patch, tree, path.name)


def parse(text: bytes, name: str) -> tuple[FilePatch, ...]:
    """Reads a unified diff; `name` is for the messages. Raises PatchError for anything unclear."""
    parser = _Parser(name, text.splitlines(keepends=True))
    return parser.run()


@dataclass(slots=True)
class _Parser:
    name: str
    lines: list[bytes]
    at: int = 0
    patches: list[FilePatch] = field(default_factory=list)

    def run(self) -> tuple[FilePatch, ...]:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith(b"--- ") and self._peek(1).startswith(b"+++ "):
                self._file()
            elif line.startswith(_UNSUPPORTED):
                raise self._error("renames, mode changes and binary files are not supported")
            elif line.startswith(b"@@ "):
                raise self._error("a hunk stands before any file")
            else:
                self.at += 1  # prose, `diff --git`, `index`, a mail's header or signature
        if not self.patches:
            raise PatchError(f"Patch {self.name} changes no file; regenerate it as a unified diff.")
        return tuple(self.patches)

    def _file(self) -> None:
        old = self._path(self.lines[self.at], b"a/")
        new = self._path(self.lines[self.at + 1], b"b/")
        if old is None and new is None:
            raise self._error("both sides of a file are /dev/null")
        if old is not None and new is not None and old != new:
            raise self._error("renames, mode changes and binary files are not supported")
        self.at += 2
        hunks: list[Hunk] = []
        while self._peek(0).startswith(b"@@ "):
            hunks.append(self._hunk())
        if not hunks:
            raise self._error("a file without a hunk")
        # What follows the last hunk must not look like a line that its counts left out.
        following = self._peek(0)
        if following.startswith((b"+", b"-", b" ", b"\\")) and not self._ends_hunks(following):
            raise self._error("more lines than the hunk's header counts")
        self.patches.append(FilePatch(old, new, tuple(hunks)))

    def _ends_hunks(self, line: bytes) -> bool:
        signature = line.rstrip(b"\r\n") == b"-- "
        return signature or (line.startswith(b"--- ") and self._peek(1).startswith(b"+++ "))

    def _path(self, line: bytes, prefix: bytes) -> PurePosixPath | None:
        text = line[4:].rstrip(b"\r\n").split(b"\t")[0]
        if text == b"/dev/null":
            return None
        path = PurePosixPath(text[len(prefix) :].decode("utf-8", "replace"))
        if not text.startswith(prefix) or path.is_absolute() or not path.parts or ".." in path.parts:
            raise self._error("a path that is not inside a/ and b/")
        return path

    def _hunk(self) -> Hunk:
        matched = _HUNK.match(self.lines[self.at])
        if matched is None:
            raise self._error("a hunk header that cannot be read")
        old_count, new_count = int(matched[2] or b"1"), int(matched[4] or b"1")
        self.at += 1
        old: list[bytes] = []
        new: list[bytes] = []
        while len(old) < old_count or len(new) < new_count:
            kind, body = self._peek(0)[:1], self._body()
            if kind not in (b" ", b"-", b"+"):
                raise self._error("fewer lines than the hunk's header counts")
            if kind != b"+":
                old.append(body)
            if kind != b"-":
                new.append(body)
        if len(old) != old_count or len(new) != new_count:
            raise self._error("lines that contradict the hunk's header")
        return Hunk(int(matched[1]), int(matched[3]), tuple(old), tuple(new))

    def _body(self) -> bytes:
        """The line after its marker; without its line end where the diff says that it has none."""
        body = self._peek(0)[1:]
        self.at += 1
        if self._peek(0).startswith(b"\\ "):
            self.at += 1
            return body.rstrip(b"\r\n")
        return body

    def _peek(self, ahead: int) -> bytes:
        position = self.at + ahead
        return self.lines[position] if position < len(self.lines) else b""

    def _error(self, what: str) -> PatchError:
        return PatchError(
            f"Patch {self.name} cannot be read at line {self.at + 1} ({what}); "
            "regenerate it as a plain unified diff."
        )


def _apply_file(patch: FilePatch, tree: Path, name: str) -> None:
    path = patch.old or patch.new
    assert path is not None  # held by the parser
    target = tree / path
    if target.is_symlink() or not target.resolve().is_relative_to(tree.resolve()):
        raise _misfit(name, path, "the path leads out of the source tree")
    if patch.old is None and target.exists():
        raise _misfit(name, path, "the file to be added is already there")
    if patch.old is not None and not target.is_file():
        raise _misfit(name, path, "the file to be changed is not there")
    before = target.read_bytes().splitlines(keepends=True) if patch.old else []
    after = _apply_hunks(patch, before, name, path)
    if patch.new is None:
        if after:
            raise _misfit(name, path, "the file to be deleted holds more than the patch removes")
        target.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"".join(after))


def _apply_hunks(patch: FilePatch, before: list[bytes], name: str, path: PurePosixPath) -> list[bytes]:
    after: list[bytes] = []
    taken = 0
    for hunk in patch.hunks:
        # An empty side is numbered by the line it follows, any other by its first line.
        start = hunk.old_start - 1 if hunk.old_lines else hunk.old_start
        new_start = hunk.new_start - 1 if hunk.new_lines else hunk.new_start
        if not taken <= start <= len(before):
            raise _misfit(name, path, f"line {hunk.old_start} is not where a hunk can start")
        after += before[taken:start]
        for offset, expected in enumerate(hunk.old_lines):
            if before[start + offset : start + offset + 1] != [expected]:
                raise _misfit(name, path, f"line {start + offset + 1} is not what the patch expects")
        if new_start != len(after):
            raise _misfit(name, path, f"the hunk at line {hunk.old_start} names a wrong new line number")
        after += hunk.new_lines
        taken = start + len(hunk.old_lines)
    return after + before[taken:]


def _misfit(name: str, path: PurePosixPath, what: str) -> PatchError:
    return PatchError(
        f"Patch {name} does not apply to {path}: {what}; regenerate it against the pinned source "
        "and the patches before it."
    )
