"""The three conversions against the libraries themselves, by benchmarks/parity.py: matrices, pixels, boxes, draws."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision import tv_tensors

from augkit.augment import geometry

FILE = Path(__file__).parent.parent.parent.parent / "benchmarks" / "parity.py"


def load_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("parity_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


parity = load_benchmark()
CASES = [(library, name) for library, ops in parity.OPS.items() for name in ops]
RANDOM = [(library, name) for library, name in CASES if parity.converted(library, parity.OPS[library][name]).draws > 1]
RANDOM = [(library, name) for library, name in RANDOM if "Flip" not in name]


@pytest.mark.parametrize(("library", "name"), CASES)
def test_the_librarys_own_draw_gives_its_matrix_pixels_and_boxes(library: str, name: str) -> None:
    if library == "torchvision" and not hasattr(tv_tensors, "KeyPoints"):
        pytest.skip("before 0.23 torchvision has no key points, and boxes cannot leave the image")
    torch.manual_seed(0)
    found = parity.differences(library, name, 4)
    assert (found["corners_px"] or 0.0) < 1e-4
    # OpenCV 4 places pixels to 1/32.
    assert found["pixels"] < (5e-3 if library == "albumentations" else 1e-5)
    assert (found["boxes_px"] or 0.0) < 1e-4
    assert (found["keypoints_px"] is None) == (library != "kornia")
    assert (found["keypoints_px"] or 0.0) < 1e-4


def their_matrices(library: str, op: Any, count: int) -> Tensor:
    """Matrices of ``count`` draws of the library."""
    augment = parity.converted(library, op)
    if library == "kornia":
        return parity.own_matrix(augment, parity.kornia_parameters(op, op.forward_parameters((count, 3, *parity.SIZE))))
    if library == "torchvision":
        image = parity.photo()
        given = (parity.torchvision_parameters(op, op.make_params([image])) for _ in range(count))
        return torch.cat([parity.own_matrix(augment, one) for one in given])
    found, params = [], {"shape": (*parity.SIZE, 3)}
    op.set_random_seed(0)
    for _ in range(count):
        drawn = op.get_params_dependent_on_data(params, {})
        if "matrix" in drawn:
            found.append(torch.from_numpy(drawn["matrix"]).float()[None])
        else:
            left, top, right, bottom = drawn["crop_coords"]
            ends = {"left": left, "top": top, "width": right - left, "height": bottom - top}
            found.append(parity.own_matrix(augment, parity.numbers(ends, parity.NAMES)))
    return torch.cat(found)


@pytest.mark.parametrize(("library", "name"), RANDOM)
def test_the_distribution_of_corners_is_the_librarys(library: str, name: str) -> None:
    torch.manual_seed(1)
    op, count = parity.OPS[library][name], 500
    ours = parity.converted(library, op).sample(count, parity.SIZE)
    points = parity.CORNERS[:, [0, 2]].expand(count, -1, -1)
    # Whole pixels are ties, which a rounding must not part.
    places = [geometry.apply_to_points(each, points) for each in (ours, their_matrices(library, op, count))]
    ends = [each.reshape(count, 4).double().round(decimals=3).T.numpy() for each in places]
    assert min(ks_2samp(a, b).pvalue for a, b in zip(*ends, strict=True)) > 1e-3
