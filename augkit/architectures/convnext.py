"""ConvNeXt and its alias-free form.

Liu et al. 2022, "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545, in the size that timm calls "atto".
Michaeli et al. 2023, https://arxiv.org/abs/2303.08085, make it exactly invariant to fractional shifts: every stride
becomes a stride-1 convolution and an ideal downsampling, GELU an alias-free polynomial, the layer norm one that
divides by a single number per sample, and the padding circular. Here the four can be chosen independently.

Deviations from Liu 2022: initial weights as in He 2015; layer scale starts at 0.1, as the network is shallow; the last
norm precedes the pooling of the head; 1x1 convolutions instead of linear layers on permuted maps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from augkit.architectures.aliasfree import AliasFreeLayerNorm2d
from augkit.architectures.blocks import Style
from augkit.architectures.heads import build_head
from augkit.core.errors import InputError, unknown_name

STEMS = {"small": (3, 0), "imagenet": (4, 2)}  # side of the patches, and the number of times that they halve the maps


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel of ``(B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": LayerNorm2d, "aliasfree": AliasFreeLayerNorm2d}

PADS: dict[str, Callable[[tuple[int, int, int, int]], nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "circular": nn.CircularPad2d,
    "reflect": nn.ReflectionPad2d,
}


class ConvNeXt(nn.Module):
    """ConvNeXt of four stages; the first keeps the size of its maps, the others halve it.

    It maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``. Circular padding of 7x7 convolutions needs
    maps of at least 3 pixels in the last stage: images of 24 pixels with the ``small`` stem, of 96 with ``imagenet``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        style: downsampling, padding and activation.
        head: ``gap``, ``fc`` or ``spp``, as in `build_head`.
        width: channels of the first stage; each later stage has twice as many as the one before.
        input_size: side of the input in pixels; only ``fc`` needs it.
        blocks: number of blocks in each stage.
        norm: ``layer`` (pixel by pixel) or ``aliasfree`` (`AliasFreeLayerNorm2d`).
        stem: ``small`` (3x3, keeps the size, as in ResNet's form for small images) or ``imagenet`` (patches of 4).

    Raises:
        InputError: the norm or the stem is unknown, or the padding is ``full``, whose maps do not fit shortcuts.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        style: Style = Style("stride", activation="gelu"),  # noqa: B008 (frozen)
        head: str = "gap",
        width: int = 40,
        input_size: int | None = None,
        blocks: tuple[int, ...] = (2, 2, 6, 2),
        norm: str = "layer",
        stem: str = "small",
    ) -> None:
        super().__init__()
        for kind, value, known in (("norm", norm, NORMS), ("stem", stem, STEMS)):
            if value not in known:
                raise unknown_name(kind, value, known)
        if style.padding_mode == "full":
            raise InputError("padding_mode 'full': expected a network without shortcuts (small_cnn, vgg11, vgg13)")
        self.entry = style.entry()
        layers: list[nn.Module] = []
        channels, side = in_channels, input_size
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            size, halvings = STEMS[stem] if stage == 0 else (2, 1)
            layers.append(Patches(channels, out, size, halvings, style, norm, first=stage == 0))
            layers.extend(ConvNeXtBlock(out, style, norm) for _ in range(count))
            channels, side = out, side if side is None else _patches_side(side, halvings, style)
        self.layers = nn.Sequential(*layers)
        self.norm = NORMS[norm](channels)
        self.head = build_head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.layers(self.entry(images))))
        return logits


class Patches(nn.Module):
    """A convolution of patches of ``size`` pixels that halves the maps ``halvings`` times, with a norm before or after.

    With downsample ``stride`` the patches are disjoint (Liu 2022); else there is one per pixel, and pools follow.
    """

    def __init__(self, channels: int, out: int, size: int, halvings: int, style: Style, norm: str, first: bool) -> None:
        super().__init__()
        self.norm_before = nn.Identity() if first else NORMS[norm](channels)
        disjoint = style.downsample == "stride" and halvings > 0
        before, after = (0, 0) if disjoint else ((size - 1) // 2, size // 2)
        self.pad = PADS[style.padding_mode]((before, after, before, after))
        self.conv = nn.Conv2d(channels, out, size, size if disjoint else 1)
        self.pool = nn.Sequential(*(style.subsample(out) for _ in range(halvings)))
        self.norm_after = NORMS[norm](out) if first else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.norm_after(self.pool(self.conv(self.pad(self.norm_before(maps)))))
        return out


class ConvNeXtBlock(nn.Module):
    """A 7x7 depthwise convolution, a norm and two 1x1 convolutions around an activation, beside a shortcut."""

    def __init__(self, channels: int, style: Style, norm: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels,
            channels,
            7,
            padding=3,
            groups=channels,
            padding_mode=style.padding_mode,  # type: ignore[arg-type]
        )
        self.norm = NORMS[norm](channels)
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.act = style.act()
        self.project = nn.Conv2d(4 * channels, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, maps: Tensor) -> Tensor:
        out = self.project(self.act(self.expand(self.norm(self.depthwise(maps)))))
        return maps + self.scale * out


def _patches_side(side: int, halvings: int, style: Style) -> int:
    if style.downsample == "stride":
        return side // 2**halvings
    for _ in range(halvings):
        side = style.halved(side)
    return side
