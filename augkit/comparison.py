"""Runs of several seeds, measured on the same images: the closing table, and what it supports in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from augkit.data import Dataset, Images, atypical
from augkit.errors import InputError
from augkit.evaluation import measure_model
from augkit.invariance import (
    Estimate,
    InvarianceReport,
    learned_invariance,
    transfer,
    verdict,
)
from augkit.invariance.intervals import combine, replicates
from augkit.training import Run

TYPICAL = "typical"
TABLE_METRICS = ("accuracy", "top1_change", "js", "kappa")
RANGE = {"kappa": (-1.0, 1.0)}

# Per image set, what one run scored on it.
Reports = dict[str, InvarianceReport]


@dataclass(frozen=True)
class Arm:
    """One recipe of a comparison, with its reports: one per seed, in the same order in every arm."""

    name: str
    reports: list[Reports]

    def on(self, images: str) -> list[InvarianceReport]:
        """The reports of all seeds on one image set."""
        return [report[images] for report in self.reports]


def open_test_sets(dataset: Dataset, *, seed: int = 0) -> dict[str, Images]:
    """The test split as ``typical``, and atypical content made from it; opens the test split."""
    test = dataset.open_test()
    return {TYPICAL: test, **atypical(test, seed=seed)}


def measure_run(
    run: Run,
    images: Images,
    *,
    lengths: Sequence[float] = (),
    device: torch.device | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> InvarianceReport:
    """Measure a run on images as its recipe says: protocol, kernel, shifts, canvas, mean and std."""
    return measure_model(run.model, run.recipe, images, lengths=lengths, device=device, on_batch=on_batch)


def closing_table(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row per arm and image set; the first arm is the control.

    Rows hold `Estimate`s: the metrics of `TABLE_METRICS`, ``learned_invariance`` and ``transfer`` against the
    control, and ``accuracy_gain`` over it; None where there is none.
    """
    if not arms or len({len(arm.reports) for arm in arms}) != 1:
        raise InputError("comparison: expected arms with as many seeds each")
    control, rows = arms[0], []
    for arm in arms:
        for images in arm.reports[0]:
            rows.append({"arm": arm.name, "images": images, **_row(arm, control, images)})
    return rows


def _row(arm: Arm, control: Arm, images: str) -> dict[str, Any]:
    reports = arm.on(images)
    statistics = [report.statistics for report in reports]
    labelled = "correct" in statistics[0]
    row: dict[str, Any] = {"n_images": len(statistics[0]["js"]), "n_seeds": len(reports)}
    for metric in TABLE_METRICS:
        known = labelled or metric != "accuracy"
        row[metric] = replicates(metric, statistics).estimate(*RANGE.get(metric, (0.0, 1.0))) if known else None
    same = arm is control
    row["learned_invariance"] = None if same else learned_invariance(reports, control.on(images))
    row["transfer"] = (
        None
        if same or images == TYPICAL
        else transfer((arm.on(TYPICAL), control.on(TYPICAL)), (reports, control.on(images)))
    )
    row["accuracy_gain"] = (
        None
        if same or not labelled
        else combine(
            lambda a, b: a - b,
            replicates("accuracy", statistics),
            replicates("accuracy", [report.statistics for report in control.on(images)]),
        ).estimate(-1, 1)
    )
    return row


def response_curve(arm: Arm, images: str = TYPICAL, metric: str = "js") -> list[dict[str, Any]]:
    """Variability against the length of the shift, over all seeds of an arm."""
    reports = arm.on(images)
    return [
        {
            "length": length,
            metric: replicates(metric, [report.curve[length] for report in reports]).estimate(0, 1),
        }
        for length in reports[0].curve
    ]


def conclusion(rows: Sequence[dict[str, Any]], arm: str, max_shift: float) -> str:
    """One paragraph: did augmentation make the network invariant, and does that carry over?

    Every statement is read off an interval; where it covers zero the word is "undetermined".
    """
    mine = {row["images"]: row for row in rows if row["arm"] == arm}
    typical = mine[TYPICAL]
    learned, gain = typical["learned_invariance"], typical["accuracy_gain"]
    seeds = typical["n_seeds"]
    text = (
        f"On {typical['n_images']:,} typical test images and {seeds} training seed{'s' * (seeds > 1)}, under shifts"
        f" of up to {max_shift:g} px: "
    )
    text += {
        "positive": f"augmentation removed {_percent(learned)} of the network's variability. It made the network"
        f" more invariant, though not invariant: the top-1 answer still changes for"
        f" {_percent(typical['top1_change'])} of pairs of shifts.",
        "negative": f"augmentation made the network less invariant (learned invariance {_percent(learned)}).",
        "undetermined": f"whether augmentation made the network more invariant is undetermined (learned invariance"
        f" {_percent(learned)}).",
        "undefined": "the control hardly varies, so learned invariance is undefined.",
    }[verdict(learned)]
    if gain is not None:
        word = {"positive": "rose", "negative": "fell"}.get(verdict(gain), "changed in an undetermined direction")
        text += f" Accuracy {word}: {_points(gain)}."
    atypical_rows = [row for images, row in mine.items() if images != TYPICAL]
    if atypical_rows:
        text += " Does it carry over to atypical images? " + " ".join(_carries_over(row) for row in atypical_rows)
    return text


def _carries_over(row: dict[str, Any]) -> str:
    images, learned, moved = row["images"], row["learned_invariance"], row["transfer"]
    if not learned.defined or not moved.defined:
        return f"{images.capitalize()}: undefined, the control hardly varies there."
    numbers = f"learned invariance {_percent(learned)}, {_points(moved)} against typical images"
    if verdict(moved) == "undetermined":
        return f"{images.capitalize()}: undetermined ({numbers})."
    if verdict(moved) == "positive":
        return f"{images.capitalize()}: yes, and more than on typical images ({numbers})."
    part = {
        "positive": "only in part",
        "negative": "no, it does harm there",
        "undetermined": "less than on typical images, and whether at all is undetermined",
    }[verdict(learned)]
    return f"{images.capitalize()}: {part} ({numbers})."


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def jsonable(value: Any) -> Any:
    """Estimates to dicts, all the way down; NaN to None."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
