"""Figures of one training run, from the rows of its history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augkit.core.figures import BLUE, GREEN, ORANGE, STYLE, describe, interval_text, mark
from augkit.train.history import EpochRow, Interval

WITH_COUNTS = 12  # classes up to which a confusion matrix has room for its numbers
FEW = 40  # epochs up to which each is a mark
Rows = Sequence[EpochRow]
Number = Literal["loss", "validation_loss", "validation_accuracy", "lr", "images_per_second"]


def curves(history: Rows) -> list[Figure]:
    """Loss, accuracy, shift information where it was measured, learning rate and throughput, each against epochs."""
    found = [(row["epoch"], row["shift_information"]) for row in history if "shift_information" in row]
    varied = [(epoch, estimate) for epoch, estimate in found if estimate["value"] is not None]
    made = [_panel(lambda axes: _draw_loss(axes, history))]
    made.append(_panel(lambda axes: _draw(axes, history, "validation_accuracy", "validation accuracy, %", 100.0)))
    if varied:
        made.append(_panel(lambda axes: _draw_variability(axes, varied)))
    made.append(_panel(lambda axes: _draw(axes, history, "lr", "learning rate", least=0.0)))
    made.append(_panel(lambda axes: _draw(axes, history, "images_per_second", "images per second", least=0.0)))
    return made


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts by true (row) and predicted class (column), shaded by the share of the row."""
    table = np.asarray(counts, dtype=float)
    shares = table / np.maximum(1, table.sum(1, keepdims=True))
    size = max(3.6, 0.42 * len(classes) + 1.2)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= 14 else f"{name[:13]}…" for name in classes]
    upright = 90 if max(map(len, names)) > 2 else 0
    # Class names with dollar signs must not be read as formulas.
    axes.set_xticks(range(len(names)), names, rotation=upright, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= WITH_COUNTS:
        for (row, column), share in np.ndenumerate(shares):
            if table[row, column]:
                shade = "white" if share > 0.5 else "#222222"
                text = f"{table[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
    return figure


def _panel(draw: Callable[[Axes], None]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.5), layout="constrained")
        axes = figure.subplots()
        draw(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    return figure


def _draw_loss(axes: Axes, history: Rows) -> None:
    _line(axes, history, "loss", BLUE, "training")
    _line(axes, history, "validation_loss", ORANGE, "validation", dashed=True)
    losses = [row["loss"] for row in history] + [row.get("validation_loss", 0.0) for row in history]
    values = [loss for loss in losses if loss > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set_title("loss")
    axes.legend(frameon=False, fontsize=8)


def _draw(axes: Axes, history: Rows, key: Number, title: str, factor: float = 1.0, least: float | None = None) -> None:
    _line(axes, history, key, BLUE, "", factor=factor)
    axes.set_ylim(bottom=least)
    axes.set_title(title)


def _line(
    axes: Axes, history: Rows, key: Number, color: str, label: str, *, factor: float = 1.0, dashed: bool = False
) -> None:
    known = [row for row in history if key in row]
    epochs, values = [row["epoch"] for row in known], [factor * row[key] for row in known]
    few = len(known) <= FEW
    style, marker = "--" if dashed else "-", "o" if few else None
    (line,) = axes.plot(epochs, values, label=label, color=color, ls=style, marker=marker, ms=3, lw=1.4)
    series = f"{label} {key.removeprefix('validation_')}".strip().replace("_", " ")
    if not few:
        describe(line, f"{series}, epochs {epochs[0]} to {epochs[-1]}: from {values[0]:.3g} to {values[-1]:.3g}")
        return
    for epoch, value in zip(epochs, values, strict=True):
        mark(axes, epoch, value, f"{series}, epoch {epoch}: {value:.3g}")


def _draw_variability(axes: Axes, rows: Sequence[tuple[int, Interval]]) -> None:
    epochs = [epoch for epoch, _ in rows]
    parts = [(found["value"], found["low"], found["high"]) for _, found in rows]
    value, low, high = np.array(parts, dtype=float).T.tolist()
    axes.fill_between(epochs, low, high, color=GREEN, alpha=0.2, lw=0)
    axes.plot(epochs, value, color=GREEN, marker="o", ms=3, lw=1.4)
    for epoch, *estimate in zip(epochs, value, low, high, strict=True) if len(rows) <= FEW else ():
        mark(axes, epoch, estimate[0], f"shift information, epoch {epoch}: {interval_text(*estimate)}")
    axes.set_ylim(bottom=0)
    axes.set_title("shift information, share")
