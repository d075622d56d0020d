"""Rotation, perspective, vertical flip, quarter turns, whole shifts, and ranges per axis, against other libraries."""

from __future__ import annotations

import math

import kornia.geometry.transform
import numpy as np
import pytest
import scipy.stats
import torch
import torchvision.transforms.v2.functional as v2
from torch import Tensor

import augkit
from augkit import (
    Augment,
    Policy,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomQuarterTurn,
    RandomRescale,
    RandomRotation,
    RandomShear,
    RandomSubpixelShift,
    RandomVerticalFlip,
)
from augkit.augment import geometry, targets
from augkit.augment.base import RandomGeometry
from augkit.augment.policy import search_space
from augkit.core.errors import InputError

SIZE = (24, 35)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def drawn(op: RandomGeometry, strength: float = 1.0, count: int = 4000) -> Tensor:
    return op.matrix(torch.rand(count, op.draws, generator=seeded()), torch.full((count,), strength), SIZE)


def test_a_rotation_is_that_of_torchvision_and_of_kornia() -> None:
    images, op = torch.rand(1, 2, *SIZE), RandomRotation(40.0)
    matrix = op.matrix(torch.tensor([[0.0, 0.8]]), 1.0, SIZE)  # 24 degrees
    theirs = kornia.geometry.transform.get_rotation_matrix2d(
        torch.tensor([[17.0, 11.5]]), torch.tensor([24.0]), torch.ones(1, 2)
    )
    torch.testing.assert_close(matrix[:, :2], theirs, rtol=0, atol=1e-5)
    out = augkit.resample(images, matrix, kernel="bilinear")
    expected = v2.rotate(images, 24.0, interpolation=v2.InterpolationMode.BILINEAR)
    torch.testing.assert_close(out[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_angles_are_uniform(strength: float) -> None:
    matrix = drawn(RandomRotation(60.0), strength)
    angles = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    assert scipy.stats.kstest(angles, "uniform", (-60 * strength, 120 * strength)).pvalue > 1e-3


def test_a_perspective_is_that_of_torchvision_and_of_kornia() -> None:
    images, op = torch.rand(1, 2, *SIZE), RandomPerspective(0.4)
    matrix = op.matrix(torch.rand(1, 9, generator=seeded()), 1.0, SIZE)
    corners = torch.tensor([[[0.0, 0.0], [34.0, 0.0], [34.0, 23.0], [0.0, 23.0]]])
    moved = geometry.apply_to_points(matrix, corners)
    theirs = kornia.geometry.transform.get_perspective_transform(corners, moved)
    torch.testing.assert_close(matrix, theirs, rtol=0, atol=1e-4)
    out = augkit.resample(images, matrix, kernel="bilinear", antialias=False)
    bilinear = v2.InterpolationMode.BILINEAR
    # Its corners are along the edges of pixels.
    start, end = ((one[0] + 0.5).tolist() for one in (corners, moved))
    expected = v2.perspective(images, start, end, interpolation=bilinear)
    torch.testing.assert_close(out[..., 5:-5, 8:-8], expected[..., 5:-5, 8:-8], rtol=0, atol=2e-3)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_corners_move_inwards_uniformly_and_on_their_own(strength: float) -> None:
    matrix = drawn(RandomPerspective(0.3), strength)
    corners = torch.tensor([[0.0, 0.0], [34.0, 0.0], [34.0, 23.0], [0.0, 23.0]]).expand(4000, 4, 2)
    away = (geometry.apply_to_points(matrix, corners) - corners).abs() / torch.tensor([17.0, 11.5])
    for column in away.flatten(1).T:
        assert scipy.stats.kstest(column, "uniform", (0, 0.3 * strength)).pvalue > 1e-4
    off_diagonal = away.flatten(1).T.corrcoef() - torch.eye(8)
    assert off_diagonal.abs().max() < 0.1


@pytest.mark.parametrize("distortion", [0.1, 0.4, 0.6])
def test_the_bounds_of_a_perspective_hold(distortion: float) -> None:
    op = RandomPerspective(distortion)
    matrix = op.matrix(torch.rand(3000, 9, generator=seeded()).round(decimals=1).double(), 1.0, SIZE)
    y, x = torch.meshgrid(*[torch.linspace(0, n - 1, 7, dtype=torch.float64) for n in SIZE], indexing="ij")
    smallest, largest = geometry.spans(matrix, torch.stack([x, y, torch.ones_like(x)]))
    assert 0.3 * op.max_shrink(SIZE) < 1 / smallest.min() <= op.max_shrink(SIZE) * (1 + 1e-9)
    assert largest.max() <= op.max_enlarge() * 1.1  # which is that of a square


def test_targets_follow_a_perspective() -> None:
    augment = Augment(RandomPerspective(0.3), RandomRotation(15.0), kernel="bilinear")
    images, points = torch.rand(4, 1, *SIZE), torch.rand(4, 3, 2) * 20
    boxes = torch.tensor([[[9.0, 8.0, 20.0, 16.0]]]).expand(4, 1, 4)
    out = augment(images, masks=(9 * images).round(), boxes=boxes, keypoints=points)
    assert out.matrix[:, 2, :2].any()
    torch.testing.assert_close(out.keypoints, geometry.apply_to_points(out.matrix, points))
    assert torch.equal(out.masks, augkit.resample((9 * images).round(), out.matrix, kernel="nearest"))
    assert out.boxes_valid.all()
    replayed = augment(images, keypoints=points, matrix=out.matrix)
    assert torch.equal(replayed.images, out.images)
    assert torch.equal(replayed.keypoints, out.keypoints)


def test_what_lies_behind_the_horizon_is_not_visible() -> None:
    matrix = torch.eye(3)[None].clone()
    matrix[:, 2, 0] = -0.1  # the horizon at x = 10
    points = torch.tensor([[[2.0, 2.0], [10.0, 2.0], [12.0, 2.0]]])
    assert targets.in_front(matrix, points).tolist() == [[True, False, False]]
    boxes = torch.tensor([[[1.0, 1.0, 5.0, 5.0], [8.0, 1.0, 14.0, 5.0], [12.0, 1.0, 14.0, 5.0]]])
    images = torch.rand(1, 1, 9, 12)
    out = Augment(RandomHorizontalFlip())(images, boxes=boxes, keypoints=points, matrix=matrix)
    assert out.boxes_valid.tolist() == [[True, False, False]]
    assert out.keypoints_visible.tolist() == [[True, False, False]]
    assert not out.boxes[:, 1:].any()


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "lanczos3"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_quarter_turns_and_flips_move_pixels_bit_for_bit(kernel: str, dtype: torch.dtype) -> None:
    images = (255 * torch.rand(64, 2, 12, 12)).to(dtype)
    images[0, 0, 0, 0] = float("nan") if dtype.is_floating_point else 0
    out = Augment(RandomQuarterTurn(), kernel=kernel)(images, keypoints=torch.zeros(64, 0, 2))
    turns = [int(n) for n in torch.rad2deg(torch.atan2(out.matrix[:, 0, 1], out.matrix[:, 0, 0])).round() / 90 % 4]
    assert set(turns) == {0, 1, 2, 3}
    for image, turned, k in zip(images, out.images, turns, strict=True):
        np.testing.assert_array_equal(turned.numpy(), np.rot90(image.numpy(), k, (1, 2)))
    flipped = Augment(RandomVerticalFlip(1.0), kernel=kernel)(images)
    np.testing.assert_array_equal(flipped.numpy(), images.flip(-2).numpy())


def test_an_image_that_is_not_square_is_turned_by_a_half() -> None:
    images = torch.rand(64, 1, *SIZE)
    out = Augment(RandomQuarterTurn(1.0), kernel="lanczos3")(images)
    assert torch.equal(out, images.flip((-2, -1)))


@pytest.mark.parametrize("pixels", [3.0, 2.9, (4.0, 0.0)])
def test_whole_shifts_are_rolls_and_each_as_likely(pixels: float | tuple[float, float]) -> None:
    op = RandomSubpixelShift(pixels, whole=True)
    moved = drawn(op)[:, :2, 2]
    for axis, most in zip(moved.T, pixels if isinstance(pixels, tuple) else (pixels, pixels), strict=True):
        values, counts = axis.unique(return_counts=True)
        reach = math.floor(most)
        assert values.tolist() == list(range(-reach, reach + 1))
        assert reach == 0 or scipy.stats.chisquare(counts).pvalue > 1e-3
    images = torch.rand(8, 2, 9, 12)
    out = Augment(op, kernel="lanczos3", padding="circular")(images, keypoints=torch.zeros(8, 1, 2))
    for image, rolled, (x, y) in zip(images, out.images, out.keypoints[:, 0].int().tolist(), strict=True):
        assert torch.equal(rolled, image.roll((y, x), (-2, -1)))
    ends = op.matrix(torch.tensor([[0.0, 0.0, 1 - 2**-24]]), 1.0, SIZE)[0, :2, 2]
    assert (ends.abs() <= torch.tensor(pixels if isinstance(pixels, tuple) else (pixels, pixels))).all()


def test_a_pair_is_a_range_for_each_axis() -> None:
    shift = drawn(RandomSubpixelShift((4.0, 1.0)))[:, :2, 2]
    assert scipy.stats.kstest(shift[:, 0], "uniform", (-4, 8)).pvalue > 1e-3
    assert scipy.stats.kstest(shift[:, 1], "uniform", (-1, 2)).pvalue > 1e-3
    logs = drawn(RandomRescale((2.0, 1.5)))[:, [0, 1], [0, 1]].log()
    for axis, most in zip(logs.T, (math.log(2), math.log(1.5)), strict=True):
        assert scipy.stats.kstest(axis, "uniform", (-most, 2 * most)).pvalue > 1e-3
    assert logs.T.corrcoef()[0, 1].abs() < 0.1
    sheared = drawn(RandomShear((20.0, 0.0)))
    assert sheared[:, 0, 1].abs().max() > 0.3
    assert not sheared[:, 1, 0].any()
    spans = torch.linalg.matrix_norm(drawn(RandomShear((20.0, 5.0))).double().inverse()[:, :2, :2], 2)
    assert 0.95 * RandomShear((20.0, 5.0)).max_shrink(SIZE) < spans.max() < RandomShear((20.0, 5.0)).max_shrink(SIZE)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_other_distributions(strength: float) -> None:
    shift = drawn(RandomSubpixelShift(4.0, distribution="normal"), strength)[:, 0, 2] / strength
    assert scipy.stats.kstest(shift, scipy.stats.truncnorm(-2, 2, scale=2.0).cdf).pvalue > 1e-3
    matrix = drawn(RandomRotation(30.0, distribution="normal"), strength)
    angles = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0])) / strength
    assert scipy.stats.kstest(angles, scipy.stats.truncnorm(-2, 2, scale=15.0).cdf).pvalue > 1e-3
    factors = 1 + (drawn(RandomRescale(2.0, distribution="uniform"), strength)[:, 0, 0] - 1) / strength
    assert scipy.stats.kstest(factors, "uniform", (0.5, 1.5)).pvalue > 1e-3


