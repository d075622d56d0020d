"""Progress of a running search on standard error: finished trials, the state of each worker, the best trials so far."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.jobs.status import WorkerStatus
from augkit.core.progress import Display
from augkit.tune import optuna_study, selection
from augkit.tune.budget import SearchData
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.space import Space

FRONT = 6  # largest number of trials in the live table


class LiveProgress:
    """Prints every trial once, when it has finished, and shows what the workers do.

    Args:
        study: Optuna study of the search.
        terms: terms of the search.
        dataset: data of the search.
        display: what shows it.
    """

    def __init__(self, study: optuna.Study, terms: SearchTerms, dataset: SearchData, display: Display) -> None:
        self.study, self.terms, self.display = study, terms, display
        self.space, self.images = terms.open_space(), len(dataset.validation)
        self.seen = {trial.number for trial in optuna_study.ended(study)}
        self.controls: set[str] = set()
        self.worked = 0.0

    def stage(self, text: str) -> None:
        """Print the trials that have finished since, then show the current job of this process."""
        self.trials()
        self.display.stage(text)

    def on_status(self, statuses: list[WorkerStatus]) -> None:
        """Print the trials that have finished since, then show the state of all workers."""
        self.trials()
        working = sum(status.work for status in statuses)
        if working > self.worked:
            self.display.advance(working - self.worked)
        self.worked = working
        self.display.panel([*(status.describe() for status in statuses), *self.front()])

    def trials(self) -> None:
        """Print one line for each control and trial that has finished since the last call."""
        attrs, keys = self.study.user_attrs, {optuna_study.control_key(a) for a in self.space.architectures()}
        for key in keys - self.controls:
            if key in attrs:
                self.controls.add(key)
                self.display.line(
                    f"{key.removesuffix(' {}')}   accuracy {100 * attrs[key]['accuracy']:5.1f} %"
                    f"  shift information {100 * attrs[key]['shift_information']['typical']:.1f} % (not augmented)"
                )
        for trial in optuna_study.ended(self.study):
            if trial.number in self.seen:
                continue
            self.seen.add(trial.number)
            self.display.line(f"trial {trial.number:3d} {in_words(trial, self.space, self.terms.rungs)}")
        if not keys <= attrs.keys():
            return
        if best_trials := selection.best_trials(self.study, self.space, self.terms.goal, self.images, 1):
            best = best_trials[0].user_attrs
            self.display.best(
                f"best {100 * best['accuracy']:.1f} %, invariance {100 * best['learned_invariance']:.0f} %"
            )

    def front(self) -> list[str]:
        """The best trials so far on the highest rung: the Pareto front, or with a single objective the best value."""
        goal, rungs, found = self.terms.goal, self.terms.rungs, selection.levels(self.study)
        best = selection.front(found[0][1]) if found else []
        if not goal.prunes:
            best.sort(key=lambda trial: -trial.user_attrs["learned_invariance"])
        return [f"trial {t.number:3d} {in_words(t, self.space, rungs)}" for t in best[:FRONT]]


def in_words(trial: FrozenTrial, space: Space, rungs: Sequence[int] = ()) -> str:
    """Scores of a finished trial with its policy and other values, as one line; with rungs, its epoch first."""
    attrs = trial.user_attrs
    recipe = space.with_values(attrs["values"])
    others = ", ".join(f"{key} {value}" for key, value in attrs["values"].items() if not key.startswith("policy."))
    words = f"{recipe.policy}{'; ' + others if others else ''}"
    if trial.state == TrialState.PRUNED:
        return f"pruned after {attrs.get('epochs', 0)} epochs  {words}"
    third = f"  atypical {100 * attrs['atypical_invariance']:5.1f} %" if "atypical_invariance" in attrs else ""
    marks = "" if selection.feasible(trial) else "  (below a bound)"
    same = f"  (as trial {attrs['same_as']})" if "same_as" in attrs else ""
    after = f"after epoch {rungs[optuna_study.rung_of(trial)]}  " if rungs else ""
    return (
        f"{after}accuracy {100 * attrs['accuracy']:5.1f} %"
        f"  learned invariance {100 * attrs['learned_invariance']:5.1f} %{third}  {words}{marks}{same}"
    )
