"""``python -m augkit.compare package.module:train``: compare policies in a training loop, from the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from augkit.augment.policy import Policy
from augkit.compare.policies import PolicyComparison, compare_policies
from augkit.core.cli import FlagGroup, interrupted, new_folder, positive_number, print_json
from augkit.core.errors import InputError, check_whole
from augkit.core.files import claim, environment, write
from augkit.core.named import is_name, load_named, module_has
from augkit.core.schema import Tree, parse_override
from augkit.core.terminal import say
from augkit.data.files import check_kept
from augkit.measure.tables import print_carried_over, print_table
from augkit.train.user_images import images_named, measuring_overrides
from augkit.train.user_loop import check_function, check_score

OWN = ("test", "score", "timeout", "atypical")
EPOCHS = "train.epochs"


def add_flags(group: FlagGroup) -> None:
    """Add the flags that only apply to a function."""
    group.add_argument(
        "--test",
        metavar="MODULE:NAME",
        help="images and labels, or a dataset, or a function that returns them (default: 'test' of the module, or"
        " 'validation' if it has none)",
    )
    group.add_argument(
        "--score", metavar="MODULE:NAME", help="is compared too (default: 'score' of the module, if it has one)"
    )
    group.add_argument(
        "--timeout", type=positive_number, metavar="SECONDS", help="time after which a call has failed (default: none)"
    )
    group.add_argument("--atypical", action="store_true", help="measure on images with other content as well")


def function_in(files: Sequence[str], options: argparse.Namespace) -> str | None:
    """The name of the function among the positional words; None if there is none.

    Raises:
        InputError: there are other files beside the function, or flags of a function without one.
    """
    names = [word for word in files if is_name(word) and not Path(word).exists()]
    if names and len(files) > 1:
        raise InputError(f"compare: expected one function and name=policy.yaml, got {' '.join(files)}")
    given = [f"--{name}" for name in OWN if getattr(options, name)]
    if given and not names:
        raise InputError(f"{given[0]}: expected a function, package.module:train, to which it applies, got none")
    return names[0] if names else None


def compare_function(
    name: str, overrides: Sequence[str], options: argparse.Namespace, arguments: Sequence[str]
) -> None:
    """Compare the policies in the loop of the function, write the results, and print them."""
    if options.device is not None:
        raise InputError("--device: expected a recipe, because a function chooses its device itself")
    if options.resume and options.output is None:
        raise InputError("--resume: expected --output DIR, the folder to resume")
    module, function = name.partition(":")[0], load_named(name, "train")
    check_function(function)
    files = [text for text in overrides if text.endswith((".yaml", ".yml"))]
    policies = _policies(files, module)
    epochs = [text for text in overrides if text.startswith(f"{EPOCHS}=")]
    others = [text for text in overrides if text not in (*files, *epochs)]
    measuring = measuring_overrides(others, f"name=policy.yaml, {EPOCHS}")
    number = parse_override(epochs[-1])[1] if epochs else 10
    check_whole(EPOCHS, number, 1)
    test = options.test or f"{module}:{'test' if module_has(module, 'test') else 'validation'}"
    if options.test is None and test.endswith(":validation") and not options.quiet:
        print("augkit: warning: no 'test' in the module, so 'validation' is compared on", file=sys.stderr)
    score = options.score or (f"{module}:score" if module_has(module, "score") else None)
    settings: Tree = {
        "test": images_named(test, "test"),
        "policies": policies,
        "seeds": options.seeds or 3,
        "epochs": number,
        "score": None if score is None else load_named(score, "score"),
        "atypical": options.atypical,
        "seed": 1 if options.seed is None else options.seed,
        "timeout": options.timeout,
        **measuring,
    }
    check_score(settings["score"])
    with contextlib.suppress(_CheckedError):  # before earlier results are replaced
        compare_policies(_stop, **settings)
    folder = options.output or new_folder("compare")
    if options.overwrite and not options.resume:
        check_kept(folder, [text.partition("=")[2] for text in files])
    claim(folder, resume=options.resume, overwrite=options.overwrite)
    write(folder / "environment.json", json.dumps(environment(), indent=2))
    try:
        found = compare_policies(function, **settings, folder=folder, quiet=options.quiet)
        found.write(folder)
    except KeyboardInterrupt:
        raise interrupted("compare", arguments, folder) from None
    _print(found, folder, options)


class _CheckedError(BaseException):
    """The arguments of `compare_policies` are right; no Exception, which would be a failure of the function."""


def _stop(policy: Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
    """A function whose first call, which follows all checks, ends the comparison."""
    raise _CheckedError


def _policies(files: Sequence[str], module: str) -> Mapping[str, Policy]:
    """The policies of ``name=file`` words; without any, those of the module."""
    if files:
        pairs = [text.partition("=") for text in files]
        names = [name for name, _, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"policies: expected each name once, got '{twice[0]}' {names.count(twice[0])} times")
        return {name: Policy.from_yaml(Path(file)) for name, _, file in pairs}
    if not module_has(module, "policies"):
        raise InputError(f"policies: expected 'policies' in {module}, or name=policy.yaml, got none")
    found: Any = load_named(f"{module}:policies", "policies")
    return found


def _print(found: PolicyComparison, folder: Path, options: argparse.Namespace) -> None:
    if options.json:
        print_json({**found.to_dict(), "folder": str(folder)})
        return
    for name, text in found.conclusions.items():
        say(f"{name}: {text}")
    for name, row in found.scores.items():
        gain = "" if row.gain is None else f", {row.gain:+.4f} against the control"
        print(f"{name}: score {row.mean:.4f}{gain}")
    print_table(found.table, full=options.full)
    if options.full:
        print_carried_over(found.carry_over)
    print(f"report: {folder / 'report.html'}")
