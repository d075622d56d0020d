"""Parity of `augkit.Augment.from_kornia`, `from_torchvision`, `from_albumentations` with the libraries themselves.

Each op draws its parameters as its library does. Those are handed to the rule of the converted op, and matrix, pixels,
boxes and Kornia's keypoints are compared with what the library makes of the same draw: the largest difference over all
draws. Pixels are those whose bilinear taps all lie inside of the image, resampled without antialias, at least three
from the border of a resized crop (there augkit sees pixels of the image outside of the window, and the libraries repeat
the last ones).

    python benchmarks/parity.py
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import kornia.augmentation as K
import numpy as np
import torch
from albumentations.augmentations.geometric import functional as albumentations_geometry
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

import augkit
from augkit.augment import geometry

HERE = Path(__file__).parent
SIZE = (36, 50)
CORNERS = torch.tensor([[[0.0, 0.0], [49.0, 0.0], [49.0, 35.0], [0.0, 35.0]]])
BOX = torch.tensor([[[15.0, 10.0, 32.0, 25.0]]])
POINTS = torch.tensor([[[24.25, 17.5], [3.0, 30.75], [44.5, 2.0]]])
LINEAR = v2.InterpolationMode.BILINEAR
OPS: dict[str, dict[str, Any]] = {
    "torchvision": {
        "RandomAffine": v2.RandomAffine((-20, 30), (0.1, 0.2), (0.8, 1.3), (-5, 10, -15, 20), LINEAR),
        "RandomAffine(center)": v2.RandomAffine(20, scale=(0.9, 1.0), shear=10, interpolation=LINEAR, center=[10, 20]),
        "RandomRotation": v2.RandomRotation((-20, 45), LINEAR),
        "RandomRotation(center)": v2.RandomRotation(30, LINEAR, center=[12, 20]),
        "RandomPerspective": v2.RandomPerspective(0.5, p=1.0),
        "RandomResizedCrop": v2.RandomResizedCrop((24, 28), scale=(0.1, 0.9), antialias=False),
        "RandomCrop(padding)": v2.RandomCrop((30, 40), padding=[1, 2, 3, 4]),
        "Resize(int)": v2.Resize(20, antialias=False),
        "Resize": v2.Resize((44, 30), antialias=False),
        "CenterCrop": v2.CenterCrop((25, 31)),
        "CenterCrop(larger)": v2.CenterCrop((45, 31)),
        "RandomHorizontalFlip": v2.RandomHorizontalFlip(p=1.0),
        "RandomVerticalFlip": v2.RandomVerticalFlip(p=1.0),
    },
    "kornia": {
        "RandomAffine": K.RandomAffine(
            (-20.0, 30.0), (0.1, 0.2), (0.8, 1.3, 0.7, 1.1), (-5.0, 10.0, -15.0, 20.0), p=1.0
        ),
        "RandomAffine(one scale)": K.RandomAffine(20.0, scale=(0.9, 1.2), p=1.0),
        "RandomRotation": K.RandomRotation((-20.0, 45.0), p=1.0),
        "RandomShear": K.RandomShear((-5.0, 10.0, -15.0, 20.0), p=1.0),
        "RandomTranslate": K.RandomTranslate((-0.1, 0.2), (0.0, 0.3), p=1.0),
        "RandomPerspective": K.RandomPerspective(0.5, p=1.0),
        "RandomPerspective(area_preserving)": K.RandomPerspective(0.3, p=1.0, sampling_method="area_preserving"),
        "RandomResizedCrop": K.RandomResizedCrop((24, 28), scale=(0.1, 0.9)),
        "RandomResizedCrop(align_corners=False)": K.RandomResizedCrop((24, 28), scale=(0.1, 0.9), align_corners=False),
        "RandomCrop": K.RandomCrop((30, 40)),
        "RandomCrop(padding)": K.RandomCrop((36, 50), padding=(1, 2, 3, 4)),
        "Resize": K.Resize((44, 30)),
        "Resize(int)": K.Resize(20, align_corners=False),
        "CenterCrop": K.CenterCrop((25, 31)),
        "RandomHorizontalFlip": K.RandomHorizontalFlip(p=1.0),
        "RandomVerticalFlip": K.RandomVerticalFlip(p=1.0),
    },
    "albumentations": {
        "Affine": A.Affine((0.8, 1.2), (-0.1, 0.2), None, (-20, 30), {"x": (-5, 10), "y": (-15, 20)}, p=1.0),
        "Affine(translate_px)": A.Affine({"x": (0.8, 1.3), "y": 1.1}, None, (-3, 5), p=1.0),
        "Affine(balanced_scale)": A.Affine((0.5, 1.2), keep_ratio=True, balanced_scale=True, p=1.0),
        "Rotate": A.Rotate((-20, 45), p=1.0),
        "RandomResizedCrop": A.RandomResizedCrop((24, 28), scale=(0.1, 0.9)),
        "RandomCrop": A.RandomCrop(30, 40),
        "CenterCrop": A.CenterCrop(25, 31),
        "Resize": A.Resize(44, 30),
        "SmallestMaxSize": A.SmallestMaxSize(24),
        "LongestMaxSize": A.LongestMaxSize(40),
        "HorizontalFlip": A.HorizontalFlip(p=1.0),
        "VerticalFlip": A.VerticalFlip(p=1.0),
    },
}


class Compared(NamedTuple):
    """One draw: our matrix ``(1, 3, 3)``, and what the library makes of it; targets where it moves any.

    ``corners`` ``(1, 4, 2)`` are those of `CORNERS` in pixels, ``box`` ``(4,)`` is that of `BOX` along pixel edges, and
    ``points`` ``(1, 3, 2)`` are `POINTS` as keypoints of Kornia's pipeline.
    """

    matrix: Tensor
    image: Tensor
    corners: Tensor | None
    box: Tensor | None
    points: Tensor | None = None


def photo(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth images in [0, 1], on which a place that is wrong by a hundredth of a pixel shows."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    waves = [torch.sin(x / 5 + k) * torch.cos(y / 4 - k) for k in range(3 * batch)]
    return torch.stack(waves).reshape(batch, 3, *size) * 0.5 + 0.5


def converted(library: str, op: Any) -> augkit.Augment:
    """The transform that `augkit.Augment` makes of ``op``."""
    made: augkit.Augment = getattr(augkit.Augment, f"from_{library}")(op)
    return made


def own_matrix(augment: augkit.Augment, given: dict[str, Tensor]) -> Tensor:
    """The matrix of the one op of ``augment`` for parameters ``given`` of its rule; of a flip without them."""
    op = augment.geometry[0]
    if not hasattr(op, "rule"):
        return op.matrix(torch.zeros(1, op.draws), 1.0, SIZE)
    rule = op.rule
    batch = len(next(iter(given.values()))) if given else 1
    wanted = rule.parameters(torch.rand(batch, rule.columns), SIZE)
    given = {name: given.get(name, value) for name, value in wanted.items()}
    if rule.axis_aligned:
        return rule.axes(given, SIZE).matrix(SIZE, rule.output_size(SIZE))
    return rule.matrix(given, SIZE)


def numbers(drawn: dict[str, Any], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Parameters that are a number each, as tensors ``(1,)``."""
    return {name: torch.tensor([float(drawn[name])]) for name in names if name in drawn}


