"""Prints the results of `augkit.measure` on a terminal, with several image sets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from augkit.invariance.metrics import CURVE_METRICS, METRICS
from augkit.measure.entries import MeasuredEntry, SettingsEntry, curve_of, metric_of, sets_of
from augkit.train.history import Interval

CURVES = {
    "response": ("length", "shift of this length, pixels"),
    "response_fraction": ("fraction", "shift by whole pixels and this fraction"),
    "response_direction": ("direction", "shift in this direction, degrees (0 right, 90 down)"),
    "response_scale": ("scale", "rescaled by this factor"),
}
FORMS: tuple[Literal["logits"], Literal["probabilities"]] = ("logits", "probabilities")
LOSSES = 5  # layers listed on a terminal
CURVE_COLUMNS = {name: METRICS[name].heading(METRICS[name].brief, percent=False) for name in CURVE_METRICS}


def text_of(estimate: Interval) -> str:
    """Return a number with its interval as text.

    >>> text_of({"value": 0.5, "low": 0.25, "high": 0.75})
    '0.5000 [0.2500, 0.7500]'
    """
    if estimate["value"] is None:
        return "undefined"
    return f"{_digits(estimate['value'])} [{_digits(estimate['low'])}, {_digits(estimate['high'])}]"


def _digits(value: float | None) -> str:
    if value is None:
        return "undefined"
    # Small numbers keep their digits: a JS of 3e-7 is not 0.
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def metric_rows(sets: Mapping[str, Mapping[str, object]]) -> list[list[str]]:
    """Return the title and one text per image set, for every metric of any of them."""
    names = [name for name in METRICS if any(name in found for found in sets.values())]
    return [
        [
            METRICS[name].heading(METRICS[name].title, percent=False),
            *("–" if (of := metric_of(found, name)) is None else text_of(of) for found in sets.values()),
        ]
        for name in names
    ]


def heading(settings: SettingsEntry) -> str:
    """Return the settings of a measurement in one line."""
    sizes = " x ".join(map(str, settings["input_size"]))
    most = f"factors up to {settings['plan']['pairs']['high']:g}"
    if settings["axis"] == "shift":
        most = f"shifts up to {settings['max_shift']:g} px"
    views = f"{settings['views']} views each"
    if "views_of_pairs" in settings:
        views += f", {settings['views_of_pairs']} of them in pairs"
    return (
        f"{settings['images']:,} images, {views}; protocol {settings['protocol']}, kernel"
        f" {settings['kernel']}, input {sizes}, {most}, {settings['precision']}"
    )


def probe_lines(result: MeasuredEntry) -> list[str]:
    """Return the results of the analyses as lines of text."""
    lines = []
    if "lie" in result:
        for form in FORMS:
            numbers = ", ".join(f"{name} {text_of(estimate)}" for name, estimate in result["lie"][form].items())
            lines.append(f"Lie derivative of the {form}, per pixel: {numbers}")
    if "relative_invariance" in result:
        lines.append(f"relative invariance of the features: {text_of(result['relative_invariance']['relative'])}")
    lost = [(layer["share"]["value"], layer) for layer in result.get("layers", [])]
    known = [(share, layer) for share, layer in lost if share is not None]
    for share, layer in sorted(known, key=lambda found: -found[0])[:LOSSES]:
        decibels = layer["decibels"]["value"]
        lines.append(f"lost at {layer['name']} ({layer['kind']}): {100 * share:.0f} % of the error, {decibels:.1f} dB")
    return lines + ([result["certificate"]["text"]] if "certificate" in result else [])


def print_measured(result: MeasuredEntry) -> None:
    """Print metrics, then the response curves of the first image set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    sets = sets_of(result)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(box=box.SIMPLE_HEAD, title=heading(result["settings"]), caption="value [95 % interval]")
    table.add_column("metric")
    for name in sets:
        table.add_column(name, justify="right")
    for row in metric_rows(sets):
        table.add_row(*row)
    console.print(table)
    for key, (by, title) in CURVES.items():
        curve = curve_of(result, key, by)
        if curve is None:
            continue
        table = Table(box=box.SIMPLE_HEAD, title=title)
        table.add_column(by, justify="right")
        for name in curve.metrics:
            table.add_column(CURVE_COLUMNS[name], justify="right")
        for x, *estimates in zip(curve.x, *curve.metrics.values(), strict=True):
            table.add_row(f"{x:.4g}", *map(text_of, estimates))
        console.print(table)
    for line in probe_lines(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
