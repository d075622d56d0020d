"""``python -m augkit.measure``: how invariant is a network to shifts of its input?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from augkit.command import Display, make_parser, positive, positive_number, print_json, run
from augkit.comparison import jsonable
from augkit.data import Dataset, Images, load_dataset, sample
from augkit.errors import InputError
from augkit.interpolation import KERNELS
from augkit.invariance import PROTOCOLS, Estimate, InvarianceReport, measure_invariance
from augkit.models import LoadedModel, load_model
from augkit.storage import claim, environment, write
from augkit.training import choose_device

EXAMPLE = "python -m augkit.measure runs/first --data mnist5k --max-shift 4"
TITLES = {
    "accuracy": "accuracy",
    "shifted_accuracy": "accuracy under shift",
    "top1_change": "top-1 change",
    "consistency": "consistency",
    "mac": "mean absolute change",
    "js": "Jensen-Shannon (bits)",
    "kappa": "kappa",
}


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = make_parser("measure", "Measure how much a network's output varies under shifts of its input.", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="run folder, checkpoint, torchvision:NAME, timm:NAME, mod:fn")
    parser.add_argument("--data", help="dataset name or folder:DIR (default: the run's own)")
    parser.add_argument("--root", help="folder of torchvision datasets")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="(default: test)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict to load, safely")
    parser.add_argument("--protocol", help=f"{', '.join(PROTOCOLS)} (default: the run's own, else crop)")
    parser.add_argument("--kernel", help=f"{', '.join(KERNELS)} (default: sinc; fourier for circular)")
    parser.add_argument("--max-shift", type=positive_number, metavar="PX", help="largest shift along each axis")
    parser.add_argument("--pairs", type=positive, help="pairs of shifts per image (default: 4)")
    parser.add_argument("--input-size", type=positive, metavar="PX", help="side of what the network sees")
    parser.add_argument("--image-size", type=positive, metavar="PX", help="resize and centre-crop images of folders")
    parser.add_argument("--mean", type=float, nargs="+", help="per channel, of images in [0, 1]")
    parser.add_argument("--std", type=float, nargs="+", help="per channel, of images in [0, 1]")
    parser.add_argument("--limit", type=positive, metavar="N", help="measure N images, stratified by class")
    parser.add_argument("--batch-size", type=positive, default=250, help="(default: 250)")
    options = parser.parse_args(arguments)
    folder = None if options.output is None else claim(options.output)
    loaded = load_model(options.model, options.weights)
    dataset = _dataset(options, loaded)
    images = dataset.open_test() if options.split == "test" else dataset.validation
    if options.limit is not None:
        images = sample(images, options.limit, seed=options.seed or 0)
    report = _measure(options, loaded, images)
    result = {
        "model": options.model,
        "data": dataset.name,
        "split": options.split,
        **jsonable(report.to_dict()),
    }
    if folder is not None:
        write(folder / "results.json", json.dumps(result, indent=2, allow_nan=False))
        write(folder / "environment.json", json.dumps(environment(), indent=2))
    if options.json:
        print_json(result)
    else:
        _print(result["settings"], report.metrics)


def _measure(options: Any, loaded: LoadedModel, images: Images) -> InvarianceReport:
    settings = loaded.recipe.invariance if loaded.recipe is not None else None
    protocol = options.protocol or (settings.protocol if settings else "crop")
    max_shift = options.max_shift or (settings.max_shift if settings else 8.0)
    pairs = options.pairs or (settings.pairs if settings else 4)
    kernel = options.kernel or (settings.kernel if settings and protocol == settings.protocol else None)
    canvas = loaded.recipe.data.canvas if loaded.recipe is not None else None
    if canvas is not None and protocol != "embed":
        images = Images(images.on_canvas(canvas), images.labels, images.background)
    input_size = options.input_size or (canvas if protocol == "embed" else None)
    with Display(len(images), quiet=options.quiet) as display:
        display.stage(f"measuring {options.model} ({protocol}, up to {max_shift:g} px)")
        done = 0

        def on_batch(count: int, total: int) -> None:
            nonlocal done
            display.advance(count - done)
            done = count

        return measure_invariance(
            loaded.model,
            images.images,
            images.labels,
            protocol=protocol,
            max_shift=max_shift,
            kernel=kernel,
            seed=options.seed or 0,
            pairs=pairs,
            input_size=input_size,
            background=images.background,
            mean=options.mean or loaded.mean,
            std=options.std or loaded.std,
            batch_size=options.batch_size,
            device=choose_device(options.device),
            on_batch=on_batch,
        )


def _dataset(options: Any, loaded: LoadedModel) -> Dataset:
    own = loaded.recipe.data if loaded.recipe is not None else None
    if options.data is None and own is None:
        raise InputError("--data: expected a dataset, such as --data mnist5k or --data folder:DIR")
    name = options.data or (own.name if own is not None else "")
    root = options.root or (own.root if own is not None and name == own.name else None)
    return load_dataset(name, root=root, image_size=options.image_size or (own.image_size if own else None))


def _print(settings: dict[str, Any], metrics: dict[str, Estimate]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{settings['images']:,} images, protocol {settings['protocol']}, kernel {settings['kernel']}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, estimate in metrics.items():
        table.add_row(TITLES[name], f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(run(main))
