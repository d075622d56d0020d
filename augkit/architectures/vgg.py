"""VGG with batch norm: Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, configurations A and B.

Deviation: one linear layer replaces the three of the paper, which global average pooling makes unnecessary.
"""

from __future__ import annotations

from torch import Tensor, nn

from augkit.architectures.blocks import Stage, Style
from augkit.architectures.heads import build_head
from augkit.core.errors import InputError

CONVOLUTIONS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2)}
FACTORS = (1, 2, 4, 8, 8)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each followed by a pool, so that images of 32 pixels end as one pixel.

    It maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        style: downsampling, padding and activation.
        head: ``gap``, ``fc`` or ``spp``, as in `build_head`.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        input_size: side of the input in pixels; only ``fc`` needs it, but it is checked whenever given.
        convolutions: number of convolutions in each stage.

    Raises:
        InputError: ``input_size`` is too small for the pools.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        style: Style = Style(),  # noqa: B008 (frozen)
        head: str = "gap",
        width: int = 64,
        input_size: int | None = None,
        convolutions: tuple[int, ...] = CONVOLUTIONS["vgg11"],
    ) -> None:
        super().__init__()
        self.entry = style.entry()
        stages: list[nn.Module] = []
        channels, side = in_channels, input_size
        for count, factor in zip(convolutions, FACTORS, strict=True):
            for k in range(count):
                stages.append(Stage(channels, factor * width, style, halve=k == count - 1))
                channels = factor * width
                side = None if side is None else style.stage_side(side, halve=k == count - 1)
        if side == 0:
            raise InputError(f"VGG: expected input_size >= 32 with max pooling, got {input_size}; five pools halve it")
        self.features = nn.Sequential(*stages)
        self.head = build_head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(self.entry(images)))
        return logits
