"""Rotation, shear and perspective: `augkit.augment.backends.general`, also by way of `augkit.resample`."""

from __future__ import annotations

import kornia.geometry.transform
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import general, separable
from augkit.augment.kernels import HALF_WIDTH, PADDINGS
from augkit.augment.matrix_checks import strongest_shrink
from augkit.augment.resample import resample, resample_checked
from augkit.core.errors import InputError

SIZE, OUT = (9, 12), (8, 7)


def turned(dtype: torch.dtype = torch.float32, size: tuple[int, int] = SIZE) -> Tensor:
    """A rotation that also shrinks, and a shear that shrinks along a diagonal."""
    degrees, factor = torch.tensor([33.0, 0.0], dtype=dtype), torch.tensor([0.55, 0.9], dtype=dtype)
    shear = torch.tensor([[0.0, 0.0], [0.47, 0.31]], dtype=dtype)
    rotate, rescale = geometry.rotate(degrees, size), geometry.rescale(factor, size)
    return geometry.compose(rotate, geometry.shear(shear, size), rescale).to(dtype)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_resample_agrees_with_the_reference(kernel: str, padding: str, antialias: bool) -> None:
    images, matrix = torch.rand(2, 2, *SIZE), turned()
    out = resample(images, matrix, OUT, kernel=kernel, padding=padding, antialias=antialias)
    expected = reference.resample_any(images.numpy(), matrix.numpy(), OUT, kernel, padding, antialias)
    assert np.abs(out.numpy() - expected).max() < 1e-5


def tilted(dtype: torch.dtype = torch.float64) -> Tensor:
    """Two perspectives from 9 x 12 to 8 x 7 pixels; the first shrinks more on the left, the second enlarges a part."""
    rows = [
        [[0.5, 0.04, 0.6], [0.07, 0.9, -0.5], [-0.012, 0.02, 1.0]],
        [[1.1, 0.2, -3.0], [-0.1, 1.0, 0.5], [0.03, 0, 1]],
    ]
    return torch.tensor(rows, dtype=dtype)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "lanczos3"])
def test_perspectives_agree_with_the_reference(kernel: str, padding: str, antialias: bool) -> None:
    images, matrix = torch.rand(2, 2, *SIZE, dtype=torch.float64), tilted()
    out = resample(images, matrix, OUT, kernel=kernel, padding=padding, antialias=antialias)
    expected = reference.resample_any(images.numpy(), matrix.numpy(), OUT, kernel, padding, antialias)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-9)


def test_a_perspective_without_antialias_is_that_of_kornia() -> None:
    images, matrix = torch.rand(2, 2, *SIZE), tilted(torch.float32)
    out = resample(images, matrix, OUT, kernel="bilinear", antialias=False)
    theirs = kornia.geometry.transform.warp_perspective(images, matrix, OUT, align_corners=True)
    torch.testing.assert_close(out, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [-2.0, 0.5])
def test_the_scale_of_a_matrix_does_not_count_but_its_sign_does(scale: float) -> None:
    images, matrix = torch.rand(2, 2, *SIZE), tilted()
    if scale < 0:
        with pytest.raises(InputError, match=r"positive depth, got a negative one; multiply it by -1"):
            resample(images, scale * matrix, OUT)
    else:
        torch.testing.assert_close(resample(images, scale * matrix, OUT), resample(images, matrix, OUT))


def test_a_horizon_in_the_output_is_one_line() -> None:
    images, matrix = torch.rand(1, 1, *SIZE), torch.eye(3)[None].clone()
    matrix[:, 2, 0] = 0.1  # the inverse has depth 1 - 0.1 x: 0 at x = 10
    assert resample(images, matrix, (9, 5)).isfinite().all()
    assert resample(images, matrix, (9, 10), antialias=False).isfinite().all()
    for size in ((9, 11), SIZE):
        with pytest.raises(InputError, match=r"^matrix: expected a perspective whose horizon lies outside .*\n*$"):
            resample(images, matrix, size)
    # Unchecked, what lies behind the horizon is far outside the image, and nothing is NaN.
    for padding in PADDINGS:
        out = resample_checked(images, matrix, SIZE, "bicubic", padding, 3.0)
        assert out.isfinite().all()
    assert not resample_checked(images, matrix, SIZE, "bicubic", "zeros", 3.0)[..., 11:].any()


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0])
def test_a_shrink_blurs_along_its_own_direction(degrees: float) -> None:
    """Stripes across the direction that shrinks vanish where they are too fine; stripes along it stay."""
    angle = torch.tensor([degrees], dtype=torch.float64)
    squeeze = geometry.axis_aligned(*[torch.tensor([n], dtype=torch.float64) for n in (0.4, 14 * 0.6, 1, 0)])
    matrix = geometry.compose(geometry.rotate(angle, (29, 29)), squeeze, geometry.rotate(-angle, (29, 29)))
    y, x = torch.meshgrid(*[torch.arange(29, dtype=torch.float64) - 14] * 2, indexing="ij")
    turn = torch.deg2rad(angle)
    for across, left in ((True, False), (False, True)):
        place = torch.cos(turn) * x + torch.sin(turn) * y if across else torch.cos(turn) * y - torch.sin(turn) * x
        waves = torch.cos(0.9 * torch.pi * place)[None, None]
        seen, aliased = (
            resample(waves, matrix, kernel="bicubic", padding="reflection", antialias=on)[..., 9:20, 9:20].std()
            for on in (True, False)
        )
        assert (seen > 0.5 * aliased) == left


