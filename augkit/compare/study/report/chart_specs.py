"""Data of the figures in a report; the figures of claims are in `augkit.compare.study.claim_results`."""

from __future__ import annotations

from dataclasses import dataclass

from augkit.compare.study.results import DoseCurve, PlanePoint


@dataclass(frozen=True)
class DoseFigure:
    """Dose-response as lines."""

    title: str
    x_label: str
    y_label: str
    series: list[DoseCurve]


@dataclass(frozen=True)
class PlaneFigure:
    """Invariance on typical against atypical images, one point per arm."""

    title: str
    x_label: str
    y_label: str
    points: list[PlanePoint]


@dataclass(frozen=True)
class LayerBars:
    """Signal-to-error ratio (dB) of every layer of one arm."""

    arm: str
    values: list[float]


@dataclass(frozen=True)
class LayerFigure:
    """Bars by layer (``groups``), for arms whose layers have the same names."""

    title: str
    y_label: str
    groups: list[str]
    series: list[LayerBars]
