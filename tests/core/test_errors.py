"""Checks of values, and the words for values in messages."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import augkit
from augkit.core.errors import InputError, InputTypeError, brief, check_number, check_whole
from augkit.invariance import layerwise_equivariance, relative_invariance
from augkit.train import load_run

NETWORK = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
IMAGES = torch.rand(4, 1, 16, 16)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), Fraction(2)])
def test_every_real_number_is_a_number(value: Any) -> None:
    found = check_number("x", value, 0.0, 3.0)
    assert found == 2.0
    assert type(found) is float
    assert augkit.RandomSubpixelShift(value).max_pixels == 2.0


@pytest.mark.parametrize("value", ["2", None, True, np.bool_(True), 2j, [2], torch.ones(3)])
def test_other_values_are_no_numbers(value: Any) -> None:
    with pytest.raises(InputTypeError, match=r"^x: expected a number, got "):
        check_number("x", value)
    with pytest.raises(InputError, match="max_pixels: expected"):
        augkit.RandomSubpixelShift(value)


@pytest.mark.parametrize(("value", "low"), [(math.nan, 0.0), (math.inf, 0.0), (-1, 0.0), (math.inf, -math.inf)])
def test_numbers_out_of_bounds_are_one_line(value: float, low: float) -> None:
    with pytest.raises(InputError, match=r"^x: expected a number (at least 0|that is finite), got"):
        check_number("x", value, low)


@pytest.mark.parametrize("value", [2.0, "2", True, -1, None, torch.rand(3)])
def test_whole_numbers_are_whole(value: Any) -> None:
    with pytest.raises(InputError, match=r"^n: expected a whole number of 0 or more, got "):
        check_whole("n", value, 0, optional=False)


@pytest.mark.parametrize("value", [torch.rand(30, 30), np.zeros((40, 40)), [0.123456789] * 99, "x" * 999, "a\nb"])
def test_values_in_messages_are_short_and_one_line(value: Any) -> None:
    assert len(brief(value)) <= 80
    assert "\n" not in brief(value)


WRONG = {
    "batch_size": [0, 2.5, "8", True],
    "pairs": [0, 2.5, "4", True],
    "seed": [-1, 0.5, "a", None],
    "max_shift": [-1, math.nan, math.inf, "3", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_of_measurements_are_checked_by_their_names(name: str, value: Any) -> None:
    measures = [augkit.measure_invariance, augkit.measure_outputs]
    if name != "pairs":
        measures += [relative_invariance, layerwise_equivariance]
    for measure in measures:
        with pytest.raises(InputError, match=f"^{name.replace('_', '.')}: expected"):
            measure(NETWORK, IMAGES, **{name: value})


@pytest.mark.parametrize("images", [None, "photos", 3, {"image": IMAGES}])
def test_what_is_no_images_is_named(images: Any) -> None:
    for measure in (augkit.measure_invariance, augkit.measure_outputs):
        with pytest.raises(InputTypeError, match="images: expected"):
            measure(NETWORK, images)


def test_images_in_place_of_a_size_are_not_printed() -> None:
    with pytest.raises(InputError, match=r"got a Tensor of shape \(4, 1, 16, 16\)$"):
        augkit.certify(NETWORK, IMAGES)  # type: ignore[arg-type]


def test_a_name_in_place_of_a_recipe_or_a_run_says_how_to_load_it() -> None:
    with pytest.raises(InputTypeError, match=r"recipe: expected an augkit.Recipe, as of Recipe.load\('mnist5k'\)"):
        augkit.fit("mnist5k")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="run: expected the folder of a run, got 3"):
        load_run(3)  # type: ignore[arg-type]
