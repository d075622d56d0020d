"""Runs of several seeds, measured on the same images: the closing table, and what it supports in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augkit.augment.policy import changes_nothing
from augkit.core.errors import InputError
from augkit.data import Dataset, Images, atypical
from augkit.invariance import (
    CarryOver,
    Estimate,
    InvarianceComparison,
    InvarianceReport,
    carry_over,
    compare_invariance,
    transfer,
    unsaid,
    verdict,
)
from augkit.invariance.bootstrap import UNDEFINED, combine_seeds, per_seed
from augkit.invariance.learned import DEFAULT, LEAST_SAID
from augkit.train.recipe import Recipe, flat

TYPICAL = "typical"
TABLE_METRICS = ("accuracy", "shift_information", "top1_change", "js", "kappa")
RANGE = {"kappa": (-1.0, 1.0)}
TITLES = {DEFAULT: "shift information", "entropy_matched_js": "entropy-matched JS", "top1_change": "top-1 change"}

# Per image set, what one run scored on it.
Reports = dict[str, InvarianceReport]


@dataclass(frozen=True)
class RunGroup:
    """One recipe of a comparison, with its reports: one per seed, in the same order in every arm.

    ``control`` names the arm that it is compared with; the first one when empty.
    """

    name: str
    reports: list[Reports]
    control: str = ""

    def on(self, images: str) -> list[InvarianceReport]:
        """The reports of all seeds on one image set."""
        return [report[images] for report in self.reports]


@dataclass(frozen=True)
class Contrast:
    """In what a recipe differs from another one: its augmentation in words (empty: none), and the other fields."""

    augmentation: str
    others: tuple[str, ...] = ()

    @classmethod
    def between(cls, treated: Recipe, control: Recipe) -> Contrast:
        """What ``treated`` has that ``control`` has not."""
        mine, its = (flat(recipe.model_dump(exclude={"name", "seed"})) for recipe in (treated, control))
        others = [
            f"{key} {_plain(mine.get(key))} instead of {_plain(its.get(key))}"
            for key in sorted({*mine, *its})
            if mine.get(key) != its.get(key) and not key.startswith("policy.")
        ]
        augmented = treated.policy != control.policy and not changes_nothing(treated.policy)
        words = "augmentation"
        if augmented and not changes_nothing(control.policy):
            words = "its augmentation instead of the control's"
        return cls(words if augmented else "", tuple(others))

    def __str__(self) -> str:
        others = f"the other fields ({', '.join(self.others)})" if self.others else ""
        if self.augmentation and others:
            return f"{self.augmentation} together with {others}"
        return self.augmentation or (f"{others}, without augmentation," if others else "nothing")


AUGMENTATION = Contrast("augmentation")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)


def open_test_sets(dataset: Dataset, *, seed: int = 0) -> dict[str, Images]:
    """The test split as ``typical``, and atypical content made from it; opens the test split."""
    test = dataset.open_test()
    return {TYPICAL: test, **atypical(test, seed=seed, data=dataset.name)}


def closing_table(arms: Sequence[RunGroup]) -> list[dict[str, Any]]:
    """One row per arm and image set; the first arm is the control of those that name none.

    Rows hold `Estimate`s: the metrics of `TABLE_METRICS`, ``learned_invariance`` and ``transfer`` against the
    control, and ``accuracy_gain`` over it, None where there is none; ``comparison``, by all variabilities
    (`augkit.invariance.compare_invariance`); ``per_seed``, the values of every training seed; and ``undefined``, why
    invariance on these images means nothing, where it does not.
    """
    if not arms or len({len(arm.reports) for arm in arms}) != 1:
        raise InputError("comparison: expected arms with as many seeds each")
    by_name, rows = {arm.name: arm for arm in arms}, []
    for arm in arms:
        control = by_name[arm.control] if arm.control else arms[0]
        for images in arm.reports[0]:
            rows.append({"arm": arm.name, "images": images, **_row(arm, control, images)})
    return rows


def _row(arm: RunGroup, control: RunGroup, images: str) -> dict[str, Any]:
    reports, its = arm.on(images), control.on(images)
    statistics = [report.statistics for report in reports]
    labelled = "correct" in statistics[0]
    row: dict[str, Any] = {"n_images": len(statistics[0]["js"]), "n_seeds": len(reports)}
    names = [metric for metric in TABLE_METRICS if labelled or metric != "accuracy"]
    found = per_seed(names, statistics)
    for metric in TABLE_METRICS:
        known = metric in found
        row[metric] = found[metric].over_seeds().estimate(*RANGE.get(metric, (0.0, 1.0))) if known else None
    row["per_seed"] = {metric: values.values.tolist() for metric, values in found.items()}
    row |= {"undefined": None, "learned_invariance": None, "comparison": None, "transfer": None, "accuracy_gain": None}
    if images != TYPICAL:
        row["undefined"] = unsaid(reports, arm.on(TYPICAL)) or unsaid(its, control.on(TYPICAL)) or None
    if arm is control:
        return row
    compared = compare_invariance(reports, its)
    row["comparison"] = compared
    row["learned_invariance"] = UNDEFINED if row["undefined"] else compared.by[DEFAULT]
    if images != TYPICAL:
        row["transfer"] = transfer((arm.on(TYPICAL), control.on(TYPICAL)), (reports, its))
    if labelled:
        before = per_seed(["accuracy"], [report.statistics for report in its])["accuracy"]
        gain = combine_seeds(lambda a, b: a - b, found["accuracy"], before)
        row["accuracy_gain"] = gain.over_seeds().estimate(-1, 1)
    return row


def carried_over(networks: Sequence[tuple[str, Reports]]) -> dict[str, CarryOver]:
    """Per atypical image set, how much of the networks' invariance arrives there; ``networks`` by name."""
    names = [name for name, _ in networks]
    sets = [images for images in networks[0][1] if images != TYPICAL] if networks else []
    typical = [reports[TYPICAL] for _, reports in networks]
    return {images: carry_over(typical, [reports[images] for _, reports in networks], names) for images in sets}


