"""Protocols of displacement: the source of pixels at the border, the interpolation, and the meaning of a factor.

- ``crop``: the image has a margin and a window moves over it; content enters and leaves (Zhang 2019).
- ``embed``: the image moves on a larger canvas (Azulay & Weiss 2019). The canvas has one gray value, the image's mean
  color (``mean``), a blurred copy of the image (``blur``), or the image mirrored about its border pixels, which moves
  with it (``reflection``).
- ``circular``: the image is a torus (Chaman & Dokmanic 2021; Michaeli et al. 2023), which cannot be rescaled.

A shift is in pixels of the network's input, x to the right and y down, with the sign of
``torch.roll(image, (y, x), dims=(-2, -1))``. A factor of 2 doubles distances from the center of the input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.blur import shift_blur_checked
from augkit.augment.kernels import check_names, padded_index
from augkit.augment.resample import as_size, fourier_shift_checked, resample_checked, shift_checked
from augkit.core.errors import InputError, check_number, unknown_name

PROTOCOLS = ("crop", "embed", "circular")
BACKGROUNDS = ("black", "mean", "blur", "reflection")
# Bilinear is never the default: its blur depends on the fraction of the shift and would be measured too.
DEFAULT_KERNEL = {"crop": "sinc", "embed": "sinc", "circular": "fourier"}
PADDING = {"crop": "reflection", "embed": "zeros", "circular": "circular"}
BLUR_CELLS = 6  # resolution of the blurred copy along each axis


@dataclass(frozen=True)
class Protocol:
    """A way to displace images of one size. Create it with `make_protocol`, which checks the settings.

    Attributes:
        name: ``crop``, ``embed`` or ``circular``.
        kernel: interpolation kernel.
        image_size: ``(H, W)`` of the images.
        input_size: ``(H, W)`` of the network's input: the window, the canvas, or the image.
        background: the canvas of ``embed``: a gray value in [0, 1], ``mean``, ``blur`` or ``reflection``.
    """

    name: str
    kernel: str
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    background: float | str = 0.0

    @property
    def padding(self) -> str:
        """Pixels outside of what moves, one of `augkit.augment.kernels.PADDINGS`."""
        return "reflection" if self.mirrors else PADDING[self.name]

    @property
    def mirrors(self) -> bool:
        """Whether the canvas is the image mirrored."""
        return self.name == "embed" and self.background == "reflection"

    @property
    def margin(self) -> float:
        """The largest displacement in pixels along an axis for which no new border appears."""
        if self.name == "circular":
            return math.inf
        return min(abs(a - b) // 2 for a, b in zip(self.image_size, self.input_size, strict=True))

    @property
    def factors(self) -> tuple[float, float]:
        """The smallest and the largest factor for which no new border appears."""
        ratios = [b / a for a, b in zip(self.image_size, self.input_size, strict=True)]
        return {"crop": (max(ratios), math.inf), "embed": (0.0, min(ratios)), "circular": (1.0, 1.0)}[self.name]

    @property
    def start(self) -> tuple[int, int]:
        """Position of the image's top left corner in the unshifted input, ``(x, y)`` pixels."""
        # Rounded towards 0, so that the extra pixel of an odd margin is at the right and the bottom in both protocols.
        y, x = (int((b - a) / 2) for a, b in zip(self.image_size, self.input_size, strict=True))
        return x, y

    def shift(self, images: Tensor, shift: Tensor) -> Tensor:
        """Shift float images ``(B, C, *image_size)`` by ``(B, 2)`` pixels (x, y) and return ``(B, C, *input_size)``."""
        return Scene(self, images).shift(shift)


