"""Batches that change along the way, and arrays that torch does not take: checked each time, converted or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError
from augkit.train.loaders import labeled
from augkit.train.recipe import Recipe

PIXELS = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 5


@pytest.fixture
def plain(tiny: Recipe) -> Recipe:
    return tiny.replaced(policy={}, train={"epochs": 1, "batch_size": 8})


def batches(images: Any = PIXELS) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(8), LABELS.split(8), strict=True))


def train(recipe: Recipe, loader: Any, held_out: Any) -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
    return augkit.fit(recipe, model=model, loader=loader, validation_loader=held_out, device="cpu")


@pytest.mark.parametrize("role", ["loader", "validation_loader"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "expected finite images"), (255.0, "divide by 255"), (-2.0, "leave Normalize out of the loader")],
)
def test_every_batch_is_looked_at(value: float, message: str, role: str, plain: Recipe) -> None:
    odd = PIXELS.clone()
    odd[23, 0, 0, 0] = value
    given = {"loader": batches(), "validation_loader": batches(), role: batches(odd)}
    with pytest.raises(InputError, match=f"^{role}: .*{message}"):
        train(plain, *given.values())


@pytest.mark.parametrize("change", ["byte order", "strides", "both"])
def test_arrays_of_any_byte_order_and_strides(change: str) -> None:
    images, labels = np.random.default_rng(0).random((4, 1, 3, 3), dtype=np.float32), np.arange(4)
    odd, numbers = images.copy(), labels.copy()
    if change != "strides":
        odd, numbers = odd.astype(">f4"), numbers.astype(">i8")
    if change != "byte order":
        odd, numbers = odd[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1], numbers[::-1].copy()[::-1]
    found = labeled((odd, numbers))
    assert torch.equal(found[0], torch.from_numpy(images))
    assert torch.equal(found[1], torch.from_numpy(labels))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (PIXELS[:2], np.array(["cat", "dog"])),
            "expected arrays of numbers, got one of <U3; number the classes from 0",
        ),
        ((PIXELS[:2], np.array([1, None])), "expected arrays of numbers, got one of object"),
        ((PIXELS[:2].to_sparse(), LABELS[:2]), "expected dense tensors with values, got one that is sparse"),
        ((PIXELS[:2].to("meta"), LABELS[:2]), "got one that is on the device meta"),
        (
            (torch.nested.nested_tensor([PIXELS[0], PIXELS[1]], layout=torch.jagged), LABELS[:2]),
            "got one that is nested",
        ),
    ],
)
def test_what_holds_no_numbers(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^loader: .*{message}"):
        labeled(batch)


def test_a_length_that_is_not_there(plain: Recipe) -> None:
    class Endless:
        def __len__(self) -> int:
            raise NotImplementedError

        def __iter__(self) -> Any:
            return iter(batches())

    with pytest.raises(InputError, match="loader: expected one with a length, such as a DataLoader, got Endless"):
        train(plain, Endless(), batches())
