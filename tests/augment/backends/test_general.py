"""Rotation and shear: `augkit.augment.backends.general`, also by way of `augkit.resample`."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import general, separable
from augkit.augment.kernels import HALF_WIDTH, PADDINGS
from augkit.augment.resample import resample

SIZE, OUT = (9, 12), (8, 7)


def turned(dtype: torch.dtype = torch.float32, size: tuple[int, int] = SIZE) -> Tensor:
    """A rotation that also shrinks, and a shear."""
    degrees, factor = torch.tensor([33.0, 0.0], dtype=dtype), torch.tensor([0.55, 1.1], dtype=dtype)
    shear = torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=dtype)
    rotate, rescale = geometry.rotate(degrees, size), geometry.rescale(factor, size)
    return geometry.compose(rotate, geometry.shear(shear, size), rescale).to(dtype)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_resample_agrees_with_the_reference(kernel: str, padding: str, antialias: bool) -> None:
    images, matrix = torch.rand(2, 2, *SIZE), turned()
    out = resample(images, matrix, OUT, kernel=kernel, padding=padding, antialias=antialias)
    expected = reference.resample_affine(images.numpy(), matrix.numpy(), OUT, kernel, padding, antialias)
    assert np.abs(out.numpy() - expected).max() < 1e-5


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

    assert torch.autograd.gradcheck(act, (images, matrix))


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
