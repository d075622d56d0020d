"""Arguments of `resample` and `fourier_shift` that are refused, each in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.resample import fourier_shift, resample
from augkit.core.errors import InputError, InputTypeError


def whole(size: tuple[int, int], out: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that shows an image of ``size`` as a whole at size ``out``."""
    zero = torch.zeros(1, dtype=dtype)
    return geometry.crop(zero, zero, zero + size[1], zero + size[0], out)[0]


IMAGES, EYE = torch.zeros(2, 1, 4, 5), torch.eye(3)
TURN = geometry.rotate(torch.tensor([10.0]), (4, 5))[0]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: resample([[1.0]], EYE), InputTypeError, r"images: expected a torch.Tensor .* got list"),
        (lambda: resample(IMAGES[0], EYE), InputError, r"images: expected 4 dimensions .* images\[None\]"),
        (lambda: resample(IMAGES[None], EYE), InputError, "images: expected 4 dimensions .* got 5"),
        (lambda: resample(IMAGES.long(), EYE), InputTypeError, "images: expected a floating dtype or uint8.*int64"),
        (lambda: resample(IMAGES[..., :0], EYE), InputError, "images: expected at least one pixel"),
        (lambda: resample(IMAGES, EYE.tolist()), InputTypeError, "matrix: expected a floating tensor.*list"),
        (lambda: resample(IMAGES, EYE.long()), InputTypeError, "matrix: expected a floating tensor.*int64"),
        (lambda: resample(IMAGES, EYE.expand(3, 3, 3)), InputError, r"matrix: expected shape \(2, 3, 3\)"),
        (lambda: resample(IMAGES, EYE[:2]), InputError, r"matrix: expected shape .* got \(2, 3\)"),
        (lambda: resample(IMAGES, EYE * float("nan")), InputError, "matrix: expected finite numbers"),
        (lambda: resample(IMAGES, EYE / 0), InputError, "matrix: expected finite numbers"),
        (lambda: resample(IMAGES, torch.diag(torch.tensor([0.0, 1, 1]))), InputError, "invertible.*scale 0"),
        (lambda: resample(IMAGES, TURN * 0), InputError, "invertible.*scale 0"),
        (lambda: resample(IMAGES, EYE * -2), InputError, "positive depth.*multiply it by -1"),
        (lambda: resample(IMAGES, EYE, kernel="bicubik"), InputError, "'bicubik': did you mean 'bicubic'"),
        (lambda: resample(IMAGES, EYE, padding="reflect"), InputError, "'reflect': did you mean 'reflection'"),
        (lambda: resample(IMAGES, EYE, (0, 4)), InputError, r"size: expected \(H, W\).*got \(0, 4\)"),
        (lambda: resample(IMAGES, EYE, (4,)), InputError, r"size: expected \(H, W\)"),
        (lambda: resample(IMAGES, EYE, ()), InputError, r"size: expected \(H, W\)"),
        (lambda: resample(IMAGES, EYE, 4), InputError, r"size: expected \(H, W\).*got 4"),
        (lambda: resample(IMAGES, EYE, (4.5, 4)), InputError, r"size: expected \(H, W\)"),
        (lambda: resample(IMAGES, EYE, ("4", float("nan"))), InputError, r"size: expected \(H, W\)"),
        (lambda: resample(IMAGES, EYE, kernel="fourier"), InputError, "'fourier': expected padding 'circular'"),
        (lambda: resample(IMAGES, EYE, (4, 4), kernel="fourier", padding="circular"), InputError, "shifts only"),
        (lambda: resample(IMAGES, -TURN, kernel="fourier", padding="circular"), InputError, "positive depth"),
        (lambda: resample(IMAGES, TURN, kernel="fourier", padding="circular"), InputError, "shifts only"),
        (lambda: resample(IMAGES, whole((4, 5), (5, 6)), kernel="fourier", padding="circular"), InputError, "shifts"),
        (lambda: fourier_shift(IMAGES[0], [0, 0]), InputError, "images: expected 4 dimensions"),
        (lambda: fourier_shift(IMAGES, torch.zeros(3, 2)), InputError, r"shift: expected shape \(2,\) or \(2, 2\)"),
        (lambda: fourier_shift(IMAGES, [float("inf"), 0]), InputError, "shift: expected finite numbers"),
        (lambda: fourier_shift(IMAGES, "left"), InputTypeError, "shift: expected a tensor.*got str"),
        (lambda: fourier_shift(IMAGES, None), InputTypeError, "shift: expected a tensor.*got NoneType"),
    ],
)
def test_bad_arguments_are_one_line(act: Callable[[], Tensor], error: type[InputError], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        act()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
