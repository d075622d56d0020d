"""How far the logits of untrained networks move when the image does: the exactness table.

    python benchmarks/exactness.py            # CPU, about 10 minutes; writes results/exactness.json and .md
    python benchmarks/exactness.py --quick    # narrow networks, seconds; writes nothing unless --output is given

The image is a torus: integer shifts roll it, fractional ones turn the phases of its spectrum. Weights are random;
batch norm has the statistics of other images of the same kind. A move is the largest change of any logit under any
shift of a kind, over the standard deviation of the logits of the unshifted images. Top-1 says nothing here: an
untrained strided network hardly ever changes its answer while its logits move by as much as they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import augkit
from augkit.core.errors import OddMapWarning

SIZES = (64, 72, 96)
DTYPES = (torch.float32, torch.float64)
# Pixels (x, y), of the same fraction along both axes or along one.
SHIFTS: dict[str, list[tuple[float, float]]] = {
    "integer": [(1, 0), (0, 1), (1, 1), (-3, 5), (7, -11), (16, 16), (31, 2), (33, 47)],
    "half": [(0.5, 0), (0, -0.5), (0.5, 0.5), (-4.5, 11.5)],
    "third": [(1 / 3, 0), (0, 2 / 3), (-1 / 3, 2 / 3), (5 + 1 / 3, -17 - 1 / 3)],
}


@dataclass(frozen=True)
class Case:
    """A network, how the image is moved, and what is claimed of it.

    Args:
        label: its name in the table.
        exact: kinds of shift under which it does not move, where all maps halve evenly.
        arguments: of `augkit.build_model`, beside those of `build`.
        kernel: of fractional shifts.
        name: of the network.
        rounding: the largest move that is rounding, in float64.
        odd_breaks: whether a map that does not halve evenly ends the claim.
        moves: the least that it moves where nothing is claimed.
    """

    label: str
    exact: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    kernel: str = "fourier"
    name: str = "resnet18"
    rounding: float = 1e-12
    odd_breaks: bool = True
    moves: float = 0.01

    @property
    def bounds(self) -> dict[torch.dtype, float]:
        """The largest move that is rounding, in each dtype."""
        return {torch.float32: 1e-5, torch.float64: self.rounding}

    def build(self, width: int | None) -> nn.Module:
        """The network with weights of seed 0, of its own width where None; ResNets halve maps five times."""
        stem = {"stem": "imagenet"} if self.name.startswith("resnet") else {}
        arguments = {"padding_mode": "circular", **stem, **self.arguments}
        return augkit.build_model(self.name, 10, width=width, seed=0, **arguments)


ALL = tuple(SHIFTS)
ALIAS_FREE = {"rounding": 1e-11, "odd_breaks": False}
CASES = [
    Case("ResNet-18, stride", arguments={"downsample": "stride"}),
    Case("ResNet-18, max pool", arguments={"downsample": "maxpool"}),
    Case("ResNet-18, blur pool", arguments={"downsample": "blurpool"}),
    Case("ResNet-18, APS", ("integer",), {"downsample": "aps"}),
    Case("ResNet-18, APS, zero padding", arguments={"downsample": "aps", "padding_mode": "zeros"}),
    Case("ResNet-18, LPS", ("integer",), {"downsample": "lps"}),
    Case("ResNet-18, alias-free", ALL, {"downsample": "aliasfree"}, **ALIAS_FREE),
    Case("ConvNeXt", name="convnext"),
    Case("ConvNeXt, alias-free", ALL, name="convnext_aliasfree", **ALIAS_FREE),
    Case("ConvNeXt, alias-free, zero padding", arguments={"padding_mode": "zeros"}, name="convnext_aliasfree"),
    Case("ConvNeXt, alias-free, GELU", arguments={"activation": "gelu"}, name="convnext_aliasfree", moves=5e-3),
    Case(
        "ConvNeXt, alias-free, upsampled GELU",
        arguments={"activation": "aliasfree_gelu"},
        name="convnext_aliasfree",
        moves=1e-4,
    ),
    Case("ConvNeXt, alias-free, bilinear shifts", ("integer",), {}, "bilinear", "convnext_aliasfree", **ALIAS_FREE),
]


def pictures(count: int, side: int, seed: int) -> Tensor:
    """Random images ``(count, 3, side, side)`` in float64 with the spectrum of photographs, nothing at Nyquist."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft2(torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64))
    fy, fx = torch.fft.fftfreq(side)[:, None].abs(), torch.fft.rfftfreq(side)[None]
    gain = 1 / (fy.square() + fx.square()).sqrt().clamp(min=1 / side)
    gain = torch.where((fy == 0.5) | (fx == 0.5), 0, gain).double()
    images = torch.fft.irfft2(spectrum * gain, s=(side, side))
    return images / images.std()


