"""Studies used with plain Optuna as well: names of metrics, and trials that were run without augkit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from toy import CONTROL, make_terms, open_toy

from augkit.core.errors import InputError
from augkit.core.jobs.storage import open_storage
from augkit.tune import optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.results import search_cost, search_results

GOALS = [Goal(), Goal(mode="accuracy", at_least=0.2), Goal(mode="invariance", at_least=0.5)]


def plain(place: Path) -> optuna.Study:
    """The study, opened by plain Optuna."""
    return optuna.load_study(study_name="s", storage=open_storage(place))


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.mode)
def test_optuna_shows_the_names_of_the_metrics(goal: Goal, tmp_path: Path) -> None:
    open_toy(tmp_path / "j", make_terms(goal=goal), 3).run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = plain(tmp_path / "j")
        assert study.metric_names == list(goal.objectives)
        columns = [name for name in study.trials_dataframe().columns if name.startswith("value")]
    assert columns == [f"values_{name}" for name in goal.objectives] or len(goal.objectives) == 1


def add_finished(study: optuna.Study, goal: Goal) -> None:
    like, values = study.trials[1], [0.999] * len(goal.objectives)
    study.add_trial(optuna.trial.create_trial(params=like.params, distributions=like.distributions, values=values))


def add_pruned(study: optuna.Study, goal: Goal) -> None:
    like = study.trials[1]
    study.add_trial(
        optuna.trial.create_trial(params=like.params, distributions=like.distributions, state=TrialState.PRUNED)
    )


def add_empty(study: optuna.Study, goal: Goal) -> None:
    study.add_trial(optuna.trial.create_trial(values=[0.0] * len(goal.objectives)))


def optimize(study: optuna.Study, goal: Goal) -> None:
    def score(trial: optuna.Trial) -> Any:
        trial.suggest_float("mine", 0, 1)
        return [0.9] * len(goal.objectives)

    study.optimize(score, n_trials=2)  # runs the queued trials first, if there are any


def tell(study: optuna.Study, goal: Goal) -> None:
    study.tell(study.ask(), values=[0.9] * len(goal.objectives))


WAYS = [(GOALS[0], add) for add in (add_finished, add_pruned, add_empty, tell)]


@pytest.mark.parametrize(("goal", "add"), [*WAYS, (GOALS[1], optimize), (GOALS[2], add_finished)])
def test_trials_that_augkit_did_not_run_are_left_out(goal: Goal, add: Any, tmp_path: Path) -> None:
    terms = make_terms(goal=goal)
    open_toy(tmp_path / "j", terms, 3).run()
    before = len(optuna_study.finished(plain(tmp_path / "j")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add(plain(tmp_path / "j"), goal)
    worker = open_toy(tmp_path / "j", terms, 6, join=True)
    study = worker.study
    study.set_user_attr("trials", 6)
    foreign = [trial for trial in study.trials if optuna_study.is_foreign(trial)]
    assert foreign
    assert len(optuna_study.finished(study)) == before
    worker.run()
    done = optuna_study.completed(study)
    assert len(optuna_study.finished(study)) == 6
    assert len(selection.candidates(done, goal, CONTROL["accuracy"], 100, 2)) in (1, 2)  # type: ignore[arg-type]
    rows = search_results(study, terms).trials
    assert not {trial.number for trial in foreign} & {row.number for row in rows}
    assert search_cost(study, terms).trials == 6


def test_an_enqueued_trial_that_plain_optuna_finished_is_left_out(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 4)
    worker.run_one()  # the control
    study = plain(tmp_path / "j")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(lambda trial: (0.5, 0.5), n_trials=1)
    assert "preset" in study.trials[1].user_attrs
    worker.run()
    assert len(optuna_study.completed(worker.study)) == 4


def in_line(study: optuna.Study, key: str) -> None:
    study.enqueue_trial({key: "x"})


def added(study: optuna.Study, key: str) -> None:
    kinds = {key: optuna.distributions.CategoricalDistribution(["x", "y"])}
    study.add_trial(optuna.trial.create_trial(params={key: "x"}, distributions=kinds, values=[0.5, 0.5]))


@pytest.mark.parametrize("add", [in_line, added])
def test_values_that_do_not_fit_their_range_give_a_one_line_error(add: Any, tmp_path: Path) -> None:
    terms = make_terms()
    open_toy(tmp_path / "j", terms, 3).run()
    study = plain(tmp_path / "j")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add(study, next(iter(study.trials[1].params)))
    worker = open_toy(tmp_path / "j", terms, 8, join=True)
    worker.study.set_user_attr("trials", 8)
    with pytest.raises(InputError, match=r"trial \d+: 'policy\..*' has a value that does not fit its range") as caught:
        worker.run()
    assert "\n" not in str(caught.value)
    if add is in_line:  # the enqueued trial has failed, and the others are run
        again = open_toy(tmp_path / "j", terms, 8, join=True)
        again.run()
        assert len(optuna_study.finished(again.study)) == 8
