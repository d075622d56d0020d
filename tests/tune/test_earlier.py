"""The best configurations of earlier studies of the same space are tried after the presets, and trained anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from toy import RECIPE, RungToy, Toy, make_terms, open_toy

from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.core.jobs.storage import Storage, open_storage
from augkit.tune import __main__ as tune
from augkit.tune import optuna_study, selection
from augkit.tune.earlier import BEST, JOURNAL, load_study, starts_of
from augkit.tune.optuna_study import START, Start
from augkit.tune.results import search_results
from augkit.tune.space import Space

SPACE = Space.of(dict(RECIPE), "toy")


def earlier(folder: Path, trials: int = 10, kind: type[Toy] = Toy, **fields: Any) -> Toy:
    """A search that has ended, in the journal of a folder."""
    folder.mkdir()
    worker = open_toy(folder / JOURNAL, make_terms(sampler="random", **fields), trials, kind=kind)
    worker.run()
    return worker


def found_in(*folders: Path) -> list[Start]:
    place = folders[0].parent / "new" / JOURNAL
    return starts_of(folders, SPACE, Storage.parse(place), "augkit", place.parent)


def begin(place: Path, starts: Sequence[Start], trials: int) -> optuna.Study:
    terms = make_terms(sampler="random")
    return optuna_study.make_or_join(open_storage(place), "s", terms, trials, join=True, starts=starts)[0]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished searches, one without a completed trial, and the recipe of all."""
    place = tmp_path_factory.mktemp("studies")
    earlier(place / "a")
    earlier(place / "b", seed=1)
    (place / "empty").mkdir()
    open_toy(place / "empty" / JOURNAL, make_terms(), 3)
    (place / "toy.yaml").write_text(yaml.safe_dump(RECIPE))
    return place


def test_the_best_are_the_front_first_and_no_presets(studies: Path) -> None:
    starts = found_in(studies / "a")
    trials = {trial.number: trial for trial in optuna_study.completed(load_study(studies / "a", None, None))}
    assert len(starts) == BEST
    assert [start.values for start in starts] == [trials[start.trial].user_attrs["values"] for start in starts]
    presets = optuna_study.presets(SPACE).values()
    assert not [start for start in starts if start.values in presets]
    front = {t.number for t in selection.front(list(trials.values())) if t.user_attrs["values"] not in presets}
    assert front & {start.trial for start in starts}
    places = [start.trial in front for start in starts]
    assert places == sorted(places, reverse=True)
    assert all(selection.feasible(trials[start.trial]) for start in starts)


def test_with_rungs_the_highest_comes_first(tmp_path: Path) -> None:
    worker = earlier(tmp_path / "a", kind=RungToy, rungs=(1, 2, 4))
    rungs = [optuna_study.rung_of(worker.study.trials[start.trial]) for start in found_in(tmp_path / "a")]
    assert rungs == sorted(rungs, reverse=True)
    assert len({str(start.values) for start in found_in(tmp_path / "a")}) == BEST


@pytest.mark.integration
def test_a_new_study_tries_them_after_the_presets_and_trains_them_anew(studies: Path, tmp_path: Path) -> None:
    starts = found_in(studies / "a", studies / "b")
    assert len(starts) == 2 * BEST
    twice = [str(start.values) for start in found_in(studies / "a", studies / "a")]
    assert len(set(twice)) == len(twice), "each configuration once"
    study = begin(tmp_path / "j", starts, 14)
    queued = study.get_trials(states=(TrialState.WAITING,))
    assert ["control" in t.user_attrs for t in queued] == [True] + [False] * 13
    assert ["preset" in t.user_attrs for t in queued[1:]] == [True] * 3 + [False] * 10
    assert [t.user_attrs[START] for t in queued[4:]] == [start.study for start in starts]
    assert [t.system_attrs["fixed_params"] for t in queued[4:]] == [start.values for start in starts]
    assert optuna_study.starts_taken(study) == {str(studies / name): BEST for name in "ab"}
    worker = open_toy(tmp_path / "j", make_terms(sampler="random"), 14, join=True)
    worker.run()
    assert worker.trained == 1 + 14, "the control, and all trials"
    rows = search_results(worker.study, worker.terms).to_dict()["trials"]
    assert sum("start" in row for row in rows) == 2 * BEST


