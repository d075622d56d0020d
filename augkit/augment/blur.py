"""The blur of a shift without the shift: a control that separates "more shift" from "more blur".

Interpolation at a fraction f of a pixel is a filter with taps w, whose response along one axis is
``W(omega) = sum_k w_k exp(-i omega k)``: its phase is the shift and its magnitude is the blur. `shift_blur`
multiplies the spectrum by ``|W(omega)|`` alone, for the same kernel and the same f on each axis. The filter is
even with a real, non-negative response, so nothing moves; whole pixels have ``|W| = 1`` and give the identity.

The product is taken in the Fourier domain, which is exact on the torus (padding ``circular``). With another
padding each axis is first extended by `MARGIN` pixels of that padding (at most its own length) and cropped
afterwards; the taps of ``|W|`` fall at least with the square of the distance (bilinear, f = 1/2), so the error of the
finite margin is below 1e-3 of an image's range.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.augment.backends.values import concrete, laid_out
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, check_names, frequencies, padded_index
from augkit.augment.resample import as_pixels, check_images, check_pixels
from augkit.core.errors import InputError

MARGIN = 32  # pixels on either side of an axis


def shift_blur(images: Tensor, shift: Tensor, *, kernel: str = "bicubic", padding: str = "zeros") -> Tensor:
    """Blur images as a shift by ``shift`` would, without moving them.

    Args:
        images: ``(B, C, H, W)``, floating or uint8 (rounded and clipped). Never changed in place.
        shift: ``(2,)`` or ``(B, 2)`` pixels as ``(x, y)``; only its fraction matters.
        kernel, padding: see `augkit.resample`; ``fourier`` expects ``circular`` and changes only the Nyquist frequency
            of an even size.

    Returns:
        ``(B, C, H, W)`` in the dtype of the images.

    Raises:
        InputTypeError, InputError: as `augkit.fourier_shift`.

    >>> images = torch.rand(2, 3, 8, 8)
    >>> bool((shift_blur(images, torch.tensor([1.0, -3.0])) == images).all())
    True
    """
    check_images(images)
    check_pixels(images)
    check_names(kernel, padding)
    if kernel == "fourier" and padding != "circular":
        raise InputError(f"kernel 'fourier': expected padding 'circular', got '{padding}'")
    shift = as_pixels(shift, images.device)
    if shift.shape not in ((2,), (images.shape[0], 2)):
        raise InputError(f"shift: expected shape (2,) or ({images.shape[0]}, 2) as (x, y), got {tuple(shift.shape)}")
    if not bool(torch.isfinite(concrete(shift, 1)).all()):
        raise InputError("shift: expected finite numbers, got NaN or infinity")
    return shift_blur_checked(images, shift.expand(images.shape[0], 2), kernel, padding)


def shift_blur_checked(images: Tensor, shift: Tensor, kernel: str, padding: str) -> Tensor:
    """`shift_blur` without its checks, which wait for the device; ``shift`` is ``(B, 2)``."""
    check_pixels(images)
    if not images.numel():  # which MKL's FFT refuses
        return images.clone()
    work = images if images.dtype == torch.float64 else images.to(torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        for axis, dim in ((0, -1), (1, -2)):
            work = _blur_axis(work, shift[:, axis].to(work.dtype), dim, kernel, padding)
    if images.dtype == torch.uint8:
        work = work.round().clamp(0, 255)
    return laid_out(work.to(images.dtype), images)


def shift_response(shift: Tensor, frequency: Tensor, kernel: str) -> Tensor:
    """``|W|`` ``(B, n)`` of a shift by ``shift`` ``(B,)`` pixels at ``frequency`` ``(n,)`` in cycles per pixel."""
    fraction = shift - torch.floor(shift)
    if kernel == "fourier":
        # Only the Nyquist frequency loses energy: a real image has no phase there.
        nyquist = torch.cos(math.pi * fraction).abs()[:, None]
        return torch.where(frequency.abs() == 0.5, nyquist, torch.ones_like(nyquist))
    reach = math.ceil(HALF_WIDTH[kernel])
    tap = torch.arange(-reach, reach + 1, device=shift.device, dtype=shift.dtype)
    weight = FUNCTION[kernel](tap - fraction[:, None])
    weight = weight / weight.sum(dim=-1, keepdim=True)
    angle = 2 * math.pi * tap[:, None] * frequency.to(shift.dtype)
    return torch.hypot(weight @ torch.cos(angle), weight @ torch.sin(angle))


def _blur_axis(images: Tensor, shift: Tensor, dim: int, kernel: str, padding: str) -> Tensor:
    length = images.shape[dim]
    margin = 0 if padding == "circular" else min(MARGIN, length)
    wide = _extend(images, margin, dim, padding)
    spectrum = torch.fft.rfft(wide, dim=dim)
    frequency = frequencies(wide.shape[dim], images)
    response = shift_response(shift, frequency, kernel)
    response = response[:, None, None, :] if dim == -1 else response[:, None, :, None]
    blurred = torch.fft.irfft(spectrum * response, n=wide.shape[dim], dim=dim).narrow(dim, margin, length)
    return torch.where((shift == torch.round(shift))[:, None, None, None], images, blurred)


def _extend(images: Tensor, margin: int, dim: int, padding: str) -> Tensor:
    if margin == 0:
        return images
    length = images.shape[dim]
    index = torch.arange(-margin, length + margin, device=images.device)
    wide = images.index_select(dim, padded_index(index, length, padding))
    if padding == "zeros":
        inside = (index >= 0) & (index < length)
        wide = wide * (inside if dim == -1 else inside[:, None])
    return wide
