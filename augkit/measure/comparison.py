"""Comparison of runs of several seeds on the same images: the closing table and its conclusion in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from augkit.augment.policy import changes_nothing
from augkit.core.errors import InputError
from augkit.core.json import jsonable
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
from augkit.invariance.metrics import METRICS, names_of
from augkit.train.recipe import Recipe, flat

TYPICAL = "typical"
TABLE_METRICS = names_of(lambda row: row.table)

# The report of one run, by image set.
Reports = dict[str, InvarianceReport]


@dataclass(frozen=True)
class RunGroup:
    """One arm (recipe) of a comparison, with one report per seed, in the same order in every arm.

    ``control`` is the name of the arm that it is compared with; the first one when empty.
    """

    name: str
    reports: list[Reports]
    control: str = ""

    def on(self, images: str) -> list[InvarianceReport]:
        """Return the reports of all seeds on one image set."""
        return [report[images] for report in self.reports]


@dataclass(frozen=True)
class ComparisonRow:
    """One arm on one image set, against its control.

    Attributes:
        arm, images: names of the arm and of the image set.
        n_images, n_seeds: number of images and of training seeds.
        metrics: the metrics of `TABLE_METRICS`; None for one that needs labels if there are none.
        per_seed: the value of each metric for each training seed.
        undefined: why invariance on these images is undefined; None where it is defined.
        learned_invariance: against the control. This and the following are None for the control itself.
        comparison: against the control, by all variabilities (`augkit.invariance.compare_invariance`).
        transfer: learned invariance here minus that on typical images; None for typical images.
        accuracy_gain: accuracy minus that of the control; None without labels.
    """

    arm: str
    images: str
    n_images: int
    n_seeds: int
    metrics: dict[str, Estimate | None]
    per_seed: dict[str, list[float]]
    undefined: str | None = None
    learned_invariance: Estimate | None = None
    comparison: InvarianceComparison | None = None
    transfer: Estimate | None = None
    accuracy_gain: Estimate | None = None

    def __getitem__(self, key: str) -> Any:
        """Return the value at a key of the JSON, for tables whose columns are such keys."""
        return self.metrics[key] if key in self.metrics else getattr(self, key)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, with each metric as a key of its own."""
        found = vars(self).copy()
        first = {key: found.pop(key) for key in ("arm", "images", "n_images", "n_seeds")}
        return jsonable({**first, **found.pop("metrics"), **found})


@dataclass(frozen=True)
class Contrast:
    """The difference between two recipes: the augmentation in words (empty for none), and the other fields."""

    augmentation: str
    others: tuple[str, ...] = ()

    @classmethod
    def between(cls, treated: Recipe, control: Recipe) -> Contrast:
        """Return the contrast of ``treated`` to ``control``."""
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
    """Open the test split; return it as ``typical``, with atypical images made from it."""
    test = dataset.open_test()
    return {TYPICAL: test, **atypical(test, seed=seed, data=dataset.name)}


def closing_table(arms: Sequence[RunGroup]) -> list[ComparisonRow]:
    """Return one row per arm and image set; the first arm is the default control.

    Raises:
        InputError: there are no arms, or they have different numbers of seeds.
    """
    if not arms or len({len(arm.reports) for arm in arms}) != 1:
        raise InputError("comparison: expected arms with as many seeds each")
    by_name, rows = {arm.name: arm for arm in arms}, []
    for arm in arms:
        control = by_name[arm.control] if arm.control else arms[0]
        for images in arm.reports[0]:
            rows.append(_row(arm, control, images))
    return rows


def _row(arm: RunGroup, control: RunGroup, images: str) -> ComparisonRow:
    reports, its = arm.on(images), control.on(images)
    statistics = [report.statistics for report in reports]
    labeled = "correct" in statistics[0]
    names = [metric for metric in TABLE_METRICS if labeled or not METRICS[metric].needs_labels]
    found = per_seed(names, statistics)
    metrics: dict[str, Estimate | None] = dict.fromkeys(TABLE_METRICS)
    for metric in found:
        metrics[metric] = found[metric].over_seeds().estimate(METRICS[metric].low, METRICS[metric].high)
    undefined = None
    if images != TYPICAL:
        undefined = unsaid(reports, arm.on(TYPICAL)) or unsaid(its, control.on(TYPICAL)) or None
    row = ComparisonRow(
        arm.name,
        images,
        n_images=len(statistics[0]["js"]),
        n_seeds=len(reports),
        metrics=metrics,
        per_seed={metric: values.values.tolist() for metric, values in found.items()},
        undefined=undefined,
    )
    if arm is control:
        return row
    compared, gain = compare_invariance(reports, its), None
    if labeled:
        before = per_seed(["accuracy"], [report.statistics for report in its])["accuracy"]
        gain = combine_seeds(lambda a, b: a - b, found["accuracy"], before).over_seeds().estimate(-1, 1)
    return replace(
        row,
        comparison=compared,
        learned_invariance=UNDEFINED if undefined else compared.by[DEFAULT],
        transfer=None if images == TYPICAL else transfer((arm.on(TYPICAL), control.on(TYPICAL)), (reports, its)),
        accuracy_gain=gain,
    )


