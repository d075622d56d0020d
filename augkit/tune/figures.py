"""Figures of a tuning: accuracy against invariance, dose-response, response curve, importance of the fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from augkit.core.figures import BLACK, BLUE, GRAY, GREEN, ORANGE, STYLE, describe, interval_text, mark, new_figure
from augkit.invariance import Estimate
from augkit.measure.comparison import ComparisonRow
from augkit.tune.results import DoseRow, ResponsePoint, SearchTrial
from augkit.tune.verified import VerifiedFront

TRIAL_WORDS = {"control": "control", "on the Pareto front": "front", "chosen": "chosen"}
LEAST = -150.0  # per cent; an interval of learned invariance that reaches below it ends in an arrow


def pareto(trials: Sequence[SearchTrial], verified: VerifiedFront | None = None) -> Figure:
    """Trials as points: learned invariance against accuracy (both in %), with the front and the winner marked.

    Args:
        trials: trials of a search; those that were not measured are left out.
        verified: retrained trials, drawn with their intervals and connected with what the search showed.
    """
    figure, axes = new_figure(5.6, 3.8)
    known = [
        (trial, 100 * trial.accuracy, 100 * trial.learned_invariance)
        for trial in trials
        if trial.accuracy is not None and trial.learned_invariance is not None
    ]
    x, y = np.array([x for _, x, _ in known]), np.array([y for _, _, y in known])
    on_front = np.array([trial.front for trial, _, _ in known], dtype=bool)
    order = np.argsort(x[on_front])
    axes.step(x[on_front][order], y[on_front][order], where="pre", color=BLUE, lw=1, alpha=0.6, zorder=1)
    axes.scatter(x[~on_front], y[~on_front], color=GRAY, s=28, label="trial")
    axes.scatter(x[on_front], y[on_front], color=BLUE, s=36, label="on the Pareto front")
    named: set[str] = set()  # a legend names each kind once
    for trial, px, py in known:
        kind = "control" if trial.control else "chosen"
        label = None if kind in named else kind
        if trial.control or trial.chosen:
            named.add(kind)
        if trial.control:
            axes.scatter(px, py, color=BLACK, marker="s", s=44, label=label, zorder=3)
        elif trial.chosen:
            axes.scatter(px, py, facecolors="none", edgecolors=ORANGE, s=150, lw=2, label=label, zorder=3)
        _number(axes, trial.number, px, py)
        kinds = [word for word, key in TRIAL_WORDS.items() if getattr(trial, key)]
        words = ", ".join([f"trial {trial.number}", *kinds])
        mark(axes, px, py, f"{words}\nvalidation accuracy: {px:.1f} %\nlearned invariance: {py:.1f} %")
    axes.set_xlabel("validation accuracy, %")
    axes.set_ylabel("learned invariance, %")
    if verified is not None:
        _draw_verified(axes, verified)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _number(axes: Axes, number: int, x: float, y: float) -> None:
    """Write the number of a trial beside its point, readable on lines."""
    text = axes.annotate(str(number), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7, zorder=7)
    text.set_path_effects([Stroke(linewidth=2, foreground="white"), Normal()])


def _draw_verified(axes: Axes, verified: VerifiedFront) -> None:
    """Add retrained trials: mean, interval, and a line from what the search showed; and their front."""
    known = [point for point in verified.points if point.learned_invariance.defined]
    for k, point in enumerate(known):
        x, y = 100 * point.accuracy.value, 100 * point.learned_invariance.value
        start = 100 * point.searched_accuracy, 100 * point.searched_learned_invariance
        axes.annotate(
            "", (x, y), start, arrowprops={"arrowstyle": "->", "color": GREEN, "lw": 1.1, "shrinkB": 5}, zorder=4
        )
        bars = [_ends(estimate) for estimate in (point.accuracy, point.learned_invariance)]
        axes.errorbar(x, y, bars[1], bars[0], fmt="none", ecolor=GREEN, elinewidth=0.9, capsize=2, alpha=0.7, zorder=4)
        label = "retrained, 95 % interval" if k == 0 else None
        face = GREEN if point.front else "white"
        axes.scatter(x, y, marker="D", s=34, facecolors=face, edgecolors=GREEN, label=label, zorder=5)
        if point.chosen:
            axes.scatter(x, y, facecolors="none", edgecolors=ORANGE, s=150, lw=2, zorder=6)
        _number(axes, point.number, x, y)
        marks = [word for word in ("on the verified front", "chosen") if getattr(point, word.split()[-1])]
        intervals = [
            f"{name}: {interval_text(*(100 * part for part in (e.value, e.low, e.high)))} %"
            for name, e in (("accuracy", point.accuracy), ("learned invariance", point.learned_invariance))
        ]
        mark(axes, x, y, "\n".join([", ".join([f"trial {point.number}, retrained", *marks]), *intervals]))
    front = sorted((100 * p.accuracy.value, 100 * p.learned_invariance.value) for p in known if p.front)
    if front:
        axes.step(*zip(*front, strict=True), where="pre", color=GREEN, lw=1, alpha=0.6, zorder=1)


def _ends(estimate: Estimate) -> list[list[float]]:
    """Lengths of an error bar to both sides, in %."""
    return [[100 * (estimate.value - max(LEAST / 100, estimate.low))], [100 * (estimate.high - estimate.value)]]


def dose_response(points: Sequence[DoseRow]) -> Figure:
    """Learned invariance and accuracy (both in %, with intervals) against the strength of the policy."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.2), layout="constrained")
        panels = figure.subplots(1, 2)
    strength = [point.strength for point in points]
    for axes, key, title, color in (
        (panels[0], "learned_invariance", "learned invariance, %", BLUE),
        (panels[1], "accuracy", "accuracy, %", GREEN),
    ):
        _band(axes, strength, [getattr(point, key) for point in points], color, None, factor=100)
        axes.set_title(title)
        axes.set_xlabel("strength of the chosen policy")
        axes.set_xticks(strength)
    return figure


