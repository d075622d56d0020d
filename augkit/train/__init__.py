"""Training of a run from a recipe and a seed, by `fit` or the command `python -m augkit.train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.train.augmix import augmix_loss as augmix_loss
    from augkit.train.augmix import three_views as three_views
    from augkit.train.card import write_card as write_card
    from augkit.train.export import export_run as export_run
    from augkit.train.hub import push_to_hub as push_to_hub
    from augkit.train.loaded_run import load_run as load_run
    from augkit.train.loop import fit as fit
    from augkit.train.recipe import Recipe as Recipe
    from augkit.train.report import write_report as write_report
    from augkit.train.together import fit_together as fit_together

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Recipe": "recipe",
        "augmix_loss": "augmix",
        "export_run": "export",
        "fit": "loop",
        "fit_together": "together",
        "load_run": "loaded_run",
        "push_to_hub": "hub",
        "three_views": "augmix",
        "write_card": "card",
        "write_report": "report",
    },
)
