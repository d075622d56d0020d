"""A study: what is searched, for what, within which budget, and the rules that hold for all its workers.

The rules: trials are numbered; each is run once; exactly the wanted number finishes. A worker starts a trial only where
the finished ones and those with a smaller number that run or wait are fewer than wanted, so the last place goes to the
smallest number, even where several workers ask Optuna at once.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from augkit.augment.policy import changes_nothing
from augkit.core.errors import InputError
from augkit.core.jobs.worker import READY, wait_for, wait_until_ready
from augkit.core.schema import Data, validate
from augkit.tune.goal import Goal
from augkit.tune.space import Space, Value, differences

SAMPLERS = ("tpe", "gp", "nsga2", "qmc", "random")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
PRESETS = {"no augmentation": 0.0, "as it stands": None, "mild": 0.3, "strong": 0.6}
FLOOR = 0.8  # benchmarks/results/ruler.json: networks that nearly collapsed stay below it, augmented ones do not


class ControlScores(TypedDict):
    """Scores of a control, an attribute of the study as JSON.

    ``shift_information`` is by image set. ``number`` of the trial, ``epochs`` and ``seconds`` are known at its end.
    """

    accuracy: float
    kappa: float
    shift_information: dict[str, float]
    number: NotRequired[int]
    epochs: NotRequired[int]
    seconds: NotRequired[float]


class SearchTerms(Data):
    """What must not change while a study goes on."""

    space: dict[str, Any] = Field(description="see `Space.to_dict`")
    goal: Goal = Field(default_factory=Goal, description="what for")
    epochs: int = Field(ge=1, description="of a trial")
    least_epochs: int = Field(1, ge=1, description="before a trial may be pruned")
    sampler: Literal["tpe", "gp", "nsga2", "qmc", "random"] = Field("tpe", description="of Optuna")
    floor: float = Field(FLOOR, ge=0, le=1, description="least accuracy above chance and kappa (share of control's)")
    seed: int = Field(0, ge=0, description="of the sampler and of trials")
    controls: dict[str, dict[str, Value]] = Field(
        {}, description="by architecture (`control_key`), what the search of a control found; as it stands when empty"
    )

    def open_space(self) -> Space:
        """The space as such."""
        return Space.from_dict(self.space)

    def control_values(self, architecture: Mapping[str, Value]) -> dict[str, Value]:
        """What the control of an architecture has in the place of the recipe's own fields."""
        return {**self.controls.get(control_key(architecture), {}), **architecture}


def control_study(name: str) -> str:
    """The study in which a search looks for its best control."""
    return f"{name}-control"


def refuse_existing(storage: BaseStorage, name: str) -> None:
    """InputError where a study of that name is there."""
    if name in optuna.get_all_study_names(storage):
        raise InputError(f"study '{name}' exists: add --resume to go on, or name another --study")


def make_or_join(
    storage: BaseStorage,
    name: str,
    terms: SearchTerms,
    trials: int,
    *,
    join: bool,
    lead: bool = True,
    create: bool = True,
) -> tuple[optuna.Study, bool]:
    """Create a study with its first trials in line, or go on with one; and whether it was created.

    Args:
        storage: see `augkit.core.jobs.storage.open_storage`.
        name: of the study.
        terms: of the search.
        trials: that should finish.
        join: whether a study that exists is gone on with.
        lead: whether it then takes ``trials``, and does not keep its own number.
        create: whether it may be created; else another command is given a minute to do that.

    Raises:
        InputError: the study exists and ``join`` is False, or its terms differ; says in what.
    """
    goal = terms.goal
    if not create and wait_for(lambda: name in optuna.get_all_study_names(storage) or None, READY) is None:
        raise InputError(f"study '{name}' is not there: --resume the command that was to make it")
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=["maximize"] * len(goal.objectives))
        created = True
    except optuna.exceptions.DuplicatedStudyError:
        if not join:
            refuse_existing(storage, name)
        study, created = optuna.load_study(storage=storage, study_name=name), False
        theirs = wait_for(lambda: study.user_attrs.get("terms"), READY)
        if theirs is None:
            said = "was not made by augkit, or the command that makes it died: name another"
            raise InputError(f"study '{name}' {said}") from None
        _refuse_changes(name, terms, validate(SearchTerms, theirs, f"study '{name}'"))
    if created:
        study.set_user_attr("terms", terms.model_dump())
    if created or lead:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(goal.objectives))  # where Optuna's own tools look for them
        study.set_user_attr("trials", trials)
    if created or (lead and not study.user_attrs.get("ready")):
        _begin(study, terms)
        study.set_user_attr("ready", True)
    else:
        wait_until_ready(study)  # two that put the first trials in line would run each of them twice
    return study, created


def load_terms(study: optuna.Study) -> SearchTerms:
    """The terms of a study that augkit made.

    Raises:
        InputError: it did not.
    """
    if "terms" not in study.user_attrs:
        raise InputError(f"study '{study.study_name}' was not made by augkit.tune")
    return validate(SearchTerms, study.user_attrs["terms"], f"study '{study.study_name}'")