def response(curves: Mapping[str, Sequence[ResponsePoint]]) -> Figure:
    """Top-1 change (%) against the length of the shift (pixels), one curve per name."""
    figure, axes = new_figure(5.6, 3.6)
    _draw_response(axes, curves)
    return figure


def importance(shares: dict[str, dict[str, float]]) -> Figure:
    """Bars of the share of each objective's variance that each field explains."""
    figure, axes = new_figure(5.6, 3.4)
    fields = sorted({name for values in shares.values() for name in values}, reverse=True)
    height = 0.8 / max(1, len(shares))
    for k, (objective, color) in enumerate(zip(shares, (GREEN, BLUE), strict=False)):
        values = [shares[objective].get(name, 0.0) for name in fields]
        label = objective.replace("_", " ")
        drawn = axes.barh(np.arange(len(fields)) - k * height, values, height * 0.9, color=color, label=label)
        for bar, name, value in zip(drawn, fields, values, strict=True):
            describe(bar, f"{name}: {value:.2f} of {label}")
    axes.set_yticks(np.arange(len(fields)) - height * (len(shares) - 1) / 2, fields)
    axes.set_xlabel("importance (PED-ANOVA)")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def summary(curves: Mapping[str, Sequence[ResponsePoint]], rows: Sequence[ComparisonRow]) -> Figure:
    """Summary of a tuning: response curves, and learned invariance on typical and atypical images."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _draw_response(left, curves)
        left.set_title("Answers that change when the image is shifted")
        _draw_learned(
            right, [(row.images, row.learned_invariance) for row in rows if row.learned_invariance is not None]
        )
    return figure


def _draw_learned(axes: Axes, rows: Sequence[tuple[str, Estimate]]) -> None:
    for k, (_, estimate) in enumerate(rows):
        color = BLUE if k == 0 else ORANGE
        if not estimate.defined:
            axes.annotate("undefined", (0, k), fontsize=8, va="center", ha="center")
            continue
        value, low, high = (max(LEAST, 100 * part) for part in (estimate.value, estimate.low, estimate.high))
        axes.errorbar(value, k, xerr=[[value - low], [high - value]], fmt="o", color=color, capsize=3, clip_on=False)
        if 100 * estimate.low < LEAST:  # the arrow marks an interval that is cut off
            axes.plot(LEAST, k, marker="<", color=color, ms=8, clip_on=False)
    axes.set_yticks(range(len(rows)), [images for images, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(LEAST, 100)
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.set_xlabel("share of variability removed, %")
    axes.set_title("Learned invariance, typical and atypical")


def _draw_response(axes: Axes, curves: Mapping[str, Sequence[ResponsePoint]]) -> None:
    for (name, points), color in zip(curves.items(), (GRAY, BLUE, GREEN, ORANGE), strict=False):
        lengths = [0.0, *(point.length for point in points)]
        _band(axes, lengths, [Estimate(0.0, 0.0, 0.0), *(point.top1_change for point in points)], color, name, 100)
    axes.set_xlabel("length of the shift, pixels")
    axes.set_ylabel("answers that change, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _band(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    color: str,
    label: str | None,
    factor: float = 1.0,
) -> None:
    value, low, high = (factor * np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high"))
    axes.plot(x, value, "o-", color=color, label=label, ms=4)
    axes.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
    for at, *estimate in zip(x, value, low, high, strict=True):
        if np.isfinite(estimate[0]):
            mark(
                axes,
                at,
                estimate[0],
                f"{label or 'strength'} {'at ' if label else ''}{at:.3g}: {interval_text(*estimate)}",
            )
