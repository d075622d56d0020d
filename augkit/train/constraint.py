"""Training under a constraint on invariance, in place of a search of augmentation strengths.

The loss of the images is minimized subject to a bound on the shift information of the answers: ``1 - target`` of that
of a control, a network trained without augmentation. A dual variable, the weight of a penalty in the loss, grows while
the bound is violated on validation images and shrinks, down to 0, while it is met (Hounie et al. 2023, "Automatic data
augmentation via invariance-constrained learning", https://arxiv.org/abs/2209.15031). The penalty is the Jensen-Shannon
divergence between the answers to an image and to the same image shifted, because shift information has no useful
gradient; a constraint and its penalty may be two different functions (Cotter et al. 2019,
https://arxiv.org/abs/1809.04198). Unlike Hounie et al., shifts are drawn uniformly, not by a Markov chain.

A bound is met or exceeded, not hit: a small penalty often removes more than was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.architectures.outputs import check_logits, classification_loss, logits_in
from augkit.augment.base import draw
from augkit.augment.compose import Augment
from augkit.augment.op_strengths import Strength, completed, of_op
from augkit.augment.policy import Policy
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError
from augkit.data import Images, sample
from augkit.invariance import Estimate
from augkit.train.augmix import js_divergence
from augkit.train.checkpoint import FILE, other_recipe
from augkit.train.evaluate import measure_model
from augkit.train.history import EpochRow
from augkit.train.recipe import Recipe

SHIFT = "shift"
VIEWS = 2


def check_constraint(recipe: Recipe, held_out: Any) -> None:
    """Raise InputError where a recipe with a constraint cannot be trained on these validation images."""
    if recipe.constraint is None:
        return
    if not isinstance(held_out, Images):
        raise InputError("constraint: expected validation images of a dataset, got a loader; leave the constraint out")
    check_beside_constraint(recipe)


def check_beside_constraint(recipe: Recipe) -> None:
    """Raise InputError where fields of a recipe with a constraint do not go with it, whatever its data."""
    if recipe.constraint is None:
        return
    for name in (SHIFT, "augmix"):
        if name in recipe.policy.augment().op_names:
            raise InputError(f"constraint: expected no policy.{name}, because it draws views itself; set it to null")
    if recipe.policy.draws == "even":
        raise InputError("constraint: expected policy.draws: random beside it, got even")
    if recipe.train.mixup or recipe.train.cutmix:
        raise InputError("constraint: expected no train.mixup or train.cutmix beside it; set them to 0")
    if recipe.train.patience:
        raise InputError(
            "constraint: expected no train.patience beside it, which keeps the most accurate weights, whether they meet"
            " it or not; set it to null"
        )


def policy_with_shift(recipe: Recipe) -> Policy:
    """The recipe's policy with shifts as far as invariance is measured, from which both views are drawn."""
    shift = {"max_pixels": recipe.invariance.max_shift}
    return Policy.model_validate({**recipe.policy.model_dump(exclude_none=True), SHIFT: shift})


def two_views(
    augment: Augment, images: Tensor | Ragged, generator: torch.Generator, strength: Strength | None = None
) -> Tensor:
    """Return ``(2 B, C, H, W)``: each image without shift and with one, side by side, with the same draws otherwise.

    Arguments are those of `augkit.Augment`; ``augment`` has the op ``shift``.
    """
    draws = draw(len(images), augment.draws, generator.device, generator)
    state, own = generator.get_state(), augment.strength if strength is None else strength
    own = completed(own, augment.op_names, augment.strength)
    whole = {op: of_op(own, op) for op in augment.op_names}
    seen = []
    for share in (0.0, 1.0):
        generator.set_state(state)  # Kornia's ops draw from it
        seen.append(augment(images, generator=generator, strength={**whole, SHIFT: share}, draws=draws))
    return torch.stack(seen, dim=1).flatten(0, 1)


