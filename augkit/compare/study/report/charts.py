"""Charts of a study: estimates with their intervals as lines, points, bars or a scatter plot.

Every value is a mark with its arm as group and a tooltip (see `augkit.core.figures.describe`). Charts are as wide as
the screen of a phone, so that their text is not scaled down there.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augkit.compare.study.claim_results import Curve, LinesFigure, PointsFigure
from augkit.compare.study.report.chart_specs import DoseFigure, LayerFigure, PlaneFigure
from augkit.compare.study.report.looks import Look, Looks
from augkit.compare.study.report.numbers import UNDEFINED, ends, estimate_text, finite, number
from augkit.compare.study.results import DoseCurve
from augkit.core import figures
from augkit.core.errors import InputError
from augkit.core.figures import Chart, describe

WIDTH = 4.6  # inches
ROW = 0.4  # height in inches of a row with a name of two lines
REACH = 1.5  # how far intervals may extend an axis beyond the values, in units of the range of the values
LETTERS, NAME = 50, 22  # longest line of a label, and of the name of a row (characters)
STYLE: Any = {**figures.STYLE, "text.parse_math": False, "axes.formatter.useoffset": False, "font.size": 10.5}
# Data of a figure, of any kind.
Spec = LinesFigure | DoseFigure | PointsFigure | LayerFigure | PlaneFigure
Parts = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Range:
    """Limits of an axis, with ``low < high``."""

    low: float
    high: float

    def clip(self, value: float) -> float:
        """The value clipped to the limits."""
        return min(max(value, self.low), self.high)

    @property
    def limits(self) -> tuple[float, float]:
        """Limits with a margin for marks at the ends."""
        room = 0.05 * (self.high - self.low)
        return self.low - room, self.high + room


def arms_of(spec: Spec) -> list[str]:
    """Names of the arms in a chart."""
    if isinstance(spec, PointsFigure):
        shown = [row.arm for row in spec.rows]
    elif isinstance(spec, PlaneFigure):
        shown = [point.arm for point in spec.points]
    else:
        shown = [str(row.arm) for row in spec.series]
    return list(dict.fromkeys(shown))


def chart(spec: Spec, looks: Looks) -> Chart:
    """Draw the chart of ``spec``.

    Raises:
        InputError: an arm has no look.
    """
    return figures.chart(spec.title, draw(spec, looks), name=spec.title or "chart")


def draw(spec: Spec, looks: Looks) -> Figure:
    """Draw the figure of `chart`."""
    missing = [arm for arm in arms_of(spec) if arm not in looks]
    if missing:
        raise InputError(f"expected a look for every arm of the figure, got none for {missing[0]!r}; see `looks`")
    with mpl.rc_context(STYLE):
        if isinstance(spec, PointsFigure):
            return points(spec, looks)
        if isinstance(spec, LayerFigure):
            return bars(spec, looks)
        return plane(spec, looks) if isinstance(spec, PlaneFigure) else lines(spec, looks)


def lines(spec: LinesFigure | DoseFigure, looks: Looks) -> Figure:
    """Estimates against numbers: one line per series, intervals as bands, gaps at undefined values."""
    x = _range([(finite(value), None, None) for row in spec.series for value in row.x])
    y = _range([ends(value) for row in spec.series for value in row.y])
    figure, axes = _axes(3.2, spec.x_label, spec.y_label)
    _set_range(axes, x, "x")
    _set_range(axes, y, "y")
    axes.grid(axis="x", visible=False)
    written: Counter[float] = Counter()  # number of undefined values by x, which are stacked
    for row in spec.series:
        _line(axes, row, looks[str(row.arm)], (x, y), (spec.x_label, spec.y_label), written)
    return figure


def points(spec: PointsFigure, looks: Looks) -> Figure:
    """One estimate per row, with its interval; a line at ``zero``."""
    x = _range([*(ends(row.value) for row in spec.rows), (spec.zero, None, None)])
    figure, axes = _axes(ROW * max(1, len(spec.rows)) + 0.7, spec.x_label, "")
    _set_range(axes, x, "x")
    _name_rows(axes, [row.label for row in spec.rows], [row.arm for row in spec.rows])
    axes.axvline(spec.zero, color="#777777", lw=0.8, zorder=1)
    for k, row in enumerate(spec.rows):
        look, (value, low, high) = looks[row.arm], ends(row.value)
        tip = f"{row.label}\n{spec.x_label}: {estimate_text(row.value)}"
        if value is None:
            _undefined(axes, (0.02, k), axes.get_yaxis_transform(), tip, row.arm)
            continue
        _interval(axes, (low, high), k, x, look, row.arm, along="x")
        _mark(axes, value, k, look, tip, row.arm)
    return figure


def bars(spec: LayerFigure, looks: Looks) -> Figure:
    """Numbers of several series by group, as horizontal bars with room for the names of groups."""
    groups, series = spec.groups, spec.series
    thick = 0.8 / max(1, len(series))
    height = max(0.17 * len(series) + 0.06, 0.3 if any(len(name) > NAME for name in groups) else 0.2)
    figure, axes = _axes(height * max(1, len(groups)) + 0.9, spec.y_label, "")
    values = [finite(value) for row in series for value in row.values]
    x = _range([(value, None, None) for value in [0.0, *values]])
    _set_range(axes, x, "x")
    _name_rows(axes, groups)
    axes.axvline(0, color="#777777", lw=0.8, zorder=3)
    for s, row in enumerate(series):
        look = looks[row.arm]
        for g, name in enumerate(groups):
            value, y = finite(row.values[g]), g + thick * (s + 0.5 - len(series) / 2)
            tip = f"{row.arm}\n{name}\n{spec.y_label}: {number(value)}"
            if value is None:
                _undefined(axes, (0.02, y), axes.get_yaxis_transform(), tip, row.arm)
                continue
            _own(axes.barh(y, value, 0.86 * thick, color=look.color, alpha=0.55)[0], row.arm)
            _mark(axes, value, y, look, tip, row.arm, 4.5)
    return figure


def plane(spec: PlaneFigure, looks: Looks) -> Figure:
    """Two estimates per arm as a cross, with equal scales and a diagonal; a ring marks architectural invariance."""
    span = _range([ends(estimate) for row in spec.points for estimate in (row.x, row.y)])
    figure, axes = _axes(4.8, spec.x_label, spec.y_label)
    axes.set_box_aspect(1)
    _set_range(axes, span, "x")
    _set_range(axes, span, "y")
    axes.plot(span.limits, span.limits, color="#999999", lw=1, ls="--", zorder=1)
    hidden = 0
    for row in spec.points:
        arm, look = row.arm, looks[row.arm]
        tip = f"{arm} ({row.kind})\n{spec.x_label}: {estimate_text(row.x)}\n{spec.y_label}: {estimate_text(row.y)}"
        (x, *x_ends), (y, *y_ends) = ends(row.x), ends(row.y)
        if x is None or y is None:
            place = (0.98, 0.03 + 0.05 * hidden)
            _undefined(axes, place, axes.transAxes, tip, arm, f"{arm}: ", ha="right")
            hidden += 1
            continue
        _interval(axes, (x_ends[0], x_ends[1]), y, span, look, arm, along="x")
        _interval(axes, (y_ends[0], y_ends[1]), x, span, look, arm, along="y")
        if row.kind != "learned":
            dash = "--" if row.kind == "both" else "-"
            ring = axes.scatter([x], [y], s=260, facecolors="none", edgecolors="#444444", linestyles=dash, zorder=3)
            _own(ring, arm)
        _mark(axes, x, y, look, tip, arm)
    return figure


def _line(
    axes: Axes,
    row: Curve | DoseCurve,
    look: Look,
    ranges: tuple[Range, Range],
    labels: tuple[str, str],
    written: Counter[float],
) -> None:
    """Draw one series: its band, its line, and each value as a mark with its interval."""
    (x, y), (x_label, y_label), arm = ranges, labels, str(row.arm)
    name = row.series if isinstance(row, DoseCurve) else arm
    pieces: list[list[tuple[float, float, float | None, float | None]]] = [[]]
    for at, estimate in zip(row.x, row.y, strict=True):
        place, (value, low, high) = finite(at), ends(estimate)
        shown = UNDEFINED if place is None else f"{place:g}"
        tip = f"{name}\n{x_label}: {shown}\n{y_label}: {estimate_text(estimate)}"
        if place is None or value is None:
            px = x.limits[0] if place is None else x.clip(place)
            left = px <= (x.low + x.high) / 2
            stands = (px, 0.03 + 0.055 * written[px])
            written[px] += 1
            _undefined(axes, stands, axes.get_xaxis_transform(), tip, arm, ha="left" if left else "right")
            pieces.append([])
            continue
        px, py = x.clip(place), y.clip(value)
        if low is not None and high is not None:
            _interval(axes, (low, high), px, y, look, arm, along="y", alpha=0.55)
        _mark(axes, px, py, look, tip, arm, 6.0)
        pieces[-1].append((px, py, low, high))
    for piece in pieces:
        if len(piece) < 2:
            continue
        across, up, lows, highs = (list(part) for part in zip(*piece, strict=True))
        _own(look.line(axes, across, up), arm)
        if None not in lows and None not in highs:
            low_edge, high_edge = ([y.clip(end or 0.0) for end in side] for side in (lows, highs))
            _own(axes.fill_between(across, low_edge, high_edge, color=look.color, alpha=0.1, lw=0), arm)


def _interval(
    axes: Axes,
    interval: tuple[float | None, float | None],
    at: float,
    span: Range,
    look: Look,
    arm: str,
    *,
    along: str,
    alpha: float = 1.0,
) -> None:
    """Draw an interval along ``x`` or ``y``, with caps at its ends, or arrows where it leaves the axis."""
    known = [end for end in interval if end is not None]
    if len(known) < 2:
        return
    drawn = [(span.clip(known[0]), at), (span.clip(known[1]), at)]
    ways = [("<", ">"), ("v", "^")][along == "y"]
    cap = "|" if along == "x" else "_"
    plot = partial(axes.plot, color=look.color, lw=1.2, alpha=alpha, zorder=2.5, clip_on=False)
    turned = [point if along == "x" else point[::-1] for point in drawn]
    _own(plot(*zip(*turned, strict=True))[0], arm)
    for (px, py), end, way in zip(turned, known, ways, strict=True):
        marker = cap if span.clip(end) == end else way
        _own(plot([px], [py], marker=marker, ms=5, mew=1.2 if marker == cap else 0)[0], arm)


def _mark(axes: Axes, x: float, y: float, look: Look, tip: str, arm: str, size: float = 7.0) -> None:
    describe(look.marker(axes, x, y, size, zorder=4, clip_on=False), tip, arm)


def _undefined(
    axes: Axes, place: tuple[float, float], transform: Any, tip: str, arm: str, before: str = "", ha: str = "left"
) -> None:
    """Write "undefined" in place of a mark."""
    words = axes.text(*place, f"{before}{UNDEFINED}", transform=transform, ha=ha, va="center", fontsize=8.5)
    words.set_color("#666666")
    describe(words, tip, arm)


def _own(artist: Artist, arm: str) -> None:
    describe(artist, group=arm)


def _axes(height: float, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Axes with horizontal labels; that of y is above the axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    figure.supxlabel(_wrapped(x_label), fontsize=10.5)
    if y_label:
        figure.suptitle(_wrapped(y_label), x=0.01, ha="left", fontsize=10.5)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str], arms: Sequence[str] = ()) -> None:
    """Write names of rows on the left, the first on top; names of ``arms`` are hidden together with the arm."""
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [_wrapped(name, NAME, 2) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for label, arm in zip(axes.get_yticklabels(), arms, strict=False):
        _own(label, arm)


def _set_range(axes: Axes, span: Range, along: str) -> None:
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    (axes.set_xlim if along == "x" else axes.set_ylim)(*span.limits)


def _range(parts: Sequence[Parts]) -> Range:
    """Range of an axis: all values, and intervals unless they would compress the values too much."""
    values = [value for value, _, _ in parts if value is not None]
    pairs = [(low, high) for _, low, high in parts if low is not None and high is not None]
    found = reachable(values, pairs) or [0.0, 1.0]
    low, high = min(found), max(found)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-200):  # a single value needs room around it
        room = 0.1 * size if size > 1e-190 else 0.5
        return Range(low - room, high + room)
    return Range(low, high)


def reachable(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> list[float]:
    """All ``values`` and the ends of ``intervals``, clipped to `REACH` times the range of the values beyond them.

    >>> reachable([0.0, 1.0], [(-9.0, 2.0)])[2:]
    [-9.0, 2.0]
    >>> reachable([0.0, 1.0], [(0.0, 0.1), (0.0, 0.1), (-9.0, 2.0)])[-2:]
    [-1.5, 2.0]
    """
    if not values:
        return [end for interval in intervals for end in interval]
    low, high = min(values), max(values)
    widths = [b - a for a, b in intervals]
    span = max(high - low, median(widths) if widths else 0.0)
    kept = [min(max(end, low - REACH * span), high + REACH * span) for interval in intervals for end in interval]
    return [*values, *kept]


def _wrapped(text: str, letters: int = LETTERS, most: int = 3) -> str:
    return "\n".join(textwrap.wrap(str(text), letters, max_lines=most, placeholder=" …"))
