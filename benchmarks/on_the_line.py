"""Do learned and built-in invariance lie on one line? Of the arms of the committed factorial studies, without training.

Log Jensen-Shannon divergence upside down over that on typical images, one point per arm (the mean over its seeds), and
the offsets of families of arms against each other at equal variability on typical images
(`augkit.compare.study.family_offsets`). The committed studies were measured with JS, which also falls where answers are
less certain, so this is a description and no verdict. Arms below the floor of accuracy are left out; where most are, as
on CIFAR-10, all are kept and the data set is a pilot.

    python benchmarks/on_the_line.py

It writes ``results/on-the-line-js.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from machine import environment
from scipy import stats

from augkit.compare.study.family_offsets import fit_offset

RESULTS = Path(__file__).parent / "results"
STUDIES = {  # name and floor of accuracy of the data
    "study-quick-10-seeds": ("digits", 0.85),
    "study-standard": ("clothes", 0.75),
    "study-cifar10": ("CIFAR-10", 0.85),
}
EXACT = ("polyphase", "aliasfree")
LEARNED = ("shift", "bilinear", "rescale")
IMAGES = ("upside down", "inverted")
MARGIN = 0.1  # nats
ALONE = "learned, without exact arms"
FEWEST = 10  # arms above the floor, below which a data set is a pilot with all its arms
COLORS = {"approximate": "#888888", "learned": "#c0392b", "exact": "#2471a3"}


def family(arm: dict) -> str | None:
    """The family of an arm; None for controls of another kind (blur alone, rotation)."""
    if arm["architecture"] in EXACT:
        return "exact"
    if arm["policy"] == "none":
        return "approximate"
    return "learned" if arm["policy"] in LEARNED else None


def points(study: dict, images: str, floor: float) -> tuple[list[dict], list[str]]:
    """One point per arm of a family, and the names of the arms below the floor of accuracy."""
    found, low = [], []
    for arm in study["arms"]:
        x, y = (arm["js"].get(name) for name in ("typical", images))
        if family(arm) is None or not x or not y or x["value"] is None or y["value"] is None:
            continue
        if arm["accuracy"]["value"] < floor:
            low.append(arm["arm"])
        x, y = math.log(x["value"]), math.log(y["value"])
        found.append({"arm": arm["arm"], "family": family(arm), "accuracy": arm["accuracy"]["value"], "x": x, "y": y})
    high = [row for row in found if row["arm"] not in low]
    return (high if len(high) >= FEWEST else found), low


def offsets(rows: list[dict]) -> dict[str, dict]:
    """Offsets of families against the approximate one, with 95 % intervals and a test of equivalence within `MARGIN`.

    The two exact arms lie far from all others and decide the slope, so the learned family is compared without them too.
    """
    out = {}
    near = [row for row in rows if row["family"] != "exact"]
    for title, name, chosen in (("learned", "learned", rows), (ALONE, "learned", near), ("exact", "exact", rows)):
        x, y = (np.array([row[key] for row in chosen]) for key in "xy")
        labels = np.array([row["family"] for row in chosen])
        freedom = len(chosen) - len(set(labels)) - 1
        value, error = (float(v) for v in fit_offset(x, y, labels, (name, "approximate")))
        half = float(stats.t.ppf(0.975, freedom)) * error
        p = max(stats.t.sf((MARGIN + value) / error, freedom), stats.t.sf((MARGIN - value) / error, freedom))
        out[title] = {"value": value, "low": value - half, "high": value + half, "p_within_margin": float(p)}
    return out


def draw(results: dict, path: Path) -> None:
    """A panel per data set: points, their families by color, and the line of no difference."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 4.2), constrained_layout=True)
    for axis, (name, by_images) in zip(np.atleast_1d(axes), results.items(), strict=True):
        rows = by_images["upside down"]["points"]
        for kind, color in COLORS.items():
            x, y = zip(*[(row["x"], row["y"]) for row in rows if row["family"] == kind], strict=True)
            axis.scatter(x, y, color=color, label=kind, s=28)
        low, high = min(row["x"] for row in rows), max(row["x"] for row in rows)
        axis.plot([low, high], [low, high], color="#cccccc", linewidth=1)
        axis.set_title(f"{name}, {len(rows)} arms, {by_images['upside down']['seeds']} seeds each")
        axis.set_xlabel("log JS on typical images (nats)")
        axis.set_ylabel("log JS upside down (nats)")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Write the three files."""
    results: dict[str, dict] = {}
    for file, (name, floor) in STUDIES.items():
        study = json.loads((RESULTS / f"{file}.json").read_text())
        for images in IMAGES:
            rows, low = points(study, images, floor)
            correlation = float(np.corrcoef([row["x"] for row in rows], [row["y"] for row in rows])[0, 1])
            found = {"file": f"{file}.json", "seeds": study["settings"]["seeds"], "points": rows, "below_floor": low}
            found["pilot"] = any(row["arm"] in low for row in rows)
            found |= {"correlation": correlation, "floor": floor, "offsets": offsets(rows)}
            results.setdefault(name, {})[images] = found
    whole = {"measured_with": "js", "margin": MARGIN, "results": results}
    whole["environment"] = environment("cpu", ["numpy", "scipy", "matplotlib"])
    (RESULTS / "on-the-line-js.json").write_text(json.dumps(whole, indent=1) + "\n")
    against = [f"{name} against approximate, nats" for name in ("learned", ALONE, "exact")]
    columns = ["data", "images", "arms", "seeds", "correlation of logs", *against, "arms below the floor"]
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for name, by_images in results.items():
        for images, found in by_images.items():
            cells = [f"{o['value']:+.2f} [{o['low']:+.2f}, {o['high']:+.2f}]" for o in found["offsets"].values()]
            kept = "kept: a pilot" if found["pilot"] else "left out" if found["below_floor"] else "none"
            low = f"{len(found['below_floor'])} (floor {found['floor']:.0%}), {kept}"
            counts = [str(len(found["points"])), str(found["seeds"]), f"{found['correlation']:.3f}"]
            lines.append("| " + " | ".join([name, images, *counts, *cells, low]) + " |")
    (RESULTS / "on-the-line-js.md").write_text("\n".join(lines) + "\n")
    draw(results, RESULTS / "on-the-line-js.png")
    sys.stdout.write((RESULTS / "on-the-line-js.md").read_text())


if __name__ == "__main__":
    main()