def carried_over(networks: Sequence[tuple[str, Reports]]) -> dict[str, CarryOver]:
    """Return, per atypical image set, how much of the networks' invariance carries over to it."""
    names = [name for name, _ in networks]
    sets = [images for images in networks[0][1] if images != TYPICAL] if networks else []
    typical = [reports[TYPICAL] for _, reports in networks]
    return {images: carry_over(typical, [reports[images] for _, reports in networks], names) for images in sets}


def response_curve(arm: RunGroup, images: str = TYPICAL, metric: str = "top1_change") -> dict[float, Estimate]:
    """Return a metric by the length of the shift in pixels, over all seeds of an arm."""
    reports, row = arm.on(images), METRICS[metric]
    return {
        length: per_seed([metric], [report.curve[length] for report in reports])[metric]
        .over_seeds()
        .estimate(row.low, row.high)
        for length in reports[0].curve
    }


def conclusion(
    rows: Sequence[ComparisonRow],
    arm: str,
    max_shift: float,
    contrast: Contrast = AUGMENTATION,
    carried: dict[str, CarryOver] | None = None,
) -> str:
    """Return one paragraph: whether the contrast made the network more invariant, and whether that carries over.

    Every statement follows from an interval; if it covers zero the paragraph says "undetermined". It calls the network
    more, or less, invariant only where three variabilities agree.
    """
    mine = {row.images: row for row in rows if row.arm == arm}
    typical = mine[TYPICAL]
    seeds, compared, top1_change = typical.n_seeds, typical.comparison, typical.metrics["top1_change"]
    if compared is None or top1_change is None:
        raise InputError(f"conclusion: expected an arm with a control, '{arm}' is one itself")
    text = (
        f"On {typical.n_images:,} typical test images and {seeds} training seed{'s' * (seeds > 1)}, under shifts"
        f" of up to {max_shift:g} px: {compared_words(compared, contrast, top1_change)}"
    )
    gain = typical.accuracy_gain
    if gain is not None:
        word = {"positive": "rose", "negative": "fell"}.get(verdict(gain), "changed in an undetermined direction")
        text += f" Accuracy {word}: {_points(gain)}."
    others = [row for images, row in mine.items() if images != TYPICAL]
    if others and contrast.augmentation:
        words = [_carries_over(row, (carried or {}).get(row.images)) for row in others]
        text += f" Does it carry over to atypical images? {' '.join(words)}"
    return text


def compared_words(found: InvarianceComparison, contrast: Contrast, top1_change: Estimate) -> str:
    """Return a comparison in one or two sentences."""
    learned = found.by[DEFAULT]
    beside = ", ".join(f"by {METRICS[m].brief} {_percent(e)}" for m, e in found.by.items() if m != DEFAULT)
    if found.verdict == "more":
        return (
            f"{contrast} removed {_percent(learned)} of the network's variability ({beside}). It made the network more"
            f" invariant, though not invariant: the top-1 answer still changes for {_percent(top1_change)} of pairs of"
            " shifts."
        )
    if found.verdict == "less":
        return f"{contrast} made the network less invariant (learned invariance {_percent(learned)}; {beside})."
    if found.verdict == "disputed":
        against = " and ".join(f"{METRICS[m].brief} ({_percent(found.by[m])})" for m in found.dissent)
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


def _carries_over(row: ComparisonRow, carried: CarryOver | None) -> str:
    name, learned, moved = row.images.capitalize(), row.learned_invariance, row.transfer
    if row.undefined:
        return f"{name}: undefined: {row.undefined}, less than {100 * LEAST_SAID:.0f} %."
    if learned is None or moved is None or not learned.defined or not moved.defined:
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
    """Return in words how much of the invariance carries over, with the slope."""
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
