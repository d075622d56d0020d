"""Arguments of ops and of `Augment` that are refused, each in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.core.errors import InputError, InputTypeError

X, SHIFT = torch.zeros(2, 3, 8, 9), RandomSubpixelShift(1.0)
AUGMENT = Augment(SHIFT)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: RandomSubpixelShift(-1.0), InputError, "max_pixels: expected a number at least 0, got -1"),
        (lambda: RandomSubpixelShift(float("inf")), InputError, "max_pixels.*got inf"),
        (lambda: RandomSubpixelShift(float("nan")), InputError, "max_pixels.*got nan"),
        (lambda: RandomSubpixelShift("2"), InputTypeError, "max_pixels: expected a number, got '2'"),
        (lambda: RandomSubpixelShift(True), InputTypeError, "max_pixels: expected a number, got True"),
        (lambda: RandomRescale(0.9), InputError, "max_factor: expected a number at least 1, got 0.9"),
        (lambda: RandomHorizontalFlip(1.1), InputError, r"p: expected a number in \[0, 1\], got 1.1"),
        (lambda: RandomRescale(1.1, p=-0.1), InputError, r"p: expected a number in \[0, 1\], got -0.1"),
        (lambda: RandomSubpixelCrop(area=(0.0, 1.0)), InputError, "area: expected a number"),
        (lambda: RandomSubpixelCrop(area=(0.5, 1.1)), InputError, "area: expected a number"),
        (lambda: RandomSubpixelCrop(area=(0.9, 0.5)), InputError, "area: expected low <= high"),
        (lambda: RandomSubpixelCrop(area=0.5), InputError, r"area: expected \(low, high\), got 0.5"),
        (lambda: RandomSubpixelCrop(ratio=(1.0,)), InputError, r"ratio: expected \(low, high\)"),
        (lambda: RandomSubpixelCrop(ratio=(0.0, 1.0)), InputError, "ratio: expected a number"),
        (lambda: RandomSubpixelCrop((0, 8)), InputError, r"size: expected \(H, W\)"),
        (lambda: RandomSubpixelShift(1.0, kernel="linear"), InputError, "kernel 'linear': did you mean 'bilinear'"),
        (lambda: RandomSubpixelShift(1.0, padding="zero"), InputError, "padding 'zero': did you mean 'zeros'"),
        (lambda: Augment(SHIFT, kernel="lanczos"), InputError, "kernel 'lanczos': did you mean 'lanczos3'"),
        (lambda: Augment(SHIFT, strength=1.5), InputError, r"strength: expected a number in \[0, 1\], got 1.5"),
        (lambda: Augment(nn.Flatten()), InputTypeError, "expected augkit ops.*got Flatten"),
        (lambda: Augment([SHIFT]), InputTypeError, "expected augkit ops.*got list"),
        (lambda: Augment(RandomRescale(1.1), kernel="fourier", padding="circular"), InputError, "'fourier' expects"),
        (lambda: Augment(SHIFT, kernel="fourier"), InputError, "'fourier' expects padding 'circular'"),
        (lambda: Augment(dtype=torch.int64), InputTypeError, "dtype: expected a floating dtype.*int64"),
        (lambda: Augment(dtype="float32"), InputTypeError, "dtype: expected a floating dtype"),
        (lambda: Augment(normalize=(0.5,)), InputTypeError, r"normalize: expected \(mean, std\)"),
        (lambda: Augment(normalize=0.5), InputTypeError, r"normalize: expected \(mean, std\)"),
        (lambda: Augment(normalize=(0.5, 0.0)), InputError, "std above 0"),
        (lambda: Augment(normalize=([0.5] * 3, [1.0])), InputError, "equal length"),
        (lambda: Augment(normalize=([0.5] * 2, [1.0] * 2))(X), InputError, "images of 2 channels, got 3"),
        (lambda: AUGMENT(X[0]), InputError, "images: expected 4 dimensions"),
        (lambda: AUGMENT(X.long()), InputTypeError, "images: expected a floating dtype or uint8"),
        (lambda: AUGMENT(X.numpy()), InputTypeError, "images: expected a torch.Tensor.*ndarray"),
        (lambda: SHIFT(X[0]), InputError, "images: expected 4 dimensions"),
        (lambda: SHIFT(X.byte()), InputTypeError, "images: expected a floating dtype.*uint8"),
        (lambda: SHIFT(X, strength=2), InputError, "strength: expected a number"),
        (lambda: AUGMENT(X, strength=-0.1), InputError, "strength: expected a number"),
        (lambda: AUGMENT(X, strength="all"), InputTypeError, "strength: expected a number, got 'all'"),
        (lambda: AUGMENT(X, strength=torch.ones(3)), InputError, r"strength: expected a scalar or shape \(2,\)"),
        (lambda: AUGMENT(X, strength=torch.tensor([0.5, 1.5])), InputError, r"strength: expected values in \[0, 1\]"),
        (lambda: AUGMENT(X, strength=torch.tensor(math.nan)), InputError, r"strength: expected values in \[0, 1\]"),
        (lambda: AUGMENT(X, generator=3), InputTypeError, "generator: expected a torch.Generator, got int"),
        (lambda: SHIFT(X, generator=3), InputTypeError, "generator: expected a torch.Generator, got int"),
        (lambda: AUGMENT(X, matrix=torch.eye(3).expand(3, 3, 3)), InputError, "matrix: expected shape"),
        (lambda: AUGMENT(X, masks=X[:1]), InputError, "masks: expected the batch, height and width of the images"),
        (lambda: AUGMENT(X, masks=X[..., 1:]), InputError, "masks: expected the batch, height and width"),
        (lambda: AUGMENT(X, masks=X[:, 0]), InputError, "masks: expected 4 dimensions"),
        (lambda: AUGMENT(X, masks=X.cfloat()), InputTypeError, "masks: expected a real tensor"),
        (lambda: AUGMENT(X, boxes=torch.zeros(2, 4)), InputError, r"boxes: expected shape \(2, N, 4\)"),
        (lambda: AUGMENT(X, boxes=torch.zeros(2, 1, 4).long()), InputTypeError, "boxes: expected a floating tensor"),
        (lambda: AUGMENT(X, keypoints=torch.zeros(1, 3, 2)), InputError, r"keypoints: expected shape \(2, N, 2\)"),
        (lambda: AUGMENT(X, keypoints=[[1, 2]]), InputTypeError, "keypoints: expected a floating tensor.*list"),
    ],
)
def test_bad_input(act: Callable[[], Any], error: type[InputError], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        act()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
