"""``python -m augkit.tune``: search augmentation, and report whether it made the network more invariant."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path

from augkit.core.cli import (
    HelperInterrupted,
    Interrupted,
    Parser,
    add_full,
    add_spread,
    add_writing,
    called,
    make_parser,
    new_folder,
    positive,
    print_json,
    run,
    split_recipe,
    spread,
    without_place,
)
from augkit.core.errors import InputError
from augkit.core.files import reserve, write
from augkit.core.jobs.storage import Storage
from augkit.core.terminal import command_line, say
from augkit.data.files import check_kept, check_read_files
from augkit.measure.tables import print_carried_over, print_table
from augkit.tune import loop_command
from augkit.tune.earlier import JOURNAL, load_study
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import FLOOR, SAMPLERS, TRIALS, load_terms
from augkit.tune.page import search_page
from augkit.tune.pipeline import TuneWorkers, tune
from augkit.tune.results import JoinedSearch, TuneResults, search_results
from augkit.tune.space import Space
from augkit.tune.tables import chosen_words, cost_words, print_trials, print_verified

EXAMPLE = """python -m augkit.tune mnist5k train.epochs=12 --trials 40 --seeds 5 --output runs/longer
  python -m augkit.tune mnist5k optim.lr='{search: [0.01, 1], log: true}' policy.shift.max_pixels='{search: [0, 8]}'
  python -m augkit.tune mnist5k --objective accuracy --at-least-invariance 0.5 --workers 2
  python -m augkit.tune mnist5k train.epochs=16 --rungs 1,3,8 --trials 30
  python -m augkit.tune mnist5k --storage postgresql+psycopg://me@host/studies --study team   (on any number of hosts)
  python -m augkit.tune package.module:train policy.shift.max_pixels='{search: [0, 8]}'   (a training loop of your own)
  python -m augkit.tune --show runs/longer"""
OBJECTIVES = ("pareto", "accuracy", "invariance")


def main(arguments: list[str]) -> None:
    """Parse the command line, tune, and print the results."""
    options = command_parser().parse_intermixed_args(arguments)
    if options.show is not None:
        _show(options)
        return
    if (function := loop_command.function_in(options)) is not None:
        loop_command.refuse_flags(options, vars(command_parser().parse_args([])))
        goal, factor = _goal(options), _factor(options)
        loop_command.tune_function(function, options, arguments, goal, factor, _folder(options))
        return
    folder, space = _folder(options), _space(options)
    if options.overwrite and not options.resume:
        check_read_files(folder, split_recipe(options.recipe, None)[0], "recipe.yaml")
        check_kept(folder, options.starts)
    try:
        results = tune(
            space,
            folder,
            trials=options.trials,
            trial_epochs=options.trial_epochs,
            least_epochs=options.least_epochs,
            seeds=options.seeds,
            top=options.top,
            rungs=options.rungs,
            factor=_factor(options),
            fork=options.fork,
            goal=_goal(options),
            sampler=options.sampler,
            floor=options.floor,
            tune_control=options.tune_control,
            starts=options.starts,
            storage=options.storage,
            study_name=options.study or "augkit",
            workers=TuneWorkers(
                **vars(spread(options)),
                processes=options.nproc_per_trial,
                keep=options.keep_trials,
                finals=options.final_processes,
                dashboard=options.dashboard,
            ),
            device=options.device,
            resume=options.resume,
            overwrite=options.overwrite,
            quiet=options.quiet,
        )
    except HelperInterrupted:  # with --resume this process would lead the study and do its final runs
        raise Interrupted(f"{called('tune')} {command_line(without_place(arguments))}") from None
    except KeyboardInterrupt:
        if not (folder / "recipe.yaml").is_file():
            raise
        raise Interrupted(_resume_line(options, folder)) from None
    if options.json:
        print_json({**results.to_dict(), "folder": str(folder)})
    elif isinstance(results, JoinedSearch):
        print(f"helped with study '{options.study or 'augkit'}': {results.search_cost.trials} trials have finished")
    else:
        _print(results, folder, full=options.full)


def _print(results: TuneResults, folder: Path, *, full: bool) -> None:
    say(results.conclusion)
    print_table(results.table, full=full)
    if full:
        print_carried_over(results.carry_over)
        print_verified(results.verified)
        print(f"\nchosen: {chosen_words(results.chosen)}")
    else:
        say(results.verified.sentence)
    say(f"time:   {cost_words(results)}", indent="        ")
    print(f"report: {folder / 'report.html'}\nrecipe: {folder / 'best.yaml'}")


def command_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser(
        "tune",
        "Search augmentation, or any field of a recipe that is written as a range, for accuracy and learned"
        " invariance; without arguments, on 5,000 digits in two to three minutes.",
        EXAMPLE,
    )
    parser.add_argument(
        "recipe",
        nargs="*",
        metavar="RECIPE|MODULE:FUNCTION [dotted.key=value ...]",
        help="a recipe (default: mnist5k), or a training loop of your own, train(policy, *, epochs, seed, start)",
    )
    parser.add_argument(
        "--show",
        metavar="STUDY",
        help="print and plot the trials of a study, given as folder or, with --storage, by name",
    )
    parser.add_argument(
        "--trials",
        type=positive,
        help=f"number of finished trials; pruned ones count (default: {TRIALS}, or those of the study that is resumed)",
    )
    parser.add_argument(
        "--trial-epochs", type=positive, metavar="N", help="most epochs of a trial (default: half the recipe's epochs)"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="number of seeds of the final runs (default: 3)")
    parser.add_argument(
        "--top", type=positive, default=2, help="number of trials retrained at full length (default: 2)"
    )
    parser.add_argument(
        "--rungs",
        type=_rungs,
        metavar="N,N,...",
        help="Pareto halving: train every trial for the first number of epochs, and the best part of those on each rung"
        " for the next; 'none' trains every trial for all its epochs (default: an eighth, a quarter, a half and all of"
        " --trial-epochs, as far as 2 trials or more get to the end; none with a bound, --sampler nsga2,"
        " --least-epochs or --nproc-per-trial)",
    )
    parser.add_argument(
        "--factor",
        type=positive,
        metavar="N",
        help="with rungs: one trial in N goes on (default: 3; 4 in long searches)",
    )
    parser.add_argument(
        "--fork",
        action="store_true",
        help="start every trial from the weights of the control, trained for half of the recipe's epochs, and train it"
        " for 2 epochs, or --trial-epochs, or --rungs",
    )
    goal = parser.add_argument_group("goal of the search")
    goal.add_argument(
        "--objective", choices=OBJECTIVES, default="pareto", help="pareto: both, without pruning (default: pareto)"
    )
    goal.add_argument(
        "--at-least-invariance", type=_share, metavar="X", help="bound for --objective accuracy; bad trials are pruned"
    )
    goal.add_argument(
        "--at-least-accuracy", type=_share, metavar="Y", help="bound for --objective invariance; bad trials are pruned"
    )
    goal.add_argument(
        "--atypical",
        action="store_true",
        help="with pareto: add learned invariance on atypical images as a third objective",
    )
    goal.add_argument("--sampler", choices=tuple(SAMPLERS), default="tpe", help="Optuna sampler (default: tpe)")
    goal.add_argument(
        "--least-epochs",
        type=positive,
        metavar="N",
        help="epochs before a trial may be pruned (default: a quarter of its epochs)",
    )
    goal.add_argument(
        "--floor",
        type=_share,
        default=FLOOR,
        help="a trial whose accuracy above chance or kappa is clearly below this share of the control's cannot win"
        f" (default: {FLOOR:g})",
    )
    goal.add_argument(
        "--tune-control",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="first search the control's own fields, with as many trials (default: only if train.* or optim.* are"
        " searched beside augmentation)",
    )
    goal.add_argument(
        "--from",
        dest="starts",
        action="append",
        default=[],
        metavar="STUDY",
        help="try the best configurations of an earlier search of the same space after the presets, given as folder or,"
        " with --storage, by name; repeatable",
    )
    loop_command.add_flags(parser.add_argument_group("a training loop of your own"))
    where = parser.add_argument_group("workers")
    add_spread(where, "study.journal in --output", "augkit")
    where.add_argument(
        "--nproc-per-trial",
        type=positive,
        default=1,
        metavar="N",
        help="processes per trial, started by torchrun (default: 1)",
    )
    where.add_argument(
        "--final-processes",
        type=positive,
        metavar="N",
        help="processes that train and measure networks on the CPU, in a search by one worker and in the final runs,"
        " which share its threads (default: one per thread, at most 4, where this takes long enough to be worth it)",
    )
    where.add_argument("--keep-trials", action="store_true", help="keep the run folder of every trial")
    where.add_argument("--dashboard", action="store_true", help="write notes and pictures for optuna-dashboard")
    add_full(parser)
    add_writing(parser)
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got '{text}'")
    return value


def _rungs(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers of epochs, such as 2,4,8, or none, got '{text}'") from None


def _factor(options: argparse.Namespace) -> int | None:
    if options.factor is not None and options.rungs == ():
        raise InputError("--factor: expected rungs, whose best part it sets, got --rungs none")
    return None if options.factor is None else int(options.factor)


def _goal(options: argparse.Namespace) -> Goal:
    bounds = {"accuracy": options.at_least_invariance, "invariance": options.at_least_accuracy, "pareto": None}
    flags = {"accuracy": "--at-least-invariance", "invariance": "--at-least-accuracy"}
    wanted = flags.get(options.objective)
    given = [flag for name, flag in flags.items() if bounds[name] is not None]
    if given != ([wanted] if wanted else []):
        expected = f"expects {wanted}" if wanted else "expects no bound"
        raise InputError(f"--objective {options.objective}: {expected}, got {' and '.join(given) or 'none'}")
    if options.atypical and options.objective != "pareto":
        raise InputError("--atypical: expected --objective pareto, because it adds an objective")
    return Goal(mode=options.objective, at_least=bounds[options.objective], atypical=options.atypical)


def _space(options: argparse.Namespace) -> Space:
    recipes, overrides = split_recipe(options.recipe, None)
    kept = _kept_space(options) if options.output and options.resume and not options.recipe else None
    if kept is not None:
        space = kept
    elif len(recipes) > 1:
        raise InputError(f"expected one recipe and dotted.key=value overrides, got {' '.join(options.recipe)}")
    else:
        space = Space.load(recipes[0] if recipes else "mnist5k", overrides)
    if options.seed is None:
        return space
    return Space(space.recipe.replaced(seed=options.seed), space.ranges)


def _kept_space(options: argparse.Namespace) -> Space | None:
    """The space of a search that is resumed without its recipe; None where it may be that of the default recipe.

    Raises:
        InputError: nothing in the folder is of a search, or its space cannot be read.
    """
    file = options.output / "space.json"
    if file.is_file():
        try:
            return Space.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"'{file}': cannot be read ({error}); resume with the recipe") from None
    if options.storage is None and not (options.output / JOURNAL).is_file():
        raise InputError(f"--resume: expected a folder of augkit.tune, there is no '{file}'; or name the recipe")
    return None


def _show(options: argparse.Namespace) -> None:
    folder = Path(options.show)
    study = load_study(folder, options.storage, options.study or (options.show if options.storage else None))
    found = search_results(study, load_terms(study))
    if options.json:
        print_json({"study": study.study_name, **found.to_dict()})
        return
    print_trials(found, full=options.full)
    target = options.output or (folder if folder.is_dir() else None)
    if target is not None:
        reserve(target, resume=True)
        write(target / "search.html", search_page(study.study_name, found))
        print(f"report: {target / 'search.html'}")
        if (target / "report.html").is_file():
            print(f"with the final runs: {target / 'report.html'}")


def _folder(options: argparse.Namespace) -> Path:
    if options.output is not None:
        return Path(options.output)
    if options.resume:
        raise InputError("--resume: expected --output DIR, the folder to resume")
    if options.storage is not None and Storage.parse(options.storage).kind != "journal":
        # Many hosts may start in the same second and share a file system.
        return new_folder(f"tune-{options.study or 'augkit'}-{socket.gethostname()}-{os.getpid()}")
    return new_folder("tune")


def _resume_line(options: argparse.Namespace, folder: Path) -> str:
    """The command that resumes this search: the same options but those that only a new search accepts."""
    line = [*called("tune").split(), "--output", str(folder), "--resume"]
    parser = command_parser()
    skipped = ("recipe", "output", "resume", "overwrite", "json", "quiet", "show", "seed", "starts")
    for name, value in vars(options).items():
        flag = name.replace("_", "-")
        if name in skipped or value == parser.get_default(name):
            continue
        if isinstance(value, bool):
            line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            line += [f"--{flag}", ",".join(map(str, value)) or "none"]
        else:
            line += [f"--{flag}", str(value)]
    return command_line(line)


if __name__ == "__main__":
    sys.exit(run(main))
