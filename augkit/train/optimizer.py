"""SGD or AdamW over a network's parameters, with weight decay only on weights."""

from __future__ import annotations

import torch
from torch import nn

from augkit.core.errors import InputError
from augkit.train.recipe_sections import OptimSettings

# By name: the phase of a harmonic filter (`augkit.architectures.harmonic`) is an angle, which decay must not shrink;
# positions, class tokens and temperatures of ViTs (`augkit.architectures.attention`) are no weights of a map either
# (Touvron et al. 2021 and Liu et al. 2021 spare them too).
SPARED = ("phase", "position", "table", "token", "temperature")


def warm_up() -> None:
    """Import torch's compiler, as a process's first optimizer would do, which takes seconds on a busy CPU.

    Workers call it before their first job, where the import would delay heartbeats and make them look dead.
    """
    torch.optim.SGD([torch.zeros(1)], lr=1.0)


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return the optimizer of ``model``, without weight decay on norms, biases, phases and positions.

    Raises:
        InputError: no parameter of the model requires gradients.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise InputError("model: expected weights that require gradients, got none; model.requires_grad_()")
    decayed = [p for name, p in trained if _has_decay(name, p)]
    spared = [p for name, p in trained if not _has_decay(name, p)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` from the next update on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _has_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] not in SPARED
