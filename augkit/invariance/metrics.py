"""Output metrics: pure functions of a network's answers under two displacements, or under many.

Three layers, each testable without a network:

- pairwise functions of probabilities ``p`` and ``q`` ``(..., K)`` under s and t, or of logits, which give ``(...)``;
- functions of the top-1 answers under many displacements;
- `ROWS`: every reported number as a function of means over images of per-image statistics, so that a bootstrap
  over images needs only means, even for kappa, which is not a plain mean.

A new metric is one function and one row. The accumulator gathers the statistics of a `Pairwise` function. The report
with its interval, the tables of `augkit.measure`, learned invariance, studies and
`augkit.adapters.torchmetrics.PairMean` are derived from the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from augkit.core.errors import InputError
from augkit.invariance.information import SMALLEST, information, share_of_shift

Means = dict[str, Tensor]


def top1_change(p: Tensor, q: Tensor) -> Tensor:
    """Return 1 where the most probable class differs, else 0, ``(...)`` (Azulay & Weiss 2019)."""
    return (p.argmax(-1) != q.argmax(-1)).to(p.dtype)


def mean_absolute_change(p: Tensor, q: Tensor) -> Tensor:
    """Return ``|p_k - q_k|``, ``(...)``, for the most probable class k of p; not symmetric (Azulay & Weiss 2019)."""
    top = p.argmax(-1, keepdim=True)
    return (p.gather(-1, top) - q.gather(-1, top)).abs().squeeze(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence in bits, ``(...)`` in [0, 1] (Lin 1991).

    >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    middle = (p + q) / 2
    # As two relative entropies: a difference of entropies would cancel where p and q are close.
    divergence = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    # p / middle is NaN where both are 0; such a class contributes 0.
    bits = torch.nan_to_num(divergence, nan=0.0).sum(-1) / (2 * torch.log(torch.tensor(2.0, dtype=p.dtype)))
    return bits.clamp(0, 1)


def mean_logit_change(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean ``|a_k - b_k|``, ``(...)``, over the classes of logits ``(..., K)``, in their unit.

    >>> mean_logit_change(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item()
    1.5
    """
    return (a - b).abs().mean(-1)


