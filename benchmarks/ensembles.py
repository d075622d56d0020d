"""Is an ensemble of the seeds steadier than its members, on typical images and off them? From kept answers.

    python benchmarks/ensembles.py RUNS/on-the-line     # a folder of `augkit.compare on-the-line --output`

Gerken & Kessel 2024 (https://arxiv.org/abs/2403.03103): ensembles of infinitely wide networks trained with augmentation
are equivariant at every image, also off the data, while their members are not. An ensemble answers with the mean of its
members' probabilities. Its shift information is compared with the mean of its members', as a log ratio. Averaging makes
any answers steadier, so arms trained with shifts are compared with those trained without.

It trains nothing and writes ``results/ensembles.json`` and ``.md``. Intervals are percentiles over resampled images:
there is one ensemble of each arm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from machine import environment

RESULTS = Path(__file__).parent / "results"
SETS = ("typical", "upside down", "another hand", "texture shuffle", "erased")
RESAMPLES = 400


def entropy(p: np.ndarray) -> np.ndarray:
    """Nats of distributions ``(..., K)``."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def information(p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shift information ``(R,)`` of probabilities ``(N, V, K)`` under weights ``(R, N)`` of the images, of sum 1."""
    of_shift = weight @ (entropy(p.mean(1)) - entropy(p).mean(1))
    whole = entropy(weight @ p.mean(1)) - weight @ entropy(p).mean(1)
    return np.asarray(of_shift / whole)


def probabilities(folder: Path, arm: str, images: str) -> np.ndarray:
    """Kept answers of all seeds of an arm, ``(S, N, V, K)``, without the undisplaced view."""
    paths = sorted((folder / "cells").glob(f"{arm}-seed*/measured/shift.npz"))
    kept = np.stack([np.load(path)[f"{images}|log_probabilities"][:, 1:].astype(float) for path in paths])
    p = np.exp(kept)
    return np.asarray(p / p.sum(-1, keepdims=True))


def compared(p: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Log ratio of the ensemble's shift information to the mean of its members', and both values."""
    members = np.mean([information(each, weight) for each in p], axis=0)
    ensemble = information(p.mean(0), weight)
    ratio = np.log(np.maximum(ensemble, 1e-12) / np.maximum(members, 1e-12))
    low, high = np.quantile(ratio[1:], [0.025, 0.975])
    whole = {"members": members[0], "ensemble": ensemble[0], "log ratio": ratio[0], "low": low, "high": high}
    return {key: float(value) for key, value in whole.items()}


def main(folder: Path) -> None:
    """Write JSON and table."""
    names = sorted({path.name.rpartition("-seed")[0] for path in (folder / "cells").iterdir() if path.is_dir()})
    rows, seeds, count = [], 0, 0
    for arm in names:
        found = {images: probabilities(folder, arm, images) for images in SETS}
        seeds, count = found["typical"].shape[:2]
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        weight = np.concatenate([np.full((1, count), 1 / count), draws])
        rows.append({"arm": arm, **{images: compared(p, weight) for images, p in found.items()}})
    whole = {"seeds": seeds, "images": count, "arms": rows}
    command = "python benchmarks/ensembles.py RUNS/on-the-line"
    whole["environment"] = environment("cpu", ["numpy"]) | {"command": command}
    (RESULTS / "ensembles.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = ["| arm | " + " | ".join(SETS) + " |", "|---|" + "--:|" * len(SETS)]
    for row in rows:
        cells = [f"{e['log ratio']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]" for e in (row[images] for images in SETS)]
        lines.append(f"| {row['arm']} | " + " | ".join(cells) + " |")
    title = f"Log ratio (nats) of the shift information of an ensemble of {seeds} seeds to that of its members"
    text = f"{title}, {count} images, 95 % intervals over images; below 0 the ensemble is steadier.\n\n"
    text += "\n".join(lines) + f"\n\n`{command}`\n"
    (RESULTS / "ensembles.md").write_text(text.replace("-0", "−0"))
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
