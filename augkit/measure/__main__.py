"""``python -m augkit.measure``: how invariant is a network to shifts and rescaling of its input?"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from augkit.augment.kernels import KERNELS
from augkit.core.cli import Parser, add_writing, make_parser, positive, positive_number, print_json, run
from augkit.core.errors import InputError, unknown_name
from augkit.core.files import environment, write
from augkit.core.random_streams import seeded
from augkit.data import atypical_versions, load_dataset, sample
from augkit.invariance import PROTOCOLS, Plan
from augkit.invariance.network import PRECISIONS
from augkit.invariance.plan import AXES, Pairs, full_plan, one_shift, square_grid
from augkit.invariance.presets import PRESETS, Preset
from augkit.invariance.protocols import BACKGROUNDS, make_protocol
from augkit.measure.analyses import add_probe_flags
from augkit.measure.page import measured_page
from augkit.measure.session import ImageSet, MeasureSession
from augkit.measure.terminal import print_measured
from augkit.train.load_model import LoadedModel, load_model

EXAMPLE = "python -m augkit.measure runs/first --data mnist5k --max-shift 4"


def main(arguments: list[str]) -> None:
    """Parse, measure, write, print."""
    options = _parser().parse_args(arguments)
    if options.resume and options.output is None:
        raise InputError("--resume: expected --output DIR, the folder to go on with")
    if options.not_strict and options.weights is None:
        raise InputError("--not-strict: expected --weights FILE, of which it takes what fits")
    with seeded(options.seed or 0):  # so that an untrained network is the same one when a measurement goes on
        loaded = load_model(options.model, options.weights, strict=not options.not_strict)
    preset, protocol = _preset(options), _protocol(options, loaded)
    sets = _image_sets(options, loaded, protocol)
    plan, operator = _what(options, loaded, protocol, next(iter(sets.values())).images.shape[1:])
    if options.ood_builtin:
        sets |= _built_in(next(iter(sets.values())), plan, options.seed or 0)
    session = MeasureSession(
        options, arguments, loaded, plan, operator, lie=preset is not None and preset.lie is not None
    )
    session.begin(sets)
    with session.interruptible():
        reports = session.measure()
        result = {"model": options.model, "split": options.split, **reports.pop(session.typical)}
        if reports:
            result["ood"] = reports
        if preset is not None:
            result["preset"] = {"name": options.preset, **preset.to_dict()}
        command = f"python -m augkit.measure {shlex.join(arguments)}"
        result |= {"weights_sha256": session.network.digest, "folder": str(session.folder), "command": command}
        result["environment"] = environment()
        write(session.folder / "results.json", json.dumps(result, indent=2, allow_nan=False))
        write(session.folder / "report.html", measured_page(result, session.pictures(result["flips"])))
    if options.json:
        print_json(result)
        return
    print_measured(result)
    print(f"report: {session.folder / 'report.html'}")


def _parser() -> Parser:
    description = "Measure how much a network's output varies when its input is shifted or rescaled."
    parser = make_parser("measure", description, EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="run folder, checkpoint, torchvision:NAME, timm:NAME, mod:fn")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="state dict to load, safely")
    parser.add_argument("--not-strict", action="store_true", help="take of --weights what fits, and say what does not")
    data = parser.add_argument_group("images")
    data.add_argument("--data", help="name, folder:DIR, parquet:DIR or hf:NAME (default: the run's own)")
    data.add_argument("--ood", metavar="DATA", action="append", default=[], help="measure these images beside")
    data.add_argument("--ood-builtin", action="store_true", help="measure atypical versions of the images beside")
    data.add_argument("--labels", type=Path, metavar="FILE", help="which class is which output of the network")
    data.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be read, and count them")
    data.add_argument("--max-megapixels", type=positive, metavar="N", help="refuse larger pictures (default: 179)")
    data.add_argument("--root", help="folder of torchvision datasets")
    data.add_argument("--split", choices=("test", "validation"), default="test", help="(default: test)")
    data.add_argument("--limit", type=positive, metavar="N", help="measure N images, stratified by class")
    data.add_argument("--image-size", type=positive, metavar="PX", help="resize and centre-crop images of folders")
    data.add_argument("--input-size", type=positive, metavar="PX", help="side of what the network sees")
    data.add_argument("--mean", type=float, nargs="+", help="per channel, of images in [0, 1]")
    data.add_argument("--std", type=float, nargs="+", help="per channel, of images in [0, 1]")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--preset", metavar="NAME", help=f"a published protocol: {', '.join(PRESETS)}")
    what.add_argument("--protocol", help=f"{', '.join(PROTOCOLS)} (default: the run's own, else crop)")
    what.add_argument("--kernel", help=f"{', '.join(KERNELS)} (default: sinc; fourier for circular)")
    what.add_argument("--background", type=_background, help=f"of embed: a grey value or {', '.join(BACKGROUNDS)}")
    what.add_argument("--axis", help=f"{' or '.join(AXES)} (default: shift)")
    what.add_argument("--max-shift", type=positive_number, metavar="PX", help="largest shift along each axis")
    what.add_argument("--max-scale", type=positive_number, metavar="F", help="largest factor (default: 1.25)")
    what.add_argument("--shift", type=_place, metavar="X,Y", help="one displacement against none, as --shift=-1,0.5")
    what.add_argument("--pairs", type=positive, help="pairs of displacements per image (default: 4)")
    what.add_argument(
        "--grid", type=_numbers, metavar="STEP[,EXTENT]", help="worst case over multiples of STEP pixels up to EXTENT"
    )
    what.add_argument("--no-curves", action="store_true", help="pairs alone, and the grid if given: far fewer views")
    add_probe_flags(parser)
    how = parser.add_argument_group("how")
    how.add_argument("--precision", default="float32", help=f"{', '.join(PRECISIONS)} (default: float32)")
    how.add_argument("--compile", action="store_true", help="compile the network first")
    how.add_argument("--batch-size", type=positive, help="images at once (default: 64; 256 on a GPU)")
    add_writing(parser)
    return parser


def _protocol(options: Any, loaded: LoadedModel) -> str:
    preset = _preset(options)
    own = loaded.recipe.invariance.protocol if loaded.recipe is not None else "crop"
    protocol = str(options.protocol or (preset.protocol if preset else own))
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    return protocol


def _what(options: Any, loaded: LoadedModel, protocol: str, size: tuple[int, int]) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the arguments of `make_protocol`."""
    preset = _preset(options)
    own = loaded.recipe.invariance if loaded.recipe is not None else None
    kernel = options.kernel or (preset.kernel if preset else own.kernel if own and protocol == own.protocol else None)
    background = options.background if options.background is not None else preset.background if preset else None
    plan = preset.plan if preset else _plan(options, own, protocol == "circular" and kernel in (None, "fourier"))
    if preset and options.pairs:
        plan = replace(plan, pairs=replace(plan.pairs, count=options.pairs))
    operator = {"protocol": protocol, "kernel": kernel, "background": background}
    return plan, operator | {"input_size": _input_size(options, loaded, protocol, plan, size)}


