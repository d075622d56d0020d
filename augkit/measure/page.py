"""The report page of `python -m augkit.measure`: one self-contained HTML file for screens, phones and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.core.figures import Chart, chart
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.invariance.gallery import FlipPicture
from augkit.measure import figures
from augkit.measure.entries import ImageSetEntry, LieEntry, MeasuredEntry, RelativeEntry, curve_of, sets_of
from augkit.measure.terminal import CURVES, heading, metric_rows, text_of
from augkit.train.history import Interval

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
    " float rounding. Right: what the layer itself adds to the squared error of the logits; negative where it takes"
    " error away. Whiskers are 95 % intervals over images."
)


def measured_page(result: MeasuredEntry, flips: Sequence[FlipPicture]) -> str:
    """Return the report page; ``result`` is the content of ``results.json``, ``flips`` are its drawn flips."""
    sets = sets_of(result)
    charts = [_curve(sets, key, by, label) for key, (by, label) in CURVES.items() if key in result]
    if distribution := result.get("jaggedness_distribution"):
        charts.append(chart("Jaggedness", figures.jaggedness(distribution), JAGGEDNESS_CAPTION))
    return render(
        "measure/measured.html",
        title=f"augkit measure: {result['model']}",
        result=result,
        subtitle=heading(result["settings"]),
        summary=summary(result),
        metrics=Table(METRICS_CAPTION, ["metric", *sets], metric_rows(sets)),
        charts=charts,
        lie=_lie(result["lie"]) if "lie" in result else None,
        relative=_relative(result["relative_invariance"]) if "relative_invariance" in result else None,
        layers=chart("Layer by layer", figures.layers(result["layers"]), LAYERS_CAPTION)
        if "layers" in result
        else None,
        flips=[{"title": flip.title, "views": _views(flip)} for flip in flips],
        facts={key: result.get(key) for key in ("settings", "environment") if key in result},
    )


def summary(result: MeasuredEntry) -> str:
    """Return the main numbers in two or three sentences."""
    settings = result["settings"]
    most = f"two shifts of up to {settings['max_shift']:g} px"
    if settings["axis"] == "scale":
        most = f"two factors of up to {settings['plan']['pairs']['high']:g}"
    out = [
        f"On {settings['images']:,} images the top-1 answer differs between {most} of the same image for"
        f" {_percent(result['top1_change'])} of pairs; the answers are {text_of(result['js'])} bits apart"
        " (Jensen-Shannon)."
    ]
    if "accuracy" in result:
        out.append(f"Accuracy is {_percent(result['accuracy'])}.")
    for name, other in result.get("ood", {}).items():
        out.append(f"On images of '{name}' the answer changes for {_percent(other['top1_change'])} of pairs.")
    return " ".join(out)


def _percent(estimate: Interval) -> str:
    if estimate["value"] is None:
        return "an undefined share"
    value, low, high = (100 * (part or 0.0) for part in (estimate["value"], estimate["low"], estimate["high"]))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _views(flip: FlipPicture) -> list[tuple[str, str]]:
    """Return source and caption of both pictures."""
    return [(data_url(picture), caption) for picture, caption in zip(flip.pictures, flip.captions, strict=True)]


def _curve(sets: Mapping[str, ImageSetEntry], key: str, by: str, label: str) -> Chart:
    found = {name: curve_of(entry, key, by) for name, entry in sets.items()}
    drawn = {name: curve for name, curve in found.items() if curve is not None}
    return chart(f"Response to a {label.partition(',')[0]}", figures.curves(drawn, by, label), RESPONSE_CAPTION)


def _lie(found: LieEntry) -> Table:
    rows = [
        [LIE_TITLES.get(name, name), text_of(estimate), text_of(found["probabilities"][name])]
        for name, estimate in found["logits"].items()
    ]
    return Table(LIE_CAPTION, ["direction", "E ‖L‖² / K on logits", "E Σ |L| / K on probabilities"], rows)


def _relative(found: RelativeEntry) -> Table:
    rows = [
        ["relative invariance", text_of(found["relative"])],
        ["distance when moved", text_of(found["moved"])],
        ["distance to another image", text_of(found["apart"])],
    ]
    return Table(RELATIVE_CAPTION, ["quantity", "value"], rows)
