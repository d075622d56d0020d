"""Logits ``(B, K)`` as an output like any other: the metrics of two views, from the same rows as `measure_invariance`.

`augkit.measure_invariance` has more: curves, worst cases over a grid, shift information over many views, flips. Here
they stand beside other outputs, with `equivariance_error` on the scale of the logits about their mean over classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augkit.architectures.outputs import check_logits
from augkit.core.errors import InputError
from augkit.core.precision import on_cpu
from augkit.invariance.metrics import METRICS, PAIRWISE
from augkit.invariance.outputs.base import Compared, OutputMeasure, OutputSetting, SameShape, tensor_in
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR

NAMES = ("accuracy", "top1_change", "consistency", "mac", "js", "logit_change", "cosine_change")
ROUNDING = 16 * 2.0**-23  # of the logits' root mean square; logits that vary by less are constant


class LogitMeasure(OutputMeasure):
    """Compares logits."""

    score_name = "Jensen-Shannon divergence"
    rows = (EQUIVARIANCE_ERROR, *(METRICS[name] for name in NAMES))

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        self._same = SameShape()

    def take(self, output: Any, batch: int) -> Tensor:
        """Return the logits ``(B, K)``."""
        found = tensor_in(output)
        check_logits(found, batch)
        return self._same.check(found.to(torch.promote_types(found.dtype, torch.float32)))

    def add(self, first: Tensor, second: Tensor, compared: Compared) -> Tensor:
        """Compare logits ``(B, K)``; the score is the Jensen-Shannon divergence in bits."""
        a, b = on_cpu(first), on_cpu(second)
        p, q = a.softmax(-1), b.softmax(-1)
        values = {
            name: row.function(p, q) if row.of == "probabilities" else row.function(a, b)
            for name, row in PAIRWISE.items()
            if not row.largest
        }
        centered = a - a.mean(-1, keepdim=True)
        scale, size = (torch.linalg.vector_norm(each, dim=-1) for each in (centered, a))
        varied = scale > ROUNDING * size
        moved = torch.linalg.vector_norm(a - b, dim=-1)
        values |= {"relative": torch.where(varied, moved / scale.clamp_min(1e-300), 0.0), "varied": varied.double()}
        if compared.targets is not None:
            labels = compared.targets.cpu()
            if int(labels.max()) >= a.shape[1]:
                raise InputError(f"labels: the model has {a.shape[1]} classes, got label {int(labels.max())}")
            values["correct"] = (a.argmax(-1) == labels).double()
        self.tally.add(compared.start, values)
        return values["js"]