def constrained_loss(
    output: Any, targets: Tensor, dual: float, label_smoothing: float = 0.0, *, classes: int | None = None
) -> Tensor:
    """Return the cross entropy of the images plus ``dual`` times the divergence between their answers under shift.

    Args:
        output: logits ``(2 B, K)`` of `two_views`, or an output with them (`augkit.architectures.outputs`).
        targets: classes ``(B,)``.
        dual: the dual variable, at least 0.
        label_smoothing: of the cross entropy.
        classes: number of classes of the network in evaluation.

    Raises:
        InputError: not two rows of logits for each target.
    """
    logits = logits_in(output)
    check_logits(logits, VIEWS * len(targets), classes=classes)
    clean = classification_loss(logits[::VIEWS], targets, label_smoothing)
    return clean + dual * js_divergence(logits.unflatten(0, (-1, VIEWS)))


def dual_variable(recipe: Recipe, history: Sequence[EpochRow]) -> float:
    """The dual variable after the epochs of a history: 0 at first, then ``rate * (found / bound - 1)`` more per epoch.

    An epoch whose shift information is undefined, because the answers say nothing, changes nothing.

    >>> from augkit.train.recipe import Recipe
    >>> asked = {"learned_invariance": 0.5, "control": 0.25}
    >>> recipe = Recipe(name="x", data={"name": "digits"}, constraint=asked)
    >>> rows = [{"shift_information": {"value": share, "low": 0.0, "high": 1.0}} for share in (0.25, 0.1875)]
    >>> dual_variable(recipe, rows)
    1.5
    """
    settings, dual = recipe.constraint, 0.0
    assert settings is not None
    for row in history:
        found = row["shift_information"]["value"] if "shift_information" in row else None
        if found is not None:
            dual = max(0.0, dual + settings.rate * (found / settings.bound - 1))
    return dual


def shift_information(model: nn.Module, recipe: Recipe, images: Images, device: torch.device) -> Estimate:
    """Shift information on ``invariance.images`` validation images, with one pair of views each."""
    few = recipe.replaced(invariance={**recipe.invariance.model_dump(), "pairs": 1})
    return measure_model(model, few, sample(images, recipe.invariance.images), device=device).shift_information


def with_control(recipe: Recipe, found: Estimate) -> Recipe:
    """The recipe with the shift information of its control.

    Raises:
        InputError: that is undefined or 0, so there is nothing to remove.
    """
    if not found.defined or found.value <= 0:
        raise InputError(
            "constraint: expected a control whose answers depend on the shift, its shift information is"
            f" {'undefined' if not found.defined else '0'}; train longer, or leave the constraint out"
        )
    assert recipe.constraint is not None
    return recipe.replaced(constraint={**recipe.constraint.model_dump(), "control": found.value})


def kept_control(folder: Path, recipe: Recipe) -> Recipe | None:
    """The recipe with the control that an interrupted run of it in ``folder`` trained; None where there is none.

    Raises:
        InputError: the run in the folder has another recipe, which would be refused after a control has been trained.
    """
    assert recipe.constraint is not None
    if not (folder / "recipe.yaml").is_file():
        return None
    kept = Recipe.load(folder / "recipe.yaml")
    if kept.constraint is not None and kept.constraint.control is not None:
        unknown = kept.constraint.model_copy(update={"control": None})
        if kept.model_copy(update={"constraint": unknown}) == recipe:
            return kept
    if (folder / FILE).is_file():
        raise other_recipe(folder)
    return None


def outcome(recipe: Recipe, history: Sequence[EpochRow]) -> str | None:
    """What a constraint asked for and what the last epoch gave, in one sentence; None without a constraint."""
    if recipe.constraint is None or not history:
        return None
    asked, control = recipe.constraint.learned_invariance, recipe.constraint.control
    found = history[-1].get("shift_information", {"value": None})["value"]
    given = "undefined" if found is None or control is None else f"{100 * (1 - found / control):.0f} %"
    return f"constraint: at least {100 * asked:.0f} % learned invariance asked for, validation images show {given}"
