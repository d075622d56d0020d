"""Do learned and built-in invariance lie on one line? Of the arms of committed studies, without training.

Log variability on atypical images over that on typical ones, one point per arm (the mean over its seeds), and the
offsets of families of arms against each other at equal variability on typical images
(`augkit.compare.study.family_offsets`). Their errors come from the scatter of the arms, not from the images, of which
all arms have the same. It is a description and no verdict: these arms were trained for other claims, and were seen
before. Arms below the floor of accuracy are left out; where most are, as on CIFAR-10, all are kept and the data set is
a pilot.

    python benchmarks/on_the_line.py [--metric shift_information|js] [--studies NAME ...]

Shift information is in the later studies alone; the earlier ones have Jensen-Shannon divergence, which also falls where
answers are less certain. It writes ``results/on-the-line-METRIC.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
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
STUDIES = {  # by metric: name of the data and floor of accuracy of the study
    "js": {
        "study-quick-10-seeds": ("digits", 0.85),
        "study-standard": ("clothes", 0.75),
        "study-cifar10": ("CIFAR-10", 0.85),
    },
    "shift_information": {
        "factorial": ("digits", 0.85),
        "clothes-factorial": ("clothes", 0.8),
        "on-the-line": ("digits, arms of on-the-line", 0.85),
    },
}
LABELS = {"js": "log JS", "shift_information": "log shift information"}
EXACT = ("polyphase", "aliasfree")
SHIFTED = ("shift", "bilinear", "longer")
PLAIN = ("none", "tuned")
MARGIN = 0.1  # nats
ALONE = "learned, without exact arms"
SHIFTS_ALONE = "trained with shifts, without exact arms"
FEWEST = 10  # arms above the floor, below which a data set is a pilot with all its arms
COLORS = {"approximate": "#888888", "learned": "#c0392b", "exact": "#2471a3"}


def family(arm: dict) -> str | None:
    """The family of an arm; None for controls of another kind (blur alone, rotation, another canvas or task)."""
    if arm["arm"].endswith("+locate"):
        return None
    if arm["architecture"] in EXACT:
        return "exact"
    if arm["policy"] in PLAIN:
        return "approximate"
    return "learned" if arm["policy"] in (*SHIFTED, "rescale") else None


def points(study: dict, images: str, floor: float, metric: str = "js") -> tuple[list[dict], list[str]]:
    """One point per arm of a family, and the names of the arms below the floor of accuracy."""
    found, low = [], []
    for arm in study["arms"]:
        x, y = (arm[metric].get(name) for name in ("typical", images))
        if family(arm) is None or not x or not y or not x["value"] or not y["value"]:
            continue
        if arm["accuracy"]["value"] < floor:
            low.append(arm["arm"])
        point = {"arm": arm["arm"], "family": family(arm), "policy": arm["policy"]}
        point |= {"accuracy": arm["accuracy"]["value"], "x": math.log(x["value"]), "y": math.log(y["value"])}
        found.append(point)
    high = [row for row in found if row["arm"] not in low]
    return (high if len(high) >= FEWEST else found), low


def offset(rows: list[dict], name: str) -> dict:
    """Offset of a family against the approximate one, with a 95 % interval and a test of equivalence within `MARGIN`.

    Beside it are the correlation of the logs and the slope that the lines of the families share.
    """
    x, y = (np.array([row[key] for row in rows]) for key in "xy")
    labels = np.array([row["family"] for row in rows])
    freedom = len(rows) - len(set(labels)) - 1
    value, error = (float(v) for v in fit_offset(x, y, labels, (name, "approximate")))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = max(stats.t.sf((MARGIN + value) / error, freedom), stats.t.sf((MARGIN - value) / error, freedom))
    found = {"value": value, "low": value - half, "high": value + half, "p_within_margin": float(p)}
    found |= {"arms": int((labels == name).sum()), "against": int((labels == "approximate").sum())}
    return found | {"correlation": float(np.corrcoef(x, y)[0, 1]), "slope": slope(rows)}


def chosen(rows: list[dict]) -> dict[str, tuple[str, list[dict]]]:
    """Comparisons: the family of each and its points.

    The two exact arms lie far from all others and decide the slope, so the learned family is compared without them too;
    and so it is without the arms that were trained with rescaling instead of shifts.
    """
    near = [row for row in rows if row["family"] != "exact"]
    shifts = [row for row in near if row["policy"] != "rescale"]
    return {
        "learned": ("learned", rows),
        ALONE: ("learned", near),
        SHIFTS_ALONE: ("learned", shifts),
        "exact": ("exact", rows),
    }


def offsets(rows: list[dict]) -> dict[str, dict]:
    """The offsets of the comparisons for which the families have arms."""
    kinds = {row["family"] for row in rows}
    return {title: offset(points, name) for title, (name, points) in chosen(rows).items() if name in kinds}


def slope(rows: list[dict]) -> dict[str, float]:
    """The slope that the lines of the families share, with a 95 % interval."""
    kinds = sorted({row["family"] for row in rows})
    parts = [np.array([(row["x"], row["y"]) for row in rows if row["family"] == kind]) for kind in kinds]
    x, y = np.concatenate([part - part.mean(0) for part in parts]).T
    freedom, energy = len(rows) - len(kinds) - 1, float((x**2).sum())
    value = float((x * y).sum()) / energy
    half = float(stats.t.ppf(0.975, freedom) * math.sqrt(((y - value * x) ** 2).sum() / freedom / energy))
    return {"value": value, "low": value - half, "high": value + half}


def draw(results: dict, path: Path, metric: str) -> None:
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
        axis.set_title(f"{name}\n{len(rows)} arms, {by_images['upside down']['seeds']} seeds each")
        axis.set_xlabel(f"{LABELS[metric]} on typical images (nats)")
        axis.set_ylabel(f"{LABELS[metric]} upside down (nats)")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def interval(found: dict[str, float], sign: str = "+") -> str:
    """A number with its interval."""
    value, low, high = (format(found[key], f"{sign}.2f") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(results: dict) -> str:
    """The table: a row per data set, kind of images and comparison."""
    columns = ["data", "images", "compared", "arms", "seeds", "correlation of logs", "slope"]
    columns += ["offset against approximate, nats", f"p, within {MARGIN} nats", "arms below the floor"]
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for name, by_images in results.items():
        for images, found in by_images.items():
            kept = "kept: a pilot" if found["pilot"] else "left out" if found["below_floor"] else "none"
            low = f"{len(found['below_floor'])} (floor {found['floor']:.0%}), {kept}"
            for title, row in found["offsets"].items():
                cells = [name, images, title, f"{row['arms']} and {row['against']}", str(found["seeds"])]
                cells += [f"{row['correlation']:.3f}", interval(row["slope"], ""), interval(row)]
                lines.append("| " + " | ".join([*cells, f"{row['p_within_margin']:.3f}", low]) + " |")
    return "\n".join(lines) + "\n"


def read(file: str, metric: str) -> dict[str, dict]:
    """What is found in the arms of a study, by kind of atypical images."""
    study = json.loads((RESULTS / f"{file}.json").read_text())
    floor = STUDIES[metric][file][1]
    by_images = {}
    for images in sorted({name for arm in study["arms"] for name in arm[metric]} - {"typical"}, reverse=True):
        rows, low = points(study, images, floor, metric)
        if not rows:
            continue
        found = {"file": f"{file}.json", "seeds": study["settings"]["seeds"], "points": rows, "below_floor": low}
        found["test_images"] = study["settings"]["images"]
        found["pilot"] = any(row["arm"] in low for row in rows)
        by_images[images] = found | {"floor": floor, "offsets": offsets(rows)}
    return by_images


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description="Do learned and built-in invariance lie on one line?")
    parser.add_argument("--metric", choices=STUDIES, default="shift_information")
    parser.add_argument("--studies", nargs="+", metavar="NAME", help="of results/ (default: all that have the metric)")
    words = parser.parse_args()
    known = STUDIES[words.metric]
    for file in words.studies or ():
        if file not in known:
            parser.error(f"expected studies measured with {words.metric}, {', '.join(known)}, not {file}")
    results = {known[file][0]: read(file, words.metric) for file in words.studies or known}
    whole = {"measured_with": words.metric, "margin": MARGIN, "results": results}
    whole["environment"] = environment("cpu", ["numpy", "scipy", "matplotlib"])
    path = RESULTS / f"on-the-line-{words.metric.replace('_', '-')}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(results))
    draw(results, path.with_suffix(".png"), words.metric)
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
