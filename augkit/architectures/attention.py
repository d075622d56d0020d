"""Attention between the places of a map, and encodings of their positions.

Softmax attention treats tokens as a set: it commutes with every permutation, so also with circular shifts of the grid
by whole tokens. Positions break that, unless they depend only on the distance between two tokens on the torus.

Cross-covariance attention (El-Nouby et al. 2021, "XCiT", https://arxiv.org/abs/2106.09681) mixes channels by weights
that are inner products over all places, and is linear in the values. On maps without their Nyquist frequency, inner
products do not change under fractional shifts either (Michaeli & Soudry 2025, "Alias-Free ViT: Fractional Shift
Invariance via Linear Attention", https://arxiv.org/abs/2510.22673).

Tokens are ``(B, N, C)``, the places of a grid ``(h, w)`` in row-major order, behind a class token if there is one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures.aliasfree import AliasFreeActivation, AliasFreeLayerNorm2d

Grid = tuple[int, int]


class AddedPosition(nn.Module):
    """Adds a learned vector to each place; grids of another size get resampled vectors (bicubic).

    Args:
        channels: C of the tokens.
        side: side of the grid for which vectors are stored.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, channels, side, side))

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        position: Tensor = self.position
        if grid != tuple(position.shape[-2:]):
            position = F.interpolate(position, size=grid, mode="bicubic", align_corners=False)
        return tokens + position.flatten(2).mT.to(tokens.dtype)


class RelativeBias(nn.Module):
    """A learned number per head for each distance between two tokens, which is added to the scores of attention.

    Distances beyond ``reach`` tokens along an axis share the number of ``reach`` (Shaw et al. 2018,
    https://arxiv.org/abs/1803.02155), so one table serves grids of any size. It begins at zero.

    Args:
        heads: heads of the attention.
        wraps: measure distances on the torus, on which they do not change under circular shifts.
        reach: the largest distance with a number of its own, in tokens.
    """

    def __init__(self, heads: int, wraps: bool, reach: int = 7) -> None:
        super().__init__()
        self.wraps, self.reach = wraps, reach
        self.table = nn.Parameter(torch.zeros(heads, 2 * reach + 1, 2 * reach + 1))

    def forward(self, grid: Grid) -> Tensor:
        """Return ``(heads, N, N)`` for the N places of the grid."""
        y, x = (self._distances(side) for side in grid)
        bias = self.table[:, y[:, None, :, None], x[None, :, None, :]]  # heads, h, w, h, w
        return bias.flatten(3, 4).flatten(1, 2)

    def _distances(self, side: int) -> Tensor:
        places = torch.arange(side, device=self.table.device)
        distance = places - places[:, None]
        if self.wraps:
            distance = (distance + side // 2) % side - side // 2
        return distance.clamp(-self.reach, self.reach) + self.reach

    def extra_repr(self) -> str:
        return f"{len(self.table)}, wraps={self.wraps}, reach={self.reach}"


class SelfAttention(nn.Module):
    """Softmax attention of several heads (Vaswani et al. 2017), with a `RelativeBias` if ``bias`` is given."""

    def __init__(self, channels: int, heads: int, bias: RelativeBias | None = None) -> None:
        super().__init__()
        self.heads, self.bias = heads, bias
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(q, grid))
        mixed: Tensor = self.project(out.transpose(1, 2).flatten(2))
        return mixed

    def _mask(self, q: Tensor, grid: Grid) -> Tensor | None:
        if self.bias is None:
            return None
        bias: Tensor = self.bias(grid)
        extra = q.shape[2] - bias.shape[-1]  # the class token, at no distance from any place
        return F.pad(bias, (extra, 0, extra, 0)).to(q.dtype)


class CrossCovarianceAttention(nn.Module):
    """Attention between channels by their covariance over all places (XCiT, section 3.2), linear in the values.

    Queries and keys are divided by their norms over places, which measure energies and do not alias.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1).unbind(0)  # B, heads, d, N
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature
        out = scores.softmax(-1) @ v
        mixed: Tensor = self.project(out.permute(0, 3, 1, 2).flatten(2))
        return mixed


class LocalInteraction(nn.Module):
    """Two depthwise 3x3 convolutions around an activation: XCiT's local patch interaction, without its batch norm.

    Cross-covariance attention ignores where a token is; this layer adds its neighbors.
    """

    def __init__(self, channels: int, padding_mode: str, act: nn.Module) -> None:
        super().__init__()
        kind = {"kernel_size": 3, "padding": 1, "groups": channels, "padding_mode": padding_mode}
        self.conv1 = nn.Conv2d(channels, channels, **kind)  # type: ignore[arg-type]
        self.act = act
        self.conv2 = nn.Conv2d(channels, channels, **kind)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        maps = tokens.mT.unflatten(2, grid)
        out: Tensor = self.conv2(self.act(self.conv1(maps)))
        return out.flatten(2).mT


class AliasFreeTokenNorm(AliasFreeLayerNorm2d):
    """`AliasFreeLayerNorm2d` for tokens ``(B, N, C)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.mT[..., None])[..., 0].mT


class TokenActivation(nn.Module):
    """An activation of tokens; one that filters maps gets the tokens as a map."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act, self.filters = act, isinstance(act, AliasFreeActivation)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        if not self.filters:
            activated: Tensor = self.act(tokens)
            return activated
        filtered: Tensor = self.act(tokens.mT.unflatten(2, grid))
        return filtered.flatten(2).mT
