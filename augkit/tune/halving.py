"""Pareto halving in a study: each trial runs one configuration on one rung, and promotions are further trials.

A configuration is a point of the space; its number is that of its trial on the lowest rung, which the sampler or a
preset gave. A promotion is a waiting trial with the same values, the number of its rung and that of its configuration,
so the queue of the study holds it from the moment at which it is decided, and the rung of a dead worker is retried as
any other trial. Promotions are found from what the study holds, so none is lost if a process dies before it is
enqueued. Two workers may enqueue the same promotion: only the one with the smallest number runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.errors import InputError, brief, check_whole
from augkit.core.jobs.retry import RETRY_OF
from augkit.core.jobs.worker import OPEN
from augkit.tune import optuna_study
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import CONFIGURATION, RUNG, ControlScores, SearchTerms, rung_of
from augkit.tune.promotion import Standing, promotable
from augkit.tune.space import Value

LEARNS = ("tpe", "gp")  # samplers that use results, each as a function of all trials: they are shown one rung
IGNORES = ("qmc", "random")  # samplers that use no results
MOST = 4  # rungs that are derived, so that the lowest one has an eighth of a trial's epochs
FACTOR, FACTOR_OF_LONG, LONG = 3, 4, 32  # by default; the second from so many configurations on
LEAST = 2  # configurations that derived rungs let reach the top
PLACE = "place"  # user attribute: folder of the run of a trial, which other workers may reach
EARLY = "lower rungs of the "  # study attribute, followed by the key of a control: its scores while it is trained


def configuration_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Number of the configuration of a trial."""
    return int(trial.user_attrs.get(CONFIGURATION, trial.number))


def outcomes(trials: Iterable[FrozenTrial], rung: int) -> dict[int, FrozenTrial]:
    """Completed trials of a rung, by configuration; without those that were answered from the study."""
    done = [
        trial
        for trial in trials
        if optuna_study.counts(trial)
        and trial.state == TrialState.COMPLETE
        and rung_of(trial) == rung
        and "same_as" not in trial.user_attrs
    ]
    return {configuration_of(trial): trial for trial in reversed(done)}  # of several, the first


def next_promotion(trials: Sequence[FrozenTrial], terms: SearchTerms, wanted: int) -> FrozenTrial | None:
    """The trial whose configuration is promoted next, from the highest rung that has one; None if there is none now.

    Args:
        trials: all trials of the study at one moment.
        terms: terms of the search.
        wanted: number of configurations.
    """
    found, closed = None, _lowest_is_done(trials, wanted)
    for rung in range(len(terms.rungs) - 1):
        here = outcomes(trials, rung)
        above = [trial for trial in trials if rung_of(trial) == rung + 1]
        promoted = {configuration_of(trial) for trial in above}
        # A configuration that failed for good further up gives its place to the next one.
        lost = promoted - {configuration_of(trial) for trial in above if trial.state != TrialState.FAIL}
        standings = [standing(number, trial, terms) for number, trial in sorted(here.items()) if number not in lost]
        chosen = promotable(standings, promoted, terms.factor, closed=closed and bool(standings))
        if chosen:
            found = here[chosen[0]]
        closed = closed and not chosen and not any(trial.state in OPEN for trial in above)
    return found


def _lowest_is_done(trials: Iterable[FrozenTrial], wanted: int) -> bool:
    """Whether the wanted number of configurations has finished the lowest rung."""
    return sum(optuna_study.counts(trial) and rung_of(trial) == 0 for trial in trials) >= wanted


def standing(number: int, trial: FrozenTrial, terms: SearchTerms) -> Standing:
    """The standing of a completed trial among those of its rung; accuracy counts from that of guessing.

    ``number`` is that of its configuration.
    """
    bounds: Iterable[float] = trial.user_attrs.get("bounds", {}).values()
    guess = trial.user_attrs.get("chance", 0.0)
    pairs = zip(terms.goal.objectives, trial.values, strict=True)
    values = tuple(value - guess * (name == "accuracy") for name, value in pairs)
    return Standing(number, values, sum(max(0.0, bound) for bound in bounds))


