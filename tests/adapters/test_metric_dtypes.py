"""Metrics for torchmetrics in half precision, and what they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: pip install 'augkit[torchmetrics]'")

from augkit.adapters.torchmetrics import JensenShannon, Kappa, MeanAbsoluteChange, ShiftAccuracy, ShiftInformation
from augkit.core.errors import InputError, InputTypeError


@pytest.mark.parametrize("make", [JensenShannon, MeanAbsoluteChange, lambda: ShiftInformation(5)])
@pytest.mark.parametrize("dtype", [torch.float16, "bfloat16"])
def test_sums_over_many_images_are_not_kept_in_half_precision(make: Any, dtype: Any) -> None:
    half, plain = make().set_dtype(dtype), make()
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        p, q = torch.randn(2, 200, 5, generator=generator).softmax(-1)
        half.update(p, q)
        plain.update(p, q)
    assert torch.equal(half.compute(), plain.compute())


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_of_no_class_are_refused(label: int) -> None:
    p = torch.full((2, 5), 0.2)
    metric = ShiftAccuracy()
    with pytest.raises(
        InputError, match=rf"labels: expected 0 to 4, got {min(0, label)} to {max(0, label)}; leave out"
    ):
        metric.update(p, p, torch.tensor([0, label]))
    with pytest.raises(InputTypeError, match="p and q: expected floating tensors"):
        metric.update([1], p, torch.tensor([0, 1]))


@pytest.mark.parametrize("make", [Kappa, ShiftInformation])
@pytest.mark.parametrize("number", ["5", 5.0, None])
def test_a_number_of_classes_is_an_integer(make: Any, number: Any) -> None:
    with pytest.raises(InputTypeError, match="num_classes: expected an integer"):
        make(number)
