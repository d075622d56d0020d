"""Half precision: modules cast to it, and a default dtype of half precision."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

import augkit
from augkit import (
    Augment,
    RandomHorizontalFlip,
    RandomRescale,
    RandomShiftBlur,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)
from augkit.augment.kernels import HALF_WIDTH

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = [torch.float16, torch.bfloat16]


def pictures(dtype: torch.dtype = torch.float32) -> Tensor:
    images = torch.rand(4, 3, 12, 15, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    return (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)


def full(**options: Any) -> Augment:
    ops = (RandomSubpixelShift(2.0, p=0.5), RandomRescale(1.2), RandomSubpixelCrop((9, 10)), RandomHorizontalFlip())
    return Augment(*ops, **options)


def seeded(act: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return act()


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, lambda m: m.to(torch.bfloat16).float()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, *HALVES])
@pytest.mark.parametrize("training", [True, False])
def test_the_statistics_of_normalize_are_not_rounded(
    training: bool, dtype: torch.dtype, cast: Callable[[nn.Module], nn.Module]
) -> None:
    augment = full(normalize=(MEAN, STD)).train(training)
    network = nn.Sequential(copy.deepcopy(augment), nn.Conv2d(3, 2, 1))
    cast(network)  # as Lightning's "bf16-true" does to a module that holds the transform
    other = network[0]
    assert other.mean.dtype == other.std.dtype == torch.float32
    assert other.mean.flatten().tolist() == pytest.approx(MEAN, abs=1e-7)
    images = pictures(dtype)
    assert torch.equal(seeded(lambda: other(images)), seeded(lambda: augment(images)))


def test_the_statistics_follow_to_double_exactly() -> None:
    augment = full(normalize=(MEAN, STD)).half().double()
    assert augment.mean.flatten().tolist() == list(MEAN)
    images = pictures(torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    assert torch.equal(augment.eval()(images), (images - mean) / std)
    assert full(normalize=(MEAN, STD)).to("meta").mean.device.type == "meta"


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def everything(options: dict[str, Any], training: bool, dtype: torch.dtype) -> list[Tensor]:
    images, points = pictures(dtype), torch.full((4, 2, 2), 7.25, dtype=torch.float32)
    out = full(**options).train(training)(images, masks=images, keypoints=points, boxes=points.flatten(1)[:, None])
    return [value for value in out if value is not None]


@pytest.mark.parametrize("default", HALVES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"normalize": (MEAN, STD)}, {"dtype": torch.float32}])
@pytest.mark.parametrize("training", [True, False])
def test_the_default_dtype_changes_nothing_in_augment(
    training: bool, options: dict[str, Any], dtype: torch.dtype, default: torch.dtype
) -> None:
    expected = seeded(lambda: everything(options, training, dtype))
    with default_dtype(default):
        actual = seeded(lambda: everything(options, training, dtype))
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("default", HALVES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSubpixelShift(2.0, p=0.5),
        lambda: RandomRescale(1.3),
        lambda: RandomSubpixelCrop((9, 10), p=0.7),
        RandomHorizontalFlip,
        lambda: RandomShiftBlur(0.7, p=0.5),
    ],
)
def test_the_default_dtype_changes_nothing_in_an_op(make: Callable[[], Any], default: torch.dtype) -> None:
    op, images = make(), pictures()
    expected, matrix = seeded(lambda: op(images)), op.transform_matrix
    with default_dtype(default):
        assert torch.equal(seeded(lambda: make()(images)), expected)
        assert torch.equal(seeded(lambda: op(images)), expected)
    assert torch.equal(op.transform_matrix, matrix)


@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_the_default_dtype_changes_nothing_in_the_functions(kernel: str) -> None:
    images, recorded = pictures(), pictures(torch.float64).requires_grad_()
    size = (12, 15)
    turn = augkit.augment.geometry.rotate(torch.full((4,), 20.0), size)
    shift = augkit.augment.geometry.shift(torch.full((4, 2), 0.3))

    def act() -> list[Tensor]:
        moved = [augkit.resample(x, m, kernel=kernel) for x in (images, recorded) for m in (turn, shift)]
        return [*moved, augkit.fourier_shift(images, [0.3, 0.7]), augkit.shift_blur(images, [0.3, 0.7], kernel=kernel)]

    expected = act()
    with default_dtype(torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(act(), expected, strict=True))


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing_in_the_evaluation_of_a_converted_pipeline(default: torch.dtype) -> None:
    augment = augkit.Augment.from_torchvision(v2.Compose([v2.Resize((8, 9)), v2.CenterCrop(7)])).eval()
    images = pictures()
    expected = augment(images), augment(list(images))
    with default_dtype(default):
        assert all(map(torch.equal, (augment(images), augment(list(images))), expected))
