"""Experiment trackers: what a run tells to W&B, MLflow, Trackio or TensorBoard, epoch by epoch.

A tracker is one class with three methods, see `augkit.train.trackers.base.Tracker`. A new one is a file with such a
class and a row of `TRACKERS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from augkit.core.errors import InputError, unknown_name
from augkit.train.trackers.base import Tracker

# By the name that ``--log`` takes, which is also that of the extra: module below this package, and its class.
TRACKERS = {
    "mlflow": "MlflowTracker",
    "tensorboard": "TensorBoardTracker",
    "trackio": "TrackioTracker",
    "wandb": "WandbTracker",
}


def make_trackers(names: str | Iterable[str | Tracker]) -> list[Tracker]:
    """Return trackers by their names, or by one text of names with commas; others are returned unchanged.

    Raises:
        InputError: a name is unknown, or its library cannot be imported.
    """
    listed = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else list(names)
    once = [one for k, one in enumerate(listed) if one not in listed[:k]]
    return [_tracker(one) if isinstance(one, str) else one for one in once]


def _tracker(name: str) -> Tracker:
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    try:
        made: Tracker = getattr(import_module(f"augkit.train.trackers.{name}"), TRACKERS[name])()
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"log: {name} cannot be imported ({reason}); to install it and what it needs: pip install 'augkit[{name}]'"
        ) from None
    return made
