"""Networks of torchvision and timm for tests of surgery."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torchvision import models


def build(name: str) -> nn.Module:
    """A network with random weights in all its branches: many start with scales of 0, which hide a branch."""
    source, _, name = name.partition(":")
    if source == "timm":
        model = timm.create_model(name, num_classes=10)
    else:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, num_classes=10, **extra)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.numel() == max(parameter.shape, default=1):
                parameter.uniform_(*((-0.1, 0.1) if key.endswith("bias") else (0.5, 1.0)))
    return model.eval()


def calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in evaluation mode, with batch norm statistics of the images: without, logits hardly vary."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()  # alone: some networks run other branches in training
    with torch.no_grad():
        model(images)
    return model.eval()


def movement(model: nn.Module, images: Tensor, shifts: list[tuple[int, int]]) -> float:
    """Largest change of a logit under circular shifts (rows, columns), relative to the largest logit."""
    with torch.no_grad():
        logits = model(images)
        moved = [(model(images.roll(shift, (-2, -1))) - logits).abs().max() for shift in shifts]
    return (torch.stack(moved).max() / logits.abs().max()).item()
