"""What `augkit.measure` found, on a terminal: the numbers of ``results.json``, several image sets side by side."""

from __future__ import annotations

from typing import Any

from augkit.invariance.metrics import CURVE_METRICS, METRICS

CURVES = {
    "response": ("length", "shift of this length, pixels"),
    "response_fraction": ("fraction", "shift by whole pixels and this fraction"),
    "response_direction": ("direction", "shift in this direction, degrees (0 right, 90 down)"),
    "response_scale": ("scale", "rescaled by this factor"),
}
LOSSES = 5  # layers named on a terminal
CURVE_COLUMNS = {name: METRICS[name].heading(METRICS[name].brief, percent=False) for name in CURVE_METRICS}


def text_of(estimate: dict[str, float | None]) -> str:
    """A number with its interval.

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


def metric_rows(sets: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Title and one text per image set, for every metric that any of them has."""
    names = [name for name in METRICS if any(name in found for found in sets.values())]
    return [
        [
            METRICS[name].heading(METRICS[name].title, percent=False),
            *(text_of(found[name]) if name in found else "–" for found in sets.values()),
        ]
        for name in names
    ]


def heading(settings: dict[str, Any]) -> str:
    """What was measured, in one line."""
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


def probe_lines(result: dict[str, Any]) -> list[str]:
    """What the probes found, in a few lines each."""
    lines = []
    for form, found in result.get("lie", {}).items():
        if form in ("logits", "probabilities"):
            numbers = ", ".join(f"{name} {text_of(estimate)}" for name, estimate in found.items())
            lines.append(f"Lie derivative of the {form}, per pixel: {numbers}")
    if "relative_invariance" in result:
        lines.append(f"relative invariance of the features: {text_of(result['relative_invariance']['relative'])}")
    worst = [layer for layer in result.get("layers", ()) if layer["share"]["value"] is not None]
    for layer in sorted(worst, key=lambda layer: -layer["share"]["value"])[:LOSSES]:
        share, decibels = layer["share"]["value"], layer["decibels"]["value"]
        lines.append(f"lost at {layer['name']} ({layer['kind']}): {100 * share:.0f} % of the error, {decibels:.1f} dB")
    return lines + ([result["certificate"]["text"]] if "certificate" in result else [])


def print_measured(result: dict[str, Any]) -> None:
    """Metrics, then the response curves of the first image set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    sets = {result["data"]: result, **result.get("ood", {})}
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
        if key not in result:
            continue
        known = [name for name in CURVE_COLUMNS if name in result[key][0]]
        table = Table(box=box.SIMPLE_HEAD, title=title)
        table.add_column(by, justify="right")
        for name in known:
            table.add_column(CURVE_COLUMNS[name], justify="right")
        for point in result[key]:
            table.add_row(f"{point[by]:.4g}", *(text_of(point[name]) for name in known))
        console.print(table)
    for line in probe_lines(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
