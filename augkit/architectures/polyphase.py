"""Subsampling that moves with the image: keep the polyphase component that the content chooses, not the first one.

A map subsampled by ``s`` keeps one of ``s**2`` grids, its polyphase components; a strided layer keeps the one at
(0, 0), wherever the content lies. A shift of the map only permutes the components (and shifts some by one coarse
pixel). A choice that depends on their content alone therefore follows the map: on a torus whose sides are
multiples of ``s`` the sampling commutes with every shift, up to a shift of the coarse map.

Adaptive sampling (APS) keeps the component of the largest norm: Chaman & Dokmanic 2021, "Truly shift-invariant
convolutional neural networks", https://arxiv.org/abs/2011.14214. Learnable sampling (LPS) scores the components
with a small network: Rojas-Gomez et al. 2022, "Learnable Polyphase Sampling for Shift Invariant and Equivariant
Convolutional Networks", https://arxiv.org/abs/2210.08001.

The paper's APS with blur is a `BlurPool2d` of stride 1 with circular padding before the sampling. A residual block
passes the phase of its branch to the sampling of its shortcut, so that the maps that are added lie on one grid.

Three things end the guarantee. A side that is no multiple of ``s`` has no grid that closes on the torus: ``odd`` says
what happens then. Ties: of components of equal norm the first in row-major order is kept. Where they are one map up
to a shift (constant and periodic maps) every choice gives the same output, up to a shift of the coarse map; where
they are not (mirror images of each other; a shortcut beside a branch that is 0 everywhere) the first depends on the
place. And rounding: layers whose rounding depends on the place of a pixel can swap norms as close as that.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.core.errors import InputError, OddMapWarning, unknown_name

ODD = ("warn", "raise", "allow")
SCORE_PADDING_MODES = ("circular", "zeros")


def polyphase(maps: Tensor, stride: int) -> Tensor:
    """All polyphase components: ``(B, C, H, W)`` to ``(B, stride**2, C, H / stride, W / stride)``.

    Component k starts at row ``k // stride`` and column ``k % stride``.

    Raises:
        InputError: maps of another shape, or a side that is no multiple of the stride.

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
    """The component of each sample that ``phase`` names: ``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``.

    The memory format of the maps is kept.

    Args:
        maps: sides must be multiples of the stride.
        phase: ``(B,)`` int64, numbers of components; or ``(B, stride**2)`` float, weights of a sum over all.
        stride: at least 1.

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
    """Keep the polyphase component of the largest norm, per sample (Chaman & Dokmanic 2021).

    It has neither parameters nor buffers. The norm is taken over all channels, in float32 at least, and carries no
    gradient: the gradient flows into the pixels that were kept.

    Args:
        stride: step of the subsampling, at least 1.
        norm: order of the norm, 1 to ``inf``.
        odd: what to do where a side is no multiple of the stride, so that the guarantee does not hold: ``warn``
            (once per layer, `OddMapWarning`), ``raise`` or ``allow``. The map is then continued on the torus by the
            rows and columns that are missing, and the output has ``ceil(side / stride)``.

    Raises:
        InputError: a stride below 1, a norm below 1, or an unknown ``odd``.

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
        """Sample ``maps (B, C, H, W)``, at ``phase`` where it is given (a shortcut keeps its branch's grid).

        Returns:
            ``(B, C, ceil(H / stride), ceil(W / stride))``; with ``return_phase`` also the phase used: ``(B,)``
            int64, or what was given.

        Raises:
            InputError: maps that are not ``(B, C, H, W)``, a phase of the wrong shape, an odd map with ``raise``.
        """
        maps = _whole(self, maps, chosen=phase is not None)
        if phase is None:
            phase = self.choose(maps)
        _check_phase(maps, phase, self.stride)
        out = sample_phase(maps, phase, self.stride)
        return (out, phase) if return_phase else out

    def choose(self, maps: Tensor) -> Tensor:
        """Number of the component of the largest norm, ``(B,)``; sides must be multiples of the stride."""
        return component_norms(maps.detach(), self.stride, self.norm).argmax(1)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, norm={self.norm:g}, odd={self.odd!r}"


