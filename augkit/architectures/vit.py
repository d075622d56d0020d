"""Vision transformers whose patches, positions and attention can be made to commute with shifts.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, in the size of Touvron et
al. 2021 (DeiT-Ti, https://arxiv.org/abs/2012.12877), and smaller. Three things break its invariance to circular shifts:

- **Patches** lie on a grid that does not move with the image. With ``aps`` and ``lps`` the grid is the one of the
  polyphase component of the largest norm, or of the best score, of the embedded patches: Rojas-Gomez et al. 2024,
  "Making Vision Transformers Truly Shift-Equivariant", https://arxiv.org/abs/2305.16316. The embedding then runs at
  every pixel, ``patch**2`` times the work of that one layer.
- **Positions** that are added to tokens. Relative positions on the torus, or none, do not break it.
- **The class token** does not: it attends to the tokens as a set.

With ``aps``, circular padding and position ``relative`` or ``none`` the logits are exactly invariant to integer
circular shifts of images whose sides are multiples of the patch.

`Blocks` of attention ``xca`` and norm ``aliasfree``, with downsample ``aliasfree``, are the alias-free ViT of Michaeli
& Soudry 2025, https://arxiv.org/abs/2510.22673: exactly invariant to fractional circular shifts too. With softmax
attention, which is nonlinear at each place, alias-free patches make the logits move less, but not exactly zero.

Deviations: no dropout; initial weights as in `initialize`; by default the tokens are averaged, and the head ``token``
gives the class token of the papers. The alias-free ViT has neither the batch norm of XCiT's local interaction, nor its
convolutional stem, nor layer scale, nor class attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from augkit.architectures.aliasfree import AliasFreeDownsample2d
from augkit.architectures.attention import (
    AddedPosition,
    AliasFreeTokenNorm,
    CrossCovarianceAttention,
    Grid,
    LocalInteraction,
    RelativeBias,
    SelfAttention,
    TokenActivation,
)
from augkit.architectures.blocks import Style
from augkit.architectures.convnext import PADS
from augkit.architectures.downsampling import PADDING_MODES
from augkit.architectures.heads import build_head
from augkit.architectures.polyphase import AdaptivePolyphaseSampling, LearnablePolyphaseSampling
from augkit.architectures.strided import Blur2d
from augkit.core.errors import InputError, unknown_name

STEMS = {"small": (4, 32), "imagenet": (16, 224)}  # side of the patches, and of the images, in pixels
POSITIONS = ("learned", "relative", "none")
ATTENTIONS = ("softmax", "xca")
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": lambda channels: nn.LayerNorm(channels, eps=1e-6),
    "aliasfree": AliasFreeTokenNorm,
}


@dataclass(frozen=True)
class Blocks:
    """The blocks of a ViT.

    Attributes:
        depth: number of blocks.
        heads: heads of the attention; the largest number up to it that divides the width is taken.
        attention: ``softmax`` or ``xca`` (cross-covariance).
        norm: ``layer`` (of each token) or ``aliasfree`` (one number per image).

    Raises:
        InputError: the attention or the norm is unknown.
    """

    depth: int = 12
    heads: int = 3
    attention: str = "softmax"
    norm: str = "layer"

    def __post_init__(self) -> None:
        for kind, value, known in (("attention", self.attention, ATTENTIONS), ("norm", self.norm, NORMS)):
            if value not in known:
                raise unknown_name(kind, value, known)


class ViT(nn.Module):
    """A vision transformer: patches, blocks of attention and two-layer perceptrons, a norm, a head.

    It maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        style: how patches are sampled (`PatchEmbedding`), padding and activation.
        head: ``gap``, ``fc`` or ``spp``, as in `build_head`, or ``token``: a class token and a linear layer.
        width: channels of the tokens.
        input_size: side of the input in pixels, for ``fc`` and for the stored positions; they are resampled for
            others. When None, positions are stored for 32 pixels, or 224 with the stem ``imagenet``.
        blocks: number and kind of the blocks.
        stem: ``small`` (patches of 4 pixels) or ``imagenet`` (of 16).
        position: ``learned`` (a vector per place is added), ``relative`` (`RelativeBias`; with ``xca``
            `LocalInteraction`) or ``none``. None is ``relative`` where the sampling is exact (``aps``, ``lps``,
            ``aliasfree``), else ``learned``.

    Raises:
        InputError: a name is unknown, the padding is ``full``, a class token meets layers that filter maps, or the
            images are smaller than a patch.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        style: Style = Style("stride", activation="gelu"),  # noqa: B008 (frozen)
        head: str = "gap",
        width: int = 192,
        input_size: int | None = None,
        blocks: Blocks = Blocks(),
        stem: str = "small",
        position: str | None = None,
    ) -> None:
        super().__init__()
        position = position or ("relative" if style.exact else "learned")
        for kind, value, known in (
            ("stem", stem, STEMS),
            ("position", position, POSITIONS),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)
        patch, usual = STEMS[stem]
        _check(style, head, blocks, input_size, patch)
        self.entry = style.entry()
        self.patches = PatchEmbedding(in_channels, width, patch, style)
        side = patches_side(input_size or usual, patch, style)
        self.position = AddedPosition(width, side) if position == "learned" else None
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if head == "token" else None
        relative = position == "relative"
        self.blocks = nn.ModuleList(Block(width, style, blocks, relative) for _ in range(blocks.depth))
        self.norm = NORMS[blocks.norm](width)
        self.head: nn.Module = (
            nn.Linear(width, num_classes)
            if head == "token"
            else build_head(head, width, num_classes, side if input_size else None)
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.patches(self.entry(images))
        grid = (maps.shape[2], maps.shape[3])
        tokens = maps.flatten(2).mT
        if self.position is not None:
            tokens = self.position(tokens, grid)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(len(images), -1, -1).to(tokens.dtype), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens, grid)
        tokens = self.norm(tokens)
        tokens = tokens.mT.unflatten(2, grid) if self.token is None else tokens[:, 0]
        logits: Tensor = self.head(tokens)
        return logits


