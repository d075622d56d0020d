"""Equivariance of the layers of a network that gives a map: where it stops moving with the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from augkit.invariance.layers.equivariance import LayerEquivariance, layerwise_equivariance
from augkit.invariance.outputs.base import tensor_in


class _Flattened(nn.Module):
    """A network whose map is one vector, which the analysis of layers takes for logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the map ``(B, C, h, w)`` of a network as ``(B, C h w)``."""
        found: Tensor = tensor_in(self.network(images)).flatten(1)
        return found


def layers_of_map(model: nn.Module, images: Tensor, **options: Any) -> list[LayerEquivariance]:
    """Return the signal-to-error ratio in dB of every layer of a network that gives a map ``(B, C, h, w)``.

    A layer has no share of the error of the output, as that of a map is no sum over layers here.

    Args:
        model: gives a map, alone or as in `augkit.architectures.outputs`.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        options: keywords of `augkit.invariance.layerwise_equivariance`.

    Returns:
        The layers in the order in which they finish; the whole network is the last, as ``output``, unless it is an
        ``nn.Sequential``.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, padding_mode="circular"), nn.Conv2d(4, 2, 1))
    >>> [(layer.name, layer.shape) for layer in layers_of_map(net, torch.rand(2, 1, 8, 8))]
    [('0', (4, 4, 4)), ('1', (2, 4, 4))]
    """
    found = layerwise_equivariance(_Flattened(model), images, shares=False, **options)
    named = {"network": "output"}
    return [
        replace(layer, name=named.get(layer.name, layer.name.removeprefix("network.")))
        for layer in found
        if layer.stride is not None
    ]
