"""Harmonic layers and the harmonic network: how closely they turn with the image, and what that is worth.

    python benchmarks/harmonic.py                 # everything: about 10 minutes on a core
    python benchmarks/harmonic.py layer network   # two minutes; the digits of the results stay as they are
    python benchmarks/harmonic.py digits          # the rest

All parts write ``results/harmonic.json``.

- **layer**: signal to error in dB of `HarmonicConv2d` at random weights when its maps turn by random angles. Maps
  are sums of plane waves of at most 0.2 cycles per pixel, computed at the turned coordinates: no interpolation.
- **network**: the same for the logits of `HarmonicNet` at random weights (batch norms calibrated), over images
  that fade out towards the border. Signal is the variance of logits over images.
- **digits**: `HarmonicNet` and the plain `small_cnn` are trained on upright MNIST digits without augmentation, and
  tested on upright ones and on ones turned by uniformly random angles. Intervals are 95 %, over images and seeds
  (`augkit.invariance.bootstrap`); the difference is paired. For comparison: the plain network of four times the
  size, and the plain one trained on digits turned at random.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures import HarmonicConv2d, HarmonicNet, build_model
from augkit.architectures.build import initialize
from augkit.augment import geometry
from augkit.augment.resample import resample
from augkit.core.files import environment, write
from augkit.data import load_dataset
from augkit.invariance.bootstrap import Estimate, Replicates, combine, replicates

RESULTS = Path(__file__).parent / "results" / "harmonic.json"
FLOAT = torch.float64
BAND = 0.2  # cycles per pixel
SIZES = (5, 7, 9)  # pixels
WAVES, PATCHES, CHANNELS, FILTERS, LAYER_SEEDS = 64, 200, 4, 32, 5
NETWORK_SEEDS, IMAGES, ANGLES = 5, 24, 8
SEEDS, EPOCHS, BATCH, RATE, DECAY, TURNS = 3, 8, 32, 0.02, 1e-3, 4


# --- equivariance ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waves:
    """Complex maps ``(C,)``, each a sum of plane waves: ``frequency (C, N, 2)`` in cycles per pixel, x and y up."""

    frequency: Tensor
    amplitude: Tensor

    @classmethod
    def random(cls, channels: int, band: float, generator: torch.Generator) -> Waves:
        """Frequencies uniform over the disc of radius ``band``."""
        uniform = torch.rand(2, channels, WAVES, generator=generator, dtype=FLOAT)
        frequency = torch.polar(band * uniform[0].sqrt(), 2 * math.pi * uniform[1])
        amplitude = torch.randn(channels, WAVES, 2, generator=generator, dtype=FLOAT) / math.sqrt(WAVES)
        return cls(torch.view_as_real(frequency), torch.view_as_complex(amplitude))

    def at(self, points: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` at ``points`` ``(B, ..., 2)`` as ``(x, y)``, y up."""
        phase = 2 * math.pi * torch.einsum("bpk,cnk->bcpn", points.flatten(1, -2), self.frequency)
        values = torch.einsum("bcpn,cn->bcp", torch.polar(torch.ones_like(phase), phase), self.amplitude)
        return values.unflatten(2, points.shape[1:-1])


def pixels(side: int) -> Tensor:
    """Coordinates ``(side, side, 2)`` of pixels about the center: x, and y up."""
    steps = torch.arange(side, dtype=FLOAT) - (side - 1) / 2
    return torch.stack(torch.meshgrid(steps, -steps, indexing="xy"), dim=-1)


def turn_back(points: Tensor, angles: Tensor) -> Tensor:
    """``points`` ``(..., 2)`` turned clockwise by each of ``angles`` ``(B,)``: ``(B, ..., 2)``."""
    cos, sin = angles.cos(), angles.sin()
    matrix = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.einsum("bij,...j->b...i", matrix, points)


def decibels(signal: Tensor, error: Tensor) -> float:
    """``10 log10`` of the ratio of energies."""
    return float(10 * torch.log10(signal.abs().square().sum() / error.abs().square().sum()))


