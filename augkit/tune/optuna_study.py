"""The Optuna study of a search: its terms, its first trials, and the rules that all workers follow.

Each trial is run once, and exactly the wanted number finishes. A worker starts a trial only if the number of finished
trials, plus that of running or waiting trials with a smaller number, is below the wanted number. If several workers
call Optuna's ``ask`` at once, the last place therefore goes to the trial with the smallest number.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from augkit.augment.policy import changes_nothing
from augkit.core.errors import InputError
from augkit.core.jobs.retry import RETRY_OF
from augkit.core.jobs.worker import READY, wait_for, wait_until_ready
from augkit.core.schema import Data, validate
from augkit.tune.goal import Goal
from augkit.tune.space import Space, Value, differences

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {  # by name, from a seed
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=16),
    "qmc": lambda seed: optuna.samplers.QMCSampler(
        seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
TRIALS = 24  # of a search that is given no number
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
PRESETS = {"no augmentation": 0.0, "as it stands": None, "mild": 0.3, "strong": 0.6}
RUNG = "rung"  # user attribute of a trial on a higher rung: the number of the rung, from 1; without it a trial is on 0
CONFIGURATION = "configuration"  # user attribute: number of the trial that ran the same values on the lowest rung
STARTS = "starts"  # user attribute of the study: configurations of earlier studies
START = "start"  # user attribute of a trial: the earlier study that gave its values
MEASURING = "measuring"  # user attribute: seconds of a trial spent on measuring
FLOOR = 0.8  # benchmarks/results/ruler.json: it separates nearly collapsed networks from augmented ones


class ControlScores(TypedDict):
    """Scores of a control, as stored in a JSON attribute of the study.

    ``shift_information`` is by image set, and ``kappa`` None for images without labels. The trial's ``number``,
    ``epochs`` and ``seconds`` are added when it ends. ``rungs`` are the scores on the rungs below the top, if any, and
    ``fork`` is the folder of the run whose weights trials start from, if they are forks (see `augkit.tune.fork`).
    """

    accuracy: float
    kappa: float | None
    shift_information: dict[str, float]
    number: NotRequired[int]
    epochs: NotRequired[int]
    seconds: NotRequired[float]
    rungs: NotRequired[list[ControlScores]]
    fork: NotRequired[str]


class Start(NamedTuple):
    """A configuration of an earlier study that a search tries first.

    Attributes:
        study: the earlier study, as it was named.
        trial: number of its trial there.
        values: values of the searched fields by dotted key.
    """

    study: str
    trial: int
    values: dict[str, Value]


class SearchTerms(Data):
    """Settings of a search that must not change when it is resumed or joined."""

    space: dict[str, Any] = Field(description="the search space, as `Space.to_dict` gives it")
    goal: Goal = Field(default_factory=Goal, description="goal of the search")
    rungs: tuple[int, ...] = Field((), description="epochs of each rung of Pareto halving, ascending; empty: no rungs")
    factor: int = Field(3, ge=2, description="one of this many configurations goes on to the next rung")
    fork: int = Field(0, ge=0, description="epochs after which trials are forked from the control; 0: they are not")
    epochs: int = Field(ge=1, description="epochs of a trial")
    least_epochs: int = Field(1, ge=1, description="epochs before a trial may be pruned")
    sampler: Literal["tpe", "gp", "nsga2", "qmc", "random"] = Field("tpe", description="Optuna sampler")
    floor: float = Field(
        FLOOR, ge=0, le=1, description="least accuracy above chance, and kappa, as shares of the control's"
    )
    seed: int = Field(0, ge=0, description="seed of the sampler and of all trials")
    controls: dict[str, dict[str, Value]] = Field(
        {}, description="by architecture (`control_key`), fields of the best control found; empty: the recipe's own"
    )

    @property
    def prunes(self) -> bool:
        """Whether bad trials are pruned; with rungs they are not promoted instead."""
        return self.goal.prunes and not self.rungs

    def open_space(self) -> Space:
        """The search space, restored from its plain data."""
        return Space.from_dict(self.space)

    def control_values(self, architecture: Mapping[str, Value]) -> dict[str, Value]:
        """The fields, by dotted key, in which the control of an architecture differs from the recipe."""
        return {**self.controls.get(control_key(architecture), {}), **architecture}


def control_study(name: str) -> str:
    """Name of the study in which a search looks for the best control."""
    return f"{name}-control"


def refuse_existing(storage: BaseStorage, name: str) -> None:
    """Raise InputError if the storage has a study of that name."""
    if name in optuna.get_all_study_names(storage):
        raise InputError(f"study '{name}' exists: add --resume to resume it, or name another --study")


def make_or_join(
    storage: BaseStorage,
    name: str,
    terms: SearchTerms,
    trials: int | None,
    *,
    join: bool,
    lead: bool = True,
    create: bool = True,
    starts: Sequence[Start] = (),
    kept: Collection[str] = (),
) -> tuple[optuna.Study, bool]:
    """Create a study and enqueue its first trials, or open an existing one.

    Args:
        storage: storage from `augkit.core.jobs.storage.open_storage`.
        name: name of the study.
        terms: terms of the search.
        trials: number of trials that should finish; None takes that of an existing study, or `TRIALS`.
        join: whether an existing study may be opened.
        lead: whether ``trials`` replaces the number of an existing study.
        starts: configurations of earlier studies that a new study tries first.
        create: whether the study may be created; if not, wait a minute for another command to create it.
        kept: names of terms that an existing study decides; `load_terms` then gives them.

    Returns:
        The study, and whether it was created.

    Raises:
        InputError: the study exists and ``join`` is False, its terms differ, or it was not created in time.
    """
    goal = terms.goal
    if not create and wait_for(lambda: name in optuna.get_all_study_names(storage) or None, READY) is None:
        raise InputError(f"study '{name}' was not created within a minute: --resume the command that leads the search")
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=["maximize"] * len(goal.objectives))
        created = True
    except optuna.exceptions.DuplicatedStudyError:
        if not join:
            refuse_existing(storage, name)
        study, created = optuna.load_study(storage=storage, study_name=name), False
        theirs = wait_for(lambda: study.user_attrs.get("terms"), READY)
        if theirs is None:
            said = "was not created by augkit, or the command that created it has died: name another"
            raise InputError(f"study '{name}' {said}") from None
        old = validate(SearchTerms, theirs, f"study '{name}'")
        terms = terms.model_copy(update={key: getattr(old, key) for key in kept})
        _refuse_changes(name, terms, old)
    if created:
        study.set_user_attr(STARTS, [start._asdict() for start in starts])
        study.set_user_attr("terms", terms.model_dump())
    if created or lead:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(list(goal.objectives))  # shown by Optuna's own tools
        if trials is not None or "trials" not in study.user_attrs:
            study.set_user_attr("trials", int(trials or TRIALS))  # JSON has no integers of numpy
    if created or (lead and not study.user_attrs.get("ready")):
        _begin(study, terms)
        study.set_user_attr("ready", True)
    else:
        wait_until_ready(study)  # if two processes enqueued the first trials, each trial would run twice
    return study, created


def load_terms(study: optuna.Study) -> SearchTerms:
    """The terms of a study that augkit created.

    Raises:
        InputError: augkit did not create the study.
    """
    if "terms" not in study.user_attrs:
        raise InputError(f"study '{study.study_name}' was not created by augkit.tune")
    return validate(SearchTerms, study.user_attrs["terms"], f"study '{study.study_name}'")


def equip(study: optuna.Study, terms: SearchTerms, worker: int) -> None:
    """Set the sampler and the pruner of a worker's study; the sampler's seed differs between workers."""
    text = f"{terms.seed}:{worker}:{len(study.get_trials(deepcopy=False))}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        study.sampler = SAMPLERS[terms.sampler](seed)
        study.pruner = optuna.pruners.NopPruner()
        if terms.prunes:
            study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=terms.least_epochs, reduction_factor=2)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that augkit ran to their end, on any rung; no controls and no pruned trials."""
    return [trial for trial in ended(study) if trial.state == TrialState.COMPLETE]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: completed or pruned by augkit; no controls, and with rungs only those on the lowest one."""
    return [trial for trial in ended(study) if rung_of(trial) == 0]


def rung_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Number of the rung on which a trial is run, from 0; 0 without rungs."""
    return int(trial.user_attrs.get(RUNG, 0))


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were completed or pruned by augkit, on any rung; no controls."""
    return [trial for trial in study.get_trials(deepcopy=False, states=FINISHED) if counts(trial)]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial was completed or pruned by augkit and is no control."""
    return trial.state in FINISHED and "control" not in trial.user_attrs and not is_foreign(trial)


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether a finished trial lacks the attributes that augkit stores, because it was added or run without augkit."""
    needed = {"values", "accuracy"} if trial.state == TrialState.COMPLETE else {"values"}
    ours = "control" in trial.user_attrs or needed <= trial.user_attrs.keys()
    return trial.state in FINISHED and not ours


def lost(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that failed for good; without those that were interrupted and retried."""
    trials = [t for t in study.get_trials(deepcopy=False) if "values" in t.user_attrs]

    def again(trial: FrozenTrial) -> bool:
        values, rung = trial.user_attrs["values"], rung_of(trial)
        same = [t for t in trials if t.user_attrs["values"] == values and rung_of(t) == rung]
        return any(t.state != TrialState.FAIL or t.number > trial.number for t in same)

    failed = [t for t in trials if t.state == TrialState.FAIL and "skipped" not in t.user_attrs]
    return [t for t in failed if "error" in t.user_attrs or not again(t)]


