"""Distributions over a range, each as a monotone map of uniform draws, so that strength scales every draw alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.core.errors import unknown_name

DEVIATIONS = 2.0  # standard deviations at which a normal distribution is cut, the end of its range


def check_distribution(name: str, known: tuple[str, ...]) -> str:
    """``name``; raises InputError, with the nearest name, where it is not among ``known``."""
    if name not in known:
        raise unknown_name("distribution", name, known)
    return name


def centered(draws: Tensor, distribution: str) -> Tensor:
    """Draws in [0, 1) to values in [-1, 1]: ``uniform``, or ``normal`` of deviation 1/2, cut at the ends."""
    values = 2 * draws - 1
    if distribution == "uniform":
        return values
    share = math.erf(DEVIATIONS / math.sqrt(2))
    return (torch.erfinv(values * share) * (math.sqrt(2) / DEVIATIONS)).clamp(-1, 1)
