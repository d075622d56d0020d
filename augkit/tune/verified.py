"""The verified front: what the search showed of the retrained trials, and where their retrained networks landed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from augkit.core.records import Record
from augkit.invariance import Estimate
from augkit.tune.selection import FinalistRow

if TYPE_CHECKING:  # results hold a verified front
    from augkit.tune.results import SearchTrial

EQUAL = 0.0005  # difference, as a share, that is written as 0.0 points


@dataclass(frozen=True)
class VerifiedPoint(Record):
    """A trial that was retrained at full length with fresh seeds; everything is measured on the validation split.

    Attributes:
        number: number of its trial.
        searched_accuracy: accuracy in the search, in [0, 1].
        searched_learned_invariance: learned invariance in the search, at most 1.
        accuracy: mean over the fresh seeds, in [0, 1].
        learned_invariance: learned invariance of the retrained networks against the retrained control.
        front: whether no other retrained trial is better in both means, or in one and equal in the other.
        chosen: whether it is the winner.
    """

    number: int
    searched_accuracy: float
    searched_learned_invariance: float
    accuracy: Estimate
    learned_invariance: Estimate
    front: bool
    chosen: bool


@dataclass(frozen=True)
class VerifiedFront(Record):
    """The retrained trials of a search.

    Attributes:
        points: one per retrained trial, the most accurate first.
        accuracy_shift: mean of retrained minus searched accuracy.
        learned_invariance_shift: the same for learned invariance, where it is defined; None if it is nowhere.
        sentence: how optimistic the search was, in one sentence.
    """

    points: list[VerifiedPoint]
    accuracy_shift: float
    learned_invariance_shift: float | None
    sentence: str


def verified_front(
    finalists: Sequence[FinalistRow],
    trials: Sequence[SearchTrial],
    *,
    trial_epochs: int,
    epochs: int,
    seeds: int,
    fork: bool = False,
) -> VerifiedFront:
    """Compare the retrained trials with their results in the search.

    Args:
        finalists: measurements of the finalists; controls are left out.
        trials: trials of the search.
        trial_epochs: most epochs of a trial.
        epochs: epochs of a retrained network.
        seeds: retrained networks of each trial.
        fork: whether the trials started from the weights of the control.
    """
    searched = {trial.number: trial for trial in trials}
    rows = [(searched[row.number], row, row.learned_invariance) for row in finalists if row.number is not None]
    means = [(row.accuracy.value, learned.value) for _, row, learned in rows if learned is not None]
    points = []
    for trial, row, learned in rows:
        assert learned is not None  # of all that are no controls
        mean, before = (row.accuracy.value, learned.value), (trial.accuracy or 0.0, trial.learned_invariance or 0.0)
        front = learned.defined and not any(_dominates(other, mean) for other in means)
        points.append(VerifiedPoint(trial.number, *before, row.accuracy, learned, front, row.chosen))
    points.sort(key=lambda point: -point.accuracy.value)
    defined = [point for point in points if point.learned_invariance.defined]
    accuracy = _mean([point.accuracy.value - point.searched_accuracy for point in points])
    learned_shift = (
        _mean([point.learned_invariance.value - point.searched_learned_invariance for point in defined])
        if defined
        else None
    )
    start = " from the control" if fork else ""
    least = f"{trial_epochs} epoch{'s' * (trial_epochs != 1)}{start}, one seed"
    now = f"{epochs} epoch{'s' * (epochs != 1)}, {seeds} fresh seed{'s' * (seeds != 1)}"
    shown = "not defined" if learned_shift is None else _against(learned_shift)
    sentence = (
        f"Against the retrained networks ({now}), the search (at most {least}) showed accuracy {_against(accuracy)} and"
        f" learned invariance {shown}, on average over {_counted(len(points))}."
    )
    return VerifiedFront(points, accuracy, learned_shift, sentence)


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a point is at least as good in both and not the same; one that is undefined dominates none."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _against(shift: float) -> str:
    """What the search showed, by the shift from there to the retrained networks."""
    if abs(shift) < EQUAL:
        return "as it is"
    return f"{100 * abs(shift):.1f} points too {'high' if shift < 0 else 'low'}"


def _counted(trials: int) -> str:
    return "one retrained trial" if trials == 1 else f"{trials} retrained trials"
