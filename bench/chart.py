"""Draws panels of lines with bands as SVG, with axes, units and a legend; nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

PANEL_WIDTH, PANEL_HEIGHT = 470.0, 400.0
LEFT, TOP, BETWEEN = 66.0, 78.0, 74.0
LEGEND_ROW = 21.0
FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, FAINT = "#222222", "#dddddd"

Points = Sequence[tuple[float, float]]


@attrs.frozen(kw_only=True)
class Line:
    """A line with its name; ``band`` has the same places with a low and a high."""

    name: str
    colour: str
    points: Points
    dashes: str = ""
    width: float = 2.2
    band: Sequence[tuple[float, float, float]] = ()


@attrs.frozen(kw_only=True)
class Axis:
    """What an axis shows, with its unit, and its ticks; the first and the last are its ends."""

    title: str
    ticks: Sequence[float]

    def place(self, value: float, length: float) -> float:
        """Return where a value stands on an axis of this length; the ends bound it."""
        first, last = self.ticks[0], self.ticks[-1]
        return (min(max(value, first), last) - first) / (last - first) * length

    def shows(self, value: float) -> bool:
        """Whether a value is between the ends."""
        return self.ticks[0] <= value <= self.ticks[-1]


@attrs.frozen(kw_only=True)
class Level:
    """A horizontal line with words at its right end."""

    name: str
    value: float
    lifted: float = 16.0
    """How far below the line the words stand."""


@attrs.frozen(kw_only=True)
class Panel:
    """One coordinate system."""

    title: str
    across: Axis
    up: Axis
    lines: Sequence[Line]
    levels: Sequence[Level] = ()


def svg(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Return the text of an SVG file: the panels side by side, one legend below."""
    names = {line.name: line for panel in panels for line in panel.lines}
    rows = -(-len(names) // 2)
    width = LEFT + len(panels) * (PANEL_WIDTH + BETWEEN) - BETWEEN + 30
    bottom = TOP + PANEL_HEIGHT + 66
    height = bottom + rows * LEGEND_ROW + 40
    size = f"viewBox='0 0 {width:g} {height:g}' width='{width:g}' height='{height:g}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT} font-size='13' fill='{INK}'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{width:g}' height='{height:g}' fill='white'/>",
        _text(LEFT, 28, title, "start", "font-size='17' font-weight='bold'"),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, LEFT + number * (PANEL_WIDTH + BETWEEN))
    for number, line in enumerate(names.values()):
        x = LEFT + (number // rows) * (width - LEFT) / 2
        parts += _entry(line, x, bottom + number % rows * LEGEND_ROW)
    parts.append(_text(LEFT, height - 16, note, "start", "font-size='12' fill='#555555'"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, x: float) -> list[str]:
    base = TOP + PANEL_HEIGHT
    parts = [_text(x, TOP - 14, panel.title, "start", "font-size='14' font-weight='bold'")]
    for tick in panel.across.ticks:
        at = x + panel.across.place(tick, PANEL_WIDTH)
        parts += [_stroke(at, TOP, at, base, FAINT), _text(at, base + 19, f"{tick:g}", "middle")]
    for tick in panel.up.ticks:
        at = base - panel.up.place(tick, PANEL_HEIGHT)
        parts += [
            _stroke(x, at, x + PANEL_WIDTH, at, FAINT),
            _text(x - 8, at + 4, f"{tick:g}", "end"),
        ]
    parts.append(_text(x + PANEL_WIDTH / 2, base + 41, panel.across.title, "middle"))
    middle = TOP + PANEL_HEIGHT / 2
    turn = f"transform='rotate(-90 {x - 46:g} {middle:g})'"
    parts.append(_text(x - 46, middle, panel.up.title, "middle", turn))
    for level in panel.levels:
        at = base - panel.up.place(level.value, PANEL_HEIGHT)
        parts.append(_stroke(x, at, x + PANEL_WIDTH, at, "#999999"))
        parts.append(
            _text(x + PANEL_WIDTH - 6, at + level.lifted, level.name, "end", "fill='#555555'")
        )
    for line in panel.lines:
        parts += _line(panel, line, x)
    return parts


def _line(panel: Panel, line: Line, x: float) -> list[str]:
    def at(across: float, up: float) -> str:
        left = x + panel.across.place(across, PANEL_WIDTH)
        return f"{left:.1f},{TOP + PANEL_HEIGHT - panel.up.place(up, PANEL_HEIGHT):.1f}"

    parts = []
    band = [row for row in line.band if panel.across.shows(row[0])]
    if band:
        edge = [at(a, low) for a, low, _ in band] + [at(a, high) for a, _, high in reversed(band)]
        parts.append(f"<polygon points='{' '.join(edge)}' fill='{line.colour}' opacity='0.16'/>")
    points = " ".join(at(*point) for point in line.points if panel.across.shows(point[0]))
    parts.append(
        f"<polyline points='{points}' fill='none' stroke='{line.colour}'"
        f" stroke-width='{line.width:g}' stroke-dasharray='{line.dashes}'/>"
    )
    return parts


def _entry(line: Line, x: float, y: float) -> list[str]:
    parts = []
    if line.band:
        parts.append(
            f"<rect x='{x:g}' y='{y - 11:g}' width='34' height='14' fill='{line.colour}'"
            " opacity='0.16'/>"
        )
    parts.append(
        f"<line x1='{x:g}' y1='{y - 4:g}' x2='{x + 34:g}' y2='{y - 4:g}' stroke='{line.colour}'"
        f" stroke-width='{line.width:g}' stroke-dasharray='{line.dashes}'/>"
    )
    return [*parts, _text(x + 44, y, line.name, "start")]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'/>"


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {more}>{escape(words)}</text>"