def torchvision_parameters(op: Any, drawn: dict[str, Any]) -> dict[str, Tensor]:
    """Torchvision's parameters under the names of our laws."""
    if "coefficients" in drawn:  # of the map from output to input, in the form of which one entry is 1
        backward = torch.tensor([*drawn["coefficients"], 1.0], dtype=torch.float64).reshape(1, 3, 3)
        ends = geometry.apply_to_points(geometry.invert(backward), CORNERS.double()).float()
        return {"inwards": ((ends - CORNERS) * torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])).round()}
    if "angle" in drawn:
        turn = -1.0 if type(op).__name__ == "RandomRotation" else 1.0
        return {
            "angle": torch.tensor([turn * drawn["angle"]]),
            "translate": torch.tensor([drawn.get("translate", (0, 0))], dtype=torch.float32),
            "scale": torch.tensor([[float(drawn.get("scale", 1.0))] * 2]),
            "shear": torch.tensor([drawn.get("shear", (0.0, 0.0))]),
        }
    found = numbers(drawn, ("left", "top", "width", "height"))
    if "padding" in drawn:
        found |= {name: found[name] - drawn["padding"][k] for k, name in enumerate(("left", "top"))}
    return found


def from_torchvision(op: Any) -> Compared:
    """One draw of torchvision."""
    image, drawn = photo(), op.make_params([photo()])
    matrix = own_matrix(converted("torchvision", op), torchvision_parameters(op, drawn))
    # Its points lie along the edges of pixels, as its boxes do.
    points = tv_tensors.KeyPoints(CORNERS[0] + 0.5, canvas_size=SIZE)
    boxes = tv_tensors.BoundingBoxes(BOX[0], format="XYXY", canvas_size=SIZE, clamping_mode=None)
    # But it mirrors points by their pixels, unlike its boxes, and clips those outside of a padded crop.
    apart = type(op).__name__ in ("RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip")
    moved = None if apart else op.transform(points, drawn).as_subclass(Tensor)[None] - 0.5
    return Compared(matrix, op.transform(image, drawn), moved, op.transform(boxes, drawn).as_subclass(Tensor)[0])


