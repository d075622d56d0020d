"""``python -m augkit.preview``: see what a policy does to an image, and what each kernel does to half a pixel."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.core.cli import make_parser, new_folder, print_json, run, split_recipe
from augkit.core.errors import InputError, unknown_name
from augkit.core.figures import save_png
from augkit.core.files import claim, environment, write
from augkit.core.images import save
from augkit.core.progress import Display
from augkit.core.schema import apply_overrides, validate
from augkit.data import TORCHVISION, Images, Stream, list_images, read_files
from augkit.preview.kernels import HalfPixel, kernel_figure, kernel_results, part_of
from augkit.preview.page import preview_page
from augkit.preview.strengths import QUANTILES, STRENGTHS, TILE, draw_sheet, strength_rows
from augkit.train.build import choose_device, load_data, reading_of
from augkit.train.recipe import DataSettings, Recipe, find_recipe, recipe_folders

EXAMPLE = """python -m augkit.preview                                     # a photograph, a default policy
  python -m augkit.preview photo.jpg policy.shift.max_pixels=12
  python -m augkit.preview digits --quantiles 0.1 0.5 0.9
  python -m augkit.preview mnist5k policy.kernel=bilinear --output runs/seen"""
DATASETS = ("mnist5k", "digits", *TORCHVISION)


@dataclass(frozen=True)
class AnalysisInput:
    """What is looked at: ``image`` ``(C, H, W)`` uint8 at its full size, and the policy."""

    title: str
    image: Tensor
    policy: Policy


def main(arguments: list[str]) -> None:
    """Parse, draw, print."""
    parser = make_parser("preview", "Draw what a policy does to an image, and kernels to half a pixel.", EXAMPLE)
    parser.add_argument(
        "source",
        nargs="*",
        metavar="IMAGE|DATA|RECIPE [dotted.key=value ...]",
        help="an image file, a dataset (mnist5k, digits, folder:DIR, ...), or a recipe's file or shipped name; "
        "a name that is both is the recipe (default: a photograph that scikit-learn carries)",
    )
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS, metavar="S", help="columns, in [0, 1]")
    parser.add_argument(
        "--quantiles", type=float, nargs="+", default=QUANTILES, metavar="Q", help="of the draws, in [0, 1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what augkit wrote to --output before")
    options = parser.parse_intermixed_args(arguments)
    sources, overrides = split_recipe(options.source, None)
    if len(sources) > 1:
        raise InputError(f"expected one image, dataset or recipe, got {len(sources)}: {' '.join(sources)}")
    subject = find_subject(sources[0] if sources else None, overrides, options.seed)
    folder = options.output or new_folder("preview")
    with Display(3, quiet=options.quiet) as display:
        result = preview(
            subject,
            folder,
            strengths=options.strengths,
            quantiles=options.quantiles,
            device=options.device,
            overwrite=options.overwrite,
            display=display,
        )
    if options.json:
        print_json(result)
    else:
        print("\n".join(str(folder / name) for name in result["files"]))


def preview(
    subject: AnalysisInput,
    folder: Path,
    *,
    strengths: tuple[float, ...] = STRENGTHS,
    quantiles: tuple[float, ...] = QUANTILES,
    device: str | None = None,
    overwrite: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Write ``preview.png``, ``kernels.png`` and ``preview.html`` to ``folder``.

    Returns:
        What the command prints with ``--json``.

    Raises:
        InputError: the folder is filled, a strength or quantile is out of bounds, the device is unknown.
    """
    display = display or Display(3, quiet=True)
    where = choose_device(device)
    display.stage("drawing the ops")
    small = reduced(subject.image, TILE)
    rows = strength_rows(small.to(where), subject.policy, strengths, quantiles)
    notes = _notes(subject, small)
    title = f"{subject.title}, {small.shape[2]} × {small.shape[1]} px: {_resampling(subject.policy)}"
    sheet = draw_sheet(rows, title, strengths, quantiles)
    display.advance(1)
    display.stage("drawing the kernels")
    part = part_of(subject.image)
    kernels = kernel_results(part.to(where))
    figure = kernel_figure(part, kernels)
    display.advance(1)
    display.stage("writing")
    claim(folder, overwrite=overwrite)
    info = environment()
    write(folder / "preview.png", lambda path: save(sheet, path))
    write(folder / "kernels.png", lambda path: save_png(figure, path))
    first, second = ((folder / name).read_bytes() for name in ("preview.png", "kernels.png"))
    page = preview_page(subject.title, subject.policy.to_yaml(), notes, first, second, info["command"])
    write(folder / "preview.html", page)
    write(folder / "environment.json", json.dumps(info, indent=2))
    display.advance(1)
    return {
        "folder": str(folder),
        "files": ["preview.html", "preview.png", "kernels.png"],
        "source": subject.title,
        "image": {"channels": small.shape[0], "height": small.shape[1], "width": small.shape[2]},
        "policy": subject.policy.model_dump(exclude_none=True),
        "strengths": list(strengths),
        "quantiles": list(quantiles),
        "kernels": {result.kernel: _numbers(result) for result in kernels},
    }