def _preset(options: Any) -> Preset | None:
    if options.preset is None:
        return None
    if options.preset not in PRESETS:
        raise unknown_name("preset", options.preset, PRESETS)
    fixed = ("protocol", "kernel", "background", "axis", "max_shift", "max_scale", "shift", "grid", "no_curves")
    for name in fixed:
        if getattr(options, name) not in (None, False):
            raise InputError(f"--preset {options.preset} fixes --{name.replace('_', '-')}: leave one of them out")
    return PRESETS[options.preset]


def _plan(options: Any, own: Any, exact: bool) -> Plan:
    if options.shift is not None:
        for name in ("axis", "max_shift", "max_scale", "pairs", "grid", "no_curves"):
            if getattr(options, name) not in (None, False):
                raise InputError(f"--shift is one displacement against none: leave out --{name.replace('_', '-')}")
        return one_shift(*options.shift)
    axis = options.axis or "shift"
    if axis not in AXES:
        raise unknown_name("axis", axis, AXES)
    other = "max_scale" if axis == "shift" else "max_shift"
    if getattr(options, other) is not None:
        raise InputError(f"--{other.replace('_', '-')}: it belongs to the other --axis, got --axis {axis}")
    if axis == "scale" and options.grid is not None:
        raise InputError("--grid is in pixels; with --axis scale the grid is the factors of the curve")
    most = (options.max_shift or (own.max_shift if own else 8.0)) if axis == "shift" else options.max_scale or 1.25
    pairs = options.pairs or (own.pairs if own else 4)
    grid = None if options.grid is None else square_grid(options.grid[0], (*options.grid, most)[1])
    if not options.no_curves:
        return full_plan(axis, most, pairs, grid=grid, blur=not exact)
    low = -most if axis == "shift" else 1 / most
    return Plan(axis, Pairs(pairs, low, most), grid=grid or ())


