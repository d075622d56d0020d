"""Axis-aligned resampling in torch: one small map per axis, never a ``(B, H, W, 2)`` grid.

Each output pixel of an axis is a weighted sum of a few taps of that axis, each with an index and a weight. Taps are
applied as

- a bag of rows (``embedding_bag``) on the CPU without autograd: five times as fast as a gather at 224 pixels with
  bilinear, twenty times with lanczos3, twice as fast as a dense product at 32 (one thread, float32);
- a dense ``(B, out, in)`` matrix and a batched product, for small axes or many taps;
- gathers, for long axes with few taps.

The last two are differentiable with respect to the images and to the matrix, forwards and backwards.

A tap of weight 0 must not count, but its product with a NaN or an infinity is a NaN. Images known to be ``finite`` need
no special handling. Otherwise the gathers omit such taps, and the matrix product omits the pixels that are not finite,
while a second product finds the outputs that they reach.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.augment.backends.values import recorded
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, padded_index
from augkit.core.precision import widest

# Public since torch 2.7; before, compiled graphs take the path of exported ones too, for any size.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
DENSE_UP_TO = 64  # pixels of an axis; measured on 2 cores, see benchmarks/LOG.md


def resample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    finite: bool = False,
) -> Tensor:
    """Resample float ``images`` ``(B, C, H, W)`` to ``size`` through axis-aligned ``matrix`` ``(B, 3, 3)``.

    ``max_shrink`` bounds how far any axis shrinks; the kernel is stretched by the true factor up to it, and
    1 switches antialiasing off. A bound that is known beforehand saves a synchronization with the device.
    """
    for axis, dim in ((0, -1), (1, -2)):
        scale, offset = matrix[:, axis, axis], matrix[:, axis, 2]
        taps = axis_taps(scale, offset, (images.shape[dim], size[axis - 1]), kernel, padding, max_shrink)
        images = _apply(images, *taps, dim=dim, finite=finite)
    return images


def axis_taps(
    scale: Tensor, offset: Tensor, sizes: tuple[int, int], kernel: str, padding: str, max_shrink: float
) -> tuple[Tensor, Tensor]:
    """Index (int64) and weight of every tap along one axis, both ``(B, out, T)``; sizes are ``(in, out)``."""
    return _pad(*unpadded_taps(scale, offset, sizes[1], kernel, max_shrink), sizes[0], padding)


def unpadded_taps(scale: Tensor, offset: Tensor, size: int, kernel: str, max_shrink: float) -> tuple[Tensor, Tensor]:
    """Return position and weight of every tap of ``size`` output pixels, before the padding: ``(B, size, T)`` each."""
    tap, weight = unscaled_taps(scale, offset, size, kernel, max_shrink)
    return tap, weight / weight.sum(dim=-1, keepdim=True)


def unscaled_taps(
    scale: Tensor, offset: Tensor, size: int, kernel: str, max_shrink: float, each: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `unpadded_taps`, with weights that do not yet sum to 1.

    ``each`` ``(B,)`` are bounds of single images, of which ``max_shrink`` is the largest. An image that takes fewer
    taps than others of its batch has further ones of weight 0; its own are the same as alone.
    """
    # In float64, as in the native loop: at 224 pixels a float32 coordinate is wrong in the fifth digit of a weight.
    dtype, precise = scale.dtype, widest(scale.device)
    scale, offset = scale.to(precise), offset.to(precise)
    u = torch.arange(size, device=scale.device, dtype=precise)
    x = (u - offset[:, None]) / scale[:, None]
    shrink = max_shrink if kernel != "nearest" else 1.0
    bound = shrink if each is None or kernel == "nearest" else each.to(precise)
    inverse = 1 / scale.abs()
    # A plain clamp would have no gradient at the bound itself, where the strongest shrink of a batch lies.
    held = inverse.detach().clamp(min=1.0).clamp(max=bound)
    bounded = torch.where((inverse > 1) & (inverse <= bound), inverse, held)
    stretch = bounded[:, None]
    reach = HALF_WIDTH[kernel] * stretch
    first = torch.floor(x - reach) + 1
    count = math.ceil(2 * HALF_WIDTH[kernel] * shrink) + (shrink > 1)
    tap = first[..., None] + torch.arange(count, device=x.device, dtype=x.dtype)
    return tap, FUNCTION[kernel](((tap - x[..., None]) / stretch[..., None]).to(dtype))


def shift(
    images: Tensor, pixels: Tensor, size: tuple[int, int], kernel: str, padding: str, *, finite: bool = False
) -> Tensor:
    """`resample` for shifts by ``pixels`` ``(B, 2)``: the weights are the same for every pixel of an axis."""
    for axis, dim in ((0, -1), (1, -2)):
        taps = shift_taps(pixels[:, axis], (images.shape[dim], size[axis - 1]), kernel, padding)
        images = _apply(images, *taps, dim=dim, finite=finite)
    return images


def shift_taps(pixels: Tensor, sizes: tuple[int, int], kernel: str, padding: str) -> tuple[Tensor, Tensor]:
    """As `axis_taps` for ``x -> x + pixels``."""
    x = -pixels[:, None]
    reach = HALF_WIDTH[kernel]
    tap = torch.floor(x - reach) + 1 + torch.arange(math.ceil(2 * reach), device=x.device, dtype=x.dtype)
    weight = FUNCTION[kernel](tap - x)
    weight = weight / weight.sum(dim=-1, keepdim=True)
    u = torch.arange(sizes[1], device=x.device, dtype=x.dtype)
    return _pad(tap[:, None, :] + u[:, None], weight[:, None, :].expand(-1, sizes[1], -1), sizes[0], padding)


