"""Cost of measuring in units of training."""

from __future__ import annotations

from augkit.train.recipe import Recipe


def measuring_cost(recipe: Recipe, images: float, trained_on: int, lengths: int = 0) -> float:
    """Cost of measuring, in epochs of training; estimated by counting forward passes."""
    return images * (1 + 2 * recipe.invariance.pairs + lengths) / (1.5 * trained_on)
