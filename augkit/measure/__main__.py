"""``python -m augkit.measure``: how invariant is a network to shifts and rescaling of its input?"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from augkit.augment.kernels import KERNELS
from augkit.core.cli import (
    Parser,
    add_full,
    add_writing,
    interrupted,
    make_parser,
    new_folder,
    positive,
    positive_number,
    print_json,
    run,
)
from augkit.core.errors import InputError
from augkit.core.terminal import command_line
from augkit.invariance import PROTOCOLS
from augkit.invariance.network import MEMORY_FORMATS, PRECISIONS
from augkit.invariance.outputs.kinds import KINDS
from augkit.invariance.plan import AXES
from augkit.invariance.presets import PRESETS
from augkit.invariance.protocols import BACKGROUNDS
from augkit.measure.networks import NetworksResults, measure_networks
from augkit.measure.output_results import OutputResults
from augkit.measure.output_terminal import print_outputs
from augkit.measure.pipeline import measure
from augkit.measure.results import MeasureResults
from augkit.measure.settings import ANALYZED, BATCHES, SPLITS, MeasureSettings
from augkit.measure.state_files import MeasureInterrupted
from augkit.measure.terminal import print_measured, print_networks
from augkit.measure.views import MAX_SCALE, MAX_SHIFT, PAIRS

EXAMPLE = """python -m augkit.measure runs/first --data mnist5k --max-shift 4
  python -m augkit.measure timm:resnet18 torchvision:resnet18 --pretrained --data folder:DIR"""


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    options = command_parser().parse_args(arguments)
    if options.resume and options.output is None:
        raise InputError("--resume: expected --output DIR, the folder to go on with")
    settings = MeasureSettings(**{field.name: getattr(options, field.name) for field in fields(MeasureSettings)})
    folder = options.output or new_folder("measure")
    how: dict[str, Any] = {
        "output": folder,
        "resume": options.resume,
        "overwrite": options.overwrite,
        "progress": not options.quiet,
        "command": f"python -m augkit.measure {command_line(arguments)}",
    }
    results: MeasureResults | OutputResults | NetworksResults
    try:
        if len(options.models) > 1:
            results = measure_networks(options.models, options.data, settings, **how)
        else:
            results = measure(options.models[0], options.data, settings, **how)
    except MeasureInterrupted:
        raise interrupted("measure", arguments, folder) from None
    if options.json:
        print_json(results.to_dict())
        return
    if isinstance(results, NetworksResults):
        files = [folder / f"table.{ending}" for ending in ("md", "tex", "csv")]
        print_networks(results.table, files, full=options.full)
    elif isinstance(results, OutputResults):
        print_outputs(results, full=options.full)
    else:
        print_measured(results, full=options.full)
    print(f"report: {folder / 'report.html'}")


def command_parser() -> Parser:
    """Return the parser of the command."""
    description = "Measure how much a network's output varies when its input is shifted or rescaled."
    parser = make_parser("measure", description, EXAMPLE, seed="0")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="run folder, checkpoint, torchvision:NAME[@WEIGHTS], timm:NAME, hf:NAME, open_clip:NAME[/PRETRAINED],"
        " package.module:callable; several give a table",
    )
    text = "networks of torchvision and timm with their own weights, which are downloaded once"
    parser.add_argument("--pretrained", action="store_true", help=text)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict to load, safely")
    parser.add_argument(
        "--not-strict", dest="strict", action="store_false", help="load what fits of --weights, and list what does not"
    )
    _add_images(parser)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--preset", metavar="NAME", help=f"a published protocol: {', '.join(PRESETS)}")
    what.add_argument("--protocol", help=f"{', '.join(PROTOCOLS)} (default: the run's own, else crop)")
    text = f"{', '.join(KERNELS)} (default: the run's own, else sinc; fourier for circular)"
    what.add_argument("--kernel", help=text)
    text = f"canvas of embed: a gray value, or {', '.join(BACKGROUNDS)}"
    what.add_argument("--background", type=_background, help=text)
    what.add_argument("--axis", help=f"{' or '.join(AXES)} (default: shift)")
    text = f"largest shift along each axis (default: the run's own, else {MAX_SHIFT:g})"
    what.add_argument("--max-shift", type=positive_number, metavar="PX", help=text)
    what.add_argument("--max-scale", type=positive_number, metavar="F", help=f"largest factor (default: {MAX_SCALE:g})")
    what.add_argument("--shift", type=_place, metavar="X,Y", help="one displacement against none, as --shift=-1,0.5")
    text = f"pairs of displacements per image (default: the run's own, else {PAIRS})"
    what.add_argument("--pairs", type=positive, help=text)
    what.add_argument(
        "--grid", type=_numbers, metavar="STEP[,EXTENT]", help="worst case over multiples of STEP pixels up to EXTENT"
    )
    what.add_argument(
        "--no-curves", dest="curves", action="store_false", help="pairs alone, and the grid if given: far fewer views"
    )
    where = parser.add_argument_group("where it is lost")
    where.add_argument("--certify", action="store_true", help="which layer breaks exact shift invariance, and why")
    where.add_argument("--layers", action="store_true", help="equivariance in dB, layer by layer (circular)")
    where.add_argument("--lie", action="store_true", help="Lie derivatives: shift x and y, scale, rotation (circular)")
    where.add_argument("--relative", action="store_true", help="relative invariance of the penultimate features")
    text = f"images for --layers, --lie and --relative (default: {ANALYZED})"
    where.add_argument("--probe-images", type=positive, metavar="N", default=ANALYZED, help=text)
    _add_outputs(parser)
    how = parser.add_argument_group("how")
    how.add_argument("--precision", default="float32", help=f"{', '.join(PRECISIONS)} (default: float32)")
    how.add_argument("--compile", action="store_true", help="compile the network first")
    text = f"images per forward pass (default: {BATCHES['cpu']}; {BATCHES['cuda']} on a GPU)"
    how.add_argument("--batch-size", type=positive, help=text)
    text = f"{' or '.join(MEMORY_FORMATS)}, of the maps (default: the faster one on the first batch)"
    how.add_argument("--memory-format", metavar="NAME", help=text)
    text = "fold batch norms into convolutions (default: where it is faster on the first batch)"
    how.add_argument("--fold", action=argparse.BooleanOptionalAction, default=None, help=text)
    add_full(parser)
    add_writing(parser)
    parser.set_defaults(seed=0)
    return parser


def _add_outputs(parser: Parser) -> None:
    """Add the flags of outputs other than logits."""
    group = parser.add_argument_group("outputs other than logits")
    group.add_argument("--output-kind", default="auto", help=f"auto (the default), {', '.join(KINDS)}")
    text = "shifts are multiples of PX (default: 1; 0 for any fraction)"
    group.add_argument("--quantum", type=_pixels, metavar="PX", help=text)
    group.add_argument("--map-kernel", help="kernel that moves maps and images (default: by their size)")
    group.add_argument("--border", type=_pixels, default=0.0, metavar="PX", help="leave out the borders of maps")
    text = "look for neighbors of embeddings among these images (default: those measured)"
    group.add_argument("--gallery", metavar="DATA", help=text)
    text = "embeddings (K, D) of the classes, .npy or .pt, for zero-shot answers"
    group.add_argument("--class-embeddings", type=Path, metavar="FILE", help=text)
    group.add_argument("--neighbors", type=positive, metavar="N", help="nearest neighbors of an embedding (default: 5)")
    group.add_argument("--box-score", type=float, metavar="S", help="least score of boxes (default: 0.3)")
    group.add_argument("--box-iou", type=float, metavar="IOU", help="least IoU of partners (default: 0.5)")
    group.add_argument("--box-border", type=_pixels, metavar="PX", help="leave out boxes at the edges (default: 1)")
    group.add_argument("--keypoint-score", type=float, metavar="S", help="least score of keypoints (default: 0.3)")


def _add_images(parser: Parser) -> None:
    data = parser.add_argument_group("images")
    data.add_argument("--data", help="name, folder:DIR, parquet:DIR or hf:NAME (default: the run's own)")
    data.add_argument("--ood", metavar="DATA", action="append", default=[], help="measure these images too")
    data.add_argument("--ood-builtin", action="store_true", help="measure atypical versions of the images too")
    data.add_argument("--labels", type=Path, metavar="FILE", help="which class is which output of the network")
    data.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be read, and count them")
    data.add_argument("--max-megapixels", type=positive, metavar="N", help="refuse larger pictures (default: 179)")
    data.add_argument("--root", help="folder of torchvision datasets")
    data.add_argument("--split", choices=SPLITS, default="test", help="which images (default: test)")
    data.add_argument("--limit", type=positive, metavar="N", help="measure N images, stratified by class")
    data.add_argument("--image-size", type=positive, metavar="PX", help="resize and center-crop images of folders")
    data.add_argument("--crop-share", type=positive_number, metavar="F", help="part of the shorter side that is seen")
    text = "decode large JPEG files at a fraction whose shorter side keeps PX"
    data.add_argument("--decode-size", type=positive, metavar="PX", help=text)
    data.add_argument("--input-size", type=positive, metavar="PX", help="side of the network's input")
    data.add_argument("--mean", type=float, nargs="+", help="per channel, of images in [0, 1] (default: the network's)")
    data.add_argument("--std", type=float, nargs="+", help="per channel, of images in [0, 1] (default: the network's)")


def _background(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _pixels(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else positive_number(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or not all(0 < number < float("inf") for number in numbers):
        raise argparse.ArgumentTypeError(f"expected STEP or STEP,EXTENT in pixels above 0, got '{text}'")
    return numbers


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f"expected X,Y in pixels, such as --shift=1,-0.5, got '{text}'")
    return x, y


if __name__ == "__main__":
    sys.exit(run(main))
