"""ResNet: He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.

With three stages of two blocks it is wide (``wide_resnet16``; the default width is that of WRN-16-4 of Zagoruyko &
Komodakis 2016, https://arxiv.org/abs/1605.07146, which acts before its convolutions and has a stem of 16 channels).

Two forms: ``small`` has a 3x3 stem without pooling (the form used for CIFAR), ``imagenet`` the 7x7 stem of stride 2
and a 3x3 max pool. Deviations, made so that ways to halve a map can be compared:

- ``maxpool`` halves after the activation of a stride-1 convolution, in the branch and in the shortcut; ``stride`` is
  the paper's (in the 3x3 convolution of a bottleneck, as is usual today). ``blurpool`` low-passes where ``maxpool``
  subsamples, as in the max blur pooling of Zhang 2019, and blurs before the 1x1 convolution of the
  shortcut.
- ``aps`` and ``lps`` sample where Chaman & Dokmanic 2021 do: after the activation of a stride-1 convolution, without a
  maximum. The shortcut keeps the phase that the branch chose.
- The ``imagenet`` stem keeps its stride of 2 with ``maxpool``, ``stride`` and ``blurpool``, as in Zhang 2019. The
  others, which must not alias at all, convolve at full resolution: four times the work in that layer. With
  ``aliasfree`` one ideal downsampling by 4 replaces the stride and the max pool.
- Where the activation is a quadratic (``aliasfree``) the sum of a block has no activation, see `Style.act_on_sum`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from augkit.architectures.blocks import Style
from augkit.architectures.heads import build_head
from augkit.core.errors import InputError, unknown_name

STEMS = ("small", "imagenet")


class ResNet(nn.Module):
    """ResNet, by default of four stages; the first keeps the size of its maps, the others halve it.

    It maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        style: downsampling, padding and activation.
        head: ``gap``, ``fc`` or ``spp``, as in `build_head`.
        width: channels of the first stage; each later stage has twice as many as the one before (and four times as many
            at the output of a bottleneck).
        input_size: side of the input in pixels; only ``fc`` needs it.
        blocks: number of blocks in each stage.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3.
        stem: ``small`` or ``imagenet``.

    Raises:
        InputError: the stem is unknown, or the padding is ``full``, whose maps do not fit shortcuts.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        style: Style = Style(),  # noqa: B008 (frozen)
        head: str = "gap",
        width: int = 64,
        input_size: int | None = None,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        bottleneck: bool = False,
        stem: str = "small",
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise unknown_name("stem", stem, STEMS)
        if style.padding_mode == "full":
            raise InputError("padding_mode 'full': expected a network without shortcuts (small_cnn, vgg11, vgg13)")
        self.entry = style.entry()
        self.conv = style.conv(in_channels, width, 7 if stem == "imagenet" else 3, _stem_stride(style, stem))
        self.norm = style.norm(width)
        self.act = style.act()
        self.pool = style.stem_pool(width) if stem == "imagenet" else nn.Identity()
        side = input_size if input_size is None or stem == "small" else -(-input_size // 4)
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for k in range(count):
                halve = stage > 0 and k == 0
                block = (Bottleneck if bottleneck else BasicBlock)(channels, width * 2**stage, style, halve)
                layers.append(block)
                channels = block.out_channels
                side = style.halved(side) if halve and side is not None else side
        self.layers = nn.Sequential(*layers)
        self.head = build_head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.act(self.norm(self.conv(self.entry(images)))))
        logits: Tensor = self.head(self.layers(maps))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; with ``halve`` the maps are halved after the first."""

    def __init__(self, channels: int, width: int, style: Style, halve: bool) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = style.conv(channels, width, 3, style.conv_stride if halve else 1)
        self.norm1 = style.norm(width)
        self.act1 = style.act()
        self.pool = style.pool(width) if halve else nn.Identity()
        self.conv2 = style.conv(width, width, 3)
        self.norm2 = style.norm(width)
        self.shortcut_pool = style.shortcut_pool(channels) if halve else nn.Identity()
        self.shortcut = _shortcut(channels, width, style, halve)
        self.act2 = style.act_on_sum()
        self.shares_phase = halve and style.polyphase

    def forward(self, maps: Tensor) -> Tensor:
        out = self.act1(self.norm1(self.conv1(maps)))
        if self.shares_phase:
            out, phase = self.pool(out, return_phase=True)
            maps = self.shortcut_pool(maps, phase)
        else:
            out, maps = self.pool(out), self.shortcut_pool(maps)
        out = self.norm2(self.conv2(out)) + self.shortcut(maps)
        activated: Tensor = self.act2(out)
        return activated


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to 4 ``width`` channels beside a shortcut; ``halve`` acts after the second."""

    def __init__(self, channels: int, width: int, style: Style, halve: bool) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.conv1 = style.conv(channels, width, 1)
        self.norm1 = style.norm(width)
        self.act1 = style.act()
        self.conv2 = style.conv(width, width, 3, style.conv_stride if halve else 1)
        self.norm2 = style.norm(width)
        self.act2 = style.act()
        self.pool = style.pool(width) if halve else nn.Identity()
        self.conv3 = style.conv(width, 4 * width, 1)
        self.norm3 = style.norm(4 * width)
        self.shortcut_pool = style.shortcut_pool(channels) if halve else nn.Identity()
        self.shortcut = _shortcut(channels, 4 * width, style, halve)
        self.act3 = style.act_on_sum()
        self.shares_phase = halve and style.polyphase

    def forward(self, maps: Tensor) -> Tensor:
        out = self.act1(self.norm1(self.conv1(maps)))
        out = self.act2(self.norm2(self.conv2(out)))
        if self.shares_phase:
            out, phase = self.pool(out, return_phase=True)
            maps = self.shortcut_pool(maps, phase)
        else:
            out, maps = self.pool(out), self.shortcut_pool(maps)
        out = self.norm3(self.conv3(out)) + self.shortcut(maps)
        activated: Tensor = self.act3(out)
        return activated


def _shortcut(channels: int, out: int, style: Style, halve: bool) -> nn.Module:
    if channels == out and not halve:
        return nn.Identity()
    conv = style.conv(channels, out, 1, style.conv_stride if halve else 1)
    return nn.Sequential(OrderedDict(conv=conv, norm=style.norm(out)))


def _stem_stride(style: Style, stem: str) -> int:
    return 2 if stem == "imagenet" and not style.exact else 1
