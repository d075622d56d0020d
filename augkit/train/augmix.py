"""AugMix's loss (Hendrycks et al. 2020, eq. 4, https://arxiv.org/abs/1912.02781) and the views that it needs.

An update sees each image three times: as it is after all ops but AugMix, and in two AugMix views of that. The loss is
the cross entropy of the first plus ``weight`` times the Jensen-Shannon divergence of the three predictions, so that
they agree. `augkit.fit` uses it if ``policy.augmix.js_weight`` of a recipe is above 0; in another loop:

>>> import augkit
>>> augment, images = augkit.Augment(augkit.RandomSubpixelShift(2.0), augkit.AugMix()), torch.rand(4, 3, 16, 16)
>>> seen = three_views(augment, images, torch.Generator().manual_seed(0))
>>> seen.shape
torch.Size([12, 3, 16, 16])
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10))
>>> augmix_loss(model(seen), torch.arange(4), weight=12.0).backward()
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augkit.architectures.outputs import check_logits, classification_loss, logits_in
from augkit.augment.base import draw
from augkit.augment.compose import Augment
from augkit.augment.op_strengths import Strength, completed, of_op
from augkit.augment.ops.aug_mix import AugMix
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError

VIEWS = 3


def augmix_loss(
    output: Any, targets: Tensor, weight: float = 12.0, label_smoothing: float = 0.0, *, classes: int | None = None
) -> Tensor:
    """Return the loss of a network's output for `three_views`.

    Args:
        output: logits ``(3 B, K)``, or an output with them (`augkit.architectures.outputs`); heads beside them take no
            part.
        targets: classes ``(B,)``, or probabilities ``(B, K)``.
        weight: of the divergence; 12 in the paper.
        label_smoothing: of the cross entropy.
        classes: number of classes of the network in evaluation.

    Raises:
        InputError: not three rows of logits for each target.
    """
    logits = logits_in(output)
    check_logits(logits, VIEWS * len(targets), classes=classes)
    clean = classification_loss(logits[::VIEWS], targets, label_smoothing)
    return clean + weight * js_divergence(logits.unflatten(0, (-1, VIEWS)))


def js_divergence(logits: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of V predictions ``(B, V, K)``, as a mean over B, in nats; from 0 to log V.

    It is the mean divergence from the predictions to their mean, in float32 at least.
    """
    logs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    middle = torch.logsumexp(logs, dim=1, keepdim=True) - torch.log(logs.new_tensor(logs.shape[1]))
    return (logs.exp() * (logs - middle)).sum(dim=-1).mean()


def three_views(
    augment: Augment,
    images: Tensor | Ragged,
    generator: torch.Generator,
    strength: Strength | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """Return ``(3 B, C, H, W)``: each image without AugMix and in two views with it, side by side.

    The three share the draws of all other ops. Arguments are those of `augkit.Augment`; ``draws`` ``(B, n)`` are those
    of the first view and of the second.

    Raises:
        InputError: ``augment`` has no `AugMix`.
    """
    name = next((op.policy_name for op in augment.geometry if isinstance(op, AugMix)), None)
    if name is None:
        raise InputError("three_views: expected an Augment with AugMix, got one without; add augkit.AugMix()")
    device = generator.device
    if draws is None:
        draws = draw(len(images), augment.draws, device, generator)
    parts = list(draws.to(device).split([op.draws for op in augment.geometry], dim=1))
    for k, op in enumerate(augment.geometry):
        if isinstance(op, AugMix):
            parts[k] = draw(len(images), op.draws, device, generator)
    state, own = generator.get_state(), augment.strength if strength is None else strength
    own = completed(own, augment.op_names, augment.strength)
    whole = {op: of_op(own, op) for op in augment.op_names}
    seen = []
    for view_draws, view_strength in ((draws, {**whole, name: 0.0}), (draws, whole), (torch.cat(parts, dim=1), whole)):
        generator.set_state(state)  # Kornia's ops draw from it
        seen.append(augment(images, generator=generator, strength=view_strength, draws=view_draws))
    return torch.stack(seen, dim=1).flatten(0, 1)
