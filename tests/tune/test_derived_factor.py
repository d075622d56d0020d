"""The factor of halving by default: 4 in long searches, 3 in others, in a continued search that of its study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from toy import make_terms as toy_terms

from augkit.core.jobs.storage import Storage, open_storage
from augkit.train.recipe import Recipe
from augkit.tune import Goal, optuna_study
from augkit.tune.halving import LEAST, LONG, derived_factor
from augkit.tune.inputs import Rungs, as_space, make_terms
from augkit.tune.optuna_study import SearchTerms


def terms_of(trials: int, rungs: tuple[int, ...] | None, factor: int | None) -> tuple[SearchTerms, tuple[str, ...]]:
    space = as_space(Recipe.load("mnist5k", ["train.epochs=16"]))
    plain = {"trial_epochs": None, "least_epochs": None, "fork": False, "sampler": "tpe", "floor": 0.8}
    return make_terms(space, Goal(), Rungs(rungs, factor, trials), **plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trials", "rungs", "factor", "found"),
    [
        (24, None, None, 3),
        (31, None, None, 3),
        (32, None, None, 4),
        (32, None, 3, 3),
        (24, None, 4, 4),
        (40, (1, 2, 4, 8), None, 3),  # no two of 40 would reach the top
        (128, (1, 2, 4, 8), None, 4),
        (200, (), None, 3),
    ],
)
def test_long_searches_promote_one_of_four(
    trials: int, rungs: tuple[int, ...] | None, factor: int | None, found: int
) -> None:
    terms, kept = terms_of(trials, rungs, factor)
    assert terms.factor == found
    assert ("factor" in kept) == (factor is None)


@pytest.mark.parametrize("trials", [1, 24, 31, 32, 33, 127, 128, 500])
@pytest.mark.parametrize("rungs", [(1, 2), (1, 2, 4), (1, 2, 4, 8)])
def test_as_many_reach_the_top_as_are_compared_there(trials: int, rungs: tuple[int, ...]) -> None:
    factor = derived_factor(rungs, trials)
    assert factor == 3 or (trials >= LONG and trials // factor ** (len(rungs) - 1) >= LEAST)


def test_a_search_that_is_continued_for_longer_keeps_its_factor(tmp_path: Path) -> None:
    backend, made = open_storage(Storage.parse(tmp_path / "study.journal")), toy_terms(rungs=(1, 2, 4), factor=3)
    optuna_study.make_or_join(backend, "s", made, 24, join=False)
    asked = toy_terms(rungs=(1, 2, 4), factor=4)
    with pytest.raises(Exception, match="factor"):
        optuna_study.make_or_join(backend, "s", asked, 40, join=True)
    study, created = optuna_study.make_or_join(backend, "s", asked, 40, join=True, kept=("factor",))
    assert not created
    assert optuna_study.load_terms(study).factor == 3
    assert isinstance(study, optuna.Study)
