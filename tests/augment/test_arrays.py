"""Images as numpy arrays: what goes to a tensor and back is what it was, whatever its dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkit.augment.arrays import check_array, from_tensor, restored, to_tensor, unit_of, working
from augkit.core.errors import InputError

INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i2", ">u4"]
FLOATS = ["float16", "float32", "float64", ">f4"]


def ends(dtype: np.dtype) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_what_goes_to_floats_and_back_is_what_it_was(name: str) -> None:
    dtype = np.dtype(name)
    values = [0, 1, *ends(dtype)] if dtype.kind in "biu" else [0.0, 0.25, 1.0, -2.0]
    image = np.array([values], dtype)
    unit = unit_of(dtype)
    worked = working(image, unit)
    back = restored(worked, dtype, unit)
    assert back.dtype == dtype
    assert np.array_equal(back, image)
    if dtype.kind in "iu" and dtype != np.uint8:
        assert worked.max() == 1.0  # the largest value stands for 1, as 255 does
    else:
        assert unit == 1.0


@pytest.mark.parametrize("name", ["int16", "uint16", "int32"])
def test_values_between_integers_go_to_the_nearest_and_those_outside_to_the_ends(name: str) -> None:
    dtype = np.dtype(name)
    unit, (low, high) = unit_of(dtype), ends(dtype)
    between = np.array([[2.4, 2.6, 2.5, 3.5, 2.0 * high, -2.0 * high]]) / unit
    assert restored(between, dtype, unit).tolist() == [[2, 3, 2, 4, high, low]]


def test_a_half_is_false_and_more_than_half_is_true() -> None:
    assert restored(np.array([[0.0, 0.5, 0.51, 1.0]], np.float32), np.dtype(bool), 1.0).tolist() == [
        [False, False, True, True]
    ]


def test_what_augment_takes_as_it_is_is_not_copied() -> None:
    for dtype in (np.uint8, np.float32, np.float64):
        image = np.zeros((2, 3), dtype)
        assert working(image, 1.0) is image
        assert restored(image, np.dtype(dtype), 1.0) is image


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 7)])
def test_channels_go_first_and_back(shape: tuple[int, ...]) -> None:
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tensor = to_tensor(image)
    assert tensor.shape == (1, shape[2] if len(shape) == 3 else 1, 4, 5)
    assert torch.equal(tensor[0, 0], torch.from_numpy(image if len(shape) == 2 else image[..., 0].copy()))
    assert np.array_equal(from_tensor(tensor, len(shape)), image)


@pytest.mark.parametrize("shape", [(), (4,), (2, 4, 5, 3)])
def test_only_two_or_three_dimensions_are_an_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W\) or \(H, W, C\)"):
        check_array(np.zeros(shape, np.uint8))