class PatchEmbedding(nn.Module):
    """A convolution of square patches, one for each place of a grid whose step is the patch.

    With downsample ``stride`` patches are disjoint and lie where they are. ``blurpool`` low-passes the image first.
    Otherwise there is a patch at every pixel, and one in ``patch`` along each axis is kept: the maximum (``maxpool``),
    one polyphase component (``aps``, ``lps``), or samples of the low-passed map (``aliasfree``). The component at
    phase ``(y, x)`` is the plain embedding of the image that begins at that pixel.

    Maps ``(B, channels, H, W)`` become ``(B, out, h, w)``, with h and w as in `patches_side`.
    """

    def __init__(self, channels: int, out: int, patch: int, style: Style) -> None:
        super().__init__()
        method, mode = style.downsample, style.padding_mode
        disjoint = method in ("stride", "blurpool")
        after = 0 if disjoint else patch - 1
        self.blur: nn.Module = nn.Identity()
        if method == "blurpool":
            self.blur = Blur2d(4, (patch, patch), (1, 1), PADDING_MODES[mode])
        self.pad = PADS[mode]((0, after, 0, after))
        self.conv = nn.Conv2d(channels, out, patch, patch if disjoint else 1)
        self.pool = _pool(method, out, patch)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.pool(self.conv(self.pad(self.blur(images))))
        return maps


def _pool(method: str, channels: int, patch: int) -> nn.Module:
    if method == "aps":
        return AdaptivePolyphaseSampling(patch)
    if method == "lps":
        return LearnablePolyphaseSampling(channels, patch)
    if method == "aliasfree":
        return AliasFreeDownsample2d(patch)
    return nn.MaxPool2d(patch) if method == "maxpool" else nn.Identity()


def patches_side(side: int, patch: int, style: Style) -> int:
    """Return the number of patches along a side of ``side`` pixels: rounded up where the sampling is exact."""
    return -(-side // patch) if style.exact else side // patch


class Block(nn.Module):
    """Attention and a two-layer perceptron, each beside a shortcut and behind a norm."""

    def __init__(self, width: int, style: Style, blocks: Blocks, relative: bool) -> None:
        super().__init__()
        heads = max(count for count in range(1, blocks.heads + 1) if width % count == 0)
        norm = NORMS[blocks.norm]
        wraps = style.padding_mode == "circular"
        self.norm1 = norm(width)
        self.local: nn.Module | None = None
        if blocks.attention == "softmax":
            self.attention: nn.Module = SelfAttention(width, heads, RelativeBias(heads, wraps) if relative else None)
        else:
            self.attention = CrossCovarianceAttention(width, heads)
            if relative:
                self.norm_local = norm(width)
                self.local = LocalInteraction(width, style.padding_mode, style.act())
        self.norm2 = norm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.act = TokenActivation(style.act())
        self.project = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), grid)
        if self.local is not None:
            tokens = tokens + self.local(self.norm_local(tokens), grid)
        out: Tensor = self.project(self.act(self.expand(self.norm2(tokens)), grid))
        return tokens + out


def _check(style: Style, head: str, blocks: Blocks, input_size: int | None, patch: int) -> None:
    if style.padding_mode == "full":
        raise InputError("padding_mode 'full': expected a network without shortcuts (small_cnn, vgg11, vgg13)")
    filters = style.activation in ("aliasfree", "aliasfree_gelu")
    if head == "token" and (blocks.attention == "xca" or blocks.norm == "aliasfree" or filters):
        raise InputError("head 'token': alias-free ViTs treat tokens as a map, which has no class token; head=gap")
    if input_size is not None and input_size < patch:
        raise InputError(f"ViT: expected input_size >= {patch}, one patch, got {input_size}; use the stem 'small'")
