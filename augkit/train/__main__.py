"""``python -m augkit.train``: train one recipe, in one process or under torchrun."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from augkit.core.cli import (
    Parser,
    add_log,
    add_writing,
    interrupted,
    make_parser,
    new_folder,
    print_json,
    run,
    split_recipe,
)
from augkit.core.progress import Display
from augkit.core.ranks import rank
from augkit.core.terminal import say
from augkit.data import Dataset
from augkit.data.files import check_read_files
from augkit.train.build import load_recipe_data
from augkit.train.card import CARD
from augkit.train.constraint import check_constraint, outcome
from augkit.train.export import export_run
from augkit.train.history import EpochRow
from augkit.train.loop import Run, fit
from augkit.train.recipe import Recipe, one_recipe
from augkit.train.report import write_report

EXAMPLE = """python -m augkit.train mnist5k train.epochs=4 policy.shift.max_pixels=3 --output runs/first
  torchrun --nproc-per-node 2 -m augkit.train cifar10-resnet18 --output runs/two-gpus"""


def command_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("train", "Train one recipe and write a run folder with its report.", EXAMPLE)
    parser.add_argument("recipe", nargs="*", metavar="RECIPE [dotted.key=value ...]", help="file or shipped name")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of a recipe and stop")
    text = "leave out images that cannot be read, as data.skip_corrupt=true does"
    parser.add_argument("--skip-corrupt", action="store_true", help=text)
    add_log(parser)
    add_writing(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parse, train, print."""
    options = command_parser().parse_intermixed_args(arguments)
    if options.schema:
        print(json.dumps(Recipe.model_json_schema(), indent=2))
        return
    skip = ["data.skip_corrupt=true"] if options.skip_corrupt else []
    own = options.output / "recipe.yaml" if options.resume and options.output else None
    recipe = one_recipe([*options.recipe, *skip], str(own) if own is not None and own.is_file() else None)
    recipe = recipe.replaced(seed=recipe.seed if options.seed is None else options.seed)
    folder = options.output or new_folder(f"train-{recipe.name}")
    if options.overwrite and not options.resume:
        check_read_files(folder, split_recipe(options.recipe, None)[0], "recipe.yaml")
    dataset = load_recipe_data(recipe)
    with Display(0, quiet=options.quiet or rank() > 0) as display:
        try:
            trained = _train(recipe, folder, options, dataset, display)
            report = write_report(trained, dataset) if rank() == 0 else None
            if rank() == 0:
                display.stage("writing the model card")
                export_run(trained, dataset)
        except KeyboardInterrupt:
            if not (folder / "recipe.yaml").is_file():
                raise
            words = [str(folder / "recipe.yaml"), *(["--log", options.log] if options.log else [])]
            raise interrupted("train", words, folder) from None
    if rank() > 0:
        return
    row, accuracy = trained.row, trained.evaluation.accuracy
    if options.json:
        found = {"folder": str(folder), "seed": recipe.seed, **row, "validation_accuracy": accuracy}
        print_json({**found, "skipped": len(dataset.skipped)})
        return
    epochs = f"{row['epoch']} epoch{'s' * (row['epoch'] != 1)}"
    more = f" (the best; {len(trained.history)} were trained)" if trained.epoch < len(trained.history) else ""
    print(f"validation accuracy {100 * accuracy:.1f} % after {epochs}{more}: {folder}")
    for note in [*dataset.notes, *filter(None, [outcome(trained.recipe, trained.history)])]:
        say(note)
    print(f"report: {report}\ncard:   {folder / CARD}")


def _train(recipe: Recipe, folder: Path, options: Any, dataset: Dataset, display: Display) -> Run:
    began = [0, time.monotonic()]

    def on_step(step: int, steps: int) -> None:
        if not display.total:
            display.begin(steps, step - 1)
            began[:] = [step - 1, time.monotonic()]
        display.advance(1)
        rate = (step - began[0]) * recipe.train.batch_size / max(1e-9, time.monotonic() - began[1])
        display.best(f"{rate:,.0f} images/s{note[0]}")

    def on_epoch(row: EpochRow) -> None:
        found = row.get("validation_accuracy")
        accuracy = "" if found is None else f"  validation accuracy {100 * found:.1f} %"
        note[0] = note[0] if found is None else f", {100 * found:.1f} %"
        share = row["shift_information"]["value"] if "shift_information" in row else None
        moved = f"  penalty {row['dual']:.2f}" if "dual" in row else ""
        moved += "" if share is None else f"  shift information {100 * share:.1f} %"
        of = "" if recipe.train.steps else f"/{recipe.train.epochs}"
        when = "" if display.live else f"[{display.clock()}] "
        display.line(
            f"{when}epoch {row['epoch']:3d}{of}  loss {row['loss']:.4f}{accuracy}{moved}"
            f"  {row['images_per_second']:,.0f} images/s  {row['seconds']:.1f} s"
        )

    note = [""]
    display.stage(f"training {recipe.name}", "the report")
    if recipe.constraint is not None and recipe.constraint.control is None:
        check_constraint(recipe, dataset.validation)
        display.line("constraint: first a control is trained, without augmentation")
    return fit(
        recipe,
        output=folder,
        resume=options.resume,
        overwrite=options.overwrite,
        device=options.device,
        dataset=dataset,
        on_epoch=on_epoch,
        on_step=on_step,
        log=options.log,
    )


if __name__ == "__main__":
    sys.exit(run(main))
