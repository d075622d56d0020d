"""Colors, dashes and markers of the arms of a study, the same in all charts.

Colors are those of Okabe & Ito 2008. Colors repeat after seven arms, markers after eight and dashes after five. As
these numbers have no common divisor, color and marker together identify 56 arms, and the first eight differ by marker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from augkit.core.figures import STYLE, svg

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222", "#E69F00", "#56B4E9")
DASHES = ((), (3.5, 1.5), (1.0, 1.5), (4.5, 1.5, 1.0, 1.5), (2.0, 1.0))
MARKERS = ("o", "s", "^", "D", "X", "v", "P", "*")
LARGER = {"*": 1.4, "X": 1.15, "P": 1.15}  # scale of markers that look small


@dataclass(frozen=True)
class Look:
    """Style of an arm: color and dash of its lines, its marker, and whether the marker is hollow."""

    color: str
    dash: tuple[float, ...]
    shape: str
    hollow: bool

    def marker(self, axes: Axes, x: float, y: float, size: float = 7.0, **options: Any) -> Line2D:
        """Draw the marker at a point; ``size`` is in points, ``options`` are those of `Axes.plot`."""
        return axes.plot(
            [x],
            [y],
            ls="",
            marker=self.shape,
            ms=size * LARGER.get(self.shape, 1.0),
            mfc="white" if self.hollow else self.color,
            mec=self.color,
            mew=1.2,
            **options,
        )[0]

    def line(self, axes: Axes, x: Sequence[float], y: Sequence[float]) -> Line2D:
        """Draw the line through points."""
        return axes.plot(x, y, color=self.color, ls=(0, self.dash) if self.dash else "-", lw=1.6)[0]


Looks = Mapping[str, Look]


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Assign a look to each different arm, in the order of first appearance."""
    return {name: _look(k) for k, name in enumerate(dict.fromkeys(arms))}


def samples(looks: Looks, place: str = "legend") -> dict[str, Markup]:
    """Line and marker of each arm as inline SVG, for a legend; ``place`` keeps ids unique within the page."""
    return {arm: Markup(_sample(look, f"{place}|{arm}")) for arm, look in looks.items()}


def _look(k: int) -> Look:
    count = len(MARKERS)
    return Look(COLORS[k % len(COLORS)], DASHES[k % len(DASHES)], MARKERS[k % count], (k // count) % 2 == 1)


def _sample(look: Look, place: str) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.46, 0.22))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(-1, 1)
        look.line(axes, [0, 1], [0, 0])
        look.marker(axes, 0.5, 0)
    return svg(figure, tight=False, place=place)
