"""`Augment.inverse`: predictions on augmented images come back to the pixels of the input."""

from __future__ import annotations

import kornia.augmentation
import pytest
import torch
from torch import Tensor

from augkit import (
    Augment,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomQuarterTurn,
    RandomRotation,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)
from augkit.augment import geometry
from augkit.core.errors import InputError, InputTypeError

SIZE = (24, 35)


def blobs(batch: int = 3) -> Tensor:
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(35.0), indexing="ij")
    return torch.exp(-((x - 17) ** 2 + (y - 11) ** 2) / 18).expand(batch, 1, 24, 35)


def test_keypoints_boxes_and_images_come_back() -> None:
    ops = (RandomRotation(20.0), RandomPerspective(0.2), RandomSubpixelShift(2.0), RandomHorizontalFlip())
    augment = Augment(*ops, kernel="bicubic", padding="border")
    points = torch.rand(3, 5, 2) * 20
    out = augment(blobs(), keypoints=points, boxes=torch.tensor([[[12.0, 8.0, 22.0, 15.0]]]).expand(3, 1, 4))
    back = augment.inverse(out.matrix, images=out.images, boxes=out.boxes, keypoints=out.keypoints)
    torch.testing.assert_close(back.keypoints, points, rtol=0, atol=1e-3)
    torch.testing.assert_close(back.images, blobs(), rtol=0, atol=0.05)
    # An upright box around a turned one, and back, holds the first box.
    assert (back.boxes[..., :2] < torch.tensor([12.0, 8.0]) + 1e-3).all()
    assert (back.boxes[..., 2:] > torch.tensor([22.0, 15.0]) - 1e-3).all()
    assert back.masks is None


def test_a_crop_comes_back_to_the_size_of_the_input_with_zeros_around_it() -> None:
    augment = Augment(RandomSubpixelCrop(size=(16, 16), area=(0.3, 0.4)), kernel="bilinear", padding="reflection")
    ones = torch.ones(3, 1, *SIZE, dtype=torch.int64)
    out = augment(blobs() * 0 + 1, masks=ones)
    back = augment.inverse(out.matrix, images=out.images, masks=out.masks, size=SIZE)
    assert back.images.shape == back.masks.shape == (3, 1, *SIZE)
    assert back.masks.dtype == torch.int64
    assert ((back.masks.sum(dim=(1, 2, 3)) / (24 * 35)) - 0.35).abs().max() < 0.1
    assert (back.images[back.masks == 0] <= 1).all()
    inside = geometry.apply_to_points(out.matrix, torch.tensor([[[0.0, 0.0]]]).expand(3, 1, 2))
    outside = ((inside < -0.5) | (inside > 15.5)).any(dim=-1)[:, 0]
    assert not back.masks[outside, 0, 0, 0].any()


def test_exact_moves_come_back_bit_for_bit() -> None:
    augment = Augment(RandomQuarterTurn(), RandomHorizontalFlip(), kernel="lanczos3")
    images = torch.rand(8, 2, 12, 12)
    out = augment(images, masks=images)
    back = augment.inverse(out.matrix, images=out.images, masks=out.masks)
    assert torch.equal(back.images, images)
    assert torch.equal(back.masks, images)
    assert torch.equal(augment.inverse(out.matrix[0], images=out.images[:1]).images, images[:1])


def test_shifts_on_the_torus_come_back_whole() -> None:
    augment = Augment(RandomSubpixelShift(5.0), kernel="fourier", padding="circular")
    images = torch.rand(3, 2, 15, 17)
    out = augment(images, masks=images)
    torch.testing.assert_close(augment.inverse(out.matrix, images=out.images).images, images, rtol=0, atol=1e-5)
    whole = geometry.shift(torch.tensor([[4.0, -3.0]]).expand(3, 2))
    out = augment(images, masks=images, matrix=whole)
    assert torch.equal(augment.inverse(whole, masks=out.masks).masks, images)


def test_what_cannot_be_mapped_is_one_line() -> None:
    augment, eye = Augment(RandomHorizontalFlip()), torch.eye(3)[None]
    with pytest.raises(InputError, match="inverse: expected images, masks, boxes or keypoints"):
        augment.inverse(eye)
    with pytest.raises(InputTypeError, match="matrix: expected a floating tensor"):
        augment.inverse(None, keypoints=torch.zeros(1, 1, 2))
    with pytest.raises(InputError, match="matrix: expected shape"):
        augment.inverse(eye, keypoints=torch.zeros(2, 1, 2))
    with pytest.raises(InputError, match="singular"):
        augment.inverse(0 * eye, images=torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match="boxes: expected shape"):
        augment.inverse(eye, boxes=torch.zeros(1, 1, 3))
    turned = Augment(RandomHorizontalFlip(), kornia.augmentation.RandomRotation(10.0))
    with pytest.raises(InputError, match="inverse: expected no op of Kornia that moves pixels, got RandomRotation"):
        turned.inverse(eye, keypoints=torch.zeros(1, 1, 2))