def kornia_parameters(op: Any, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
    """Kornia's parameters under the names of our laws."""
    batch = len(drawn["batch_prob"])
    if "end_points" in drawn:
        signs = torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
        return {"inwards": (drawn["end_points"] - drawn["start_points"]) * signs}
    if type(op).__name__ in ("RandomResizedCrop", "RandomCrop"):
        place, extent = drawn["src"][:, 0], drawn["src"][:, 2] - drawn["src"][:, 0] + 1
        padding = op.flags.get("padding")
        place = place if padding is None else place - torch.tensor(padding[:2])
        return {"left": place[:, 0], "top": place[:, 1], "width": extent[:, 0], "height": extent[:, 1]}
    found = {"translate": torch.zeros(batch, 2), "scale": torch.ones(batch, 2), "angle": torch.zeros(batch)}
    found["shear"] = torch.zeros(batch, 2)
    if "degrees" in drawn:
        found["angle"] = -drawn["degrees"]
    if "translate_x" in drawn:
        found["translate"] = torch.stack([drawn["translate_x"], drawn["translate_y"]], dim=1)
    if "shear_x" in drawn:
        found["shear"] = torch.stack([drawn["shear_x"], drawn["shear_y"]], dim=1)
    if "scale" in drawn:
        found |= {"scale": drawn["scale"], "angle": drawn["angle"], "translate": drawn["translations"]}
    return found


def from_kornia(op: Any) -> Compared:
    """One draw of Kornia."""
    image, pipeline = photo(), K.AugmentationSequential(op, data_keys=["input", "bbox_xyxy", "keypoints"])
    theirs, boxes, points = pipeline(image, BOX - 0.5, POINTS)  # boxes: two corners at the centers of pixels
    drawn = op._params
    matrix = own_matrix(converted("kornia", op), kornia_parameters(op, drawn))
    corners = geometry.apply_to_points(op.get_transformation_matrix(image, drawn), CORNERS)
    return Compared(matrix, theirs, corners, None if "Crop" in type(op).__name__ else boxes[0, 0] + 0.5, points)


def from_albumentations(op: Any) -> Compared:
    """One draw: albumentations' of a window, ours of an affine map, as theirs does not tell its translation."""
    image, augment = photo(), converted("albumentations", op)
    params: dict[str, Any] = {"shape": (*SIZE, 3)}
    drawn = {**params, **op.get_params_dependent_on_data(params, {})}
    if "matrix" in drawn:
        rule = augment.geometry[0].rule
        given = rule.parameters(torch.rand(1, rule.columns, dtype=torch.float64), SIZE)
        named = {
            name: dict(zip("xy", given[name][0].tolist(), strict=True)) for name in ("translate", "shear", "scale")
        }
        named["shear"] = {axis: -value for axis, value in named["shear"].items()}
        for name, center in (("matrix", "center"), ("bbox_matrix", "center_bbox")):
            middle = getattr(albumentations_geometry, center)(SIZE)
            make = albumentations_geometry.create_affine_transformation_matrix
            drawn[name] = make(named["translate"], named["shear"], named["scale"], given["angle"].item(), middle)
        corners = geometry.apply_to_points(torch.from_numpy(drawn["matrix"])[None], CORNERS.double()).float()
    else:
        given, corners = {}, None
        if "crop_coords" in drawn:
            left, top, right, bottom = drawn["crop_coords"]
            given = numbers({"left": left, "top": top, "width": right - left, "height": bottom - top}, tuple(NAMES))
    matrix = own_matrix(augment, given).float()
    array = image[0].permute(1, 2, 0).contiguous().numpy()
    theirs = torch.from_numpy(np.ascontiguousarray(op.apply(array, **drawn))).permute(2, 0, 1)[None]
    size = np.array([SIZE[1], SIZE[0]] * 2)
    moved = op.apply_to_bboxes(BOX[0].numpy() / size, **drawn)[0, :4] * np.array([*theirs.shape[:1:-1]] * 2)
    return Compared(matrix, theirs, corners, torch.from_numpy(moved).float())


NAMES = ("left", "top", "width", "height")
DRAWS = {"torchvision": from_torchvision, "kornia": from_kornia, "albumentations": from_albumentations}


def differences(library: str, name: str, draws: int) -> dict[str, float | None]:
    """The largest differences over ``draws`` of the op: corners, boxes, keypoints in pixels, pixels in [0, 1]."""
    worst: dict[str, float | None] = {"corners_px": None, "pixels": 0.0, "boxes_px": None, "keypoints_px": None}
    for _ in range(draws):
        one = DRAWS[library](OPS[library][name])
        size = tuple(one.image.shape[-2:])
        ours = augkit.resample(photo(), one.matrix, size, kernel="bilinear", antialias=False)
        inside = augkit.resample(torch.ones(1, 1, *SIZE), one.matrix, size, kernel="bilinear", antialias=False)
        known = inside.expand_as(ours) > 1 - 1e-6
        if "ResizedCrop" in name:
            known = torch.nn.functional.pad(known[..., 3:-3, 3:-3], (3, 3, 3, 3))
        found = {"pixels": float((ours - one.image)[known].abs().max())}
        if one.corners is not None:
            found["corners_px"] = float((geometry.apply_to_points(one.matrix, CORNERS) - one.corners).abs().max())
        if one.box is not None:
            found["boxes_px"] = float((geometry.apply_to_boxes(one.matrix, BOX)[0, 0] - one.box).abs().max())
        if one.points is not None:
            found["keypoints_px"] = float((geometry.apply_to_points(one.matrix, POINTS) - one.points).abs().max())
        worst |= {key: max(value, worst[key] or 0.0) for key, value in found.items()}
    return worst


def table(rows: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """The differences as a table in Markdown."""
    lines = ["| library | op | corners, px | pixels, of 1 | boxes, px | keypoints, px |", "|---|---|--:|--:|--:|--:|"]
    columns = ("corners_px", "pixels", "boxes_px", "keypoints_px")
    for library, ops in rows.items():
        for name, row in ops.items():
            shown = ["" if row[key] is None else f"{row[key]:.1g}" for key in columns]
            lines.append(f"| {library} | {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare every op, write the numbers and the table."""
    from machine import environment

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "parity.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = {library: {name: differences(library, name, options.draws) for name in ops} for library, ops in OPS.items()}
    packages = ["augkit", "torch", "kornia", "torchvision", "albumentations", "opencv-python-headless"]
    result = {"draws": options.draws, "size": SIZE, "environment": environment("cpu", packages), "differences": rows}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
