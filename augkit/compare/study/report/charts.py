"""Charts as SVG text: they work without JavaScript and print; `chart_script` adds tips and hides arms.

Every mark is focusable and carries its arm (``data-arm``) and what it says (``data-tip``). Lengths are in units of
the ``viewBox``, which is 480 wide: about 1.3 px each on a desktop and 0.75 px on a phone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from augkit.compare.study.report.marks import (
    LINE,
    Looks,
    attribute,
    coordinate,
    interval,
    mark,
    owned,
    ring,
    text_lines,
    undefined,
)
from augkit.compare.study.report.numbers import UNDEFINED, ends, estimate_text, finite, number
from augkit.compare.study.report.scales import Scale, linear, logarithmic, reachable
from augkit.core.errors import InputError

WIDTH, HEIGHT = 480.0, 300.0
LETTER = 7.2  # width of an average letter on a phone, where letters are largest
NAMES = 190.0  # room for names of rows at most
TICKS = 21.0  # room for the labels of ticks below a chart
Figure = Mapping[str, Any]
Parts = tuple[float | None, float | None, float | None]


def arms_of(figure: Figure) -> list[str]:
    """The arms that a figure shows."""
    rows = [row for key in ("series", "rows", "points") for row in figure.get(key) or ()]
    return list(dict.fromkeys(str(row["arm"]) for row in rows))


def chart(figure: Figure, looks: Looks) -> str:
    """A figure (``kind`` lines, points, bars or plane) as ``<figure>`` with its title."""
    kind = figure.get("kind")
    if kind not in KINDS:
        raise InputError(f"expected a figure of the kind {', '.join(KINDS)}; got {kind!r}")
    missing = [arm for arm in arms_of(figure) if arm not in looks]
    if missing:
        raise InputError(f"expected a look for every arm of the figure, got none for {missing[0]!r}; see `looks`")
    title = str(figure.get("title", ""))
    shown = f"<p class='charttitle'>{escape(title)}</p>" if title else ""
    return f"<figure>{shown}{KINDS[kind](figure, looks)}</figure>"


def lines(figure: Figure, looks: Looks) -> str:
    """Estimates against numbers, a line for each series, intervals as bands; a gap where a value is undefined."""
    series = figure["series"]
    points = [(finite(x), ends(y)) for row in series for x, y in zip(row["x"], row["y"], strict=True)]
    log_x, log_y = bool(figure.get("log_x")), bool(figure.get("log_y"))
    top, bottom = _top(figure["y_label"]), HEIGHT
    y = _scale([part for _, part in points], bottom, top, log_y)
    left = _tick_room(y)
    xs = [x for x, _ in points if x is not None]
    x = (logarithmic if log_x else linear)(xs, left, WIDTH - 12)
    body = _y_axis(y, x, figure["y_label"]) + _x_axis(x, bottom, figure["x_label"])
    below: dict[float, int] = {}
    for row in series:
        body += _line(row, looks, (x, y), figure, below)
    return _svg(figure, bottom + _x_room(figure["x_label"]), body)


def points(figure: Figure, looks: Looks) -> str:
    """An estimate a row, with its interval; a line at ``zero``."""
    rows = figure["rows"]
    left, names = _row_labels([str(row["label"]) for row in rows])
    zero = finite(figure.get("zero"))
    height = 28.0
    bottom = 6 + height * len(rows)
    parts = [ends(row["value"]) for row in rows] + ([] if zero is None else [(zero, None, None)])
    x = _scale(parts, left, WIDTH - 14, False)
    body = _x_axis(x, bottom, figure["x_label"], 0)
    if zero is not None:
        body += f"<path class='axis' d='M{coordinate(x(zero))} 0V{coordinate(bottom)}'/>"
    for k, (row, name) in enumerate(zip(rows, names, strict=True)):
        look, y = looks[row["arm"]], 6 + height * (k + 0.5)
        arm, (value, low, high) = str(row["arm"]), ends(row["value"])
        body += owned(arm, text_lines(name, left - 8, y, "end"))
        tip = f"{row['label']}\n{figure['x_label']}: {estimate_text(row['value'])}"
        if value is None:
            body += undefined(arm, tip, left + 6, y, "start")
            continue
        drawn = interval(x, low, high, value, look, True) + look.marker()
        body += mark(arm, tip, x(value), y, drawn)
    return _svg(figure, bottom + _x_room(figure["x_label"]), body)


def bars(figure: Figure, looks: Looks) -> str:
    """Numbers of several series by group, as horizontal bars, so that names of groups can be read."""
    groups, series = [str(name) for name in figure["groups"]], figure["series"]
    left, names = _row_labels(groups)
    thick = 14.0 if len(series) == 1 else 11.0
    height = max(thick * len(series), LINE * max((len(name) for name in names), default=1)) + 6
    top = _top(figure["x_label"]) if figure.get("x_label") else 0.0
    bottom = top + height * len(groups) + 4
    values = [finite(value) for row in series for value in row["values"]]
    x = linear([0.0, *(value for value in values if value is not None)] if values else [], left, WIDTH - 16)
    body = _x_axis(x, bottom, figure["y_label"], top)
    if top:
        body += text_lines(_wrap(figure["x_label"]), 0, LINE / 2 + 2, "start", first=True)
    body += f"<path class='axis' d='M{coordinate(x(0))} {coordinate(top)}V{coordinate(bottom)}'/>"
    for g, name in enumerate(names):
        start = top + height * g + 4
        body += text_lines(name, left - 8, start + (height - 6) / 2, "end")
        for s, row in enumerate(series):
            y = start + (height - 6) / 2 + thick * (s + 0.5 - len(series) / 2)
            body += _bar(row, g, groups[g], (x, y, thick), looks, figure["y_label"])
    return _svg(figure, bottom + _x_room(figure["y_label"]), body)


def plane(figure: Figure, looks: Looks) -> str:
    """Two estimates an arm, as a cross; axes of one scale with their diagonal; a ring marks what is architectural."""
    rows = figure["points"]
    top = _top(figure["y_label"])
    parts = [ends(row[key]) for row in rows for key in ("x", "y")]
    span = _scale(parts, 0, 1, False)
    left = _tick_room(span)
    side = WIDTH - 12 - left
    bottom = top + side
    x, y = (Scale(span.low, span.high, a, b, False, span.ticks) for a, b in ((left, left + side), (bottom, top)))
    body = _y_axis(y, x, figure["y_label"]) + _x_axis(x, bottom, figure["x_label"], top)
    ends_at = f"M{coordinate(left)} {coordinate(bottom)}L{coordinate(left + side)} {coordinate(top)}"
    body += f"<path class='diagonal' d='{ends_at}'/>"
    hidden = 0
    for row in rows:
        arm, kind, look = str(row["arm"]), str(row["kind"]), looks[row["arm"]]
        tip = f"{arm} ({kind})\n{figure['x_label']}: {estimate_text(row['x'])}"
        tip += f"\n{figure['y_label']}: {estimate_text(row['y'])}"
        (vx, lx, hx), (vy, ly, hy) = ends(row["x"]), ends(row["y"])
        if vx is None or vy is None:
            body += undefined(arm, tip, left + side - 6, bottom - 12 - LINE * hidden, "end", f"{arm}: ")
            hidden += 1
            continue
        drawn = interval(x, lx, hx, vx, look, True) + interval(y, ly, hy, vy, look, False)
        body += mark(arm, tip, x(vx), y(vy), drawn + ring(kind) + look.marker())
    return _svg(figure, bottom + _x_room(figure["x_label"]), body)


def _line(
    row: Mapping[str, Any], looks: Looks, scales: tuple[Scale, Scale], figure: Figure, below: dict[float, int]
) -> str:
    """One series: band, line and marks; ``below`` counts the undefined values already written at an x."""
    x, y = scales
    arm, look = str(row["arm"]), looks[row["arm"]]
    bottom = y.start
    pieces: list[list[tuple[float, float, float | None, float | None]]] = [[]]
    marks = ""
    for at, estimate in zip(row["x"], row["y"], strict=True):
        place, (value, low, high) = finite(at), ends(estimate)
        shown = UNDEFINED if place is None else f"{place:g}"
        tip = f"{row.get('series', arm)}\n{figure['x_label']}: {shown}\n{figure['y_label']}: "
        tip += estimate_text(estimate)
        if place is None or value is None:
            px = x.start if place is None else x(place)
            k = below[px] = below.get(px, -1) + 1
            side, anchor = (-4, "end") if px > (x.start + x.end) / 2 else (4, "start")
            marks += undefined(arm, tip, px + side, bottom - 9 - 12 * k, anchor)
            pieces.append([])
            continue
        alone = "" if low is None or high is None else interval(y, low, high, value, look, False)
        marks += mark(arm, tip, x(place), y(value), f"<g opacity='.55'>{alone}</g>{look.marker(0.9)}")
        pieces[-1].append((x(place), y(value), None if low is None else y(low), None if high is None else y(high)))
    drawn = ""
    for piece in pieces:
        if len(piece) < 2:
            continue
        path = "L".join(f"{coordinate(a)} {coordinate(b)}" for a, b, _, _ in piece)
        drawn += f"<path d='M{path}' {look.line()}/>"
        if all(part is not None for point in piece for part in point):
            edge = [(a, c) for a, _, c, _ in piece] + [(a, d) for a, _, _, d in reversed(piece)]
            around = "L".join(f"{coordinate(a)} {coordinate(b or 0)}" for a, b in edge)
            drawn = f"<path d='M{around}Z' fill='{look.colour}' fill-opacity='.1'/>" + drawn
    return owned(arm, drawn) + marks


def _bar(
    row: Mapping[str, Any], group: int, name: str, place: tuple[Scale, float, float], looks: Looks, unit: str
) -> str:
    """The bar of one series in one group, with the arm's marker at its end."""
    x, y, thick = place
    arm, look = str(row["arm"]), looks[row["arm"]]
    value = finite(row["values"][group])
    tip = f"{arm}\n{name}\n{unit}: {number(value)}"
    if value is None:
        return undefined(arm, tip, x(0) + 6, y, "start")
    back = x(0) - x(value)
    bar = (
        f"<rect x='{coordinate(min(back, 0))}' y='{coordinate(1 - thick / 2)}' width='{coordinate(abs(back))}'"
        f" height='{coordinate(thick - 2)}' fill='{look.colour}' fill-opacity='.55'/>"
    )
    return mark(arm, tip, x(value), y, bar + look.marker(0.07 * thick), thick / 2)


