"""Plots of what was measured, as SVG written by hand: bars of CPU per message, lines of latency and of scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from benchmarks.load.report import ROLES, Row, by_role

WIDTH = 860
_COLOURS = dict(
    zip(
        ROLES,
        ("#3b6fb6", "#d98032", "#5a9e5a", "#b5524a", "#8a6bb0", "#8f8f8f", "#4fa8a8", "#c9a227", "#d9d9d9"),
        strict=True,
    )
)
_LEVELS = (("p50", "#3b6fb6"), ("p95", "#d98032"), ("p99", "#b5524a"))
_FONT = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif"'


class Drawing:
    """Shapes on a white ground."""

    def __init__(self, height: float, title: str) -> None:
        self._height = height
        self._parts: list[str] = []
        self.text(16, 26, title, size=15, weight="bold")

    def text(
        self, x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "normal"
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} font-size="{size}" font-weight="{weight}" fill="#222"'
            f' text-anchor="{anchor}">{escape(text)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str, tip: str = "") -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{colour}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.0) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def dot(self, x: float, y: float, colour: str) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')

    def svg(self) -> str:
        """The whole file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self._height:.0f}"'
        head += f' viewBox="0 0 {WIDTH} {self._height:.0f}">'
        ground = f'<rect width="{WIDTH}" height="{self._height:.0f}" fill="#ffffff"/>'
        return "\n".join([head, ground, *self._parts, "</svg>", ""])


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value * 0.999)


def bars(title: str, rows: Sequence[tuple[str, dict[str, float]]], unit: str) -> str:
    """Stacked bars, one row each, one colour per process."""
    left, right, top, step = 250, 70, 70, 30
    largest = max(sum(values.values()) for _, values in rows)
    scale = (WIDTH - left - right) / largest
    drawing = Drawing(top + step * len(rows) + 16, title)
    x = 16.0
    for role in ROLES:
        if any(values.get(role, 0) / largest > 0.002 for _, values in rows):
            drawing.box(x, 40, 11, 11, _COLOURS[role])
            drawing.text(x + 16, 50, role)
            x += 34 + 7 * len(role)
    for index, (label, values) in enumerate(rows):
        y = top + step * index
        drawing.text(left - 8, y + 14, label, anchor="end")
        x = float(left)
        for role in ROLES:
            width = values.get(role, 0.0) * scale
            drawing.box(x, y, width, 20, _COLOURS[role], f"{role}: {values.get(role, 0.0):.0f} {unit}")
            if width > 24:
                drawing.text(x + width / 2, y + 14, f"{values[role]:.0f}", size=10, anchor="middle")
            x += width
        drawing.text(x + 6, y + 14, f"{sum(values.values()):,.0f}", weight="bold")
    return drawing.svg()


def curves(
    title: str,
    x_label: str,
    y_label: str,
    xs: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float], str]],
    *,
    logarithmic_x: bool = False,
) -> str:
    """Lines over a shared axis, from zero upwards."""
    left, right, top, bottom, height = 70, 120, 50, 50, 330
    width = WIDTH - left - right
    high = nice_ceiling(max((y for _, ys, _ in lines for y in ys if not math.isnan(y)), default=1.0))
    position: Callable[[float], float] = math.log10 if logarithmic_x else float
    low_x, high_x = position(xs[0]), position(xs[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        share = (position(x) - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        return left + share * width, top + (1 - y / high) * height

    drawing = Drawing(top + height + bottom, title)
    for tick in range(6):
        value = high * tick / 5
        y = at(xs[0], value)[1]
        drawing.line([(left, y), (left + width, y)], "#dddddd")
        drawing.text(left - 8, y + 4, f"{value:,.4g}", anchor="end")
    for x in xs:
        drawing.line([at(x, 0), (at(x, 0)[0], at(x, 0)[1] + 5)], "#888888")
        drawing.text(at(x, 0)[0], top + height + 20, f"{x:,.0f}", anchor="middle")
    drawing.text(left + width / 2, top + height + 40, x_label, anchor="middle")
    drawing.text(left, top - 8, y_label, size=11)
    labelled: list[float] = []
    for label, ys, colour in lines:
        points = [at(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]
        if not points:
            continue
        drawing.line(points, colour, 2)
        for point in points:
            drawing.dot(*point, colour)
        y = points[-1][1] + 4
        while any(abs(y - other) < 14 for other in labelled):
            y -= 14
        labelled.append(y)
        drawing.text(points[-1][0] + 10, y, label)
    return drawing.svg()


def write(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write the plots that these rows allow; returns the lines of Markdown that show them."""
    made: list[tuple[str, str, str]] = []
    busy = [row for row in rows if row.cpu_us and row.name in ("heartbeats", "events", "events-5000", "mix", "replay")]
    if busy:
        labelled = [(_label(row), by_role(row.cpu_us)) for row in busy]
        title = "CPU per message at saturation, microseconds"
        made.append(("cpu", title, bars(title, labelled, "us")))
    open_loops = [row for row in rows if row.name.startswith("latency-") and not row.problems]
    if len(open_loops) > 1:
        xs = [float(row.name.partition("-")[2]) for row in open_loops]
        lines = [
            (level, [row.quantiles_ms[index] for row in open_loops], colour)
            for index, (level, colour) in enumerate(_LEVELS)
        ]
        title = "Latency of TransactionEvents in the open loop"
        made.append(("latency", title, curves(title, "events a second", "milliseconds", xs, lines)))
    scaled = [row for row in rows if row.name == "scaling" and not math.isnan(row.rate)]
    if len(scaled) > 1:
        xs = [float(row.stations) for row in scaled]
        lines = [("all but client", [row.cpu_sum for row in scaled], "#444444")]
        lines += [
            (role, [row.cpu_us.get(role, math.nan) for row in scaled], _COLOURS[role])
            for role in ("edge", "sessions", "kafka")
        ]
        title = "CPU per TransactionEvent at 1,000 a second, by connected stations"
        svg = curves(title, "stations (logarithmic)", "microseconds", xs, lines, logarithmic_x=True)
        made.append(("scaling", title, svg))
    if made:
        folder.mkdir(parents=True, exist_ok=True)
    for name, _, svg in made:
        (folder / f"{name}.svg").write_text(svg)
    return [f"![{title}]({folder.name}/{name}.svg)\n" for name, title, _ in made]


def _label(row: Row) -> str:
    if row.name == "replay":
        return "replay of TransactionEvents"
    return f"{row.title}, {row.stations:,} stations"
