"""The one resampling: any matrix, any kernel, any padding; and the exact shift on a torus."""

from __future__ import annotations

import math
import operator
from contextlib import nullcontext
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import choose, general, separable
from augkit.augment.backends.triton_call import How, Source
from augkit.augment.backends.values import concrete, differentiated, known_finite, laid_out, traced
from augkit.augment.checks import check_dense, check_flag, is_float
from augkit.augment.kernels import check_names, frequencies
from augkit.augment.matrix_checks import (
    check_values,
    checked_matrix,
    is_affine,
    reads_four_entries,
    strongest_shrink,
)
from augkit.core.errors import InputError, InputTypeError, brief
from augkit.core.precision import widest


class Finish(NamedTuple):
    """A normalization and a dtype for resampled images, fused into the resampling if the backend supports it.

    Without both, the output has the dtype of the images. With either, uint8 is divided by 255 and not rounded; the
    output then has ``dtype``: by default that of the images, or float32 for uint8.

    Attributes:
        dtype: floating dtype of the output.
        mean, std: per channel, ``(C,)`` or ``(C, 1, 1)``: ``(value - mean) / std``.
    """

    dtype: torch.dtype | None = None
    mean: Tensor | None = None
    std: Tensor | None = None


NO_FINISH = Finish()


def resample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int] | None = None,
    *,
    kernel: str = "bicubic",
    padding: str = "zeros",
    antialias: bool = True,
    finish: Finish = NO_FINISH,
) -> Tensor:
    """Resample images once, each through its own matrix.

    Args:
        images: ``(B, C, H, W)``, floating or uint8. Never changed in place.
        matrix: ``(B, 3, 3)`` or ``(3, 3)``, maps input to output pixel coordinates (see `augkit.augment.geometry`).
            A perspective has a last row of its own; its depth must be positive all over the output. Where the matrix
            requires a gradient, all its entries get one, and the slower path for rotations is taken.
        size: ``(H, W)`` of the output; the input's when None.
        kernel: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos3``, ``sinc``, or ``fourier`` (shifts only).
        padding: ``zeros``, ``border``, ``reflection`` or ``circular``: the pixels outside the image.
        antialias: stretch the kernel along the direction that shrinks, by the factor by which it does.
        finish: a dtype and a normalization of the output, see `Finish`.

    Returns:
        ``(B, C, *size)`` in the dtype of the images, and channels_last where they are; uint8 is rounded and clipped.
        The identity matrix at the same size returns the images bit for bit. NaN and infinity move with their pixel and
        affect only output pixels that depend on it: a single one for a flip or a shift by whole pixels.

    Raises:
        InputTypeError: images or matrix are not dense tensors of a supported dtype.
        InputError: wrong rank, batch, device or name; a matrix that is singular or not finite, or a perspective whose
            horizon crosses the output.

    >>> resample(torch.rand(2, 3, 8, 8), torch.eye(3), size=(4, 6)).shape
    torch.Size([2, 3, 4, 6])
    """
    # Where it may be measured, the shrink of the matrices themselves bounds the taps.
    bound = math.inf if check_flag("antialias", antialias) else None
    return replay(images, matrix, size, kernel, padding, bound, finish)


def replay(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int] | None,
    kernel: str,
    padding: str,
    max_shrink: float | None,
    finish: Finish = NO_FINISH,
) -> Tensor:
    """Resample, bitwise equal to `resample_checked` with ``max_shrink`` unless a matrix shrinks more than that.

    The bound sets the number of taps, and with it the order in which their weights are summed; None switches
    antialiasing off.
    """
    check_images(images)
    check_pixels(images)
    check_names(kernel, padding)
    matrix = checked_matrix(matrix, images)
    size = check_size((images.shape[-2], images.shape[-1]) if size is None else size)
    check_values(matrix, size)
    if kernel == "fourier":
        return _fourier(images, matrix, size, padding, finish)
    bound = 1.0 if max_shrink is None else max_shrink
    if max_shrink not in (None, math.inf) and not traced() and len(images):
        shrink = strongest_shrink(matrix, size)
        # A matrix drawn at the bound may lie beyond it by a rounding.
        bound = shrink if shrink > bound * (1 + 1e-6) else bound
    how = (size, kernel, padding, bound)
    aligned, affine = reads_four_entries(matrix), is_affine(matrix)
    return resample_checked(images, matrix, *how, finish=finish, axis_aligned=aligned, affine=affine)


