"""Atypical images, to measure whether invariance carries over to them.

`atypical` returns images with other content; `atypical_versions` changes each image. The change of an image depends
only on ``seed`` and on the number of the image, never on its batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.resample import resample
from augkit.core.errors import InputError
from augkit.data.bundled import BUNDLED, photographs
from augkit.data.images import Images

SHUFFLE, ERASE, PLACE = range(3)  # purposes of the streams of random numbers
GRID = 4  # patches of a shuffle along the shorter side
OTHER_HANDS = {"mnist5k": "digits", "mnist": "digits", "digits": "mnist5k"}  # by other people, with the same labels
GLYPH = {"digits": 1.0, "mnist5k": 20 / 28}  # share of the image's side that a digit fills


def atypical(images: Images, *, seed: int = 0, data: str = "") -> dict[str, Images]:
    """Return sets of images with other content than ``images``, by name; they need no download.

    ``upside down`` and ``inverted`` (contrast, including the canvas) keep order and labels, so they pair with the
    originals image by image. Networks for digits carry hardly any information about inverted digits; where ``data``
    names digits, ``another hand`` replaces them, see `other_hand`. ``photographs`` are patches of scikit-learn's two
    photographs, equal to the images in number, size and channels, without labels; larger images take them mirrored.

    Args:
        images: the typical images.
        seed: seed of the random choices.
        data: name of the dataset.
    """
    channels, height, width = images.shape
    patches = Images(_patches(len(images), channels, (height, width), seed), None, images.background)
    if data in OTHER_HANDS:
        first = {"another hand": other_hand(data, len(images), images.shape, seed=seed)}
    else:
        first = {"inverted": images.then(Inverted())}
    return {**first, "upside down": images.then(UpsideDown()), "photographs": patches}


def atypical_versions(
    images: Images, *, seed: int = 0, max_shift: float | None = None, max_factor: float = 1.0
) -> dict[str, Images]:
    """Return atypical versions of each image, by name, in the same order with the same labels.

    ``upside down``; ``texture shuffle``: patches of a quarter of the shorter side, permuted; ``erased``: a rectangle
    of 10 to 40 % of the area filled with the image's mean (random erasing, Zhong et al. 2020, arXiv:1708.04896, which
    fills it with noise); and, where ``max_shift`` is given, ``out of range``: the content moved by more than that.
    Versions of a `Stream` are streams.

    Args:
        images: the images, on their canvas.
        seed: seed of the versions.
        max_shift: pixels along each axis; the content moves by more along both axes, at most twice as far.
        max_factor: if above 1, the content is also rescaled by more than this factor or its inverse, at most its
            square.

    Raises:
        InputError: the canvas is too small to move the content that far.
    """
    versions = {
        "upside down": images.then(UpsideDown()),
        "texture shuffle": images.then(TextureShuffle(seed)),
        "erased": images.then(Erase(seed)),
    }
    if max_shift is not None:
        versions["out of range"] = images.then(place_beyond(images, seed, max_shift, max_factor))
    return versions


@dataclass(frozen=True)
class Inverted:
    """The step that inverts contrast."""

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to the same."""
        return 255 - pixels


