"""`RandomShear` against a plain loop, scipy, torchvision and Kornia, and in every place where an op can stand."""

from __future__ import annotations

import math

import kornia.geometry.transform
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torchvision.transforms.v2.functional as v2
from torch import Tensor
from torch.func import vmap

import augkit
from augkit import Augment, Policy, RandomHorizontalFlip, RandomRescale, RandomShear, RandomSubpixelShift
from augkit.augment import geometry
from augkit.augment.whole_images import needed_side
from augkit.core.errors import InputError
from augkit.preview.strengths import strength_rows
from augkit.tune.space import Space

SIZE = (24, 35)
EXTREMES = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.5, 1.0], [0.0, 1.0, 0.0]])  # x alone, y alone, both


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def images(batch: int = 4) -> Tensor:
    return torch.rand(batch, 2, *SIZE, generator=seeded())


def looped(image: np.ndarray, degrees_x: float, degrees_y: float) -> np.ndarray:
    """Bilinear, zeros outside, pixel by pixel: where does each output pixel come from?"""
    height, width = image.shape
    forward = np.array([[1, math.tan(math.radians(degrees_x))], [math.tan(math.radians(degrees_y)), 1]])
    middle, out = np.array([(width - 1) / 2, (height - 1) / 2]), np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y = np.linalg.solve(forward, np.array([column, row]) - middle) + middle
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return out


@pytest.mark.parametrize("draw", range(3), ids=["x", "y", "both"])
def test_pixels_are_those_of_a_plain_loop_and_of_scipy(draw: int) -> None:
    image = images(1).double()
    op = RandomShear(12.0)
    matrix = op.matrix(EXTREMES[draw : draw + 1].double(), 1.0, SIZE)
    out = augkit.resample(image, matrix, kernel="bilinear", antialias=False)[0, 0].numpy()
    angles = (2 * EXTREMES[draw, 1:] - 1) * 12
    np.testing.assert_allclose(out, looped(image[0, 0].numpy(), *angles.tolist()), atol=1e-9)
    inverse = np.linalg.inv(matrix[0].numpy())[::-1, ::-1][1:, 1:]  # rows and columns in place of x and y
    offset = np.linalg.inv(matrix[0].numpy())[[1, 0], 2]
    theirs = scipy.ndimage.affine_transform(image[0, 0].numpy(), inverse, offset, order=1, mode="grid-constant")
    np.testing.assert_allclose(out, theirs, atol=1e-9)


@pytest.mark.parametrize(("draw", "shear"), [(0, [-12.0, 0.0]), (1, [0.0, -12.0])])
def test_a_single_angle_is_that_of_torchvision_and_of_kornia(draw: int, shear: list[float]) -> None:
    image = images(1)
    matrix = RandomShear(12.0).matrix(EXTREMES[draw : draw + 1], 1.0, SIZE)
    out = augkit.resample(image, matrix, kernel="bilinear", antialias=False)
    theirs = v2.affine(image, 0.0, [0, 0], 1.0, shear, interpolation=v2.InterpolationMode.BILINEAR)
    torch.testing.assert_close(out[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=0, atol=1e-4)
    center, factor = torch.tensor([[17.0, 11.5]]), math.radians(-12)
    angles = [torch.tensor([factor if axis == draw else 0.0]) for axis in (0, 1)]
    kornias = kornia.geometry.transform.get_shear_matrix2d(center, *angles)
    torch.testing.assert_close(matrix, kornias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_angles_are_uniform_and_independent(strength: float) -> None:
    op = RandomShear(20.0)
    matrix = op.matrix(torch.rand(4000, 3, generator=seeded()), torch.full((4000,), strength), SIZE)
    angles = torch.rad2deg(torch.atan(torch.stack([matrix[:, 0, 1], matrix[:, 1, 0]])))
    for axis in angles:
        assert axis.abs().max() <= 20 * strength + 1e-4
        assert scipy.stats.kstest(axis, "uniform", (-20 * strength, 40 * strength)).pvalue > 1e-3
    assert angles.corrcoef()[0, 1].abs() < 0.1
    center = torch.tensor([[[17.0, 11.5]]]).expand(4000, 1, 2)
    torch.testing.assert_close(geometry.apply_to_points(matrix, center), center, rtol=0, atol=1e-4)


def test_it_is_composed_with_the_others_and_resampled_once_with_all_that_follows() -> None:
    ops = (RandomSubpixelShift(2.0), RandomShear(15.0), RandomRescale(1.2), RandomHorizontalFlip())
    augment, batch = Augment(*ops, kernel="lanczos3", padding="reflection"), images()
    assert not RandomShear(15.0).axis_aligned
    assert not augment.axis_aligned
    masks, points = (batch[:, :1] * 9).round(), torch.rand(4, 3, 2) * 20
    boxes = torch.tensor([[[9.0, 8.0, 20.0, 16.0]]]).expand(4, 1, 4)
    out = augment(batch, masks=masks, boxes=boxes, keypoints=points, generator=seeded())
    draws = torch.rand(4, augment.draws, generator=seeded()).split([op.draws for op in ops], dim=1)
    total = geometry.compose(*[op.matrix(part, 1.0, SIZE) for op, part in zip(ops, draws, strict=True)])
    torch.testing.assert_close(out.matrix, total)
    expected = augkit.resample(batch, total, kernel="lanczos3", padding="reflection")
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    assert torch.equal(out.masks, augkit.resample(masks, out.matrix, kernel="nearest", padding="reflection"))
    torch.testing.assert_close(out.keypoints, geometry.apply_to_points(out.matrix, points))
    moved = geometry.apply_to_boxes(out.matrix, boxes)
    inside = moved.clamp(min=0).minimum(torch.tensor([35.0, 24.0, 35.0, 24.0]))
    torch.testing.assert_close(out.boxes, inside)


@pytest.mark.parametrize("degrees", [5.0, 25.0, 40.0])
def test_its_bound_on_the_shrink_holds_and_is_reached(degrees: float) -> None:
    op = RandomShear(degrees)
    draws = torch.cat([EXTREMES, torch.tensor([[0.0, 1.0, 1.0]]), torch.rand(500, 3)]).double()
    spans = torch.linalg.matrix_norm(op.matrix(draws, 1.0, SIZE).inverse()[:, :2, :2], 2)
    assert spans.max() == pytest.approx(op.max_shrink(SIZE))
    enlarged = torch.linalg.matrix_norm(op.matrix(draws, 1.0, SIZE)[:, :2, :2], 2)
    assert enlarged.max() == pytest.approx(op.max_enlarge())
    crop = augkit.RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0))
    assert needed_side(Augment(op, crop), 32) == math.ceil(64 * op.max_enlarge())