def _scale(parts: Sequence[Parts], start: float, end: float, log: bool) -> Scale:
    values = [value for value, _, _ in parts if value is not None]
    pairs = [(low, high) for _, low, high in parts if low is not None and high is not None]
    if log:
        return logarithmic([*values, *(end for pair in pairs for end in pair)], start, end)
    return linear(reachable(values, pairs), start, end)


def _x_axis(x: Scale, bottom: float, label: str, top: float | None = None) -> str:
    """Ticks, label, and lines of the grid up to ``top`` if given."""
    out = ""
    for tick in x.ticks:
        at = coordinate(x(tick))
        if top is not None:
            out += f"<path class='grid' d='M{at} {coordinate(top)}V{coordinate(bottom)}'/>"
        out += f"<path class='axis' d='M{at} {coordinate(bottom)}v4'/>"
        out += text_lines([x.label(tick)], x(tick), bottom + 13, "middle")
    out += f"<path class='axis' d='M{coordinate(x.start)} {coordinate(bottom)}H{coordinate(x.end)}'/>"
    lines = _wrap(label)
    middle = (x.start + x.end) / 2
    # A long label would stick out on the left or right of a short axis.
    half = LETTER * max((len(line) for line in lines), default=0) / 2
    return out + text_lines(lines, max(half, min(middle, WIDTH - half)), bottom + TICKS + 9, "middle", first=True)