@dataclass(frozen=True)
class UpsideDown:
    """The step that mirrors top and bottom."""

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to the same."""
        return pixels.flip(-2)


@dataclass(frozen=True)
class TextureShuffle:
    """The step that permutes square patches, which keeps texture and destroys shape.

    The side of a patch is a quarter of the image's shorter side; remaining pixels at the far edges stay in place.
    """

    seed: int

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to the same."""
        height, width = pixels.shape[-2:]
        side = max(1, min(height, width) // GRID)
        rows, columns = height // side, width // side
        out = pixels.clone()
        inner = out[..., : rows * side, : columns * side]
        patches = inner.unflatten(-1, (columns, side)).unflatten(-3, (rows, side)).movedim(-2, -3).flatten(-4, -3)
        for image, shuffled, number in zip(inner, patches.clone(), numbers.tolist(), strict=True):
            order = _rng(self.seed, SHUFFLE, number).permutation(rows * columns)
            grid = shuffled[:, torch.from_numpy(order)].unflatten(1, (rows, columns))
            image.copy_(grid.movedim(2, 3).flatten(3, 4).flatten(1, 2))
        return out


@dataclass(frozen=True)
class Erase:
    """The step that fills a rectangle of 10 to 40 % of the area, of aspect 0.3 to 3.3, with the image's mean."""

    seed: int

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to the same."""
        height, width = pixels.shape[-2:]
        out = pixels.clone()
        means = pixels.double().mean((-2, -1), keepdim=True).round().to(torch.uint8)
        for image, mean, number in zip(out, means, numbers.tolist(), strict=True):
            rng = _rng(self.seed, ERASE, number)
            area, aspect = rng.uniform(0.1, 0.4) * height * width, math.exp(rng.uniform(-1, 1) * math.log(3.3))
            tall, wide = (
                min(n, max(1, round(math.sqrt(area * a)))) for n, a in ((height, aspect), (width, 1 / aspect))
            )
            top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
            image[:, top : top + tall, left : left + wide] = mean
        return out


@dataclass(frozen=True)
class Place:
    """The step that moves the content by ``nearest`` to ``farthest`` whole pixels along both axes, either way.

    With ``max_factor`` above 1 it is first rescaled about the center, up or down, by a factor between ``max_factor``
    and its square. Pixels from outside are those of ``background``, see `augkit.data.images.Canvas`.
    """

    seed: int
    nearest: int
    farthest: int
    max_factor: float
    background: float | str

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to the same."""
        drawn = [self._draw(number) for number in numbers.tolist()]
        move = torch.tensor([moved for moved, _ in drawn], dtype=torch.float32).view(-1, 2)
        factor = torch.tensor([scaled for _, scaled in drawn], dtype=torch.float32)
        size = (pixels.shape[-2], pixels.shape[-1])
        matrix = geometry.compose(geometry.rescale(factor, size), geometry.shift(move))
        values = pixels.to(torch.float32)
        # The resampling pads with 0, so values are relative to the background.
        base: Tensor | float = 0.0 if self.background == "reflection" else values.mean((-2, -1), keepdim=True)
        if not isinstance(self.background, str):
            base = 255 * self.background
        padding = "reflection" if self.background == "reflection" else "zeros"
        moved = resample(values - base, matrix, kernel="lanczos3", padding=padding) + base
        return moved.round().clamp(0, 255).to(torch.uint8)

    def _draw(self, number: int) -> tuple[list[int], float]:
        rng = _rng(self.seed, PLACE, number)
        lengths = rng.integers(self.nearest, self.farthest + 1, size=2)
        signs = rng.choice([-1, 1], size=3)
        exponent = float(signs[2] * (2 - rng.random()))  # in [-2, -1) or (1, 2]
        return (lengths * signs[:2]).tolist(), self.max_factor**exponent


def place_beyond(images: Images, seed: int, max_shift: float, max_factor: float = 1.0) -> Place:
    """Return the step that moves content beyond a range of shifts, and of factors if ``max_factor`` is above 1.

    Raises:
        InputError: the range is negative, or ``max_shift`` exceeds half of the canvas.
    """
    if not (max_shift >= 0 and math.isfinite(max_shift) and max_factor >= 1):
        raise InputError(f"out of range: expected max_shift >= 0 and max_factor >= 1, got {max_shift}, {max_factor}")
    nearest, half = math.floor(max_shift) + 1, min(images.shape[1:]) // 2
    if nearest > half:
        raise InputError(
            f"out of range: expected max_shift below {half} pixels, half of the canvas, got {max_shift:g}; "
            "use a larger canvas"
        )
    farthest = min(half, max(nearest, math.floor(2 * max_shift)))
    return Place(seed, nearest, farthest, max_factor, images.background)


def other_hand(data: str, count: int, shape: tuple[int, int, int], *, seed: int = 0) -> Images:
    """Return digits written by other people, at the size of those of ``data``, with the same labels.

    scikit-learn's digits (43 writers, 8 x 8 pixels, resampled to the size) for MNIST, and the digits of `mnist5k` for
    those.

    Args:
        data: a key of `OTHER_HANDS`.
        count: the largest number of images, drawn without repetition.
        shape: ``(C, H, W)`` of the images.
        seed: seed of the draw.
    """
    other = OTHER_HANDS[data]
    whole = BUNDLED[other]().splits["all"]
    drawn = np.random.default_rng(seed).permutation(len(whole))[:count]
    few = whole.take(torch.from_numpy(drawn)).with_channels(shape[0])
    size = (shape[1], shape[2])
    factor = min(size) * GLYPH.get(data, GLYPH["mnist5k"]) / (min(whole.shape[1:]) * GLYPH[other])
    scale = torch.full((len(few), 1), factor)
    matrix = geometry.Axes(scale, torch.zeros_like(scale)).matrix((whole.shape[1], whole.shape[2]), size)
    pixels = resample(few.images, matrix, size=size, kernel="lanczos3", padding="zeros")
    return Images(pixels, few.labels, few.background)


def _rng(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, number])


def _at_least(size: tuple[int, int], photograph: np.ndarray) -> np.ndarray:
    missing = [(0, max(0, wanted - has)) for wanted, has in zip(size, photograph.shape[:2], strict=True)]
    return np.pad(photograph, [*missing, (0, 0)], "symmetric")


def _patches(count: int, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    """Random patches ``(count, channels, *size)``: of photographs that are mirrored at their edges if they are smaller.

    Gray is their luma; of any other number of channels, these are red, green and blue in turn.
    """
    rng = np.random.default_rng(seed)
    whole = [_at_least(size, photograph) for photograph in photographs()]
    out = np.empty((count, *size, 3), dtype=np.uint8)
    for k in range(count):
        photograph = whole[rng.integers(len(whole))]
        top, left = (rng.integers(n - m + 1) for n, m in zip(photograph.shape[:2], size, strict=True))
        out[k] = photograph[top : top + size[0], left : left + size[1]]
    if channels == 1:
        # ITU-R BT.601 luma, as Pillow's mode L.
        out = (out @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None]
    elif channels != 3:
        out = out[..., np.arange(channels) % 3]
    return torch.from_numpy(np.ascontiguousarray(out.transpose(0, 3, 1, 2)))
