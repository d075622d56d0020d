"""The region of a map that two views share, and maps moved within it.

A view whose content moved by ``m`` pixels of the input moves a map of stride r by ``m / r`` of the map's own pixels. A
view that is rescaled by a factor about its center rescales a map by that factor about the map's center: pixel i of a
map of stride r lies at ``(i + 1/2) r - 1/2`` of the input, as in `torch.nn.functional.interpolate` without aligned
corners. In the protocols ``crop`` and ``embed`` a pixel is compared only if every pixel that the kernel reads lies in
the map: a move by whole pixels of the map reads one pixel, any other move as many as the kernel is wide, and a map that
shrinks as many more as the kernel is stretched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.kernels import HALF_WIDTH
from augkit.augment.resample import fourier_shift_checked, resample_checked, shift_checked
from augkit.core.errors import InputError
from augkit.core.precision import exactly

KERNELS = ("sinc", "lanczos3", "bicubic", "bilinear", "nearest")  # the widest first
WHOLE = 1e-4  # pixels; moves come from float32
LEAST = 0.5  # share of a map's side that the default kernel leaves to be compared


def strides(size: tuple[int, int], input_size: tuple[int, int]) -> tuple[float, float]:
    """Return how many pixels of the input lie between two pixels of a map, ``(y, x)``; below 1 where it is enlarged.

    Raises:
        InputError: neither size divides the other.

    >>> strides((14, 14), (224, 224)), strides((64, 64), (32, 32))
    ((16.0, 16.0), (0.5, 0.5))
    """
    if any(side < 1 or (whole % side and side % whole) for side, whole in zip(size, input_size, strict=True)):
        raise InputError(
            f"model: expected a map whose size divides its input's {_text(input_size)} pixels or is a multiple of it,"
            f" got {_text(size)}; choose another input_size"
        )
    y, x = (whole / side for side, whole in zip(size, input_size, strict=True))
    return y, x


def moved(maps: Tensor, pixels: Tensor, kernel: str, *, circular: bool, factor: Tensor | None = None) -> Tensor:
    """Move maps ``(B, C, h, w)`` by ``pixels`` ``(B, 2)`` (x, y) of their own, or rescale them by ``factor`` ``(B,)``.

    Whole pixels are rolled, so what comes from outside is arbitrary, as no pixel outside of the region counts.
    """
    if factor is not None:
        size = (maps.shape[-2], maps.shape[-1])
        shrink = max(1.0, 1 / float(factor.min()))
        return resample_checked(maps, geometry.rescale(factor, size), size, kernel, "border", shrink, axis_aligned=True)
    places = pixels.cpu()
    if bool((places == places.round()).all()):
        shifts = [(int(y), int(x)) for x, y in places.tolist()]
        return torch.stack([each.roll(shift, (-2, -1)) for each, shift in zip(maps, shifts, strict=True)])
    if kernel == "fourier":
        return fourier_shift_checked(maps, pixels)
    return shift_checked(maps, pixels, (maps.shape[-2], maps.shape[-1]), kernel, "circular" if circular else "border")


def snapped(pixels: Tensor) -> Tensor:
    """Return moves ``(B, 2)`` with those that are whole pixels but for rounding as whole pixels."""
    whole = pixels.round()
    return torch.where((pixels - whole).abs() < WHOLE, whole, pixels)


def shared(
    size: tuple[int, int],
    pixels: Tensor,
    kernel: str,
    border: tuple[float, float] = (0.0, 0.0),
    factor: Tensor | None = None,
) -> Tensor:
    """Return which pixels of moved or rescaled maps come from inside, bool ``(B, h, w)``.

    Args:
        size: ``(h, w)`` of the maps.
        pixels: ``(B, 2)`` (x, y), the moves in pixels of the map, `snapped`.
        kernel: the kernel that moved them.
        border: ``(y, x)``, pixels at each border of both maps that are left out in addition.
        factor: ``(B,)``, by which the maps are rescaled about their centers; None for shifts.
    """
    rows = _shared(size[0], pixels[:, 1], kernel, border[0], factor)
    columns = _shared(size[1], pixels[:, 0], kernel, border[1], factor)
    return rows[:, :, None] & columns[:, None, :]


def rectangles(mask: Tensor) -> Tensor:
    """Return the first row, end, first column and end of each region of `shared`, ``(B, 4)`` int64; 0 where empty."""
    edges = []
    for axis in (-1, -2):
        line = mask.any(axis).to(torch.int8)
        first, count = line.argmax(-1), line.sum(-1)
        edges += [first, first + count]
    return torch.stack(edges, dim=-1).cpu()


def _shared(side: int, move: Tensor, kernel: str, border: float, factor: Tensor | None) -> Tensor:
    device, move = move.device, exactly(move)
    place = torch.arange(side, device=move.device, dtype=torch.float64)
    by, middle = torch.ones_like(move) if factor is None else exactly(factor), (side - 1) / 2
    by = by[:, None]
    source = place - move[:, None] if factor is None else middle + (place - middle) / by
    whole = (by == 1) & ((source - source.round()).abs() < WHOLE)
    half = HALF_WIDTH[kernel] * (1 / by).clamp_min(1)
    # Taps at exactly the half width have weight 0.
    first = torch.where(whole, source.round(), (source - half).floor() + 1)
    last = torch.where(whole, source.round(), (source + half).ceil() - 1)
    inside = (place >= border) & (place <= side - 1 - border)
    return (inside & (first >= border) & (last <= side - 1 - border)).to(device)


def default_kernel(
    size: tuple[int, int],
    stride: tuple[float, float],
    most: float,
    *,
    circular: bool,
    whole: bool,
    smallest: float = 1.0,
) -> str:
    """Return the kernel that moves a map: ``fourier`` on a torus, else the widest that leaves half of every side.

    Args:
        size: ``(h, w)`` of the map.
        stride: ``(y, x)``.
        most: the largest move along an axis, in pixels of the input.
        circular: whether the map is a torus.
        whole: whether all moves are whole pixels of the input.
        smallest: the smallest factor by which the map is rescaled.
    """
    if circular:
        return "fourier"
    if whole and all((1 / r) % 1 == 0 for r in stride):
        return KERNELS[0]  # pixels are copied, whatever the kernel

    def left(kernel: str) -> float:
        reach = 2 * HALF_WIDTH[kernel] - 1
        return min((side * min(1, smallest) - most / r - reach) / side for side, r in zip(size, stride, strict=True))

    return next((kernel for kernel in KERNELS[:-1] if left(kernel) >= LEAST), "bilinear")


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
