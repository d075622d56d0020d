"""The table of `pretrained.py` as Markdown, as a block of the docs, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from augkit.core.figures import BLUE, ORANGE, chart, describe, new_figure
from augkit.core.html import environment

BEGIN, END = "<!-- table: benchmarks/pretrained.py -->", "<!-- end of the table -->"
KINDS = {"upside down": "upside down", "texture shuffle": "shuffled", "erased": "erased"}
# Estimates of a row that are columns, with their factor and digits.
COLUMNS = {
    "accuracy": ("accuracy, %", 100, 1),
    "one_pixel": ("top-1 change, 1 px, %", 100, 1),
    "top1_change": ("up to 16 px, %", 100, 1),
    "worst_case": ("worst case, %", 100, 1),
    "shift_information": ("shift information, %", 100, 2),
}
CAPTION = (
    "Value and 95 % interval (bootstrap over images). Atypical: top-1 change between two windows up to 16 px apart,"
    " typical images first, then the same images upside down, with shuffled patches, and with a part erased. Click a"
    " heading to sort."
)
SCATTER = (
    "Share of the images answered right against the share of window pairs, one pixel apart, with one and the same"
    " answer; whiskers are 95 % intervals. Right and up is better."
)


def label(row: dict[str, Any]) -> str:
    """The name of a row."""
    return row["name"] + (f" + {row['surgery']}" if row["surgery"] else "")


def text(estimate: dict[str, float] | None, factor: float = 100, digits: int = 1) -> str:
    """``value [low, high]``, or an en dash."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value, low, high = (f"{factor * estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def atypical_change(row: dict[str, Any], kind: str) -> dict[str, float] | None:
    """Top-1 change on a kind of images."""
    return row["atypical"].get(kind, {}).get("top1_change")


def loses(row: dict[str, Any]) -> str:
    """The layer that loses most, with its share."""
    layer = row["loses_most"]
    return "–" if layer is None else f"{layer['name']} ({layer['kind']}): {100 * layer['share']['value']:.0f} %"


def head() -> list[str]:
    """Titles of the columns."""
    titles = [title for title, _, _ in COLUMNS.values()]
    return [
        "network",
        "GMACs",
        "input, px",
        "images",
        *titles,
        "typical, %",
        *(f"{k}, %" for k in KINDS.values()),
        "loses most",
    ]


def cells(row: dict[str, Any]) -> list[str]:
    """Texts of a row, in the order of `head`."""
    numbers = [text(row.get(key), factor, digits) for key, (_, factor, digits) in COLUMNS.items()]
    unlike = [text(atypical_change(row, kind)) for kind in ("typical", *KINDS)]
    return [label(row), f"{row['gmacs']:.2f}", str(row["input"]), str(row["n"]), *numbers, *unlike, loses(row)]


def closing(record: dict[str, Any]) -> str:
    """On what the rows were measured."""
    rows, versions = record["rows"], record["versions"]
    counts = sorted({(row["n"], row["settings"]["atypical_images"], row["settings"]["pairs"]) for row in rows})
    numbers = "; ".join(f"of {n} images {few} of each atypical kind, pairs per image: {k}" for n, few, k in counts)
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(row["command"] for row in rows))
    dates = " and ".join(sorted({row["date"] for row in rows}))
    return (
        f"{numbers[:1].upper()}{numbers[1:]}. {commands}; torch {versions['torch']}, timm {versions['timm']};"
        f" {record['processor']}, {record['torch_threads']} thread(s), {dates}."
    )


def markdown(record: dict[str, Any]) -> str:
    """The table, and on what it was measured."""
    titles = head()
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 2) + "---|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in record["rows"]]
    return "\n".join([*lines, "", closing(record)]) + "\n"


def docs_with_table(page: str, record: dict[str, Any]) -> str:
    """The docs page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(record)}{END}{after}"


def scatter(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against consistency at one pixel; names on hover, and beside the points where they are few."""
    figure, axes = new_figure(6.4, 4.4)
    for row in rows:
        if row.get("accuracy") is None:
            continue
        x, y = row["accuracy"], row["one_pixel"]
        right, same = 100 * x["value"], 100 * (1 - y["value"])
        color = ORANGE if row["surgery"] else BLUE
        spread = ([[right - 100 * x["low"]], [100 * x["high"] - right]], [[100 * y["high"] - 100 + same], [0.0]])
        spread[1][1] = [100 * (1 - y["low"]) - same]
        axes.errorbar([right], [same], xerr=spread[0], yerr=spread[1], color=color, lw=0.8, capsize=2, alpha=0.6)
        tip = f"{label(row)}\naccuracy {text(x)} %\nsame answer one pixel away {same:.1f} %\n{row['gmacs']:.2f} GMACs"
        describe(axes.plot([right], [same], "o", color=color, ms=6)[0], tip, row["surgery"] or "as it is")
        if len(rows) <= 12:
            axes.annotate(label(row), (right, same), xytext=(5, 5), textcoords="offset points", fontsize=8)
    for name, color in (("as it is", BLUE), ("blur pooling, not trained further", ORANGE)):
        axes.plot([], [], "o", color=color, label=name)
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.set_xlabel("accuracy, %")
    axes.set_ylabel("same answer one pixel away, %")
    return figure


def page(record: dict[str, Any]) -> str:
    """One HTML file without anything from elsewhere."""
    sorted_by = [
        [label(row), row["gmacs"], row["input"], row["n"], *_values(row), loses(row)] for row in record["rows"]
    ]
    rows = [list(zip(cells(row), keys, strict=True)) for row, keys in zip(record["rows"], sorted_by, strict=True)]
    template = environment().from_string((Path(__file__).parent / "pretrained.html").read_text())
    settings = {key: value for key, value in record.items() if key != "rows"}
    return template.render(
        title="augkit: how invariant are networks that people use?",
        chart=chart("Accuracy against invariance", scatter(record["rows"]), SCATTER),
        head=head(),
        rows=rows,
        caption=CAPTION,
        closing=closing(record).replace("`", ""),
        facts=settings,
        script=Markup(SORTING),
    )


def _values(row: dict[str, Any]) -> list[float | None]:
    found = [row.get(key) for key in COLUMNS] + [atypical_change(row, kind) for kind in ("typical", *KINDS)]
    return [None if estimate is None else estimate["value"] for estimate in found]


SORTING = """
// Sorts the table by the column whose heading is pressed; a second press turns the order round. Dashes come last.
(() => {
  'use strict';
  document.querySelectorAll('table.sortable thead button').forEach((button) => {
    button.addEventListener('click', () => {
      const heading = button.closest('th'), table = button.closest('table'), body = table.tBodies[0];
      const column = [...heading.parentNode.children].indexOf(heading);
      const down = heading.getAttribute('aria-sort') === 'ascending';
      table.querySelectorAll('thead th').forEach((other) => other.removeAttribute('aria-sort'));
      heading.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const key = (row) => row.children[column].dataset.key;
      const words = [...body.rows].some((row) => key(row) !== '' && Number.isNaN(Number(key(row))));
      const compare = (a, b) => words ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b));
      const missing = (row) => key(row) === '';
      [...body.rows].sort((a, b) => missing(a) - missing(b) || (down ? compare(b, a) : compare(a, b)))
        .forEach((row) => body.appendChild(row));
    });
  });
})();
"""
