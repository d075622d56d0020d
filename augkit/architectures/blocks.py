"""Building blocks of networks, with one choice of downsampling, padding and activation for a whole network.

A network takes its convolutions, activations and pools from a `Style`. Modules with weights have the same names and
shapes under every style (only learnable polyphase sampling adds weights), so that one seed gives all variants of a
network the same initial weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from augkit.architectures.aliasfree import (
    AliasFreeActivation,
    AliasFreeDownsample2d,
    AliasFreeLayerNorm2d,
    IdealLowpass2d,
    quadratic,
)
from augkit.architectures.downsampling import PADDING_MODES, BlurPool2d, DenseMaxPool2d, MaxBlurPool2d
from augkit.architectures.polyphase import AdaptivePolyphaseSampling, LearnablePolyphaseSampling
from augkit.core.errors import unknown_name

DOWNSAMPLES = ("maxpool", "stride", "blurpool", "aps", "lps", "aliasfree")


class Quadratic(nn.Module):
    """The polynomial of `AliasFreeActivation`, applied pixel by pixel, so that its new frequencies alias."""

    def forward(self, maps: Tensor) -> Tensor:
        return quadratic(maps)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "quadratic": Quadratic,
    "aliasfree": AliasFreeActivation,
    "aliasfree_gelu": lambda: AliasFreeActivation("gelu"),
}


@dataclass(frozen=True)
class Style:
    """The downsampling, padding and activation of a network.

    Args:
        downsample: ``maxpool``; ``stride`` (of the convolution); ``blurpool``; ``aps`` or ``lps`` (adaptive and
            learnable polyphase sampling); ``aliasfree`` (ideal low-pass). With ``aliasfree`` the Nyquist frequency of
            the images is removed first, there are no maxima, and norms are `AliasFreeLayerNorm2d`. Batch norm would
            keep the guarantee too, but activations that are squared in every layer would grow without bound.
        padding_mode: padding of convolutions and pools: ``zeros``, ``circular`` or ``reflect``; or ``full``, which
            pads convolutions with so many zeros that every tap meets every pixel (Kayhan & van Gemert 2020,
            https://arxiv.org/abs/2003.07064). A map then grows by ``size - 1``, and a filter can no longer detect its
            position by the border. Pools pad with zeros.
        activation: ``relu``, ``gelu``, ``quadratic`` (pixel by pixel), ``aliasfree`` (the same quadratic, exactly
            band-limited) or ``aliasfree_gelu`` (approximately band-limited); None is ``aliasfree`` with that
            downsample, else ``relu``.

    Raises:
        InputError: a name is unknown.
    """

    downsample: str = "maxpool"
    padding_mode: str = "zeros"
    activation: str | None = None

    def __post_init__(self) -> None:
        if self.activation is None:
            object.__setattr__(self, "activation", "aliasfree" if self.downsample == "aliasfree" else "relu")
        for kind, value, known in (
            ("downsample", self.downsample, DOWNSAMPLES),
            ("padding mode", self.padding_mode, (*PADDING_MODES, "full")),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)

    @property
    def polyphase(self) -> bool:
        """Whether pools choose a phase, which the shortcut of a residual block must share."""
        return self.downsample in ("aps", "lps")

    @property
    def exact(self) -> bool:
        """Whether the pools commute with shifts, so that no convolution may have a stride of its own."""
        return self.polyphase or self.downsample == "aliasfree"

    @property
    def conv_stride(self) -> int:
        """Stride of a convolution before a pool: 1, unless the convolution itself downsamples."""
        return 2 if self.downsample == "stride" else 1

    @property
    def pool_padding(self) -> str:
        """Padding mode of pools."""
        return "zeros" if self.padding_mode == "full" else self.padding_mode

    def entry(self) -> nn.Module:
        """Return the first module of a network, which prepares the images."""
        return IdealLowpass2d() if self.downsample == "aliasfree" else nn.Identity()

    def conv(self, channels: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
        """Return a convolution without bias of odd ``size``; `conv_side` gives the side of its output."""
        padding = size - 1 if self.padding_mode == "full" else size // 2
        return nn.Conv2d(channels, out, size, stride, padding, bias=False, padding_mode=self.pool_padding)  # type: ignore[arg-type]

    def norm(self, channels: int) -> nn.Module:
        """Return a new norm, for all networks but ConvNeXt."""
        return AliasFreeLayerNorm2d(channels) if self.downsample == "aliasfree" else nn.BatchNorm2d(channels)

    def act(self) -> nn.Module:
        """Return a new activation."""
        return ACTIVATIONS[str(self.activation)]()

    def act_on_sum(self) -> nn.Module:
        """Return the activation after the sum of a residual block: the identity where the activation is a quadratic.

        The other activations follow norms, which keep their inputs small. The sum has no norm: squared again in every
        block, its largest values would grow without bound, with their rounding errors (ResNet-18: from 1e-7 to 1e-2).
        """
        return nn.Identity() if self.activation in ("quadratic", "aliasfree") else self.act()

    def max_pool(self, channels: int) -> nn.Module:
        """Return the module that halves maps where the original network has max pooling with windows of 2."""
        if self.polyphase:
            return nn.Sequential(DenseMaxPool2d(2, self.pool_padding), self.pool(channels))
        return self.pool(channels)

    def pool(self, channels: int) -> nn.Module:
        """Return the module that halves maps after the activation of a convolution, for all networks but ConvNeXt."""
        if self.downsample == "blurpool":
            return MaxBlurPool2d(2, padding_mode=self.pool_padding)
        return self.subsample(channels)

    def subsample(self, channels: int) -> nn.Module:
        """Return the module that halves maps without a maximum, except for ``maxpool``."""
        return LearnablePolyphaseSampling(channels) if self.downsample == "lps" else self.shortcut_pool(channels)

    def shortcut_pool(self, channels: int) -> nn.Module:
        """Return the module that halves the maps of a shortcut; polyphase modules take the phase of the branch."""
        if self.polyphase:
            return AdaptivePolyphaseSampling()
        if self.downsample == "blurpool":
            return BlurPool2d(channels, padding_mode=self.pool_padding)
        if self.downsample == "aliasfree":
            return AliasFreeDownsample2d()
        return nn.MaxPool2d(2) if self.downsample == "maxpool" else nn.Identity()

    def stem_pool(self, channels: int) -> nn.Module:
        """Return the module for the max pool of ResNet's ImageNet form, with windows of 3 and stride 2."""
        if self.downsample in ("maxpool", "stride"):
            return nn.MaxPool2d(3, 2, 1)
        if self.downsample == "aliasfree":
            return AliasFreeDownsample2d(4)
        if self.downsample == "blurpool":
            return MaxBlurPool2d(3, padding_mode=self.pool_padding)
        return nn.Sequential(self.pool(channels), DenseMaxPool2d(3, self.pool_padding), self.pool(channels))

    def conv_side(self, side: int, size: int, stride: int = 1) -> int:
        """Return the side in pixels of a convolution's output for maps of ``side`` pixels."""
        return (side + (size - 2 if self.padding_mode == "full" else -1)) // stride + 1

    def halved(self, side: int) -> int:
        """Return the side in pixels after downsampling by 2, by a pool or a strided convolution."""
        return side // 2 if self.downsample == "maxpool" else (side + 1) // 2

    def stage_side(self, side: int, halve: bool = True) -> int:
        """Return the side in pixels of a `Stage`'s output for maps of ``side`` pixels."""
        stride = self.conv_stride if halve else 1
        side = self.conv_side(side, 3, stride)
        return self.halved(side) if halve and stride == 1 else side


class Stage(nn.Module):
    """A 3x3 convolution, batch norm, activation and, if ``halve``, a pool of windows of 2."""

    pools_first = False  # whether the pool comes before the activation, see `pooling_first`

    def __init__(self, channels: int, out: int, style: Style, halve: bool) -> None:
        super().__init__()
        self.conv = style.conv(channels, out, 3, style.conv_stride if halve else 1)
        self.norm = style.norm(out)
        self.act = style.act()
        self.pool = style.max_pool(out) if halve else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm(self.conv(maps))
        out: Tensor = self.act(self.pool(maps)) if self.pools_first else self.pool(self.act(maps))
        return out


@contextlib.contextmanager
def pooling_first(model: nn.Module) -> Iterator[None]:
    """Context in which stages with max pooling pool before their ReLU, a quarter of whose work is then left.

    The maximum of a window is the same before and after a ReLU, which never changes an order, so outputs and gradients
    have the same bits. Hooks on both modules would see other maps, so this is for networks that nobody else holds.
    """
    stages = [m for m in model.modules() if isinstance(m, Stage)]
    stages = [m for m in stages if type(m.act) is nn.ReLU and type(m.pool) is nn.MaxPool2d]
    before = [stage.pools_first for stage in stages]
    try:
        for stage in stages:
            stage.pools_first = True
        yield
    finally:
        for stage, value in zip(stages, before, strict=True):
            stage.pools_first = value
