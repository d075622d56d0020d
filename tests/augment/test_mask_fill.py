"""``mask_fill`` and ``return_matrix``: what lies outside of a mask, and matrices without targets."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.augmentation import RandomRotation as KorniaRotation
from torchvision import tv_tensors

import augkit
from augkit.adapters.torchvision import Geometry
from augkit.core.errors import InputError, InputTypeError

SIDE = 9
IGNORED = 255
PADDINGS = ("zeros", "border", "reflection", "circular")


def shift(x: float, y: float) -> torch.Tensor:
    return torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


@given(st.integers(-SIDE, SIDE), st.integers(-SIDE, SIDE), st.sampled_from(PADDINGS))
def test_pixels_from_outside_have_the_fill_and_others_are_those_without_it(x: int, y: int, padding: str) -> None:
    masks = torch.arange(SIDE * SIDE, dtype=torch.uint8).reshape(1, 1, SIDE, SIDE)
    images = torch.zeros(1, 1, SIDE, SIDE)
    plain = augkit.Augment(augkit.RandomSubpixelShift(1.0), padding=padding)
    filled = augkit.Augment(augkit.RandomSubpixelShift(1.0), padding=padding, mask_fill=IGNORED)
    before = plain(images, masks=masks, matrix=shift(x, y)).masks[0, 0]
    after = filled(images, masks=masks, matrix=shift(x, y)).masks[0, 0]
    for row in range(SIDE):
        for column in range(SIDE):
            inside = 0 <= column - x < SIDE and 0 <= row - y < SIDE
            assert after[row, column] == (before[row, column] if inside else IGNORED)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bool])
def test_rotated_masks_of_every_dtype_differ_only_outside(dtype: torch.dtype) -> None:
    fill = 1 if dtype == torch.bool else 7
    ops = augkit.RandomRotation(max_degrees=40.0)
    masks = torch.ones(3, 2, SIDE, SIDE).to(dtype)
    images = torch.zeros(3, 1, SIDE, SIDE)
    plain, filled = augkit.Augment(ops), augkit.Augment(ops, mask_fill=fill)
    out = plain(images, masks=masks, generator=torch.Generator().manual_seed(0))
    again = filled(images, masks=masks, matrix=out.matrix).masks
    assert again.dtype == dtype
    outside = out.masks == 0  # the mask has ones alone
    assert outside.any()
    assert (again[outside] == fill).all()
    assert torch.equal(again[~outside], out.masks[~outside])


def test_every_door_gives_the_same_mask() -> None:
    policy = augkit.Policy.model_validate({"rotate": {"max_degrees": 30.0}, "shift": {"max_pixels": 3.0}})
    masks = torch.randint(0, 5, (1, 1, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    augment = policy.augment(mask_fill=IGNORED)
    out = augment(images, masks=masks, generator=torch.Generator().manual_seed(1))
    assert (out.masks == IGNORED).any()

    ragged = augkit.Augment(*augment.ops, size=(SIDE, SIDE), mask_fill=IGNORED)
    listed = ragged(list(images), masks=list(masks), matrix=out.matrix).masks[0]
    assert torch.equal(listed, out.masks[0])

    torch.manual_seed(2)
    geometry = Geometry(augment)
    image, mask = geometry(tv_tensors.Image(images[0]), tv_tensors.Mask(masks[0]))
    torch.manual_seed(2)
    assert torch.equal(mask, augment(images, masks=masks).masks[0])
    assert (mask == IGNORED).any()
    assert image.shape == images[0].shape

    twin = policy.albumentations(seed=0, mask_fill=IGNORED)
    pixels = {"image": images[0].permute(1, 2, 0).numpy(), "mask": masks[0, 0].numpy()}
    found = twin(**pixels)["mask"]
    plain = policy.albumentations(seed=0)(**pixels)["mask"]
    outside = found == IGNORED
    assert outside.any()
    assert (plain[outside] == 0).all()
    assert np.array_equal(plain[~outside], found[~outside])
    wide = twin(image=pixels["image"], mask=masks[0, 0].numpy().astype(np.float32))["mask"]
    assert wide.dtype == np.float32
    assert set(np.unique(wide)) <= {0, 1, 2, 3, 4, IGNORED}


def test_the_twin_keeps_its_fill_when_it_is_serialised() -> None:
    twin = augkit.Policy(shift={"max_pixels": 2.0}).albumentations(seed=0, mask_fill=IGNORED)
    again = albumentations.from_dict(albumentations.to_dict(twin))
    assert again.transforms[0].mask_fill == IGNORED


def test_masks_moved_by_kornia_have_the_fill_too() -> None:
    ops = (augkit.RandomSubpixelShift(0.0), KorniaRotation(degrees=(30.0, 30.0), p=1.0))
    masks, images = torch.ones(1, 1, SIDE, SIDE, dtype=torch.int64), torch.zeros(1, 1, SIDE, SIDE)
    plain = augkit.Augment(*ops)(images, masks=masks).masks
    filled = augkit.Augment(*ops, mask_fill=IGNORED)(images, masks=masks).masks
    assert (plain == 0).any()
    assert torch.equal(filled, torch.where(plain == 0, IGNORED, plain))


def test_the_fill_must_be_a_value_of_the_mask() -> None:
    augment = augkit.Augment(augkit.RandomSubpixelShift(1.0), mask_fill=-1)
    images = torch.zeros(1, 1, SIDE, SIDE)
    with pytest.raises(InputError, match=r"mask_fill: expected a value of masks of uint8, 0 to 255, got -1"):
        augment(images, masks=torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8))
    assert augment(images, masks=torch.zeros(1, 1, SIDE, SIDE)).masks.shape == (1, 1, SIDE, SIDE)
    with pytest.raises(InputTypeError, match=r"mask_fill: expected a number such as 255"):
        augkit.Augment(augkit.RandomSubpixelShift(1.0), mask_fill="255")
    twin = augkit.Policy(shift={"max_pixels": 2.0}).albumentations(seed=0, mask_fill=300)
    with pytest.raises(InputError, match=r"mask_fill: expected a value of masks of uint8, 0 to 255, got 300"):
        twin(image=np.zeros((9, 9, 3), np.uint8), mask=np.zeros((9, 9), np.uint8))


@pytest.mark.parametrize(("fill", "dtype"), [(1e6, np.float16), (-1e39, np.float32)])
def test_a_fill_beyond_the_range_of_a_floating_mask_is_refused(fill: float, dtype: Any) -> None:
    image, mask = np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), dtype)
    augment = augkit.Augment(augkit.RandomSubpixelShift(1.0), mask_fill=fill)
    with pytest.raises(InputError, match="mask_fill: expected a finite value of masks of float"):
        augment(torch.zeros(1, 1, 9, 9), masks=torch.from_numpy(mask)[None, None])
    twin = augkit.Policy(shift={"max_pixels": 2.0}).albumentations(seed=0, mask_fill=fill)
    with pytest.raises(InputError, match="mask_fill: expected a finite value of masks of float"):
        twin(image=image, mask=mask)
    with pytest.raises(InputError, match="mask_fill: expected masks of numbers, got complex64"):
        twin(image=image, mask=mask.astype(np.complex64))


def test_matrices_without_targets_replay_the_images() -> None:
    augment = augkit.Augment(augkit.RandomSubpixelShift(2.0), augkit.RandomHorizontalFlip())
    images = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    out = augment(images, return_matrix=True)
    assert out.masks is out.boxes is out.keypoints is None
    assert torch.equal(augment(images, matrix=out.matrix), out.images)
    points = torch.rand(3, 1, 2)
    assert torch.equal(augment(images, keypoints=points, matrix=out.matrix).matrix, out.matrix)
    still = augment.eval()(images, return_matrix=True)
    assert torch.equal(still.matrix, torch.eye(3).expand(3, 3, 3))

    ragged = augkit.Augment(augkit.RandomSubpixelCrop(), size=(6, 6))
    listed = [torch.rand(1, 9, 12), torch.rand(1, 10, 8)]
    found = ragged(listed, return_matrix=True)
    assert torch.equal(ragged(listed, matrix=found.matrix), found.images)
    assert isinstance(augment.train()(images), torch.Tensor)


def test_matrices_come_also_beside_an_op_that_targets_cannot_follow() -> None:
    from kornia.augmentation import RandomElasticTransform

    augment = augkit.Augment(augkit.RandomSubpixelShift(2.0), RandomElasticTransform(p=1.0))
    assert augment(torch.rand(2, 1, 16, 16), return_matrix=True).matrix.shape == (2, 3, 3)
