"""The region that two views share: pixels outside never count, whatever lies there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.core.errors import InputError
from augkit.invariance.outputs.regions import KERNELS, default_kernel, moved, shared, snapped, strides


@settings(max_examples=40)
@given(st.sampled_from(KERNELS), st.floats(-6, 6), st.integers(-4, 4), st.booleans())
def test_pixels_of_the_region_depend_on_the_map_alone(kernel: str, fraction: float, whole: int, copied: bool) -> None:
    """What an infinite scene has around the map does not change the pixels of the region."""
    move = snapped(torch.tensor([[float(whole) if copied else fraction, 0.0]]))
    scene = torch.rand(1, 1, 2, 64, dtype=torch.float64)
    seen = scene[..., 20:44]
    wanted = moved(scene, move, kernel, circular=False)[..., 20:44]
    found = moved(seen, move, kernel, circular=False)
    mask = shared((2, 24), move, kernel)
    assert torch.allclose(found[0, 0][mask[0]], wanted[0, 0][mask[0]], atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_region_of_a_whole_move_is_the_overlap(kernel: str) -> None:
    mask = shared((5, 6), torch.tensor([[2.0, -1.0], [0.0, 0.0]]), kernel)
    assert mask[0].nonzero().tolist() == [[row, column] for row in range(4) for column in range(2, 6)]
    assert bool(mask[1].all())


def test_a_border_is_left_out_of_both_maps() -> None:
    mask = shared((6, 6), torch.tensor([[1.0, 0.0]]), "sinc", (1.0, 1.0))
    assert mask[0].nonzero().tolist() == [[row, column] for row in range(1, 5) for column in range(2, 5)]


def test_the_default_kernel_is_the_widest_that_leaves_half_of_the_map() -> None:
    def of(side: int, stride: float, whole: bool = True) -> str:
        return default_kernel((side, side), (stride, stride), 8.0, circular=False, whole=whole)

    assert of(8, 1) == "sinc"  # whole pixels are copied
    assert [of(side, 1, whole=False) for side in (64, 30, 24, 20)] == ["sinc", "lanczos3", "bicubic", "bilinear"]
    assert default_kernel((4, 4), (8, 8), 8.0, circular=True, whole=False) == "fourier"


@pytest.mark.parametrize("size", [(7, 7), (5, 8), (24, 16)])
def test_sizes_that_do_not_divide_are_one_line(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="expected a map whose size divides its input's 16 x 16 pixels"):
        strides(size, (16, 16))
