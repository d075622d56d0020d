"""The result of a measurement: estimates with intervals, and per-image statistics for paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from augkit.core.errors import InputError
from augkit.core.precision import on_cpu
from augkit.invariance.bootstrap import Estimate, Run, mean_estimates, replicates_of
from augkit.invariance.flips import Flip
from augkit.invariance.metrics import CURVE_METRICS, METRICS, names_of
from augkit.invariance.plan import Plan

CURVES = {"length": "response", "fraction": "response_fraction", "direction": "response_direction"}
CURVES |= {"scale": "response_scale"}
CURVE_STATISTICS = {name: METRICS[name].needs[0] for name in CURVE_METRICS}


@dataclass(frozen=True)
class JaggedShare:
    """Share of the images whose answer changes ``changes`` times along the path."""

    changes: int
    share: Estimate

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"changes": self.changes, "share": self.share.to_dict()}


@dataclass(frozen=True)
class ResponseCurve:
    """Metrics against displacements.

    Attributes:
        by: ``length`` (pixels), ``fraction`` (of a pixel), ``direction`` (degrees) or ``scale`` (factor).
        x: displacements, in the unit of ``by``.
        metrics: an estimate per displacement, by the name of the metric.
    """

    by: str
    x: list[float]
    metrics: dict[str, list[Estimate]]

    def to_rows(self) -> list[dict[str, object]]:
        """For JSON: an object per displacement."""
        return [
            {self.by: at, **{name: found[k].to_dict() for name, found in self.metrics.items()}}
            for k, at in enumerate(self.x)
        ]


@dataclass(frozen=True)
class MeasurementSettings:
    """Settings that reproduce a measurement.

    Attributes:
        protocol, kernel, background: see `augkit.invariance.protocols.make_protocol`.
        axis: ``shift`` or ``scale``.
        max_shift: largest displacement, pixels.
        pairs: pairs of displacements per image.
        seed: seed of the displacements.
        images: number of measured images.
        image_size, input_size: (H, W) of the images and of the network's input.
        lengths: lengths in pixels of the points of the response curve.
        plan: all displacements.
        views: forward passes per image.
        views_of_pairs: forward passes per image that belong to pairs.
        channels: how the channels of the images were fitted to the network.
        precision, compiled, device: settings of the forward passes.
        classes: number of classes K.
        memory_format: ``contiguous`` or ``channels_last``; it changes numbers by rounding alone.
        folded: whether batch norms were folded into the convolutions before them; it changes numbers by rounding alone.
        noise: whether noise of the same norm takes the place of displacements.
    """

    protocol: str
    kernel: str
    axis: str
    max_shift: float
    pairs: int
    seed: int
    images: int
    image_size: list[int]
    input_size: list[int]
    background: float | str
    lengths: list[float]
    plan: Plan
    views: int
    views_of_pairs: int
    channels: str
    precision: str
    compiled: bool
    device: str
    classes: int
    memory_format: str = "contiguous"
    folded: bool = False
    noise: bool = False

    def to_dict(self) -> dict[str, object]:
        """The settings as plain values for JSON; ``noise`` only where there is noise."""
        whole = {**vars(self), "plan": self.plan.to_dict()}
        return whole if self.noise else {key: value for key, value in whole.items() if key != "noise"}


@dataclass(frozen=True)
class InvarianceReport:
    """The result of `measure_invariance`. Every metric is an `Estimate` with ``value``, ``low`` and ``high``.

    Attributes:
        settings: settings that reproduce the measurement.
        statistics: per-image statistics ``(N, F)`` by name, for paired comparisons.
        curve: by length in pixels of a shift in a random direction, the statistics ``js``, ``changed`` and, with
            labels, ``correct`` ``(N, 1)`` against the unshifted image.
        fingerprint: equal for reports on the same images and settings.
        metrics: the estimates by name; also attributes, as in ``report.shift_information.value``.
        curves: as ``curve``, for ``fraction``, ``direction`` and ``scale``.
        flips: flips, the most confident disagreements first.
        largest_logit_change: the largest absolute change of a logit over all images, pairs and classes; without an
            interval, as it is a maximum.
        log_probabilities: ``(N, S, K)`` float16 of all views, with ``keep_probabilities``. Logarithms keep the small
            probabilities, which would be 0 in that width.
    """

    settings: MeasurementSettings
    statistics: Run = field(repr=False)
    curve: dict[float, Run] = field(repr=False)
    fingerprint: str = field(repr=False)
    metrics: dict[str, Estimate]
    curves: dict[str, dict[float, Run]] = field(default_factory=dict, repr=False)
    flips: list[Flip] = field(default_factory=list, repr=False)
    largest_logit_change: float | None = None
    log_probabilities: Tensor | None = field(default=None, repr=False)

    def __getattr__(self, name: str) -> Estimate:
        try:
            return self.__dict__["metrics"][name]
        except KeyError:
            raise AttributeError(f"InvarianceReport has no metric '{name}'") from None

    def response(self, metric: str = "js", by: str = "length") -> dict[float, Estimate]:
        """Return a response curve: the estimate of a metric at each point.

        Args:
            metric: ``js``, ``top1_change`` or ``accuracy``.
            by: ``length`` (pixels), ``fraction`` (of a pixel), ``direction`` (degrees) or ``scale`` (factor).

        Raises:
            InputError: the curve or the metric was not measured.
        """
        points, name = self._points(by), CURVE_STATISTICS.get(metric, metric)
        if any(name not in run for run in points.values()):
            raise InputError(f"response: expected one of {', '.join(CURVE_STATISTICS)}, measured, got '{metric}'")
        if not points:
            return {}
        return dict(zip(points, _means([run[name] for run in points.values()]), strict=True))

    def _points(self, by: str) -> dict[float, Run]:
        return self.curve if by == "length" else self.curves.get(by, {})

    def jaggedness_distribution(self) -> list[JaggedShare]:
        """Return, for each number of changes along the path, the share of images that have it."""
        return list(self._jagged_shares)

    @cached_property
    def _jagged_shares(self) -> list[JaggedShare]:
        if "jagged" not in self.statistics:
            return []
        changes = self.statistics["jagged"][:, 0]
        counts = torch.arange(int(changes.max()) + 1)
        shares = mean_estimates(changes[:, None] == counts, high=1.0)
        return [JaggedShare(int(k), share) for k, share in zip(counts, shares, strict=True)]

    @cached_property
    def response_curves(self) -> dict[str, ResponseCurve]:
        """Every response curve that was measured, by ``length``, ``fraction``, ``direction`` or ``scale``."""
        known = {by: points for by in CURVES if (points := self._points(by))}
        # The points of a curve have the same statistics.
        shown = {
            by: {name: key for name, key in CURVE_STATISTICS.items() if key in next(iter(points.values()))}
            for by, points in known.items()
        }
        numbers = [run[key] for by, points in known.items() for run in points.values() for key in shown[by].values()]
        # All curves in one pass over the resamples, which cost more than the products with them.
        found = iter(_means(numbers))
        curves = {}
        for by, points in known.items():
            rows = [[next(found) for _ in shown[by]] for _ in points]
            columns = [list(column) for column in zip(*rows, strict=True)]
            curves[by] = ResponseCurve(by, list(points), dict(zip(shown[by], columns, strict=True)))
        return curves

    def to_dict(self) -> dict[str, object]:
        """Metrics, curves, flips and settings as plain values for JSON."""
        out: dict[str, object] = {name: estimate.to_dict() for name, estimate in self.metrics.items()}
        out |= {CURVES[by]: curve.to_rows() for by, curve in self.response_curves.items()}
        if "jagged" in self.statistics:
            out["jaggedness_distribution"] = [row.to_dict() for row in self.jaggedness_distribution()]
        out["largest_logit_change"] = self.largest_logit_change
        flips = [flip.to_dict() for flip in self.flips]
        return {**out, "flips": flips, "settings": self.settings.to_dict()}


def _means(columns: list[Tensor]) -> list[Estimate]:
    """Return estimates of the means of columns ``(N, 1)`` with values in [0, 1]."""
    return mean_estimates(torch.cat([on_cpu(column) for column in columns], dim=1), high=1.0) if columns else []


def estimates(statistics: Run) -> dict[str, Estimate]:
    """Return an estimate of every metric whose ``statistics`` are available."""
    known = set(statistics) | ({"shares"} if "predictions" in statistics else set())
    names = names_of(lambda row: row.function is not None and set(row.needs) <= known)
    found = replicates_of(names, [statistics])
    return {name: found[name].estimate(METRICS[name].low, METRICS[name].high) for name in names}