class Scene:
    """A batch of float images ``(B, C, *image_size)`` under one protocol; views of it are ``(B, C, *input_size)``.

    Shared parts of the views (the canvas, the spectrum) are computed once.
    """

    def __init__(self, protocol: Protocol, images: Tensor) -> None:
        self.protocol, self.images = protocol, images

    def unshifted(self) -> Tensor:
        """Return the unshifted inputs, with pixels copied."""
        return self.shift_whole(0, 0)

    def shift_whole(self, x: int, y: int) -> Tensor:
        """Move all images by the same whole pixels, within the margin. Pixels are copied, whatever the kernel."""
        return self._on_canvas(self._placed(self._content, x, y))

    def shift(self, pixels: Tensor) -> Tensor:
        """Move each image by its own shift: ``(B, 2)`` pixels (x, y)."""
        protocol = self.protocol
        if protocol.kernel == "fourier":
            return fourier_shift_checked(self.images, pixels, spectrum=self._spectrum)
        # Plain numbers need no copy to the device.
        x, y = protocol.start
        pixels = torch.stack([pixels[:, 0] + x, pixels[:, 1] + y], dim=-1)
        how = (protocol.input_size, protocol.kernel, protocol.padding)
        return self._on_canvas(shift_checked(self._content, pixels, *how))

    def rescale(self, factor: Tensor, smallest: float, pixels: Tensor | None = None) -> Tensor:
        """Rescale by ``(B,)`` factors about the input's center, then move by ``pixels`` ``(B, 2)``; resampled once.

        No factor is below ``smallest``.
        """
        protocol = self.protocol
        (x, y), (height, width) = protocol.start, protocol.input_size
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        shift_x, shift_y = middle_x + factor * (x - middle_x), middle_y + factor * (y - middle_y)
        if pixels is not None:
            shift_x, shift_y = shift_x + pixels[:, 0], shift_y + pixels[:, 1]
        matrix = geometry.axis_aligned(factor, shift_x, factor, shift_y)
        how = (protocol.input_size, protocol.kernel, protocol.padding, max(1.0, 1 / smallest))
        return self._on_canvas(resample_checked(self._content, matrix, *how, axis_aligned=True))

    def blurred(self, pixels: Tensor) -> Tensor:
        """Return the unmoved images with the blur of a shift by ``(B, 2)`` pixels (see `augkit.shift_blur`)."""
        protocol = self.protocol
        how = (pixels, protocol.kernel, protocol.padding)
        if protocol.name == "embed":
            return self._on_canvas(shift_blur_checked(self._placed(self._content), *how))
        return self._placed(shift_blur_checked(self._content, *how))

    @cached_property
    def _content(self) -> Tensor:
        """The tensor that moves: the difference from a canvas, or the images with their coverage as a last channel."""
        background = self.protocol.background
        if self.protocol.name != "embed" or background == 0 or self.protocol.mirrors:
            return self.images
        if background == "blur":
            return torch.cat([self.images, torch.ones_like(self.images[:, :1])], dim=1)
        return self.images - self._canvas

    @cached_property
    def _canvas(self) -> Tensor | float:
        background = self.protocol.background
        if not isinstance(background, str):
            return background
        if background == "mean":
            return self.images.mean((-2, -1), keepdim=True)
        cells = F.adaptive_avg_pool2d(self.images, BLUR_CELLS)
        return F.interpolate(cells, self.protocol.input_size, mode="bilinear", align_corners=False)

    def _on_canvas(self, moved: Tensor) -> Tensor:
        if self.protocol.name != "embed" or self.protocol.background == 0 or self.protocol.mirrors:
            return moved
        if self.protocol.background == "blur":
            return moved[:, :-1] + self._canvas * (1 - moved[:, -1:])
        return moved + self._canvas

    @cached_property
    def _spectrum(self) -> Tensor:
        return torch.fft.rfft2(self.images.to(torch.promote_types(self.images.dtype, torch.float32)))

    def _placed(self, content: Tensor, right: int = 0, down: int = 0) -> Tensor:
        (x, y), (height, width) = self.protocol.start, self.protocol.input_size
        x, y = x + right, y + down
        if self.protocol.name == "crop":
            return content[..., -y : -y + height, -x : -x + width]
        if self.protocol.name == "circular":
            return content.roll((y, x), (-2, -1)) if x or y else content
        if self.protocol.mirrors:
            rows, columns = (
                padded_index(torch.arange(size, device=content.device) - start, length, "reflection")
                for size, start, length in ((height, y, content.shape[-2]), (width, x, content.shape[-1]))
            )
            return content[..., rows, :][..., columns]
        return F.pad(content, (x, width - content.shape[-1] - x, y, height - content.shape[-2] - y))


@dataclass(frozen=True)
class ProtocolOptions:
    """Settings of a protocol before the image size is known; see `make_protocol`."""

    protocol: str
    kernel: str | None = None
    input_size: tuple[int, int] | int | None = None
    background: float | str = 0.0

    def make(self, image_size: tuple[int, int], *, max_shift: float, factors: tuple[float, float]) -> Protocol:
        """Return the protocol for images of one size.

        Args:
            image_size: ``(H, W)`` of the images.
            max_shift: the largest shift along an axis, in pixels.
            factors: the smallest and the largest factor.

        Raises:
            InputError: as in `make_protocol`.
        """
        return make_protocol(
            self.protocol,
            image_size,
            max_shift=max_shift,
            factors=factors,
            kernel=self.kernel,
            input_size=self.input_size,
            background=self.background,
        )