@pytest.mark.parametrize("backend", ["torch", "opencv"])
def test_the_cpu_twin_shows_the_same_image(backend: str) -> None:
    policy = Policy(shear={"max_degrees": 15.0}, kernel="bilinear", padding="border")
    image = images(1)[0].permute(1, 2, 0).contiguous().numpy()
    compose = policy.albumentations(seed=1, backend=backend)
    found = compose(image=image)["image"]
    matrix = torch.from_numpy(compose.transforms[0].params["matrix"])
    assert matrix[0, 1].abs() > 0.005
    expected = policy.augment()(images(1), matrix=matrix[None])
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.integration
def test_a_policy_a_search_and_a_preview_know_it() -> None:
    policy = Policy.from_yaml("shear: {max_degrees: 10, p: 0.5}")
    assert str(policy) == "shear (max_degrees 10, p 0.5)"
    assert repr(policy.augment()).startswith("Augment(RandomShear(max_degrees=10.0, p=0.5)")
    assert repr(Policy(ops=[{"op": "RandomShear", "max_degrees": 4.0}]).augment().ops[0]).startswith("RandomShear(")
    space = Space.of({"name": "x", "data": {"name": "digits"}, "policy": {"shear": {}}}, "x")
    (degrees, share) = space.ranges.values()
    assert (degrees.low, degrees.high, degrees.default, degrees.unit) == (0.0, 15.0, 0.0, "degrees")
    assert share.unit == "probability"
    assert space.preset(1.0) == {"policy.shear.max_degrees": 15.0, "policy.shear.p": 1.0}
    row, _ = strength_rows(torch.zeros(1, 9, 9, dtype=torch.uint8), policy, [0, 1], [0.25])
    assert row.range == "up to ± 10° along x and y; on 50\u00a0% of samples"
    assert row.captions == [["x 0°, y 0°", "x −5°, y −5°"]]


def test_it_compiles_whole_and_runs_in_vmap() -> None:
    augment, batch = Augment(RandomShear(15.0), kernel="bilinear"), images()
    compiled = torch.compile(augment, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = augment(batch)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(batch), expected, rtol=0, atol=1e-5)
    drawn = vmap(augment, randomness="different")(batch[:1].expand(3, 1, 2, *SIZE))
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-2)


@pytest.mark.parametrize("degrees", ["-1", "41", ".nan"])
def test_angles_out_of_range_are_refused_in_one_line(degrees: str) -> None:
    with pytest.raises(InputError, match=r"max_degrees: expected a number in \[0, 40\]"):
        RandomShear(float(degrees.removeprefix(".")))
    with pytest.raises(InputError, match=r"shear.max_degrees: expected"):
        Policy.from_yaml(f"shear: {{max_degrees: {degrees}}}")
