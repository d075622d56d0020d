"""Prints the results of `augkit.measure` on a terminal, with several image sets side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

from augkit.invariance import Estimate
from augkit.invariance.metrics import CURVE_METRICS, METRICS
from augkit.invariance.report import MeasurementSettings
from augkit.measure.analyses import Analyses
from augkit.measure.results import ImageSetResults, MeasureResults

CURVE_TITLES = {
    "length": "shift of this length, pixels",
    "fraction": "shift by whole pixels and this fraction",
    "direction": "shift in this direction, degrees (0 right, 90 down)",
    "scale": "rescaled by this factor",
}
LOSSES = 5  # layers named on a terminal
CURVE_COLUMNS = {name: METRICS[name].heading(METRICS[name].brief, percent=False) for name in CURVE_METRICS}


def text_of(estimate: Estimate) -> str:
    """A number with its interval.

    >>> text_of(Estimate(0.5, 0.25, 0.75))
    '0.5000 [0.2500, 0.7500]'
    """
    if not estimate.defined:
        return "undefined"
    return f"{_digits(estimate.value)} [{_digits(estimate.low)}, {_digits(estimate.high)}]"


def _digits(value: float) -> str:
    if not math.isfinite(value):
        return "undefined"
    # Small numbers keep their digits: a JS of 3e-7 is not 0.
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def metric_rows(sets: Mapping[str, ImageSetResults]) -> list[list[str]]:
    """Title and one text per image set, for every metric that any of them has."""
    metrics = [results.report.metrics for results in sets.values()]
    names = [name for name in METRICS if any(name in found for found in metrics)]
    return [
        [
            METRICS[name].heading(METRICS[name].title, percent=False),
            *(text_of(found[name]) if name in found else "–" for found in metrics),
        ]
        for name in names
    ]


def heading(settings: MeasurementSettings) -> str:
    """What was measured, in one line."""
    sizes = " x ".join(map(str, settings.input_size))
    most = f"factors up to {settings.plan.pairs.high:g}"
    if settings.axis == "shift":
        most = f"shifts up to {settings.max_shift:g} px"
    return (
        f"{settings.images:,} images, {settings.views} views each, {settings.views_of_pairs} of them in pairs;"
        f" protocol {settings.protocol}, kernel {settings.kernel}, input {sizes}, {most}, {settings.precision}"
    )


def analysis_lines(found: Analyses) -> list[str]:
    """What the analyses found, in a few lines each."""
    lines = []
    if found.lie is not None:
        for form, estimates in (("logits", found.lie.logits), ("probabilities", found.lie.probabilities)):
            numbers = ", ".join(f"{name} {text_of(estimate)}" for name, estimate in estimates.items())
            lines.append(f"Lie derivative of the {form}, per pixel: {numbers}")
    if found.relative_invariance is not None:
        lines.append(f"relative invariance of the features: {text_of(found.relative_invariance.relative)}")
    lost = [layer for layer in found.layers or () if layer.share.defined]
    for layer in sorted(lost, key=lambda layer: -layer.share.value)[:LOSSES]:
        share, decibels = 100 * layer.share.value, layer.decibels.value
        lines.append(f"lost at {layer.name} ({layer.kind}): {share:.0f} % of the error, {decibels:.1f} dB")
    return lines + ([] if found.certificate is None else [str(found.certificate)])


def print_measured(results: MeasureResults) -> None:
    """Metrics, then the response curves of the first image set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    typical = results.typical
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(box=box.SIMPLE_HEAD, title=heading(typical.report.settings), caption="value [95 % interval]")
    table.add_column("metric")
    for name in results.sets:
        table.add_column(name, justify="right")
    for row in metric_rows(results.sets):
        table.add_row(*row)
    console.print(table)
    for by, title in CURVE_TITLES.items():
        curve = typical.report.response_curves.get(by)
        if curve is None:
            continue
        table = Table(box=box.SIMPLE_HEAD, title=title)
        table.add_column(by, justify="right")
        for name in curve.metrics:
            table.add_column(CURVE_COLUMNS[name], justify="right")
        for x, *estimates in zip(curve.x, *curve.metrics.values(), strict=True):
            table.add_row(f"{x:.4g}", *map(text_of, estimates))
        console.print(table)
    for line in analysis_lines(typical.analyses or Analyses(0)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
