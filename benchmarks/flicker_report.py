"""The table of ``flicker.py``: means over seeds with 95 % intervals by Student's t, differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]
MAX, BLUR = "maxpool", "blurpool"
MAIN = {"detector": ("flicker", "vanished", "class_change", "score_change", "box_iou", "equivariance_error"),
        "segmenter": ("pixel_top1_change", "equivariance_error")}  # fmt: skip
TITLES = {
    "flicker": "boxes lost or new, %",
    "vanished": "boxes without a partner of any score, %",
    "class_change": "partners of another class, %",
    "score_change": "change of score",
    "box_iou": "IoU of partners",
    "equivariance_error": "equivariance error",
    "pixel_top1_change": "pixels of another class, %",
    "ap50": "AP at IoU 0.5, %",
    "ap": "AP at IoU 0.5 to 0.95, %",
    "accuracy": "mean IoU of the classes, %",
}


def value_of(found: dict[str, float], name: str) -> float:
    """A number of one network; ``flicker`` is the mean of lost and new boxes."""
    return (found["lost"] + found["new"]) / 2 if name == "flicker" else found[name]


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean with its 95 % interval over seeds."""
    each = np.array(values)
    half = 0.0
    if len(each) > 1:
        half = float(stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / math.sqrt(len(each)))
    return {"value": float(each.mean()), "low": float(each.mean() - half), "high": float(each.mean() + half)}


def both(a: Sequence[float], b: Sequence[float]) -> Row:
    """Max pooling, blur pooling, and blur less max, paired by seed."""
    return {MAX: interval(a), BLUR: interval(b), "difference": interval(np.subtract(b, a).tolist())}


def at_accuracy(checkpoints: Sequence[Row], wanted: float, name: str) -> tuple[float, bool]:
    """A number where a network in training was as accurate as ``wanted``, and whether it was at one of the steps."""
    for before, after in zip(checkpoints[-2::-1], checkpoints[:0:-1], strict=True):
        low, high = before["accuracy"], after["accuracy"]
        if low <= wanted <= high and high > low:
            part = (wanted - low) / (high - low)
            return (1 - part) * value_of(before, name) + part * value_of(after, name), True
    nearest = min(checkpoints, key=lambda found: abs(found["accuracy"] - wanted))
    return value_of(nearest, name), False


def matched(a: Row, b: Row, name: str) -> tuple[float, float, bool]:
    """The number of max and blur pooling at the lower of their final accuracies."""
    wanted = min(row["checkpoints"][-1]["accuracy"] for row in (a, b))
    out, exact = [], True
    for row in (a, b):
        last = row["checkpoints"][-1]
        found, crossed = at_accuracy(row["checkpoints"], wanted, name)
        out.append(value_of(last, name) if last["accuracy"] == wanted else found)
        exact = exact and (crossed or last["accuracy"] == wanted)
    return out[0], out[1], exact


def summary(rows: Sequence[Row]) -> Row:
    """All numbers over seeds."""
    out: Row = {}
    for task, names in MAIN.items():
        a, b = ([row for row in rows if row["task"] == task and row["pool"] == pool] for pool in (MAX, BLUR))
        shifts = {
            shift: {n: both(*([value_of(row["shifts"][shift], n) for row in rows] for rows in (a, b))) for n in names}
            for shift in a[0]["shifts"]
        }
        pairs = {n: [matched(x, y, n) for x, y in zip(a, b, strict=True)] for n in names}
        found: Row = {
            "seeds": len(a),
            "accuracy": both(*([row["checkpoints"][-1]["accuracy"] for row in rows] for rows in (a, b))),
            "shifts": shifts,
            "matched": {n: both([p[0] for p in each], [p[1] for p in each]) for n, each in pairs.items()},
            "seeds_matched": sum(p[2] for p in pairs[names[0]]),
        }
        if task == "detector":
            found["ap"] = both(*([row["shifts"]["1"]["ap"] for row in rows] for rows in (a, b)))
            found["fair"] = {n: both(*([value_of(row["fair"], n) for row in rows] for rows in (a, b))) for n in names}
            found["fair_score"] = both(*([row["fair_score"] for row in rows] for rows in (a, b)))
        out[task] = found
    return out


def markdown(results: Row) -> str:
    """One table per task, then the causes that are not blur pooling."""
    lines = [
        f"Images move by whole pixels; {results['seeds']} seeds, {results['images']} held-out images of"
        f" {results['side']} px, networks of stride 4 after {results['steps']} steps of 16 images. Means over seeds"
        " with 95 % intervals; the difference is paired by seed, bold where its interval leaves out 0.",
    ]
    for task, found in results["summary"].items():
        score = f", boxes of score {results['score']:g} or more" if task == "detector" else ""
        lines += ["", f"**{task}**, {found['seeds']} seeds{score}", ""]
        lines += ["| move | number | max pooling | blur pooling | difference |", "|---|---|--:|--:|--:|"]
        name = "ap50" if task == "detector" else "accuracy"
        lines.append(_line("none and 1 px" if task == "detector" else "none", name, found["accuracy"]))
        if task == "detector":
            lines.append(_line("none and 1 px", "ap", found["ap"]))
        for shift, numbers in found["shifts"].items():
            lines += [_line(f"{shift} px", name, each) for name, each in numbers.items()]
        where = f"1 px, matched accuracy ({found['seeds_matched']} of {found['seeds']} seeds within the checkpoints)"
        lines += [_line(where, name, each) for name, each in found["matched"].items()]
        if task == "detector":
            scores = [found["fair_score"][pool]["value"] for pool in (MAX, BLUR)]
            where = f"1 px, as many boxes as shapes (score {scores[0]:.2f} and {scores[1]:.2f})"
            lines += [_line(where, name, each) for name, each in found["fair"].items()]
    versions, machine = results["versions"], results["machine"]
    lines += [
        "",
        f"`{results['command']}`; torch {versions['torch']}, numpy {versions['numpy']}, Python {versions['python']};"
        f" {machine['system']}, {machine['threads']} thread.",
    ]
    return "\n".join(lines) + "\n"


def _line(move: str, name: str, found: Row) -> str:
    title = TITLES[name]
    factor, digits = (100, 1) if title.endswith("%") else (1, 3)

    def cell(each: dict[str, float], sign: str = "") -> str:
        value, low, high = (factor * each[k] for k in ("value", "low", "high"))
        return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]".replace("-", "−")

    off = found["difference"]
    last = cell(off, "+")
    if off["low"] > 0 or off["high"] < 0:
        last = f"**{last}**"
    return f"| {move} | {title} | {cell(found[MAX])} | {cell(found[BLUR])} | {last} |"
