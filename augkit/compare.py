"""``python -m augkit.compare``: several recipes, several seeds, the same test images, one paired table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augkit.building import choose_device, fresh_model, load_recipe_data
from augkit.command import (
    Display,
    Interrupted,
    add_writing,
    make_parser,
    new_folder,
    positive,
    print_json,
    run,
    split_recipe,
)
from augkit.comparison import Arm, closing_table, conclusion, jsonable, measure_run, open_test_sets
from augkit.errors import InputError
from augkit.evaluation import check_measurable
from augkit.recipe import Recipe, find_recipe
from augkit.report.table import print_table
from augkit.storage import claim, environment, write
from augkit.training import fit

EXAMPLE = "python -m augkit.compare mnist5k --seeds 3"


def compare(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    folder: Path,
    *,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, measure all on the same test images; the first recipe is the control.

    Returns:
        A dict for JSON: ``table`` (see `augkit.comparison.closing_table`) and ``conclusions``. Runs are kept in
        ``folder`` and are not trained again with ``resume``.

    Raises:
        InputError: recipes of one name, or with different data or ways of measuring.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) != len(names):
        raise InputError(f"compare: expected recipes with different names, got {', '.join(names)}; set name=...")
    for key in ("data", "invariance"):
        if len({getattr(recipe, key).model_dump_json() for recipe in recipes}) != 1:
            raise InputError(f"compare: expected recipes with the same '{key}', these differ: {', '.join(names)}")
    target = choose_device(device)
    dataset = load_recipe_data(recipes[0])
    for recipe in recipes:
        check_measurable(recipe, dataset.validation, fresh_model(recipe, dataset))
    claim(folder, resume=resume, overwrite=overwrite)
    write(folder / "environment.json", json.dumps(environment(), indent=2))
    show = display or Display(0, quiet=True)
    runs = {}
    for recipe in recipes:
        for seed in seeds:
            show.stage(f"training {recipe.name}, seed {seed}")
            runs[recipe.name, seed] = fit(
                recipe,
                seed,
                output=folder / f"{recipe.name}-seed{seed}",
                resume=True,
                device=target,
                dataset=dataset,
                on_epoch=lambda row: show.advance(1),
            )
    show.stage("measuring on the test split and on atypical images")
    sets = open_test_sets(dataset)
    arms = [
        Arm(
            name,
            [{key: measure_run(runs[name, s], images, device=target) for key, images in sets.items()} for s in seeds],
        )
        for name in names
    ]
    rows = closing_table(arms)
    words = {name: conclusion(rows, name, recipes[0].invariance.max_shift) for name in names[1:]}
    result = {
        "control": names[0],
        "seeds": list(seeds),
        "table": rows,
        "conclusions": words,
        "environment": environment(),
    }
    write(folder / "results.json", json.dumps(jsonable(result), indent=2, allow_nan=False))
    return result


def main(arguments: list[str]) -> None:
    """Parse, compare, print."""
    parser = make_parser(
        "compare",
        "Compare recipes over seeds on typical and atypical test images. The first one is the control; a single"
        " recipe is compared with itself without augmentation.",
        EXAMPLE,
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE [dotted.key=value ...]", help="files or shipped names")
    parser.add_argument("--seeds", type=positive, default=3, help="training seeds per recipe (default: 3)")
    add_writing(parser)
    options = parser.parse_intermixed_args(arguments)
    files, overrides = split_recipe(options.recipes, None)
    if not files:
        raise InputError("compare: expected a recipe or several, got none")
    recipes = [Recipe.load(find_recipe(file), overrides) for file in files]
    if len(recipes) == 1:
        recipes = [recipes[0].control(), *recipes]
    folder = options.output or new_folder("compare")
    try:
        first = options.seed or 0
        with Display(sum(r.train.epochs for r in recipes) * options.seeds, quiet=options.quiet) as display:
            result = compare(
                recipes,
                range(first, first + options.seeds),
                folder,
                device=options.device,
                resume=options.resume,
                overwrite=options.overwrite,
                display=display,
            )
    except KeyboardInterrupt:
        words = " ".join(options.recipes)
        line = f"python -m augkit.compare {words} --seeds {options.seeds} --output {folder} --resume"
        raise Interrupted(line) from None
    if options.json:
        print_json({**jsonable(result), "folder": str(folder)})
        return
    print_table(result["table"])
    for name, text in result["conclusions"].items():
        print(f"{name}: {text}")
    print(f"written to {folder}")


if __name__ == "__main__":
    sys.exit(run(main))