def resample_checked(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    finish: Finish = NO_FINISH,
    axis_aligned: bool = False,
    affine: bool = False,
) -> Tensor:
    """Resample by matrices known to be valid, without the checks of `resample`, which synchronize with the device.

    ``axis_aligned`` promises that no matrix rotates, shears or is a perspective, and that the entries which would need
    no gradient; it is much cheaper. ``affine`` promises that none is a perspective, and that its last row needs no
    gradient. ``max_shrink`` bounds how far any direction shrinks; ``inf`` has it measured, which synchronizes.
    """
    check_pixels(images)
    if max_shrink == math.inf:
        max_shrink = strongest_shrink(matrix, size) if len(images) else 1.0
    max_shrink = _in_steps(max_shrink) if traced() else max_shrink
    # Coordinates are float32 or wider; autocast would compute the products in half precision.
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    backend = choose(images, matrix, axis_aligned=axis_aligned)
    with nullcontext() if backend == "native" else torch.autocast(images.device.type, enabled=False):
        how = (matrix, size, kernel, padding, max_shrink)
        out = _fused(backend, images, *how, finish, axis_aligned=axis_aligned, affine=affine)
        if out is not None:
            return laid_out(out, images)
        work, finite = _working(images), _finite(images)
        if axis_aligned:
            out = separable.resample(work, *how, finite=finite)
        else:
            out = general.resample(work, *how, finite=finite, affine=affine)
        return laid_out(finished(out, images.dtype, finish), images)


def _in_steps(max_shrink: float) -> float:
    """Return ``max_shrink`` rounded up to a power of 1.25; the exact value would bind a traced graph to one size."""
    bound = 1.0
    while bound < max_shrink:
        bound *= 1.25
    return bound


def shift_checked(images: Tensor, pixels: Tensor, size: tuple[int, int], kernel: str, padding: str) -> Tensor:
    """Do as `resample_checked` for shifts by ``pixels`` ``(B, 2)``, with less work per pixel."""
    pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    with torch.autocast(images.device.type, enabled=False):
        backend = choose(images, pixels, axis_aligned=True)
        out = _fused(backend, images, geometry.shift(pixels), size, kernel, padding, 1.0, NO_FINISH)
        if out is not None:
            return laid_out(out, images)
        out = separable.shift(_working(images), pixels, size, kernel, padding, finite=_finite(images))
    return laid_out(_restored(out, images.dtype), images)


def _fused(  # noqa: PLR0913 (the arguments of every backend that fuses)
    backend: str,
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    finish: Finish,
    *,
    axis_aligned: bool = True,
    affine: bool = True,
) -> Tensor | None:
    """Resample, normalize and cast in one pass, by a backend imported here; None if ``backend`` cannot do that."""
    if backend not in ("native", "cuda_triton"):
        return None
    if matrix.shape[0] != images.shape[0]:  # the loops would read beyond the last matrix
        raise InputError(f"matrix: expected one for each of {images.shape[0]} images, got {matrix.shape[0]}")
    dtype = output_dtype(images.dtype, finish)
    gain, bias = gain_and_bias(images.dtype, images.shape[1], images.device, finish)
    how = (matrix, size, kernel, padding, max_shrink)
    if backend == "cuda_triton":
        from augkit.augment.backends import self_check

        bounds, promises = [max_shrink], (axis_aligned, affine)
        wanted = How(matrix, size, kernel, padding, bounds, dtype, gain, bias, *promises)
        return self_check.resample(Source.of(images), wanted)
    from augkit.augment.backends import native  # numba takes a third of a second to import

    # The loop supports uint8 and float32; half precision is converted before and after it.
    source = images if images.dtype == torch.uint8 else _working(images)
    loop_dtype = dtype if dtype == torch.uint8 else torch.float32
    out = native.resample(source, *how, dtype=loop_dtype, gain=gain, bias=bias, axis_aligned=axis_aligned)
    return out.to(dtype)


