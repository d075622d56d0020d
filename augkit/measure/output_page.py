"""The report page of measured outputs: one self-contained HTML file for screens, phones and print."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from augkit.core.figures import BLUE, STYLE, Chart, chart, describe, interval_text
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.invariance import Estimate
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs import OutputCurve
from augkit.invariance.outputs.pictures import WorstPicture
from augkit.measure.analyses import Analyses
from augkit.measure.figures import layers as layer_figure
from augkit.measure.output_results import OutputResults
from augkit.measure.output_terminal import number_rows, outputs_heading, rows_of
from augkit.measure.page import LAYERS_CAPTION, lie_table

NUMBERS_CAPTION = (
    "Value and 95 % interval (bootstrap over images). T f(x) is the output for the first view, moved; f(T x) that"
    " for the second; both are compared in the region that they share."
)
DECIBELS_CAPTION = (
    "Circular shifts: how well the layer's map moves along with the image, signal to error in dB; 130 dB is float"
    " rounding. Whiskers are 95 % intervals over images."
)
CURVE_TITLES = {
    "by_fraction": ("By fraction of the network's stride", "How far a shift is from a multiple of that stride."),
    "by_factor": ("By factor", "By how much the image is rescaled."),
    "by_distance": ("By distance to a class boundary", "Boundaries of the map for the unshifted image."),
    "cosine_quantiles": ("Quantiles of the cosine", "Over all pairs of views."),
}


def outputs_page(results: OutputResults, worst: Sequence[WorstPicture]) -> str:
    """Return the report page of measured outputs; ``worst`` are the drawn cases of the first image set."""
    report, typical = results.typical.report, results.typical
    analyses = typical.analyses or Analyses(0)
    rows, charts = rows_of(report.kind), []
    for name, curve in report.curves.items():
        if curve.x:
            title, caption = CURVE_TITLES.get(name, (name.replace("_", " "), ""))
            charts.append(chart(title, curve_figure(curve, rows), caption))
    return render(
        "measure/outputs.html",
        title=f"augkit measure: {results.model}",
        results=results,
        subtitle=outputs_heading(report),
        summary=outputs_summary(results),
        notes=report.notes,
        numbers=Table(NUMBERS_CAPTION, ["number", *results.sets], number_rows(results.sets)),
        meanings=[(rows[name].title, rows[name].meaning) for name in report.numbers if name in rows],
        charts=charts,
        lie=None if analyses.lie is None else lie_table(analyses.lie),
        layers=_layers(analyses),
        certificate=analyses.certificate,
        worst=[{"title": case.title, "views": [(data_url(p), text) for p, text in case.pictures]} for case in worst],
        facts={"settings": typical.settings_to_dict(), "environment": results.environment},
    )


def _layers(analyses: Analyses) -> Chart | None:
    if not analyses.layers:
        return None
    shares = any(layer.share.defined for layer in analyses.layers)
    return chart("Layer by layer", layer_figure(analyses.layers), LAYERS_CAPTION if shares else DECIBELS_CAPTION)


def outputs_summary(results: OutputResults) -> str:
    """Return the main numbers in a few sentences."""
    report = results.typical.report
    rows = rows_of(report.kind)
    first = report.numbers["equivariance_error"]
    out = [
        f"On {report.settings.images:,} images the equivariance error is {_shown(first, rows['equivariance_error'])}:"
        " 0 where an output moves with its image, 1 where it differs as much as outputs vary."
        if first.defined
        else "The outputs do not vary, so whether they move with the image is undefined."
    ]
    for name in list(report.numbers)[1:3]:
        out.append(f"The {rows[name].title}: {_shown(report.numbers[name], rows[name])}.")
    return " ".join(out)


def curve_figure(curve: OutputCurve, rows: dict[str, Metric]) -> Figure:
    """Plot each number of a curve as points with intervals, one panel per number."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(curve.numbers), 2.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(curve.numbers)))
    for axes, (name, found) in zip(panels, curve.numbers.items(), strict=True):
        row = rows.get(name)
        factor = 1.0 if row is None else row.factor
        for place, (x, estimate) in enumerate(zip(curve.x, found, strict=True)):
            if not estimate.defined:
                continue
            value, low, high = (factor * part for part in (estimate.value, estimate.low, estimate.high))
            axes.plot([place, place], [low, high], color=BLUE, lw=1.4, alpha=0.5)
            marker = axes.plot([place], [value], "o", color=BLUE, ms=6)[0]
            describe(marker, f"{curve.by} {x}\n{interval_text(value, low, high)}")
        axes.set_xticks(range(len(curve.x)), [str(x) for x in curve.x], fontsize=8)
        axes.set_xlim(-0.5, len(curve.x) - 0.5)
        if row is None or (row.low == 0 and name != "cosine"):
            axes.set_ylim(bottom=0)
        axes.set_title(name if row is None else row.heading(row.title), fontsize=9)
    with mpl.rc_context(STYLE):
        figure.supxlabel(curve.axis, fontsize=9)
    return figure


def _shown(estimate: Estimate, row: Metric) -> str:
    if not estimate.defined:
        return "undefined"
    factor, digits, unit = row.factor, row.digits, {"share": " %", "dB": " dB", "bits": " bits"}.get(row.unit, "")
    value, low, high = (f"{factor * part:.{digits}f}" for part in (estimate.value, estimate.low, estimate.high))
    return f"{value}{unit} [{low}, {high}]"