def largest_logit_change(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest ``|a_k - b_k|``, ``(...)``, over the classes of logits ``(..., K)``, in their unit.

    >>> largest_logit_change(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item()
    3.0
    """
    return (a - b).abs().amax(-1)


def cosine_change(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine distance ``(...)`` in [0, 2] of logits ``(..., K)`` after subtracting their means.

    Zhang 2019 takes the cosine distance of internal features. Here the means of the logits over classes are subtracted
    first, as softmax ignores them. The distance does not depend on a factor on the logits, hence not on confidence.
    Equal logits have no direction: the distance between two such vectors is 0, and to any other vector 1/2.

    >>> round(cosine_change(torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 2.0, -2.0])).item(), 6)
    0.5
    """

    def direction(values: Tensor) -> Tensor:
        centered = values - values.mean(-1, keepdim=True)
        return centered / torch.linalg.vector_norm(centered, dim=-1, keepdim=True).clamp_min(SMALLEST)

    # Half a squared distance of unit vectors: 1 minus the product would cancel where the vectors are close.
    return (direction(a) - direction(b)).square().sum(-1) / 2


def worst_case(unshifted: Tensor, moved: Tensor) -> Tensor:
    """Return whether the answer to an image changes anywhere on a grid, bool ``(N,)``.

    Args:
        unshifted: answers ``(N,)`` to the unshifted images.
        moved: answers ``(N, G)`` at the G places of the grid.

    >>> worst_case(torch.tensor([3, 3]), torch.tensor([[3, 3], [3, 1]])).tolist()
    [False, True]
    """
    return (moved != unshifted[:, None]).any(-1)


def jaggedness(answers: Tensor) -> Tensor:
    """Count the changes ``(N,)`` of the top-1 answer ``(N, L + 1)`` along a path of L steps (Azulay & Weiss 2019).

    >>> jaggedness(torch.tensor([[1, 1, 2, 1, 1]])).tolist()
    [2]
    """
    return (answers[:, 1:] != answers[:, :-1]).sum(-1)


def kappa(changed: Tensor, shares: Tensor) -> Tensor:
    """Return consistency corrected for chance, ``(C - C0) / (1 - C0)`` with ``C0 = sum_k shares_k ** 2``, ``(...)``.

    Args:
        changed: mean top-1 change ``(...)``; C is 1 minus that.
        shares: share of predictions per class ``(..., K)``. A constant classifier has C0 = 1 and scores 0.
    """
    return kappa_of_chance(changed, (shares**2).sum(-1))


def kappa_of_chance(changed: Tensor, chance: Tensor) -> Tensor:
    """Return `kappa` from the mean top-1 change and the chance agreement C0, ``(...)`` each."""
    room = 1 - chance
    constant = room < 1e-12
    score = (1 - changed - chance) / torch.where(constant, torch.ones_like(room), room)
    return torch.where(constant, torch.zeros_like(score), score)


@dataclass(frozen=True)
class Pairwise:
    """A statistic of two views of an image.

    Attributes:
        function: maps two tensors ``(..., K)``, one per view, to ``(...)``.
        of: its input, ``probabilities`` or ``logits``.
        largest: whether an image keeps the largest value over its pairs of views; else their mean.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    of: Literal["probabilities", "logits"] = "probabilities"
    largest: bool = False

    def over_pairs(self, values: Tensor) -> Tensor:
        """Reduce values ``(..., pairs)`` to one per image, ``(...)``."""
        return values.amax(-1) if self.largest else values.mean(-1)


@dataclass(frozen=True)
class Metric:
    """The description of one reported number, used by tables, studies, adapters and intervals.

    Attributes:
        name: key in reports and JSON.
        title: title in tables of all metrics.
        meaning: one sentence.
        needs: names of the per-image statistics ``(N, F)`` of whose means the number is a function.
        function: maps means ``(..., F)`` by name to ``(...)``; None for a number that needs two networks.
        short: for headings of narrow columns; the title when empty.
        unit: ``share`` (shown in percent where there is room for a unit), ``bits``, ``logits``, ``changes``, ``dB``,
            ``pixels``, or empty.
        higher_is_better: None where neither direction is better.
        low, high: bounds of the number.
        pairwise: computes the only statistic from two views; None where the statistic has another source.
        denominator: for a share, the total as a function of the means; the share is undefined where that is noise.
        counts: ``pairs`` or ``images`` where the number counts changed answers among them, so that it can be exactly
            0 by chance.
        floor: maps the change of logits by rounding to the value that rounding alone can cause.
        variability: whether learned invariance can use it.
        kept: whether studies keep its statistics.
        on_curves: whether response curves show it.
        table: whether the closing table of a comparison shows it: ``always``, or only with all columns (``full``).
    """

    name: str
    title: str
    meaning: str
    needs: tuple[str, ...]
    function: Callable[[Means], Tensor] | None
    short: str = ""
    unit: Literal["share", "bits", "logits", "changes", "dB", "pixels", ""] = "share"
    higher_is_better: bool | None = False
    low: float = 0.0
    high: float = 1.0
    pairwise: Pairwise | None = None
    denominator: Callable[[Means], Tensor] | None = None
    counts: Literal["pairs", "images", ""] = ""
    floor: Callable[[float], float] = lambda moved: 0.0
    variability: bool = False
    kept: bool = False
    on_curves: bool = False
    table: Literal["always", "full", ""] = ""

    def __call__(self, means: Means) -> Tensor:
        if self.function is None:
            raise InputError(f"'{self.name}' is a number of two networks; see `learned_invariance`")
        return self.function(means)

    @property
    def needs_labels(self) -> bool:
        """Whether the number exists only for labeled images."""
        return any(need.endswith("correct") for need in self.needs)

    @property
    def brief(self) -> str:
        """The short title, or the title where there is no short one."""
        return self.short or self.title

    @property
    def factor(self) -> float:
        """Factor from the number to its display in its unit."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def digits(self) -> int:
        """Digits after the decimal point in that display."""
        return 1 if self.unit in ("share", "dB") else 3

    def heading(self, title: str, *, percent: bool = True) -> str:
        """Return a title with the unit.

        Args:
            title: the title without its unit.
            percent: whether shares are shown in percent.
        """
        shown = {"bits": "bits", "dB": "dB", "pixels": "pixels", "share": "%" if percent else ""}
        unit = shown.get(self.unit, "")
        return f"{title}, {unit}" if unit else title


def _first(statistic: str) -> Callable[[Means], Tensor]:
    """Return a function that reads the mean of a statistic of one number per image."""
    return lambda means: means[statistic][..., 0]


def _js_floor(moved: float) -> float:
    # Logits that move by up to d move JS by at most about d**2 / (8 ln 2) bits; entropies are kept in float32.
    return max(1e-9, moved**2 / (8 * math.log(2)))


def _row(name: str, title: str, statistic: str, meaning: str, **facts: Any) -> Metric:
    """Return a metric that is the mean of one statistic."""
    return Metric(name, title, meaning, (statistic,), _first(statistic), **facts)


_ACCURACY = {"higher_is_better": True}
_JS = {"unit": "bits", "floor": _js_floor}
_LOGITS = {"unit": "logits", "high": math.inf, "variability": True}
ROWS = (
    _row(
        "accuracy", "accuracy", "correct", "share of unshifted images whose answer is the label",
        **_ACCURACY, kept=True, on_curves=True, table="always",
    ),
    _row(
        "shifted_accuracy", "accuracy under shift", "shifted_correct",
        "share of answers to the shifted images that are the label", **_ACCURACY, kept=True,
    ),
    _row(
        "grid_accuracy", "accuracy on the grid, mean", "grid_correct",
        "share of answers at the places of the grid that are the label", **_ACCURACY,
    ),
    _row(
        "worst_accuracy", "accuracy on the grid, worst case", "worst_correct",
        "share of images whose answer is the label at every place of the grid", **_ACCURACY,
    ),
    Metric(
        "shift_information", "shift information",
        "share of the information in the answers that is about the shift and not about the image",
        ("shift_bits", "answer_bits", "answer_mean"), share_of_shift,
        denominator=information, floor=_js_floor, variability=True, kept=True, table="always",
    ),
    Metric(
        "entropy_matched_js", "entropy-matched JS",
        "JS after the logits were scaled until the answers are as confident as those of the control",
        ("tempered_js", "tempered_bits"), None, unit="bits", floor=_js_floor, variability=True, kept=True,
    ),
    Metric(
        "information", "answers say", "information in the answers about image and shift together",
        ("answer_bits", "answer_mean"), information, unit="bits", higher_is_better=None, high=math.inf,
    ),
    _row(
        "top1_change", "top-1 change", "changed",
        "share of pairs of shifts whose most probable classes differ (Azulay & Weiss 2019)",
        pairwise=Pairwise(top1_change), counts="pairs", variability=True, kept=True, on_curves=True, table="full",
    ),
    Metric(
        "consistency", "consistency", "share of pairs of shifts whose most probable class is the same (Zhang 2019)",
        ("changed",), lambda means: 1 - means["changed"][..., 0], higher_is_better=True,
    ),
    _row(
        "mac", "mean absolute change", "mac",
        "change of the probability of the class that the first of two shifts favors (Azulay & Weiss 2019)",
        pairwise=Pairwise(mean_absolute_change), floor=lambda moved: moved / 2, variability=True, kept=True,
    ),
    _row(
        "js", "Jensen-Shannon divergence", "js",
        "distance of the probabilities under two shifts (Lin 1991); it also falls where answers are less confident",
        short="JS", **_JS, pairwise=Pairwise(jensen_shannon), variability=True, kept=True, on_curves=True, table="full",
    ),
    Metric(
        "kappa", "kappa", "consistency beyond what the shares of the classes give by chance; 0 of a constant network",
        ("changed", "shares"), lambda means: kappa(means["changed"][..., 0], means["shares"]),
        unit="", higher_is_better=True, low=-1.0, table="full",
    ),
    _row(
        "worst_case", "worst case: changed somewhere on the grid", "worst",
        "share of images whose answer changes at some place of the grid", counts="images", variability=True,
    ),
    _row(
        "jaggedness", "jaggedness: changes along the path", "jagged",
        "changes of the answer along a path of one-pixel steps (Azulay & Weiss 2019)",
        unit="changes", high=math.inf, counts="images", variability=True,
    ),
    _row(
        "logit_change", "logits move by, mean over classes", "logit", "absolute change of the logits under two shifts",
        **_LOGITS, pairwise=Pairwise(mean_logit_change, "logits"), floor=lambda moved: moved, kept=True,
    ),
    _row(
        "logit_change_max", "logits move by, largest of an image", "logit_max",
        "largest absolute change of a logit, over the classes and pairs of an image",
        **_LOGITS, pairwise=Pairwise(largest_logit_change, "logits", largest=True), floor=lambda moved: moved,
    ),
    _row(
        "cosine_change", "cosine distance of logits", "cosine",
        "1 minus the cosine between the logits under two shifts; it does not depend on confidence",
        unit="", high=2.0, pairwise=Pairwise(cosine_change, "logits"), floor=lambda moved: max(1e-9, moved**2 / 2),
        variability=True, kept=True,
    ),
    _row(
        "from_unshifted_js", "JS of shifted and unshifted", "from_unshifted_js",
        "JS of one shift of each pair and no shift, beside the controls by blur", **_JS, variability=True,
    ),
    _row(
        "from_unshifted_top1_change", "top-1 change, shifted and unshifted", "from_unshifted_changed",
        "top-1 change of one shift of each pair and no shift, beside the controls by blur",
    ),
    _row(
        "blur_only_js", "JS of blurred and unshifted", "blur_only_js",
        "JS of an image blurred as the shift blurs it, but not moved, and the image itself", **_JS, variability=True,
    ),
    _row(
        "blur_only_top1_change", "top-1 change, blurred and unshifted", "blur_only_changed",
        "top-1 change of an image blurred as the shift blurs it, but not moved, and the image itself",
    ),
    _row(
        "blur_matched_js", "JS of shifted and as much blurred", "blur_matched_js",
        "JS of a shifted image and one that is blurred alike, but not moved", **_JS, variability=True,
    ),
    _row(
        "blur_matched_top1_change", "top-1 change, shifted and as much blurred", "blur_matched_changed",
        "top-1 change of a shifted image and one that is blurred alike, but not moved",
    ),
)  # fmt: skip
METRICS: dict[str, Metric] = {row.name: row for row in ROWS}


def names_of(chosen: Callable[[Metric], Any]) -> tuple[str, ...]:
    """Return the names of the metrics for which ``chosen`` is true, in the order of `ROWS`.

    >>> names_of(lambda row: row.table == "full")
    ('top1_change', 'js', 'kappa')
    """
    return tuple(row.name for row in ROWS if chosen(row))


# Statistics of two views, by name.
PAIRWISE = {row.needs[0]: row.pairwise for row in ROWS if row.pairwise is not None}
# Drawn as response curves, accuracy last.
CURVE_METRICS = tuple(sorted(names_of(lambda row: row.on_curves), key=lambda name: METRICS[name].needs_labels))
# Statistics that studies keep, one number (or row) per image.
KEPT = tuple(dict.fromkeys(need for row in ROWS if row.kept for need in row.needs))