def gain_and_bias(
    dtype: torch.dtype, channels: int, device: torch.device, finish: Finish
) -> tuple[Tensor | None, Tensor | None]:
    """``finish`` as ``gain * value + bias``, each ``(channels,)`` or None, for values of images of ``dtype``."""
    if finish.mean is None and finish.dtype is None:
        return None, None
    gain = torch.full((channels,), 1 / 255 if dtype == torch.uint8 else 1.0, device=device, dtype=torch.float32)
    if finish.mean is None or finish.std is None:
        return gain, None
    return gain / finish.std.reshape(-1), (-finish.mean / finish.std).reshape(-1)


def finished(out: Tensor, dtype: torch.dtype, finish: Finish) -> Tensor:
    """Apply ``finish`` to ``out``, which was resampled in floating point from images of ``dtype``."""
    if finish.mean is None and finish.dtype is None:
        return _restored(out, dtype)
    if dtype == torch.uint8:
        out = out.to(torch.promote_types(torch.float32, out.dtype)) / 255  # not in the default dtype, which may be half
    if finish.mean is not None and finish.std is not None:
        out = (out - finish.mean.reshape(-1, 1, 1)) / finish.std.reshape(-1, 1, 1)
    return out.to(output_dtype(dtype, finish))


def output_dtype(dtype: torch.dtype, finish: Finish) -> torch.dtype:
    """The dtype of the output for images of ``dtype``."""
    if finish.dtype is not None:
        return finish.dtype
    return torch.float32 if dtype == torch.uint8 and finish.mean is not None else dtype


def _finite(images: Tensor) -> bool:
    return images.dtype == torch.uint8 or known_finite(images)


def _working(images: Tensor) -> Tensor:
    return images if images.dtype in (torch.float32, torch.float64) else images.to(torch.float32)


def _restored(out: Tensor, dtype: torch.dtype) -> Tensor:
    return (out.round().clamp(0, 255) if dtype == torch.uint8 else out).to(dtype)


def fourier_shift(images: Tensor, shift: Tensor) -> Tensor:
    """Shift images on the torus by any fraction of a pixel, exactly for band-limited content.

    The shift multiplies each frequency by a phase factor. The Nyquist frequency of an even size has no phase in a real
    image; its coefficient is multiplied by ``cos(pi * shift)``, so that the result is real, integer shifts equal
    `torch.roll`, and all lower frequencies keep their energy.

    Args:
        images: ``(B, C, H, W)``, floating or uint8 (rounded and clipped).
        shift: ``(2,)`` or ``(B, 2)`` pixels as ``(x, y)``; positive x moves the content right, positive y down.

    Raises:
        InputTypeError, InputError: as `resample`.

    >>> x = torch.rand(1, 1, 5, 8)
    >>> torch.allclose(fourier_shift(x, torch.tensor([2.0, 1.0])), x.roll((1, 2), (-2, -1)), atol=1e-6)
    True
    """
    check_images(images)
    check_pixels(images)
    try:
        shift = as_pixels(shift, images.device)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"shift: expected a tensor (2,) or (B, 2), got {type(shift).__name__}") from None
    if shift.shape not in ((2,), (images.shape[0], 2)):
        raise InputError(f"shift: expected shape (2,) or ({images.shape[0]}, 2) as (x, y), got {tuple(shift.shape)}")
    if not torch.is_floating_point(shift):
        shift = shift.to(torch.float32)
    if not bool(torch.isfinite(concrete(shift, 1)).all()):
        raise InputError("shift: expected finite numbers, got NaN or infinity")
    return fourier_shift_checked(images, shift.expand(images.shape[0], 2))


def as_pixels(shift: Any, device: torch.device) -> Tensor:
    """Return ``shift`` as a dense real tensor; plain numbers become float32, as the default dtype may be narrower."""
    pixels = torch.as_tensor(shift, device=device, dtype=None if hasattr(shift, "dtype") else torch.float32)
    if pixels.is_complex() or (pixels.is_floating_point() and not is_float(pixels)):
        raise InputTypeError(f"shift: expected real numbers (2,) or (B, 2), got {pixels.dtype}")
    check_dense("shift", pixels, "(2,) or (B, 2)")
    return pixels


