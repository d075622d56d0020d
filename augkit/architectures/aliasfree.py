"""Layers that commute with shifts by any fraction of a pixel, because they do not alias.

A map without frequencies at or above the Nyquist frequency represents one periodic function on the torus. The layers
here act on that function: ideal low-pass filters, resampling, activations whose harmonics are removed before they
alias, and a layer norm whose only statistic is the energy of the function. A network of such layers, convolutions with
circular padding and batch norm (in evaluation one affine map per channel) that ends in a global average gives the
same logits for every `fourier_shift` of its input, whole pixels or not.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", https://arxiv.org/abs/2106.12423; Michaeli et al.
2023, "Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations",
https://arxiv.org/abs/2303.08085.

Two conventions, everywhere below:

- The Nyquist frequency of an even side is removed, because it has no phase that a shift could change. For n pixels the
  frequencies ``|k| <= (n - 1) // 2`` remain: all for an odd side, all but one for an even side. Very small maps
  therefore lose much of their content: of 2 pixels the mean remains, of 4 pixels 3 coefficients.
- A side need not be a multiple of the stride: ``ceil(n / stride)`` samples are spaced evenly over the torus, at steps
  slightly below the stride.

Layers compute in float32 or wider, under autocast too, and return the dtype of their input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.core.errors import InputError, check_whole, unknown_name

LONGEST_MATRIX = 96  # side in pixels up to which two matrix products are faster than two FFTs on the CPU


class IdealLowpass2d(nn.Module):
    """Removes the frequencies at and above ``cutoff`` along each axis and keeps the others unchanged.

    Args:
        cutoff: as a fraction of the Nyquist frequency, in (0, 1]. With 1 an even side loses its Nyquist frequency
            and an odd side loses nothing. The mean always stays.

    Raises:
        InputError: the cutoff is outside (0, 1].

    >>> maps = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> IdealLowpass2d(1.0)(2.0 + maps).unique().tolist()
    [2.0]
    """

    def __init__(self, cutoff: float = 1.0) -> None:
        super().__init__()
        if not 0 < cutoff <= 1:
            raise InputError(f"IdealLowpass2d: expected 0 < cutoff <= 1, a fraction of Nyquist, got {cutoff}")
        self.cutoff = cutoff

    def forward(self, maps: Tensor) -> Tensor:
        H, W = maps.shape[-2:]
        return band_limited(maps, (H, W), (self._bins(H), self._bins(W))).to(maps.dtype)

    def _bins(self, side: int) -> int:
        return max(0, math.ceil(self.cutoff * side / 2 - 1e-9) - 1)

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}"


class AliasFreeDownsample2d(nn.Module):
    """Low-passes maps at the Nyquist frequency of the result, then samples them at 1 / ``stride`` of the rate.

    Maps ``(B, C, H, W)`` become ``(B, C, ceil(H / stride), ceil(W / stride))``. The first pixel keeps its position.

    Args:
        stride: factor of the downsampling, at least 1.

    Raises:
        InputError: the stride is below 1.

    >>> AliasFreeDownsample2d(2)(torch.rand(1, 3, 8, 9)).shape
    torch.Size([1, 3, 4, 5])
    """

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        check_whole("AliasFreeDownsample2d: stride", stride, 1, optional=False)
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        H, W = (-(-side // self.stride) for side in maps.shape[-2:])
        return band_limited(maps, (H, W), ((H - 1) // 2, (W - 1) // 2)).to(maps.dtype)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


# The least-squares quadratic approximation of GELU for standard normal inputs, as norms provide:
# its Hermite coefficients are E[f], E[f'] and E[f''] / 2.
GELU_QUADRATIC = (1 / (8 * math.sqrt(math.pi)), 0.5, 3 / (8 * math.sqrt(math.pi)))
POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
FORMS = ("polynomial", *POINTWISE)


class AliasFreeActivation(nn.Module):
    """Activates maps on a finer grid, removes the frequencies that their own grid cannot represent, and returns to it.

    A polynomial of degree 2 doubles the bandwidth, so a grid twice as fine has no aliasing: the result is exactly the
    activation of the continuous function and commutes with every fractional shift (Michaeli 2023, section 3.2). The
    layer uses a grid only 3/2 as fine, which gives the same numbers, because the aliases then lie in the band that is
    removed (Orszag 1971). GELU and ReLU have infinitely many harmonics: on a grid ``factor`` times as fine the largest
    are removed (Karras 2021) and the rest alias. Shifts by multiples of 1 / ``factor`` of a pixel are whole pixels of
    that grid and remain exact.

    Args:
        form: ``polynomial`` (a0 + a1 x + a2 x**2, initially the quadratic approximation of GELU), ``gelu`` or
            ``relu``.
        channels: with ``polynomial``, the number of channels for which a0, a1 and a2 are learned (the parameter
            ``coefficients``, of shape ``(3, channels)``); fixed coefficients when None.
        factor: pixels of the finer grid per pixel, for ``gelu`` and ``relu``; at least 1.

    Raises:
        InputError: the form is unknown, ``channels`` is given with a form other than ``polynomial``, or the factor is
            below 1.
    """

    coefficients: Tensor

    def __init__(self, form: str = "polynomial", channels: int | None = None, factor: int = 2) -> None:
        super().__init__()
        if form not in FORMS:
            raise unknown_name("form of activation", form, FORMS)
        if channels is not None and form != "polynomial":
            raise InputError(f"AliasFreeActivation: channels are learned with form 'polynomial' only, not '{form}'")
        check_whole("AliasFreeActivation: factor", factor, 1, optional=False)
        self.form, self.channels, self.factor = form, channels, factor
        if channels is not None:
            self.coefficients = nn.Parameter(torch.tensor(GELU_QUADRATIC)[:, None].repeat(1, channels))

    def forward(self, maps: Tensor) -> Tensor:
        H, W = maps.shape[-2:]
        bins = (H - 1) // 2, (W - 1) // 2
        fine = band_limited(maps, (self._fine(H), self._fine(W)), bins)
        return band_limited(self._activate(fine), (H, W), bins).to(maps.dtype)

    def _activate(self, fine: Tensor) -> Tensor:
        if self.form != "polynomial":
            return POINTWISE[self.form](fine)
        if self.channels is None:
            return quadratic(fine)
        constant, linear, square = self.coefficients.to(fine.dtype)[..., None, None]
        return fine * (fine * square + linear) + constant

    def _fine(self, side: int) -> int:
        if self.form != "polynomial":
            return self.factor * side
        # Products reach 2 K, and 2 K - size must fall outside [-K, K]; rounded up, for aligned products.
        return -(-(3 * ((side - 1) // 2) + 1) // 4) * 4

    def extra_repr(self) -> str:
        learned = "" if self.channels is None else f", channels={self.channels}"
        return f"{self.form!r}{learned}" if self.form == "polynomial" else f"{self.form!r}, factor={self.factor}"


class AliasFreeLayerNorm2d(nn.Module):
    """Layer norm that divides a whole sample by one number (Michaeli 2023, section 3.3).

    At each pixel the mean over channels is subtracted, which is linear and does not alias. Then the sample is divided
    by the root mean square over channels and pixels, which measures the energy of the continuous function and is the
    same on every grid. Dividing each pixel by its own deviation, as ConvNeXt does, would create new frequencies.

    Args:
        channels: C of the maps ``(B, C, H, W)``.
        eps: added to the mean square.

    >>> AliasFreeLayerNorm2d(8)(5 + 3 * torch.randn(2, 8, 6, 6)).square().mean().round(decimals=2)
    tensor(1., grad_fn=<RoundBackward1>)
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        work = maps.to(_working(maps))
        work = work - work.mean(1, keepdim=True)
        scale = (work.square().mean((1, 2, 3), keepdim=True) + self.eps).rsqrt()
        work = work * scale * self.weight.to(work.dtype)[:, None, None] + self.bias.to(work.dtype)[:, None, None]
        return work.to(maps.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps:g}"


