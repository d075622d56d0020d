"""The worker of the benchmark of searches adds up what training and measuring take."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import augkit
from augkit.core.jobs.storage import open_storage
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study
from augkit.tune.optuna_study import SearchTerms

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    from tune import Timed
finally:
    sys.path.remove(str(FOLDER))


def test_the_time_inside_is_most_of_a_search_and_no_more(tiny: Recipe, tmp_path: Path) -> None:
    space = augkit.tune.Space.of(tiny.model_dump(exclude_none=True), "t")
    terms = SearchTerms(space=space.to_dict(), epochs=2, floor=0.0)
    study, _ = optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 2, join=False)
    worker = Timed(study, terms, augkit.load_dataset("digits", limit=200), torch.device("cpu"))
    began = time.perf_counter()
    worker.run()
    assert 0.1 * (time.perf_counter() - began) < worker.inside < time.perf_counter() - began
