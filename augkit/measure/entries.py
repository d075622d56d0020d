"""Types of the entries of a measurement's ``results.json``, for the page and the terminal.

They are typed dicts, since they are written to JSON unchanged. Metrics are further entries, by their names in
`augkit.invariance.metrics`; `metric_of` and `curve_of` read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

from augkit.core.files import Environment
from augkit.invariance.metrics import CURVE_METRICS
from augkit.train.history import Interval


class PairsEntry(TypedDict):
    """Pairs of a plan; ``high`` is the largest displacement."""

    high: float


class PlanEntry(TypedDict):
    """The displacements of every image."""

    pairs: PairsEntry


class SettingsEntry(TypedDict):
    """Settings of a measurement that are shown in words."""

    images: int
    axis: str
    max_shift: float
    plan: PlanEntry
    input_size: list[int]
    views: int
    views_of_pairs: NotRequired[int]
    protocol: str
    kernel: str
    precision: str


class JaggednessEntry(TypedDict):
    """Share of images whose answer changes the given number of times along the path."""

    changes: int
    share: Interval


class LayerEntry(TypedDict):
    """An `augkit.invariance.LayerEquivariance`."""

    name: str
    kind: str
    decibels: Interval
    share: Interval


class LieEntry(TypedDict):
    """An `augkit.invariance.LieDerivative`, by direction."""

    logits: dict[str, Interval]
    probabilities: dict[str, Interval]


class RelativeEntry(TypedDict):
    """An `augkit.invariance.RelativeInvariance`."""

    relative: Interval
    moved: Interval
    apart: Interval


class CertificateEntry(TypedDict):
    """An `augkit.invariance.Certificate` in words."""

    text: str


class ImageSetEntry(TypedDict):
    """Results on one image set."""

    data: str
    settings: SettingsEntry
    top1_change: Interval
    js: Interval
    accuracy: NotRequired[Interval]
    jaggedness_distribution: NotRequired[list[JaggednessEntry]]
    certificate: NotRequired[CertificateEntry]
    layers: NotRequired[list[LayerEntry]]
    lie: NotRequired[LieEntry]
    relative_invariance: NotRequired[RelativeEntry]


class MeasuredEntry(ImageSetEntry):
    """The whole file: results on the first image set, and on the others by name."""

    model: str
    command: str
    environment: Environment
    ood: NotRequired[dict[str, ImageSetEntry]]


@dataclass(frozen=True)
class Curve:
    """Metrics against displacements ``x``: an estimate for each of them, by the name of the metric."""

    x: list[float]
    metrics: dict[str, list[Interval]]


def sets_of(result: MeasuredEntry) -> dict[str, ImageSetEntry]:
    """Return all image sets by name, in order."""
    return {result["data"]: result, **result.get("ood", {})}


def metric_of(found: Mapping[str, object], name: str) -> Interval | None:
    """Return the estimate of a metric; None where it was not measured."""
    return cast("Interval | None", found.get(name))


def curve_of(found: Mapping[str, object], key: str, by: str) -> Curve | None:
    """Return the curve at ``key``, against ``by``; None where it was not measured."""
    points = cast("list[dict[str, object]] | None", found.get(key))
    if points is None:
        return None
    known = [name for name in CURVE_METRICS if name in points[0]]
    metrics = {name: [cast("Interval", point[name]) for point in points] for name in known}
    return Curve([cast("float", point[by]) for point in points], metrics)
