"""Figures of a study that are not interactive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from augkit.compare.study.results import PlanePoint
from augkit.core.figures import BLUE, GRAY, GREEN, ORANGE, new_figure

EDGE = -100.0  # per cent; lower end of both axes


def plane(points: Sequence[PlanePoint]) -> Figure:
    """Invariance on atypical images (y) against that on typical ones (x), both in %, one point per arm.

    On the diagonal all invariance carries over. Points below -100 % are drawn at the edge, with their values in the
    legend.
    """
    figure, axes = new_figure(7.4, 4.4)
    looks = {"learned": (BLUE, "o"), "architectural": (ORANGE, "s"), "both": (GREEN, "^")}
    axes.plot([EDGE, 100], [EDGE, 100], color=GRAY, lw=1, ls=":", zorder=0)
    for k, point in enumerate(points):
        color, marker = looks[point.kind]
        (x, *x_ends), (y, *y_ends) = ([100 * e.value, 100 * e.low, 100 * e.high] for e in (point.x, point.y))
        beyond = f" ({x:.0f} | {y:.0f} %)" if min(x, y) < EDGE else ""
        x, y = max(EDGE, x), max(EDGE, y)
        axes.plot(np.clip(x_ends, EDGE, 100), [y, y], color=color, lw=1, alpha=0.45)
        axes.plot([x, x], np.clip(y_ends, EDGE, 100), color=color, lw=1, alpha=0.45)
        axes.scatter(x, y, color=color, marker=marker, s=70, zorder=3, label=f"{k + 1} {point.arm}{beyond}")
        axes.annotate(str(k + 1), (x, y), ha="center", va="center", color="white", fontsize=6, zorder=4)
    axes.set_xlim(EDGE - 6, 106)
    axes.set_ylim(EDGE - 6, 106)
    axes.set_xlabel("variability removed on typical images, %")
    axes.set_ylabel("variability removed on atypical images, %")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
