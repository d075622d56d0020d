"""Output metrics: pure functions of class probabilities under two shifts, and of means over images.

Each pairwise function takes ``p`` and ``q``, ``(..., K)`` probabilities under shifts s and t, and gives
``(...)``. What is not a plain mean over images (kappa) is a function of means, so that a bootstrap over images
needs means alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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


def kappa(changed: Tensor, shares: Tensor) -> Tensor:
    """Consistency corrected for chance, ``(C - C0) / (1 - C0)`` with ``C0 = sum_k shares_k ** 2``.

    ``changed`` ``(...)`` is the mean top-1 change, ``shares`` ``(..., K)`` the share of predictions per class.
    A constant classifier has C0 = 1 and scores 0.
    """
    chance = (shares**2).sum(-1)
    room = 1 - chance
    constant = room < 1e-12
    score = (1 - changed - chance) / torch.where(constant, torch.ones_like(room), room)
    return torch.where(constant, torch.zeros_like(score), score)


def image_statistics(pairs: tuple[Tensor, Tensor], unshifted: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Per-image statistics, each ``(B, F)``, of which every metric is a function of the means.

    Args:
        pairs: probabilities under s and under t, each ``(B, pairs, K)``.
        unshifted: probabilities without a shift, ``(B, K)``.
        labels: ``(B,)`` or None.
    """
    p, q = pairs
    both = torch.cat([p, q], dim=1)
    predictions = both.argmax(-1)
    shares = torch.nn.functional.one_hot(predictions, both.shape[-1]).to(p.dtype).mean(1)
    statistics = {
        "changed": top1_change(p, q).mean(1, keepdim=True),
        "mac": mean_absolute_change(p, q).mean(1, keepdim=True),
        "js": jensen_shannon(p, q).mean(1, keepdim=True),
        "shares": shares,
    }
    if labels is not None:
        statistics["correct"] = (unshifted.argmax(-1) == labels).to(p.dtype)[:, None]
        statistics["shifted_correct"] = (predictions == labels[:, None]).to(p.dtype).mean(1, keepdim=True)
    return statistics


Means = dict[str, Tensor]
# Every metric as a function of means over images, (..., F) each.
METRICS: dict[str, Callable[[Means], Tensor]] = {
    "accuracy": lambda m: m["correct"][..., 0],
    "shifted_accuracy": lambda m: m["shifted_correct"][..., 0],
    "top1_change": lambda m: m["changed"][..., 0],
    "consistency": lambda m: 1 - m["changed"][..., 0],
    "mac": lambda m: m["mac"][..., 0],
    "js": lambda m: m["js"][..., 0],
    "kappa": lambda m: kappa(m["changed"][..., 0], m["shares"]),
}
NEEDS_LABELS = frozenset({"accuracy", "shifted_accuracy"})
