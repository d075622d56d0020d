"""Images of different sizes, each resampled through its own matrix to one size.

A `Ragged` is read by one compiled loop where the backend has it; else one image follows the other. The pixels are
those of each image alone, bit for bit on one backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.augment.backends import choose
from augkit.augment.blur import shift_blur, shift_blur_checked
from augkit.augment.fit import fit, fit_shrink
from augkit.augment.matrix_checks import strongest_shrink
from augkit.augment.ragged import Ragged, sizes_of
from augkit.augment.resample import NO_FINISH, Finish, gain_and_bias, output_dtype, replay, resample_checked

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
    out = _compiled(images, matrix, way, axis_aligned=axis_aligned) if isinstance(images, Ragged) else None
    if out is not None:
        return out
    size, kernel, padding, bounds, finish = way
    promises = {"axis_aligned": axis_aligned, "affine": affine}
    return torch.cat(
        [
            resample_checked(image[None], own, size, kernel, padding, bound or 1.0, finish=finish, **promises)
            for image, own, bound in zip(images, matrix.split(1), bounds, strict=True)
        ]
    )


def replay_each(images: Images, matrix: Tensor, blur: Tensor | None, way: Way) -> Tensor:
    """Do as `resample_each`, for ``matrix`` ``(B, 3, 3)`` and ``blur`` of a caller, which are checked."""
    size, kernel, padding, bounds, finish = way
    parts = []
    for k, image in enumerate(images):
        alone = image[None]
        if blur is not None:
            alone = shift_blur(alone, blur[k : k + 1], kernel=kernel, padding=padding)
        parts.append(replay(alone, matrix[k : k + 1], size, kernel, padding, bounds[k], finish))
    return torch.cat(parts)


def centres(images: Ragged, size: Size, crop_share: float = 1.0) -> Tensor:
    """Return the centres ``(B, C, h, w)`` of images of any size, as evaluation sees those of files.

    Each is fitted to ``size / crop_share`` and cut, in one resampling; the dtype stays.

    >>> centres(Ragged.from_list([torch.rand(3, 30, 40), torch.rand(3, 50, 25)]), (24, 24)).shape
    torch.Size([2, 3, 24, 24])
    """
    sizes = sizes_of(images)
    like = torch.empty(len(sizes), 1, device=images.device, dtype=torch.float32)
    matrix = fit(sizes, size, like, crop_share=crop_share).matrix(size)
    bounds: list[float | None] = [fit_shrink(own, size, crop_share) for own in sizes]
    return resample_each(images, matrix, None, Way(size, "lanczos3", "border", bounds, NO_FINISH), axis_aligned=True)


def _compiled(images: Ragged, matrix: Tensor, way: Way, *, axis_aligned: bool) -> Tensor | None:
    """Resample by one compiled loop over the buffer of ``images``; None where this backend has none."""
    if choose(images.values, matrix, axis_aligned=axis_aligned) != "native":
        return None
    from augkit.augment.backends import native  # numba takes a third of a second to import

    bounds = [
        strongest_shrink(own, way.size) if bound == math.inf else bound or 1.0
        for own, bound in zip(matrix.split(1), way.bounds, strict=True)
    ]
    # The loop knows uint8 and float32, as for batches of one size.
    values = images.values if images.dtype == torch.uint8 else images.values.to(torch.float32)
    dtype = output_dtype(images.dtype, way.finish)
    gain, bias = gain_and_bias(images.dtype, images.channels, images.device, way.finish)
    out = native.resample_ragged(
        values.detach(),
        images.offsets,
        images.sizes,
        images.channels,
        matrix.to(torch.promote_types(matrix.dtype, torch.float32)),
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
