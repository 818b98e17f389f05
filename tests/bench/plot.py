"""Bars and lines as SVG, by hand: a few shapes need no library.

Colours read on white and on dark ground; text takes the reader's own colour scheme by CSS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _BAR, _GAP, _TOP, _RIGHT = 720, 220, 18, 8, 44, 80  # pixels
_CHART = 260  # of a line chart's height
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.a{stroke:#8c959f;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
)
_COLOURS = ("#2f81f7", "#8c959f", "#db6d28", "#3fb950")


@dataclass(frozen=True, slots=True)
class Bar:
    """One value; `ours` stand out."""

    label: str
    value: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: (x, y), by growing x."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(title: str, unit: str, shown: Sequence[Bar]) -> str:
    """Horizontal bars from zero; the value stands behind each."""
    most = max((bar.value for bar in shown), default=0.0) or 1.0
    height = _TOP + len(shown) * (_BAR + _GAP) + _GAP
    body = [_text(0, 20, f"{title} ({unit})", "t")]
    for number, bar in enumerate(shown):
        y = _TOP + number * (_BAR + _GAP)
        width = max(1.0, bar.value / most * (_WIDTH - _LABEL - _RIGHT))
        colour = _COLOURS[0] if bar.ours else _COLOURS[1]
        body.append(_text(0, y + _BAR - 5, bar.label))
        body.append(f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
        body.append(_text(_LABEL + width + 6, y + _BAR - 5, f"{bar.value:.3g}"))
    return _document(title, height, body)


def lines(title: str, x_unit: str, y_unit: str, shown: Sequence[Line]) -> str:
    """Curves over a common x, y from zero."""
    points = [point for line in shown for point in line.points]
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    most_y = max((y for _, y in points), default=1.0) or 1.0
    left, bottom = 60, _TOP + _CHART
    width = _WIDTH - left - _LABEL

    def place(x: float, y: float) -> str:
        return f"{left + x / most_x * width:.1f},{bottom - y / most_y * _CHART:.1f}"

    body = [_text(0, 20, f"{title} ({y_unit} by {x_unit})", "t")]
    body.append(f'<path class="a" d="M{left},{_TOP}V{bottom}H{left + width}"/>')
    body += [_text(0, _TOP + 10, f"{most_y:.4g}"), _text(0, bottom, "0")]
    body += [
        _text(left + x / most_x * width - 4, bottom + 18, f"{x:g}") for x in sorted({x for x, _ in points})
    ]
    for number, line in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in line.points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(
            f'<rect x="{left + width + 14}" y="{_TOP + number * 22}" width="12" height="12" fill="{colour}"/>'
        )
        body.append(_text(left + width + 32, _TOP + 11 + number * 22, line.label))
    return _document(title, bottom + 30, body)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    of_class = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{of_class}>{escape(text)}</text>'


def _document(title: str, height: float, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *body, "</svg>", ""]
    )
