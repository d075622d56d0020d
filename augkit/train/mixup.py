"""Mixup and cutmix with parameters per sample.

Mixup (Zhang et al. 2018, eq. 1) is ``lam * x_i + (1 - lam) * x_j`` of images and of targets; cutmix (Yun et al. 2019,
eq. 1 and 2) pastes a window of ``1 - lam`` of the area of image j, centered anywhere and cut at the border, and mixes
targets by the remaining area. lam is drawn from Beta(alpha, alpha). Deviations: both papers draw one lam per batch;
here every sample has its own, and if both methods are on, each sample uses one of them with probability 1/2. The
partner j is the sample before i, which is as random as a permutation in a batch of random order.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw(mixup: float, cutmix: float, shape: tuple[int, int, int], seed: list[int]) -> tuple[Tensor, Tensor]:
    """Draw for images ``(B, H, W)`` the kept share ``(B,)`` and the window ``(B, 4)``: left, top, right, bottom.

    Numbers are drawn on the CPU, so that a seed gives the same draws on all devices. A sample with an empty window (0,
    0, 0, 0) is blended; for others the share is the area outside of the window.
    """
    batch, height, width = shape
    rng = np.random.default_rng(seed)
    use_cutmix = rng.random(batch) < (0.5 if mixup and cutmix else float(bool(cutmix)))
    alpha = np.where(use_cutmix, cutmix, mixup)
    kept = rng.beta(alpha, alpha)
    half = 0.5 * np.sqrt(1 - kept)[:, None] * [width, height]
    center = rng.random((batch, 2)) * [width, height]
    low = np.clip(np.rint(center - half), 0, [width, height])
    high = np.clip(np.rint(center + half), 0, [width, height])
    left_over = 1 - (high - low).prod(1) / (height * width)
    window = np.concatenate([low, high], axis=1) * use_cutmix[:, None]
    share = np.where(use_cutmix, left_over, kept)
    return torch.from_numpy(share.astype(np.float32)), torch.from_numpy(window.astype(np.int64))


def mix(images: Tensor, targets: Tensor, share: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Mix floating ``images`` ``(B, C, H, W)`` and ``targets`` ``(B, K)`` with those of the sample before.

    >>> x, y = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.eye(2)
    >>> mix(x, y, torch.tensor([0.75, 0.5]), torch.zeros(2, 4, dtype=torch.int64))[0].flatten().tolist()
    [0.25, 0.5]
    """
    share, window = share.to(images.device), window.to(images.device)
    left, top, right, bottom = (edge[:, None, None] for edge in window.unbind(1))
    height, width = images.shape[-2:]
    y, x = torch.arange(height, device=images.device)[:, None], torch.arange(width, device=images.device)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    pasted = (window[:, 2] > 0)[:, None, None]
    weight = torch.where(pasted, (~inside).to(images.dtype), share.to(images.dtype)[:, None, None])[:, None]
    target_weight = share.to(targets.dtype)[:, None]
    return (
        torch.lerp(images.roll(1, 0), images, weight),
        torch.lerp(targets.roll(1, 0), targets, target_weight),
    )


def mix_batch(
    images: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, seed: list[int]
) -> tuple[Tensor, Tensor]:
    """Draw, and return mixed images ``(B, C, H, W)`` and targets ``(B, classes)``.

    Labels are classes ``(B,)``, or probabilities ``(B, classes)``.
    """
    targets = (F.one_hot(labels, classes) if labels.ndim == 1 else labels).to(images.dtype)
    shape = (len(images), images.shape[-2], images.shape[-1])
    return mix(images, targets, *draw(mixup, cutmix, shape, seed))
