"""Ways to shift an image by a fraction of a pixel: our kernels, and those of the other libraries installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from augkit.augment import geometry
from augkit.augment.kernels import KERNELS
from augkit.augment.resample import resample

Array = np.ndarray
Shift = Callable[[Array, float, float], Array]  # image (H, W) float32 in [0, 1], pixels right, pixels down

APRON = 32  # pixels of the torus around an image, for libraries that know no torus


@dataclass(frozen=True)
class Contender:
    """A way to shift an image. ``group`` holds those that are alike; ``taps`` are pixels per axis."""

    name: str
    group: str
    taps: str
    shift: Shift
    ours: bool = False


def contenders() -> list[Contender]:
    """Our kernels, then the peers that are installed."""
    groups = dict(zip(KERNELS, ("nearest", "linear", "cubic", "windowed sinc", "long", "long"), strict=True))
    taps = dict(zip(KERNELS, ("1", "2", "4", "6", "16", "all"), strict=True))
    found = [Contender(f"augkit {k}", groups[k], taps[k], _augkit(k), ours=True) for k in KERNELS]
    for peers in (_torch_peers, _kornia_peers, _scipy_peers, _opencv_peers, _pillow_peers):
        try:
            found += peers()
        except ImportError as error:
            print(f"left out: {error.name} is not installed", file=sys.stderr)
    order = ("nearest", "linear", "cubic", "windowed sinc", "long")
    return sorted(found, key=lambda c: (order.index(c.group), not c.ours))


def on_apron(shift: Shift) -> Shift:
    """``shift`` on the torus, for one that knows none: it gets the image with `APRON` pixels of torus around."""

    def wrapped(image: Array, x: float, y: float) -> Array:
        moved = shift(np.pad(image, APRON, mode="wrap"), x, y)
        return np.ascontiguousarray(moved[APRON:-APRON, APRON:-APRON])

    return wrapped


def _augkit(kernel: str) -> Shift:
    def shift(image: Array, x: float, y: float) -> Array:
        matrix = geometry.shift(torch.tensor([[x, y]], dtype=torch.float32))
        return resample(torch.from_numpy(image)[None, None], matrix, kernel=kernel, padding="circular")[0, 0].numpy()

    return shift


def _torch_peers() -> list[Contender]:
    def sampler(mode: str) -> Shift:
        def shift(image: Array, x: float, y: float) -> Array:
            height, width = image.shape
            across = 2 * (torch.arange(width, dtype=torch.float64) - x) / (width - 1) - 1
            down = 2 * (torch.arange(height, dtype=torch.float64) - y) / (height - 1) - 1
            grid = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1)[None].float()
            out = F.grid_sample(torch.from_numpy(image)[None, None], grid, mode=mode, align_corners=True)
            return out[0, 0].numpy()

        return on_apron(shift)

    return [
        Contender("torch grid_sample bilinear", "linear", "2", sampler("bilinear")),
        Contender("torch grid_sample bicubic", "cubic", "4", sampler("bicubic")),
    ]


def _kornia_peers() -> list[Contender]:
    from kornia.geometry.transform import translate

    def shift(image: Array, x: float, y: float) -> Array:
        return translate(torch.from_numpy(image)[None, None], torch.tensor([[x, y]], dtype=torch.float32))[0, 0].numpy()

    return [Contender("kornia translate", "linear", "2", on_apron(shift))]


def _scipy_peers() -> list[Contender]:
    from scipy import ndimage

    def shift(image: Array, x: float, y: float) -> Array:
        return ndimage.shift(image, (y, x), order=3, mode="grid-wrap")

    # Four taps, after a recursive filter over the whole line.
    return [Contender("scipy.ndimage cubic spline", "cubic", "4, all", shift)]


def _opencv_peers() -> list[Contender]:
    import cv2

    def warper(flag: int) -> Shift:
        def shift(image: Array, x: float, y: float) -> Array:
            matrix = np.array([[1, 0, x], [0, 1, y]], dtype=np.float64)
            return cv2.warpAffine(image, matrix, image.shape[::-1], flags=flag, borderMode=cv2.BORDER_REFLECT_101)

        return on_apron(shift)

    return [
        Contender("OpenCV warpAffine linear", "linear", "2", warper(cv2.INTER_LINEAR)),
        Contender("OpenCV warpAffine cubic", "cubic", "4", warper(cv2.INTER_CUBIC)),
        Contender("OpenCV warpAffine LANCZOS4", "windowed sinc", "8", warper(cv2.INTER_LANCZOS4)),
    ]


def _pillow_peers() -> list[Contender]:
    from PIL import Image

    def transform(image: Array, x: float, y: float) -> Array:
        picture = Image.fromarray(image)
        return np.array(picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, -x, 0, 1, -y), Image.BICUBIC))

    def resize(image: Array, x: float, y: float) -> Array:
        height, width = image.shape
        padded = Image.fromarray(np.pad(image, APRON, mode="wrap"))
        box = (APRON - x, APRON - y, APRON - x + width, APRON - y + height)
        return np.array(padded.resize((width, height), Image.Resampling.LANCZOS, box=box))

    return [
        Contender("Pillow transform bicubic", "cubic", "4", on_apron(transform)),
        Contender("Pillow resize(box) Lanczos", "windowed sinc", "6", resize),
    ]
