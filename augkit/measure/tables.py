"""The closing table for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.core.html import Table
from augkit.invariance import CarryOver, Estimate
from augkit.invariance.metrics import METRICS, names_of
from augkit.measure.comparison import ComparisonRow

COLUMNS = {
    **{row.name: (row.heading(row.brief), row.factor, row.digits) for row in METRICS.values() if row.table},
    "learned_invariance": ("learned invariance, %", 100.0, 1),
    "transfer": ("transfer, points", 100.0, 1),
}

WIDE = 134  # characters needed for all columns
FOR_WIDE = names_of(lambda row: row.table == "wide")


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


def print_table(rows: Sequence[ComparisonRow]) -> None:
    """Print the table, each value above its 95 % interval; a narrow terminal gets fewer columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    hidden = [2 + k for k, key in enumerate(COLUMNS) if key in FOR_WIDE and console.width < WIDE]
    table = Table(box=box.SIMPLE_HEAD, caption="value [95 % interval]")
    for k, title in enumerate(headings()):
        if k not in hidden:
            longest = max(map(len, title.split()))  # words are not split
            table.add_column(title, justify="left" if k < 2 else "right", min_width=longest if k > 1 else None)
    previous = rows[0].arm if rows else ""
    for row in rows:
        if row.arm != previous:
            table.add_section()
            previous = row.arm
        table.add_row(*(cell.replace(" [", "\n[") for k, cell in enumerate(cells(row)) if k not in hidden))
    console.print(table)


def print_carried_over(found: Mapping[str, CarryOver]) -> None:
    """Print how much of the invariance carries over to each image set; nothing without image sets."""
    if not found:
        return
    print("\nCarry-over of learned invariance to other images (1 all of it, 0 none):")
    for images, carried in found.items():
        said = format(carried.slope, ".2f") if carried.slope.defined else f"undefined: {carried.reason}"
        print(f"  {images:14s} {said}" + (f", {len(carried.names)} networks" if carried.slope.defined else ""))


def page_table(rows: Sequence[ComparisonRow], caption: str) -> Table:
    """Return the table for a page."""
    return Table(caption, headings(), [cells(row) for row in rows], words=headings()[:2])