def response_curve(arm: RunGroup, images: str = TYPICAL, metric: str = "top1_change") -> list[dict[str, Any]]:
    """How often the answer changes against the length of the shift, over all seeds of an arm."""
    reports = arm.on(images)
    return [
        {
            "length": length,
            metric: per_seed([metric], [report.curve[length] for report in reports])[metric]
            .over_seeds()
            .estimate(0, 1),
        }
        for length in reports[0].curve
    ]


def conclusion(
    rows: Sequence[dict[str, Any]],
    arm: str,
    max_shift: float,
    contrast: Contrast = AUGMENTATION,
    carried: dict[str, CarryOver] | None = None,
) -> str:
    """One paragraph: did what differs from the control make the network invariant, and does that carry over?

    Every statement is read off an interval; where it covers zero the word is "undetermined". The network is called
    more, or less, invariant only where three variabilities agree.
    """
    mine = {row["images"]: row for row in rows if row["arm"] == arm}
    typical = mine[TYPICAL]
    seeds = typical["n_seeds"]
    text = (
        f"On {typical['n_images']:,} typical test images and {seeds} training seed{'s' * (seeds > 1)}, under shifts"
        f" of up to {max_shift:g} px: {compared_words(typical['comparison'], contrast, typical['top1_change'])}"
    )
    gain = typical["accuracy_gain"]
    if gain is not None:
        word = {"positive": "rose", "negative": "fell"}.get(verdict(gain), "changed in an undetermined direction")
        text += f" Accuracy {word}: {_points(gain)}."
    others = [row for images, row in mine.items() if images != TYPICAL]
    if others and contrast.augmentation:
        words = [_carries_over(row, (carried or {}).get(row["images"])) for row in others]
        text += f" Does it carry over to atypical images? {' '.join(words)}"
    return text


def compared_words(found: InvarianceComparison, contrast: Contrast, top1_change: Estimate) -> str:
    """What a comparison says, as one sentence or two."""
    learned = found.by[DEFAULT]
    beside = ", ".join(f"by {TITLES[m]} {_percent(e)}" for m, e in found.by.items() if m != DEFAULT)
    if found.verdict == "more":
        return (
            f"{contrast} removed {_percent(learned)} of the network's variability ({beside}). It made the network more"
            f" invariant, though not invariant: the top-1 answer still changes for {_percent(top1_change)} of pairs of"
            " shifts."
        )
    if found.verdict == "less":
        return f"{contrast} made the network less invariant (learned invariance {_percent(learned)}; {beside})."
    if found.verdict == "disputed":
        against = " and ".join(f"{TITLES[m]} ({_percent(found.by[m])})" for m in found.dissent)
        return (
            f"whether {contrast} made the network more invariant is disputed: shift information says"
            f" {_percent(learned)}, {against} {'does' if len(found.dissent) == 1 else 'do'} not agree in sign."
        )
    if found.verdict == "undetermined":
        return (
            f"whether {contrast} made the network more invariant is undetermined (learned invariance"
            f" {_percent(learned)}; {beside})."
        )
    return "the control hardly varies, or answers say nothing about the images, so learned invariance is undefined."


def _carries_over(row: dict[str, Any], carried: CarryOver | None) -> str:
    images, learned, moved = row["images"], row["learned_invariance"], row["transfer"]
    name = images.capitalize()
    if row["undefined"]:
        return f"{name}: undefined: {row['undefined']}, less than {100 * LEAST_SAID:.0f} %."
    if not learned.defined or not moved.defined:
        return f"{name}: undefined, the control hardly varies there."
    numbers = f"learned invariance {_percent(learned)}, {_points(moved)} against typical images"
    if carried is not None and carried.slope.defined:
        return f"{name}: {arrives(carried)}; {numbers}."
    if verdict(moved) == "undetermined":
        return f"{name}: undetermined ({numbers})."
    if verdict(moved) == "positive":
        return f"{name}: yes, and more than on typical images ({numbers})."
    part = {
        "positive": "only in part",
        "negative": "no, it does harm there",
        "undetermined": "less than on typical images, and whether at all is undetermined",
    }[verdict(learned)]
    return f"{name}: {part} ({numbers})."


def arrives(found: CarryOver) -> str:
    """How much of the invariance arrives, in words, with the slope."""
    low, high = found.slope.low, found.slope.high
    if low > 0:
        word = "only in part" if high < 1 else "yes, more than was gained on typical images" if low > 1 else "yes"
    elif high < 0:
        word = "no, it does harm there"
    else:
        word = "undetermined, and not all of it" if high < 1 else "undetermined"
    return f"{word}: {_percent(found.slope)} of it arrives (slope over {len(found.names)} networks)"


def _percent(estimate: Estimate) -> str:
    if not estimate.defined:
        return "undefined"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