def test_as_many_are_taken_as_trials_are_left_and_none_twice(studies: Path, tmp_path: Path) -> None:
    starts = found_in(studies / "a")
    study = begin(tmp_path / "j", starts, 5)
    assert optuna_study.starts_taken(study) == {str(studies / "a"): 2}
    study.set_user_attr("ready", False)  # the command died while it enqueued
    again, _ = optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", make_terms(sampler="random"), 8, join=True)
    assert optuna_study.starts_taken(again) == {str(studies / "a"): 5}
    assert len(again.trials) == 1 + 3 + 5


def test_infeasible_configurations_are_taken_only_where_there_are_no_others(tmp_path: Path) -> None:
    worker = earlier(tmp_path / "a", floor=1.0, kind=Collapsed)
    assert not any(map(selection.feasible, optuna_study.completed(worker.study)))
    assert len(found_in(tmp_path / "a")) == BEST


class Collapsed(Toy):
    """All trials guess."""

    def score(self, trial: Any, *rest: Any) -> Any:
        _, found = super().score(trial, *rest)
        return None, {**found, "accuracy": found["accuracy"] - 0.5, "kappa": 0.0}


def test_names_seeds_epochs_and_measuring_may_differ(studies: Path, tmp_path: Path) -> None:
    tree = {**RECIPE, "name": "other", "seed": 7, "train": {"epochs": 30}, "invariance": {"max_shift": 2.0}}
    other = Space.of(tree, "t")
    assert starts_of(str(studies / "a"), other, Storage.parse(tmp_path / "j"), "augkit", tmp_path) == found_in(
        studies / "a"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--from {}/none", "--from {}/none: expected a folder of augkit.tune, there is no '{}/none/study.journal'"),
        ("--from {}/empty", "expected a study with a completed trial, none of its trials has completed"),
        ("--from {}/out", "--from {}/out: expected an earlier study, got the study itself"),
        ("--from {}/a optim.lr=0.5", "expected a study of the same space, but optim.lr was 0.1, is 0.5"),
        (
            "--from {}/a policy.shift.max_pixels={{search:[0,9]}}",
            "expected a study of the same space, but policy.rescale.max_factor was [1, 1.5], is not searched (and",
        ),
        (
            "--from s --storage {}/a/study.journal --study s",
            "--from s: expected an earlier study, got the study itself",
        ),
        ("--from x --storage {}/a/study.journal --study y", "--from x: expected --study, one of: s; got x"),
        ("--from x --storage {}/b.journal --study y", "--from x: expected a study in --storage, there is no"),
        ("--from {}/a --from {}/empty", "--from {}/empty: expected a study with a completed trial"),
    ],
)
def test_a_study_that_cannot_be_taken_from_is_refused_in_one_line(
    words: str, message: str, studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words.replace("{}", str(studies)).replace("{{", "{").replace("}}", "}").split()
    code = run(tune.main, [str(studies / "toy.yaml"), *line, "--output", str(studies / "out"), "--quiet"])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1), said
    assert message.replace("{}", str(studies)) in said
    assert not (studies / "out").exists()


def test_a_study_is_named_in_the_storage_of_the_search(studies: Path) -> None:
    place = Storage.parse(studies / "a" / JOURNAL)
    (one,) = {start.study for start in starts_of(["s"], SPACE, place, "new", studies / "out")}
    assert one == "s"
    by_folder = [start.values for start in found_in(studies / "a")]
    assert [start.values for start in starts_of(["s"], SPACE, place, "new", studies / "out")] == by_folder
    optuna.create_study(storage=open_storage(studies / "foreign.journal"), study_name="f")
    with pytest.raises(InputError, match="was not created by augkit"):
        starts_of(["f"], SPACE, Storage.parse(studies / "foreign.journal"), "new", studies / "out")
