"""The report page of `python -m augkit.measure`: one self-contained HTML file for screens, phones and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.core.figures import Chart, chart
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.invariance import Estimate, LieDerivative, RelativeInvariance
from augkit.invariance.gallery import FlipPicture
from augkit.measure import figures
from augkit.measure.analyses import Analyses
from augkit.measure.results import ImageSetResults, MeasureResults
from augkit.measure.terminal import CURVE_TITLES, heading, metric_rows, text_of

METRICS_CAPTION = (
    "Value and 95 % interval (bootstrap over images). Read every invariance beside the accuracy: a better classifier is"
    " more consistent, and a constant one is perfectly so."
)
JAGGEDNESS_CAPTION = "Azulay & Weiss 2019: how often the answer changes along a path of one-pixel steps, per image."
RESPONSE_CAPTION = "Against the answer to the unshifted image; bands are 95 % intervals."
LIE_CAPTION = "Per pixel of displacement (Gruver et al. 2023); 0 where the network is invariant."
RELATIVE_CAPTION = "1 is invariant, 0 no closer to itself than to another image (Bouchacourt et al. 2021)."
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


def _views(flip: FlipPicture) -> list[tuple[str, str]]:
    """Return source and caption of both pictures."""
    return [(data_url(picture), caption) for picture, caption in zip(flip.pictures, flip.captions, strict=True)]


def _curve(sets: Mapping[str, ImageSetResults], by: str, label: str) -> Chart:
    found = {name: results.report.response_curves for name, results in sets.items()}
    drawn = {name: curves[by] for name, curves in found.items() if by in curves}
    return chart(f"Response to a {label.partition(',')[0]}", figures.curves(drawn, label), RESPONSE_CAPTION)


def lie_table(found: LieDerivative) -> Table:
    """Return the table of Lie derivatives."""
    rows = [
        [LIE_TITLES.get(name, name), text_of(estimate), text_of(found.probabilities[name])]
        for name, estimate in found.logits.items()
    ]
    return Table(LIE_CAPTION, ["direction", "E ‖L‖² / K on logits", "E Σ |L| / K on probabilities"], rows)


def _relative(found: RelativeInvariance) -> Table:
    rows = [
        ["relative invariance", text_of(found.relative)],
        ["distance when moved", text_of(found.moved)],
        ["distance to another image", text_of(found.apart)],
    ]
    return Table(RELATIVE_CAPTION, ["quantity", "value"], rows)
