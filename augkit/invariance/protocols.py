"""Shift operators: where the pixels at the border come from, and what half a pixel means.

- ``crop``: the image has a margin and a window moves over it; content enters and leaves (Zhang 2019).
- ``embed``: the image stands on a constant canvas and moves there (Azulay & Weiss 2019).
- ``circular``: the image is a torus (Chaman & Dokmanic 2021; Michaeli et al. 2023).

A shift is in pixels of the network's input, x to the right and y down, with the sign of
``torch.roll(image, (y, x), dims=(-2, -1))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.errors import InputError, unknown_name
from augkit.interpolation import check_names
from augkit.resampling import check_size, fourier_shift, shift_checked

PROTOCOLS = ("crop", "embed", "circular")
# Bilinear is never the default: its blur depends on the fraction of the shift, so it would be measured too.
DEFAULT_KERNEL = {"crop": "sinc", "embed": "sinc", "circular": "fourier"}


@dataclass(frozen=True)
class Protocol:
    """One shift operator for images of one size. Make it with `make_protocol`, which checks.

    Attributes:
        name: ``crop``, ``embed`` or ``circular``.
        kernel: interpolation kernel.
        image_size: ``(H, W)`` of the images that come.
        input_size: ``(H, W)`` that the network sees: the window, the canvas, or the image.
        background: grey value of the canvas in [0, 1]; ``embed`` only.
    """

    name: str
    kernel: str
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    background: float = 0.0

    @property
    def margin(self) -> float:
        """The largest displacement in pixels along an axis for which no new border appears."""
        if self.name == "circular":
            return math.inf
        return min(abs(a - b) // 2 for a, b in zip(self.image_size, self.input_size, strict=True))

    def shift(self, images: Tensor, shift: Tensor) -> Tensor:
        """Shift float images ``(B, C, *image_size)`` by ``(B, 2)`` pixels; gives ``(B, C, *input_size)``."""
        if self.name == "circular" and self.kernel == "fourier":
            return fourier_shift(images, shift)
        padding = {"crop": "reflection", "embed": "zeros", "circular": "circular"}[self.name]
        # Towards 0, so that an odd margin gives its extra pixel to the right and the bottom in both protocols.
        start_y, start_x = (int((b - a) / 2) for a, b in zip(self.image_size, self.input_size, strict=True))
        start = torch.tensor([start_x, start_y], device=images.device, dtype=shift.dtype)
        if self.name != "embed":
            return shift_checked(images, start + shift, self.input_size, self.kernel, padding)
        content = images - self.background if self.background else images
        moved = shift_checked(content, start + shift, self.input_size, self.kernel, padding)
        return moved + self.background if self.background else moved


def make_protocol(
    name: str,
    image_size: tuple[int, int],
    *,
    max_shift: float = 0.0,
    kernel: str | None = None,
    input_size: tuple[int, int] | int | None = None,
    background: float = 0.0,
) -> Protocol:
    """A checked `Protocol`.

    ``input_size`` defaults to the image less the margin that ``max_shift`` needs (``crop``), to the image plus
    that margin (``embed``), and is the image's own in ``circular``. ``kernel`` defaults to ``sinc``, and to
    ``fourier`` in ``circular``.

    Raises:
        InputError: an unknown name, a negative shift, a shift beyond the margin, a window larger than the image
            or a canvas smaller than it, ``fourier`` outside ``circular``.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    kernel = kernel or DEFAULT_KERNEL[name]
    check_names(kernel, "zeros")
    if kernel == "fourier" and name != "circular":
        raise InputError(f"protocol '{name}': kernel 'fourier' wraps around; expected 'sinc' or 'lanczos3'")
    if not max_shift >= 0:
        raise InputError(f"max_shift: expected pixels of at least 0, got {max_shift:g}")
    room = 2 * math.ceil(max_shift)
    change = {"crop": -room, "embed": room, "circular": 0}[name]
    if input_size is None:
        size = (image_size[0] + change, image_size[1] + change)
        if min(size) < 1:
            raise InputError(f"max_shift {max_shift:g} leaves no window in images of {_text(image_size)} pixels")
    else:
        size = check_size((input_size, input_size) if isinstance(input_size, int) else input_size)
    wrong = {
        "crop": size[0] > image_size[0] or size[1] > image_size[1],
        "embed": size[0] < image_size[0] or size[1] < image_size[1],
        "circular": size != tuple(image_size),
    }[name]
    if wrong:
        need = {"crop": "at most", "embed": "at least", "circular": "exactly"}[name]
        raise InputError(
            f"input_size: protocol '{name}' expects {need} the images' {_text(image_size)} pixels, got {_text(size)}"
        )
    protocol = Protocol(name, kernel, (image_size[0], image_size[1]), size, background)
    if max_shift > protocol.margin:
        raise InputError(
            f"max_shift: protocol '{name}' with images of {_text(image_size)} and an input of {_text(size)} has a"
            f" margin of {protocol.margin:g} pixels, got {max_shift:g}"
        )
    return protocol


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
