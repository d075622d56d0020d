"""``report.html`` of one training run: curves, augmented images, confusions, and the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from augkit.core.figures import chart
from augkit.core.files import Environment
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.train import figures
from augkit.train.history import EpochRow

DRAWN = 20  # classes up to which the confusion matrix is drawn
LISTED = 10
CONFUSION_CAPTION = "Validation images by true class (rows) and answer (columns); shaded by the share of the row."
Z = 1.959964  # of a 95 % interval
Counts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class RunRecord:
    """The content of the page, as plain data.

    Attributes:
        name, seed: name and seed of the run.
        history: rows of ``metrics.jsonl``.
        classes: names of the classes, in the order of the labels.
        confusion: ``(K, K)`` counts on the validation split, true x predicted.
        recipe_yaml: the resolved recipe.
        environment: see `augkit.core.files.environment`.
        notes: sentences about exceptions, such as omitted files.
    """

    name: str
    seed: int
    history: list[EpochRow]
    classes: list[str]
    confusion: Counts
    recipe_yaml: str
    environment: Environment
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Confused:
    """Images of the class ``true`` classified as ``predicted``, and their share of that class."""

    true: int
    predicted: int
    count: int
    share: float


def run_page(record: RunRecord, sheet: Image.Image) -> str:
    """Return the page; ``sheet`` shows training images and draws of the policy."""
    confusion = None
    if len(record.classes) <= DRAWN:
        drawn = figures.confusion(record.confusion, record.classes)
        confusion = chart("Confusion matrix", drawn, CONFUSION_CAPTION)
    curves = figures.curves(record.history)
    return render(
        "train/run.html",
        title=f"augkit: {record.name}",
        record=record,
        subtitle=subtitle(record),
        summary=summary(record),
        curves=[chart("", figure, name=f"{figure.axes[0].get_title()} against epochs") for figure in curves],
        curves_caption=_curves_caption(record.history),
        sheet=data_url(sheet),
        confusion=confusion,
        confused=_confused_table(record),
        accuracies=_accuracy_table(record),
    )


def subtitle(record: RunRecord) -> str:
    """Return seed, length and machine in one line."""
    machine, versions = record.environment["machine"], record.environment["versions"]
    on = machine["gpu"] or f"CPU, {machine['threads']} threads"
    seconds = sum(row["seconds"] for row in record.history)
    length = f"{record.history[-1]['step']:,} steps in {seconds:,.0f} s"
    return f"Seed {record.seed}; {length} on {on}; torch {versions['torch']}."


def summary(record: RunRecord) -> str:
    """Return the result in one or two sentences."""
    right, total = hits(record.confusion)
    low, high = wilson(right, total)
    epochs = len(record.history)
    text = (
        f"{100 * right / max(1, total):.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {total:,} validation images are"
        f" classified correctly after {epochs} epoch{'s' * (epochs != 1)} (95 % interval over images)."
    )
    known = [row for row in record.history if "validation_accuracy" in row]
    best = max(known, key=lambda row: row["validation_accuracy"], default=None)
    if best is not None and best["validation_accuracy"] > right / max(1, total):
        text += f" The best evaluation was {100 * best['validation_accuracy']:.1f} %, after epoch {best['epoch']}."
    found = [row["shift_information"]["value"] for row in record.history if "shift_information" in row]
    varied = [value for value in found if value is not None]
    if len(varied) > 1:
        first, last = varied[0], varied[-1]
        text += (
            f" {100 * last:.1f} % of what its answers say is about the shift, {100 * first:.1f} % when first measured."
        )
    return text


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, as shares (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z * Z / total
    center, half = share + z2 / 2, Z * (share * (1 - share) / total + z2 / (4 * total)) ** 0.5
    return (center - half) / (1 + z2), (center + half) / (1 + z2)


def hits(confusion: Counts) -> tuple[int, int]:
    """Return the number of correctly classified images, and of all images."""
    table = np.asarray(confusion)
    return int(np.trace(table)), int(table.sum())


def most_confused(confusion: Counts, count: int = LISTED) -> list[Confused]:
    """Return the most frequent confusions, most frequent first."""
    table = np.asarray(confusion)
    off = table * (1 - np.eye(len(table), dtype=table.dtype))
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, off.shape)
    return [
        Confused(int(r), int(c), int(off[r, c]), float(off[r, c] / table[r].sum()))
        for r, c in zip(rows, columns, strict=True)
        if off[r, c]
    ]


def least_accurate(confusion: Counts, count: int = LISTED) -> list[tuple[int, int, int]]:
    """Return classes with their correct answers and images, the least accurate first, without empty classes."""
    table = np.asarray(confusion)
    known = [(k, int(table[k, k]), int(table[k].sum())) for k in range(len(table)) if table[k].sum()]
    return sorted(known, key=lambda row: row[1] / row[2])[:count]


def _confused_table(record: RunRecord) -> Table:
    rows = [
        [record.classes[pair.true], record.classes[pair.predicted], f"{pair.count:,}", f"{100 * pair.share:.1f} %"]
        for pair in most_confused(record.confusion)
    ]
    caption = "Validation images of one class that were taken for another, and their share of the class."
    return Table(caption, ["true", "predicted", "images", "of the class"], rows, words=["predicted"])


def _accuracy_table(record: RunRecord) -> Table:
    rows = []
    for k, right, total in least_accurate(record.confusion):
        low, high = wilson(right, total)
        share = f"{100 * right / total:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"
        rows.append([record.classes[k], share, f"{total:,}"])
    caption = "Share of validation images classified correctly, with its 95 % interval."
    return Table(caption, ["class", "correct", "images"], rows)


def _curves_caption(history: list[EpochRow]) -> str:
    text = "Training loss is the mean over an epoch, with augmentation; validation is without."
    if any("shift_information" in row for row in history):
        text += " Shift information: the share of what answers say that is about the shift, with its 95 % interval."
    return text
