"""The interface of experiment trackers, and the run data that they get."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from augkit.core.errors import AugkitError, RunError
from augkit.core.files import write
from augkit.train.history import EpochRow, OnEpoch
from augkit.train.portable import portable_recipe
from augkit.train.recipe import Recipe, flat

PROJECT = "augkit"  # project or experiment, unless a variable of the tracker names another
KEPT = "trackers.json"  # in a run's folder: the names under which trackers know it, for --resume


@runtime_checkable
class Tracker(Protocol):
    """What records a run. One object records one run; only the first process of several has trackers."""

    def start(self, recipe: Recipe, output: Path | None) -> None:
        """Begin to record a run, or go on where its folder says that it was recorded before.

        Args:
            recipe: the resolved recipe.
            output: folder of the run; None if it has none.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of an epoch by their names; ``step`` is the epoch, from 1."""

    def close(self) -> None:
        """End the record; called once, also after an error."""


class Tracking:
    """A context in which trackers record one run; calling it with a row of the history records the row."""

    def __init__(self, trackers: Sequence[Tracker], recipe: Recipe, output: Path | None) -> None:
        self.trackers, self.recipe, self.output = list(trackers), recipe, output
        self._started: list[Tracker] = []

    def __enter__(self) -> OnEpoch:
        try:
            for tracker in self.trackers:
                self._started.append(tracker)
                _guarded(tracker, tracker.start, self.recipe, self.output)
        except BaseException:
            self.__exit__()
            raise
        return self._log

    def __exit__(self, *error: object) -> None:
        started, self._started = self._started, []
        with contextlib.ExitStack() as every:  # each is closed, even if another fails to
            for tracker in reversed(started):
                every.callback(_guarded, tracker, tracker.close)

    def _log(self, row: EpochRow) -> None:
        values = numbers(row)
        for tracker in self._started:
            _guarded(tracker, tracker.log, row["epoch"], values)


def _guarded(tracker: Tracker, call: Callable[..., None], *words: object) -> None:
    """Call a tracker; an error of its library becomes one line, and what it prints goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output holds the result of a command alone
            call(*words)
    except AugkitError:
        raise
    except Exception as error:  # each library has its own errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"log: {type(tracker).__name__} failed ({reason}); leave it out of --log to train") from error


def numbers(row: EpochRow) -> dict[str, float]:
    """Return the numbers of an epoch by name; an interval becomes its value, ``NAME_low`` and ``NAME_high``.

    >>> row = {"epoch": 2, "step": 8, "loss": 0.5, "shift_information": {"value": 0.1, "low": None, "high": None}}
    >>> numbers(row)
    {'step': 8.0, 'loss': 0.5, 'shift_information': 0.1}
    """
    found: dict[str, float] = {}
    for name, value in row.items():
        parts = {"": value} if not isinstance(value, Mapping) else {"_low": value["low"], "_high": value["high"]}
        if isinstance(value, Mapping):
            parts = {"": value["value"], **parts}
        found |= {name + end: float(part) for end, part in parts.items() if isinstance(part, int | float)}
    del found["epoch"]
    return found


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Return the fields of a recipe by dotted name, without fields that are null and without absolute paths."""
    return {key: value for key, value in flat(portable_recipe(recipe).model_dump()).items() if value is not None}


def run_name(recipe: Recipe) -> str:
    """Return the name of a run: that of its recipe, and its seed."""
    return f"{recipe.name}-seed{recipe.seed}"


def project(variable: str) -> str:
    """Return the project in which a run is recorded: the value of an environment variable, else `PROJECT`."""
    return os.environ.get(variable) or PROJECT


def kept_name(output: Path | None, tracker: str) -> str | None:
    """Return the name under which a tracker knows the run of a folder; None if it does not."""
    try:
        found: Mapping[str, str] = json.loads(((output or Path()) / KEPT).read_text(encoding="utf-8")) if output else {}
    except (OSError, ValueError):
        return None
    return found.get(tracker)


def keep_name(output: Path | None, tracker: str, name: str) -> None:
    """Keep the name under which a tracker knows the run of a folder; nothing without a folder."""
    if output is None:
        return
    try:
        found: dict[str, str] = json.loads((output / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    write(output / KEPT, json.dumps({**found, tracker: name}, indent=2))