def calibrate(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in evaluation mode, its batch norms with the statistics of the images, all else as in evaluation."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over passes, of which there is one
        norm.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def shifted(images: Tensor, shift: tuple[float, float], kernel: str) -> Tensor:
    """The images on the torus, moved by ``(x, y)`` pixels; whole pixels are rolled."""
    x, y = shift
    if float(x).is_integer() and float(y).is_integer():
        return images.roll((int(y), int(x)), (-2, -1))
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = torch.tensor(shift, dtype=torch.float64)
    return augkit.resample(images, matrix, kernel=kernel, padding="circular")


@torch.no_grad()
def moves(model: nn.Module, images: Tensor, shifts: Sequence[tuple[float, float]], kernel: str = "fourier") -> Tensor:
    """Largest change of a logit under each shift, over the standard deviation of the logits: ``(len(shifts),)``.

    The images, in float64, are shifted before they take the dtype of the model.
    """
    dtype = next(model.parameters()).dtype
    logits = model(images.to(dtype))
    changes = [(model(shifted(images, shift, kernel).to(dtype)) - logits).abs().max() for shift in shifts]
    return torch.stack(changes) / logits.std()


def measure(case: Case, side: int, dtype: torch.dtype, width: int | None, images: int) -> list[dict[str, Any]]:
    """A row for each kind of shift."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OddMapWarning)  # 72 halves to 9: what the table shows
        model = calibrate(case.build(width).to(dtype), pictures(2 * images, side, seed=1).to(dtype))
        rows, seen = [], pictures(images, side, seed=0)
        for kind, shifts in SHIFTS.items():
            values = moves(model, seen, shifts, case.kernel)
            worst = int(values.argmax())
            row = {"network": case.label, "shift": kind, "side": side, "dtype": str(dtype).removeprefix("torch.")}
            rows.append({**row, "move": values[worst].item(), "worst_shift": shifts[worst]})
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The table: a row per network and kind of shift, a column per size and dtype."""
    columns = [(side, str(dtype).removeprefix("torch.")) for side in SIZES for dtype in DTYPES]
    values = {(r["network"], r["shift"], r["side"], r["dtype"]): r["move"] for r in results["rows"]}
    lines = [
        "| network | shift | " + " | ".join(f"{side} px, {dtype}" for side, dtype in columns) + " |",
        "|---|---|" + "--:|" * len(columns),
    ]
    for network, kind in dict.fromkeys(key[:2] for key in values):
        cells = " | ".join(f"{values[network, kind, *column]:.1e}" for column in columns)
        lines.append(f"| {network} | {kind} | {cells} |")
    width = "full width" if results["width"] is None else f"width {results['width']}"
    told = (
        f"Largest change of a logit over the standard deviation of the logits; {width}, "
        f"{results['images']} images, random weights, circular padding unless said. `{results['command']}`, torch "
        f"{results['versions']['torch']}, {results['machine']}, {results['date']}."
    )
    return "\n".join([*lines, "", told, ""])


def run(width: int | None, images: int) -> dict[str, Any]:
    """Measure all cases."""
    start, rows = time.time(), []
    for case in CASES:
        for side in SIZES:
            for dtype in DTYPES:
                rows += measure(case, side, dtype, width, images)
        print(f"{case.label}: {time.time() - start:.0f} s", file=sys.stderr)
    return {
        "command": " ".join(["python", "benchmarks/exactness.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy", "augkit")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "date": time.strftime("%Y-%m-%d"),
        "width": width,
        "images": images,
        "shifts": SHIFTS,
        "rows": rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print the table."""
    parser = argparse.ArgumentParser(description="How far the logits of untrained networks move with the image.")
    parser.add_argument("--quick", action="store_true", help="narrow networks and few images")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: results beside this file")
    options = parser.parse_args(arguments)
    results = run(8, 4) if options.quick else run(None, 4)
    table = markdown(results)
    folder = options.output or (None if options.quick else Path(__file__).parent / "results")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "exactness.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        (folder / "exactness.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
