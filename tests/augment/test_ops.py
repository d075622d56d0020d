"""What each op draws, and how far it reaches."""

from __future__ import annotations

import math

import kornia.augmentation
import pytest
import scipy.stats
import torch
from torch import Tensor

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.augment import geometry
from augkit.augment.base import RandomGeometry

SIZE = (24, 35)  # not square, one side even and one odd


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 4, channels: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, channels, *size, generator=seeded(1))


def drawn(op: RandomGeometry, count: int = 4000, strength: float = 1.0, size: tuple[int, int] = SIZE) -> Tensor:
    """Matrices for ``count`` samples; the first two draw the ends of every range."""
    draws = torch.rand(count, op.draws, generator=seeded())
    draws[0], draws[1] = 0.0, 1 - 2**-24
    return op.matrix(draws, torch.full((count,), strength), size)


def windows(matrix: Tensor, size: tuple[int, int], out: tuple[int, int]) -> tuple[Tensor, ...]:
    """Left, top, right and bottom edge of the window that each crop shows."""
    box = torch.tensor([[[0.0, 0.0, out[1], out[0]]]]).expand(len(matrix), 1, 4)
    return geometry.apply_to_boxes(geometry.invert(matrix), box)[:, 0].unbind(-1)


def is_uniform(values: Tensor, low: float, high: float) -> bool:
    assert values.min() >= low - 1e-5
    assert values.max() <= high + 1e-5
    assert values.max() - values.min() > 0.999 * (high - low)
    return scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_the_inverse_of_kornia_leads_back() -> None:
    rows, columns = torch.arange(40.0)[:, None], torch.arange(50.0)[None]
    blob = torch.exp(-((columns - 24) ** 2 + (rows - 20) ** 2) / 18)[None, None]
    op = RandomSubpixelShift(4.0)
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input"])
    there = container(blob)
    assert (there - blob).abs().max() > 0.05
    torch.testing.assert_close(container.inverse(there), blob, rtol=0, atol=5e-3)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_shifts_are_uniform_in_their_range(strength: float) -> None:
    matrix = drawn(RandomSubpixelShift(3.0), strength=strength)
    assert is_uniform(matrix[:, 0, 2], -3 * strength, 3 * strength)
    assert is_uniform(matrix[:, 1, 2], -3 * strength, 3 * strength)
    assert abs(matrix[:, :2, 2].T.corrcoef()[0, 1]) < 0.1


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_factors_are_uniform_in_their_logarithm(strength: float) -> None:
    matrix = drawn(RandomRescale(1.5), strength=strength)
    assert torch.equal(matrix[:, 0, 0], matrix[:, 1, 1])
    assert is_uniform(matrix[:, 0, 0].log(), -math.log(1.5) * strength, math.log(1.5) * strength)


@pytest.mark.parametrize("out", [None, (20, 20)])
@pytest.mark.parametrize("size", [SIZE, (30, 30), (60, 20)])
def test_windows_have_the_area_drawn_and_lie_inside(size: tuple[int, int], out: tuple[int, int] | None) -> None:
    op = RandomSubpixelCrop(out, area=(0.2, 0.9), ratio=(0.5, 1.6))
    draws = torch.rand(4000, op.draws, generator=seeded())
    draws[0], draws[1] = 0.0, 1 - 2**-24
    left, top, right, bottom = windows(op.matrix(draws, torch.ones(4000), size), size, out or size)
    width, height = right - left, bottom - top
    area = width * height / (size[0] * size[1])
    torch.testing.assert_close(area, 0.2 + 0.7 * draws[:, 1], rtol=1e-4, atol=0)
    assert min(left.min(), top.min()) > -1e-3
    assert right.max() < size[1] + 1e-3
    assert bottom.max() < size[0] + 1e-3
    # Where the range of aspects cannot be had at this area, the window spans the image along one side.
    aspect = width / height
    inside = (aspect > 0.5 - 1e-3) & (aspect < 1.6 + 1e-3)
    spans = (width > size[1] - 1e-3) | (height > size[0] - 1e-3)
    assert (inside | spans).all()
    assert inside.float().mean() > 0.5
    # Anywhere inside, with equal chance.
    torch.testing.assert_close(left, draws[:, 3] * (size[1] - width), rtol=0, atol=1e-3)
    torch.testing.assert_close(top, draws[:, 4] * (size[0] - height), rtol=0, atol=1e-3)


def test_aspects_are_uniform_in_their_logarithm_whatever_the_area() -> None:
    left, top, right, bottom = windows(drawn(RandomSubpixelCrop(area=(0.3, 0.4)), size=(30, 30)), (30, 30), (30, 30))
    width, height = right - left, bottom - top
    assert is_uniform((width / height).log(), math.log(3 / 4), math.log(4 / 3))
    assert abs(torch.stack([width / height, width * height]).corrcoef()[0, 1]) < 0.1


def test_a_crop_shows_its_window() -> None:
    ramp = torch.arange(35.0).expand(1, 1, 24, 35)
    op = RandomSubpixelCrop(area=(0.25, 0.25), ratio=(35 / 24, 35 / 24), kernel="bilinear")
    draws = torch.tensor([[0.0, 0.0, 0.0, 0.4, 0.7]])
    out = Augment(op, kernel="bilinear")(ramp, matrix=op.matrix(draws, torch.ones(1), SIZE))
    # Half of 35 pixels wide, from the edge 0.4 * 17.5 = 7 on: pixel u shows the place 7 + (u + 1/2) / 2 - 1/2.
    torch.testing.assert_close(out[0, 0, 5], 6.75 + torch.arange(35.0) / 2)


def test_flip_mirrors_the_pixels() -> None:
    batch = images(64)
    out = Augment(RandomHorizontalFlip(0.5))(batch, keypoints=torch.zeros(64, 1, 2))
    mirrored = out.matrix[:, 0, 0] < 0
    assert 16 < mirrored.sum() < 48
    assert torch.equal(out.images[mirrored], batch[mirrored].flip(-1))
    assert torch.equal(out.images[~mirrored], batch[~mirrored])
    assert torch.equal(RandomHorizontalFlip(1.0)(batch), batch.flip(-1))


def test_representations_name_the_ranges() -> None:
    assert repr(RandomSubpixelShift(2.5, p=0.5)) == "RandomSubpixelShift(max_pixels=2.5, p=0.5)"
    assert repr(RandomRescale(1.2)) == "RandomRescale(max_factor=1.2, p=1.0)"
    crop = "RandomSubpixelCrop(size=(8, 9), area=(0.5, 1.0), ratio=(0.5, 2.0), p=1.0)"
    assert repr(RandomSubpixelCrop((8, 9), (0.5, 1), (0.5, 2))) == crop
    assert repr(RandomHorizontalFlip()) == "RandomHorizontalFlip(p=0.5)"
    text = repr(Augment(RandomHorizontalFlip(), kernel="sinc", strength=0.5))
    assert "kernel='sinc', padding='zeros', strength=0.5" in text
    assert "RandomHorizontalFlip(p=0.5)" in text
