"""A row of a run's history: the results of one epoch.

It is a typed dict instead of a dataclass, since rows are written to ``metrics.jsonl`` and ``checkpoint.pt`` unchanged,
and callbacks of users receive them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from augkit.invariance import Estimate


class Interval(TypedDict):
    """An `augkit.invariance.Estimate` as JSON; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class EpochRow(TypedDict):
    """Results of one epoch; optional keys exist for epochs with an evaluation or a measurement.

    ``step`` counts updates since the start, ``loss`` is the mean over the epoch, ``lr`` the learning rate at its end,
    ``dual`` the dual variable of a constraint during the epoch.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    seconds: float
    images_per_second: float
    validation_accuracy: NotRequired[float]
    validation_loss: NotRequired[float]
    shift_information: NotRequired[Interval]
    dual: NotRequired[float]


def interval_of(estimate: Estimate) -> Interval:
    """Return an estimate as plain values for JSON."""
    found = estimate.to_dict()
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


# Takes an `EpochRow`. Not declared so: a callback of a user may declare its parameter as a plain dict.
OnEpoch = Callable[[Any], None]
