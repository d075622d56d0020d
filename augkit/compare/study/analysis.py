"""Compute the results of a study from its cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from augkit.compare.study.arms import OFF, StudyArm
from augkit.compare.study.cells import Cell, CellStore
from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Part
from augkit.compare.study.class_groups import group_columns
from augkit.compare.study.column_table import ColumnTable, MissingError
from augkit.compare.study.effects import NO_NETWORK, statistic
from augkit.compare.study.measurements import FLIPS, Columns, pictures_of, plan_of
from augkit.compare.study.results import (
    ArmResult,
    ByImages,
    DoseCurve,
    FlipExample,
    LayerProfile,
    PlanePoint,
    StudyCost,
    StudyResults,
)
from augkit.compare.study.schema import NOISE, Study, summarize
from augkit.compare.study.sequential import interim_analysis
from augkit.compare.study.verdicts import evaluate_claims
from augkit.core.errors import InputError
from augkit.core.files import environment
from augkit.core.images import data_url
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.carry_over import CarryOver, carry_over_of
from augkit.invariance.flips import Flip
from augkit.invariance.learned import DEFAULT
from augkit.invariance.metrics import METRICS

GALLERY = 8  # largest number of flips in the gallery


class StudyAnalysis:
    """Computes all results of a study from the columns of its cells.

    Args:
        place: store of the study's cells.
        cells: cells of the study; those that were not run are left out.
    """

    def __init__(self, place: CellStore, cells: Sequence[Cell]) -> None:
        self.study: Study = place.study
        self.place = place
        columns, self.seconds = {}, dict[tuple[str, int], float]()
        self.paths: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for cell in cells:
            kept = place.kept(cell)
            if kept is None:
                continue
            self.seconds[cell.arm.name, cell.seed] = kept.seconds
            self.paths[cell.arm.name, cell.seed] = place.path_of_training(cell)
            for measure, found in place.columns(cell).items():
                columns[cell.arm.name, cell.seed, measure] = found
        for cell in cells:
            for measure in {key[2] for key in columns if key[:2] == (cell.arm.name, cell.seed)}:
                found = columns[cell.arm.name, cell.seed, measure]
                columns[cell.arm.name, cell.seed, measure] = {**found, **self._of_groups(cell, measure, found)}
        self.view = ColumnTable(
            columns,
            range(self.study.seeds),
            strengths={name: arm.strength for name, arm in self.study.arms.items()},
            lengths={name: measure.lengths for name, measure in self.study.measures.items()},
            pairs={name: measure.pairs for name, measure in self.study.measures.items()},
        )
        self.accuracy = {
            (arm, seed): float(np.mean(found[f"{TYPICAL}|correct"]))
            for (arm, seed, measure), found in columns.items()
            if measure == DEFAULT_MEASURE and f"{TYPICAL}|correct" in found
        }

    def results(self, runs: int, loaded: int, earlier: Sequence[int] = ()) -> StudyResults:
        """Compute the results.

        Args:
            runs: number of cells.
            loaded: number of cells that an earlier command had run.
            earlier: numbers of seeds at which the claims were tested before.
        """
        interim = interim_analysis(self.study.seeds, self.study.looks, earlier, self.study.settings.spending)
        study, settings = self.study, self.study.settings
        return StudyResults(
            name=settings.name,
            size=study.size,
            title=settings.title or settings.name,
            lead=" ".join(settings.lead.split()),
            measured_with=DEFAULT,
            looks=interim,
            claims=evaluate_claims(study, self.view, self.accuracy, self._chance(), interim=interim, paths=self.paths),
            arms=[self._arm(arm) for name, arm in study.arms.items() if name != NO_NETWORK],
            dose_response=self._dose_response(),
            dose_response_label="learned invariance, share",
            plane=self._plane(),
            carry_over=self._carry_over(),
            layers=self._layers(),
            gallery=self._gallery(),
            cost=StudyCost(sum(self.seconds.values()), runs, loaded),
            settings=summarize(study),
            environment=environment(),
            recipe_yaml=study.recipe.to_yaml(),
            study_yaml=study.to_yaml(),
        )

    def _of_groups(self, cell: Cell, name: str, found: Columns) -> Columns:
        """Columns of the groups of classes that claims need of a cell, for one measure."""
        out: Columns = {}
        measure = self.study.measures.get(name)
        parts = [part for claim in self.study.claims for part in claim.parts if part.measure == name]
        for part in (part for part in parts if cell.arm.name in part.names and measure is not None):
            assert measure is not None
            for chosen, (images, group) in part.selections.items():
                if f"{chosen}|correct" in out or f"{images}|correct" not in found:
                    continue
                classes = self.study.settings.groups[group]
                labels = self.place.image_sets(cell.arm)[images.removesuffix(NOISE)].labels
                answers = self.place.answers(cell, name, images)
                assert labels is not None
                layout = plan_of(measure, cell.arm.recipe).layout
                restricted = part.answers == "group"
                values = group_columns(answers, labels[: len(answers)], classes, layout, restricted=restricted)
                out |= {f"{chosen}|{key}": value for key, value in values.items()}
        return out

    def _chance(self) -> float:
        """Accuracy of guessing."""
        arm = next(arm for arm in self.study.arms.values() if arm.task == "classify" and arm.name != NO_NETWORK)
        return 1 / len(self.place.dataset(arm).classes)

    def _number(self, statistic_name: str, **fields: Any) -> Estimate | None:
        """Estimate of one statistic; None if it was not measured or is undefined."""
        part = Part.model_validate({"statistic": statistic_name, "prediction": "describe", **fields})
        try:
            shown = statistic(self.view, part).shown
        except (MissingError, InputError):
            return None
        return shown if shown.defined else None

    def _mean(self, arm: str, column: str) -> Estimate | None:
        try:
            return self.view.mean(arm, DEFAULT_MEASURE, column).estimate()
        except (MissingError, InputError):
            return None

    def _arm(self, arm: StudyArm) -> ArmResult:
        sets = self.study.measures[DEFAULT_MEASURE].sets
        js = {name: self._mean(arm.name, f"{name}|js") for name in sets}
        of_shift = {name: self._number("variability", arm=arm.name, images=name) for name in sets}
        other_architecture = arm.policy == OFF and arm.architecture != self.study.reference
        seconds = [value for (name, _), value in self.seconds.items() if name == arm.name]
        return ArmResult(
            arm=arm.name,
            architecture=arm.architecture,
            policy=arm.policy,
            strength=arm.strength if arm.policy != OFF else 0.0,
            accuracy=_clipped(self._mean(arm.name, f"{TYPICAL}|correct")),
            n_seeds=len(seconds),
            seconds=sum(seconds),
            shift_information={name: _clipped(value) for name, value in _known(of_shift).items()},
            js={name: _clipped(value) for name, value in _known(js).items()},
            learned_invariance=self._against(arm, f"{arm.architecture}+{OFF}", sets, arm.policy != OFF),
            architectural_invariance=self._against(arm, f"{self.study.reference}+{OFF}", sets, other_architecture),
        )

    def _against(self, arm: StudyArm, control: str, sets: Sequence[str], wanted: bool) -> ByImages | None:
        if not wanted or arm.task != "classify" or control not in self.study.arms:
            return None
        found = {name: self._number("learned_invariance", arm=arm.name, control=control, images=name) for name in sets}
        return _known(found) or None

    def _dose_response(self) -> list[DoseCurve]:
        """Learned invariance against strength, for policies with several strengths."""
        out = []
        families: dict[tuple[str, str], list[StudyArm]] = {}
        for arm in self.study.arms.values():
            if arm.policy != OFF and arm.task == "classify":
                families.setdefault((arm.architecture, arm.policy), []).append(arm)
        for (architecture, policy), family in families.items():
            control = f"{architecture}+{OFF}"
            if len(family) < 2 or control not in self.study.arms:
                continue
            arms = sorted(family, key=lambda arm: arm.strength)
            for images in self.study.measures[DEFAULT_MEASURE].images:
                found = [self._number("learned_invariance", arm=a.name, control=control, images=images) for a in arms]
                points = [(a.strength, value) for a, value in zip(arms, found, strict=True) if value is not None]
                if points:
                    zero = Estimate(0.0, 0.0, 0.0)
                    x, y = zip(*[(0.0, zero), *points], strict=True)
                    name = f"{architecture}+{policy}"
                    out.append(DoseCurve(f"{name}, {images}", name, list(x), list(y)))
        return out

    def _plane(self) -> list[PlanePoint]:
        """Invariance of every arm, relative to the reference architecture without augmentation."""
        atypical = [name for name in self.study.measures[DEFAULT_MEASURE].images if name != TYPICAL]
        control = f"{self.study.reference}+{OFF}"
        out: list[PlanePoint] = []
        if not atypical or control not in self.study.arms:
            return out
        for arm in self.study.arms.values():
            if arm.name == control or arm.task != "classify":
                continue
            kind: Literal["learned", "architectural", "both"] = "architectural" if arm.policy == OFF else "both"
            if arm.architecture == self.study.reference:
                kind = "learned"
            x, y = (
                self._number("learned_invariance", arm=arm.name, control=control, images=images)
                for images in (TYPICAL, atypical)
            )
            if x is not None and y is not None:
                out.append(PlanePoint(arm.name, kind, x, y))
        return out

    def _carry_over(self) -> dict[str, CarryOver]:
        """Carry-over of invariance by atypical image set, over all networks."""
        sets = self.study.measures[DEFAULT_MEASURE].images
        kinds = {name for name, arm in self.study.arms.items() if arm.task == "classify"}
        needs = {need for name in (DEFAULT, "information") for need in METRICS[name].needs}
        runs: dict[str, list[dict[str, torch.Tensor]]] = {images: [] for images in sets}
        names = []
        for (arm, seed, measure), columns in self.view.columns.items():
            if measure != DEFAULT_MEASURE or arm not in kinds or f"{TYPICAL}|answer_mean" not in columns:
                continue
            names.append(f"{arm}, seed {seed}")
            for images in sets:
                found = {need: torch.from_numpy(columns[f"{images}|{need}"]).double() for need in needs}
                runs[images].append({need: v[:, None] if v.ndim == 1 else v for need, v in found.items()})
        if not names:
            return {}
        return {images: carry_over_of(runs[TYPICAL], runs[images], names) for images in sets if images != TYPICAL}

    def _gallery(self) -> list[FlipExample]:
        """The most confident flips of the first seed, of arms that differ from the reference in one setting."""
        measure = self.study.measures[DEFAULT_MEASURE]
        out: list[FlipExample] = []
        for arm in self.study.arms.values():
            plain = arm.policy == OFF or arm.architecture == self.study.reference
            column = self.view.columns.get((arm.name, 0, DEFAULT_MEASURE), {}).get(f"{TYPICAL}|{FLIPS}")
            if column is None or not plain or arm.strength != 1 or len(out) >= GALLERY:
                continue
            flips = [Flip.from_dict(flip) for flip in json.loads(str(column))[:1]]
            dataset, images = self.place.dataset(arm), self.place.image_sets(arm)[TYPICAL]
            drawn = pictures_of(flips, measure, arm.recipe, images, dataset.classes)
            for flip, picture in zip(flips, drawn, strict=True):
                (x0, y0, _), (x1, y1, _) = flip.views
                before, after = (dataset.classes[answer] for answer in flip.answers)
                out.append(
                    FlipExample(
                        arm=arm.name,
                        before=data_url(picture.pictures[0]),
                        after=data_url(picture.pictures[1]),
                        said_before=before,
                        said_after=after,
                        shift=[x1 - x0, y1 - y0],
                        true=None if flip.label is None else dataset.classes[flip.label],
                    )
                )
        return out

    def _layers(self) -> list[LayerProfile]:
        """Signal-to-error ratio (dB) of every layer, averaged over seeds."""
        found: dict[str, list[Any]] = {}
        for (arm, _, measure), columns in self.view.columns.items():
            layered = self.study.measures.get(measure)
            if layered is not None and layered.axis == "layers" and layered.grid == "any":
                found.setdefault(arm, []).append(columns)
        rows = []
        for arm, runs in found.items():
            names = [str(name) for name in runs[0][f"{TYPICAL}|names"]]
            decibels = np.mean([run[f"{TYPICAL}|db"] for run in runs], axis=0)
            rows.append(LayerProfile(arm, names, decibels.tolist()))
        return rows


def _known(found: Mapping[str, Estimate | None]) -> ByImages:
    """Drop estimates that could not be computed."""
    return {name: value for name, value in found.items() if value is not None}


def _clipped(estimate: Estimate | None) -> Estimate | None:
    """Clip an interval to [0, 1], the range of shares and bits."""
    if estimate is None or not estimate.defined:
        return None
    return Estimate(*(min(1.0, max(0.0, bound)) for bound in (estimate.value, estimate.low, estimate.high)))
