"""What interpolation does to photographs: our kernels beside those of other libraries.

Three questions, each on the luma of real photographs laid on a torus, so that borders play no part:

- **there and back**: shift by a random fraction of a pixel along x and y, then by its opposite. PSNR in dB.
- **eight steps**: eight random shifts, one after the other, that sum to whole pixels; against `numpy.roll`. PSNR.
- **energy kept**: shift by half a pixel along one axis; the share that is left of the energy above half Nyquist
  along that axis. 100 % is right; less is blur.

Every number has a 95 % interval from a bootstrap over patches of 64 pixels; all contenders see the same patches
and the same shifts, so differences are paired. Patches of one photograph are alike, and the photographs are few:
the intervals say how sure the numbers are for photographs such as these, not for all images.

    python benchmarks/quality.py            # two minutes at most; writes quality.json, .md and .png

The photographs are the two of scikit-learn, and those that scikit-image carries where it is installed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from contenders import Array, Contender, Shift, contenders
from matplotlib.figure import Figure

from augkit.core.figures import BLUE, GRAY, STYLE, save_png
from augkit.core.files import environment, write
from augkit.invariance import Estimate

PATCH = 64  # pixels
SEAM = 16  # pixels; patches keep away from where the torus is sewn together
SHIFTS, WALKS, STEPS = 5, 1, 8  # per photograph
REPLICATES = 2000
MEASURES = {
    "round_trip_psnr": ("there and back, dB", 1),
    "steps_psnr": ("eight steps, dB", 1),
    "energy_kept": ("energy kept above ½ Nyquist, %", 0),
}
# Half of the last digit shown: less is float rounding.
TIE = {name: 0.5 * 10.0**-digits for name, (_, digits) in MEASURES.items()}


@dataclass
class Sums:
    """Per patch, what the three measures are made of, each ``(P,)``."""

    round_trip: list[Array] = field(default_factory=list)
    steps: list[Array] = field(default_factory=list)
    before: list[Array] = field(default_factory=list)
    after: list[Array] = field(default_factory=list)


# --- measures -------------------------------------------------------------------------------------------------


def patches(image: Array, side: int = PATCH, margin: int = SEAM) -> Array:
    """``(H, W)`` to whole patches ``(P, side, side)`` that keep ``margin`` pixels away from the border."""
    rows, columns = ((n - 2 * margin) // side for n in image.shape)
    inner = image[margin : margin + rows * side, margin : margin + columns * side]
    return inner.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def squared_error(first: Array, second: Array) -> Array:
    """Mean squared error of every patch, ``(P,)``."""
    difference = patches(first).astype(np.float64) - patches(second)
    return (difference**2).mean(axis=(1, 2))


def psnr(error: Array) -> Array:
    """Peak signal-to-noise ratio in dB from the mean squared error of images in [0, 1]; infinite at 0.

    >>> round(float(psnr(np.array(0.01))), 6)
    20.0
    """
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def energy_above_half_nyquist(image: Array, axis: int) -> Array:
    """Energy of every patch at more than a quarter of a cycle per pixel along ``axis`` (0 is y), ``(P,)``.

    Patches lose their mean and get a Hann window, so that the ends of a patch do not look like fine detail.
    """
    cut = patches(image).astype(np.float64)
    window = np.hanning(PATCH + 2)[1:-1]
    cut = (cut - cut.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window
    power = np.abs(np.fft.fft2(cut)) ** 2
    fine = np.abs(np.fft.fftfreq(PATCH)) > 0.25
    return power.sum(axis=2 - axis)[:, fine].sum(axis=1)


def there_and_back(shift: Shift, image: Array, pixels: tuple[float, float]) -> Array:
    """Mean squared error per patch after a shift by ``pixels`` ``(x, y)`` and its opposite."""
    x, y = pixels
    return squared_error(shift(shift(image, x, y), -x, -y), image)


def walk(shift: Shift, image: Array, steps: Array) -> Array:
    """Mean squared error per patch after all ``steps`` ``(S, 2)``, which sum to whole pixels."""
    moved = image
    for x, y in steps.tolist():
        moved = shift(moved, x, y)
    x, y = np.rint(steps.sum(axis=0)).astype(int)
    return squared_error(moved, np.roll(image, (y, x), axis=(0, 1)))


def random_walk(rng: np.random.Generator, count: int = STEPS) -> Array:
    """``count`` steps ``(count, 2)`` of at most a pixel along each axis, that sum to whole pixels."""
    steps = rng.uniform(-1, 1, (count, 2))
    rest = steps[:-1].sum(axis=0)
    steps[-1] = np.rint(rest) - rest
    return steps


def measure(contender: Contender, photographs: dict[str, Array], seed: int = 0) -> Sums:
    """All three measures of one contender; the same seed draws the same shifts for all."""
    sums = Sums()
    for k, image in enumerate(photographs.values()):
        rng = np.random.default_rng([seed, k])
        trips = [there_and_back(contender.shift, image, tuple(rng.uniform(-1, 1, 2))) for _ in range(SHIFTS)]
        walks = [walk(contender.shift, image, random_walk(rng)) for _ in range(WALKS)]
        sums.round_trip.append(np.mean(trips, axis=0))
        sums.steps.append(np.mean(walks, axis=0))
        moved = (contender.shift(image, 0.0, 0.5), contender.shift(image, 0.5, 0.0))
        sums.before.append(sum(energy_above_half_nyquist(image, axis) for axis in (0, 1)))
        sums.after.append(sum(energy_above_half_nyquist(moved[axis], axis) for axis in (0, 1)))
    return sums


def replicates(sums: Sums, seed: int = 0) -> dict[str, Array]:
    """Per measure its value, then its bootstrap replicates over patches, ``(1 + R,)``; paired by ``seed``."""
    parts = {name: np.concatenate(value) for name, value in vars(sums).items()}
    count = len(parts["before"])
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=REPLICATES) / count
    weights = np.concatenate([np.full((1, count), 1 / count), weights])
    mean = {name: weights @ value for name, value in parts.items()}
    return {
        "round_trip_psnr": psnr(mean["round_trip"]),
        "steps_psnr": psnr(mean["steps"]),
        "energy_kept": 100 * mean["after"] / mean["before"],
    }


def interval(values: Array) -> Estimate:
    """The first of ``values`` with the 95 % percentile interval of the rest."""
    if not np.isfinite(values).all():
        return Estimate(*(3 * [float(values[0])]))
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))


def losses(contenders: Sequence[Contender], draws: dict[str, dict[str, Array]]) -> list[dict[str, Any]]:
    """Where a peer beats our kernel of its group by more than `TIE`, and surely: with the whole interval above 0."""
    found = []
    for ours in (c for c in contenders if c.ours):
        for peer in (c for c in contenders if not c.ours and c.group == ours.group):
            for name in MEASURES:
                mine, theirs = draws[ours.name][name], draws[peer.name][name]
                if name == "energy_kept":  # more than all is as wrong as less
                    mine, theirs = -np.abs(mine - 100), -np.abs(theirs - 100)
                difference = interval(theirs - mine)
                if difference.low > 0 and difference.value > TIE[name]:
                    found.append(
                        {"ours": ours.name, "peer": peer.name, "measure": name, "behind": difference.to_dict()}
                    )
    return found


# --- photographs ----------------------------------------------------------------------------------------------


def load_photographs() -> dict[str, Array]:
    """Luma ``(H, W)`` float32 in [0, 1] (ITU-R BT.601) by name."""
    from sklearn.datasets import load_sample_images

    found = dict(zip(("sklearn china", "sklearn flower"), load_sample_images().images, strict=True))
    try:
        from skimage import data

        # Those that lie in its wheel; the rest would be downloaded.
        found |= {f"skimage {name}": getattr(data, name)() for name in ("astronaut", "camera", "coffee", "chelsea")}
    except ImportError:
        print("scikit-image is not installed: two photographs instead of six", file=sys.stderr)
    return {name: luma(image) for name, image in found.items()}


def luma(image: Array) -> Array:
    """``(H, W)`` or ``(H, W, 3)`` uint8 to ``(H, W)`` float32 in [0, 1]."""
    gray = image @ np.array([0.299, 0.587, 0.114]) if image.ndim == 3 else image
    return np.ascontiguousarray(gray, dtype=np.float32) / np.float32(255)


# --- results --------------------------------------------------------------------------------------------------


def run(photographs: dict[str, Array]) -> dict[str, Any]:
    """All contenders on ``photographs``: what stands in quality.json, with `Estimate`s."""
    started = time.monotonic()
    entrants = contenders()
    draws = {}
    for contender in entrants:
        print(f"{time.monotonic() - started:5.1f} s  {contender.name}", file=sys.stderr)
        draws[contender.name] = replicates(measure(contender, photographs))
    rows = [
        {
            "name": c.name,
            "ours": c.ours,
            "group": c.group,
            "taps": c.taps,
            **{name: interval(draws[c.name][name]) for name in MEASURES},
        }
        for c in entrants
    ]
    return {
        "benchmark": "quality",
        **_environment(),
        "n": {
            "photographs": {name: list(image.shape) for name, image in photographs.items()},
            "patches": sum(len(patches(image)) for image in photographs.values()),
            "round_trips_per_photograph": SHIFTS,
            "walks_per_photograph": WALKS,
            "steps_per_walk": STEPS,
        },
        "interval": f"95 %, {REPLICATES} bootstrap resamples of patches of {PATCH} pixels",
        "seconds": round(time.monotonic() - started, 1),
        "rows": rows,
        "losses": losses(entrants, draws),
    }


def _environment() -> dict[str, Any]:
    info = environment()
    for package in ("scipy", "opencv-python-headless", "opencv-python", "pillow", "scikit-learn", "scikit-image"):
        try:
            info["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    return {**info, "command": "python benchmarks/quality.py"}


def markdown(results: dict[str, Any]) -> str:
    """The table, then where we lose."""
    titles = ["", "taps per axis", *(title for title, _ in MEASURES.values())]
    lines = ["| " + " | ".join(titles) + " |", "|---|--:|" + "--:|" * len(MEASURES)]
    for row in results["rows"]:
        name = f"**{row['name']}**" if row["ours"] else row["name"]
        numbers = [_cell(row[key], digits) for key, (_, digits) in MEASURES.items()]
        lines.append("| " + " | ".join([name, row["taps"], *numbers]) + " |")
    n = results["n"]
    lines += [
        "",
        f"Luma of {len(n['photographs'])} photographs ({', '.join(n['photographs'])}) on a torus;"
        f" {n['patches']} patches; value and 95 % interval over patches. `{results['command']}`",
        "",
        "Nearest returns exactly because it moves by whole pixels: where it went is up to half a pixel wrong, which"
        " eight steps show.",
        "",
        *_told(results["losses"]),
    ]
    return "\n".join(lines) + "\n"


def _told(lost: list[dict[str, Any]]) -> list[str]:
    if not lost:
        return ["No peer beats our kernel of its group."]
    lines = ["Where a peer beats our kernel of its group (difference and 95 % interval, paired over patches):", ""]
    for one in lost:
        title, unit = MEASURES[one["measure"]][0].rsplit(", ", 1)
        behind = Estimate(*(one["behind"][key] for key in ("value", "low", "high")))
        points = "points" if unit == "%" else unit
        lines.append(f"- {one['peer']} beats {one['ours']}, {title}: by {behind:.2f} {points}")
    return lines


def _cell(estimate: Estimate, digits: int) -> str:
    return "exact" if math.isinf(estimate.value) else format(estimate, f".{digits}f")


def draw(results: dict[str, Any]) -> Figure:
    """A dot with its interval per contender and measure; ours in blue, hollow where pixels move whole."""
    rows = results["rows"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.32 * len(rows) + 1.3), layout="constrained")
        panels = figure.subplots(1, len(MEASURES), sharey=True)
    places = _places(rows)
    for axes, (key, (title, digits)) in zip(panels, MEASURES.items(), strict=True):
        finite = [row[key].high for row in rows if math.isfinite(row[key].high)]
        edge = max(finite) + 0.06 * (max(finite) - min(row[key].low for row in rows))
        for row, y in zip(rows, places, strict=True):
            paint = {"color": BLUE if row["ours"] else GRAY}
            if row["group"] == "nearest":  # hollow: what it keeps is in the wrong place
                paint["mfc"] = "white"
            value, low, high = (min(v, edge) for v in (row[key].value, row[key].low, row[key].high))
            axes.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", capsize=2.5, ms=5, **paint)
            text = "exact" if math.isinf(row[key].value) else f"{row[key].value:.{digits}f}"
            axes.annotate(text, (high, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_title(title)
        axes.margins(x=0.2)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(places, [row["name"] for row in rows])
    for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        label.set_color(BLUE if row["ours"] else "#444444")
        label.set_fontweight("bold" if row["ours"] else "normal")
    panels[0].set_ylim(places[-1] + 0.7, -0.7)
    return figure


def _places(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Heights of the rows: a step each, and a gap between groups."""
    places, y = [], 0.0
    for k, row in enumerate(rows):
        y += 0.0 if k == 0 else 1.0 if row["group"] == rows[k - 1]["group"] else 1.5
        places.append(y)
    return places


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print the table."""
    parser = argparse.ArgumentParser(description="Quality of interpolation on photographs, beside other libraries.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(load_photographs())
    table, figure = markdown(results), draw(results)
    text = json.dumps(results, indent=2, allow_nan=False, default=Estimate.to_dict)
    write(folder / "quality.json", text + "\n")
    write(folder / "quality.md", table)
    write(folder / "quality.png", lambda path: save_png(figure, path))
    print(table)


if __name__ == "__main__":
    main()