class LearnablePolyphaseSampling(nn.Module):
    """Keep the polyphase component that a small network scores highest, per sample (Rojas-Gomez et al. 2022).

    A 3x3 convolution, a ReLU, a global average and a linear map give each component its score, the same network
    for all. (The authors' code has a second convolution, without activation, before the average: on a torus that
    is a linear map of the average, which is what stands here.) In training the output is the sum of the components
    with Gumbel-softmax weights, so that the scores learn; in evaluation it is the best component alone.

    Args:
        channels: C of the maps.
        stride: step of the subsampling, at least 1.
        hidden: channels of the convolution.
        padding_mode: of the convolution: ``circular`` (the guarantee needs it) or ``zeros``.
        temperature: of the Gumbel-softmax; the attribute may be changed during training (annealed).
        odd: as in `AdaptivePolyphaseSampling`.

    Raises:
        InputError: a size below 1, a temperature of 0 or less, an unknown padding mode or ``odd``.

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
        if channels < 1 or hidden < 1:
            raise InputError(
                f"LearnablePolyphaseSampling: expected channels and hidden >= 1, got {channels} and {hidden}"
            )
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
        """Sample ``maps (B, C, H, W)``, at ``phase`` where it is given.

        Args:
            maps, phase, return_phase: as in `AdaptivePolyphaseSampling`.
            generator: source of the Gumbel noise, on the device of the maps; torch's global state where None.

        Returns:
            ``(B, C, ceil(H / stride), ceil(W / stride))``; with ``return_phase`` also the phase used:
            ``(B, stride**2)`` float weights in training, ``(B,)`` int64 in evaluation, or what was given.
        """
        maps = _whole(self, maps, chosen=phase is not None)
        if phase is None:
            scores = self.scores(maps)
            phase = self._weights(scores, generator) if self.training else scores.argmax(1)
        _check_phase(maps, phase, self.stride)
        out = sample_phase(maps, phase, self.stride)
        return (out, phase) if return_phase else out

    def scores(self, maps: Tensor) -> Tensor:
        """Score of each component, ``(B, stride**2)``, float32 at least; sides must be multiples of the stride."""
        s = self.stride
        if self.padding_mode == "circular":  # as F.pad, in half its time on the CPU, gradient included
            maps = torch.cat([maps[:, :, -s:], maps, maps[:, :, :s]], 2)
            maps = torch.cat([maps[..., -s:], maps, maps[..., :s]], 3)
        hidden = torch.relu(self.conv(maps))
        B, C, H, W = hidden.shape
        rows = hidden.view(B, C, H // s, s, W).mean(2, dtype=_accumulator(hidden))
        pooled = rows.view(B, C, s, W // s, s).mean(3).flatten(2)
        # Not a matrix product: autocast would round the scores, and make ties of them.
        return (pooled * self.score.weight.to(pooled.dtype).view(1, C, 1)).sum(1)

    def _weights(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = -torch.empty_like(scores).exponential_(generator=generator).log()
        return ((scores + noise) / self.temperature).softmax(1)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}, temperature={self.temperature:g}, odd={self.odd!r}"


class AdaptivePolyphaseUpsampling(nn.Module):
    """Put maps back on the grid that a sampling kept, with zeros elsewhere: the adjoint of the sampling.

    With soft weights (LPS in training) the maps are put on every grid, times its weight.

    Args:
        stride: that of the sampling.

    Raises:
        InputError: a stride below 1.

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
        """``(B, C, h, w)`` to ``(B, C, h * stride, w * stride)``, cut to ``size`` where the sampled map was odd.

        Raises:
            InputError: maps that are not ``(B, C, h, w)``, a phase of the wrong shape, or a size that the sampling
                does not bring to ``(h, w)``.
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
    """Norm of each component over channels and pixels, to the power of its order: ``(B, stride**2)``, float32 at least.

    The maximum for a norm of order ``inf``. Sides must be multiples of the stride.

    >>> component_norms(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[168., 212., 392., 468.]])
    """
    B, _, H, W = maps.shape
    sizes = maps.to(_accumulator(maps))
    sizes = sizes.square() if norm == 2 else sizes.abs()
    # Over the channels first: one pass over the map, whatever the stride.
    if norm == float("inf"):
        return sizes.amax(1).view(B, H // stride, stride, W // stride, stride).amax((1, 3)).flatten(1)
    if norm not in (1, 2):
        sizes = sizes.pow(norm)
    return sizes.sum(1).view(B, H // stride, stride, W // stride, stride).sum((1, 3)).flatten(1)


def _pixels(phase: Tensor, h: int, w: int, stride: int) -> Tensor:
    """Of each pixel of the coarse map, the number of its pixel in the fine map: ``(B, h * w)``."""
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
    """The maps, continued on the torus to multiples of the stride where they are odd."""
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
    # Where the phase was given, the layer that chose it has warned.
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
    if stride < 1:
        raise InputError(f"{layer}: expected stride >= 1, got {stride}")
    if odd not in ODD:
        raise unknown_name("way with odd maps", odd, ODD)
