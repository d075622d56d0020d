"""Custom ops that rotate or shear: `Augment`, Kornia and every adapter resample through their matrices."""

from __future__ import annotations

import math

import albumentations as A
import kornia.augmentation
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomShiftBlur, shift_blur
from augkit.adapters.torchvision import Geometry
from augkit.augment import geometry
from augkit.augment import targets as followers
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.augment.base import RandomGeometry
from augkit.augment.geometry import Axes
from augkit.augment.resample import resample, resample_checked

SIZE = (14, 17)


class Sheared(RandomGeometry):
    """A shear that defines its matrix alone, with no bound on how far it shrinks."""

    draws = 3

    def __init__(self, most: float = 0.4, p: float = 1.0) -> None:
        super().__init__(p, "bilinear", "reflection")
        self.most = most

    def matrix(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Tensor:
        factor = self.chosen(draws, (0.3 + 0.7 * draws[:, 1:3]) * self.most)
        return geometry.shear(factor * (strength[:, None] if isinstance(strength, Tensor) else strength), size)


class ShiftThenShear(Sheared):
    """An op with axes whose matrix also shears."""

    def axes(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Axes:
        return Axes(torch.ones_like(draws[:, 1:2]), 3 * draws[:, 1:3])

    def matrix(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Tensor:
        shifted = RandomGeometry.matrix(self, draws, strength, size)
        return geometry.compose(shifted, super().matrix(draws, strength, size))


class Rotated(RandomGeometry):
    """A rotation, which is known not to shrink."""

    draws = 2

    def __init__(self) -> None:
        super().__init__(1.0, "bicubic", "zeros")

    def matrix(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Tensor:
        return geometry.rotate(self.chosen(draws, 20 + 40 * draws[:, 1:2])[:, 0] * strength, size)

    def max_shrink(self, size: tuple[int, int]) -> float:
        return 1.0


OPS = [Sheared, ShiftThenShear, Rotated]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pictures(batch: int = 3) -> Tensor:
    return torch.rand(batch, 2, *SIZE, generator=seeded())


def is_sheared(matrix: Tensor) -> bool:
    return bool((matrix[:, 0, 1].abs() > 0.05).all())


@pytest.mark.parametrize("make", OPS)
def test_augment_moves_images_and_targets_by_one_matrix(make: type[RandomGeometry]) -> None:
    ops = (RandomRescale(1.2), make(), RandomHorizontalFlip())
    augment, images = Augment(*ops, kernel="bilinear", padding="reflection"), pictures()
    masks = torch.randint(0, 9, (3, 1, *SIZE), generator=seeded())
    boxes, points = torch.tensor([[[3.0, 4, 9, 11]]]).expand(3, 1, 4), torch.tensor([[[5.0, 6.0]]]).expand(3, 1, 2)
    out = augment(images, masks=masks, boxes=boxes, keypoints=points, generator=seeded())
    assert is_sheared(out.matrix)
    assert not augment.axis_aligned
    expected = resample(images, out.matrix, kernel="bilinear", padding="reflection")
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        out.masks.double(), resample(masks.double(), out.matrix, kernel="nearest", padding="reflection")
    )
    torch.testing.assert_close(out.keypoints, geometry.apply_to_points(out.matrix, points))
    moved, _ = followers.clip_boxes(geometry.apply_to_boxes(out.matrix, boxes), SIZE)
    torch.testing.assert_close(out.boxes, moved)
    again = augment(images, masks=masks, matrix=out.matrix)
    assert torch.equal(again.images, out.images)
    assert torch.equal(again.masks, out.masks)


def test_matrices_of_all_kinds_are_composed_in_their_order() -> None:
    ops = (RandomRescale(1.5), Sheared(), RandomHorizontalFlip(1.0))
    draws = torch.rand(5, sum(op.draws for op in ops), generator=seeded())
    parts = draws.split([op.draws for op in ops], dim=1)
    each = [op.matrix(part, 0.7, SIZE).double() for op, part in zip(ops, parts, strict=True)]
    total = Augment(*ops).matrix(draws, 0.7, SIZE)
    torch.testing.assert_close(total, (each[2] @ each[1] @ each[0]).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Augment(*ops).matrix(draws, 0.7, SIZE), total)


def test_a_blur_is_applied_before_a_shear() -> None:
    augment, images = Augment(RandomShiftBlur(0.5), Sheared(), kernel="bilinear"), pictures()
    out = augment(images, keypoints=torch.zeros(3, 0, 2), generator=seeded())
    blurred = shift_blur(images, out.blur, kernel="bilinear")
    torch.testing.assert_close(out.images, resample(blurred, out.matrix, kernel="bilinear"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", OPS)
def test_an_op_alone_and_in_a_container_of_kornia_applies_its_matrix(make: type[RandomGeometry]) -> None:
    op, images = make(), pictures()
    masks = (images[:, :1] * 9).round()
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input", "mask", "keypoints"])
    points = torch.tensor([[[5.0, 6.0]]]).expand(3, 1, 2)
    out, moved, moved_points = container(images, masks, points)
    matrix = op.transform_matrix
    assert is_sheared(matrix)
    expected = resample(images, matrix, kernel=op.kernel, padding=op.padding)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert torch.equal(moved, resample(masks, matrix, kernel="nearest", padding=op.padding))
    torch.testing.assert_close(moved_points, geometry.apply_to_points(matrix, points))
    back = container.inverse(out, moved, moved_points)
    inverse = geometry.invert(matrix)
    torch.testing.assert_close(back[0], resample(out, inverse, kernel=op.kernel, padding=op.padding), rtol=0, atol=1e-4)
    assert torch.equal(back[1], resample(moved, inverse, kernel="nearest", padding=op.padding))


def test_in_torchvision() -> None:
    augment = Augment(Sheared(), kernel="bilinear", padding="border")
    image, mask = pictures(1)[0], torch.randint(0, 9, (1, *SIZE), generator=seeded())
    torch.manual_seed(0)
    out = Geometry(augment)({"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)})
    torch.manual_seed(0)
    matrix = augment.sample(1, SIZE)
    assert is_sheared(matrix)
    expected = resample(image[None], matrix, kernel="bilinear", padding="border")[0]
    torch.testing.assert_close(out["image"].as_subclass(Tensor), expected, rtol=0, atol=1e-5)
    moved = resample(mask[None].float(), matrix, kernel="nearest", padding="border")[0]
    assert torch.equal(out["mask"].as_subclass(Tensor), moved.long())


def test_in_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = PolicyTransform({"shift": {"max_pixels": 1.0}, "kernel": "bilinear", "padding": "border"})
    augment = Augment(Sheared(), kernel="bilinear", padding="border")
    monkeypatch.setattr(transform, "_augment", augment)
    image = pictures(1)[0].permute(1, 2, 0).contiguous().numpy()
    mask = (image[..., 0] * 9).astype(np.int32)
    out = A.ReplayCompose([transform])(image=image, mask=mask)
    matrix = torch.as_tensor(np.array(out["replay"]["transforms"][0]["params"]["matrix"]), dtype=torch.float32)[None]
    assert is_sheared(matrix)
    expected = resample(torch.from_numpy(image).permute(2, 0, 1)[None], matrix, kernel="bilinear", padding="border")
    np.testing.assert_allclose(out["image"], expected[0].permute(1, 2, 0).numpy(), atol=1e-5)
    moved = resample(torch.from_numpy(mask)[None, None].float(), matrix, kernel="nearest", padding="border")[0, 0]
    assert np.array_equal(out["mask"], moved.numpy())


def test_matrices_are_not_axis_aligned_unless_declared() -> None:
    images, matrix = pictures(), geometry.rotate(torch.tensor([20.0]), SIZE).expand(3, 3, 3)
    expected = resample(images, matrix, kernel="bilinear")
    torch.testing.assert_close(resample_checked(images, matrix, SIZE, "bilinear", "zeros", 1.0), expected)
    moved = followers.move_masks(images, matrix, SIZE, "zeros")
    assert torch.equal(moved, resample(images, matrix, kernel="nearest"))
    assert RandomRescale(1.1).axis_aligned
    assert not any(make().axis_aligned for make in OPS)


def test_an_op_with_a_matrix_may_declare_itself_axis_aligned() -> None:
    class Wide(Sheared):
        axis_aligned = True

        def matrix(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Tensor:
            one = torch.ones(len(draws))
            return geometry.axis_aligned(1.1 * one, 0.3 * one, one, 0 * one)

    op, images = Wide(), pictures()
    torch.testing.assert_close(
        op(images), resample(images, op.transform_matrix, kernel="bilinear", padding="reflection")
    )


def test_the_shrink_of_a_shear_without_a_bound_is_measured() -> None:
    assert Sheared().max_shrink(SIZE) == math.inf
    augment, images = Augment(Sheared(1.5), kernel="bicubic"), pictures()
    out = augment(images, keypoints=torch.zeros(3, 0, 2))
    antialiased, sharp = (resample(images, out.matrix, antialias=anti) for anti in (True, False))
    torch.testing.assert_close(out.images, antialiased, rtol=0, atol=1e-5)
    assert not torch.allclose(antialiased, sharp, atol=1e-2)
    assert augment(images[:0]).shape == (0, 2, *SIZE)