def _input_size(options: Any, loaded: LoadedModel, protocol: str, plan: Plan, size: tuple[int, int]) -> int | None:
    """The side that the network sees: as asked, else its own where the images leave room for it, else None."""
    if options.input_size is not None:
        return int(options.input_size)
    own = loaded.recipe.data.canvas if loaded.recipe is not None else loaded.input_size
    if own is None or protocol == "circular" or (loaded.recipe is not None and protocol != "embed"):
        return None
    try:
        make_protocol(protocol, size, max_shift=plan.max_shift, factors=plan.factors, input_size=own)
    except InputError:
        return own if loaded.recipe is not None else None
    return own


def _image_sets(options: Any, loaded: LoadedModel, protocol: str) -> dict[str, ImageSet]:
    """The images by name: those of ``--data`` first, then those of ``--ood``."""
    own = loaded.recipe.data if loaded.recipe is not None else None
    if options.data is None and own is None:
        raise InputError("--data: expected a dataset, such as --data mnist5k or --data folder:DIR")
    names = [options.data or (own.name if own is not None else ""), *options.ood]
    if len(set(names)) != len(names):
        raise InputError("--ood: expected other images than those of --data, each once")
    return {name: _image_set(options, loaded, protocol, name) for name in names}


def _image_set(options: Any, loaded: LoadedModel, protocol: str, name: str) -> ImageSet:
    own = loaded.recipe.data if loaded.recipe is not None else None
    dataset = load_dataset(
        name,
        root=options.root or (own.root if own is not None and name == own.name else None),
        image_size=options.image_size or (own.image_size if own else None),
        labels_file=options.labels if name not in options.ood else None,
        skip_corrupt=options.skip_corrupt,
        channels=own.channels if own else None,
        max_megapixels=options.max_megapixels or (own.max_megapixels if own else None),
    )
    seed = options.seed or 0
    if options.split == "test":
        images = dataset.open_test(options.limit, seed=seed)
    else:
        images = dataset.validation if options.limit is None else sample(dataset.validation, options.limit, seed=seed)
    if own is not None and own.canvas is not None and protocol != "embed":
        images = images.put_on_canvas(own.canvas)
    return ImageSet(images, dataset.classes, tuple(dataset.notes))


def _built_in(typical: ImageSet, plan: Plan, seed: int) -> dict[str, ImageSet]:
    """Atypical versions of the images; placement beyond the range where their canvas leaves room for it."""
    notes: tuple[str, ...] = ()
    try:
        reach = plan.max_shift or None
        versions = atypical_versions(typical.images, seed=seed, max_shift=reach, max_factor=max(1.0, plan.factors[1]))
    except InputError as error:
        versions, notes = atypical_versions(typical.images, seed=seed), (f"no placement out of range: {error}",)
    return {name: ImageSet(images, typical.classes, notes) for name, images in versions.items()}


def _background(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


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
