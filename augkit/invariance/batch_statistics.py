"""Statistics of one batch of images under all views. Logits and probabilities are freed within the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.core.precision import exactly
from augkit.invariance.information import FACTORS, entropy
from augkit.invariance.metrics import PAIRWISE, jensen_shannon
from augkit.invariance.plan import Comparison, Layout

# Statistics of the pairs, by name; the other two come from the top-1 answers and with the comparisons.
PAIR_STATISTICS = {name: row for name, row in PAIRWISE.items() if name not in ("changed", "js")}
BITS = ("shift_bits", "answer_bits")


@dataclass(frozen=True)
class BatchStatistics:
    """Statistics of a batch of B images under S views.

    Attributes:
        top1: ``(B, S)``, the most probable class of each view.
        confidence: ``(B, S)``, the probability of that class.
        measures: ``(B, F)``: for each name of `Layout.measures` the mean JS over its comparisons, then
            `PAIR_STATISTICS` over the pairs, then `BITS`.
        mean: ``(B, K)``, mean probabilities over the views of the pairs.
        tempered: ``(B, 2 F)``: for each factor of `FACTORS` on the logits the mean JS over the pairs, then for each
            factor the entropy in bits of the answer to the unshifted image.
        finite: a tensor of one bool, whether all logits were finite.
        classes: number of classes K.
        log_probabilities: ``(B, S, K)`` float16; None unless they are kept.
    """

    top1: Tensor
    confidence: Tensor
    measures: Tensor
    mean: Tensor
    tempered: Tensor
    finite: Tensor
    classes: int
    log_probabilities: Tensor | None = None


def measure_batch(
    layout: Layout,
    logits_of: Callable[[int], Tensor],
    *,
    keep: bool = False,
    pair_statistics: Sequence[str] = tuple(PAIR_STATISTICS),
) -> BatchStatistics:
    """Compute the logits ``(B, K)`` of each column once, in order, and return their statistics.

    Probabilities are computed in float64 (on the CPU where the device has none). A column is freed after the last
    comparison that needs it. With ``keep``, the log probabilities of all columns are kept.
    """
    rows = [PAIR_STATISTICS[name] for name in pair_statistics]
    due: dict[int, list[Comparison]] = {}
    last_use: dict[int, int] = {}
    for comparison in layout.comparisons:
        ready = max(comparison.first, comparison.second)
        due.setdefault(ready, []).append(comparison)
        for column in (comparison.first, comparison.second):
            last_use[column] = max(last_use.get(column, 0), ready)
    alive: dict[int, tuple[Tensor, Tensor]] = {}
    top1, confidence, finite, classes = [], [], [], 0
    divergence: dict[str, list[Tensor]] = {name: [] for name in layout.measures}
    of_pairs: list[list[Tensor]] = [[] for _ in rows]
    views = {column for pair in layout.pairs for column in pair}
    bits, kept = _Bits(len(views)), []
    for column in range(len(layout.columns)):
        logits = logits_of(column)
        classes = logits.shape[-1]
        exact = exactly(logits)
        p = exact.softmax(-1)
        if column == 0:
            bits.add_unshifted(exact)
        if column in views:
            bits.add_view(p)
        if keep:
            kept.append(exact.log_softmax(-1).to(torch.float16))
        sure, best = p.max(-1)
        top1.append(best)
        confidence.append(sure.to(torch.float32))
        finite.append(torch.isfinite(exact).all())
        if column in last_use:
            alive[column] = (exact, p)
        for name, first, second in due.get(column, ()):
            (a, p), (b, q) = alive[first], alive[second]
            divergence[name].append(jensen_shannon(p, q))
            if name == "pair":
                for values, row in zip(of_pairs, rows, strict=True):
                    values.append(row.function(p, q) if row.of == "probabilities" else row.function(a, b))
                bits.add_pair(a, b)
        alive = {c: kept for c, kept in alive.items() if last_use[c] > column}
    js = [torch.stack(values, dim=-1).mean(-1) for values in divergence.values()]
    paired = [row.over_pairs(torch.stack(values, dim=-1)) for values, row in zip(of_pairs, rows, strict=True)]
    measures = torch.stack([*js, *paired, *bits.of_views()], dim=-1)
    stacked = (torch.stack(top1, dim=1), torch.stack(confidence, dim=1), measures.to(torch.float32))
    summed = (bits.mean.to(torch.float32), bits.tempered(len(layout.pairs)).to(torch.float32))
    return BatchStatistics(
        *stacked, *summed, torch.stack(finite).all(), classes, torch.stack(kept, dim=1) if keep else None
    )


class _Bits:
    """Running sums over views and pairs: probabilities, entropies, and JS with the logits times each factor."""

    def __init__(self, views: int) -> None:
        self.views = views
        self._sum: Tensor | float = 0.0
        self._entropy: Tensor | float = 0.0
        self._js: list[Tensor | float] = [0.0] * len(FACTORS)
        self._unshifted: list[Tensor] = []

    def add_unshifted(self, logits: Tensor) -> None:
        """Add the logits ``(B, K)`` of the unshifted images."""
        self._unshifted = [entropy((factor * logits).softmax(-1)) for factor in FACTORS]

    def add_view(self, p: Tensor) -> None:
        """Add the probabilities ``(B, K)`` of one view."""
        self._sum, self._entropy = self._sum + p, self._entropy + entropy(p)

    def add_pair(self, a: Tensor, b: Tensor) -> None:
        """Add the logits ``(B, K)`` of both views of a pair."""
        for k, factor in enumerate(FACTORS):
            self._js[k] = self._js[k] + jensen_shannon((factor * a).softmax(-1), (factor * b).softmax(-1))

    @property
    def mean(self) -> Tensor:
        """Mean probabilities ``(B, K)``."""
        assert isinstance(self._sum, Tensor)
        return self._sum / self.views

    def of_views(self) -> tuple[Tensor, Tensor]:
        """`BITS`, ``(B,)`` each."""
        assert isinstance(self._entropy, Tensor)
        each = self._entropy / self.views
        return (entropy(self.mean) - each).clamp_min(0), each

    def tempered(self, pairs: int) -> Tensor:
        """As in `BatchStatistics`."""
        js = [torch.as_tensor(total) / pairs for total in self._js]
        return torch.stack([*js, *self._unshifted], dim=-1)
