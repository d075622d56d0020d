"""`Augment.from_albumentations`: pipelines, colors and refusals."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import pytest
import torch
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.core.errors import InputError

SIZE = (36, 50)


def photo(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth images in [0, 1], on which a place that is wrong by a hundredth of a pixel shows."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    waves = [torch.sin(x / 5 + k) * torch.cos(y / 4 - k) for k in range(3 * batch)]
    return torch.stack(waves).reshape(batch, 3, *size) * 0.5 + 0.5


def test_a_pipeline_becomes_one_resampling() -> None:
    torch.manual_seed(0)
    pipeline = A.Compose(
        [
            A.RandomResizedCrop((24, 24)),
            A.HorizontalFlip(p=0.3),
            A.Affine(rotate=(-9, 9), p=0.7, border_mode=cv2.BORDER_REFLECT_101),
            A.ToGray(p=0.2),
            A.RandomBrightnessContrast(p=1.0),
            A.Normalize((0.5,) * 3, (0.25,) * 3),
            A.ToTensorV2(),
        ]
    )
    augment = Augment.from_albumentations(pipeline)
    assert [op.p for op in augment.geometry] == [1.0, 0.3, 0.7]
    assert (augment.padding, augment.normalize) == ("reflection", ([0.5] * 3, [0.25] * 3))
    assert augment((255 * photo(4)).to(torch.uint8)).shape == (4, 3, 24, 24)


COLORS = {
    "gray": (A.ToGray(p=1.0), 2e-3),
    "invert": (A.InvertImg(p=1.0), 1e-6),
    "gamma": (A.RandomGamma((140, 140), p=1.0), 1e-5),
    "brightness and contrast": (A.RandomBrightnessContrast((0.1, 0.1), (-0.3, -0.3), p=1.0), 1e-5),
    "blur": (A.GaussianBlur(0, (1.3, 1.3), p=1.0), 2e-3),
    "saturation": (A.ColorJitter((1, 1), (1, 1), (0.6, 0.6), (0, 0), p=1.0), 2e-3),
}


@pytest.mark.parametrize("name", COLORS)
def test_color_ops_are_albumentations(name: str) -> None:
    op, tolerance = COLORS[name]
    image = photo()
    theirs = torch.from_numpy(op(image=image[0].permute(1, 2, 0).contiguous().numpy())["image"]).permute(2, 0, 1)
    assert float((Augment.from_albumentations(op)(image)[0] - theirs).abs().max()) <= tolerance


def test_all_that_cannot_be_taken_is_named_at_once() -> None:
    pipeline = A.Compose(
        [A.ElasticTransform(), A.Rotate(border_mode=cv2.BORDER_REFLECT), A.Affine(fill=3), A.Perspective()]
    )
    with pytest.raises(InputError, match="from_albumentations: cannot convert") as caught:
        Augment.from_albumentations(pipeline)
    for name in ("ElasticTransform", "Rotate (border_mode 2", "Affine (fill other than 0", "Perspective (its"):
        assert name in str(caught.value)
    Augment.from_albumentations(A.Rotate(border_mode=cv2.BORDER_REFLECT), padding="reflection")


@pytest.mark.parametrize(
    ("op", "line"),
    [
        (A.ToGray(num_output_channels=1), r"ToGray \(num_output_channels=1"),
        (A.ToFloat(max_value=1000.0), r"ToFloat \(max_value 1000\)"),
        (A.ToFloat(p=0.5), r"ToFloat \(p=0.5"),
    ],
)
def test_another_number_of_channels_or_range_of_values_is_refused(op: Any, line: str) -> None:
    with pytest.raises(InputError, match=f"cannot convert {line}"):
        Augment.from_albumentations(op)