def equip(study: optuna.Study, terms: SearchTerms, worker: int) -> None:
    """Give a worker's copy of the study its sampler, whose seed is the worker's own, and its pruner."""
    text = f"{terms.seed}:{worker}:{len(study.get_trials(deepcopy=False))}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = _sampler(terms.sampler, seed)
        study.pruner = optuna.pruners.NopPruner()
        if terms.goal.prunes:
            study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=terms.least_epochs, reduction_factor=2)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were run to the end, without controls."""
    return [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: run by augkit to the end or pruned, without controls."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [t for t in trials if "control" not in t.user_attrs and not is_foreign(t)]


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether a finished trial has no result of augkit's: plain Optuna added it, or ran one that was in line."""
    needed = {"values", "accuracy"} if trial.state == TrialState.COMPLETE else {"values"}
    ours = "control" in trial.user_attrs or needed <= trial.user_attrs.keys()
    return trial.state in FINISHED and not ours


def lost(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that failed, but for those that were interrupted and run again."""
    trials = [t for t in study.get_trials(deepcopy=False) if "values" in t.user_attrs]

    def again(trial: FrozenTrial) -> bool:
        same = [t for t in trials if t.user_attrs["values"] == trial.user_attrs["values"]]
        return any(t.state != TrialState.FAIL or t.number > trial.number for t in same)

    failed = [t for t in trials if t.state == TrialState.FAIL and "skipped" not in t.user_attrs]
    return [t for t in failed if "error" in t.user_attrs or not again(t)]


def has_place(study: optuna.Study, number: int) -> bool:
    """Whether trial ``number`` is among the wanted ones."""
    counted = 0
    for trial in study.get_trials(deepcopy=False):
        if "control" in trial.user_attrs or trial.number == number:
            continue
        ahead = trial.number < number and trial.state in (TrialState.RUNNING, TrialState.WAITING)
        counted += (trial.state in FINISHED and not is_foreign(trial)) or ahead
    return counted < int(study.user_attrs["trials"])


def open_places(study: optuna.Study) -> bool:
    """Whether a worker should take a trial: one waits, or fewer run and are finished than wanted."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    waits = any(trial.state == TrialState.WAITING for trial in running)
    return waits or len(running) + len(finished(study)) < int(study.user_attrs["trials"])


def done(study: optuna.Study) -> bool:
    """Whether the wanted number of trials has finished."""
    return len(finished(study)) >= int(study.user_attrs["trials"])


def control_key(architecture: Mapping[str, Value]) -> str:
    """Where a study keeps the control of an architecture."""
    return f"control {json.dumps(dict(architecture), sort_keys=True)}"


def _begin(study: optuna.Study, terms: SearchTerms) -> None:
    """Put the controls in line, then the presets that lie within the space and are no control, each once."""
    there = {t.user_attrs.get("preset") for t in study.get_trials(deepcopy=False)}
    space = terms.open_space()
    restore_controls(study, terms)
    taken = [_control_point(space, terms, architecture) for architecture in space.architectures()]
    for name, strength in PRESETS.items():
        preset = space.current() if strength is None else space.preset(strength)
        if preset is None or preset in taken:
            continue
        taken.append(preset)
        if name not in there:
            study.enqueue_trial(preset, user_attrs={"preset": name})


def restore_controls(study: optuna.Study, terms: SearchTerms) -> int:
    """Put controls in line that are neither there nor under way; how many. Without them no trial can be judged."""
    open_trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
    there = {t.user_attrs.get("control") for t in open_trials} | set(study.user_attrs)
    space = terms.open_space()
    missing = [a for a in space.architectures() if control_key(a) not in there]
    for architecture in missing:
        values = _control_point(space, terms, architecture) or {}
        study.enqueue_trial(values, user_attrs={"control": control_key(architecture)})
    return len(missing)


def _control_point(space: Space, terms: SearchTerms, architecture: Mapping[str, Value]) -> dict[str, Value] | None:
    """The control of an architecture as a point of the space; None where the space always augments."""
    if not changes_nothing(space.with_values(space.preset(0.0)).policy):
        return None
    return {**space.preset(0.0), **terms.control_values(architecture)}


def _refuse_changes(name: str, mine: SearchTerms, theirs: SearchTerms) -> None:
    words = differences(mine.open_space(), theirs.open_space())
    old, new = theirs.model_dump(exclude={"space"}), mine.model_dump(exclude={"space"})
    words += [f"{key} was {old[key]}, is {new[key]}" for key in old if old[key] != new[key]]
    if words:
        more = f" (and {len(words) - 2} more)" if len(words) > 2 else ""
        raise InputError(f"study '{name}' cannot go on with other terms: {'; '.join(words[:2])}{more}")


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=16)
    if name == "qmc":
        return optuna.samplers.QMCSampler(
            seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)
