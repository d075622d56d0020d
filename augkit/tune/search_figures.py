"""Figures of a search: dominated volume, parallel coordinates, learning curves and time by phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, MaxNLocator

from augkit.core.figures import BLACK, BLUE, GRAY, GREEN, ORANGE, STYLE, describe, mark, new_figure
from augkit.tune.results import SearchTrial
from augkit.tune.space import Range
from augkit.tune.volume import Array, dominated_volume

PHASES = (BLUE, ORANGE, GREEN, "#E69F00", "#56B4E9", "#CC79A7", GRAY)
COLOR_MAP = "viridis_r"  # the best trials are the darkest, which stand out on white
UPRIGHT = 8  # with more parallel axes than this, their names are rotated
WIDEST = 19  # with a line longer than this (characters), the names of the axes are rotated
LONGEST = 12  # longest name of a choice (characters); longer ones are cut
APART = 0.07  # least distance of two ticks, as a share of the height of the axis
STYLES: dict[str, dict[str, Any]] = {
    "complete": {"color": BLUE, "lw": 1.1, "alpha": 0.5},
    "pruned": {"color": GRAY, "lw": 1.0, "alpha": 0.9},
    "failed": {"color": ORANGE, "lw": 1.0, "ls": ":"},
    "control": {"color": BLACK, "lw": 1.4, "ls": "--"},
    "chosen": {"color": BLUE, "lw": 3.0},
}
Trials = Sequence[SearchTrial]


def volumes(trials: Trials, reference: Sequence[float]) -> list[float]:
    """Dominated volume after each completed trial, by number, without controls; infeasible trials add nothing."""
    found, front = [0.0], np.empty((0, len(reference)))
    for trial in _counted(trials):
        values = np.asarray(trial.values, dtype=float)
        if trial.feasible and not (front >= values).all(1).any():
            front = np.vstack([front[~(front <= values).all(1)], values])
            found.append(dominated_volume(front.tolist(), reference))
        else:
            found.append(found[-1])
    return found[1:]


def volume_over_trials(trials: Trials, reference: Sequence[float]) -> Figure:
    """Dominated volume against the number of completed trials.

    Controls are left out. An infeasible trial counts on the x axis but adds no volume.
    """
    figure, axes = new_figure(5.6, 3.4)
    counted, y = _counted(trials), volumes(trials, reference)
    axes.set_xlabel("completed trials")
    axes.set_ylabel("dominated volume")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not counted:
        return _without(figure, axes)
    steps = [0.0, *y]
    axes.step(range(len(steps)), steps, where="post", color=BLUE, lw=1.6)
    grown = [k for k in range(1, len(steps)) if steps[k] > steps[k - 1]]
    axes.scatter(grown, [steps[k] for k in grown], color=BLUE, s=20, zorder=3, label="volume grew")
    for k, trial in enumerate(counted, 1):
        mark(axes, k, steps[k], f"after trial {trial.number}, {k} completed: {steps[k]:.3g}")
    barred = [k for k, trial in enumerate(counted, 1) if not trial.feasible]
    if barred:
        heights = [steps[k] for k in barred]
        axes.scatter(barred, heights, color=ORANGE, marker="x", s=24, zorder=4, label="not feasible")
    axes.set_xlim(0, len(counted) + 0.5)
    axes.set_ylim(0, 1.08 * steps[-1] or 1.0)
    _legend(axes)
    return figure


def parallel_coordinates(trials: Trials, space: Mapping[str, Range], objective: str | Sequence[str]) -> Figure:
    """Parallel coordinates: one line per trial across the searched fields and objectives.

    The first objective gives the color.

    Args:
        trials: trials; those without finite values are left out, and a missing parameter leaves a gap in the line.
        space: range of each field by dotted key, in the order of the axes; values outside extend the axis.
        objective: name of the objective, or names of several; their axes follow those of the fields.
    """
    names = [objective] if isinstance(objective, str) else list(objective)
    scored = [(trial, trial.values) for trial in trials if trial.values is not None and _finite(trial.values)]
    axes_of = [_Axis(field, row, [trial.parameters.get(field) for trial, _ in scored]) for field, row in space.items()]
    for k, name in enumerate(names):
        axes_of.append(_Axis(name, None, [values[k] for _, values in scored]))
    turned = len(axes_of) > UPRIGHT or max(len(part) for a in axes_of for part in a.label.split("\n")) > WIDEST
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(min(13.0, max(5.6, 1.6 + 1.15 * len(axes_of))), 4.2), layout="constrained")
        axes = figure.subplots()
    _draw_axes(axes, axes_of, turned=turned)
    if not scored:
        return _without(figure, axes)
    first = np.array([values[0] for _, values in scored], dtype=float)
    pad = 0.0 if np.ptp(first) else max(1e-3, 0.05 * abs(first[0]))
    colors = ScalarMappable(Normalize(first.min() - pad, first.max() + pad), COLOR_MAP)
    heights = np.array([axis.heights for axis in axes_of])  # (axes, trials)
    for k in np.argsort(first, kind="stable"):
        _draw_trial(axes, scored[k][0], names, heights[:, k], tuple(colors.to_rgba(first[k])))
    figure.colorbar(colors, ax=axes, pad=0.02, aspect=30).set_label(_words(names[0]))
    _legend(axes, below=True)
    return figure


def learning_curves(trials: Trials, budget: float, label: str = "validation accuracy") -> Figure:
    """Intermediate values (%) of each trial against epochs, styled by the state of the trial.

    The winner is drawn thick, controls dashed, and a cross ends the curve of a pruned trial.

    Args:
        trials: trials whose ``curve`` holds shares in [0, 1] by epoch; values that are not finite are skipped.
        budget: epochs of a trial that is not pruned.
        label: name of the values.
    """
    figure, axes = new_figure(5.6, 3.8)
    axes.set_xlabel("epochs")
    axes.set_ylabel(f"{label}, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    count = dict.fromkeys(STYLES, 0)
    last = float(budget)
    for trial in trials:
        kind = next((key for key in ("chosen", "control") if getattr(trial, key)), trial.state)
        known = trial.curve.items()
        curve = sorted((float(epoch), 100 * value) for epoch, value in known if _finite([value]))
        if not curve or kind not in STYLES:
            continue
        count[kind] += 1
        ends = {"pruned": "x"}.get(kind, "o" if len(curve) == 1 else "")
        x, y = zip(*curve, strict=True)
        order = 2 + list(STYLES).index(kind) / 10
        style = {**STYLES[kind], "marker": ends, "markevery": [-1], "ms": 5, "zorder": order, "clip_on": False}
        name = f"trial {trial.number}, {kind}"
        describe(axes.plot(x, y, **style)[0], f"{name}\n{y[-1]:.1f} % after {x[-1]:.0f} epochs")
        last = max(last, x[-1])
    axes.set_xlim(0, last)
    if not any(count.values()):
        return _without(figure, axes)
    marks = {}
    for kind in (kind for kind in STYLES if count[kind]):
        text = kind if kind in {"chosen", "control"} else f"{kind} ({count[kind]})"
        marks[text] = Line2D([], [], **STYLES[kind], marker="x" if kind == "pruned" else "", ms=5)
    _legend(axes, marks)
    return figure


def cost(phases: Mapping[str, float]) -> Figure:
    """Time by phase, given in seconds, as one stacked bar; labels of short phases are moved apart."""
    known = {name: float(value) for name, value in phases.items() if _finite([value]) and value > 0}
    texts = [f"{_words(name)}\n{_duration(value)}" for name, value in known.items()]
    inches = np.array([0.16 + 0.065 * max(map(len, text.split("\n"))) for text in texts])
    width = max(7.2, inches.sum() + 0.6)
    figure, axes = new_figure(width, 1.7)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(-0.5, 2.7)
    if not known:
        return _without(figure, axes)
    unit, name = _unit(sum(known.values()))
    lengths = np.array(list(known.values())) / unit
    total, starts = lengths.sum(), np.cumsum(lengths) - lengths
    middles = starts + lengths / 2
    places = _spread(middles, inches * total / (width - 0.5), total)
    for k, text in enumerate(texts):
        color = PHASES[k % len(PHASES)]
        # The edge makes a phase visible even if its bar is narrower than a pixel.
        bar = axes.barh(0, lengths[k], 0.8, left=starts[k], color=color, edgecolor=color, lw=0.8)[0]
        describe(bar, text.replace("\n", ": "))
        leader = [middles[k], middles[k], places[k]], [0.4, 0.55, 1.45]
        axes.plot(*leader, color=color, lw=0.9, marker="o", markevery=[-1], ms=4, clip_on=False)
        axes.text(places[k], 1.65, text, ha="center", va="bottom", fontsize=8, color=BLACK, parse_math=False)
    axes.set_xlim(0, total)
    axes.set_xlabel(f"{name}, {_duration(total * unit)} in total")
    return figure


class _Axis:
    """One of the parallel axes: its label, its ticks, and the height (0 to 1, or NaN) of each trial on it."""

    def __init__(self, name: str, row: Range | None, values: Sequence[Any]) -> None:
        unit = row.unit if row else ""
        self.label = _words(name).replace(".", "\n") + (f"\n({unit})" if unit else "")
        if row and row.kind == "choice":
            choices = [str(choice) for choice in row.choices]
            at = {c: k / (len(choices) - 1) if len(choices) > 1 else 0.5 for k, c in enumerate(choices)}
            self.heights = np.array([at.get(str(value), np.nan) for value in values])
            self.ticks: list[tuple[str, float]] = [
                (c if len(c) <= LONGEST else f"{c[: LONGEST - 1]}…", height) for c, height in at.items()
            ]
            return
        log = row is not None and row.log
        numbers = np.array([float(value) if _finite([value]) else np.nan for value in values], dtype=float)
        if log:
            numbers[~(numbers > 0)] = np.nan
        ends = [row.low, row.high] if row else []
        reach = [value for value in (*numbers, *ends) if math.isfinite(value) and (value > 0 or not log)]
        self.heights, self.ticks = numbers, []
        if reach:
            self.heights = _height(numbers, min(reach), max(reach), log=log)
            self.ticks = _ticks(min(reach), max(reach), log=log, integer=row is not None and row.kind == "int")


def _height(numbers: Array, low: float, high: float, *, log: bool) -> Array:
    if low == high:
        return np.where(np.isfinite(numbers), 0.5, np.nan)
    if log:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    return (numbers - low) / (high - low)


def _ticks(low: float, high: float, *, log: bool, integer: bool) -> list[tuple[str, float]]:
    """Ticks at both ends, and at round numbers between them where there is room."""
    if low == high:
        return [(f"{low:.3g}", 0.5)]
    locator: Any = MaxNLocator(4, integer=integer)
    if log and high > 3 * low:
        locator = LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=8)
    found: list[tuple[float, float]] = [(low, 0.0), (high, 1.0)]
    for value in locator.tick_values(low, high):
        if low < value < high:
            height = float(_height(np.array([value], dtype=float), low, high, log=log)[0])
            if all(abs(height - other) >= APART for _, other in found):
                found.append((float(value), height))
    # Ends have three significant digits; a narrow range needs more.
    digits = min(6, max(3, math.ceil(-math.log10((high - low) / max(abs(low), abs(high)))) + 2))
    return [(f"{value:.0f}" if integer else f"{value:.{digits}g}", at) for value, at in sorted(found)]


def _draw_axes(axes: Axes, axes_of: Sequence[_Axis], *, turned: bool) -> None:
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(-0.55, len(axes_of) - 0.85)
    axes.vlines(range(len(axes_of)), 0, 1, color=BLACK, lw=0.9, zorder=3)
    labels = [axis.label.replace("\n(", " (").replace("\n", ".") if turned else axis.label for axis in axes_of]
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(axes_of)), labels, fontsize=8, parse_math=False)
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="left", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0, pad=4)
    behind = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75}
    for k, axis in enumerate(axes_of):
        axes.hlines([height for _, height in axis.ticks], k - 0.03, k, color=BLACK, lw=0.8, zorder=3)
        for text, height in axis.ticks:
            axes.text(
                *(k - 0.06, height, text), fontsize=7, parse_math=False, ha="right", va="center", zorder=5, bbox=behind
            )


def _draw_trial(axes: Axes, trial: SearchTrial, names: Sequence[str], heights: Array, color: tuple[float, ...]) -> None:
    look: dict[str, Any] = {"color": color, "lw": 1.0, "alpha": 0.75, "zorder": 2}
    if trial.chosen:
        edge = [Stroke(linewidth=5.0, foreground=BLACK), Normal()]
        look |= {"lw": 3.2, "alpha": 1.0, "zorder": 4, "path_effects": edge, "label": "chosen"}
    elif trial.control:
        look |= {"color": BLACK, "ls": "--", "lw": 1.3, "alpha": 1.0, "label": "control"}
    elif not trial.feasible:
        look |= {"color": GRAY, "ls": ":", "label": "not feasible"}
    (line,) = axes.plot(range(len(heights)), heights, marker=".", ms=3, clip_on=False, **look)
    shown = [f"{_words(name)}: {value:.3g}" for name, value in zip(names, trial.values or [], strict=False)]
    shown += [f"{field}: {_shown(value)}" for field, value in trial.parameters.items()]
    describe(line, "\n".join([f"trial {trial.number}", *shown]))


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _counted(trials: Trials) -> list[SearchTrial]:
    """Trials with finite values, without controls, by number."""
    kept = [trial for trial in trials if not trial.control and _finite(trial.values)]
    return sorted(kept, key=lambda trial: int(trial.number))


def _finite(values: Sequence[Any] | None) -> bool:
    return bool(values) and all(isinstance(v, (int, float, np.number)) and math.isfinite(v) for v in values or ())


def _spread(middles: Array, widths: Array, total: float) -> Array:
    """Centers of labels of these widths: near ``middles``, in order, without overlap, between 0 and ``total``."""
    places = middles.copy()
    edge = 0.0
    for k, width in enumerate(widths):
        places[k] = max(places[k], edge + width / 2)
        edge = places[k] + width / 2
    edge = total
    for k in reversed(range(len(widths))):
        places[k] = min(places[k], edge - widths[k] / 2)
        edge = places[k] - widths[k] / 2
    return places


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "seconds") if seconds < 120 else (60.0, "minutes")


def _duration(seconds: float) -> str:
    unit, name = _unit(seconds)
    value = seconds / unit
    shown = f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
    return f"{shown} {'s' if name == 'seconds' else 'min'}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _legend(axes: Axes, marks: Mapping[str, Any] | None = None, *, below: bool = False) -> None:
    """Draw a one-row legend outside of the axes, of these marks by label; None takes the labeled artists."""
    if marks is None:
        handles, labels = axes.get_legend_handles_labels()
        marks = dict(zip(labels, handles, strict=True))
    if marks:
        axes.legend(
            list(marks.values()),
            list(marks),
            frameon=False,
            fontsize=8,
            ncols=len(marks),
            loc="upper left" if below else "lower left",
            bbox_to_anchor=(0, 0 if below else 1),
        )


def _without(figure: Figure, axes: Axes) -> Figure:
    behind = {"fc": "white", "ec": "none"}
    at = axes.transAxes
    axes.text(*(0.5, 0.5, "nothing to show"), color=GRAY, bbox=behind, transform=at, ha="center", va="center", zorder=6)
    return figure