def promote(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue the configuration of a completed trial for the next rung."""
    attributes = {
        RUNG: rung_of(trial) + 1,
        CONFIGURATION: configuration_of(trial),
        "values": trial.user_attrs["values"],
    }
    study.enqueue_trial(trial.params, user_attrs=attributes)


def places_of(study: optuna.Study, configuration: int) -> list[Path]:
    """Folders in which workers have trained a configuration, the latest first; they may be on other hosts."""
    trials = [t for t in study.get_trials(deepcopy=False) if configuration_of(t) == configuration]
    return [Path(trial.user_attrs[PLACE]) for trial in reversed(trials) if PLACE in trial.user_attrs]


def is_wanted(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether a trial is to be run: it has a place among the configurations, or is the first promotion of its own."""
    if not rung_of(trial):
        return optuna_study.has_place(study, trial.number)
    known = {t.number: t for t in study.get_trials(deepcopy=False)}
    key = rung_of(trial), configuration_of(trial)
    origin = trial.number
    while (before := known[origin].user_attrs.get(RETRY_OF)) is not None:
        origin = before
    same = [n for n, t in known.items() if (rung_of(t), configuration_of(t)) == key and RETRY_OF not in t.user_attrs]
    return origin == min(same)


def has_job(study: optuna.Study, terms: SearchTerms) -> bool:
    """Whether a worker should take a trial; if none waits and a configuration can be promoted, enqueue that first."""
    if terms.rungs:
        trials = study.get_trials(deepcopy=False)
        if not any(trial.state == TrialState.WAITING for trial in trials):
            trial = next_promotion(trials, terms, int(study.user_attrs["trials"]))
            if trial is not None:
                promote(study, trial)
    return optuna_study.open_places(study)


def done(study: optuna.Study, terms: SearchTerms) -> bool:
    """Whether the wanted number of trials has finished, and with rungs no promotion is open or still to come."""
    if not terms.rungs:
        return optuna_study.done(study)
    trials, wanted = study.get_trials(deepcopy=False), int(study.user_attrs["trials"])
    climbs = any(rung_of(trial) and trial.state in OPEN for trial in trials)
    return _lowest_is_done(trials, wanted) and not climbs and next_promotion(trials, terms, wanted) is None


def scores_on(control: ControlScores, rung: int) -> ControlScores:
    """The scores of a control on a rung."""
    lower = control.get("rungs", [])
    return lower[rung] if rung < len(lower) else control


def reference_on(study: optuna.Study, architecture: Mapping[str, Value], rung: int) -> ControlScores | None:
    """The scores of the control of an architecture on a rung; None until it was measured there."""
    key, attributes = optuna_study.control_key(architecture), study.user_attrs
    if key in attributes:
        return scores_on(attributes[key], rung)
    early: list[ControlScores] = attributes.get(EARLY + key, [])
    return early[rung] if rung < len(early) else None


def epochs_on(terms: SearchTerms, rung: int) -> int:
    """Epochs that a trial has been trained for when it is measured on a rung."""
    return terms.rungs[rung] if terms.rungs else terms.epochs


def epochs_of_a_trial(
    rungs: Sequence[int] | None, factor: int | None, trial_epochs: int | None, recipe_epochs: int
) -> int:
    """Most epochs of a trial: those of the last rung, or without rungs ``trial_epochs``, or half of the recipe's.

    Raises:
        InputError: the rungs do not ascend, are fewer than two, go beyond the budget or contradict ``trial_epochs``; or
            the factor is below 2.
    """
    check_whole("epochs of a trial", trial_epochs, 1)
    check_whole("factor", factor, 2)
    if rungs is None or (isinstance(rungs, Sequence) and not rungs):
        return trial_epochs or math.ceil(recipe_epochs / 2)
    if isinstance(rungs, str) or not isinstance(rungs, Sequence):
        raise InputError(
            f"rungs: expected two or more ascending numbers of epochs, such as (2, 4, 8), got {brief(rungs)}"
        )
    for epochs in rungs:
        check_whole("rungs", epochs, 0, optional=False)
    words = ",".join(map(str, rungs))
    if len(rungs) < 2 or any(low >= high for low, high in itertools.pairwise([0, *rungs])):
        raise InputError(f"--rungs: expected two or more ascending numbers of epochs, such as 2,4,8, got {words}")
    if trial_epochs not in (None, rungs[-1]):
        raise InputError(f"--rungs: expected the last one to be --trial-epochs {trial_epochs}, got {words}")
    if trial_epochs is None and rungs[-1] > recipe_epochs:
        raise InputError(
            f"--rungs: expected at most the recipe's {recipe_epochs} epochs, got {words}; raise train.epochs"
        )
    return rungs[-1]


def derived_rungs(epochs: int, trials: int, factor: int) -> tuple[int, ...]:
    """Rungs of a search that is given none: the epochs of a trial, and their halves, quarters and eighths.

    Halves are rounded down. There are fewer rungs if otherwise fewer than `LEAST` configurations would reach the top.

    Args:
        epochs: epochs of a trial, which the top rung has.
        trials: number of configurations.
        factor: one of ``factor`` configurations goes on.

    Returns:
        Epochs of each rung, ascending; empty for fewer than two rungs.

    >>> derived_rungs(4, 24, 3), derived_rungs(4, 10, 3), derived_rungs(4, 5, 3)
    ((1, 2, 4), (2, 4), ())
    """
    rungs, left = [epochs], trials // factor
    while len(rungs) < MOST and rungs[0] > 1 and left >= LEAST:
        rungs, left = [rungs[0] // 2, *rungs], left // factor
    return tuple(rungs) if len(rungs) > 1 else ()


def derived_factor(rungs: Sequence[int], trials: int) -> int:
    """Factor of a search that is given none: 4 in long ones, if two configurations or more then reach the top, else 3.

    In replays of long searches 4 was faster than 3 (benchmarks/results/tune-replay.md).

    Args:
        rungs: epochs of each rung, ascending.
        trials: number of configurations.

    >>> derived_factor((1, 2, 4), 24), derived_factor((1, 2, 4), 32), derived_factor((1, 2, 4, 8), 32)
    (3, 4, 3)
    """
    enough = trials >= LONG and trials // FACTOR_OF_LONG ** (len(rungs) - 1) >= LEAST
    return FACTOR_OF_LONG if rungs and enough else FACTOR


def goes_with_rungs(goal: Goal, sampler: str, processes: int, least_epochs: int | None) -> bool:
    """Whether rungs are derived where none are given; a goal with a bound is left to pruning, which it can use."""
    return not goal.prunes and sampler in (*LEARNS, *IGNORES) and processes == 1 and least_epochs is None


def refuse_with_rungs(rungs: Sequence[int], sampler: str, processes: int, least_epochs: int | None) -> None:
    """Raise InputError if there are rungs and a setting of the search does not go with them."""
    if not rungs:
        return
    if sampler not in (*LEARNS, *IGNORES):
        raise InputError(f"--rungs: expected --sampler {', '.join((*LEARNS, *IGNORES))}, got {sampler}")
    if processes > 1:
        raise InputError(f"--rungs: expected --nproc-per-trial 1, because torchrun cannot pause a run, got {processes}")
    if least_epochs is not None:
        raise InputError("--least-epochs: expected no --rungs, which replace pruning; the first rung is the least")
