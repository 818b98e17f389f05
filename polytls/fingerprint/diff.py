"""Two clients side by side, everything that is not fresh, equal or not.

Theory of operation
-------------------
`compare` lines up two `NormalHello`s, each of which may stand for several captured hellos, as `Section`s: a
heading and rows of two cells. Lists are aligned, so that one value more on one side is one row and not a
shift of all that follow. Extensions are compared in the order of the wire where both clients keep one;
where one permutes, order says nothing and both are sorted, the permuting told in a row of its own.

First flights of HTTP/2 are lined up where both are known.

`polytls.fingerprint.normal.difference` is the judge of whether a hello is what was expected; this shows, and
takes no side: both cells are what was seen. `as_text` is for people, `as_dict` for programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from polytls.profiles.http2 import GREASE_SETTING, setting_name

if TYPE_CHECKING:
    from polytls.fingerprint.normal import EchShape, NormalHello
    from polytls.profiles.http2 import Http2

_RED, _GREEN, _BOLD, _RESET = "\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[0m"
_EMPTY = "-"
_PSK = "pre_shared_key"
_MIN_CELL_CHARS = 16
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Row:
    """None: the side has nothing there."""

    left: str | None
    right: str | None

    @property
    def same(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    rows: tuple[Row, ...]

    @property
    def same(self) -> bool:
        return all(row.same for row in self.rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections, also the equal ones, in the order of a hello."""

    left: str
    right: str
    sections: tuple[Section, ...]

    @property
    def same(self) -> bool:
        return all(section.same for section in self.sections)

    def as_dict(self) -> dict[str, object]:
        """For JSON. Rows are objects, too, so that a reader need not count."""
        return {
            "a": self.left,
            "b": self.right,
            "same": self.same,
            "sections": [
                {
                    "what": section.heading,
                    "same": section.same,
                    "rows": [{"a": row.left, "b": row.right, "same": row.same} for row in section.rows],
                }
                for section in self.sections
            ],
        }

    def as_text(self, *, width: int, colour: bool = False, everything: bool = False) -> str:
        """Two columns in `width` characters, ending in a line break: the sections that differ, with
        `everything` all of them. Differing rows are marked, by ``|``, ``<`` or ``>`` as diff(1) does it.
        """
        shown = [section for section in self.sections if everything or not section.same]
        cells = [cell for section in shown for row in section.rows for cell in (row.left, row.right) if cell]
        longest = max(map(len, (*cells, self.left, self.right)), default=0)
        cell = max(_MIN_CELL_CHARS, min((width - len(_GAP) * 2 - 3) // 2, longest))
        lines = _lines(self.left, self.right, " ", cell)
        for section in shown:
            heading = f"{_BOLD}{section.heading}{_RESET}" if colour else section.heading
            lines += ["", heading]
            for row in section.rows:
                lines += _row(row, cell, colour=colour)
        if not shown:
            lines += ["", "no difference"]
        return "\n".join(line.rstrip() for line in lines) + "\n"


def compare(
    left_name: str,
    left: NormalHello,
    right_name: str,
    right: NormalHello,
    http2: tuple[Http2 | None, Http2 | None] = (None, None),
) -> Comparison:
    """Line up two clients. `http2` are their first flights; a capture of a hello alone has none."""
    sections = [
        _single("record version", left.record_version, right.record_version),
        _single("legacy version", left.legacy_version, right.legacy_version),
        _single("bytes of session id", _either(left.session_id_bytes), _either(right.session_id_bytes)),
        Section("cipher suites", _aligned(left.cipher_suites, right.cipher_suites)),
        _single("compression methods", _either(left.compression_methods), _either(right.compression_methods)),
        _single("order of extensions", _order(left), _order(right)),
        _extensions(left, right),
    ]
    sections += [_body(name, left, right) for name in _names(left, right)]
    if left.ech or right.ech:
        sections.append(Section("encrypted_client_hello", _aligned(_ech(left.ech), _ech(right.ech))))
    sections += [
        _single("resumes a session", *("yes" if _PSK in hello.tail else "no" for hello in (left, right))),
        _single("padding", _either(left.padding), _either(right.padding)),
        Section("equal values", _aligned(sorted(left.equalities), sorted(right.equalities))),
    ]
    if http2[0] is not None and http2[1] is not None:
        sections += _flights(http2[0], http2[1])
    return Comparison(left_name, right_name, tuple(section for section in sections if section.rows))


def _flights(left: Http2, right: Http2) -> list[Section]:
    settings, frames = [
        _aligned(words(left), words(right)) for words in (_settings, _priority_frames)
    ]  # in order
    return [
        Section("HTTP/2 settings", settings),
        _single("HTTP/2 window update", str(left.window_update), str(right.window_update)),
        Section("HTTP/2 priority frames", frames),
        _single("HTTP/2 first stream", str(left.stream), str(right.stream)),
        _single("HTTP/2 priority", *(str(one.priority or _EMPTY) for one in (left, right))),
        Section("HTTP/2 pseudo-headers", _aligned(left.pseudo_headers, right.pseudo_headers)),
        _single(
            "HTTP/2 window update of the stream",
            str(left.stream_window_update),
            str(right.stream_window_update),
        ),
    ]


def _settings(flight: Http2) -> list[str]:
    return [
        "GREASE" if one == GREASE_SETTING else f"{setting_name(one.id)} = {one.value}"
        for one in flight.settings
    ]


def _priority_frames(flight: Http2) -> list[str]:
    return [f"stream {one.stream} {one.priority}" for one in flight.priority_frames]


def _single(heading: str, left: str, right: str) -> Section:
    return Section(heading, (Row(left, right),))


def _order(hello: NormalHello) -> str:
    return "permuted" if hello.permuted else "fixed"


def _extensions(left: NormalHello, right: NormalHello) -> Section:
    first, second = (list(min(hello.orders)) for hello in (left, right))
    if left.permuted or right.permuted:
        return Section("extensions, sorted", _aligned(sorted(first), sorted(second)))
    return Section("extensions", _aligned(first, second))


def _names(left: NormalHello, right: NormalHello) -> list[str]:
    """Extensions that both have with bodies that say something, in the order of the left one."""
    order = min(left.orders)
    shared = {name for name, _ in left.bodies} & {name for name, _ in right.bodies}
    places = {name: place for place, name in enumerate(order)}
    return sorted(shared, key=lambda name: (places.get(name, len(places)), name))


def _body(name: str, left: NormalHello, right: NormalHello) -> Section:
    seen = [hello.body(name) for hello in (left, right)]
    lists = [next(iter(texts)).split(", ") if len(texts) == 1 else sorted(texts) for texts in seen]
    return Section(name, _aligned(*lists))


def _ech(shape: EchShape | None) -> list[str]:
    if shape is None:
        return []
    return [
        shape.sort,
        f"key of {shape.enc_bytes} bytes",
        f"AEAD {_either(shape.aeads)}",
        f"payload of {_either(shape.payloads)} bytes",
    ]


def _either(values: Iterable[object]) -> str:
    return " or ".join(map(str, sorted(values, key=lambda value: (len(str(value)), str(value))))) or _EMPTY


def _aligned(left: Sequence[str], right: Sequence[str]) -> tuple[Row, ...]:
    """Rows in which what is equal stands side by side."""
    rows: list[Row] = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for tag, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        mine: list[str | None] = [*left[left_from:left_to]]
        theirs: list[str | None] = [*right[right_from:right_to]]
        if tag == "replace":
            # What moved or was exchanged: side by side as far as it goes.
            short = abs(len(mine) - len(theirs))
            (mine if len(mine) < len(theirs) else theirs).extend([None] * short)
        elif tag == "delete":
            theirs = [None] * len(mine)
        elif tag == "insert":
            mine = [None] * len(theirs)
        rows += [Row(one, other) for one, other in zip(mine, theirs, strict=True)]
    return tuple(rows)


def _row(row: Row, cell: int, *, colour: bool) -> list[str]:
    if row.same:
        return _lines(row.left, row.right, " ", cell)
    mark = "<" if row.right is None else ">" if row.left is None else "|"
    return _lines(row.left, row.right, mark, cell, (_RED, _GREEN) if colour else None)


def _lines(
    left: str | None, right: str | None, mark: str, cell: int, colours: tuple[str, str] | None = None
) -> list[str]:
    """The two cells, broken over as many lines as the longer one needs."""
    parts = [
        [text[at : at + cell] for at in range(0, len(text), cell)] or [""]
        for text in (left or "", right or "")
    ]
    height = max(map(len, parts))
    lines = []
    for at in range(height):
        one, other = (part[at] if at < len(part) else "" for part in parts)
        first, second = f"{one:{cell}}", other
        if colours is not None:
            first = f"{colours[0]}{first}{_RESET}" if one else first
            second = f"{colours[1]}{second}{_RESET}" if other else second
        lines.append(f"{_GAP}{first} {mark if at == 0 else ' '} {second}")
    return lines
