"""A small network whose logits do not change under rotations by 90 degrees, and change little at other angles.

After Worrall et al. 2017, https://arxiv.org/abs/1612.04642, with the three stages of `SmallCNN`. The magnitudes of the
last maps, of all orders, are averaged over the image, and a linear layer follows.
"""

from __future__ import annotations

from torch import Tensor, nn

from augkit.architectures.harmonic import ORDERS, CenteredBlurPool2d, HarmonicConv2d, MagnitudeBatchNorm2d, magnitude
from augkit.core.errors import InputError


class HarmonicNet(nn.Module):
    """Three stages of harmonic convolution, batch norm and ReLU of magnitudes; blur pooling between them.

    It maps images ``(B, in_channels, H, W)`` of any size to logits ``(B, num_classes)``. Up to float rounding these are
    invariant to rotations of the image by 90 degrees, in training too. At other angles they are nearly invariant if no
    content rotates into or out of the image, as for digits on an empty canvas (``benchmarks/results/harmonic.json``).
    The network cannot distinguish classes that differ only by a rotation, such as some handwritten 6 and 9.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        padding_mode: ``zeros``, ``circular`` or ``reflect``.
        width: channels of each order in the first stage; the second and the third have two and four times as many.
        size: side of the filters in pixels, odd and at least 5.
        max_order: the largest order of the streams, 0 to 2. With 0 all filters are isotropic.

    Raises:
        InputError: the size, the order, the width or the padding mode is invalid.

    >>> net = HarmonicNet(10, width=2).eval()
    >>> images = torch.rand(2, 1, 28, 28)
    >>> torch.allclose(net(images), net(images.rot90(1, (-2, -1))), atol=1e-5)
    True
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        padding_mode: str = "zeros",
        width: int = 4,
        size: int = 7,
        max_order: int = 2,
    ) -> None:
        super().__init__()
        if max_order not in ORDERS:
            raise InputError(f"HarmonicNet: expected max_order 0, 1 or 2, got {max_order}")
        layers: list[nn.Module] = []
        streams = {0: in_channels}
        for factor in (1, 2, 4):
            wider = dict.fromkeys(range(max_order + 1), factor * width)
            layers += [CenteredBlurPool2d(padding_mode)] if layers else []
            layers += [HarmonicConv2d(streams, wider, size, padding_mode), MagnitudeBatchNorm2d(sum(wider.values()))]
            streams = wider
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(sum(streams.values()), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        sizes = magnitude(self.features(images)).mean((-2, -1))
        logits: Tensor = self.head(sizes.to(self.head.weight.dtype))
        return logits
