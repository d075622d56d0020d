"""One photograph resized, rotated and shifted, in three resamplings and in one, and what is left of its detail.

    python benchmarks/one_resampling.py  # writes results/one-resampling.png and .json; seconds

The chain is torchvision's: resize to 224 pixels (bilinear, antialias), rotate by 10 degrees, shift by 0.4 and 0.3
pixels (bilinear). The same geometry in one resampling is augkit's, with three kernels. What is left is the amplitude of
the spectrum around each frequency, in the central square that all of them fill, relative to one resampling by the
``sinc`` kernel in float64 (16 taps, the most faithful one that augkit has).
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from machine import environment
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import InterpolationMode

import augkit
from augkit.augment import geometry

HERE = Path(__file__).parent
SIDE, DEGREES, SHIFT, WINDOW = 224, 10.0, (0.4, 0.3), 128
BANDS = np.linspace(0, 0.5, 26)  # cycles per pixel


def photograph() -> Tensor:
    """``(1, 3, S, S)`` float64 in [0, 1]: the central square of scikit-learn's flower."""
    image = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    side = min(image.shape[1:])
    return F.center_crop(image, [side, side])[None].double() / 255


def in_three(image: Tensor) -> Tensor:
    """torchvision's chain of three resamplings."""
    small = F.resize(image, [SIDE, SIDE], InterpolationMode.BILINEAR, antialias=True)
    how = {"scale": 1.0, "shear": [0.0, 0.0], "interpolation": InterpolationMode.BILINEAR}
    turned = F.affine(small, -DEGREES, [0, 0], **how)
    return F.affine(turned, 0.0, list(SHIFT), **how)


def matrix_of(image: Tensor) -> Tensor:
    """The product of the three maps, ``(1, 3, 3)``."""
    height, width = image.shape[-2:]
    zero = torch.zeros(1, dtype=torch.float64)
    small = geometry.crop(zero, zero, zero + width, zero + height, (SIDE, SIDE))
    turned = geometry.rotate(zero + DEGREES, (SIDE, SIDE))
    return geometry.compose(small, turned, geometry.shift(torch.tensor([SHIFT], dtype=torch.float64)))


def amplitudes(image: Tensor) -> np.ndarray:
    """Root mean square of the spectrum in each of `BANDS`, of the central window under a Hann taper."""
    start = (SIDE - WINDOW) // 2
    part = image[0, :, start : start + WINDOW, start : start + WINDOW].numpy()
    taper = np.hanning(WINDOW)
    power = (np.abs(np.fft.fft2((part - part.mean((1, 2), keepdims=True)) * taper * taper[:, None])) ** 2).sum(0)
    frequency = np.hypot(np.fft.fftfreq(WINDOW)[:, None], np.fft.fftfreq(WINDOW))
    places = np.digitize(frequency, BANDS) - 1
    return np.array([np.sqrt(power[places == k].mean()) for k in range(len(BANDS) - 1)])


def main() -> None:
    image = photograph()
    matrix = matrix_of(image)
    seen = {"torchvision, three resamplings": in_three(image)}
    for kernel in ("bilinear", "bicubic", "lanczos3"):
        seen[f"augkit {kernel}, one"] = augkit.resample(image, matrix, (SIDE, SIDE), kernel=kernel)
    ideal = augkit.resample(image, matrix, (SIDE, SIDE), kernel="sinc")
    kept = {name: amplitudes(out) / amplitudes(ideal) for name, out in seen.items()}
    middle = (BANDS[1:] + BANDS[:-1]) / 2
    high = (middle >= 0.25) & (middle < 0.45)
    record = environment("cpu", ("torch", "torchvision", "numpy", "scikit-learn", "augkit"))
    record |= {"bands": middle.round(3).tolist(), "kept": {name: v.round(4).tolist() for name, v in kept.items()}}
    record["kept_from_0.25_to_0.45"] = {name: round(float(v[high].mean()), 3) for name, v in kept.items()}
    (HERE / "results" / "one-resampling.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(seen, ideal, middle, kept)
    print(json.dumps(record["kept_from_0.25_to_0.45"], indent=1))


def draw(seen: dict[str, Tensor], ideal: Tensor, middle: np.ndarray, kept: dict[str, np.ndarray]) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"torchvision, three resamplings": seen["torchvision, three resamplings"]}
    shown |= {name: seen[name] for name in ("augkit bilinear, one", "augkit lanczos3, one")} | {"sinc, one": ideal}
    figure = plt.figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.5])
    detail = slice(SIDE // 2 - 36, SIDE // 2 + 36)
    for axes, (name, out) in zip(panels, shown.items(), strict=False):
        axes.imshow(out[0, :, detail, detail].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axes.set_title(name.replace(", ", ",\n"), fontsize=8)
        axes.set_axis_off()
    for (name, values), style in zip(kept.items(), ("-", "--", "-.", ":"), strict=True):
        panels[-1].plot(middle, values, style, label=name)
    panels[-1].set(xlabel="cycles per pixel", ylabel="amplitude kept", ylim=(0, 1.15), xlim=(0, 0.5))
    panels[-1].legend(fontsize=6)
    figure.savefig(HERE / "results" / "one-resampling.png", dpi=150)


if __name__ == "__main__":
    main()