def has_place(study: optuna.Study, number: int) -> bool:
    """Whether trial ``number`` is among the first ``trials`` that will finish; see the rules above."""
    counted = 0
    for trial in study.get_trials(deepcopy=False):
        if "control" in trial.user_attrs or rung_of(trial) or trial.number == number:
            continue
        ahead = trial.number < number and trial.state in (TrialState.RUNNING, TrialState.WAITING)
        counted += counts(trial) or ahead
    return counted < int(study.user_attrs["trials"])


def open_places(study: optuna.Study) -> bool:
    """Whether a worker should start a trial: one is queued, or running and finished trials are fewer than wanted."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    waits = any(trial.state == TrialState.WAITING for trial in running)
    running = [trial for trial in running if rung_of(trial) == 0]
    return waits or len(running) + len(finished(study)) < int(study.user_attrs["trials"])


def done(study: optuna.Study) -> bool:
    """Whether the wanted number of trials has finished."""
    return len(finished(study)) >= int(study.user_attrs["trials"])


def control_key(architecture: Mapping[str, Value]) -> str:
    """Key of the study attribute that holds the scores of an architecture's control."""
    return f"control {json.dumps(dict(architecture), sort_keys=True)}"


def _begin(study: optuna.Study, terms: SearchTerms) -> None:
    """Enqueue the controls, the presets, and configurations of earlier studies as far as trials are left, each once.

    Points that are outside of the space, or equal to a control or an earlier one of them, are skipped.
    """
    there = {t.user_attrs.get("preset") for t in study.get_trials(deepcopy=False)}
    space = terms.open_space()
    restore_controls(study, terms)
    taken = [_control_point(space, terms, architecture) for architecture in space.architectures()]
    for name, preset in presets(space).items():
        if preset in taken:
            continue
        taken.append(preset)
        if name not in there:
            study.enqueue_trial(preset, user_attrs={"preset": name})
    begun = {str(t.user_attrs["values"]) for t in study.get_trials(deepcopy=False) if START in t.user_attrs}
    controls, last = len(space.architectures()), int(study.user_attrs["trials"])
    for start in study.user_attrs.get(STARTS, []):
        if start["values"] in taken or len(taken) - controls >= last:
            continue
        taken.append(start["values"])
        if str(start["values"]) not in begun:
            study.enqueue_trial(start["values"], user_attrs={START: start["study"], "values": start["values"]})


