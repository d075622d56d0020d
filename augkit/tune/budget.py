"""Cost of measuring and of trials, in epochs of training."""

from __future__ import annotations

from typing import Protocol

from augkit.data import Images
from augkit.train.recipe import Recipe
from augkit.tune.optuna_study import SearchTerms

FEW = 256  # validation images on which a trial is measured below the top rung


class SearchData(Protocol):
    """The part of `augkit.data.Dataset` that a search itself needs."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def validation(self) -> Images:
        """Images on which trials are measured."""

    @property
    def listed_train(self) -> Images:
        """Training images, for their number."""


def measuring_cost(recipe: Recipe, images: float, trained_on: int, lengths: int = 0) -> float:
    """Cost of measuring, in epochs of training; estimated by counting forward passes."""
    return images * (1 + 2 * recipe.invariance.pairs + lengths) / (1.5 * trained_on)


def trial_cost(terms: SearchTerms, recipe: Recipe, dataset: SearchData) -> float:
    """Cost of a trial, in epochs of training; with rungs, that of a configuration on average."""
    sets, trained_on, images = 4 if terms.goal.atypical else 1, len(dataset.listed_train), len(dataset.validation)
    cheap = sets * measuring_cost(one_pair(recipe), min(FEW, images), trained_on)
    total, before, share = 0.0, 0, 1.0
    for epochs in terms.rungs[:-1]:
        total += share * (epochs - before + cheap)
        before, share = epochs, share / terms.factor
    return total + share * (terms.epochs - before + sets * measuring_cost(recipe, images, trained_on))


def one_pair(recipe: Recipe) -> Recipe:
    """The recipe, measured with a single pair of views of each image."""
    return recipe.replaced(invariance={**recipe.invariance.model_dump(), "pairs": 1})
