"""Images of different sizes, each resampled through its own matrix to one size.

A `Ragged` is read by one compiled loop, or on CUDA by one kernel, where the backend has it; else one image at a time.
The pixels are those of each image alone, bit for bit on one backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.augment.backends import choose
from augkit.augment.backends.triton_call import How, Source
from augkit.augment.backends.values import concrete
from augkit.augment.blur import shift_blur, shift_blur_checked
from augkit.augment.fit import fit, fit_shrink
from augkit.augment.matrix_checks import strongest_shrink
from augkit.augment.ragged import Ragged, sizes_of
from augkit.augment.resample import NO_FINISH, Finish, gain_and_bias, output_dtype, replay, resample_checked
from augkit.core.errors import InputError

Size = tuple[int, int]
Images = Ragged | Sequence[Tensor]


class Way(NamedTuple):
    """How images of different sizes are resampled.

    Attributes:
        size: (H, W) of the output.
        kernel, padding: see `augkit.resample`.
        bounds: the most that each image shrinks along any direction; None where nothing is antialiased.
        finish: of the output.
    """

    size: Size
    kernel: str
    padding: str
    bounds: list[float | None]
    finish: Finish


def resample_each(
    images: Images, matrix: Tensor, blur: Tensor | None, way: Way, *, axis_aligned: bool, affine: bool = False
) -> Tensor:
    """Resample images by valid matrices ``(B, 3, 3)``, after ``blur`` ``(B, 2)``; flags as in `resample_checked`."""
    if blur is not None:
        pairs = zip(images, blur.split(1), strict=True)
        images = [shift_blur_checked(image[None], own, way.kernel, way.padding)[0] for image, own in pairs]
    promises = {"axis_aligned": axis_aligned, "affine": affine}
    out = _fused(images, matrix, way, **promises) if isinstance(images, Ragged) else None
    if out is not None:
        return out
    size, kernel, padding, bounds, finish = way
    return torch.cat(
        [
            resample_checked(image[None], own, size, kernel, padding, bound or 1.0, finish=finish, **promises)
            for image, own, bound in zip(images, matrix.split(1), bounds, strict=True)
        ]
    )


def replay_each(images: Images, matrix: Tensor, blur: Tensor | None, way: Way) -> Tensor:
    """`resample_each` for a caller's ``matrix`` ``(B, 3, 3)`` and ``blur``, which are checked first."""
    size, kernel, padding, bounds, finish = way
    parts = []
    for k, image in enumerate(images):
        alone = image[None]
        if blur is not None:
            alone = shift_blur(alone, blur[k : k + 1], kernel=kernel, padding=padding)
        parts.append(replay(alone, matrix[k : k + 1], size, kernel, padding, bounds[k], finish))
    return torch.cat(parts)


def centers(images: Ragged, size: Size, crop_share: float = 1.0) -> Tensor:
    """Return the centers ``(B, C, h, w)`` of images of any size, as evaluation sees those of files.

    Each is fitted to ``size / crop_share`` and cut, in one resampling; the dtype stays.

    >>> centers(Ragged.from_list([torch.rand(3, 30, 40), torch.rand(3, 50, 25)]), (24, 24)).shape
    torch.Size([2, 3, 24, 24])
    """
    sizes = sizes_of(images)
    like = torch.empty(len(sizes), 1, device=images.device, dtype=torch.float32)
    matrix = fit(sizes, size, like, crop_share=crop_share).matrix(size)
    bounds: list[float | None] = [fit_shrink(own, size, crop_share) for own in sizes]
    return resample_each(images, matrix, None, Way(size, "lanczos3", "border", bounds, NO_FINISH), axis_aligned=True)


def _fused(images: Ragged, matrix: Tensor, way: Way, *, axis_aligned: bool, affine: bool) -> Tensor | None:
    """Resample the buffer of ``images`` in one pass; None where this backend cannot."""
    backend = choose(images.values, matrix, axis_aligned=axis_aligned)
    if backend not in ("native", "cuda_triton"):
        return None
    if len(matrix) != len(images):  # the loops would read beyond the last matrix
        raise InputError(f"matrix: expected one for each of {len(images)} images, got {len(matrix)}")
    bounds = _bounds(matrix, way)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    dtype = output_dtype(images.dtype, way.finish)
    gain, bias = gain_and_bias(images.dtype, images.channels, images.device, way.finish)
    if backend == "cuda_triton":
        from augkit.augment.backends import self_check

        if images.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None  # offsets and sizes come from the host, which a CUDA graph cannot copy from
        promises = (axis_aligned, affine)
        how = How(matrix, way.size, way.kernel, way.padding, bounds, dtype, gain, bias, *promises)
        with torch.autocast(images.device.type, enabled=False):
            source = Source.ragged(images.values, images.offsets, images.sizes, images.channels)
            return self_check.resample(source, how)
    from augkit.augment.backends import native  # numba takes a third of a second to import

    # The loop knows uint8 and float32, as for batches of one size.
    values = images.values if images.dtype == torch.uint8 else images.values.to(torch.float32)
    out = native.resample_ragged(
        values.detach(),
        images.offsets,
        images.sizes,
        images.channels,
        matrix,
        way.size,
        way.kernel,
        way.padding,
        torch.tensor(bounds, dtype=torch.float64),
        dtype=dtype if dtype == torch.uint8 else torch.float32,
        gain=gain,
        bias=bias,
        axis_aligned=axis_aligned,
    )
    return out.to(dtype)


def _bounds(matrix: Tensor, way: Way) -> list[float]:
    """The bound on the shrink of each image; infinite ones are measured, which waits for the device."""
    given = [1.0 if bound is None else bound for bound in way.bounds]
    if math.inf not in given:
        return given
    moves = concrete(matrix, 2).cpu().split(1)
    return [strongest_shrink(own, way.size) if b == math.inf else b for own, b in zip(moves, given, strict=True)]
