"""The report page of `python -m augkit.measure`: one self-contained HTML file for screens, phones and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.core.figures import Chart, chart
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.invariance import LieDerivative, RelativeInvariance
from augkit.invariance.gallery import FlipPicture
from augkit.invariance.outputs.lie_derivative import OutputLieDerivative
from augkit.measure import figures
from augkit.measure.analyses import Analyses
from augkit.measure.output_results import OutputResults
from augkit.measure.results import ImageSetResults, MeasureResults
from augkit.measure.side_by_side import NetworkTable
from augkit.measure.terminal import CURVE_TITLES, heading, lie_forms, metric_rows, summary, text_of

METRICS_CAPTION = (
    "Value and 95 % interval (bootstrap over images). Read every invariance beside the accuracy: a better classifier is"
    " more consistent, and a constant one is perfectly so."
)
JAGGEDNESS_CAPTION = "Azulay & Weiss 2019: how often the answer changes along a path of one-pixel steps, per image."
RESPONSE_CAPTION = "Against the answer to the unshifted image; bands are 95 % intervals."
LIE_CAPTION = "Per pixel of displacement (Gruver et al. 2023); 0 where the network is invariant."
OUTPUT_LIE_CAPTION = (
    "Per pixel of displacement, on the torus (Gruver et al. 2023); 0 where the output moves with its image, or for an"
    " embedding where it stays."
)
RELATIVE_CAPTION = "1 is invariant, 0 no closer to itself than to another image (Bouchacourt et al. 2021)."
NETWORKS_CAPTION = (
    "Whether two intervals overlap does not say whether the networks differ; the difference from the first network,"
    " where there is one, is paired by image and does: it differs where its interval leaves out 0."
)
LIE_TITLES = {"shift_x": "shift x", "shift_y": "shift y", "log_scale": "scale", "rotation": "rotation"}
LAYERS_CAPTION = (
    "Circular shifts. Left: how well the layer's map moves along with the image, signal to error in dB; 130 dB is"
    " float rounding. Right: what the layer itself adds to the squared error of the output; negative where it takes"
    " error away. Whiskers are 95 % intervals over images."
)


def measured_page(results: MeasureResults, flips: Sequence[FlipPicture]) -> str:
    """Return the report page of a measurement; ``flips`` are the drawn flips of its first image set."""
    typical, analyses = results.typical, results.typical.analyses or Analyses(0)
    curves = typical.report.response_curves
    charts = [_curve(results.sets, by, label) for by, label in CURVE_TITLES.items() if by in curves]
    if distribution := typical.report.jaggedness_distribution():
        charts.append(chart("Jaggedness", figures.jaggedness(distribution), JAGGEDNESS_CAPTION))
    return render(
        "measure/measured.html",
        title=f"augkit measure: {results.model}",
        results=results,
        subtitle=heading(typical.report.settings),
        summary=summary(results),
        metrics=Table(METRICS_CAPTION, ["metric", *results.sets], metric_rows(results.sets)),
        charts=charts,
        lie=None if analyses.lie is None else lie_table(analyses.lie),
        relative=None if analyses.relative_invariance is None else _relative(analyses.relative_invariance),
        layers=None
        if analyses.layers is None
        else chart("Layer by layer", figures.layers(analyses.layers), LAYERS_CAPTION),
        certificate=analyses.certificate,
        flips=[{"title": flip.title, "views": _views(flip)} for flip in flips],
        facts={"settings": typical.settings_to_dict(), "environment": results.environment},
    )


def networks_page(
    networks: Mapping[str, MeasureResults | OutputResults],
    table: NetworkTable,
    command: str,
    pages: Mapping[str, str],
) -> str:
    """Return the page of several networks; ``pages`` are the addresses of their own pages."""
    charts = [chart("Side by side", figures.networks(table), NETWORKS_CAPTION)]
    logits = {name: found.typical for name, found in networks.items() if isinstance(found, MeasureResults)}
    charts += [
        _curve(logits, by, label)
        for by, label in CURVE_TITLES.items()
        if any(by in found.report.response_curves for found in logits.values())
    ]
    return render(
        "measure/networks.html",
        title=f"augkit measure: {len(networks)} networks",
        table=Table(f"{table.note} {NETWORKS_CAPTION}", table.headings, table.cells),
        note=table.note,
        markdown=table.markdown(),
        latex=table.latex(),
        charts=charts,
        pages=pages,
        notes={name: found.typical.notes for name, found in networks.items()},
        command=command,
        environment=next(iter(networks.values())).environment,
    )


def _views(flip: FlipPicture) -> list[tuple[str, str]]:
    """Return source and caption of both pictures."""
    return [(data_url(picture), caption) for picture, caption in zip(flip.pictures, flip.captions, strict=True)]


def _curve(sets: Mapping[str, ImageSetResults], by: str, label: str) -> Chart:
    found = {name: results.report.response_curves for name, results in sets.items()}
    drawn = {name: curves[by] for name, curves in found.items() if by in curves}
    return chart(f"Response to a {label.partition(',')[0]}", figures.curves(drawn, label), RESPONSE_CAPTION)


def lie_table(found: LieDerivative | OutputLieDerivative) -> Table:
    """Return the table of Lie derivatives."""
    columns = list(lie_forms(found).values())
    rows = [[LIE_TITLES.get(name, name), *(text_of(column[name]) for column in columns)] for name in columns[0]]
    if isinstance(found, OutputLieDerivative):
        return Table(OUTPUT_LIE_CAPTION, ["direction", "E ‖L‖² / K", "relative to the variance"], rows)
    return Table(LIE_CAPTION, ["direction", "E ‖L‖² / K on logits", "E Σ |L| / K on probabilities"], rows)


def _relative(found: RelativeInvariance) -> Table:
    rows = [
        ["relative invariance", text_of(found.relative)],
        ["distance when moved", text_of(found.moved)],
        ["distance to another image", text_of(found.apart)],
    ]
    return Table(RELATIVE_CAPTION, ["quantity", "value"], rows)
