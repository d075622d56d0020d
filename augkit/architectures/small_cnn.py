"""A small network for images of 28 to 64 pixels, such as digits; it trains in a minute on a laptop."""

from __future__ import annotations

from torch import Tensor, nn

from augkit.architectures.blocks import Stage, Style
from augkit.architectures.heads import build_head


class SmallCNN(nn.Module):
    """Three stages of convolution, batch norm, activation and a pool.

    It maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        style: downsampling, padding and activation.
        head: ``gap``, ``fc`` or ``spp``, as in `build_head`.
        width: channels of the first stage; the second and the third have two and four times as many.
        input_size: side of the input in pixels; only ``fc`` needs it.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        style: Style = Style(),  # noqa: B008 (frozen)
        head: str = "gap",
        width: int = 16,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        self.entry = style.entry()
        stages, channels, side = [], in_channels, input_size
        for factor in (1, 2, 4):
            stages.append(Stage(channels, factor * width, style, halve=True))
            channels = factor * width
            side = None if side is None else style.stage_side(side)
        self.features = nn.Sequential(*stages)
        self.head = build_head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(self.entry(images)))
        return logits
