"""Pareto halving in a study: every configuration once on each of its rungs, whatever happens to workers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from toy import RungToy, make_terms, open_toy

from augkit.core.errors import InputError, RunError
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.retry import RETRY_OF, requeue
from augkit.train.recipe import Recipe
from augkit.tune import halving, optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms, rung_of
from augkit.tune.results import search_cost, search_results
from augkit.tune.rung_report import LEAST, rank_correlation, rung_words
from augkit.tune.rung_sampler import one_rung
from augkit.tune.tables import print_trials

RUNGS = (1, 2, 4)


def terms_of(**fields: Any) -> SearchTerms:
    return make_terms(rungs=RUNGS, **fields)


def open_rungs(place: Path, trials: int, *, join: bool = False, index: int = 0, **fields: Any) -> RungToy:
    kind = fields.pop("kind", RungToy)
    found = open_toy(place, terms_of(**fields), trials, join=join, index=index, kind=kind)
    assert isinstance(found, RungToy)
    return found


def reached(study: optuna.Study) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [len(halving.outcomes(trials, rung)) for rung in range(len(RUNGS))]


def check_whole(study: optuna.Study, wanted: int) -> None:
    """Exactly the wanted configurations, none twice on a rung, none on a rung that it did not climb to, none open."""
    assert len(optuna_study.finished(study)) == wanted
    done = [t for t in optuna_study.completed(study) if "same_as" not in t.user_attrs]
    places = Counter((halving.configuration_of(trial), rung_of(trial)) for trial in done)
    assert set(places.values()) == {1}
    assert all((number, rung - 1) in places for number, rung in places if rung)
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    counts = reached(study)
    for rung in range(len(RUNGS) - 1):
        assert counts[rung + 1] >= max(1, counts[rung] // 3)
    values = {}
    for trial in done:
        values.setdefault(halving.configuration_of(trial), trial.user_attrs["values"])
        assert trial.user_attrs["values"] == values[halving.configuration_of(trial)]


@pytest.mark.integration
@pytest.mark.parametrize(
    "goal", [Goal(), Goal(mode="accuracy", at_least=0.1), Goal(mode="invariance", at_least=0.5), Goal(atypical=True)]
)
def test_the_best_part_of_each_rung_goes_on(tmp_path: Path, goal: Goal) -> None:
    worker = open_rungs(tmp_path / "j", 12, goal=goal, kind=Third if goal.atypical else RungToy)
    worker.run()
    check_whole(worker.study, 12)
    first, second, top = reached(worker.study)
    assert (first, top >= 1, 4 <= second <= 8) == (12, True, True)
    assert len(worker.ran) == first + second + top
    assert not [trial for trial in worker.study.trials if trial.state == TrialState.PRUNED], "rungs replace pruning"
    trials = worker.study.get_trials()
    here = halving.outcomes(trials, 0)
    best = max(here.values(), key=lambda trial: (selection.feasible(trial), trial.values[0]))
    if len(goal.objectives) == 1:
        assert halving.configuration_of(best) in halving.outcomes(trials, 2), "the order of the toy is that of the top"
    cost = search_cost(worker.study, worker.terms)
    assert (cost.trials, cost.failed) == (12, 0)
    assert cost.epochs_run == first + second + 2 * top
    assert cost.epochs_saved == 12 * 4 - cost.epochs_run


class Third(RungToy):
    """With the third objective."""

    def score(self, trial: optuna.Trial, recipe: Recipe, reference: Mapping[str, Any]) -> tuple[None, dict[str, Any]]:
        _, found = super().score(trial, recipe, reference)
        return None, {**found, "atypical_invariance": found["learned_invariance"] / 2}


def test_one_configuration_climbs_to_the_top_even_of_two(tmp_path: Path) -> None:
    worker = open_rungs(tmp_path / "j", 2)
    worker.run()
    assert reached(worker.study) == [2, 1, 1]
    more = open_rungs(tmp_path / "j", 2, join=True)
    assert more.is_done()
    more.study.set_user_attr("trials", 9)
    more.run()
    check_whole(more.study, 9)


@pytest.mark.integration
def test_four_workers_at_once_climb_each_rung_once(tmp_path: Path) -> None:
    workers = [open_rungs(tmp_path / "j", 16, join=k > 0, index=k) for k in range(4)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = workers[0].study
    check_whole(study, 16)
    ran = Counter(place for worker in workers for place in worker.ran)
    assert set(ran.values()) == {1}
    assert optuna_study.lost(study) == []


def until_promotion(place: Path, trials: int = 6, **fields: Any) -> tuple[RungToy, optuna.trial.FrozenTrial]:
    """A worker whose study has just queued its first promotion, and that promotion."""
    worker = open_rungs(place, trials, **fields)
    while True:
        assert worker.has_job()
        waiting = worker.study.get_trials(states=(TrialState.WAITING,))
        if rung_of(waiting[0] if waiting else worker.study.trials[0]):
            return worker, waiting[0]
        worker.run_one()


def test_of_two_equal_promotions_the_first_runs_also_after_retries(tmp_path: Path) -> None:
    worker, promotion = until_promotion(tmp_path / "j")
    study, lower = worker.study, promotion.user_attrs["configuration"]
    halving.promote(study, halving.outcomes(study.trials, 0)[lower])  # by another worker at the same moment
    first, second = study.ask(), study.ask()
    assert (rung_of(first), rung_of(second)) == (1, 1)
    assert [halving.is_wanted(study, trial) for trial in (first, second)] == [True, False]
    assert requeue(study, second.number, 1)  # both workers die
    assert requeue(study, first.number, 1)
    retries = [study.ask(), study.ask()]
    assert [trial.user_attrs[RETRY_OF] for trial in retries] == [second.number, first.number]
    assert [halving.is_wanted(study, trial) for trial in retries] == [False, True]
    for trial in retries:
        requeue(study, trial.number, None)
    worker.run()
    check_whole(study, 6)
    assert optuna_study.lost(study) == []


def test_a_promotion_whose_worker_died_keeps_its_rung_and_its_configuration(tmp_path: Path) -> None:
    worker, promotion = until_promotion(tmp_path / "j")
    taken = worker.study.ask()
    taken.set_user_attr("worker", "another-host:1:0")
    assert recover(worker.study, 1, alone=True) == (1, 0)
    (again,) = worker.study.get_trials(states=(TrialState.WAITING,))
    kept = ("rung", "configuration", "values")
    assert [again.user_attrs[key] for key in kept] == [promotion.user_attrs[key] for key in kept]
    worker.run()
    check_whole(worker.study, 6)
    assert worker.study.trials[again.number].state == TrialState.COMPLETE


def test_a_trial_that_dies_on_the_lowest_rung_is_retried_as_the_same_configuration(tmp_path: Path) -> None:
    class Dying(RungToy):
        def score(self, trial: optuna.Trial, *rest: Any) -> Any:
            if trial.number == 2:
                raise KeyboardInterrupt
            return super().score(trial, *rest)

    first = open_rungs(tmp_path / "j", 6, kind=Dying)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = open_rungs(tmp_path / "j", 6, join=True)
    second.run()
    check_whole(second.study, 6)
    again = next(t for t in second.study.trials if t.user_attrs.get(RETRY_OF) == 2)
    assert again.state == TrialState.COMPLETE
    assert halving.configuration_of(again) == 2, "the folder of its checkpoint is the same"


def test_an_interrupt_on_a_higher_rung_loses_nothing(tmp_path: Path) -> None:
    class Interrupted(RungToy):
        def score(self, trial: optuna.Trial, *rest: Any) -> Any:
            if rung_of(trial) == 2:
                raise KeyboardInterrupt
            return super().score(trial, *rest)

    first = open_rungs(tmp_path / "j", 9, kind=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = open_rungs(tmp_path / "j", 9, join=True)
    second.run()
    check_whole(second.study, 9)
    assert set(Counter([*first.ran, *second.ran]).values()) == {1}
    assert optuna_study.lost(second.study) == []


def test_a_configuration_that_fails_higher_up_gives_its_place_to_the_next(tmp_path: Path) -> None:
    class Failing(RungToy):
        failing: ClassVar[set[int]] = set()

        def score(self, trial: optuna.Trial, *rest: Any) -> Any:
            if rung_of(trial) and len(self.failing | {halving.configuration_of(trial)}) == 1:
                self.failing.add(halving.configuration_of(trial))
                raise RunError("the loss is nan")
            return super().score(trial, *rest)

    worker = open_rungs(tmp_path / "j", 2, kind=Failing)
    worker.run()
    (lost,) = optuna_study.lost(worker.study)
    assert halving.configuration_of(lost) in Failing.failing
    assert reached(worker.study) == [2, 1, 1]
    assert search_cost(worker.study, worker.terms).failed == 1


def test_a_search_with_rungs_and_one_without_refuse_each_other_and_lose_nothing(tmp_path: Path) -> None:
    worker = open_rungs(tmp_path / "a", 3)
    worker.run()
    before = len(worker.study.trials)
    with pytest.raises(InputError, match=r"rungs was 1,2,4, is none$"):
        open_toy(tmp_path / "a", make_terms(), 3, join=True)
    with pytest.raises(InputError, match=r"rungs was 1,2,4, is 1,4$"):
        open_toy(tmp_path / "a", make_terms(rungs=(1, 4)), 3, join=True, kind=RungToy)
    with pytest.raises(InputError, match=r"factor was 3, is 2$"):
        open_rungs(tmp_path / "a", 3, join=True, factor=2)
    assert len(open_rungs(tmp_path / "a", 3, join=True).study.trials) == before
    open_toy(tmp_path / "b", make_terms(), 3).run()
    with pytest.raises(InputError, match=r"rungs was none, is 1,2,4$"):
        open_rungs(tmp_path / "b", 3, join=True)
    assert open_toy(tmp_path / "b", make_terms(), 3, join=True).is_done()


@pytest.mark.integration
@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random"])
def test_a_sampler_learns_from_one_rung(tmp_path: Path, sampler: str) -> None:
    worker = open_rungs(tmp_path / "j", 14, sampler=sampler, seed=2)
    worker.run()
    check_whole(worker.study, 14)
    values = [trial.user_attrs["values"] for trial in optuna_study.finished(worker.study)]
    assert len({str(value) for value in values}) == 14
    view, trials = one_rung(worker.study, worker.terms), worker.study.get_trials()
    highest = max(rung for rung in range(3) if len(halving.outcomes(trials, rung)) >= 6)
    seen = [trial for trial in view.trials if "control" not in trial.user_attrs]
    assert [t.values for t in seen] == [t.values for t in halving.outcomes(trials, highest).values()]
    assert [t.constraints for t in seen] == [t.constraints for t in halving.outcomes(trials, highest).values()]
    assert [t.values for t in view.trials if "control" in t.user_attrs] == [[0.94, 0.0]]


def test_a_trial_with_known_values_does_not_climb(tmp_path: Path) -> None:
    worker = open_rungs(tmp_path / "j", 4)
    worker.run_one()
    for _ in range(2):
        worker.study.enqueue_trial(worker.space.preset(0.5))
    worker.study.set_user_attr("trials", 5)
    worker.run()
    assert len(optuna_study.finished(worker.study)) == 5
    (twin,) = [trial for trial in worker.study.trials if "same_as" in trial.user_attrs]
    climbed = {halving.configuration_of(t) for t in worker.study.trials if rung_of(t)}
    assert twin.number not in climbed
    assert search_cost(worker.study, worker.terms).answered_from_the_study == 1


@pytest.mark.integration
def test_results_name_rungs_and_what_they_are_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker = open_rungs(tmp_path / "j", 20, factor=2, sampler="random")
    worker.run()
    held = search_results(worker.study, worker.terms)
    assert [row.epochs for row in held.rungs] == [1, 2, 4]
    assert [row.reached for row in held.rungs] == reached(worker.study)
    assert held.rungs[0].compared == held.rungs[2].reached >= 4
    assert held.rungs[0].rank_correlation == {"accuracy": 1.0, "learned_invariance": 1.0}
    rows = held.to_dict()["trials"]
    assert "rung" not in rows[0], "the control is on all rungs"
    assert {row["rung"] for row in rows[1:]} == {1, 2, 4}
    assert len(held.configurations) == 1 + 20
    assert {t.rung for t in held.comparable} == {None, 4}
    assert {t.rung for t in held.trials if t.front} == {4}
    best = selection.best_trials(worker.study, worker.space, Goal(), 1000, 30)
    assert len({str(t.user_attrs["values"]) for t in best}) == len(best)
    assert [rung_of(t) for t in best] == sorted((rung_of(t) for t in best), reverse=True)
    print_trials(held)
    short = capsys.readouterr().out
    assert max(map(len, short.splitlines())) <= 80
    assert short.startswith(f"{len(worker.study.trials)} trials, ") or short.split()[1] == "trials,"
    said = " ".join(short.split())
    assert "after epoch 1: 20 configurations; rank correlation with the top rung accuracy 1.00" in said
    assert "8 more, and more columns" in said
    print_trials(held, full=True)
    whole = capsys.readouterr().out
    assert "kappa" in whole
    assert "more columns" not in whole
    assert whole.count("complete") == 21 > short.count("complete")
    plain = search_results(open_toy(tmp_path / "p", make_terms(), 3).study, make_terms()).to_dict()
    assert "rungs" not in plain


def test_few_configurations_leave_a_rank_correlation_undetermined(tmp_path: Path) -> None:
    worker = open_rungs(tmp_path / "j", 4)
    worker.run()
    assert (
        "accuracy undetermined, learned invariance undetermined (n = 1)"
        in rung_words(search_results(worker.study, worker.terms).rungs)[0]
    )
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == -1
    assert rank_correlation([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.9486832980505138)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=LEAST, max_size=12))
def test_the_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    first, second = ([pair[k] for pair in pairs] for k in (0, 1))
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-9)
