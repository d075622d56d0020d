"""Prints the results of `augkit.measure` on a terminal, with several image sets side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from augkit.core.terminal import console, say
from augkit.invariance import Estimate, LieDerivative
from augkit.invariance.metrics import CURVE_METRICS, METRICS
from augkit.invariance.outputs.lie_derivative import OutputLieDerivative
from augkit.invariance.report import MeasurementSettings, ResponseCurve
from augkit.measure.analyses import Analyses
from augkit.measure.results import ImageSetResults, MeasureResults
from augkit.measure.side_by_side import NetworkTable

CURVE_TITLES = {
    "length": "shift of this length, pixels",
    "fraction": "shift by whole pixels and this fraction",
    "direction": "shift in this direction, degrees (0 right, 90 down)",
    "scale": "rescaled by this factor",
}
CAPTION = "value [95 % interval]"
SHORT = ("accuracy", "shift_information", "top1_change")  # metrics of the short table
COLUMNS = 4  # of a table of networks that fit 80 characters
WIDE = 120  # characters of the tables of all metrics
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


def stacked(estimate: Estimate) -> str:
    """A number above its interval, for narrow columns."""
    return text_of(estimate).replace(" [", "\n[")


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
    for form, estimates in lie_forms(found.lie).items():
        numbers = ", ".join(f"{name} {text_of(estimate)}" for name, estimate in estimates.items())
        lines.append(f"Lie derivative {form}, per pixel: {numbers}")
    if found.relative_invariance is not None:
        lines.append(f"relative invariance of the features: {text_of(found.relative_invariance.relative)}")
    lost = [layer for layer in found.layers or () if layer.share.defined]
    for layer in sorted(lost, key=lambda layer: -layer.share.value)[:LOSSES]:
        share, decibels = 100 * layer.share.value, layer.decibels.value
        lines.append(f"lost at {layer.name} ({layer.kind}): {share:.0f} % of the error, {decibels:.1f} dB")
    return lines + ([] if found.certificate is None else [str(found.certificate)])


def lie_forms(found: LieDerivative | OutputLieDerivative | None) -> dict[str, dict[str, Estimate]]:
    """Return the estimates by direction of each form of a Lie derivative, by the words that name the form."""
    if found is None:
        return {}
    if isinstance(found, LieDerivative):
        return {"of the logits": found.logits, "of the probabilities": found.probabilities}
    return {
        f"of the {found.kind}, mean square": found.mean_square,
        f"of the {found.kind}, relative to its variance": found.relative,
    }


def summary(results: MeasureResults) -> str:
    """Return the main numbers in two or three sentences."""
    settings, metrics = results.typical.report.settings, results.typical.report.metrics
    most = f"two shifts of up to {settings.max_shift:g} px"
    if settings.axis == "scale":
        most = f"two factors of up to {settings.plan.pairs.high:g}"
    out = [
        f"On {settings.images:,} images the top-1 answer differs between {most} of the same image for"
        f" {_percent(metrics['top1_change'])} of pairs; the answers are {text_of(metrics['js'])} bits apart"
        " (Jensen-Shannon)."
    ]
    if "shift_information" in metrics and not metrics["shift_information"].defined:
        out.append(
            "Shift information is undefined: what the answers say about the images is within its own noise. Is the"
            " network trained, are --mean and --std its own, and are there enough images?"
        )
    if "accuracy" in metrics:
        out.append(f"Accuracy is {_percent(metrics['accuracy'])}.")
    for other in results.ood:
        changed = _percent(other.report.metrics["top1_change"])
        out.append(f"On images of '{other.data}' the answer changes for {changed} of pairs.")
    return " ".join(out)


def _percent(estimate: Estimate) -> str:
    if not estimate.defined:
        return "an undefined share"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def print_measured(results: MeasureResults, *, full: bool = False) -> None:
    """Print the main numbers as sentences, then a table; with ``full`` all metrics, and the curves of the first set."""
    typical = results.typical
    say(summary(results))
    if full:
        _print_metrics(results)
        _print_curves(typical.report.response_curves)
    else:
        _print_short(results.sets)
    say(f"{heading(typical.report.settings)}.")
    for line in analysis_lines(typical.analyses or Analyses(0)):
        say(line, indent="  ")


def print_networks(table: NetworkTable, files: Sequence[Path], *, full: bool = False) -> None:
    """Print several networks side by side, each value above its interval; without ``full``, the first `COLUMNS`."""
    from rich import box
    from rich.table import Table

    shown = table.columns if full else table.columns[:COLUMNS]
    more = "" if len(shown) == len(table.columns) else "; --full has all columns"
    printed = Table(box=box.SIMPLE_HEAD, caption=CAPTION + more)
    printed.add_column("network", overflow="fold")
    for column in shown:
        printed.add_column(column.heading, justify="right")
    for name, found in table.rows.items():
        printed.add_row(name, *(column.text(found[column.name]).replace(" [", "\n[") for column in shown))
    console(WIDE if full else 0).print(printed)
    say(table.note)
    say("table: " + ", ".join(map(str, files)))


def _print_short(sets: Mapping[str, ImageSetResults]) -> None:
    """The metrics of `SHORT` by image set, each value above its interval."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=f"{CAPTION}; --full has all metrics and curves")
    table.add_column("images", overflow="fold")
    for name in SHORT:
        table.add_column(METRICS[name].heading(METRICS[name].title, percent=False), justify="right")
    for images, results in sets.items():
        found = results.report.metrics
        table.add_row(images, *(stacked(found[name]) if name in found else "–" for name in SHORT))
    console().print(table)


def _print_metrics(results: MeasureResults) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION)
    table.add_column("metric")
    for name in results.sets:
        table.add_column(name, justify="right")
    for row in metric_rows(results.sets):
        table.add_row(*row)
    console(WIDE).print(table)


def _print_curves(curves: Mapping[str, ResponseCurve]) -> None:
    from rich import box
    from rich.table import Table

    for by, title in CURVE_TITLES.items():
        curve = curves.get(by)
        if curve is None:
            continue
        table = Table(box=box.SIMPLE_HEAD, title=title)
        table.add_column(by, justify="right")
        for name in curve.metrics:
            table.add_column(CURVE_COLUMNS[name], justify="right")
        for x, *estimates in zip(curve.x, *curve.metrics.values(), strict=True):
            table.add_row(f"{x:.4g}", *map(text_of, estimates))
        console(WIDE).print(table)