def test_the_shrink_of_a_perspective_is_bounded_over_the_output() -> None:
    inverse = np.linalg.inv(tilted().numpy())
    y, x = np.meshgrid(np.linspace(-0.5, 7.5, 60), np.linspace(-0.5, 6.5, 60), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.ones(3600)])
    for matrix, m in zip(tilted(), inverse, strict=True):
        moved = m @ points
        place = moved[:2] / moved[2]
        spans = (m[:2, :2, None] - place[:, None] * m[2, None, :2, None]) / moved[2]
        most = np.linalg.svd(np.moveaxis(spans, 2, 0), compute_uv=False)[:, 0].max()
        assert max(1.0, most) <= strongest_shrink(matrix[None], OUT) <= 1.15 * max(1.0, most)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_axis_aligned_matrices_give_the_same_by_either_path(kernel: str, padding: str) -> None:
    images = torch.rand(2, 2, *SIZE)
    matrix = geometry.axis_aligned(*torch.tensor([[0.6, 1.2], [2.2, -3.3], [-1.7, 0.8], [9.3, 0.4]]))
    for shrink in (1.0, 1.7):
        out = general.resample(images, matrix, OUT, kernel, padding, shrink)
        torch.testing.assert_close(out, separable.resample(images, matrix, OUT, kernel, padding, shrink))


@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_the_identity_and_quarter_turns_move_pixels_and_change_none(kernel: str) -> None:
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(general.resample(images, torch.eye(3)[None], (8, 8), kernel, "zeros", 1.0), images)
    quarter = geometry.rotate(torch.tensor([90.0], dtype=torch.float64), (8, 8))  # counter-clockwise, as rot90
    out = resample(images, quarter, kernel=kernel)
    torch.testing.assert_close(out, torch.rot90(images, 1, (-2, -1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3"])
def test_chunks_change_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, matrix = torch.rand(2, 2, *SIZE), turned()
    expected = resample(images, matrix, kernel=kernel)
    monkeypatch.setattr(general, "CHUNK", 97)
    torch.testing.assert_close(resample(images, matrix, kernel=kernel), expected)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "sinc"])
def test_gradients(kernel: str) -> None:
    images = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    matrix = turned(torch.float64, (4, 5))[:, :2].requires_grad_()

    def act(images: Tensor, rows: Tensor) -> Tensor:
        last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(2, 1, 3)
        return resample(images, torch.cat([rows, last], dim=1), (3, 4), kernel=kernel, padding="reflection")

    assert torch.autograd.gradcheck(act, (images, matrix), fast_mode=True)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_gradients_of_a_perspective(kernel: str) -> None:
    images = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    matrix = tilted().requires_grad_()

    def act(images: Tensor, matrix: Tensor) -> Tensor:
        return resample(images, matrix, (3, 3), kernel=kernel, padding="reflection")

    assert torch.autograd.gradcheck(act, (images, matrix), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    images = (torch.rand(2, 3, *SIZE) * 255).to(dtype)
    out = resample(images, turned(), kernel="bicubic", padding="border")
    exact = resample(images.float(), turned(), kernel="bicubic", padding="border")
    expected = exact.round().clamp(0, 255) if dtype == torch.uint8 else exact
    assert torch.equal(out, expected.to(dtype))


def test_empty_batches_and_constant_images() -> None:
    assert resample(torch.rand(0, 3, 4, 5), turned()[:0], (6, 7)).shape == (0, 3, 6, 7)
    out = resample(torch.full((2, 1, 20, 20), 0.7), turned(size=(20, 20)), kernel="sinc", padding="reflection")
    torch.testing.assert_close(out, torch.full_like(out, 0.7))
