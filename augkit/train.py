"""``python -m augkit.train``: train one recipe."""

from __future__ import annotations

import json
import sys
from typing import Any

from augkit.command import (
    Display,
    Interrupted,
    add_writing,
    make_parser,
    new_folder,
    one_recipe,
    print_json,
    run,
)
from augkit.recipe import Recipe
from augkit.training import fit

EXAMPLE = "python -m augkit.train mnist5k train.epochs=4 policy.shift.max_pixels=3 --output runs/first"


def main(arguments: list[str]) -> None:
    """Parse, train, print."""
    parser = make_parser("train", "Train one recipe and write a run folder.", EXAMPLE)
    parser.add_argument("recipe", nargs="*", metavar="RECIPE [dotted.key=value ...]", help="file or shipped name")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of a recipe and stop")
    add_writing(parser)
    options = parser.parse_intermixed_args(arguments)
    if options.schema:
        print(json.dumps(Recipe.model_json_schema(), indent=2))
        return
    recipe = one_recipe(options.recipe, None)
    folder = options.output or new_folder(f"train-{recipe.name}")
    seed = recipe.seed if options.seed is None else options.seed
    epochs = recipe.train.epochs

    def on_epoch(row: dict[str, Any]) -> None:
        display.advance(1)
        display.best(f"accuracy {100 * row['validation_accuracy']:.1f} %")
        display.line(
            f"epoch {row['epoch']:3d}/{epochs}  loss {row['loss']:.4f}"
            f"  validation accuracy {100 * row['validation_accuracy']:.1f} %  {row['seconds']:.1f} s"
        )

    try:
        with Display(epochs, quiet=options.quiet) as display:
            display.stage(f"training {recipe.name}")
            trained = fit(
                recipe,
                seed,
                output=folder,
                resume=options.resume,
                overwrite=options.overwrite,
                device=options.device,
                on_epoch=on_epoch,
            )
    except KeyboardInterrupt:
        if not (folder / "recipe.yaml").is_file():
            raise
        raise Interrupted(f"python -m augkit.train {folder / 'recipe.yaml'} --output {folder} --resume") from None
    last = trained.history[-1]
    result = {"folder": str(folder), "seed": seed, **last}
    if options.json:
        print_json(result)
    else:
        print(f"validation accuracy {100 * last['validation_accuracy']:.1f} % after {last['epoch']} epochs: {folder}")


if __name__ == "__main__":
    sys.exit(run(main))