def make_protocol(
    name: str,
    image_size: tuple[int, int],
    *,
    max_shift: float = 0.0,
    factors: tuple[float, float] = (1.0, 1.0),
    kernel: str | None = None,
    input_size: tuple[int, int] | int | None = None,
    background: float | str = 0.0,
) -> Protocol:
    """Return a checked `Protocol`.

    Args:
        name: ``crop``, ``embed`` or ``circular``.
        image_size: ``(H, W)`` of the images.
        max_shift: the largest shift along an axis, in pixels.
        input_size: side of the network's input in pixels, or ``(H, W)``. When None it is the image minus the margin
            that ``max_shift`` and the smallest factor need (``crop``), the image plus the margin that ``max_shift`` and
            the largest factor need (``embed``), or the size of the image (``circular``).
        kernel: interpolation kernel; ``sinc`` when None, and ``fourier`` in ``circular``.
        background: canvas of ``embed``: a gray value in [0, 1], ``mean``, ``blur`` or ``reflection``.
        factors: the smallest and the largest factor of rescaling.

    Raises:
        InputError: the name is unknown, the shift is negative, a shift or a factor exceeds the margin, the window is
            larger than the image or the canvas smaller, ``fourier`` is used outside ``circular``, or a factor in
            ``circular``.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    kernel = kernel or DEFAULT_KERNEL[name]
    check_names(kernel, "zeros")
    if kernel == "fourier" and name != "circular":
        raise InputError(f"protocol '{name}': kernel 'fourier' wraps around; expected 'sinc' or 'lanczos3'")
    if not check_number("max_shift", max_shift) >= 0:
        raise InputError(f"max_shift: expected pixels of at least 0, got {max_shift:g}")
    if name == "circular" and factors != (1.0, 1.0):
        raise InputError("protocol 'circular': a torus cannot be rescaled; expected 'crop' or 'embed'")
    size = _default_size(name, image_size, max_shift, factors) if input_size is None else as_size(input_size)
    _check_sizes(name, image_size, size)
    protocol = Protocol(name, kernel, (image_size[0], image_size[1]), size, _checked_background(background))
    _check_margins(protocol, max_shift, factors)
    return protocol


def _default_size(
    name: str, image_size: tuple[int, int], max_shift: float, factors: tuple[float, float]
) -> tuple[int, int]:
    room = 2 * math.ceil(max_shift) if math.isfinite(max_shift) else max(image_size)
    height, width = image_size
    if name == "circular":
        return height, width
    if name == "embed":
        most = max(1.0, factors[1])
        return max(height + room, math.ceil(height * most)), max(width + room, math.ceil(width * most))
    least = min(1.0, factors[0])
    size = min(height - room, math.floor(height * least)), min(width - room, math.floor(width * least))
    if min(size) < 1:
        cause = f"max_shift {max_shift:g}" if max_shift > 0 else f"a factor of {least:.3g}"
        raise InputError(f"{cause} leaves no window in images of {_text(image_size)} pixels")
    return size


def _check_sizes(name: str, image_size: tuple[int, int], size: tuple[int, int]) -> None:
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


def _check_margins(protocol: Protocol, max_shift: float, factors: tuple[float, float]) -> None:
    sizes = f"images of {_text(protocol.image_size)} and an input of {_text(protocol.input_size)}"
    if max_shift > protocol.margin:
        raise InputError(
            f"max_shift: protocol '{protocol.name}' with {sizes} has a margin of {protocol.margin:g} pixels,"
            f" got {max_shift:g}"
        )
    low, high = protocol.factors
    beyond = [factor for factor in factors if not low <= factor <= high]
    if beyond and factors != (1.0, 1.0):
        raise InputError(
            f"factor: protocol '{protocol.name}' with {sizes} has room for factors from {low:.4g} to {high:.4g},"
            f" got {beyond[0]:.4g}"
        )


def _checked_background(background: float | str) -> float | str:
    if isinstance(background, str):
        if background not in BACKGROUNDS:
            raise unknown_name("background", background, BACKGROUNDS)
        return 0.0 if background == "black" else background
    if not 0 <= background <= 1:
        raise InputError(f"background: expected a gray value in [0, 1] or {', '.join(BACKGROUNDS)}, got {background:g}")
    return float(background)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
