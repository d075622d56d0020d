"""``python -m augkit.tune package.module:train``: search the policy of a training loop, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkit.augment.policy import Policy
from augkit.core.cli import FlagGroup, interrupted, positive_number, print_json, split_recipe, spread
from augkit.core.errors import InputError
from augkit.core.files import claim, environment, reserve, write
from augkit.core.jobs.storage import Storage, open_storage
from augkit.core.named import is_name, load_named, module_has
from augkit.core.schema import apply_overrides
from augkit.core.terminal import say
from augkit.data.files import check_kept
from augkit.train.user_images import images_named, measuring_overrides
from augkit.train.user_loop import check_function
from augkit.tune import optuna_study
from augkit.tune.goal import Goal
from augkit.tune.policy_results import PolicyResults
from augkit.tune.policy_run import JOURNAL, prepare, run_search
from augkit.tune.tables import print_trials

OWN = ("validation", "space", "score", "timeout", "check_seed")
# The flags that apply to a function beside its own; another one that is given is refused.
FITTING = (
    *("recipe", "json", "output", "seed", "quiet", "show", "resume", "overwrite", "full"),
    *("trials", "trial_epochs", "rungs", "factor", "sampler", "floor"),
    *("objective", "at_least_invariance", "at_least_accuracy", "atypical"),
    *("storage", "study", "workers", "workers_per_gpu", "launcher", "gpus_per_worker", "retries", "grace"),
)
WHY = {
    "device": "a function chooses its device itself",
    "seeds": "the best policies of a function are retrained by augkit.compare",
    "top": "the best policies of a function are retrained by augkit.compare",
    "nproc_per_trial": "a function starts its processes itself",
    "tune_control": "the control of a function has no fields to search",
    "least_epochs": "trials of a function are not pruned; --rungs stop the weak ones",
    "keep_trials": "a function keeps what it wants to keep itself",
}
FLAGS = {"starts": "from"}  # of options, where their names differ


def add_flags(group: FlagGroup) -> None:
    """Add the flags that only apply to a function."""
    group.add_argument(
        "--validation",
        metavar="MODULE:NAME",
        help="images and labels, or a dataset, or a function that returns them (default: 'validation' of the module)",
    )
    group.add_argument(
        "--space", metavar="MODULE:NAME", help="policy or mapping that is searched (default: 'space' of the module)"
    )
    group.add_argument(
        "--score", metavar="MODULE:NAME", help="in place of accuracy (default: 'score' of the module, if it has one)"
    )
    group.add_argument(
        "--timeout", type=positive_number, metavar="SECONDS", help="time after which a call has failed (default: none)"
    )
    group.add_argument("--check-seed", action="store_true", help="train the control twice, and compare")


def function_in(options: argparse.Namespace) -> str | None:
    """The name of the function among the positional words; None if a recipe is tuned.

    Raises:
        InputError: there are a function and a recipe, or flags of a function without one.
    """
    words, _ = split_recipe(options.recipe, None)
    names = [word for word in words if is_name(word) and not Path(word).exists()]
    if names and len(words) > 1:
        raise InputError(f"expected one function and dotted.key=value overrides, got {' '.join(words)}")
    given = [f"--{name.replace('_', '-')}" for name in OWN if getattr(options, name)]
    if given and not names:
        raise InputError(f"{given[0]}: expected a function, package.module:train, to which it applies, got none")
    return names[0] if names else None


def refuse_flags(options: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Raise InputError if a flag was given that does not apply to a function; ``defaults`` are those of the parser."""
    for name, value in vars(options).items():
        if name not in (*FITTING, *OWN) and value != defaults.get(name):
            flag = FLAGS.get(name, name).replace("_", "-")
            flag = flag if value is not False else f"no-{flag}"
            raise InputError(f"--{flag}: expected a recipe, because {WHY.get(name, 'it does not apply to a function')}")


def tune_function(
    name: str, options: argparse.Namespace, arguments: Sequence[str], goal: Goal, factor: int | None, folder: Path
) -> None:
    """Search the policy of the function, write the results to ``folder``, and print them."""
    module = name.partition(":")[0]
    function = load_named(name, "train")
    check_function(function)
    validation = options.validation or f"{module}:validation"
    score = options.score or (f"{module}:score" if module_has(module, "score") else None)
    _, overrides = split_recipe(options.recipe, None)
    measuring = measuring_overrides([text for text in overrides if not text.startswith("policy.")], "policy.*")
    search = prepare(
        function,
        images_named(validation, "validation"),
        space=_space(options.space, module, [text for text in overrides if text.startswith("policy.")]),
        trials=options.trials,
        epochs=options.trial_epochs,
        rungs=options.rungs,
        factor=factor,
        goal=goal,
        score=None if score is None else load_named(score, "score"),
        sampler=options.sampler,
        floor=options.floor,
        seed=options.seed or 0,
        workers=spread(options),
        timeout=options.timeout,
        check_seed=options.check_seed,
        storage=options.storage,
        measuring=measuring,
        images_name=validation,
    )
    study = options.study or "augkit"
    if options.overwrite and not options.resume:
        check_kept(folder, [options.space])
    reserve(folder, resume=options.resume, overwrite=options.overwrite)
    _refuse_known_study(options, study, folder)

    def take() -> None:
        claim(folder, resume=options.resume, overwrite=options.overwrite)
        write(folder / "environment.json", json.dumps(environment(), indent=2))

    try:
        found = run_search(search, folder, options.storage, study, take=take, quiet=options.quiet)
        found.write(folder)
    except KeyboardInterrupt:
        raise interrupted("tune", arguments, folder) from None
    if found.warning is not None:
        print(f"augkit: warning: {found.warning}", file=sys.stderr)
    _print(found, folder, options)


def _print(found: PolicyResults, folder: Path, options: argparse.Namespace) -> None:
    if options.json:
        print_json({**found.to_dict(), "folder": str(folder)})
        return
    best = found.chosen
    say(
        f"chosen: trial {best.number}, {best.policy}: accuracy {100 * best.accuracy:.1f} %, learned invariance"
        f" {100 * best.learned_invariance:.1f} %, on the images that chose it"
    )
    print_trials(found.search, full=options.full)
    print(f"report: {folder / 'report.html'}\npolicy: {folder / 'best.yaml'}")


def _space(name: str | None, module: str, overrides: list[str]) -> Policy | Mapping[str, Any]:
    """The space that is named, or that of the module, with the overrides of the command line."""
    space: Any = {}
    if name is not None or module_has(module, "space"):
        space = load_named(name or f"{module}:space", "space")
    elif not overrides:
        raise InputError(f"space: expected 'space' in {module}, --space MODULE:NAME or policy.* overrides, got none")
    if not overrides or not isinstance(space, (Policy, Mapping)):
        return space
    tree = space.model_dump(exclude_none=True) if isinstance(space, Policy) else dict(space)
    found: Mapping[str, Any] = apply_overrides({"policy": tree}, overrides)["policy"]
    return found


def _refuse_known_study(options: argparse.Namespace, study: str, folder: Path) -> None:
    """Raise InputError if the study exists in a storage of this machine and is not resumed."""
    place = Storage.parse(options.storage or folder / JOURNAL)
    if options.storage is None or options.resume or place.is_remote or place.is_inside(folder):
        return
    optuna_study.refuse_existing(open_storage(place, grace=options.grace), study)
