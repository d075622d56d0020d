"""Earlier studies: they are opened by folder or name, and the best of their configurations begin another search."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import optuna

from augkit.core.errors import InputError
from augkit.core.jobs.storage import Storage, open_storage
from augkit.tune import halving, optuna_study, selection
from augkit.tune.optuna_study import Start
from augkit.tune.promotion import ranked
from augkit.tune.space import BUDGET, Space, differences

JOURNAL = "study.journal"
BEST = 5  # most configurations that are taken from one study


def load_study(folder: Path, storage: str | None, name: str | None, flag: str = "--show") -> optuna.Study:
    """Open the study of a folder, or a study in a storage.

    Args:
        folder: output folder of a search; ignored if ``storage`` is given.
        storage: Optuna storage (file or URL).
        name: name of the study; None if there is only one.
        flag: flag that errors name.

    Raises:
        InputError: there is no such study, or ``name`` is needed.
    """
    place = Storage.parse(storage or folder / JOURNAL)
    if place.kind == "journal" and not Path(place.url).is_file():
        expected = "a folder of augkit.tune" if storage is None else "a study in --storage"
        raise InputError(f"{flag}: expected {expected}, there is no '{place}'")
    backend = open_storage(place)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(backend)]
    names = [known for known in names if name == known or known not in map(optuna_study.control_study, names)]
    wanted = name or (names[0] if len(names) == 1 else None)
    if wanted not in names:
        raise InputError(f"{flag}: expected --study, one of: {', '.join(names) or 'none'}; got {name or 'none'}")
    return optuna.load_study(storage=backend, study_name=wanted)


def starts_of(
    named: Sequence[str | Path] | str | Path, space: Space, place: Storage, study_name: str, folder: Path
) -> list[Start]:
    """The best configurations of earlier studies, study by study.

    Of each study these are at most `BEST` feasible configurations (others only if there are none) that are no presets
    of this search: those on the highest rung first, then those that fewer Pareto fronts dominate, and within a front
    those that alone dominate more volume.

    Args:
        named: output folders of searches, or names of studies in the storage of this search.
        space: space of this search.
        place: storage of this search.
        study_name: name of its study.
        folder: its output folder.

    Raises:
        InputError: there is no such study, it is the study itself, its space differs, or none of its trials completed.
    """
    found: list[Start] = []
    known = list(optuna_study.presets(space).values())
    for one in (named,) if isinstance(named, (str, Path)) else named:
        flag = f"--from {one}"
        is_folder = (Path(one) / JOURNAL).is_file() or place.is_inside(folder)
        own = os.path.realpath(one) == os.path.realpath(folder) if is_folder else str(one) == study_name
        if own:
            raise InputError(f"{flag}: expected an earlier study, got the study itself")
        study = load_study(Path(one), None if is_folder else str(place), None if is_folder else str(one), flag)
        _refuse_other_space(flag, space, optuna_study.load_terms(study).open_space())
        best = _best(study)
        if not best:
            raise InputError(f"{flag}: expected a study with a completed trial, none of its trials has completed")
        new = [trial for trial in best if trial.user_attrs["values"] not in known][:BEST]
        known += [trial.user_attrs["values"] for trial in new]
        found += [Start(str(one), trial.number, trial.user_attrs["values"]) for trial in new]
    return found


def _best(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Completed trials of different values, best first; infeasible ones only if there are no others."""
    found: dict[str, optuna.trial.FrozenTrial] = {}
    terms = optuna_study.load_terms(study)
    for _, trials in selection.levels(study):
        known = {trial.number: trial for trial in trials}
        for number in ranked(tuple(halving.standing(number, trial, terms) for number, trial in known.items())):
            found.setdefault(json.dumps(known[number].user_attrs["values"], sort_keys=True), known[number])
    fair = [trial for trial in found.values() if selection.feasible(trial)]
    return fair or list(found.values())


def _refuse_other_space(flag: str, mine: Space, theirs: Space) -> None:
    """Raise InputError if the spaces differ in more than names, seeds, epochs, and how networks are measured."""
    recipe = mine.recipe
    budget = {key: getattr(recipe.train, key) for key in (dotted.removeprefix("train.") for dotted in BUDGET)}
    train = {**theirs.recipe.train.model_dump(), **budget}
    other = theirs.recipe.replaced(name=recipe.name, seed=recipe.seed, invariance=recipe.invariance, train=train)
    words = differences(mine, Space(other, theirs.ranges))
    if words:
        more = f" (and {len(words) - 1} more)" if len(words) > 1 else ""
        raise InputError(f"{flag}: expected a study of the same space, but {words[0]}{more}")
