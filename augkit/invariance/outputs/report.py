"""The result of measuring outputs beyond logits: numbers with intervals, curves, and the worst cases."""

from __future__ import annotations

from dataclasses import dataclass, field

from augkit.core.records import Record
from augkit.invariance.bootstrap import Estimate, Run
from augkit.invariance.outputs.base import OutputCurve
from augkit.invariance.plan import Plan


@dataclass(frozen=True)
class WorstCase(Record):
    """Two views of an image between which the output differs most.

    Attributes:
        image: number of the image.
        shifts: the displacements ``(x, y)`` of both views, pixels of the network's input.
        score: how much they differ, in the measure of the kind; larger is worse.
        factors: the factors of both views.
    """

    image: int
    shifts: tuple[tuple[float, float], tuple[float, float]]
    score: float
    factors: tuple[float, float] = (1.0, 1.0)

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key that puts the worst first."""
        return -self.score, self.image


@dataclass(frozen=True)
class OutputSettings(Record):
    """Settings that reproduce a measurement of outputs.

    Attributes:
        protocol, kernel, background: see `augkit.invariance.protocols.make_protocol`.
        axis: ``shift`` or ``scale``.
        max_shift: largest displacement of a view along an axis, pixels.
        max_scale: largest factor of a view; 1 for shifts.
        quantum: displacements are multiples of this many pixels; None for any fraction.
        pairs: comparisons per image.
        seed: seed of displacements and intervals.
        images: number of measured images.
        image_size, input_size: (H, W) of the images and of the network's input.
        views: forward passes per image.
        channels: how the channels of the images were fitted to the network.
        precision, device, memory_format: settings of the forward passes.
        folded: whether batch norms were folded into the convolutions before them.
        plan: all displacements.
        of_kind: what the kind of output chose, such as stride and kernel of a map.
    """

    protocol: str
    kernel: str
    axis: str
    max_shift: float
    max_scale: float
    quantum: float | None
    pairs: int
    seed: int
    images: int
    image_size: list[int]
    input_size: list[int]
    background: float | str
    views: int
    channels: str
    precision: str
    device: str
    memory_format: str
    folded: bool
    plan: Plan
    of_kind: dict[str, object]

    def to_mapping(self) -> dict[str, object]:
        """The settings as plain values for JSON."""
        return {**super().to_mapping(), "plan": self.plan.to_dict()}


@dataclass(frozen=True)
class OutputReport(Record):
    """The result of `measure_outputs`. Every number is an `Estimate` with ``value``, ``low`` and ``high``.

    Attributes:
        kind: kind of output, a key of `augkit.invariance.outputs.KINDS`.
        settings: settings that reproduce the measurement.
        numbers: the estimates by name; also attributes, as in ``report.equivariance_error.value``.
        curves: curves by name.
        worst: the views whose outputs differ most, one case per image, worst first.
        notes: sentences for readers, such as the cause of an error.
        statistics: per-image statistics ``(N, F)`` by name, for paired comparisons.
    """

    kind: str
    settings: OutputSettings
    numbers: dict[str, Estimate]
    curves: dict[str, OutputCurve] = field(default_factory=dict)
    worst: tuple[WorstCase, ...] = ()
    notes: tuple[str, ...] = ()
    statistics: Run = field(default_factory=dict, repr=False)

    def __getattr__(self, name: str) -> Estimate:
        try:
            return self.__dict__["numbers"][name]
        except KeyError:
            kind, known = self.__dict__.get("kind"), ", ".join(self.__dict__.get("numbers", ()))
            raise AttributeError(f"OutputReport of kind '{kind}' has no number '{name}': {known}") from None

    def to_mapping(self) -> dict[str, object]:
        """Numbers under their names, curves as rows, worst cases and settings, for JSON."""
        out: dict[str, object] = {"kind": self.kind}
        out |= {name: found.to_dict() for name, found in self.numbers.items()}
        out |= {name: found.to_rows() for name, found in self.curves.items()}
        worst = [case.to_mapping() for case in self.worst]
        return {**out, "notes": list(self.notes), "worst": worst, "settings": self.settings.to_mapping()}