def quadratic(values: Tensor) -> Tensor:
    """Return the quadratic approximation of GELU for standard normal x: ``(1 + 3 x**2) / (8 sqrt(pi)) + x / 2``."""
    constant, linear, square = GELU_QUADRATIC
    return values * (values * square + linear) + constant


def band_limited(maps: Tensor, size: tuple[int, int], bins: tuple[int, int]) -> Tensor:
    """Sample the periodic function of ``maps`` on a grid of ``size``, keeping only frequencies up to ``bins``.

    Args:
        maps: ``(..., H, W)`` floating.
        size: pixels of the result, (height, width).
        bins: the largest frequency that is kept, in cycles per side, (height, width); ``2 * bins + 1`` must not exceed
            the side of either grid.

    Returns:
        ``(..., *size)``, float32 or float64.
    """
    work = maps.to(_working(maps))
    if max(*work.shape[-2:], *size) <= LONGEST_MATRIX and _exact_products(work):
        return _by_matrices(work, size, bins)
    return _by_fft(work, size, bins)


def _exact_products(maps: Tensor) -> bool:
    # FFTs are always in float32; matrix products may use TensorFloat-32 or bfloat16 internally.
    # (Compiled code cannot check; on processors that have such products, leave the precision at "highest".)
    return maps.device.type == "cpu" and (
        torch.compiler.is_compiling() or torch.get_float32_matmul_precision() == "highest"
    )