def fourier_shift_checked(
    images: Tensor, shift: Tensor, finish: Finish = NO_FINISH, *, spectrum: Tensor | None = None
) -> Tensor:
    """`fourier_shift` by ``(B, 2)`` pixels without its checks, which synchronize with the device.

    ``spectrum`` is ``torch.fft.rfft2`` of the images, where the caller has it already.
    """
    work = _working(images)
    if not images.numel():  # not supported by MKL's FFT
        return finished(work, images.dtype, finish)
    # Contiguous, because the FFT of torch 2.7 refuses some expanded images.
    spectrum = torch.fft.rfft2(work.contiguous()) if spectrum is None else spectrum
    height, width = images.shape[-2:]
    # Angles in float64 where the device has it: in float32 a large angle would lose digits.
    like = torch.empty(0, device=images.device, dtype=widest(images.device))
    phase_x = _phase(shift[:, 0], frequencies(width, like), spectrum.dtype)
    phase_y = _phase(shift[:, 1], frequencies(height, like, both=True), spectrum.dtype)
    spectrum = spectrum * phase_x[:, None, None, :] * phase_y[:, None, :, None]
    out = torch.fft.irfft2(spectrum, s=(height, width))
    # Whole pixels are moved bit for bit, NaN and infinity too; the gradient with respect to the shift stays.
    moved = separable.roll(work, shift)
    if differentiated(shift):
        change = torch.where(out.isfinite(), out - out.detach(), 0.0)
        moved = moved.detach() + change
    whole = (shift == torch.round(shift)).all(dim=-1)
    out = torch.where(whole[:, None, None, None], moved, out)
    return laid_out(finished(out, images.dtype, finish), images)


def _phase(shift: Tensor, frequency: Tensor, dtype: torch.dtype) -> Tensor:
    phase = torch.exp(-2j * math.pi * torch.remainder(shift[:, None].to(frequency.dtype) * frequency, 1.0))
    return torch.where(frequency.abs() == 0.5, phase.real.to(phase.dtype), phase).to(dtype)


def _fourier(images: Tensor, matrix: Tensor, size: tuple[int, int], padding: str, finish: Finish) -> Tensor:
    if padding != "circular":
        raise InputError(f"kernel 'fourier': expected padding 'circular', got '{padding}'")
    eye = torch.eye(3, device=matrix.device, dtype=matrix.dtype)[:, :2]
    shifts = traced() or bool((concrete(matrix, 2)[:, :, :2] == eye).all())
    if size != tuple(images.shape[-2:]) or not shifts:
        raise InputError("kernel 'fourier' shifts only; use 'sinc' or 'lanczos3' to rescale, crop or resize")
    return fourier_shift_checked(images, matrix[:, :2, 2], finish)


def check_pixels(images: Tensor) -> None:
    """Raise InputError for images on the device meta, which have a shape alone."""
    if images.is_meta:
        raise InputError("images: expected pixels, got a tensor on the device meta, which has none")


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise unless ``images`` is a ``(B, C, H, W)`` tensor, floating or uint8, with at least one pixel."""
    if not isinstance(images, Tensor):
        kind = type(images).__name__
        hint = "; Augment(size=(h, w)).eval() fits its images to one size" if kind == "Ragged" else ""
        raise InputTypeError(f"{name}: expected a torch.Tensor (B, C, H, W), got {kind}{hint}")
    check_dense(name, images, "(B, C, H, W)")
    if images.ndim != 4:
        raise InputError(
            f"{name}: expected 4 dimensions (B, C, H, W), got {images.ndim} {tuple(images.shape)}"
            + ("; add a batch dimension with images[None]" if images.ndim == 3 else "")
        )
    if not (is_float(images) or images.dtype == torch.uint8):
        raise InputTypeError(f"{name}: expected a floating dtype or uint8, got {images.dtype}")
    if 0 in images.shape[-2:]:
        raise InputError(f"{name}: expected at least one pixel, got {tuple(images.shape)}")


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``(H, W)`` for the side of a square, or for ``(H, W)`` itself; raise as `check_size`."""
    square = isinstance(size, SupportsIndex) and not isinstance(size, (bool, Tensor))  # NumPy's integers too
    return check_size((operator.index(size),) * 2 if square else size)  # type: ignore[arg-type]


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Raise unless ``size`` is ``(H, W)``, two positive integers."""
    try:
        if any(isinstance(n, torch.SymInt) for n in size):  # of an image in an exported graph, which `int` would bind
            return size
        height, width = (int(n) for n in size)
        flags = any(isinstance(n, bool) for n in size)
        if (height, width) == tuple(size) and min(height, width) >= 1 and not flags:
            return height, width
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"size: expected (H, W), two integers of at least 1, got {brief(size)}")
