"""The page of `python -m augkit.measure`: one self-contained HTML file that opens offline, prints, reads on a phone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from augkit.core.figures import svg
from augkit.core.html import document
from augkit.invariance.gallery import FlipPicture, gallery
from augkit.measure import figures
from augkit.measure.terminal import CURVES, heading, metric_rows, text_of

MEASURED_STYLE = """
thead th:nth-child(2) { text-align: right; }
tbody th { white-space: normal; min-width: 7rem; }
@media (max-width: 40rem) { tbody th { max-width: 38vw; font-size: .85rem; } }
ol.gallery { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
li.flip { border: 1px solid #e3e3e3; border-radius: 4px; padding: .6rem .7rem; break-inside: avoid; }
.views { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; margin-top: .4rem; }
.views img { max-width: 100%; height: auto; display: block; image-rendering: pixelated; }
.views small { display: block; line-height: 1.25; margin-top: .2rem; }
"""
LIE_TITLES = {"shift_x": "shift x", "shift_y": "shift y", "log_scale": "scale", "rotation": "rotation"}
LAYERS_CAPTION = (
    "Circular shifts. Left: how well the layer's map moves along with the image, signal to error in dB; 130 dB is"
    " float rounding. Right: what the layer itself adds to the squared error of the logits; negative where it takes"
    " error away. Whiskers are 95 % intervals over images."
)


def measured_page(result: dict[str, Any], flips: Sequence[FlipPicture]) -> str:
    """The report of `augkit.measure`; ``result`` as in its ``results.json``, ``flips`` drawn from it."""
    sets = {result["data"]: result, **result.get("ood", {})}
    parts = [
        f"<h1>{escape(result['model'])}: how invariant is it?</h1>",
        f"<p class='note'>{escape(heading(result['settings']))}.</p>",
        f"<p class='lead'>{escape(summary(result))}</p>",
        "<h2>Metrics</h2>",
        _table(["metric", *sets], metric_rows(sets)),
        "<p class='note'>Value and 95 % interval (bootstrap over images). Read every invariance beside the accuracy:"
        " a better classifier is more consistent, and a constant one is perfectly so.</p>",
        *(_curve(sets, key, by, label) for key, (by, label) in CURVES.items() if key in result),
    ]
    if result.get("jaggedness_distribution"):
        caption = "Azulay & Weiss 2019: how often the answer changes along a path of one-pixel steps, per image."
        parts.append(_figure("Jaggedness", figures.jaggedness(result["jaggedness_distribution"]), caption))
    if "lie" in result:
        parts += ["<h2>Lie derivative</h2>", _lie(result["lie"])]
    if "relative_invariance" in result:
        parts += ["<h2>Relative invariance of the penultimate features</h2>", _relative(result["relative_invariance"])]
    if "layers" in result:
        parts.append(_figure("Layer by layer", figures.layers(result["layers"]), LAYERS_CAPTION))
    if "certificate" in result:
        parts += ["<h2>Certificate</h2>", f"<pre>{escape(result['certificate']['text'])}</pre>"]
    facts = {key: result[key] for key in ("settings", "environment") if key in result}
    parts += [
        "<h2>Gallery of flips</h2>",
        "<p class='note'>The most confident disagreements first: the image as the network saw it twice, what it"
        " said, and how sure it was.</p>",
        gallery(flips),
        "<h2>To repeat it</h2>",
        f"<pre>{escape(result['command'])}</pre>",
        f"<pre>{escape(json.dumps(facts, indent=2))}</pre>",
    ]
    return document(f"augkit measure: {result['model']}", parts, MEASURED_STYLE)


def summary(result: dict[str, Any]) -> str:
    """The main numbers in two or three sentences."""
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


def _percent(estimate: dict[str, float | None]) -> str:
    if estimate["value"] is None:
        return "an undefined share"
    value, low, high = (100 * (estimate[part] or 0.0) for part in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _curve(sets: dict[str, dict[str, Any]], key: str, by: str, label: str) -> str:
    drawn = {name: found[key] for name, found in sets.items() if key in found}
    caption = "Against the answer to the unshifted image; bands are 95 % intervals."
    return _figure(f"Response to a {label.partition(',')[0]}", figures.curves(drawn, by, label), caption)


def _lie(found: dict[str, Any]) -> str:
    rows = [
        [LIE_TITLES.get(name, name), text_of(estimate), text_of(found["probabilities"][name])]
        for name, estimate in found["logits"].items()
    ]
    note = "<p class='note'>Per pixel of displacement (Gruver et al. 2023); 0 where the network is invariant.</p>"
    return _table(["direction", "E ‖L‖² / K on logits", "E Σ |L| / K on probabilities"], rows) + note


def _relative(found: dict[str, Any]) -> str:
    titles = {"relative": "relative invariance", "moved": "distance when moved", "apart": "distance to another image"}
    rows = [[title, text_of(found[name])] for name, title in titles.items()]
    note = "1 is invariant, 0 no closer to itself than to another image (Bouchacourt et al. 2021)."
    return _table(["", "value"], rows) + f"<p class='note'>{note}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>{''.join(f'<td>{_stacked(cell)}</td>' for cell in row[1:])}</tr>\n"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>"


def _stacked(text: str) -> str:
    value, bracket, interval = escape(text).partition(" [")
    return f"{value}<br><small>[{interval}</small>" if bracket else value


def _figure(title: str, figure: Figure, caption: str) -> str:
    return (
        f"<figure role='img' aria-label='{escape(title, quote=True)}'><h2>{escape(title)}</h2>"
        f"<div class='scroll'>{svg(figure)}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )
