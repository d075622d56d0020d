"""Results of a study, the content of ``results.json``."""

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

ByImages = dict[str, Estimate]  # estimates by image set


@dataclass(frozen=True)
class ArmResult(Record):
    """Results of one arm.

    Attributes:
        arm: name of the arm.
        architecture, policy, strength: settings of the arm; strength 0 is without augmentation.
        accuracy: accuracy on typical test images, in [0, 1].
        n_seeds: number of seeds that were run.
        seconds: seconds of all its runs.
        shift_information, js: variabilities by image set.
        learned_invariance: invariance against the same architecture without augmentation, by image set.
        architectural_invariance: invariance against the reference architecture without augmentation, by image set.
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
    """Learned invariance against strength, for one architecture, policy and image set."""

    series: str
    arm: str
    x: list[float]
    y: list[Estimate]


@dataclass(frozen=True)
class PlanePoint(Record):
    """Invariance of one arm on typical images (``x``) and on atypical ones (``y``, the mean over image sets)."""

    arm: str
    kind: Literal["learned", "architectural", "both"]
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class LayerProfile(Record):
    """Signal-to-error ratio (dB) of every layer of an arm under circular shifts, averaged over seeds."""

    arm: str
    names: list[str]
    db: list[float]


@dataclass(frozen=True)
class FlipExample(Record):
    """An image whose prediction changes with a shift.

    Attributes:
        arm: arm of the network.
        before, after: the image under both displacements, as ``data:`` URLs.
        said_before, said_after: predicted classes.
        shift: shift from the first to the second displacement, x and y (pixels).
        true: true class; None without labels.
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
        seconds: seconds of all cells together.
        runs: number of cells.
        loaded: number of cells that an earlier command had run.
        wall_seconds: seconds of this command.
        failed: error messages of failed cells, by name of the cell.
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
        looks: interim analyses, declared and taken.
        claims: one result per claim, in the order of the study.
        arms: one result per trained arm.
        dose_response: one curve per architecture, policy and image set, for policies with several strengths.
        dose_response_label: label of the y axis of these curves.
        plane: invariance on typical against atypical images, one point per arm.
        carry_over: carry-over of invariance by atypical image set.
        layers: one profile per arm with a measure of layers.
        gallery: predictions that a shift changed.
        cost: number of runs and seconds.
        settings: settings of the study at this size.
        environment: versions and machine.
        recipe_yaml, study_yaml: recipe and study file, to reproduce the study.
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
        """The results as plain data for `json.dumps`; NaN and infinity become None."""
        out: dict[str, object] = jsonable(super().to_dict())
        return out


@dataclass(frozen=True)
class JoinedStudy(Record):
    """Result of a process that worked on the study of another command, which writes results to ``folder``."""

    folder: str

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with ``joined`` true."""
        return {"joined": True, **super().to_mapping()}
