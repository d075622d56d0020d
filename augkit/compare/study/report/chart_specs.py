"""Figures that a report makes of a study's results, besides those of the claims."""

from __future__ import annotations

from dataclasses import dataclass

from augkit.compare.study.results import DoseCurve, PlanePoint
from augkit.core.records import Record


@dataclass(frozen=True)
class DoseFigure(Record):
    """The dose-response as lines."""

    kind: str
    title: str
    x_label: str
    y_label: str
    series: list[DoseCurve]


@dataclass(frozen=True)
class PlaneFigure(Record):
    """Invariance on typical against atypical images, a point per arm."""

    kind: str
    title: str
    x_label: str
    y_label: str
    points: list[PlanePoint]


@dataclass(frozen=True)
class LayerBars(Record):
    """Signal-to-error ratio (dB) of every layer of one arm."""

    arm: str
    values: list[float]


@dataclass(frozen=True)
class LayerFigure(Record):
    """Bars by layer (``groups``), for arms whose layers have the same names."""

    kind: str
    title: str
    y_label: str
    groups: list[str]
    series: list[LayerBars]
