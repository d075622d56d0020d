"""Rescaling, backgrounds and the blur without the shift, each against a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import resample as slow_resample
from torch import Tensor

from augkit import shift_blur
from augkit.core.errors import InputError
from augkit.invariance import make_protocol
from augkit.invariance.protocols import Scene


def smooth(count: int, height: int, width: int | None = None, channels: int = 3) -> Tensor:
    noise = torch.rand(count, channels, height, width or height, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        noise = (noise + noise.roll(1, -1) + noise.roll(1, -2)) / 3
    return noise


def blob(side: int, sigma: float = 4.0) -> Tensor:
    grid = torch.arange(float(side))
    middle = (side - 1) / 2
    return torch.exp(-((grid[:, None] - middle) ** 2 + (grid - middle) ** 2) / (2 * sigma**2))[None, None]


@pytest.mark.parametrize("protocol", ["crop", "embed"])
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_rescaling_changes_the_width_of_a_blob_by_the_factor(protocol: str, factor: float) -> None:
    side = {"crop": 31, "embed": 53}[protocol]  # an even margin, so that the centers agree
    operator = make_protocol(protocol, (41, 41), factors=(0.8, 1.25), input_size=side)
    out = Scene(operator, blob(41)).rescale(torch.tensor([factor]), 0.8)[0, 0].double()
    place = torch.arange(float(operator.input_size[0])).double()
    mass = out.sum()
    center = float(out.sum(0) @ place / mass)
    assert center == pytest.approx((operator.input_size[0] - 1) / 2, abs=0.01)
    # The window cuts the tails of the wider blob; its height is untouched.
    assert float(out.max()) == pytest.approx(1.0, abs=0.01)
    middle = out[operator.input_size[0] // 2]
    expected = torch.exp(-((place - center) ** 2) / (2 * (4 * factor) ** 2))
    assert float((middle - expected.double()).abs().max()) < 0.02


@pytest.mark.parametrize(("image", "window"), [((20, 24), (14, 16)), ((21, 20), (14, 15))])
def test_rescaling_agrees_with_the_slow_reference(image: tuple[int, int], window: tuple[int, int]) -> None:
    images, factor = smooth(2, *image), torch.tensor([0.9, 1.3])
    operator = make_protocol("crop", image, factors=(0.9, 1.3), input_size=window, kernel="lanczos3")
    found = Scene(operator, images).rescale(factor, 0.9)
    matrices = np.zeros((2, 3, 3))
    for n, f in enumerate(factor.double().tolist()):
        x, y = (window[1] - 1) / 2, (window[0] - 1) / 2
        left, top = (image[1] - window[1]) // 2, (image[0] - window[0]) // 2
        matrices[n] = [[f, 0, x - f * (x + left)], [0, f, y - f * (y + top)], [0, 0, 1]]
    expected = slow_resample(images.numpy(), matrices, window, "lanczos3", "reflection", True)
    assert np.abs(found.numpy() - expected).max() < 2e-5


def test_factor_one_leaves_the_unshifted_image() -> None:
    images = smooth(2, 16)
    for protocol in ("crop", "embed"):
        scene = Scene(make_protocol(protocol, (16, 16), factors=(0.8, 1.25)), images)
        torch.testing.assert_close(scene.rescale(torch.ones(2), 0.8), scene.unshifted(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("protocol", ["crop", "embed", "circular"])
@pytest.mark.parametrize("background", [0.0, 0.3, "mean", "blur"])
def test_unshifted_is_a_shift_by_nothing(protocol: str, background: float | str) -> None:
    images = smooth(2, 15)
    operator = make_protocol(protocol, (15, 15), max_shift=2, background=background)
    scene = Scene(operator, images)
    torch.testing.assert_close(scene.unshifted(), scene.shift(torch.zeros(2, 2)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("protocol", ["crop", "embed", "circular"])
@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("background", [0.3, "blur"])
def test_whole_pixels_are_copied_to_where_the_kernel_puts_them(
    protocol: str, size: int, background: float | str
) -> None:
    images = smooth(2, 14, 15)
    side = {"crop": (10, 11), "embed": (size + 4, size + 5), "circular": (14, 15)}[protocol]
    scene = Scene(make_protocol(protocol, (14, 15), max_shift=2, input_size=side, background=background), images)
    for x, y in ((2, -1), (-2, 2), (0, 1)):
        moved = scene.shift(torch.tensor([[float(x), float(y)]]).expand(2, 2))
        torch.testing.assert_close(scene.shift_whole(x, y), moved, atol=2e-6, rtol=0)


def test_backgrounds_stand_still_while_the_image_moves() -> None:
    images = smooth(2, 9)
    for background in ("mean", "blur"):
        scene = Scene(make_protocol("embed", (9, 9), max_shift=4, background=background), images)
        here, there = scene.unshifted(), scene.shift(torch.tensor([[3.0, -2.0]]).expand(2, 2))
        torch.testing.assert_close(there[..., 2:11, 7:16], images, atol=1e-6, rtol=0)
        torch.testing.assert_close(here[..., 4:13, 4:13], images, atol=1e-6, rtol=0)
        # Where neither image lies, the canvas is the same.
        torch.testing.assert_close(here[..., 13:, :4], there[..., 13:, :4], atol=1e-6, rtol=0)
        if background == "mean":
            expected = images.mean((-2, -1), keepdim=True).expand(-1, -1, 4, 4)
            torch.testing.assert_close(here[..., :4, :4], expected, atol=1e-6, rtol=0)
    corner = Scene(make_protocol("embed", (9, 9), max_shift=4, background="blur"), images).unshifted()[..., 0, 0]
    assert (corner - images[..., :2, :2].mean((-2, -1))).abs().max() < 0.1


@pytest.mark.parametrize(("protocol", "padding"), [("crop", "reflection"), ("circular", "circular")])
def test_blurred_is_the_blur_of_the_shift_and_moves_nothing(protocol: str, padding: str) -> None:
    images, shift = smooth(2, 18), torch.tensor([[0.5, 1.25], [2.0, -1.0]])
    operator = make_protocol(protocol, (18, 18), max_shift=3, kernel="bilinear")
    whole = shift_blur(images, shift, kernel="bilinear", padding=padding)
    found = Scene(operator, images).blurred(shift)
    expected = whole[..., 3:15, 3:15] if protocol == "crop" else whole
    torch.testing.assert_close(found, expected)
    # Whole pixels blur nothing.
    torch.testing.assert_close(found[1], Scene(operator, images).unshifted()[1])


def test_blurred_on_a_canvas_blurs_the_border_too() -> None:
    images = torch.ones(1, 1, 7, 7)
    scene = Scene(make_protocol("embed", (7, 7), max_shift=3, kernel="bilinear"), images)
    found = scene.blurred(torch.tensor([[0.5, 0.0]]))
    moved = scene.shift(torch.tensor([[0.5, 0.0]]))
    assert found[0, 0, 6, 2] > 0.05
    assert moved[0, 0, 6, 3] == pytest.approx(0.5, abs=1e-6)
    torch.testing.assert_close(found, found.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "circular", "factors": (0.9, 1.1)}, "torus cannot be rescaled"),
        ({"name": "crop", "factors": (0.7, 1.0), "input_size": 15}, "room for factors from 0.75"),
        ({"name": "embed", "factors": (1.0, 2.0), "input_size": 30}, "to 1.5, got 2"),
        ({"name": "embed", "background": "white"}, "unknown background 'white'"),
        ({"name": "embed", "background": 1.5}, "gray value"),
        ({"name": "embed", "background": math.nan}, "gray value"),
    ],
)
def test_operators_that_cannot_be_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_protocol(image_size=(20, 20), **arguments)  # type: ignore[arg-type]
