"""The pieces that networks are built of, chosen once: how to halve maps, pad, activate.

A network takes its convolutions, activations and pools from a `Style`. Modules that hold weights are the same under
every style, by name and by shape (learnable polyphase sampling alone adds some), so that one seed starts all
variants of a network alike.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """The polynomial of `AliasFreeActivation`, pixel by pixel: its new frequencies fold back."""

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
    """How a network halves its maps, pads them and activates them.

    Args:
        downsample: ``maxpool``; ``stride`` (of the convolution); ``blurpool``; ``aps`` or ``lps`` (adaptive and
            learnable polyphase sampling); ``aliasfree`` (ideal low-pass). With ``aliasfree`` images lose their
            Nyquist frequency first, nothing takes a maximum, and norms are `AliasFreeLayerNorm2d`: batch norm would
            keep the guarantee too, but not keep in bounds what polynomials square layer by layer.
        padding_mode: of convolutions and of pools: ``zeros``, ``circular``, ``reflect``; or ``full``, of
            convolutions: zeros so many that every tap meets every pixel, as Kayhan & van Gemert 2020 ask
            (https://arxiv.org/abs/2003.07064). A map then grows by ``size - 1``, and the border, where zeros end
            and weights begin to be cut off, no longer shows a filter where it is. Pools pad with zeros.
        activation: ``relu``, ``gelu``, ``quadratic`` (pixel by pixel), ``aliasfree`` (the same quadratic, exactly
            band-limited), ``aliasfree_gelu`` (approximately so); None is ``aliasfree`` with that downsample, else
            ``relu``.

    Raises:
        InputError: an unknown name.
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
        """The stride of a convolution that a pool follows: 1, unless the convolution is itself the pool."""
        return 2 if self.downsample == "stride" else 1

    @property
    def pool_padding(self) -> str:
        """Padding mode of pools."""
        return "zeros" if self.padding_mode == "full" else self.padding_mode

    def entry(self) -> nn.Module:
        """What the images pass first."""
        return IdealLowpass2d() if self.downsample == "aliasfree" else nn.Identity()

    def conv(self, channels: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
        """A convolution without bias, of odd ``size``, that gives ``conv_side`` pixels."""
        padding = size - 1 if self.padding_mode == "full" else size // 2
        return nn.Conv2d(channels, out, size, stride, padding, bias=False, padding_mode=self.pool_padding)  # type: ignore[arg-type]

    def norm(self, channels: int) -> nn.Module:
        """A new norm, in all networks but ConvNeXt."""
        return AliasFreeLayerNorm2d(channels) if self.downsample == "aliasfree" else nn.BatchNorm2d(channels)

    def act(self) -> nn.Module:
        """A new activation."""
        return ACTIVATIONS[str(self.activation)]()

    def act_on_sum(self) -> nn.Module:
        """What follows the sum of a residual block: nothing where the activation is a quadratic.

        Norms keep the inputs of the others small. The sum has none, and squared again from block to block its
        largest values grow without bound, and the rounding errors with them (ResNet-18: from 1e-7 to 1e-2).
        """
        return nn.Identity() if self.activation in ("quadratic", "aliasfree") else self.act()

    def max_pool(self, channels: int) -> nn.Module:
        """What halves maps where the original network has max pooling, in windows of 2."""
        if self.polyphase:
            return nn.Sequential(DenseMaxPool2d(2, self.pool_padding), self.pool(channels))
        return self.pool(channels)

    def pool(self, channels: int) -> nn.Module:
        """What halves maps after the activation of a convolution, in all networks but ConvNeXt."""
        if self.downsample == "blurpool":
            return MaxBlurPool2d(2, padding_mode=self.pool_padding)
        return self.subsample(channels)

    def subsample(self, channels: int) -> nn.Module:
        """The same without a maximum, unless ``maxpool`` asks for one."""
        return LearnablePolyphaseSampling(channels) if self.downsample == "lps" else self.shortcut_pool(channels)

    def shortcut_pool(self, channels: int) -> nn.Module:
        """What halves the maps of a shortcut; in a polyphase style it is called with the phase of the branch."""
        if self.polyphase:
            return AdaptivePolyphaseSampling()
        if self.downsample == "blurpool":
            return BlurPool2d(channels, padding_mode=self.pool_padding)
        if self.downsample == "aliasfree":
            return AliasFreeDownsample2d()
        return nn.MaxPool2d(2) if self.downsample == "maxpool" else nn.Identity()

    def stem_pool(self, channels: int) -> nn.Module:
        """What stands where ResNet's ImageNet form has a max pool of windows of 3, stride 2."""
        if self.downsample in ("maxpool", "stride"):
            return nn.MaxPool2d(3, 2, 1)
        if self.downsample == "aliasfree":
            return AliasFreeDownsample2d(4)
        if self.downsample == "blurpool":
            return MaxBlurPool2d(3, padding_mode=self.pool_padding)
        return nn.Sequential(self.pool(channels), DenseMaxPool2d(3, self.pool_padding), self.pool(channels))

    def conv_side(self, side: int, size: int, stride: int = 1) -> int:
        """Pixels that a convolution makes of ``side``."""
        return (side + (size - 2 if self.padding_mode == "full" else -1)) // stride + 1

    def halved(self, side: int) -> int:
        """Pixels that pools, or convolutions with their stride, leave of ``side``."""
        return side // 2 if self.downsample == "maxpool" else (side + 1) // 2

    def stage_side(self, side: int, halve: bool = True) -> int:
        """Pixels that a `Stage` makes of ``side``."""
        stride = self.conv_stride if halve else 1
        side = self.conv_side(side, 3, stride)
        return self.halved(side) if halve and stride == 1 else side


class Stage(nn.Module):
    """A 3x3 convolution, batch norm, activation and, if ``halve``, a pool of windows of 2."""

    def __init__(self, channels: int, out: int, style: Style, halve: bool) -> None:
        super().__init__()
        self.conv = style.conv(channels, out, 3, style.conv_stride if halve else 1)
        self.norm = style.norm(out)
        self.act = style.act()
        self.pool = style.max_pool(out) if halve else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.pool(self.act(self.norm(self.conv(maps))))
        return out