def find_subject(source: str | None, overrides: list[str], seed: int | None = None) -> AnalysisInput:
    """What ``source`` names, with ``overrides``; ``seed`` picks the image of a dataset.

    Raises:
        InputError: a missing file, a file that is no image, an unknown name, an override that is not a policy's
            where there is no recipe.
    """
    if source is None:
        from sklearn.datasets import load_sample_image

        photograph = torch.from_numpy(np.array(load_sample_image("china.jpg"))).permute(2, 0, 1)
        return _with_default_policy("china.jpg of scikit-learn", photograph, overrides)
    path = Path(source).expanduser()
    if _is_recipe(source, path):
        recipe = Recipe.load(find_recipe(source), overrides)
        image = _image_of(recipe.data, recipe.seed if seed is None else seed)
        return AnalysisInput(f"recipe {recipe.name}", image, recipe.policy)
    if source.startswith("folder:") or source in DATASETS:
        name = Path(source.removeprefix("folder:")).name if source.startswith("folder:") else source
        return _with_default_policy(name, _image_of(DataSettings(name=source), seed or 0), overrides)
    if path.is_file():
        return _with_default_policy(path.name, _at_hand(read_files([path])).images[0], overrides)
    if path.is_dir():
        raise InputError(f"'{source}': expected an image, a dataset or a recipe, it is a folder; as data: folder:DIR")
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"'{source}': expected an image, a dataset or a recipe, there is no such file")
    raise unknown_name("image, dataset or recipe", source, {*DATASETS, "folder:DIR", *_shipped()})


def reduced(image: Tensor, side: int) -> Tensor:
    """``image`` ``(C, H, W)`` uint8 with its longer side at most ``side`` pixels."""
    height, width = image.shape[-2:]
    if max(height, width) <= side:
        return image
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes))


def _is_recipe(source: str, path: Path) -> bool:
    if path.suffix in (".yaml", ".yml") or (path / "recipe.yaml").is_file():
        return True
    return source in _shipped() and not path.is_file()


def _shipped() -> set[str]:
    return {file.stem for folder in recipe_folders() for file in folder.glob("*.yaml")}


def _with_default_policy(title: str, image: Tensor, overrides: list[str]) -> AnalysisInput:
    """A subject that brings no policy of its own."""
    for override in overrides:
        if not override.startswith("policy."):
            raise InputError(f"override '{override}': expected policy.KEY=value; other keys need a recipe")
    side = min(reduced(image, TILE).shape[-2:])
    examples = {name: spec.example(side).model_dump() for name, spec in op_specs().items()}
    tree = {"policy": {**examples, "padding": "reflection"}}
    return AnalysisInput(title, image, validate(Policy, apply_overrides(tree, overrides)["policy"], "policy"))


def _image_of(data: DataSettings, seed: int) -> Tensor:
    """One image as training sees it; of a folder, one of its files, whatever its labels."""
    rng = np.random.default_rng(seed)
    if data.name.startswith("folder:"):
        folder = Path(data.name.removeprefix("folder:")).expanduser()
        if not folder.is_dir():
            raise InputError(f"dataset '{data.name}': expected a folder, there is none")
        paths = list_images(folder).files
        if not paths:
            raise InputError(f"dataset '{data.name}': expected images, there are none")
        images: Images = read_files([paths[int(rng.integers(len(paths)))]], reading_of(data))
    else:
        train = load_data(data).train
        if not len(train):
            raise InputError(f"dataset '{data.name}': expected images with labels to train on, there are none")
        images = train.take(torch.tensor([int(rng.integers(len(train)))]))
    return _at_hand(images).on_canvas(data.canvas)[0]


def _at_hand(images: Images) -> Images:
    return images.load() if isinstance(images, Stream) else images


def _resampling(policy: Policy) -> str:
    return f"kernel {policy.kernel}, padding {policy.padding}"


def _notes(subject: AnalysisInput, small: Tensor) -> list[str]:
    notes = [f"{_resampling(subject.policy).capitalize()}."]
    if small.shape != subject.image.shape:
        height, width = subject.image.shape[-2:]
        notes.append(
            f"The image of {width} × {height} pixels was reduced to {small.shape[2]} × {small.shape[1]} first, so a"
            " pixel of the ranges is a pixel of what is shown; the kernels were tried on the image at full size."
        )
    missing = [name for name in op_specs() if name not in subject.policy.own_ops]
    if missing:
        notes.append(f"Not in this policy: {', '.join(missing)}.")
    if subject.policy.strength != 1:
        notes.append(f"The policy itself trains at strength {subject.policy.strength:g}.")
    return notes


def _numbers(result: HalfPixel) -> dict[str, float | None]:
    finite = result.psnr if math.isfinite(result.psnr) else None
    return {"round_trip_psnr": finite, "kept_above_half_nyquist": result.kept}


if __name__ == "__main__":
    sys.exit(run(main))
