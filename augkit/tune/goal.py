"""The goal of a search: its objectives, and the bound if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from augkit.core.schema import Data


class Goal(Data):
    """The objectives of a search and, with a single objective, the bound on the other quantity.

    ``pareto``: maximize accuracy and learned invariance and, with ``atypical``, learned invariance on atypical images.
    ``accuracy``: maximize accuracy among trials whose learned invariance is at least ``at_least``; trials are pruned.
    ``invariance``: maximize learned invariance among trials whose accuracy is at least ``at_least``; trials are pruned.
    """

    mode: Literal["pareto", "accuracy", "invariance"] = Field("pareto", description="which objectives to maximize")
    at_least: float | None = Field(None, description="lower bound on the other quantity, with a single objective")
    atypical: bool = Field(False, description="pareto only: learned invariance on atypical images is a third objective")

    @model_validator(mode="after")
    def _check(self) -> Goal:
        if (self.mode == "pareto") == (self.at_least is not None) or (self.atypical and self.mode != "pareto"):
            raise ValueError(
                "pareto, or accuracy or invariance with a bound on the other; a third one with pareto only"
            )
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives, all of which are maximized."""
        if self.mode == "pareto":
            third = ("atypical_invariance",) if self.atypical else ()
            return ("accuracy", "learned_invariance", *third)
        return ("accuracy",) if self.mode == "accuracy" else ("learned_invariance",)

    @property
    def prunes(self) -> bool:
        """Whether bad trials are pruned; Optuna prunes only with a single objective."""
        return self.mode != "pareto"

    def shortfall(self, found: Mapping[str, Any]) -> float:
        """Bound minus the trial's value; 0 or less where the trial meets the bound."""
        if self.at_least is None:
            return 0.0
        return float(self.at_least - found["learned_invariance" if self.mode == "accuracy" else "accuracy"])

    def along(self, row: Mapping[str, Any], reference: Callable[[], Mapping[str, Any]]) -> float | None:
        """The objective after an epoch, by which a trial is pruned; None if it was not measured.

        Args:
            row: row of the training history.
            reference: returns the scores of the control, which only learned invariance needs.
        """
        if self.mode == "accuracy":
            return row.get("validation_accuracy")
        moved = row.get("shift_information")
        if moved is None:
            return None
        return 1 - (1.0 if moved["value"] is None else moved["value"]) / reference()["shift_information"]["typical"]
