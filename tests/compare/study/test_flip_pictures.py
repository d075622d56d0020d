"""Pictures of changed answers show what the network saw under the displacements of their measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from augkit.compare.study.measurements import pictures_of
from augkit.compare.study.schema import Measure
from augkit.data import Images
from augkit.invariance.flips import Flip
from augkit.train.recipe import Recipe

FAR = ["invariance.max_shift=6"]  # farther than the measures of these tests go, or the canvas allows


def drawn(
    measure: dict[str, Any], overrides: list[str], view: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Both views of an image with one bright pixel at (10, 10), the second under ``view``."""
    pixels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    pixels[0, 0, 10, 10] = 255
    images = Images(pixels, torch.zeros(1, dtype=torch.int64))
    axis = measure.get("axis", "shift")
    flip = Flip(0, 0, [(0.0, 0.0, 1.0), view], [0, 1], [0.9, 0.9], axis)
    recipe = Recipe.load("mnist5k", [*FAR, *overrides])
    (picture,) = pictures_of([flip], Measure(**measure), recipe, images, ["a", "b"])
    first, second = (np.asarray(each.convert("L")) for each in picture.pictures)
    return first, second


def brightest(picture: np.ndarray, side: int) -> tuple[int, int]:
    """Place of the brightest pixel in a picture that stands for ``side`` pixels."""
    zoom = picture.shape[0] // side
    y, x = np.unravel_index(picture.argmax(), picture.shape)
    return int(x) // zoom, int(y) // zoom


def test_a_shift_below_that_of_the_recipe_needs_no_larger_canvas() -> None:
    measure = {"reach": 2.0, "step": [1, 1], "whole": True, "protocol": "embed"}
    first, second = drawn(measure, ["data.canvas=32"], (1.0, 1.0, 1.0))
    assert brightest(first, 32) == (12, 12)
    assert brightest(second, 32) == (13, 13)


def test_the_window_of_crop_is_that_of_the_measure() -> None:
    first, second = drawn({"reach": 2.0, "protocol": "crop"}, ["data.canvas=null"], (2.0, 0.0, 1.0))
    assert brightest(first, 24) == (8, 8)  # 28 pixels with a margin of 2
    assert abs(brightest(second, 24)[0] - 8) == 2


def test_a_rescaled_view_has_room() -> None:
    measure = {"axis": "scale", "reach": 1.4, "protocol": "embed"}
    first, second = drawn(measure, ["data.canvas=40"], (0.0, 0.0, 1.4))
    assert first.shape == second.shape
    assert brightest(second, 40) == pytest.approx((14, 14), abs=1)  # 16 lies 3.5 from the center, 19.5
