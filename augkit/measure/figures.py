"""Figures of a measurement."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from augkit.core.figures import BLACK, BLUE, GRAY, GREEN, ORANGE, STYLE, describe, interval_text, mark
from augkit.invariance import CarryOver, Estimate, LayerEquivariance
from augkit.invariance.metrics import CURVE_METRICS, METRICS
from augkit.invariance.report import JaggedShare, ResponseCurve
from augkit.measure.side_by_side import NetworkTable

COLORS = (BLUE, ORANGE, GREEN, GRAY, BLACK)
LINES = ("o-", "s--", "^:")  # the sixth line has the first color again
PANELS = {name: (METRICS[name].heading(METRICS[name].title), METRICS[name].factor) for name in CURVE_METRICS}
TALLEST = 60  # layers in one figure; for deeper networks the layers with the largest shares are shown


def curves(sets: Mapping[str, ResponseCurve], label: str) -> Figure:
    """Plot JS, top-1 change and, with labels, accuracy against displacements; one line per image set or network."""
    known = [name for name in PANELS if any(name in curve.metrics for curve in sets.values())]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(known), 3.0), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(known)))
    for axes, name in zip(panels, known, strict=True):
        for k, (images, curve) in enumerate(sets.items()):
            if name in curve.metrics:
                line = LINES[k // len(COLORS) % len(LINES)], COLORS[k % len(COLORS)]
                _band(axes, curve.x, curve.metrics[name], PANELS[name][1], line, images)
        axes.set_title(PANELS[name][0])
        if name != "accuracy":
            axes.set_ylim(bottom=0)
        if any(curve.by == "scale" for curve in sets.values()):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%.2g"))
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    with mpl.rc_context(STYLE):
        figure.supxlabel(label, fontsize=9)
    if len(sets) > 1:
        panels[0].legend(frameon=False, fontsize=8)
    return figure


def networks(table: NetworkTable) -> Figure:
    """Plot each number of a table as one panel, with a dot and its interval for each network; the first on top."""
    names, columns = list(table.rows), table.columns
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(columns) + 1.6, 0.9 + 0.3 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for row, name in enumerate(names):
            found = table.rows[name][column.name]
            if found is None or not found.defined:
                continue
            value, low, high = (column.factor * part for part in (found.value, found.low, found.high))
            axes.plot([low, high], [row, row], color=BLUE, lw=1.6)
            axes.plot(value, row, "o", color=BLUE, ms=5)
            mark(axes, value, row, f"{name}\n{column.heading}: {interval_text(value, low, high)}")
        axes.set_title("\n".join(textwrap.wrap(column.heading, 26)), fontsize=9)
        if column.name == "difference":
            axes.axvline(0, color=BLACK, lw=0.8)
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def jaggedness(points: Sequence[JaggedShare]) -> Figure:
    """Plot the share of images by number of top-1 changes along the path."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        axes = figure.subplots()
    value, low, high = 100 * np.array([(p.share.value, p.share.low, p.share.high) for p in points]).T
    drawn = axes.bar([p.changes for p in points], value, color=BLUE, yerr=[value - low, high - value], capsize=2)
    for bar, point, *parts in zip(drawn, points, value, low, high, strict=True):
        describe(bar, f"{point.changes} changes: {interval_text(*parts)} % of images")
    axes.set_xlabel("top-1 changes along a path of one-pixel steps")
    axes.set_ylabel("share of images, %")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return figure


def layers(found: Sequence[LayerEquivariance]) -> Figure:
    """Plot each layer's signal-to-error ratio in dB and its share of the error of the output; the first on top.

    Shares are left out where no layer has one.
    """
    shown = _most_telling(found)
    rows, shares = np.arange(len(shown)), any(layer.share.defined for layer in shown)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0 if shares else 5.0, 1.2 + 0.19 * len(shown)), layout="constrained")
        ratios = [1.2, 1] if shares else [1]
        left, *others = figure.subplots(1, len(ratios), sharey=True, width_ratios=ratios, squeeze=False)[0]
    names = [f"{layer.name}  {layer.kind}" for layer in shown]
    _bars(left, names, [layer.decibels for layer in shown], (1.0, "dB"), BLUE)
    for right in others:
        _bars(right, names, [layer.share for layer in shown], (100.0, "% of the final error added"), ORANGE)
        right.set_title("share of the final error added, %", fontsize=9)
    left.set_yticks(rows, names, fontsize=7)
    left.set_ylim(len(shown) - 0.4, -0.6)
    left.set_title("signal to error, dB", fontsize=9)
    return figure


def _most_telling(found: Sequence[LayerEquivariance]) -> list[LayerEquivariance]:
    if len(found) <= TALLEST:
        return list(found)
    weight = [abs(layer.share.value) if layer.share.defined else 0.0 for layer in found]
    kept = sorted(sorted(range(len(found)), key=lambda k: (-weight[k], k))[:TALLEST])
    return [found[k] for k in kept]


def _bars(axes: Axes, names: Sequence[str], estimates: Sequence[Estimate], unit: tuple[float, str], color: str) -> None:
    factor, words = unit
    for row, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
        if not estimate.defined:
            axes.annotate("undefined", (0, row), fontsize=6, va="center")
            continue
        value, low, high = (factor * part for part in (estimate.value, estimate.low, estimate.high))
        # Rounding may put the value slightly outside of an interval.
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        bar = axes.barh(row, value, 0.72, color=color, xerr=error, error_kw={"lw": 0.8})[0]
        describe(bar, f"{name}\n{interval_text(value, low, high)} {words}")
    axes.axvline(0, color=BLACK, lw=0.8)


def _band(
    axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], factor: float, line: tuple[str, str], label: str
) -> None:
    style, color = line
    value, low, high = factor * np.array([(found.value, found.low, found.high) for found in estimates]).T
    axes.plot(x, value, style, color=color, ms=3.5, label=label)
    axes.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
    for at, *estimate in zip(x, value, low, high, strict=True):
        if np.isfinite(estimate[0]):
            mark(axes, at, estimate[0], f"{label}\nat {at:.3g}: {interval_text(*estimate)}")


def carry_over(found: dict[str, CarryOver]) -> Figure:
    """Plot every network's variability on atypical against typical images, with the fitted line, per image set."""
    drawn = {name: one for name, one in found.items() if one.slope.defined}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * max(1, len(drawn)), 3.2), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, max(1, len(drawn)), sharex=True))
    for axes, (name, one) in zip(panels, drawn.items(), strict=False):
        x, y = 100 * np.array(one.typical), 100 * np.array(one.atypical)
        known = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
        axes.loglog(x[known], y[known], "o", color=BLUE, ms=5, alpha=0.8)
        for network, px, py, shown in zip(one.names, x, y, known, strict=True):
            if shown:
                mark(axes, px, py, f"{network}\ntypical: {px:.3g} %\n{name}: {py:.3g} %")
        ends = np.array([x[known].min(), x[known].max()])
        axes.loglog(ends, 100 * np.exp(one.intercept + one.slope.value * np.log(ends / 100)), color=ORANGE)
        # The slope of a line where all of the invariance carries over.
        level = np.exp(np.log(y[known]).mean() - np.log(x[known]).mean())
        axes.loglog(ends, level * ends, color=GRAY, ls=":", zorder=0)
        axes.set_title(f"{name}: {one.slope:.2f}", fontsize=9)
        axes.set_xlabel("shift information, typical, %")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("shift information there, %")
    return figure
