"""``python -m augkit.compare``: compare recipes over several seeds on the same test images.

It also runs a study and tests its claims, measures finished runs without training, and combines finished studies.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from augkit.compare import loop_command
from augkit.compare.recipes import ComparisonResults, compare, compare_finished
from augkit.compare.study.meta_analysis import combine_studies, in_words, load_results
from augkit.compare.study.pipeline import run_study, summary
from augkit.compare.study.results import JoinedStudy
from augkit.compare.study.schema import Study, is_study, shipped_studies
from augkit.core.cli import (
    HelperInterrupted,
    Interrupted,
    Parser,
    add_full,
    add_log,
    add_spread,
    add_writing,
    called,
    interrupted,
    make_parser,
    new_folder,
    positive,
    print_json,
    run,
    split_recipe,
    spread,
)
from augkit.core.errors import InputError, RunError
from augkit.core.files import claim, environment, write
from augkit.core.json import jsonable
from augkit.core.progress import Display
from augkit.core.terminal import command_line, say
from augkit.data.files import check_kept, check_read_files
from augkit.measure.tables import print_carried_over, print_table
from augkit.train.recipe import Recipe, find_recipe

EXAMPLE = """python -m augkit.compare mnist5k --seeds 3
  python -m augkit.compare invariance --size quick --workers 2
  python -m augkit.compare runs/mine-seed0 runs/mine-seed1 runs/other-seed0 runs/other-seed1
  python -m augkit.compare runs/study-digits runs/study-clothes/results.json
  python -m augkit.compare package.module:train tuned=runs/loop/best.yaml   (a training loop of your own)"""


def main(arguments: list[str]) -> None:
    """Parse the command line, compare, and print the results."""
    options = command_parser().parse_intermixed_args(arguments)
    files, overrides = split_recipe(options.recipes, None)
    if not files:
        raise InputError("compare: expected a recipe or several, got none")
    function = loop_command.function_in(files, options)
    finished = len(files) > 1 and all(Path(file).is_dir() for file in files)
    if options.log and (function or finished or any(_is_results(file) or is_study(file) for file in files)):
        raise InputError(f"--log: expected recipes, whose runs trackers record, got {' '.join(files)}")
    if function is not None:
        if flags := _study_flags(options):
            raise InputError(f"compare: {_named(flags)} to studies, '{function}' is none")
        loop_command.compare_function(function, overrides, options, arguments)
    elif all(_is_results(file) for file in files):
        _across(files, overrides, options)
    elif any(is_study(file) for file in files):
        _study(files, overrides, options, arguments)
    elif flags := _study_flags(options):
        raise InputError(f"compare: {_named(flags)} to studies, '{files[0]}' is none")
    elif finished:
        _finished(files, overrides, options)
    else:
        _recipes(files, overrides, options, arguments)


def command_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser(
        "compare",
        "Compare recipes over seeds on typical and atypical test images. The first one is the control; a single"
        " recipe is compared with itself without augmentation. A study (a file with arms and claims, or a shipped"
        " name) is run, and its claims are tested. Folders of finished runs are measured without training; finished"
        " studies on several datasets are put together part by part (random effects).",
        EXAMPLE,
    )
    parser.add_argument(
        "recipes",
        nargs="*",
        metavar="RECIPE|STUDY|RUN|MODULE:FUNCTION [dotted.key=value ...]",
        help="files, shipped names, folders of finished runs, results of finished studies, or a training loop of your"
        " own with policies, as name=FILE",
    )
    parser.add_argument("--seeds", type=positive, help="training seeds per recipe (default: 3, or the study's)")
    loop_command.add_flags(parser.add_argument_group("a training loop of your own"))
    parser.add_argument("--size", help="size of a study: quick (default), standard or full")
    add_full(parser)
    add_log(parser)
    add_writing(parser)
    _add_study_flags(parser)
    return parser


def _add_study_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers, of a study")
    add_spread(group, "cells.journal in --output", "NAME-SIZE")
    group.add_argument(
        "--together",
        type=positive,
        default=1,
        metavar="N",
        help="train up to N seeds of an arm in one program, for a GPU; slower on a CPU (default: 1)",
    )


def _named(flags: list[str]) -> str:
    return f"{' and '.join(flags)} belong{'s' * (len(flags) == 1)}"


def _study_flags(options: argparse.Namespace) -> list[str]:
    """The given flags that only apply to a study."""
    own = argparse.ArgumentParser(add_help=False)
    _add_study_flags(own)
    defaults = {"size": None, **vars(own.parse_args([]))}
    changed = [name for name, default in defaults.items() if getattr(options, name) != default]
    return [f"--{name.replace('_', '-')}" for name in changed]


def _recipes(files: list[str], overrides: list[str], options: argparse.Namespace, arguments: list[str]) -> None:
    seeds, first = options.seeds or 3, options.seed or 0
    recipes = [Recipe.load(find_recipe(file, shipped_studies()), overrides) for file in files]
    if len(recipes) == 1:
        recipes = [recipes[0].control(), *recipes]
    folder = options.output or new_folder("compare")
    if options.overwrite and not options.resume:
        check_kept(folder, files)
    try:
        with Display(sum(r.train.epochs for r in recipes) * seeds, quiet=options.quiet) as display:
            results = compare(
                recipes,
                range(first, first + seeds),
                folder,
                device=options.device,
                resume=options.resume,
                overwrite=options.overwrite,
                display=display,
                log=options.log,
            )
    except KeyboardInterrupt:
        raise interrupted("compare", arguments, folder) from None
    _print(results, folder, options)


def _is_results(file: str) -> bool:
    return file.endswith(".json") or (Path(file) / "study.yaml").is_file()


def _across(files: list[str], overrides: list[str], options: argparse.Namespace) -> None:
    """Combine finished studies of the same claims on several datasets."""
    if overrides or options.seeds or options.seed is not None or options.resume or options.size:
        raise InputError("compare: finished studies cannot be changed; remove overrides, --seeds, --size and --resume")
    flags = [*_study_flags(options), *["--device"] * (options.device is not None)]
    if flags:
        raise InputError(f"compare: {_named(flags)} to what is still to be run, these studies are finished")
    lines = combine_studies(load_results([Path(file) for file in files]))
    found = jsonable({"across": [line.to_dict() for line in lines], "environment": environment()})
    if options.output is not None:
        if options.overwrite:
            check_kept(options.output, files)
        claim(options.output, overwrite=options.overwrite)
        write(options.output / "across.json", json.dumps(found, indent=2, allow_nan=False))
    if options.json:
        print_json({**found, "folder": None if options.output is None else str(options.output)})
    else:
        for line in in_words(lines).splitlines():
            say(line, indent="   ")


def _print(results: ComparisonResults, folder: Path, options: argparse.Namespace) -> None:
    if options.json:
        print_json({**results.to_dict(), "folder": str(folder)})
        return
    for name, text in results.conclusions.items():
        say(f"{name}: {text}")
    print_table(results.table, full=options.full)
    if options.full:
        print_carried_over(results.carry_over)
    print(f"written to {folder}")


def _finished(files: list[str], overrides: list[str], options: argparse.Namespace) -> None:
    if overrides or options.seeds or options.seed is not None or options.resume or options.overwrite:
        raise InputError("compare: finished runs cannot be changed; remove overrides, seeds, --resume and --overwrite")
    folder = options.output or new_folder("compare")
    with Display(len(files), quiet=options.quiet) as display:
        results = compare_finished([Path(file) for file in files], folder, device=options.device, display=display)
    _print(results, folder, options)


def _study(files: list[str], overrides: list[str], options: argparse.Namespace, arguments: list[str]) -> None:
    if len(files) > 1 or options.seed is not None:
        raise InputError("compare: expected one study, overrides of its recipe and --seeds N, which are counted from 0")
    study = Study.load(files[0], options.size or "quick", seeds=options.seeds, overrides=overrides)
    if options.resume and options.output is None:
        raise InputError("--resume: expected --output DIR, the folder to resume")
    folder = options.output or new_folder(f"study-{study.settings.name}-{study.size}")
    if options.overwrite and not options.resume:
        check_read_files(folder, files, "study.yaml")
    try:
        with Display(0, quiet=options.quiet) as display:
            results = run_study(
                study,
                folder,
                spread=spread(options),
                storage=options.storage,
                name=options.study,
                device=options.device,
                together=options.together,
                resume=options.resume,
                overwrite=options.overwrite,
                display=display,
            )
    except HelperInterrupted:
        raise Interrupted(f"{called('compare')} {command_line(arguments)}") from None
    except KeyboardInterrupt:
        raise interrupted("compare", arguments, folder) from None
    if options.json:
        print_json({"folder": str(folder), **results.to_dict()})
    elif isinstance(results, JoinedStudy):
        print(f"helped; the results will be in {results.folder}")
    else:
        for line in summary(results).splitlines():
            say(line, indent="   ")
        print(f"written to {folder}")
    if isinstance(results, JoinedStudy) or not results.cost.failed:
        return
    first, message = next(iter(results.cost.failed.items()))
    raise RunError(
        f"{len(results.cost.failed)} of {results.cost.runs} cells failed and are left out, such as {first}:"
        f" {message}; --output {folder} --resume runs them again"
    )


if __name__ == "__main__":
    sys.exit(run(main))
