"""The closing table for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from scipy.stats import t

from augkit.core.html import Table
from augkit.core.terminal import console, say
from augkit.invariance import CarryOver, Estimate
from augkit.invariance.metrics import METRICS, names_of
from augkit.measure.comparison import ComparisonRow

COLUMNS = {
    **{row.name: (row.heading(row.brief), row.factor, row.digits) for row in METRICS.values() if row.table},
    "learned_invariance": ("learned invariance, %", 100.0, 1),
    "transfer": ("transfer, points", 100.0, 1),
}

ENOUGH, USUAL = 3, 5  # seeds: fewer than the first give a warning, which compares with the second
WIDE = 134  # characters needed for all columns
FOR_FULL = (*names_of(lambda row: row.table == "full"), "transfer")


def cells(row: ComparisonRow) -> list[str]:
    """Return the text of one row: arm, images, then one cell per column, with an en dash for a missing number."""
    out = [row.arm, row.images]
    for key, (_, factor, digits) in COLUMNS.items():
        estimate = row[key]
        if estimate is None:
            out.append("–")
            continue
        scaled = Estimate(*(factor * value for value in (estimate.value, estimate.low, estimate.high)))
        out.append(format(scaled, f".{digits}f"))
    return out


def headings() -> list[str]:
    """Return the column titles, in the order of `cells`."""
    return ["recipe", "images", *(title for title, _, _ in COLUMNS.values())]


def few_seeds(rows: Sequence[ComparisonRow]) -> str:
    """Return one sentence where so few training seeds make intervals wide; empty with three or more.

    >>> few_seeds([])
    ''
    """
    count = min((row.n_seeds for row in rows), default=ENOUGH)
    if count == 1:
        return "Intervals from 1 seed are over images alone: another training may differ by more. Use 3 seeds or more."
    if count >= ENOUGH:
        return ""
    reach, usual = (float(t.ppf(0.975, seeds - 1)) for seeds in (count, USUAL))
    return (
        f"Intervals from {count} seeds are wide: they reach up to {reach:.1f} standard errors to either side,"
        f" those from {USUAL} seeds up to {usual:.1f}. Use more seeds."
    )


def print_table(rows: Sequence[ComparisonRow], *, full: bool = False) -> None:
    """Print the table, each value above its 95 % interval; without ``full``, the columns that fit 80 characters."""
    from rich import box
    from rich.table import Table

    hidden = [] if full else [2 + k for k, key in enumerate(COLUMNS) if key in FOR_FULL]
    caption = "value [95 % interval]" + ("" if full else "; --full has all columns")
    table = Table(box=box.SIMPLE_HEAD, caption=caption)
    for k, title in enumerate(headings()):
        if k not in hidden:
            longest = max(map(len, title.split()))  # words are not split
            side: Literal["left", "right"] = "left" if k < 2 else "right"
            table.add_column(title, justify=side, min_width=longest if k > 1 else None, overflow="fold")
    previous = rows[0].arm if rows else ""
    for row in rows:
        if row.arm != previous:
            table.add_section()
            previous = row.arm
        table.add_row(*(cell.replace(" [", "\n[") for k, cell in enumerate(cells(row)) if k not in hidden))
    console(WIDE if full else 0).print(table)
    if warning := few_seeds(rows):
        say(f"warning: {warning}")


def print_carried_over(found: Mapping[str, CarryOver]) -> None:
    """Print how much of the invariance carries over to each image set; nothing without image sets."""
    if not found:
        return
    print("\nCarry-over of learned invariance to other images (1 all of it, 0 none):")
    for images, carried in found.items():
        said = format(carried.slope, ".2f") if carried.slope.defined else f"undefined: {carried.reason}"
        print(f"  {images:14s} {said}" + (f", {len(carried.names)} networks" if carried.slope.defined else ""))


def page_table(rows: Sequence[ComparisonRow], caption: str) -> Table:
    """Return the table for a page; its caption warns of few seeds."""
    caption = " ".join(filter(None, (caption, few_seeds(rows))))
    return Table(caption, headings(), [cells(row) for row in rows], words=headings()[:2])
