"""Layers whose feature maps rotate with the image: streams of complex maps, each with a rotation order.

Worrall et al. 2017, "Harmonic Networks: Deep Translation and Rotation Equivariance",
https://arxiv.org/abs/1612.04642. When the image rotates by ``theta``, counter-clockwise on the screen, a map of order m
rotates with it and is multiplied by ``exp(i m theta)``, so its magnitude only rotates.

**Maps** are real tensors ``(B, 2 * C, H, W)``: C real parts, then the C imaginary parts of the same channels, so
that ``maps.unflatten(1, (2, C))`` separates the two. **Streams** give the number of channels of each order: ``{0: 8,
1: 4}`` is C = 12, eight channels of order 0 followed by four of order 1. Images have order 0 and may omit their
imaginary half, which is 0.

Differences from the paper. Radial profiles are sums of Gaussian rings, which the pixel grid samples with little
aliasing. Every pair of streams has its own weights, also where filters have opposite orders. Magnitudes are smoothed
near 0, where a phase is only float rounding. Maps are pooled by blurring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures.downsampling import PADDING_MODES
from augkit.architectures.padding import pad
from augkit.core.errors import InputError, brief, unknown_name

ORDERS = (0, 1, 2)
RING_WIDTH = 0.6  # standard deviation in pixels: aliasing (narrower) and the cut at the border (wider) balance
SOFTENING = 1e-4  # added to squared magnitudes, where maps after a batch norm are of the order of 1

Streams = Mapping[int, int]  # rotation order -> channels


class HarmonicConv2d(nn.Module):
    """Convolution of streams with filters ``R(r) exp(i (k phi + beta))``, of order k = n - m from order m to order n.

    Each pair of an input and an output channel has a radial profile R, a learned sum of ``size // 2`` rings (one fewer
    where k is not 0, since such a filter is 0 at its center), and a learned phase beta. There is no bias, because a
    constant is not a map of order 1 or 2. There is no stride: see `CenteredBlurPool2d`.

    Rotations by 90 degrees are exact to float rounding, whatever the size (on CUDA to that of TF32, unless
    ``torch.backends.cudnn.allow_tf32`` is off). At other angles the error depends on how well pixels sample the
    rings. The table shows signal to error in dB for maps of at most 0.2 cycles per pixel and random angles, the worst
    over several random weights (``benchmarks/harmonic.py``, ``benchmarks/results/harmonic.json``). Trained weights can
    be worse, as they may cancel the signal and keep the error.

        size   order 0   order 1   order 2 of the filter
         5      61.9      49.9      41.8
         7      59.6      57.9      47.9
         9      63.3      57.0      48.6

    Args:
        inputs, outputs: `Streams`: channels of each order, of 0, 1 and 2.
        size: side of the filters in pixels, odd and at least 5.
        padding_mode: ``zeros``, ``circular`` or ``reflect``; the output has the size of the input.

    Raises:
        InputError: an order, a number of channels, the size or the padding mode is invalid; in the call, maps have
            another number of channels or are smaller than the padding.

    >>> conv = HarmonicConv2d({0: 3}, {0: 4, 1: 4}, size=5)
    >>> conv(torch.rand(2, 3, 28, 28)).shape  # an image: real
    torch.Size([2, 16, 28, 28])
    """

    def __init__(self, inputs: Streams, outputs: Streams, size: int = 9, padding_mode: str = "zeros") -> None:
        super().__init__()
        if size < 5 or size % 2 == 0:
            raise InputError(f"HarmonicConv2d: expected an odd size of at least 5 pixels, got {size}")
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        self.inputs, self.outputs = checked_streams(inputs), checked_streams(outputs)
        self.size, self.padding_mode = size, padding_mode
        self.radial = nn.ParameterDict()
        for n, out in self.outputs.items():
            for m, channels in self.inputs.items():
                rings = harmonic_rings(abs(n - m), size) / math.sqrt(len(self.inputs))
                self.radial[f"{m}_to_{n}"] = nn.Parameter(torch.empty(out, channels, len(rings)))
                name = f"rings_{abs(n - m)}"
                if not hasattr(self, name):
                    self.register_buffer(name, rings.to(torch.get_default_dtype()), persistent=False)
        self.phase = nn.Parameter(torch.empty(sum(self.outputs.values()), sum(self.inputs.values())))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw profiles as in He et al. 2015 and phases uniformly on the circle, from torch's global generator."""
        for profile in self.radial.values():
            nn.init.normal_(profile, std=math.sqrt(2 / profile[0].numel()))
        nn.init.uniform_(self.phase, -math.pi, math.pi)

    def filters(self) -> Tensor:
        """Return the filters sampled at pixels, real and imaginary parts: ``(2, C_out, C_in, size, size)``."""
        rows = [torch.cat([self._block(m, n) for m in self.inputs], dim=2) for n in self.outputs]
        real, imaginary = torch.cat(rows, dim=1).unbind(0)
        cos, sin = self.phase.cos()[..., None, None], self.phase.sin()[..., None, None]
        return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos])

    def forward(self, maps: Tensor) -> Tensor:
        is_real = self._check(maps)
        real, imaginary = self.filters().unbind(0)
        weight = torch.cat([real, imaginary])
        if not is_real:
            weight = torch.cat([weight, torch.cat([-imaginary, real])], dim=1)
        side = self.size // 2
        if self.padding_mode == "zeros":
            return F.conv2d(maps, weight, padding=side)
        return F.conv2d(pad(maps, (side, side, side, side), PADDING_MODES[self.padding_mode]), weight)

    def extra_repr(self) -> str:
        return f"{self.inputs} -> {self.outputs}, size={self.size}, padding_mode={self.padding_mode!r}"

    def _block(self, m: int, n: int) -> Tensor:
        """Return the filters from order m to order n without their phase, ``(2, C_n, C_m, size, size)``."""
        rings: Tensor = getattr(self, f"rings_{abs(n - m)}")
        real, imaginary = torch.tensordot(self.radial[f"{m}_to_{n}"], rings, 1).unbind(2)
        return torch.stack([real, imaginary if n >= m else -imaginary])

    def _check(self, maps: Tensor) -> bool:
        """Return whether the maps are an image without its imaginary half; raise InputError if they do not fit."""
        channels, side = sum(self.inputs.values()), self.size // 2
        is_real = list(self.inputs) == [0] and maps.shape[1] == channels
        if maps.ndim != 4 or not (is_real or maps.shape[1] == 2 * channels):
            real = f" or a real image ({channels})" if list(self.inputs) == [0] else ""
            raise InputError(
                f"HarmonicConv2d: expected maps (B, {2 * channels}, H, W), real then imaginary parts of the streams "
                f"{self.inputs},{real} got {tuple(maps.shape)}"
            )
        least = {"zeros": 1, "circular": side, "reflect": side + 1}[self.padding_mode]
        if min(maps.shape[-2:]) < least:
            raise InputError(
                f"HarmonicConv2d: padding '{self.padding_mode}' and size {self.size} need at least {least} pixels, "
                f"got {tuple(maps.shape[-2:])}"
            )
        return is_real


