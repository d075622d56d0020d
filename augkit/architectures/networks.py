"""Networks for images of 28 pixels and more, the same but for how they downsample.

`ResNet` is He et al. 2016 (https://arxiv.org/abs/1512.03385) in the form used for small images: a 3x3 stem
without pooling. Blur pooling stands where Zhang 2019 puts it: after the activation of a stride-1 convolution,
and before the 1x1 convolution of the shortcut.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from augkit.architectures.downsampling import DOWNSAMPLES, PADDING_MODES, BlurPool2d, downsample
from augkit.errors import InputError, unknown_name

HEADS = ("gap", "fc")


class SmallCNN(nn.Module):
    """Three stages of convolution, batch norm, ReLU and downsampling; for images of 28 to 64 pixels.

    Takes ``(B, in_channels, H, W)`` and gives logits ``(B, num_classes)``.

    Args:
        num_classes, in_channels: sizes of the output and the input.
        downsample: ``maxpool``, ``stride`` or ``blurpool``.
        head: ``gap`` (global average, then linear) or ``fc`` (flatten, then linear; fixes the input size).
        padding_mode: ``zeros``, ``circular`` or ``reflect``.
        width: channels of the first stage; the second and the third have two and four times as many.
        input_size: side of the input, needed by ``fc`` alone.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        downsample: str = "maxpool",
        head: str = "gap",
        padding_mode: str = "zeros",
        width: int = 16,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        stages, channels, side = [], in_channels, input_size
        for factor in (1, 2, 4):
            stages.append(_Stage(channels, factor * width, downsample, padding_mode))
            channels = factor * width
            side = None if side is None else (side // 2 if downsample == "maxpool" else (side + 1) // 2)
        self.features = nn.Sequential(*stages)
        self.head = _head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class ResNet(nn.Module):
    """ResNet of basic blocks for small images; ``blocks`` are the blocks of each of four stages.

    Takes ``(B, in_channels, H, W)`` and gives logits ``(B, num_classes)``; arguments as in `SmallCNN`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        downsample: str = "stride",
        head: str = "gap",
        padding_mode: str = "zeros",
        width: int = 64,
        input_size: int | None = None,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, width, 3, 1, padding_mode)
        self.norm = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels, side = width, input_size
        for stage, count in enumerate(blocks):
            for block in range(count):
                halve = downsample if stage > 0 and block == 0 else None
                layers.append(_BasicBlock(channels, width * 2**stage, halve, padding_mode))
                channels = width * 2**stage
                if halve is not None and side is not None:
                    side = side // 2 if downsample == "maxpool" else (side + 1) // 2
        self.layers = nn.Sequential(*layers)
        self.head = _head(head, channels, num_classes, side)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(torch.relu(self.norm(self.conv(images)))))
        return logits


NETWORKS: dict[str, Callable[..., nn.Module]] = {"small_cnn": SmallCNN, "resnet18": ResNet}
DEFAULT_WIDTH = {"small_cnn": 16, "resnet18": 64}


def build_model(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    downsample: str = "maxpool",
    head: str = "gap",
    padding_mode: str = "zeros",
    width: int | None = None,
    input_size: int | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network by name.

    With a ``seed`` every parameter is drawn from a stream of its own, named by the seed and by the parameter:
    networks that differ in ``downsample`` alone start from the same weights. Without, torch's global state is
    used.

    Raises:
        InputError: an unknown name, downsample, head or padding mode, or a size below 1.

    >>> build_model("small_cnn", 10, 1, downsample="blurpool")(torch.rand(2, 1, 40, 40)).shape
    torch.Size([2, 10])
    """
    for kind, value, known in (
        ("network", name, NETWORKS),
        ("downsample", downsample, DOWNSAMPLES),
        ("head", head, HEADS),
        ("padding mode", padding_mode, PADDING_MODES),
    ):
        if value not in known:
            raise unknown_name(kind, value, known)
    width = DEFAULT_WIDTH[name] if width is None else width
    for key, number in (("num_classes", num_classes), ("in_channels", in_channels), ("width", width)):
        if number < 1:
            raise InputError(f"{key}: expected at least 1, got {number}")
    build = functools.partial(
        NETWORKS[name],
        num_classes,
        in_channels,
        downsample=downsample,
        head=head,
        padding_mode=padding_mode,
        width=width,
        input_size=input_size,
    )
    if seed is None:
        return build()
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own, replaced at once
        model = build()
    initialise(model, seed)
    return model


def initialise(model: nn.Module, seed: int) -> None:
    """Redraw weights in place (He et al. 2015, fan-in, normal), each parameter from its own named stream.

    A ``phase`` is an angle and is drawn from the whole circle.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            if name.endswith("phase"):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * math.pi)
                continue
            gain = 1.0 if parameter.ndim == 2 else 2.0  # a linear head has no ReLU behind it
            std = math.sqrt(gain / parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


class _Stage(nn.Module):
    def __init__(self, channels: int, out: int, method: str, padding_mode: str) -> None:
        super().__init__()
        self.conv = _conv(channels, out, 3, 2 if method == "stride" else 1, padding_mode)
        self.norm = nn.BatchNorm2d(out)
        self.pool = downsample(method, out, padding_mode)

    def forward(self, maps: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.conv(maps)))
        out: Tensor = self.pool(maps)
        return out


class _BasicBlock(nn.Module):
    def __init__(self, channels: int, out: int, method: str | None, padding_mode: str) -> None:
        super().__init__()
        stride = 2 if method == "stride" else 1
        self.conv1 = _conv(channels, out, 3, stride, padding_mode)
        self.norm1 = nn.BatchNorm2d(out)
        self.pool = nn.Identity() if method is None else downsample(method, out, padding_mode)
        self.conv2 = _conv(out, out, 3, 1, padding_mode)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if method is not None or channels != out:
            self.shortcut = _Shortcut(channels, out, method, padding_mode)

    def forward(self, maps: Tensor) -> Tensor:
        out = self.pool(torch.relu(self.norm1(self.conv1(maps))))
        out = self.norm2(self.conv2(out))
        return torch.relu(out + self.shortcut(maps))


class _Shortcut(nn.Module):
    def __init__(self, channels: int, out: int, method: str | None, padding_mode: str) -> None:
        super().__init__()
        pools: dict[str | None, Callable[[], nn.Module]] = {
            "maxpool": lambda: nn.MaxPool2d(2),
            "blurpool": lambda: BlurPool2d(channels, padding_mode=padding_mode),
        }
        self.pool = pools.get(method, nn.Identity)()
        self.conv = nn.Conv2d(channels, out, 1, stride=2 if method == "stride" else 1, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(self.pool(maps)))
        return out


def _conv(channels: int, out: int, size: int, stride: int, padding_mode: str) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, stride, size // 2, bias=False, padding_mode=padding_mode)  # type: ignore[arg-type]


def _head(head: str, channels: int, num_classes: int, side: int | None) -> nn.Sequential:
    if head == "gap":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    if side is None:
        raise InputError("head 'fc': expected input_size, the side of the images in pixels, got None")
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, num_classes))