@torch.no_grad()
def layer_decibels(m: int, n: int, size: int, seed: int, patches: int = PATCHES) -> float:
    """Signal to error of a random layer from order m to order n, over random places and angles."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    conv = HarmonicConv2d({m: CHANNELS}, {n: FILTERS}, size).to(FLOAT)
    waves = Waves.random(CHANNELS, BAND, generator)
    places = 100 * torch.rand(patches, 1, 1, 2, generator=generator, dtype=FLOAT)
    angles = 2 * math.pi * torch.rand(patches, generator=generator, dtype=FLOAT)

    def center(points: Tensor, phase: Tensor) -> Tensor:
        # A patch of the size of the filter: its central pixel sees all of it and no padding.
        maps = waves.at(points)
        if m == 0:
            maps = maps.real + 0j  # as of an image
        maps = maps * phase[:, None, None, None]
        out = conv(torch.cat([maps.real, maps.imag], dim=1))[:, :, size // 2, size // 2]
        return torch.complex(*out.chunk(2, dim=1))

    phases = torch.polar(torch.ones_like(angles), angles)
    upright = center(places + pixels(size), torch.ones_like(phases)) * (phases**n)[:, None]
    turned = center(places + turn_back(pixels(size), angles), phases**m)
    return decibels(upright, turned - upright)


def fading_images(count: int, side: int, angles: Tensor, generator: torch.Generator) -> Tensor:
    """Images ``(count, A, 1, side, side)``, each turned by every one of ``angles`` ``(A,)``, dark at the border.

    A Gaussian window widens the band by its own: of waves of at most 0.12 cycles per pixel, the energy above 0.2
    is 58 dB below the rest.
    """
    waves = Waves.random(count, 0.12, generator)
    window = torch.exp(-pixels(side).square().sum(-1) / (2 * (side / 7) ** 2))
    points = turn_back(pixels(side), angles)
    return (waves.at(points).real * window).transpose(0, 1)[:, :, None]


@torch.no_grad()
def network_decibels(size: int, seed: int, count: int = IMAGES, turns: int = ANGLES) -> float:
    """Signal to error of the logits of a random network when ``count`` images of 41 pixels turn at random."""
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(turns, generator=generator, dtype=FLOAT)
    images = fading_images(count, 41, torch.cat([torch.zeros(1, dtype=FLOAT), angles]), generator)
    net = HarmonicNet(10, size=size)
    initialize(net, seed)
    net = net.to(FLOAT).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over calls
    net(images[:, 0])
    logits = net.eval()(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    upright = logits[:, :1].expand_as(logits[:, 1:])
    return decibels(upright - upright.mean(0), logits[:, 1:] - upright)


def measure_layers() -> dict[str, Any]:
    """The worst over weights and pairs of orders, and every pair."""
    table, pairs = [], []
    for size in SIZES:
        row: dict[str, Any] = {"size": size}
        for m in (0, 1, 2):
            for n in (0, 1, 2):
                values = [layer_decibels(m, n, size, seed) for seed in range(LAYER_SEEDS)]
                pair = {"size": size, "input_order": m, "output_order": n, "decibels": [round(v, 1) for v in values]}
                pairs.append(pair)
                key = f"order_{abs(n - m)}"
                row[key] = min(row.get(key, math.inf), *pair["decibels"])
        table.append(row)
    n = {"weights": LAYER_SEEDS, "patches": PATCHES, "filters": CHANNELS * FILTERS}
    return {"band": BAND, "n": n, "table": table, "pairs": pairs}


def measure_network() -> dict[str, Any]:
    """dB of the logits per filter size, for each of several random weights."""
    rows = [
        {"size": size, "decibels": [round(network_decibels(size, seed), 1) for seed in range(NETWORK_SEEDS)]}
        for size in SIZES
    ]
    return {"n": {"weights": NETWORK_SEEDS, "images": IMAGES, "angles": ANGLES}, "table": rows}


# --- digits ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Images ``(N, 1, 28, 28)`` in [0, 1] with labels; test images also turned, ``(N, TURNS, 1, 28, 28)``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    turned: Tensor


@dataclass(frozen=True)
class Contender:
    """A network and whether its training images are turned at random."""

    network: str
    width: int
    augmented: bool = False

    def build(self, seed: int) -> nn.Module:
        """The network with the initial weights that ``seed`` names."""
        if self.network == "small_cnn":
            return build_model("small_cnn", 10, 1, width=self.width, seed=seed)
        net = HarmonicNet(10, 1, width=self.width)
        initialize(net, seed)
        return net


CONTENDERS = {
    "harmonic": Contender("harmonic", 4),
    "small_cnn": Contender("small_cnn", 8),
    "small_cnn of four times the size": Contender("small_cnn", 16),
    "small_cnn trained on turned digits": Contender("small_cnn", 8, augmented=True),
}


def load_digits(limit: int | None = None) -> Digits:
    """`mnist5k`; the angles of the test images are fixed."""
    dataset = load_dataset("mnist5k", limit=limit)
    test = dataset.open_test()
    assert dataset.train.labels is not None
    assert test.labels is not None
    images = test.images.float() / 255
    generator = torch.Generator().manual_seed(0)
    turned = torch.stack([turned_at_random(images, generator) for _ in range(TURNS)], dim=1)
    return Digits(dataset.train.images.float() / 255, dataset.train.labels, images, test.labels, turned)


def turned_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by an angle of its own, uniform over the circle."""
    degrees = 360 * torch.rand(len(images), generator=generator)
    size = (images.shape[-2], images.shape[-1])
    return resample(images, geometry.rotate(degrees, size), kernel="bicubic").clamp(0, 1)


