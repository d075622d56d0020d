"""Results of one claim: verdict, numbers, sentences and figure."""

from __future__ import annotations

from dataclasses import dataclass

from augkit.compare.study.hypothesis_tests import NOT_RUN
from augkit.core.records import Record
from augkit.invariance.bootstrap import Estimate

NOT_RUN_KEYS = (
    *("id", "name", "claim", "source", "prediction", "unit", "n_seeds", "check", "primary", "exploratory", "effect"),
    *("p", "n_images", "seeds_needed", "matched", "figure", "verdict", "sentences", "parts", "held"),
)


@dataclass(frozen=True)
class ScaledEffect(Record):
    """An effect on the scale of its test, with its standard error and the degrees of freedom of Student's t."""

    value: float
    error: float
    freedom: float


@dataclass(frozen=True)
class PartResult(Record):
    """Result of one part of a claim.

    Attributes:
        label: label of the part.
        statistic: one of `augkit.compare.study.claims.STATISTICS`.
        prediction: description of the prediction.
        unit: unit of the effect.
        effect: effect with its 95 % interval.
        tested: effect on the scale of the test.
        bounds: interval of the prediction on the scale of the test.
        per_seed: effect of every seed on the scale of the test; None where it is undefined.
        p_for, p_against: p-values for and against the prediction, before any correction.
        verdict: verdict of this part alone, before any correction.
        dissent: variabilities by which the effect has another sign.
        reason: why the effect is undefined.
        matched: effect at equal accuracy.
    """

    label: str
    statistic: str
    prediction: str
    unit: str
    effect: Estimate
    tested: ScaledEffect
    bounds: list[float]
    per_seed: list[float | None]
    p_for: float
    p_against: float
    verdict: str
    dissent: list[str]
    reason: str | None
    matched: Estimate | None


@dataclass(frozen=True)
class PartCount(Record):
    """Number of parts that hold, among those with a prediction."""

    parts: int
    of: int


@dataclass(frozen=True)
class LabeledEstimate(Record):
    """A labeled point of a figure."""

    arm: str
    label: str
    value: Estimate


@dataclass(frozen=True)
class PointsFigure(Record):
    """Figure of numbers as points with their intervals."""

    kind: str
    title: str
    x_label: str
    rows: list[LabeledEstimate]
    zero: float


@dataclass(frozen=True)
class Curve(Record):
    """Curve of one arm."""

    arm: str | None
    x: list[float]
    y: list[Estimate]


@dataclass(frozen=True)
class LinesFigure(Record):
    """Figure of curves with their intervals."""

    kind: str
    title: str
    x_label: str
    y_label: str
    series: list[Curve]


@dataclass(frozen=True)
class ClaimResult(Record):
    """Result of one claim.

    Attributes:
        id, name, claim, source: as in the study file.
        prediction: description of the predictions of all parts.
        unit: unit of the primary part.
        n_seeds: number of seeds that have all arms of the claim.
        check: whether the claim is an identity.
        primary: index of the part that gives the verdict.
        exploratory: whether the claims were tested at a number of seeds that was not declared.
        verdict: verdict after all corrections; ``pilot`` below a floor of accuracy; ``not run`` if not measured.
        effect: effect of the primary part.
        p: p-value after correction for interim analyses and for the number of claims.
        n_images: smallest number of images of any part; None for numbers that are not means over images.
        seeds_needed: number of seeds that would decide an undetermined claim with a power of 80 %.
        matched: effect of the primary part at equal accuracy.
        parts: one result per part.
        held: number of parts that hold.
        sentences: description of the result.
        figure: figure of the parts.
    """

    id: int | str
    name: str
    claim: str
    source: str
    prediction: str
    unit: str
    n_seeds: int
    check: bool
    primary: int
    exploratory: bool
    verdict: str
    effect: Estimate | None = None
    p: float | None = None
    n_images: int | None = None
    seeds_needed: int | None = None
    matched: Estimate | None = None
    parts: tuple[PartResult, ...] = ()
    held: PartCount | None = None
    sentences: tuple[str, ...] = ()
    figure: PointsFigure | LinesFigure | None = None

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping; a claim that was not run has fewer keys, in another order."""
        whole = super().to_mapping()
        return {key: whole[key] for key in NOT_RUN_KEYS} if self.verdict == NOT_RUN else whole
