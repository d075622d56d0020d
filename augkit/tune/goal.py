"""What a search is for: the objective, its constraints, and what it compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from augkit.core.schema import Data


class Goal(Data):
    """What a search is for.

    ``pareto``: accuracy and learned invariance, with ``atypical`` learned invariance on atypical images as a third.
    ``accuracy``: the best accuracy among trials with ``at_least`` this learned invariance, with pruning.
    ``invariance``: the other way round.
    """

    mode: Literal["pareto", "accuracy", "invariance"] = Field("pareto", description="objective, or objectives")
    at_least: float | None = Field(None, description="bound on the other one, where there is one objective")
    atypical: bool = Field(False, description="of pareto: learned invariance on atypical images as a third objective")

    @model_validator(mode="after")
    def _check(self) -> Goal:
        if (self.mode == "pareto") == (self.at_least is not None) or (self.atypical and self.mode != "pareto"):
            raise ValueError(
                "pareto, or accuracy or invariance with a bound on the other; a third one with pareto only"
            )
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of what is maximised."""
        if self.mode == "pareto":
            third = ("atypical_invariance",) if self.atypical else ()
            return ("accuracy", "learned_invariance", *third)
        return ("accuracy",) if self.mode == "accuracy" else ("learned_invariance",)

    @property
    def prunes(self) -> bool:
        """Whether bad trials are stopped early; Optuna cannot with several objectives."""
        return self.mode != "pareto"

    def shortfall(self, found: Mapping[str, Any]) -> float:
        """How far a trial stays below the bound; 0 or less where it does not."""
        if self.at_least is None:
            return 0.0
        return float(self.at_least - found["learned_invariance" if self.mode == "accuracy" else "accuracy"])