class MagnitudeReLU(nn.Module):
    """C-ReLU of Worrall et al. 2017: ``ReLU(|z| + b) z / |z|``, with a learned bias b per channel, initially 0.

    It keeps the phase, so a map of order m keeps its order. Below a magnitude of about 0.01 the output goes smoothly to
    0, since otherwise a positive bias would amplify rounding, and the gradient would have no limit at 0.

    Args:
        channels: C of the maps ``(B, 2 * C, H, W)``.

    >>> relu = MagnitudeReLU(1)
    >>> _ = relu.bias.data.fill_(-2.5)
    >>> relu(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten()
    tensor([1.5000, 2.0000], grad_fn=...)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        size = magnitude(maps)
        return _scaled(maps, torch.relu(size + self.bias[:, None, None]) / size)


class MagnitudeBatchNorm2d(nn.Module):
    """Batch norm of the magnitudes, followed by ReLU; the phase is kept (Worrall et al. 2017).

    The layer includes the ReLU, because a normalized magnitude below 0 would change the phase by 180 degrees. The bias
    of the batch norm is the bias of the C-ReLU. Real and imaginary parts must not be normalized separately, because a
    rotation mixes them.

    Args:
        channels: C of the maps ``(B, 2 * C, H, W)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        size = magnitude(maps)
        return _scaled(maps, torch.relu(self.norm(size.to(self.norm.weight.dtype))) / size)


