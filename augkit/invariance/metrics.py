"""Output metrics: pure functions of what a network answers under two displacements, or under many.

Three layers, each testable without a network:

- pairwise functions of probabilities ``p`` and ``q`` ``(..., K)`` under s and t, which give ``(...)``;
- functions of the top-1 answers under many displacements;
- `METRICS`: every reported number as a function of means over images of per-image statistics, so that a bootstrap
  over images needs means alone, also for kappa, which is not a plain mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.invariance.information import information, share_of_shift

Means = dict[str, Tensor]


def top1_change(p: Tensor, q: Tensor) -> Tensor:
    """1 where the most probable class differs (Azulay & Weiss 2019), else 0."""
    return (p.argmax(-1) != q.argmax(-1)).to(p.dtype)


def mean_absolute_change(p: Tensor, q: Tensor) -> Tensor:
    """``|p_k - q_k|`` for the class k that p favours; asymmetric by definition (Azulay & Weiss 2019)."""
    top = p.argmax(-1, keepdim=True)
    return (p.gather(-1, top) - q.gather(-1, top)).abs().squeeze(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits, in [0, 1] (Lin 1991).

    >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    middle = (p + q) / 2
    # As two relative entropies: a difference of entropies would cancel where p and q are close.
    divergence = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    # p / middle is NaN where both are 0; such a class contributes nothing.
    bits = torch.nan_to_num(divergence, nan=0.0).sum(-1) / (2 * torch.log(torch.tensor(2.0, dtype=p.dtype)))
    return bits.clamp(0, 1)


def logit_change(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and largest ``|a_k - b_k|`` over classes of logits ``(..., K)``: absolute, in the unit of the logits.

    >>> [value.item() for value in logit_change(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))]
    [1.5, 3.0]
    """
    difference = (a - b).abs()
    return difference.mean(-1), difference.amax(-1)


def worst_case(unshifted: Tensor, moved: Tensor) -> Tensor:
    """Whether an image's answer changes anywhere on a grid: ``(N,)`` and ``(N, G)`` answers to bool ``(N,)``.

    >>> worst_case(torch.tensor([3, 3]), torch.tensor([[3, 3], [3, 1]])).tolist()
    [False, True]
    """
    return (moved != unshifted[:, None]).any(-1)


def jaggedness(answers: Tensor) -> Tensor:
    """Changes of the top-1 answer along a path: answers ``(N, L + 1)`` to counts ``(N,)`` (Azulay & Weiss 2019).

    >>> jaggedness(torch.tensor([[1, 1, 2, 1, 1]])).tolist()
    [2]
    """
    return (answers[:, 1:] != answers[:, :-1]).sum(-1)


def kappa(changed: Tensor, shares: Tensor) -> Tensor:
    """Consistency corrected for chance, ``(C - C0) / (1 - C0)`` with ``C0 = sum_k shares_k ** 2``.

    ``changed`` ``(...)`` is the mean top-1 change, ``shares`` ``(..., K)`` the share of predictions per class.
    A constant classifier has C0 = 1 and scores 0.
    """
    return kappa_of_chance(changed, (shares**2).sum(-1))


def kappa_of_chance(changed: Tensor, chance: Tensor) -> Tensor:
    """`kappa` where the chance agreement C0 ``(...)`` is at hand."""
    room = 1 - chance
    constant = room < 1e-12
    score = (1 - changed - chance) / torch.where(constant, torch.ones_like(room), room)
    return torch.where(constant, torch.zeros_like(score), score)


@dataclass(frozen=True)
class Metric:
    """One reported number.

    Attributes:
        title: for tables.
        needs: the per-image statistics ``(N, F)`` of whose means it is a function.
        function: means ``(..., F)`` by name to ``(...)``.
        low, high: bounds of the number.
        denominator: what the number is a share of, where it is one; the number is undefined where that is noise.
        counts: whether it counts changed answers, so that it can be exactly 0 by luck.
    """

    title: str
    needs: tuple[str, ...]
    function: Callable[[Means], Tensor]
    low: float = 0.0
    high: float = 1.0
    denominator: Callable[[Means], Tensor] | None = None
    counts: bool = False

    def __call__(self, means: Means) -> Tensor:
        return self.function(means)


def _mean(title: str, statistic: str, high: float = 1.0, *, counts: bool = False) -> Metric:
    return Metric(title, (statistic,), lambda means: means[statistic][..., 0], high=high, counts=counts)


INFINITY = float("inf")
METRICS: dict[str, Metric] = {
    "accuracy": _mean("accuracy", "correct"),
    "shifted_accuracy": _mean("accuracy under shift", "shifted_correct"),
    "grid_accuracy": _mean("accuracy on the grid, mean", "grid_correct"),
    "worst_accuracy": _mean("accuracy on the grid, worst case", "worst_correct"),
    "shift_information": Metric(
        "shift information",
        ("shift_bits", "answer_bits", "answer_mean"),
        share_of_shift,
        denominator=information,
    ),
    "information": Metric("answers say, bits", ("answer_bits", "answer_mean"), information, high=INFINITY),
    "top1_change": _mean("top-1 change", "changed", counts=True),
    "consistency": Metric("consistency", ("changed",), lambda means: 1 - means["changed"][..., 0]),
    "mac": _mean("mean absolute change", "mac"),
    "js": _mean("Jensen-Shannon (bits)", "js"),
    "kappa": Metric(
        "kappa", ("changed", "shares"), lambda means: kappa(means["changed"][..., 0], means["shares"]), low=-1.0
    ),
    "worst_case": _mean("worst case: changed somewhere on the grid", "worst", counts=True),
    "jaggedness": _mean("jaggedness: changes along the path", "jagged", INFINITY, counts=True),
    "logit_change": _mean("logits move by, mean over classes", "logit", INFINITY),
    "logit_change_max": _mean("logits move by, largest of an image", "logit_max", INFINITY),
    "from_unshifted_js": _mean("JS of shifted and unshifted", "from_unshifted_js"),
    "from_unshifted_top1_change": _mean("top-1 change, shifted and unshifted", "from_unshifted_changed"),
    "blur_only_js": _mean("JS of blurred and unshifted", "blur_only_js"),
    "blur_only_top1_change": _mean("top-1 change, blurred and unshifted", "blur_only_changed"),
    "blur_matched_js": _mean("JS of shifted and as much blurred", "blur_matched_js"),
    "blur_matched_top1_change": _mean("top-1 change, shifted and as much blurred", "blur_matched_changed"),
}
NEEDS_LABELS = frozenset({"accuracy", "shifted_accuracy", "grid_accuracy", "worst_accuracy"})
