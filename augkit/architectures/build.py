"""Builds networks by name and draws their initial weights."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable

import torch
from torch import nn

from augkit.architectures.blocks import Style
from augkit.architectures.convnext import ConvNeXt
from augkit.architectures.harmonic_network import HarmonicNet
from augkit.architectures.heads import HEADS
from augkit.architectures.resnet import STEMS, ResNet
from augkit.architectures.small_cnn import SmallCNN
from augkit.architectures.vgg import CONVOLUTIONS, VGG
from augkit.architectures.vit import Blocks, ViT
from augkit.core.errors import InputError, check_whole, unknown_name
from augkit.core.random_streams import seeded


def _harmonic(
    num_classes: int, in_channels: int, *, style: Style, head: str, width: int, input_size: int | None
) -> HarmonicNet:
    del input_size
    if style.downsample != "blurpool" or style.activation != "relu" or head != "gap":
        raise InputError(
            "network 'harmonic' has its own pools, activation and head, which commute with rotations; leave"
            " downsample, activation and head out"
        )
    return HarmonicNet(num_classes, in_channels, style.padding_mode, width)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": SmallCNN,
    "resnet18": ResNet,
    "resnet34": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": functools.partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "wide_resnet16": functools.partial(ResNet, blocks=(2, 2, 2)),
    "convnext": ConvNeXt,
    "convnext_aliasfree": functools.partial(ConvNeXt, norm="aliasfree"),
    "harmonic": _harmonic,
    "vit_micro": functools.partial(ViT, blocks=Blocks(4, 4)),
    "vit_micro_aliasfree": functools.partial(ViT, blocks=Blocks(4, 4, "xca", "aliasfree")),
    "vit_tiny": ViT,
    "vit_tiny_aliasfree": functools.partial(ViT, blocks=Blocks(12, 3, "xca", "aliasfree")),
    "vgg11": functools.partial(VGG, convolutions=CONVOLUTIONS["vgg11"]),
    "vgg13": functools.partial(VGG, convolutions=CONVOLUTIONS["vgg13"]),
}
VITS = ("vit_micro", "vit_micro_aliasfree", "vit_tiny", "vit_tiny_aliasfree")
DEFAULT_WIDTH = {"small_cnn": 16, "harmonic": 4, "convnext": 40, "convnext_aliasfree": 40}
DEFAULT_WIDTH |= {"vit_micro": 64, "vit_micro_aliasfree": 64, "vit_tiny": 192, "vit_tiny_aliasfree": 192}
# Default downsampling and activation of a network.
OWN_DOWNSAMPLE = {"harmonic": "blurpool", "convnext": "stride", "convnext_aliasfree": "aliasfree"}
OWN_DOWNSAMPLE |= {name: "aliasfree" if name.endswith("aliasfree") else "stride" for name in VITS}
OWN_ACTIVATION = {"convnext": "gelu", "convnext_aliasfree": "aliasfree"}
OWN_ACTIVATION |= {name: "aliasfree" if name.endswith("aliasfree") else "gelu" for name in VITS}
WITH_STEM = ("resnet18", "resnet34", "resnet50", "wide_resnet16", "convnext", "convnext_aliasfree", *VITS)


def build_model(  # noqa: PLR0913 (each is one choice of one experiment)
    name: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    downsample: str | None = None,
    head: str = "gap",
    padding_mode: str = "zeros",
    activation: str | None = None,
    stem: str = "small",
    width: int | None = None,
    input_size: int | None = None,
    position: str | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network that maps images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    With a ``seed`` each parameter has its own random stream, named by the seed and the parameter, so networks that
    differ only in ``downsample`` have the same initial weights. Without a seed the weights come from torch's global
    random state.

    Args:
        name: ``small_cnn``, ``resnet18``, ``resnet34``, ``resnet50``, ``wide_resnet16``, ``convnext``,
            ``convnext_aliasfree``, ``vit_micro``, ``vit_tiny``, ``vit_micro_aliasfree``, ``vit_tiny_aliasfree``,
            ``vgg11``, ``vgg13`` or ``harmonic``.
        num_classes, in_channels: sizes of the output and the input.
        downsample: ``maxpool``, ``stride``, ``blurpool``, ``aps``, ``lps`` or ``aliasfree``, as in `Style`. None is
            ``stride`` for ``convnext`` and ViTs, ``aliasfree`` for networks so named, and ``maxpool`` for the others.
            In ViTs it is how patches are sampled, see `augkit.architectures.vit`.
        head: ``gap`` (global average), ``fc`` (fully connected), ``spp`` (spatial pyramid) or, for ViTs, ``token`` (a
            class token).
        padding_mode: ``zeros``, ``circular``, ``reflect`` or, without shortcuts, ``full``, as in `Style`.
        activation: ``relu``, ``gelu``, ``quadratic``, ``aliasfree`` or ``aliasfree_gelu``. None is ``aliasfree``
            with that downsample, else ``relu`` (for ``convnext`` and ViTs ``gelu``).
        stem: ``small`` or ``imagenet``, for ResNets, ConvNeXts and ViTs.
        width: channels of the first stage; the network's own when None.
        input_size: side of the input in pixels; only the head ``fc`` needs it.
        position: ``learned``, ``relative`` or ``none``, for ViTs; None is ``relative`` with ``aps``, ``lps`` and
            ``aliasfree``, else ``learned``.
        seed: seed of the initial weights.

    Raises:
        InputError: a name is unknown, choices cannot be combined, or a size is below 1.

    >>> build_model("small_cnn", 10, 1, downsample="blurpool")(torch.rand(2, 1, 40, 40)).shape
    torch.Size([2, 10])
    """
    heads = (*HEADS, "token") if name in VITS else HEADS
    for kind, value, known in (("network", name, NETWORKS), ("head", head, heads), ("stem", stem, STEMS)):
        if value not in known:
            raise unknown_name(kind, value, known)
    style = Style(
        downsample or OWN_DOWNSAMPLE.get(name, "maxpool"), padding_mode, activation or OWN_ACTIVATION.get(name)
    )
    width = DEFAULT_WIDTH.get(name, 64) if width is None else width
    for key, number in (("num_classes", num_classes), ("in_channels", in_channels), ("width", width)):
        check_whole(key, number, 1, optional=False)
    build = functools.partial(
        NETWORKS[name], num_classes, in_channels, style=style, head=head, width=width, input_size=input_size
    )
    if name in WITH_STEM:
        build = functools.partial(build, stem=stem)
    elif stem != "small":
        raise InputError(f"stem 'imagenet': expected one of {', '.join(WITH_STEM)}, got {name}")
    if name in VITS:
        build = functools.partial(build, position=position)
    elif position is not None:
        raise InputError(f"position '{position}': expected one of {', '.join(VITS)}, got {name}")
    if seed is None:
        return build()
    with seeded(seed):  # for weights that `initialize` leaves to their layers
        model = build()
    initialize(model, seed)
    return model


def initialize(model: nn.Module, seed: int) -> None:
    """Redraw weights in place (He et al. 2015, fan-in, normal), each parameter from its own named random stream.

    Weights of norms become 1 and biases 0. The ``phase`` of a harmonic filter is an angle, uniform on the circle. A
    class ``token`` and learned ``position`` vectors have the standard deviation 0.02 (Dosovitskiy et al. 2021). Other
    parameters, such as the coefficients of an activation, keep the values that their layers gave them.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            *path, kind = name.split(".")
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            if kind == "phase":
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * math.pi)
            elif kind in ("token", "position"):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim >= 2 and (kind == "weight" or "radial" in path):
                gain = 1.0 if parameter.ndim == 2 else 2.0  # a linear head has no ReLU behind it
                std = math.sqrt(gain / parameter[0].numel())
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            elif kind in ("weight", "bias"):
                parameter.fill_(1.0 if kind == "weight" else 0.0)
