"""Columns of the images of some classes, from the answers that a study keeps; no network runs again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from augkit.core.errors import InputError
from augkit.invariance.accumulator import Accumulator
from augkit.invariance.batch_statistics import measure_batch
from augkit.invariance.metrics import KEPT
from augkit.invariance.plan import Layout


def group_columns(
    answers: np.ndarray, labels: torch.Tensor, classes: Sequence[int], layout: Layout, *, restricted: bool
) -> dict[str, np.ndarray]:
    """Statistics per image, by name, of the images whose label is among ``classes``.

    Args:
        answers: log probabilities ``(N, S, K)`` of N images under S views.
        labels: ``(N,)``.
        classes: numbers of classes.
        layout: the views.
        restricted: renormalize the answers over ``classes``: what the network would say if it knew that the image is
            of one of them.

    Raises:
        InputError: a class is not among the K, or no image is of one of the classes.
    """
    chosen = torch.tensor(sorted(set(classes)))
    if not 0 <= int(chosen.min()) <= int(chosen.max()) < answers.shape[-1]:
        raise InputError(f"groups: expected classes from 0 to {answers.shape[-1] - 1}, got {list(classes)}")
    here = torch.isin(labels, chosen)
    if not bool(here.any()):
        raise InputError(f"groups: expected images of the classes {chosen.tolist()}, there are none")
    logits, truth = torch.from_numpy(answers[here.numpy()]).double(), labels[here]
    if restricted:
        logits, truth = logits[..., chosen], torch.searchsorted(chosen, truth)
    accumulator = Accumulator(layout)
    found = measure_batch(layout, lambda k: logits[:, k])
    nothing = torch.zeros(len(truth), len(layout.columns), 3)
    accumulator.add(found, nothing, truth, torch.zeros(len(truth), dtype=torch.int64))
    statistics = accumulator.statistics()
    named = {name: statistics[name].float().numpy() for name in KEPT if name in statistics}
    return {name: values[:, 0] if values.shape[1] == 1 else values for name, values in named.items()}