def _y_axis(y: Scale, x: Scale, label: str) -> str:
    """Ticks, lines of the grid over the width of ``x``, and the label above, where it can be read."""
    out = text_lines(_wrap(label), 0, LINE / 2 + 2, "start", first=True)
    for tick in y.ticks:
        out += f"<path class='grid' d='M{coordinate(x.start)} {coordinate(y(tick))}H{coordinate(x.end)}'/>"
        out += text_lines([y.label(tick)], x.start - 9, y(tick), "end")
    return out


def _tick_room(y: Scale) -> float:
    return 14 + LETTER * max(len(y.label(tick)) for tick in y.ticks)


def _row_labels(names: Sequence[str]) -> tuple[float, list[list[str]]]:
    """Room on the left for names of rows, and their lines, two at most each."""
    letters = int(NAMES / LETTER)
    wrapped = [_wrap(name, letters, 2) for name in names]
    return 14 + LETTER * max((len(line) for lines in wrapped for line in lines), default=0), wrapped


def _wrap(text: str, letters: int = 62, most: int = 3) -> list[str]:
    return textwrap.wrap(str(text), letters, max_lines=most, placeholder=" …") or [""]


def _top(label: str) -> float:
    return LINE * len(_wrap(label)) + 14


def _x_room(label: str) -> float:
    return TICKS + 4 + LINE * len(_wrap(label))


def _svg(figure: Figure, height: float, body: str) -> str:
    title = attribute(str(figure.get("title", "")))
    box = f"0 0 {coordinate(WIDTH)} {coordinate(height)}"
    return f"<svg class='chart' viewBox='{box}' role='group' aria-label='{title}'>{body}</svg>"


KINDS: dict[str, Callable[[Figure, Looks], str]] = {"lines": lines, "points": points, "bars": bars, "plane": plane}
