"""A finished run, ready to use: its network, what turns an image into its input, and its classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from augkit.core.errors import InputError, InputTypeError, brief
from augkit.core.pixels import as_float
from augkit.data.decode import Fault, Form, decode, decode_upright, in_mode, pixels_of
from augkit.data.images import Canvas
from augkit.train.checkpoint import FILE
from augkit.train.export import CONFIG, WEIGHTS
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class InputTransform:
    """Turns an image into the input of a network, as the evaluation of its run does.

    Attributes:
        channels: 1 or 3.
        side: height and width of the input (pixels).
        canvas: side of the canvas on which images are centered; None without one.
        image_size, crop_share: how pictures are fitted, as in the recipe's ``data``; they are not resized when None.
        mean, std: per channel, of images in [0, 1].
    """

    channels: int
    side: int
    canvas: int | None
    image_size: int | None
    crop_share: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Picture) -> Tensor:
        """Return ``(B, C, S, S)`` float32, normalized; B is 1 for a single image.

        Args:
            image: a picture of Pillow or its file, read as the images of the run were: upright, gray or RGB, fitted if
                the recipe has an ``image_size``; or ``(C, H, W)`` or ``(B, C, H, W)``, uint8 or float in [0, 1], which
                is not resized.

        Raises:
            InputError: the file cannot be read, or channels or size do not fit.
            InputTypeError: another type.
        """
        pixels = self._pixels(image)
        if pixels.shape[1] != self.channels:
            raise InputError(f"image: expected {self.channels} channels, got {pixels.shape[1]}")
        if self.canvas is not None and max(pixels.shape[-2:]) <= self.canvas:
            pixels = Canvas(self.canvas, 0)(pixels, torch.empty(0))
        height, width = pixels.shape[-2:]
        square = self.canvas is not None or self.image_size is not None  # else images may be of any shape
        if width != self.side or (square and height != self.side):
            raise InputError(f"image: expected {self.side} x {self.side} pixels, got {width} x {height}; resize it")
        mean, std = (torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (as_float(pixels) - mean) / std

    def _pixels(self, image: Picture) -> Tensor:
        """``(B, C, H, W)``, uint8 or float."""
        if isinstance(image, (str, os.PathLike)):
            path = Path(image)
            return self._decoded(lambda: Image.open(path), f"image '{path}'")
        if isinstance(image, Image.Image):
            return self._decoded(image.copy, "image")
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.array(image))
        if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
            got = f"{image.dtype} values" if isinstance(image, Tensor) else type(image).__name__
            raise InputTypeError(f"image: expected a picture, a file, or uint8 or float values, got {got}")
        if image.ndim not in (3, 4):
            raise InputError(f"image: expected (C, H, W) or (B, C, H, W), got {tuple(image.shape)}")
        return image if image.ndim == 4 else image[None]

    def _decoded(self, opener: Callable[[], Image.Image], name: str) -> Tensor:
        mode = "L" if self.channels == 1 else "RGB"
        if self.image_size is not None:
            size = self.image_size
            form = Form(size, size, self.channels, fit=True, convert=True, crop_share=self.crop_share)
            found = decode(opener, form)
        else:
            picture = decode_upright(opener)
            found = picture if isinstance(picture, Fault) else pixels_of(in_mode(picture, mode))
        if isinstance(found, Fault):
            raise InputError(f"{name}: {found.reason}")
        return torch.from_numpy(np.array(found))[None]  # a copy, which may be written


@dataclass(frozen=True)
class LoadedRun:
    """A finished run.

    Attributes:
        network: in ``eval()``, on the CPU; gives logits ``(B, K)``.
        transform: turns an image into the network's input.
        classes: K names, in the order of the outputs.
        recipe: the resolved recipe.
        folder: where the run lies.
    """

    network: nn.Module
    transform: InputTransform
    classes: tuple[str, ...]
    recipe: Recipe
    folder: Path


def load_run(folder: str | Path) -> LoadedRun:
    """Load a finished run from its folder: one of `augkit.train`, or what `augkit.push_to_hub` published of it.

    Raises:
        InputError: the folder is not that of a run, a file is missing or broken, the weights do not fit, or the
            network is one of your own, which no recipe can build.
    """
    if not isinstance(folder, (str, Path)):
        raise InputTypeError(f"run: expected the folder of a run, got {brief(folder)}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"run '{folder}': expected a folder of augkit.train, there is none")
    if not any((path / name).is_file() for name in (FILE, WEIGHTS)):
        wanted = f"{FILE}, or {WEIGHTS} with {CONFIG} and recipe.yaml"
        raise InputError(f"run '{folder}': expected {wanted}; neither is there")
    loaded = load_model(str(path))
    recipe, channels, side = loaded.recipe, loaded.channels, loaded.input_size
    assert recipe is not None
    assert channels is not None
    assert side is not None
    data = recipe.data
    transform = InputTransform(
        channels,
        side,
        data.canvas,
        data.image_size,
        data.crop_share,
        tuple(data.mean),
        tuple(data.std),
    )
    return LoadedRun(loaded.model.eval(), transform, tuple(loaded.classes or ()), recipe, path)