def test_a_policy_takes_pairs_and_distributions() -> None:
    text = "shift: {max_pixels: [4, 1], whole: true}\nrescale: {max_factor: 1.2, distribution: uniform}"
    policy = Policy.from_yaml(text)
    assert Policy.from_yaml(policy.to_yaml()) == policy
    assert policy.shift.max_pixels == (4.0, 1.0)
    assert str(policy) == "shift (max_pixels 4 × 1, p 1, whole), rescale (max_factor 1.2, p 1, distribution uniform)"
    shift, rescale = policy.geometry()
    assert repr(shift) == "RandomSubpixelShift(max_pixels=(4.0, 1.0), p=1.0, whole=True)"
    assert repr(rescale) == "RandomRescale(max_factor=1.2, p=1.0, distribution='uniform')"
    assert set(search_space(policy)) == {"shift.p", "rescale.max_factor", "rescale.p"}
    assert policy.augment()(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)
    # Fields that came later leave the dumps, and the digests, of older policies as they were.
    assert Policy(shift={}).model_dump()["shift"] == {"max_pixels": 0.0, "p": 1.0, "blur_only": False}
    assert Policy(rescale={}).model_dump()["rescale"] == {"max_factor": 1.0, "p": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shift: {max_pixels: [1, 2, 3]}", r"shift.max_pixels: expected a number or a pair \[x, y\], got \[1, 2, 3\]"),
        ("shift: {max_pixels: [1, -2]}", r"shift.max_pixels: expected greater than or equal to 0"),
        ("shift: {max_pixels: [1, a]}", r"shift.max_pixels: expected a valid number"),
        ("rescale: {max_factor: [1, 17]}", r"rescale.max_factor: expected less than or equal to 16"),
        ("shift: {max_pixels: [1, 2], blur_only: true}", r"shift: expected blur_only with one number max_pixels"),
        ("rotate: {max_degrees: 181}", r"rotate.max_degrees: expected less than or equal to 180"),
        ("perspective: {max_distortion: 0.7}", r"perspective.max_distortion: expected less than or equal to 0.6"),
        ("rotate: {distribution: even}", r"rotate.distribution: expected 'uniform' or 'normal'"),
    ],
)
def test_wrong_fields_of_a_policy_are_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Policy.from_yaml(text)


def test_wrong_arguments_are_one_line() -> None:
    with pytest.raises(InputError, match=r"max_pixels: expected a number or a pair \(x, y\), got \(1.0, 2.0, 3.0\)"):
        RandomSubpixelShift((1.0, 2.0, 3.0))
    with pytest.raises(InputError, match=r"max_factor: expected a number at least 1, got 0.5"):
        RandomRescale((1.5, 0.5))
    with pytest.raises(InputError, match=r"unknown distribution 'norml': did you mean 'normal'"):
        RandomSubpixelShift(1.0, distribution="norml")
    with pytest.raises(InputError, match=r"whole: expected distribution 'uniform'"):
        RandomSubpixelShift(1.0, distribution="normal", whole=True)
    with pytest.raises(InputError, match=r"max_distortion: expected a number in \[0, 0.6\]"):
        RandomPerspective(0.61)
    with pytest.raises(InputError, match=r"max_degrees: expected a number in \[0, 180\]"):
        RandomRotation(200.0)