def presets(space: Space) -> dict[str, dict[str, Value]]:
    """The points that every search tries first, by name; without that of a recipe whose values are outside."""
    found = {name: space.current() if at is None else space.preset(at) for name, at in PRESETS.items()}
    return {name: point for name, point in found.items() if point is not None}


def starts_taken(study: optuna.Study) -> dict[str, int]:
    """By earlier study, the number of its configurations that were enqueued."""
    found = {start["study"]: 0 for start in study.user_attrs.get(STARTS, [])}
    for trial in study.get_trials(deepcopy=False):
        if START in trial.user_attrs and RETRY_OF not in trial.user_attrs:
            found[trial.user_attrs[START]] += 1
    return found


def restore_controls(study: optuna.Study, terms: SearchTerms) -> int:
    """Enqueue the controls that are neither measured nor running nor queued; return how many."""
    open_trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
    there = {t.user_attrs.get("control") for t in open_trials} | set(study.user_attrs)
    space = terms.open_space()
    missing = [a for a in space.architectures() if control_key(a) not in there]
    for architecture in missing:
        values = _control_point(space, terms, architecture) or {}
        study.enqueue_trial(values, user_attrs={"control": control_key(architecture)})
    return len(missing)


def _control_point(space: Space, terms: SearchTerms, architecture: Mapping[str, Value]) -> dict[str, Value] | None:
    """The control of an architecture as a point of the space; None if every point of the space augments."""
    if not changes_nothing(space.with_values(space.preset(0.0)).policy):
        return None
    return {**space.preset(0.0), **terms.control_values(architecture)}


def _refuse_changes(name: str, mine: SearchTerms, theirs: SearchTerms) -> None:
    words = differences(mine.open_space(), theirs.open_space())
    old, new = theirs.model_dump(exclude={"space"}), mine.model_dump(exclude={"space"})
    words += [f"{key} was {_term(key, old)}, is {_term(key, new)}" for key in old if old[key] != new[key]]
    if words:
        more = f" (and {len(words) - 2} more)" if len(words) > 2 else ""
        raise InputError(f"study '{name}' cannot be resumed or joined with other terms: {'; '.join(words[:2])}{more}")


def _term(key: str, terms: Mapping[str, Any]) -> object:
    """A term as words; rungs are written as on the command line."""
    value = terms[key]
    if key == "fork":
        return f"from the control after epoch {value}" if value else "none"
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else value