def _by_fft(maps: Tensor, size: tuple[int, int], bins: tuple[int, int]) -> Tensor:
    rows, columns = bins
    spectrum = torch.fft.rfft2(maps, norm="forward")[..., : columns + 1]
    H = maps.shape[-2]
    zeros = spectrum.new_zeros(*spectrum.shape[:-2], size[0] - 2 * rows - 1, columns + 1)
    spectrum = torch.cat([spectrum[..., : rows + 1, :], zeros, spectrum[..., H - rows :, :]], -2)
    return torch.fft.irfft2(spectrum, s=size, norm="forward")


def _by_matrices(maps: Tensor, size: tuple[int, int], bins: tuple[int, int]) -> Tensor:
    H, W = maps.shape[-2:]
    down = _interpolation(H, size[0], bins[0], maps.dtype)
    across = _interpolation(W, size[1], bins[1], maps.dtype)
    with torch.autocast("cpu", enabled=False):
        return torch.matmul(down, torch.matmul(maps, across.T))


def _interpolation(before: int, after: int, bins: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix ``(after, before)`` of trigonometric interpolation."""
    # The compiler ignores the cache with a warning, and folds constants by itself.
    kernel = _dirichlet if torch.compiler.is_compiling() else _cached_dirichlet
    return torch.from_numpy(kernel(before, after, bins)).to(dtype)


def _dirichlet(before: int, after: int, bins: int) -> np.ndarray:
    """Return a Dirichlet kernel per position, ``1 + 2 sum_k cos(2 pi k d) = sin((2 bins + 1) pi d) / sin(pi d)``."""
    turn = before * after
    steps = (np.arange(after)[:, None] * before - np.arange(before) * after) % turn
    half = np.pi * np.where(steps > turn // 2, steps - turn, steps) / turn  # near 0, where sines are precise
    sines = np.sin((2 * bins + 1) * half) / np.where(steps == 0, 1.0, np.sin(half))
    return np.asarray(np.where(steps == 0, 2.0 * bins + 1.0, sines) / before)


_cached_dirichlet = functools.lru_cache(maxsize=256)(_dirichlet)


def _working(maps: Tensor) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)
