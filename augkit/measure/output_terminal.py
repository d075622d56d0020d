"""Prints the results of measured outputs on a terminal, with several image sets side by side."""

from __future__ import annotations

from collections.abc import Mapping

from augkit.core.terminal import console, say
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs import KINDS, OutputReport, OutputSettings
from augkit.invariance.outputs.base import OutputCurve
from augkit.measure.analyses import Analyses
from augkit.measure.output_results import OutputResults, OutputSetResults
from augkit.measure.terminal import CAPTION, LOSSES, WIDE, analysis_lines, text_of


def rows_of(kind: str) -> dict[str, Metric]:
    """Return the rows of the numbers of a kind, by name."""
    return {row.name: row for row in KINDS[kind].measure.rows}


def number_rows(sets: Mapping[str, OutputSetResults]) -> list[list[str]]:
    """Return title and one text per image set, for every number that any of them has."""
    reports = [results.report for results in sets.values()]
    rows = rows_of(reports[0].kind)
    names = dict.fromkeys(name for report in reports for name in report.numbers)
    return [
        [
            heading_of(rows, name),
            *(text_of(report.numbers[name]) if name in report.numbers else "–" for report in reports),
        ]
        for name in names
    ]


def heading_of(rows: Mapping[str, Metric], name: str) -> str:
    """Return the title of a number with its unit; its name where it has no row."""
    return rows[name].heading(rows[name].title, percent=False) if name in rows else name


def outputs_heading(report: OutputReport) -> str:
    """What was measured, in one line."""
    settings: OutputSettings = report.settings
    sizes = " x ".join(map(str, settings.input_size))
    text = (
        f"{settings.images:,} images, {settings.views} views each; outputs of kind {report.kind}, protocol"
        f" {settings.protocol}, kernel {settings.kernel}, input {sizes}, {_displacements(settings)},"
        f" {settings.precision}"
    )
    stride = settings.of_kind.get("stride")
    if isinstance(stride, list):
        y, x = stride
        text += f"; stride {y:g}" + (f" x {x:g}" if x != y else "") + f", moved by {settings.of_kind['map_kernel']}"
    return text


def _displacements(settings: OutputSettings) -> str:
    if settings.axis == "scale":
        return f"factors up to {settings.max_scale:g}"
    if settings.plan.pairs.step is not None:
        x, y = settings.plan.pairs.step
        return f"one shift by ({x:g}, {y:g}) px"
    named = {None: "any fraction of a pixel", 1.0: "whole pixels"}
    step = named.get(settings.quantum, f"in steps of {settings.quantum} px")
    return f"shifts up to {settings.max_shift:g} px ({step})"


def _least_equivariant(found: Analyses) -> list[str]:
    """The layers with the largest errors, where layers have no shares."""
    layers = [layer for layer in found.layers or () if layer.decibels.defined and not layer.share.defined]
    worst = sorted(layers, key=lambda layer: layer.decibels.value)[:LOSSES]
    return [f"least equivariant: {layer.name} ({layer.kind}), {layer.decibels.value:.1f} dB" for layer in worst]


def print_outputs(results: OutputResults, *, full: bool = False) -> None:
    """Print what was measured with its first number, and all numbers; with ``full`` curves of the first image set."""
    from rich import box
    from rich.table import Table

    report, sets = results.typical.report, results.sets
    say(summary(report))
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION + ("" if full or not report.curves else "; --full has curves"))
    table.add_column("number", overflow="fold")
    for name in sets:
        table.add_column(name, justify="right")
    for title, *texts in number_rows(sets):
        table.add_row(title, *(text.replace(" [", "\n[") if len(sets) > 1 else text for text in texts))
    console(WIDE if full else 0).print(table)
    for curve in report.curves.values() if full else ():
        _print_curve(curve, rows_of(report.kind))
    say(f"{outputs_heading(report)}.")
    analyses = results.typical.analyses or Analyses(0)
    for note in (*report.notes, *_least_equivariant(analyses), *analysis_lines(analyses)):
        say(note, indent="  ")


def summary(report: OutputReport) -> str:
    """The first number of a report, as a sentence."""
    name, found = next(iter(report.numbers.items()))
    title = heading_of(rows_of(report.kind), name)
    return f"On {report.settings.images:,} images: {title} {text_of(found)}."


def _print_curve(curve: OutputCurve, rows: Mapping[str, Metric]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=curve.axis)
    table.add_column(curve.by, justify="right")
    for name in curve.numbers:
        table.add_column(heading_of(rows, name), justify="right")
    for x, *found in zip(curve.x, *curve.numbers.values(), strict=True):
        table.add_row(str(x), *map(text_of, found))
    console(WIDE).print(table)
