"""The search of a policy for a training loop of the user: trials as in `augkit.tune`, trained by a function."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from augkit.augment.policy import Policy
from augkit.core.files import reserve
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.named import refuse_in_import
from augkit.data import Dataset, Images
from augkit.train.user_loop import Score, TrainFunction
from augkit.tune import optuna_study
from augkit.tune.goal import Goal
from augkit.tune.inputs import as_folder
from augkit.tune.policy_results import PolicyResults
from augkit.tune.policy_run import prepare, run_search


def tune_policy(  # noqa: PLR0913 (settings of a search and of its measurement, each with a default)
    train: TrainFunction,
    validation: tuple[Tensor, Tensor] | Images | Dataset,
    *,
    space: Policy | Mapping[str, Any],
    trials: int | None = None,
    epochs: int | None = None,
    rungs: Sequence[int] | None = None,
    factor: int | None = None,
    goal: Goal | None = None,
    score: Score | None = None,
    sampler: str = "tpe",
    floor: float = optuna_study.FLOOR,
    seed: int = 0,
    protocol: str = "crop",
    max_shift: float = 4.0,
    kernel: str | None = None,
    pairs: int = 4,
    canvas: int | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    folder: str | Path | None = None,
    storage: str | None = None,
    study_name: str = "augkit",
    workers: int | WorkerSettings = 1,
    timeout: float | None = None,
    check_seed: bool = False,
    quiet: bool = True,
) -> PolicyResults:
    """Search the policy of a training loop for accuracy and learned invariance.

    The loop is a function ``train(policy, *, epochs, seed, start)`` that trains a network with ``policy`` and returns
    it. It is called for the control, which is the policy without any op, and for each trial. Every network is measured
    on ``validation``; learned invariance is relative to the control. With the same ``seed`` the function should give
    the same network.

    With ``rungs``, ``start`` is a folder of the configuration: empty when its training begins, and on the next rung as
    the function left it when it last returned. ``epochs`` is the total: a function that finds its checkpoint after
    epoch 2 and is called with ``epochs=4`` trains two more. A function that leaves nothing there trains anew on each
    rung, which the cost in the results counts. Without ``rungs``, ``start`` is None.

    A study that exists at ``storage``, or in ``folder``, is continued until it has ``trials`` trials: the same call
    again resumes it after an interrupt, and the same call in several processes shares its trials among them.

    Args:
        train: the training loop.
        validation: images ``(N, C, H, W)``, uint8 or floating in [0, 1] and not normalized, with labels ``(N,)``; or
            `augkit.data.Images`, or a dataset, of which the validation split is taken.
        space: the policy whose strengths are searched, each in the range of its op; or a mapping as under ``policy`` in
            a recipe, in which ranges such as ``{"search": [0, 8]}`` may be written.
        trials: number of trials to finish; the control does not count. None takes 24, or the number of the study that
            is continued.
        epochs: epochs of a trial; None takes the last rung, or 10.
        rungs: epochs of each rung of Pareto halving, ascending, such as (2, 4, 8); empty for no rungs. None takes those
            of the study that is continued; for a new one an eighth, a quarter, a half and all of ``epochs``, as far as
            two trials or more reach the top, unless the goal has a bound or the sampler is ``nsga2``.
        factor: with rungs, one of ``factor`` configurations goes on. None takes that of a study that is continued; for
            a new one 4 from 32 trials on, if two or more then reach the top, else 3.
        goal: goal of the search; None maximizes accuracy and learned invariance. Trials are never pruned.
        score: gives the score of a network in [0, 1], higher is better, which stands in the place of accuracy, such as
            the mean average precision of a detector; the network is in ``eval()``. Labels may then be None. The network
            must give logits ``(B, K)`` all the same, whose variability under shift is measured.
        sampler: ``tpe``, ``gp``, ``nsga2``, ``qmc`` or ``random``.
        floor: share of the control's accuracy above chance and kappa; a trial that is clearly below cannot win.
        seed: seed of the sampler and of all trainings.
        protocol, max_shift, kernel, pairs: as in `augkit.measure_invariance`. ``crop`` measures on windows smaller
            than the images; for a network that takes one size alone, choose ``circular``.
        canvas: side of the network's input in pixels; None takes that of the protocol.
        mean, std: per channel, applied to the images before the network sees them.
        folder: folder for the study and what the function leaves in ``start``; None uses a temporary one.
        storage: Optuna storage (file or URL); None takes ``study.journal`` in the folder.
        study_name: name of the Optuna study.
        workers: number of processes that train and measure, or their settings. Above 1 they import ``train`` (and
            ``score``) by name, so it must be at the top of a module.
        timeout: seconds after which a call of ``train`` is interrupted and its trial has failed; None waits for ever,
            and a function that hangs holds the search up. Code that never returns to Python cannot be interrupted in
            this process; with several workers the process of the worker is then killed and its trial run once more.
        check_seed: train the control twice, up to the first rung, and warn if the two networks differ.
        quiet: whether to print no progress to standard error.

    Returns:
        The chosen policy, the front, and all trials. The scores of the chosen policy are those of the search, on the
        images that chose it, so they are optimistic: measure it on other images before you report it.

    Raises:
        InputError: an argument is out of its range, or the study has other terms.
        RunError: the control could not be trained or measured, or three trials in a row failed.
    """
    refuse_in_import("tune_policy")
    search = prepare(
        train,
        validation,
        space=space,
        trials=trials,
        epochs=epochs,
        rungs=rungs,
        factor=factor,
        goal=goal,
        score=score,
        sampler=sampler,
        floor=floor,
        seed=seed,
        workers=workers,
        timeout=timeout,
        check_seed=check_seed,
        storage=storage,
        measuring={
            **{"protocol": protocol, "max_shift": max_shift, "kernel": kernel, "pairs": pairs},
            **{"canvas": canvas, "mean": mean, "std": std},
        },
    )
    with contextlib.ExitStack() as stack:
        place = as_folder(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="augkit-policy-")))
        reserve(place, resume=True)
        found = run_search(search, place, storage, study_name, quiet=quiet)
    if check_seed and found.warning is not None:
        warnings.warn(found.warning, stacklevel=2)
    return found
