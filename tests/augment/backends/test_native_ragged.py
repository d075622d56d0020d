"""Images of different sizes in one buffer: `augkit.augment.backends.native.resample_ragged`."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.kernels import PADDINGS

native = pytest.importorskip("augkit.augment.backends.native", reason="numba is not installed")
SIZES, OUT = [(5, 9), (40, 17), (1, 3), (12, 33)], (11, 19)


def images(dtype: torch.dtype) -> list[Tensor]:
    parts = [torch.rand(2, *size) for size in SIZES]
    return [(255 * part).to(dtype) if dtype == torch.uint8 else part for part in parts]


def flat(parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
    """The images in reverse order in the buffer, with numbers between them that belong to none."""
    gap, values, offsets = torch.full((3,), 7).to(parts[0].dtype), [], []
    for part in reversed(parts):
        values += [gap, part.reshape(-1)]
        offsets.insert(0, sum(value.numel() for value in values) - part.numel())
    return torch.cat(values), torch.tensor(offsets), torch.tensor(SIZES), 2


def aligned() -> Tensor:
    """An enlargement with a flip, strong shrinks, and a move off the image."""
    rows = [[-1.7, 18.3, 2.1, -0.4], [0.3, 1.2, 0.2, 2.5], [3.0, 1.5, 4.0, 6.0], [0.9, -12.0, 0.45, 1.0]]
    return geometry.axis_aligned(*torch.tensor(rows).T)


def turned() -> Tensor:
    return geometry.compose(aligned(), geometry.rotate(torch.tensor([20.0, -75.0, 5.0, 180.0]), OUT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "lanczos3"])
@pytest.mark.parametrize("straight", [True, False])
def test_a_batch_is_its_images_one_at_a_time_bit_for_bit(dtype: torch.dtype, kernel: str, straight: bool) -> None:
    parts, matrix = images(dtype), aligned() if straight else turned()
    bound = torch.tensor([1.0, 5.0, 1.0, 3.0])
    for padding in PADDINGS:
        out = native.resample_ragged(*flat(parts), matrix, OUT, kernel, padding, bound, axis_aligned=straight)
        for k, part in enumerate(parts):
            how = (matrix[k : k + 1], OUT, kernel, padding, float(bound[k]))
            assert torch.equal(out[k], native.resample(part[None], *how, axis_aligned=straight)[0])


@pytest.mark.parametrize("straight", [True, False])
def test_a_batch_agrees_with_the_reference(straight: bool) -> None:
    parts, matrix = images(torch.float32), aligned() if straight else turned()
    out = native.resample_ragged(*flat(parts), matrix, OUT, "bicubic", "reflection", 8.0, axis_aligned=straight)
    run = reference.resample if straight else reference.resample_any
    for k, part in enumerate(parts):
        expected = run(part[None].numpy(), matrix[k : k + 1].numpy(), OUT, "bicubic", "reflection")
        assert np.abs(out[k].numpy() - expected[0]).max() < 1e-5


def test_gain_and_bias_apply_to_each_channel() -> None:
    source, matrix = flat(images(torch.uint8)), aligned()
    gain, bias = torch.tensor([0.5, 2.0]), torch.tensor([1.0, -3.0])
    how = (matrix, OUT, "bilinear", "border", 1.0)
    plain = native.resample_ragged(*source, *how, dtype=torch.float32)
    out = native.resample_ragged(*source, *how, dtype=torch.float32, gain=gain, bias=bias)
    torch.testing.assert_close(out, gain[:, None, None] * plain + bias[:, None, None])


def test_an_empty_batch_gives_an_empty_one() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    out = native.resample_ragged(
        torch.zeros(0), nothing, nothing.reshape(0, 2), 3, torch.zeros(0, 3, 3), OUT, "bilinear", "zeros", 1.0
    )
    assert out.shape == (0, 3, *OUT)
