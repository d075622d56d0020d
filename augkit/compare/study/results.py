"""Results of a study: what ``results.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from augkit.compare.study.claim_results import ClaimResult
from augkit.compare.study.schema import StudySummary
from augkit.compare.study.sequential import InterimAnalysis
from augkit.core.json import jsonable
from augkit.core.records import Record
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.carry_over import CarryOver

ByImages = dict[str, Estimate]  # by the name of the image set


@dataclass(frozen=True)
class ArmResult(Record):
    """Results of one arm.

    Attributes:
        arm: name.
        architecture, policy, strength: of the arm; strength 0 without augmentation.
        accuracy: on typical test images.
        n_seeds: that were run.
        seconds: of all its runs.
        shift_information, js: variabilities by image set.
        learned_invariance: against the same architecture without augmentation.
        architectural_invariance: against the reference architecture without augmentation.
    """

    arm: str
    architecture: str
    policy: str
    strength: float
    accuracy: Estimate | None
    n_seeds: int
    seconds: float
    shift_information: dict[str, Estimate | None]
    js: dict[str, Estimate | None]
    learned_invariance: ByImages | None
    architectural_invariance: ByImages | None


@dataclass(frozen=True)
class DoseCurve(Record):
    """Learned invariance against strength, of one architecture, policy and image set."""

    series: str
    arm: str
    x: list[float]
    y: list[Estimate]


@dataclass(frozen=True)
class PlanePoint(Record):
    """Invariance of one arm on typical images (``x``) and, the mean over sets, on atypical ones (``y``)."""

    arm: str
    kind: Literal["learned", "architectural", "both"]
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class LayerProfile(Record):
    """Signal-to-error ratio (dB) of every layer of an arm under circular shifts, the mean over seeds."""

    arm: str
    names: list[str]
    db: list[float]


@dataclass(frozen=True)
class FlipExample(Record):
    """An image whose prediction changes with a shift.

    Attributes:
        arm: whose network it is.
        before, after: the image at both places, as ``data:`` URLs.
        said_before, said_after: classes predicted.
        shift: from one place to the other, x and y (pixels).
        true: the class; None without labels.
    """

    arm: str
    before: str
    after: str
    said_before: str
    said_after: str
    shift: list[float]
    true: str | None


@dataclass(frozen=True)
class StudyCost(Record):
    """Cost of a study.

    Attributes:
        seconds: of all cells together.
        runs: cells in all.
        loaded: cells that an earlier command had run.
        wall_seconds: of this command.
        failed: message by the name of the cell.
    """

    seconds: float
    runs: int
    loaded: int
    wall_seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResults(Record):
    """Results of a study.

    Attributes:
        name, size, title, lead: as in the study file.
        measured_with: name of the variability.
        looks: interim analyses declared and taken.
        claims: one result each, in the order of the study.
        arms: that were trained.
        dose_response: where a policy has several strengths.
        dose_response_label: of its y axis.
        plane: invariance on typical against atypical images, by arm.
        carry_over: by atypical image set, how much of the invariance is found there.
        layers: of arms with a measure of layers.
        gallery: predictions that a shift changed.
        cost: runs and seconds.
        settings: of the study at this size.
        environment: versions and machine.
        recipe_yaml, study_yaml: files that repeat the study.
    """

    name: str
    size: str
    title: str
    lead: str
    measured_with: str
    looks: InterimAnalysis
    claims: list[ClaimResult]
    arms: list[ArmResult]
    dose_response: list[DoseCurve]
    dose_response_label: str
    plane: list[PlanePoint]
    carry_over: dict[str, CarryOver]
    layers: list[LayerProfile]
    gallery: list[FlipExample]
    cost: StudyCost
    settings: StudySummary
    environment: Mapping[str, object]
    recipe_yaml: str
    study_yaml: str

    def to_dict(self) -> dict[str, object]:
        """Plain data, as `json.dumps` takes it; NaN and infinity are None."""
        out: dict[str, object] = jsonable(super().to_dict())
        return out


@dataclass(frozen=True)
class JoinedStudy(Record):
    """Result of a process that worked on the study of another command, which writes results to ``folder``."""

    folder: str

    def to_mapping(self) -> dict[str, object]:
        """As of every record, marked as joined."""
        return {"joined": True, **super().to_mapping()}
