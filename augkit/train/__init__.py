"""Training of a run from a recipe and a seed, by `fit` or the command `python -m augkit.train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.train.augmix import augmix_loss as augmix_loss
    from augkit.train.augmix import three_views as three_views
    from augkit.train.loop import fit as fit
    from augkit.train.recipe import Recipe as Recipe
    from augkit.train.report import write_report as write_report

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Recipe": "recipe",
        "augmix_loss": "augmix",
        "fit": "loop",
        "three_views": "augmix",
        "write_report": "report",
    },
)
