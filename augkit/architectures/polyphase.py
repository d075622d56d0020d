"""Subsampling that moves with the image: it keeps the polyphase component that the content selects.

A map subsampled by ``s`` keeps one of ``s**2`` grids, its polyphase components; a strided layer always keeps the one at
(0, 0). A shift of the map only permutes the components (and shifts some by one coarse pixel). A choice that depends
only on their content therefore follows the map: on a torus whose sides are multiples of ``s`` the sampling commutes
with every shift, up to a shift of the coarse map.

Adaptive sampling (APS) keeps the component of the largest norm: Chaman & Dokmanic 2021, "Truly shift-invariant
convolutional neural networks", https://arxiv.org/abs/2011.14214. Learnable sampling (LPS) scores the components
with a small network: Rojas-Gomez et al. 2022, "Learnable Polyphase Sampling for Shift Invariant and Equivariant
Convolutional Networks", https://arxiv.org/abs/2210.08001.

The paper's APS with blur is a `BlurPool2d` of stride 1 with circular padding before the sampling. A residual block
passes the phase of its branch to the sampling of its shortcut, so that the maps that are added lie on one grid.

The guarantee ends in three cases. (1) A side is not a multiple of ``s``, so that no grid is periodic on the torus;
``odd`` sets the behavior. (2) Ties: among components of equal norm the first in row-major order is kept. Where they
are equal up to a shift (constant and periodic maps) every choice gives the same output, up to a shift of the coarse
map; where they are not (mirror images, or a shortcut beside a branch that is 0 everywhere) the choice depends on
position. (3) Rounding: layers whose rounding depends on the position of a pixel can swap nearly equal norms.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.core.errors import InputError, OddMapWarning, check_whole, unknown_name

ODD = ("warn", "raise", "allow")
SCORE_PADDING_MODES = ("circular", "zeros")


def polyphase(maps: Tensor, stride: int) -> Tensor:
    """Return all polyphase components of maps ``(B, C, H, W)``: ``(B, stride**2, C, H / stride, W / stride)``.

    Component k starts at row ``k // stride`` and column ``k % stride``.

    Raises:
        InputError: the maps have another shape, or a side is not a multiple of the stride.

    >>> polyphase(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1, 0].tolist()
    [[1.0, 3.0], [9.0, 11.0]]
    """
    _check(maps)
    B, C, H, W = maps.shape
    if H % stride or W % stride:
        raise InputError(f"polyphase: expected sides that are multiples of {stride}, got {H} x {W}; pad the maps")
    parts = maps.view(B, C, H // stride, stride, W // stride, stride).permute(0, 3, 5, 1, 2, 4)
    return parts.flatten(1, 2)


def sample_phase(maps: Tensor, phase: Tensor, stride: int) -> Tensor:
    """Return one polyphase component per sample: ``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``.

    The memory format of the maps is kept.

    Args:
        maps: ``(B, C, H, W)``, with sides that are multiples of the stride.
        phase: ``(B,)`` int64, the number of the component; or ``(B, stride**2)`` float, weights of a sum over all.
        stride: step of the subsampling, at least 1.

    >>> sample_phase(torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([3]), 2)[0, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    B, C, H, W = maps.shape
    h, w = H // stride, W // stride
    if phase.is_floating_point():
        weights = phase.to(maps.dtype).view(B, 1, stride, stride).repeat(1, 1, h, w)
        return F.avg_pool2d(maps * weights, stride, divisor_override=1)
    pixels = _pixels(phase, h, w, stride)
    if _channels_last(maps):
        pixels = (pixels + torch.arange(B, device=maps.device).view(B, 1) * (H * W)).flatten()
        picked = maps.permute(0, 2, 3, 1).reshape(B * H * W, C).index_select(0, pixels)
        return picked.view(B, h, w, C).permute(0, 3, 1, 2)
    return maps.flatten(2).gather(2, pixels.view(B, 1, h * w).expand(B, C, h * w)).view(B, C, h, w)


class AdaptivePolyphaseSampling(nn.Module):
    """Keeps the polyphase component of the largest norm, per sample (Chaman & Dokmanic 2021).

    It has neither parameters nor buffers. The norm is over all channels, in float32 or wider, and has no gradient: the
    gradient flows only into the kept pixels.

    Args:
        stride: step of the subsampling, at least 1.
        norm: order of the norm, 1 to ``inf``.
        odd: behavior where a side is not a multiple of the stride, so that the guarantee does not hold: ``warn``
            (`OddMapWarning`, once per layer), ``raise`` or ``allow``. With ``warn`` and ``allow`` the map is continued
            periodically to a multiple, and the output has ``ceil(side / stride)`` pixels.

    Raises:
        InputError: the stride or the norm is below 1, or ``odd`` is unknown.

    >>> maps = torch.zeros(1, 1, 4, 4)
    >>> maps[0, 0, 1, 2] = 5.0
    >>> AdaptivePolyphaseSampling()(maps, return_phase=True)
    (tensor([[[[0., 5.],
              [0., 0.]]]]), tensor([2]))
    """

    def __init__(self, stride: int = 2, norm: float = 2.0, odd: str = "warn") -> None:
        super().__init__()
        _check_arguments(type(self).__name__, stride, odd)
        if not norm >= 1:
            raise InputError(f"AdaptivePolyphaseSampling: expected a norm of order 1 to inf, got {norm}")
        self.stride, self.norm, self.odd = stride, float(norm), odd
        self.warned = False

    def forward(
        self, maps: Tensor, phase: Tensor | None = None, return_phase: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Sample ``maps (B, C, H, W)``, at the given ``phase`` if any (a shortcut keeps the grid of its branch).

        Returns:
            ``(B, C, ceil(H / stride), ceil(W / stride))``; with ``return_phase`` also the phase, ``(B,)`` int64 or the
            given one.

        Raises:
            InputError: the maps are not ``(B, C, H, W)``, the phase has another shape, or an odd map meets ``raise``.
        """
        maps = _whole(self, maps, chosen=phase is not None)
        if phase is None:
            phase = self.choose(maps)
        _check_phase(maps, phase, self.stride)
        out = sample_phase(maps, phase, self.stride)
        return (out, phase) if return_phase else out

    def choose(self, maps: Tensor) -> Tensor:
        """Return the number of the component of the largest norm, ``(B,)``; sides must be multiples of the stride."""
        return component_norms(maps.detach(), self.stride, self.norm).argmax(1)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, norm={self.norm:g}, odd={self.odd!r}"


class LearnablePolyphaseSampling(nn.Module):
    """Keeps the polyphase component with the highest score of a small network, per sample (Rojas-Gomez et al. 2022).

    The network is a 3x3 convolution, a ReLU, a global average and a linear map, the same for all components. (The
    authors' code has a second convolution, without activation, before the average; on a torus that equals the linear
    map of the average used here.) In training the output is the sum of the components with Gumbel-softmax weights, so
    that the scores have gradients; in evaluation it is the best component.

    Args:
        channels: C of the maps.
        stride: step of the subsampling, at least 1.
        hidden: channels of the convolution.
        padding_mode: padding of the convolution: ``circular`` (required by the guarantee) or ``zeros``.
        temperature: temperature of the Gumbel-softmax; the attribute may be changed during training (annealed).
        odd: as in `AdaptivePolyphaseSampling`.

    Raises:
        InputError: a size is below 1, the temperature is not above 0, or the padding mode or ``odd`` is unknown.

    >>> layer = LearnablePolyphaseSampling(3).eval()
    >>> layer(torch.rand(2, 3, 8, 12)).shape
    torch.Size([2, 3, 4, 6])
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        hidden: int = 16,
        padding_mode: str = "circular",
        temperature: float = 1.0,
        odd: str = "warn",
    ) -> None:
        super().__init__()
        _check_arguments(type(self).__name__, stride, odd)
        for name, number in (("channels", channels), ("hidden", hidden)):
            check_whole(f"LearnablePolyphaseSampling: {name}", number, 1, optional=False)
        if not temperature > 0:
            raise InputError(f"LearnablePolyphaseSampling: expected a temperature above 0, got {temperature}")
        if padding_mode not in SCORE_PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, SCORE_PADDING_MODES)
        self.channels, self.stride, self.temperature, self.odd = channels, stride, temperature, odd
        self.padding_mode = padding_mode
        # Dilated by the stride, one convolution of the whole map is the convolution of every component.
        self.conv = nn.Conv2d(channels, hidden, 3, 1, 0 if padding_mode == "circular" else stride, stride)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.warned = False

    def forward(
        self,
        maps: Tensor,
        phase: Tensor | None = None,
        return_phase: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Sample ``maps (B, C, H, W)``, at the given ``phase`` if any.

        Args:
            maps, phase, return_phase: as in `AdaptivePolyphaseSampling`.
            generator: source of the Gumbel noise, on the device of the maps; torch's global state when None.

        Returns:
            ``(B, C, ceil(H / stride), ceil(W / stride))``; with ``return_phase`` also the phase: ``(B, stride**2)``
            float weights in training, ``(B,)`` int64 in evaluation, or the given one.
        """
        maps = _whole(self, maps, chosen=phase is not None)
        if phase is None:
            scores = self.scores(maps)
            phase = self._weights(scores, generator) if self.training else scores.argmax(1)
        _check_phase(maps, phase, self.stride)
        out = sample_phase(maps, phase, self.stride)
        return (out, phase) if return_phase else out

    def scores(self, maps: Tensor) -> Tensor:
        """Return the component scores ``(B, stride**2)``, float32 or wider; sides must be multiples of the stride."""
        s = self.stride
        if self.padding_mode == "circular":  # equal to F.pad, in half the time on the CPU, including the gradient
            maps = torch.cat([maps[:, :, -s:], maps, maps[:, :, :s]], 2)
            maps = torch.cat([maps[..., -s:], maps, maps[..., :s]], 3)
        hidden = torch.relu(self.conv(maps))
        B, C, H, W = hidden.shape
        rows = hidden.view(B, C, H // s, s, W).mean(2, dtype=_accumulator(hidden))
        pooled = rows.view(B, C, s, W // s, s).mean(3).flatten(2)
        # Not a matrix product: autocast would round the scores and cause ties.
        return (pooled * self.score.weight.to(pooled.dtype).view(1, C, 1)).sum(1)

    def _weights(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = -torch.empty_like(scores).exponential_(generator=generator).log()
        return ((scores + noise) / self.temperature).softmax(1)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}, temperature={self.temperature:g}, odd={self.odd!r}"


class AdaptivePolyphaseUpsampling(nn.Module):
    """Puts maps back on the grid that a sampling kept, with zeros elsewhere: the adjoint of the sampling.

    With soft weights (LPS in training) the maps are put on every grid, multiplied by its weight.

    Args:
        stride: stride of the sampling.

    Raises:
        InputError: the stride is below 1.

    >>> sampling, upsampling = AdaptivePolyphaseSampling(), AdaptivePolyphaseUpsampling()
    >>> coarse, phase = sampling(torch.rand(2, 3, 8, 12), return_phase=True)
    >>> upsampling(coarse, phase).shape
    torch.Size([2, 3, 8, 12])
    """

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        _check_arguments(type(self).__name__, stride)
        self.stride = stride

    def forward(self, maps: Tensor, phase: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return ``(B, C, h * stride, w * stride)`` for maps ``(B, C, h, w)``, cut to ``size`` if it is given.

        Args:
            maps: the sampled maps.
            phase: the phase of the sampling, as in `AdaptivePolyphaseSampling.forward`.
            size: (H, W) of the map before the sampling, needed where its sides were not multiples of the stride.

        Raises:
            InputError: the maps are not ``(B, C, h, w)``, the phase has another shape, or sampling ``size`` does not
                give ``(h, w)``.
        """
        _check(maps)
        _check_phase(maps, phase, self.stride)
        B, C, h, w = maps.shape
        s = self.stride
        H, W = (h * s, w * s) if size is None else size
        if (-(-H // s), -(-W // s)) != (h, w):
            raise InputError(f"AdaptivePolyphaseUpsampling: maps of {h} x {w} at stride {s} do not fill {H} x {W}")
        if phase.is_floating_point():
            weights = phase.to(maps.dtype).view(B, 1, 1, s, 1, s)
            return (maps.view(B, C, h, 1, w, 1) * weights).reshape(B, C, h * s, w * s)[..., :H, :W]
        pixels = _pixels(phase, h, w, s)
        if _channels_last(maps):
            rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
            out = maps.new_zeros(B, h * s * w * s, C).scatter(1, pixels.unsqueeze(2).expand_as(rows), rows)
            return out.view(B, h * s, w * s, C).permute(0, 3, 1, 2)[..., :H, :W]
        rows = maps.flatten(2)
        out = maps.new_zeros(B, C, h * s * w * s).scatter(2, pixels.unsqueeze(1).expand_as(rows), rows)
        return out.view(B, C, h * s, w * s)[..., :H, :W]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def component_norms(maps: Tensor, stride: int, norm: float = 2.0) -> Tensor:
    """Return the norm of each component over channels and pixels, to the power of its order: ``(B, stride**2)``.

    It is float32 or wider, and the maximum for a norm of order ``inf``. Sides must be multiples of the stride.

    >>> component_norms(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[168., 212., 392., 468.]])
    """
    B, _, H, W = maps.shape
    sizes = maps.to(_accumulator(maps))
    sizes = sizes.square() if norm == 2 else sizes.abs()
    # Over the channels first: one pass over the map for any stride.
    if norm == float("inf"):
        return sizes.amax(1).view(B, H // stride, stride, W // stride, stride).amax((1, 3)).flatten(1)
    if norm not in (1, 2):
        sizes = sizes.pow(norm)
    return sizes.sum(1).view(B, H // stride, stride, W // stride, stride).sum((1, 3)).flatten(1)


def _pixels(phase: Tensor, h: int, w: int, stride: int) -> Tensor:
    """Return, for each pixel of the coarse map, the number of its pixel in the fine map: ``(B, h * w)``."""
    W = w * stride
    rows = torch.arange(h, device=phase.device).view(h, 1) * (stride * W)
    columns = torch.arange(w, device=phase.device) * stride
    first = torch.div(phase, stride, rounding_mode="floor") * W + phase % stride
    return (rows + columns).view(1, h * w) + first.view(-1, 1)


def _channels_last(maps: Tensor) -> bool:
    return maps.stride(1) == 1


def _accumulator(maps: Tensor) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)


def _whole(layer: AdaptivePolyphaseSampling | LearnablePolyphaseSampling, maps: Tensor, chosen: bool) -> Tensor:
    """Return the maps, continued periodically to multiples of the stride where they are odd."""
    _check(maps)
    H, W = maps.shape[-2:]
    if H % layer.stride == 0 and W % layer.stride == 0:
        return maps
    message = (
        f"{type(layer).__name__}: expected sides that are multiples of the stride {layer.stride}, got {H} x {W}, where "
        "no choice of grid follows shifts; change the input size"
    )
    if layer.odd == "raise":
        raise InputError(message)
    # If the phase was given, the layer that chose it has already warned.
    if layer.odd == "warn" and not (chosen or layer.warned or torch.compiler.is_compiling()):
        layer.warned = True
        warnings.warn(f"{message}, or pass odd='allow'", OddMapWarning, stacklevel=3)
    return _continue(_continue(maps, -2, layer.stride), -1, layer.stride)


def _continue(maps: Tensor, dim: int, stride: int) -> Tensor:
    side = maps.shape[dim]
    copies, rest = divmod(-(-side // stride) * stride, side)
    return maps if rest == 0 and copies == 1 else torch.cat([maps] * copies + [maps.narrow(dim, 0, rest)], dim)


def _check(maps: Tensor) -> None:
    if maps.ndim != 4 or 0 in maps.shape[-2:]:
        raise InputError(f"expected maps (B, C, H, W) of at least one pixel, got shape {tuple(maps.shape)}")


def _check_phase(maps: Tensor, phase: Tensor, stride: int) -> None:
    B = maps.shape[0]
    expected = (B, stride**2) if phase.is_floating_point() else (B,)
    if phase.shape != expected:
        raise InputError(f"phase: expected shape {expected} for {phase.dtype}, got {tuple(phase.shape)}")


def _check_arguments(layer: str, stride: int, odd: str = "warn") -> None:
    check_whole(f"{layer}: stride", stride, 1, optional=False)
    if odd not in ODD:
        raise unknown_name("way with odd maps", odd, ODD)
