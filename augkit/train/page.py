"""``report.html`` of one training run: curves, augmented images, what was confused, and the recipe."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from augkit.core.figures import svg
from augkit.core.html import document
from augkit.core.images import data_url
from augkit.train import figures

RUN_STYLE = """
.panels { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.panels svg { max-width: 100%; height: auto; } .panels div { max-width: 24rem; break-inside: avoid; }
"""
DRAWN = 20  # classes up to which the confusion matrix is drawn
LISTED = 10
NAMES = ("true", "said", "class")  # columns of names, which stand to the left
Z = 1.959964  # of a 95 % interval
Counts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class RunRecord:
    """What the page tells, as plain data.

    Attributes:
        name, seed: of the run.
        history: rows of ``metrics.jsonl``.
        classes: names, in the order of the labels.
        confusion: ``(K, K)`` counts on the validation split, true x said.
        recipe_yaml: the resolved recipe.
        environment: see `augkit.core.files.environment`.
        notes: sentences on what was out of the ordinary.
    """

    name: str
    seed: int
    history: list[dict[str, Any]]
    classes: list[str]
    confusion: Counts
    recipe_yaml: str
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Confused:
    """Images of the class ``true`` that were taken for ``said``; ``share`` is of all images of that class."""

    true: int
    said: int
    count: int
    share: float


def run_page(record: RunRecord, sheet: Image.Image) -> str:
    """The page; ``sheet`` shows training images and draws of the policy."""
    parts = [
        f"<h1>{escape(record.name)}: one training run</h1>",
        f"<p class='note'>{escape(subtitle(record))}</p>",
        f"<p class='lead'>{escape(summary(record))}</p>",
        *(f"<p>{escape(note)}</p>" for note in record.notes),
        "<h2>Along training</h2>",
        "<div class='panels'>",
        *(_panel(figure) for figure in figures.curves(record.history)),
        "</div>",
        f"<p class='note'>{escape(_curves_caption(record.history))}</p>",
        "<h2>What the network sees</h2>",
        f"<figure><img class='sheet' src='{data_url(sheet)}' alt='training images and augmented versions'>"
        "<figcaption>Training images (left) and draws of the policy.</figcaption></figure>",
    ]
    if len(record.classes) <= DRAWN:
        caption = "Validation images by true class (rows) and answer (columns); shaded by the share of the row."
        parts.append(_figure("Confusion matrix", figures.confusion(record.confusion, record.classes), caption))
    parts += [
        "<div class='two'>",
        _confused_table(record),
        _accuracy_table(record),
        "</div>",
        "<h2>Recipe</h2>",
        f"<pre>{escape(record.recipe_yaml)}</pre>",
        "<h2>Environment</h2>",
        f"<pre>{escape(json.dumps(record.environment, indent=2))}</pre>",
    ]
    return document(f"augkit: {record.name}", parts, RUN_STYLE)


def subtitle(record: RunRecord) -> str:
    """Seed, length, machine."""
    machine, versions = record.environment["machine"], record.environment["versions"]
    on = machine["gpu"] or f"CPU, {machine['threads']} threads"
    seconds = sum(row["seconds"] for row in record.history)
    length = f"{record.history[-1]['step']:,} steps in {seconds:,.0f} s"
    return f"Seed {record.seed}; {length} on {on}; torch {versions['torch']}."


def summary(record: RunRecord) -> str:
    """The result in a sentence or two, from the numbers."""
    right, total = hits(record.confusion)
    low, high = wilson(right, total)
    text = (
        f"{100 * right / max(1, total):.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {total:,} validation images are"
        f" classified right after {len(record.history)} epochs (95 % interval over images)."
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
    """The 95 % interval of a share (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z * Z / total
    centre, half = share + z2 / 2, Z * (share * (1 - share) / total + z2 / (4 * total)) ** 0.5
    return (centre - half) / (1 + z2), (centre + half) / (1 + z2)


def hits(confusion: Counts) -> tuple[int, int]:
    """How many images were classified right, and how many there were."""
    table = np.asarray(confusion)
    return int(np.trace(table)), int(table.sum())


def most_confused(confusion: Counts, count: int = LISTED) -> list[Confused]:
    """The most frequent confusions, most frequent first."""
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
    """Classes with their right answers and images, the least accurate first; those without images are left out."""
    table = np.asarray(confusion)
    known = [(k, int(table[k, k]), int(table[k].sum())) for k in range(len(table)) if table[k].sum()]
    return sorted(known, key=lambda row: row[1] / row[2])[:count]


def _confused_table(record: RunRecord) -> str:
    rows = [
        [record.classes[pair.true], record.classes[pair.said], f"{pair.count:,}", f"{100 * pair.share:.1f} %"]
        for pair in most_confused(record.confusion)
    ]
    return _table("Most confused", ["true", "said", "images", "of the class"], rows)


def _accuracy_table(record: RunRecord) -> str:
    rows = []
    for k, right, total in least_accurate(record.confusion):
        low, high = wilson(right, total)
        rows.append(
            [record.classes[k], f"{100 * right / total:.1f} % [{100 * low:.0f}, {100 * high:.0f}]", f"{total:,}"]
        )
    return _table("Least accurate classes", ["class", "right", "images"], rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<section><h2>{escape(title)}</h2><p class='note'>None.</p></section>"
    header = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    names = [" class='name'" if name in NAMES else "" for name in head]
    body = ""
    for row in rows:
        cells = (f"<td{kind}>{escape(value)}</td>" for kind, value in zip(names, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f"<section><h2>{escape(title)}</h2><div class='scroll'>{table}</div></section>"


def _panel(figure: Figure) -> str:
    title = figure.axes[0].get_title()
    return f"<div role='img' aria-label='{escape(title, quote=True)} against epochs'>{svg(figure)}</div>"


def _figure(title: str, figure: Figure, caption: str) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # scripts that matplotlib's font does not have
        drawn = svg(figure)
    # The label is on the picture alone, so that a screen reader comes to the caption.
    picture = f"<div role='img' aria-label='{escape(title, quote=True)}'>{drawn}</div>"
    return f"<figure><h2>{escape(title)}</h2>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _curves_caption(history: list[dict[str, Any]]) -> str:
    text = "Training loss is the mean over an epoch, with augmentation; validation is without."
    if any("shift_information" in row for row in history):
        text += " Shift information: the share of what answers say that is about the shift, with its 95 % interval."
    return text