def _pad(tap: Tensor, weight: Tensor, size_in: int, padding: str) -> tuple[Tensor, Tensor]:
    """Return the pixel that each tap reads, and its weight, after applying the padding."""
    if padding == "zeros":
        weight = torch.where((tap >= 0) & (tap < size_in), weight, torch.zeros_like(weight))
    # Far outside, a coordinate may exceed int64; the clamp changes nothing within a million images' widths.
    limit = 1e6 * size_in
    return padded_index(tap.clamp(-limit, limit).to(torch.int64), size_in, padding), weight


def _apply(images: Tensor, index: Tensor, weight: Tensor, dim: int, *, finite: bool) -> Tensor:
    size_in, taps = images.shape[dim], index.shape[-1]
    weight = weight.to(images.dtype)
    if finite and images.device.type == "cpu" and images.numel() and not recorded(images, weight):
        return _apply_bags(images, index, weight, dim)
    # An exported graph is for images of all sizes, so it must not branch on the size.
    if not _is_exporting() and (size_in <= DENSE_UP_TO or taps * 4 > size_in):
        return (_apply_dense if finite else _apply_dense_guarded)(images, index, weight, dim)
    out = None
    for t in range(taps):
        factor, values = _along(weight[..., t], dim), _gather(images, index[..., t], dim)
        term = (values if finite else without_idle(values, factor)) * factor
        out = term if out is None else out + term
    assert out is not None  # every kernel has at least one tap
    return out


def _along(values: Tensor, dim: int) -> Tensor:
    """``(B, n)`` to ``(B, 1, 1, n)`` or ``(B, 1, n, 1)``."""
    return values[:, None, None, :] if dim == -1 else values[:, None, :, None]


def _gather(images: Tensor, at: Tensor, dim: int) -> Tensor:
    """The pixels ``at`` ``(B, n)`` of axis ``dim``, -1 or -2, of ``images`` ``(B, C, H, W)``."""
    shape = list(images.shape)
    shape[dim] = at.shape[1]
    return images.gather(dim, _along(at, dim).expand(shape))


def roll(images: Tensor, shift: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` on the torus moved by ``shift`` ``(B, 2)`` as (x, y), rounded to whole pixels."""
    for axis, dim in ((0, -1), (1, -2)):
        length = images.shape[dim]
        place = torch.arange(length, device=images.device) - torch.round(shift[:, axis, None]).to(torch.int64)
        images = _gather(images, torch.remainder(place, length), dim)
    return images


def without_idle(values: Tensor, weight: Tensor) -> Tensor:
    """Return ``values`` with 0 for a NaN or an infinity of weight 0; others stay, for the gradient of the weight."""
    return torch.where((weight == 0) & ~torch.isfinite(values), 0.0, values)


def _apply_bags(images: Tensor, index: Tensor, weight: Tensor, dim: int) -> Tensor:
    if dim == -1:
        return _apply_bags(images.transpose(-1, -2), index, weight, -2).transpose(-1, -2)
    batch, channels, height, width = images.shape
    plane = torch.arange(batch * channels).view(batch, channels, 1, 1) * height
    rows, taps = (plane + index[:, None]).flatten(0, 2), weight[:, None].expand(-1, channels, -1, -1).flatten(0, 2)
    out = F.embedding_bag(rows, images.reshape(-1, width), per_sample_weights=taps, mode="sum")
    return out.view(batch, channels, index.shape[1], width)


def _apply_dense(images: Tensor, index: Tensor, weight: Tensor, dim: int) -> Tensor:
    return _product(_dense(index, weight, images.shape[dim]), images, dim)


def _apply_dense_guarded(images: Tensor, index: Tensor, weight: Tensor, dim: int) -> Tensor:
    finite = torch.isfinite(images)
    out = _apply_dense(torch.where(finite, images, 0.0), index, weight, dim)
    with torch.no_grad():
        takes = _dense(index, (weight != 0).to(weight.dtype), images.shape[dim])
        touched = _product(takes, (~finite).to(weight.dtype), dim) > 0
        # An infinity is kept where it is the heaviest tap or the only one; mixed with other taps it gives a NaN.
        heaviest = _gather(images, index.gather(-1, weight.abs().argmax(-1, keepdim=True))[..., 0], dim)
        passed = torch.where(torch.isfinite(heaviest), torch.nan, heaviest)
    return torch.where(touched, passed, out)


def _dense(index: Tensor, weight: Tensor, size_in: int) -> Tensor:
    """The taps as matrices ``(B, out, in)``."""
    return weight.new_zeros(index.shape[0], index.shape[1], size_in).scatter_add(2, index, weight)


def _product(dense: Tensor, images: Tensor, dim: int) -> Tensor:
    batch, channels, height, width = images.shape
    if dim == -1:
        rows = images.reshape(batch, channels * height, width)
        return torch.bmm(rows, dense.mT).unflatten(1, (channels, height))
    columns = images.movedim(1, 2).reshape(batch, height, channels * width)
    return torch.bmm(dense, columns).unflatten(2, (channels, width)).movedim(2, 1)
