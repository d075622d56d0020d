"""A sampler that learns from one rung only, because results after few and after many epochs cannot be mixed."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from augkit.tune import halving
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import CONFIGURATION, RUNG, ControlScores, SearchTerms, rung_of
from augkit.tune.space import Value

ENOUGH = 6  # configurations on a rung from which the sampler learns; as many as it draws at random first


class RungSampler(BaseSampler):
    """Shows a sampler the results of the highest rung that enough configurations have completed.

    Falkner et al. 2018 (https://arxiv.org/abs/1807.01774) choose the budget of their model in the same way.

    Args:
        sampler: the sampler that proposes values.
        terms: terms of the search.
    """

    def __init__(self, sampler: BaseSampler, terms: SearchTerms) -> None:
        self.sampler, self.terms = sampler, terms
        self._view: tuple[int, optuna.Study, FrozenTrial] | None = None  # of the trial with this number

    def reseed_rng(self) -> None:
        """Reseed the wrapped sampler."""
        self.sampler.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The search space of the wrapped sampler; empty for a promotion, whose values are fixed."""
        return {} if rung_of(trial) else self.sampler.infer_relative_search_space(*self._shown(study, trial))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Value]:
        """Let the wrapped sampler propose values of several fields at once."""
        if not search_space:
            return {}
        return self.sampler.sample_relative(*self._shown(study, trial), search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Let the wrapped sampler propose the value of one field."""
        return self.sampler.sample_independent(*self._shown(study, trial), param_name, param_distribution)

    def _shown(self, study: optuna.Study, trial: FrozenTrial) -> tuple[optuna.Study, FrozenTrial]:
        """The study that the wrapped sampler sees, and the trial in it; one view serves all fields of a trial."""
        if self._view is None or self._view[0] != trial.number:
            view = one_rung(study, self.terms)
            for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if other.number != trial.number and not rung_of(other) and "control" not in other.user_attrs:
                    view.add_trial(
                        create_trial(state=TrialState.RUNNING, params=other.params, distributions=other.distributions)
                    )
            view.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=trial.system_attrs))
            self._view = trial.number, view, view.get_trials(deepcopy=False)[-1]
        return self._view[1:]


def one_rung(study: optuna.Study, terms: SearchTerms) -> optuna.Study:
    """A study in memory with the results on the highest rung that `ENOUGH` configurations completed, else the lowest.

    Each configuration is one trial in it, as in a study without rungs. Controls have their scores on the same rung.
    """
    trials, chosen = study.get_trials(deepcopy=False), 0
    for rung in range(len(terms.rungs)):
        if len(halving.outcomes(trials, rung)) >= ENOUGH:
            chosen = rung
    view = optuna.create_study(directions=study.directions)
    controls = [t for t in trials if "control" in t.user_attrs and t.state == TrialState.COMPLETE]
    for trial in controls:
        found: ControlScores = study.user_attrs[trial.user_attrs["control"]]
        view.add_trial(_copy(trial, _control_values(halving.scores_on(found, chosen), terms.goal)))
    for trial in halving.outcomes(trials, chosen).values():
        view.add_trial(_copy(trial, trial.values))
    return view


def _control_values(found: ControlScores, goal: Goal) -> list[float]:
    return [found["accuracy"] if name == "accuracy" else 0.0 for name in goal.objectives]


def _copy(trial: FrozenTrial, values: list[float]) -> FrozenTrial:
    return create_trial(
        values=values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key not in (RUNG, CONFIGURATION)},
        system_attrs=trial.system_attrs,  # with the constraints
    )
