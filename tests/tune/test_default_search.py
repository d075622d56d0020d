"""The search that is run where nothing is asked for: its number of trials and rungs, and how older studies go on."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from augkit.core.errors import InputError
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.jobs.storage import open_storage
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.halving import LEAST, MOST, derived_rungs
from augkit.tune.inputs import Rungs, make_terms
from augkit.tune.optuna_study import TRIALS, SearchTerms
from augkit.tune.pipeline import tune
from augkit.tune.space import Space

PLAIN: Any = {"trial_epochs": None, "least_epochs": None, "fork": False, "sampler": "tpe", "floor": 0.8}

CONSTRAINED = Recipe.model_validate(  # whose policy has shifts, as the search has where there is no policy
    {"name": "x", "data": {"name": "digits", "limit": 100}, "constraint": {"learned_invariance": 0.5}, "policy": {}}
)


def terms_of(recipe: Recipe, rungs: Any = None, **changed: Any) -> tuple[SearchTerms, tuple[str, ...]]:
    fields = PLAIN | changed
    wanted = Rungs(rungs, 3, fields.pop("trials", TRIALS), fields.pop("processes", 1))
    space = Space.of(recipe.model_dump(exclude_none=True), recipe.name)
    return make_terms(space, fields.pop("goal", Goal()), wanted, **fields)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2, 5))
def test_derived_rungs_ascend_by_halves_and_let_enough_configurations_reach_the_top(
    epochs: int, trials: int, factor: int
) -> None:
    rungs = derived_rungs(epochs, trials, factor)
    assert len(rungs) != 1
    assert len(rungs) <= MOST
    assert all(low == high // 2 >= 1 for low, high in itertools.pairwise(rungs))
    if rungs:
        reached = trials
        for _ in rungs[1:]:
            reached //= factor
        assert rungs[-1] == epochs
        assert reached >= LEAST
        assert SearchTerms(space={}, rungs=rungs, epochs=epochs).rungs == rungs
    else:
        assert epochs == 1 or trials // factor < LEAST


def test_the_default_search_of_the_smallest_recipe_has_24_configurations_on_three_rungs() -> None:
    terms, kept = terms_of(Recipe.load("mnist5k"))
    assert TRIALS >= 24
    assert (terms.rungs, terms.epochs) == ((1, 2, 4), 4)
    assert kept == ("rungs", "epochs", "least_epochs"), "where a study exists, it decides"


@pytest.mark.parametrize(
    "changed",
    [
        {"rungs": ()},
        {"sampler": "nsga2"},
        {"least_epochs": 1},
        {"processes": 2},
        {"trial_epochs": 1},
        {"trials": 3},
        {"goal": Goal(mode="accuracy", at_least=0.5)},
    ],
)
def test_there_are_no_rungs_where_a_setting_excludes_them(changed: Any) -> None:
    assert terms_of(Recipe.load("mnist5k"), **changed)[0].rungs == ()


def test_epochs_of_a_trial_are_those_of_the_top_rung() -> None:
    terms, kept = terms_of(Recipe.load("mnist5k"), trial_epochs=6)
    assert (terms.rungs, terms.epochs, kept) == ((1, 3, 6), 6, ("rungs",))


def test_forks_have_rungs_of_one_and_two_epochs_after_a_control_of_half_the_recipes() -> None:
    terms, kept = terms_of(Recipe.load("mnist5k"), fork=True)
    assert (terms.rungs, terms.epochs, terms.fork, kept) == ((1, 2), 2, 4, ("rungs", "epochs", "least_epochs"))


@pytest.mark.parametrize("fork", ["yes", 1, None])
def test_a_fork_is_true_or_false(fork: Any) -> None:
    with pytest.raises(InputError, match=r"^fork: expected True or False, got "):
        terms_of(Recipe.load("mnist5k"), fork=fork)


def open_study(place: Path, terms: SearchTerms, trials: Any, *kept: str, lead: bool = True) -> Any:
    storage = open_storage(str(place))
    return optuna_study.make_or_join(storage, "s", terms, trials, join=True, lead=lead, kept=kept)[0]


def test_a_study_without_rungs_goes_on_without_them_and_with_its_own_number_of_trials(tmp_path: Path) -> None:
    recipe = Recipe.load("mnist5k")
    old, (new, kept) = terms_of(recipe, ())[0], terms_of(recipe)
    open_study(tmp_path / "j", old, 10)
    study = open_study(tmp_path / "j", new, None, *kept)
    assert study.user_attrs["trials"] == 10
    assert optuna_study.load_terms(study).rungs == old.rungs == ()
    assert open_study(tmp_path / "j", new, 12, *kept).user_attrs["trials"] == 12
    with pytest.raises(InputError, match="rungs was none, is 1,2,4"):
        open_study(tmp_path / "j", new, None)
    with pytest.raises(InputError, match="sampler was tpe, is gp"):
        open_study(tmp_path / "j", terms_of(recipe, sampler="gp")[0], None, *kept)


def test_a_new_study_has_the_number_of_trials_that_was_given_or_the_default(tmp_path: Path) -> None:
    terms = terms_of(Recipe.load("mnist5k"))[0]
    assert open_study(tmp_path / "a", terms, None).user_attrs["trials"] == TRIALS
    assert open_study(tmp_path / "b", terms, 5).user_attrs["trials"] == 5
    assert open_study(tmp_path / "c", terms, np.int64(5)).user_attrs["trials"] == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": None}, "seeds: expected a whole number of 1 or more, got None"),
        ({"top": None}, "top: expected a whole number of 1 or more, got None"),
        ({"factor": 1}, "factor: expected a whole number of 2 or more, got 1"),
        ({"factor": "4"}, "factor: expected a whole number of 2 or more, got '4'"),
        ({"trials": 0}, "trials: expected a whole number of 1 or more, got 0"),
        ({"trials": "7"}, "trials: expected a whole number of 1 or more, got '7'"),
        ({"rungs": 4}, r"rungs: expected two or more ascending numbers of epochs, such as \(2, 4, 8\), got 4"),
        ({"space": CONSTRAINED}, "constraint: expected no policy.shift, because it draws views itself"),
        ({"rungs": np.array([1, 2])}, "rungs: expected two or more ascending numbers of epochs"),
        ({"goal": "pareto"}, "goal: expected an augkit.tune.Goal, got 'pareto'"),
        ({"workers": 1.0}, "workers: expected a whole number or TuneWorkers, got 1.0"),
        ({"workers": 0}, "workers: expected a whole number of 1 or more, got 0"),
        ({"workers": WorkerSettings()}, "workers: expected a whole number or TuneWorkers, got WorkerSettings"),
        ({"storage": InMemoryStorage()}, "storage: expected a file or URL as text, got InMemoryStorage"),
        ({"rungs": (1, None)}, "rungs: expected a whole number of 0 or more, got None"),
        ({"sampler": None}, "sampler"),
        ({"floor": None}, "floor"),
        ({"space": None}, "expected a Space or a Recipe, got NoneType"),
        ({"folder": None}, "expected an output folder, got NoneType"),
    ],
)
def test_bad_input_from_python_is_refused_in_one_line(
    changed: dict[str, Any], message: str, tiny: Recipe, tmp_path: Path
) -> None:
    place = {"space": tiny, "folder": tmp_path / "out"}
    with pytest.raises(InputError, match=message) as refused:
        tune(**{**place, **changed})
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_trials_of_the_top_rung_are_retrained_before_any_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both on the top rung, although one is clearly less accurate; the most invariant one below comes third."""

    def trial(number: int, rung: int, accuracy: float, learned: float, values: int) -> Any:
        attrs = {"accuracy": accuracy, "learned_invariance": learned, "values": {"x": values}, "rung": rung}
        return SimpleNamespace(number=number, user_attrs=attrs, state=optuna_study.FINISHED[0])

    top = [trial(4, 1, 0.95, 0.5, 1), trial(5, 1, 0.6, 0.9, 2)]
    low = [trial(1, 0, 0.95, 0.1, 1), trial(2, 0, 0.6, 0.2, 2), trial(3, 0, 0.95, 0.99, 3)]
    monkeypatch.setattr(optuna_study, "completed", lambda study: [*low, *top])
    study: Any = SimpleNamespace(user_attrs={"control {}": {"accuracy": 0.95, "rungs": [{"accuracy": 0.95}]}})
    space: Any = SimpleNamespace(architectures=lambda: [{}])

    def numbers(count: int) -> list[int]:
        return [t.number for t in selection.best_trials(study, space, Goal(), 1000, count)]

    assert [numbers(count) for count in (1, 2, 3)] == [[4], [4, 5], [4, 5, 3]]
    monkeypatch.setattr(optuna_study, "completed", lambda study: low)
    assert numbers(3) == [3, 1], "without rungs, one that is clearly less accurate is not retrained"
