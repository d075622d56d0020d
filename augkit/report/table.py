"""The closing table, on a terminal and in HTML, from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from augkit.invariance import Estimate

COLUMNS = {
    "accuracy": ("accuracy, %", 100.0, 1),
    "top1_change": ("top-1 change, %", 100.0, 1),
    "js": ("JS, bits", 1.0, 4),
    "kappa": ("kappa", 1.0, 3),
    "learned_invariance": ("learned invariance, %", 100.0, 1),
    "transfer": ("transfer, points", 100.0, 1),
}


def cells(row: dict[str, Any]) -> list[str]:
    """The text of one row: arm, images, then one cell a column, an en dash where there is no such number."""
    out = [row["arm"], row["images"]]
    for key, (_, factor, digits) in COLUMNS.items():
        estimate = row[key]
        if estimate is None:
            out.append("–")
            continue
        scaled = Estimate(*(factor * value for value in (estimate.value, estimate.low, estimate.high)))
        out.append(format(scaled, f".{digits}f"))
    return out


def headings() -> list[str]:
    """Column titles, in the order of `cells`."""
    return ["recipe", "images", *(title for title, _, _ in COLUMNS.values())]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The table on standard output, value over its 95 % interval."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption="value [95 % interval]")
    for k, title in enumerate(headings()):
        table.add_column(title, justify="left" if k < 2 else "right")
    previous = rows[0]["arm"] if rows else ""
    for row in rows:
        if row["arm"] != previous:
            table.add_section()
            previous = row["arm"]
        table.add_row(*(cell.replace(" [", "\n[") for cell in cells(row)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)


def html_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table as HTML."""
    head = "".join(f"<th>{escape(title)}</th>" for title in headings())
    body = ""
    for row in rows:
        first, second, *numbers = (escape(cell) for cell in cells(row))
        tail = "".join(f"<td>{_stacked(number)}</td>" for number in numbers)
        body += f"<tr><th scope='row'>{first}</th><td class='name'>{second}</td>{tail}</tr>\n"
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"


def _stacked(number: str) -> str:
    value, bracket, interval = number.partition(" [")
    return f"{value}<br><small>[{interval}</small>" if bracket else value
