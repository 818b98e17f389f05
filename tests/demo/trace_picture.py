"""A trace -> a picture: SVG, a bar for each span, drawn from what a collector got.

Steps take from microseconds to seconds, and on one scale most bars would be too thin to see; so the axis is
cut where nothing happens for long, and each bar has its time beside it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.otlp.exported import Exported, Span

WIDTH, ROW, TOP, LEFT, RIGHT = 860, 30, 64, 182, 110
_BAR = 16
_COLOURS = {
    "tunnel": "#3b6ea5",
    "client": "#b5651d",
    "upstream": "#2e7d5b",
    "both": "#6b5b95",
    "wrong": "#b03030",
}
_SIDES = {
    "head": "client",
    "hello": "client",
    "client handshake": "client",
    "resolve": "upstream",
    "connect": "upstream",
    "upstream handshake": "upstream",
}
_MIN_BAR = 2.0
_GAP_SHARE = 0.04  # of the width, for a pause that is cut out
_CUT_SHARE = 0.15  # of the whole time: a pause this long is cut


def picture(exported: Exported, tunnel: Span) -> str:
    """The SVG of a tunnel's trace."""
    spans = [tunnel, *exported.children(tunnel).values()]
    scale = _Scale(tunnel, spans[1:])
    height = TOP + ROW * len(spans) + 46
    body = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
            f' viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="#222">{escape(tunnel.name)}</text>',
        f'<text x="16" y="46" fill="#666">trace {tunnel.trace_id}, {_facts(tunnel)}</text>',
    ]
    for cut in scale.cuts:
        x = scale.x(cut)
        body.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + ROW * len(spans)}" stroke="#bbb"'
            ' stroke-dasharray="2 4"/>'
        )
    for number, span in enumerate(spans):
        body += _row(span, number, scale, tunnel)
    y = TOP + ROW * len(spans) + 26
    body.append(_legend(y, cut=bool(scale.cuts)))
    return "\n".join([*body, "</svg>", ""])


class _Scale:
    """Time -> x. Pauses in which no child runs, and that are long, take little room; `cuts` has their
    middles."""

    def __init__(self, tunnel: Span, children: list[Span]) -> None:
        total = max(1, tunnel.end - tunnel.start)
        pauses: list[tuple[int, int]] = []
        at = tunnel.start
        for span in children:
            if span.start - at > total * _CUT_SHARE:
                pauses.append((at, span.start))
            at = max(at, span.end)
        if tunnel.end - at > total * _CUT_SHARE:
            pauses.append((at, tunnel.end))
        self.cuts = [(begin + end) // 2 for begin, end in pauses]
        room = WIDTH - LEFT - RIGHT
        gap = room * _GAP_SHARE
        shown = total - sum(end - begin for begin, end in pauses)
        per_ns = (room - gap * len(pauses)) / max(1, shown)
        self._points: list[tuple[int, float]] = [(tunnel.start, float(LEFT))]
        for begin, end in pauses:
            at, x = self._points[-1]
            x += (begin - at) * per_ns
            self._points += [(begin, x), (end, x + gap)]
        at, x = self._points[-1]
        self._points.append((tunnel.end, x + (tunnel.end - at) * per_ns))

    def x(self, at: int) -> float:
        for (begin, left), (end, right) in zip(self._points, self._points[1:], strict=False):
            if at <= end:
                return left + (right - left) * (at - begin) / max(1, end - begin)
        return self._points[-1][1]


def _row(span: Span, number: int, scale: _Scale, tunnel: Span) -> list[str]:
    y = TOP + ROW * number
    left = scale.x(span.start)
    width = max(_MIN_BAR, scale.x(span.end) - left)
    side = "wrong" if span.status == 2 else "tunnel" if span is tunnel else _SIDES.get(span.name, "both")
    name = "tunnel" if span is tunnel else span.name
    indent = 16 if span is tunnel else 32
    return [
        f'<text x="{indent}" y="{y + 17}" fill="#222">{escape(name)}</text>',
        (
            f'<rect x="{left:.1f}" y="{y + 5}" width="{width:.1f}" height="{_BAR}" rx="2"'
            f' fill="{_COLOURS[side]}"/>'
        ),
        f'<text x="{min(left + width + 6, WIDTH - 78):.1f}" y="{y + 17}" fill="#444">{_time(span)}</text>',
    ]


def _legend(y: int, *, cut: bool) -> str:
    words = (("client", "with the client"), ("upstream", "with upstream"), ("both", "inside, or both"))
    parts = []
    x = 16
    for side, text in words:
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{_COLOURS[side]}"/>')
        parts.append(f'<text x="{x + 18}" y="{y}" fill="#444">{text}</text>')
        x += 140
    if cut:
        parts.append(f'<text x="{x}" y="{y}" fill="#666">dotted: a pause, cut short</text>')
    return "".join(parts)


def _facts(tunnel: Span) -> str:
    attributes = tunnel.attributes
    facts = [attributes.get("polytls.mode"), attributes.get("polytls.profile"), attributes["polytls.outcome"]]
    return escape(", ".join(str(fact) for fact in facts if fact))


def _time(span: Span) -> str:
    milliseconds = (span.end - span.start) / 1e6
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
