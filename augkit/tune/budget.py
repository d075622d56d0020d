"""How much of a trial's time measuring may take."""

from __future__ import annotations

from augkit.train.recipe import Recipe


def measuring_cost(recipe: Recipe, images: int, trained_on: int, lengths: int = 0) -> float:
    """What measuring costs, in epochs of training: a forward pass is about two thirds of a training step."""
    return images * (1 + 2 * recipe.invariance.pairs + lengths) / (1.5 * trained_on)