def train(model: nn.Module, digits: Digits, augmented: bool, seed: int, epochs: int) -> None:
    """AdamW, one cycle; the order of the images is the same for all networks."""
    order, angles = (torch.Generator().manual_seed(1000 * seed + k) for k in (1, 2))
    steps = len(digits.train) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for _ in range(epochs):
        images = turned_at_random(digits.train, angles) if augmented else digits.train
        for chosen in torch.randperm(len(images), generator=order)[: steps * BATCH].view(steps, BATCH):
            loss = F.cross_entropy(model(images[chosen]), digits.train_labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is read right, ``(N,)`` of 0 and 1."""
    guesses = torch.cat([model(part).argmax(-1) for part in images.split(500)])
    return (guesses == labels).double()


def train_and_test(name: str, digits: Digits, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Per test image: right upright (0 or 1), and the share of its random angles at which it is right."""
    start = time.perf_counter()
    model = CONTENDERS[name].build(seed)
    train(model, digits, CONTENDERS[name].augmented, seed, epochs)
    model.eval()
    turned = torch.stack([correct(model, part, digits.test_labels) for part in digits.turned.unbind(1)])
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "upright": correct(model, digits.test, digits.test_labels),
        "rotated": turned.mean(0),
        "seconds": time.perf_counter() - start,
    }


def accuracy(runs: list[dict[str, Any]], key: str) -> Replicates:
    """Accuracy over images and seeds, ready to be paired with another network's."""
    return replicates("accuracy", [{"js": run[key][:, None], "correct": run[key][:, None]} for run in runs])


def measure_digits() -> dict[str, Any]:
    """Accuracies with intervals for every contender, and the differences from the plain network of the same size."""
    digits, rows, estimates = load_digits(), [], {}
    for name in CONTENDERS:
        runs = [train_and_test(name, digits, seed) for seed in range(SEEDS)]
        estimates[name] = {key: accuracy(runs, key) for key in ("upright", "rotated")}
        shares = {key: value.estimate(0, 1) for key, value in estimates[name].items()}
        rows.append({"network": name, "parameters": runs[0]["parameters"]} | shares)
        rows[-1]["seconds"] = [round(run["seconds"], 1) for run in runs]
        print(line(rows[-1]), flush=True)
    differences = {
        key: combine(np.subtract, estimates["harmonic"][key], estimates["small_cnn"][key]).estimate()
        for key in ("upright", "rotated")
    }
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "weight_decay": DECAY}
    n = {"train": len(digits.train), "test": len(digits.test), "angles": TURNS, "seeds": SEEDS}
    return {"n": n, "training": settings, "table": rows, "harmonic minus small_cnn": differences}


def line(row: dict[str, Any]) -> str:
    upright, rotated = (
        "{:5.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in row[key].to_dict().values()))
        for key in ("upright", "rotated")
    )
    return f"{row['network']:36s} {row['parameters']:6d}  upright {upright}  rotated {rotated}  {row['seconds']} s"


# --- results --------------------------------------------------------------------------------------------------

PARTS = {"layer": measure_layers, "network": measure_network, "digits": measure_digits}


def read_results(path: Path = RESULTS) -> dict[str, Any]:
    """The results as they were written; empty when there are none."""
    return json.loads(path.read_text()) if path.exists() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Harmonic layers and network: equivariance in dB, turned digits.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), metavar="PART")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args(arguments)
    results = read_results(options.output)
    for name in options.parts:
        start = time.perf_counter()
        measured = PARTS[name]()
        command = " ".join(["python benchmarks/harmonic.py", *options.parts])
        about = environment() | {"command": command}
        results[name] = measured | {"seconds": round(time.perf_counter() - start, 1), "environment": about}
        text = json.dumps(results, indent=1, allow_nan=False, default=Estimate.to_dict)
        write(options.output, text + "\n")
        print(json.dumps(measured.get("table"), default=Estimate.to_dict))


if __name__ == "__main__":
    main()