class CenteredBlurPool2d(nn.Module):
    """Blurs maps and keeps every second pixel, on a grid that is symmetric about the center of the map.

    Maps ``(B, 2 * C, H, W)`` become ``(B, 2 * C, ceil(H / 2), ceil(W / 2))``. The filter is 1 3 3 1 along an even side
    and 1 4 6 4 1 along an odd side. Because the grid is symmetric, the layer commutes with rotations by 90 degrees. It
    is linear and treats real and imaginary parts alike, so it keeps the orders. Max pooling does not: the largest real
    part and the largest imaginary part come from different pixels and depend on the phase, and the pixel of the
    largest magnitude jumps as the image rotates by less than 90 degrees.

    Args:
        padding_mode: ``zeros``, ``circular`` or ``reflect``.

    Raises:
        InputError: the padding mode is unknown.

    >>> CenteredBlurPool2d()(torch.rand(1, 4, 28, 33)).shape
    torch.Size([1, 4, 14, 17])
    """

    even: Tensor
    odd: Tensor

    def __init__(self, padding_mode: str = "zeros") -> None:
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        self.padding_mode = padding_mode
        self.register_buffer("even", torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8, persistent=False)
        self.register_buffer("odd", torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        for axis in (2, 3):
            taps = self.odd if maps.shape[axis] % 2 else self.even
            side = (len(taps) - 1) // 2
            pads = (side, side, 0, 0) if axis == 3 else (0, 0, side, side)
            shape, stride = ((1, -1), (1, 2)) if axis == 3 else ((-1, 1), (2, 1))
            weight = taps.to(maps.dtype).view(1, 1, *shape).expand(maps.shape[1], 1, *shape)
            maps = pad(maps, pads, PADDING_MODES[self.padding_mode])
            maps = F.conv2d(maps, weight, stride=stride, groups=maps.shape[1])
        return maps

    def extra_repr(self) -> str:
        return f"padding_mode={self.padding_mode!r}"


def magnitude(maps: Tensor) -> Tensor:
    """Return ``sqrt(re^2 + im^2 + 1e-4)`` of maps ``(B, 2 * C, H, W)`` as ``(B, C, H, W)``, float32 or float64.

    A rotation of the image only rotates the result. Half precision becomes float32, as squares would lose digits.
    """
    real, imaginary = maps.to(torch.promote_types(maps.dtype, torch.float32)).chunk(2, dim=1)
    return torch.sqrt(real * real + imaginary * imaginary + SOFTENING)


def harmonic_rings(order: int, size: int) -> Tensor:
    """Return J rings times ``exp(i order phi)`` on a square of ``size`` pixels, float64 ``(J, 2, size, size)``.

    The real part comes first. A ring of radius a is a Gaussian blob averaged along a circle together with the phase:
    ``exp(-(r^2 + a^2) / (2 s^2)) I_k(a r / s^2) exp(i k phi)``, a Gaussian ring times ``r^k`` near the center. Its
    spectrum is a Gaussian times a Bessel function, so aliasing falls as fast as a Gaussian. Radii are 0 (for order 0
    only), 1, ... up to ``size // 2 - 1``, two pixels from the first pixel outside. Each ring has norm 1, and phi is
    counter-clockwise on the screen. Rotating a ring by 90 degrees multiplies it by a power of i exactly.

    >>> harmonic_rings(0, 9).shape, harmonic_rings(1, 9).shape
    (torch.Size([4, 2, 9, 9]), torch.Size([3, 2, 9, 9]))
    """
    from scipy.special import ive

    half = size // 2
    down, right = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    square = right**2 + down**2  # of integers, so this and all results below are equal at pixels of equal radius
    radius = np.sqrt(square)
    turn = np.ones_like(radius, dtype=complex)
    for _ in range(order):  # products of integers, exact where ** is not
        turn *= right - 1j * down
    turn /= np.where(square == 0, 1, radius) ** order
    rings = []
    for a in range(min(order, 1), half):
        # ive is I scaled by exp(-x): a Gaussian of r - a remains.
        profile = np.exp(-((radius - a) ** 2) / (2 * RING_WIDTH**2)) * ive(order, a * radius / RING_WIDTH**2)
        ring = profile * turn
        rings.append(np.stack([ring.real, ring.imag]) / np.linalg.norm(ring))
    return torch.from_numpy(np.stack(rings))


def checked_streams(streams: Streams) -> dict[int, int]:
    """Return the streams in the order of their channels.

    Raises:
        InputError: there is no stream, an order is not 0, 1 or 2, or a stream has less than one channel.
    """
    known = isinstance(streams, Mapping) and len(streams) > 0 and set(streams) <= set(ORDERS)
    if not known or min(streams.values()) < 1:
        raise InputError(
            f"streams: expected the channels (at least 1) of orders 0, 1, 2, such as {{0: 8, 1: 8}},"
            f" got {brief(streams)}"
        )
    return dict(sorted(streams.items()))


def _scaled(maps: Tensor, gain: Tensor) -> Tensor:
    real, imaginary = maps.chunk(2, dim=1)
    gain = gain.to(maps.dtype)
    return torch.cat([real * gain, imaginary * gain], dim=1)
