"""One self-contained HTML page from a tuning's results; opens offline, prints, reads on a phone."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from PIL import Image

from augkit.core.figures import svg
from augkit.core.html import document
from augkit.core.images import data_url
from augkit.invariance import CarryOver, Estimate, InvarianceComparison
from augkit.invariance.learned import AGREEING
from augkit.invariance.metrics import METRICS
from augkit.measure.figures import carry_over
from augkit.measure.tables import html_table
from augkit.tune import figures, search_figures
from augkit.tune.tables import chosen_words

COST = "Seconds of this process. A resumed study counts its last session."


def tuning_page(results: dict[str, Any], recipe_yaml: str, sheet: Image.Image) -> str:
    """The report of `augkit.tune`; ``results`` as it returns them, with `Estimate`s."""
    chosen = results["chosen"]
    settings = results["settings"]
    parts = [
        f"<h1>{escape(settings['name'])}: what made the network invariant?</h1>",
        f"<p class='note'>{escape(_subtitle(results))}</p>",
        f"<p class='lead'>{escape(results['conclusion'])}</p>",
        "<h2>Closing table</h2>",
        html_table(results["table"]),
        f"<p class='note'>Test split, opened once; {settings['seeds']} training seeds that the search did not use."
        " Value and 95 % interval (bootstrap over images and seeds). Shift information is the share of what the answers"
        " say that is about the shift and not about the image; learned invariance is 1 − that of the network / that of"
        " its control; transfer is its value on atypical images minus that on typical ones. JS also falls where answers"
        " are less sure. Upside-down digits keep the label of the digit, so their accuracy asks for more than a person"
        " would.</p>",
        *_decomposition(results["decomposition"]),
        *_carried(results["carry_over"]),
        "<div class='two'>",
        _figure(
            "Response curve",
            figures.response(results["response"]),
            "How often the answer differs from that to the unshifted image, against the length of a shift in a random"
            " direction; typical test images. Bands are 95 % intervals. The control differs from the best in its policy"
            " alone.",
        ),
        *_dose(results["dose_response"]),
        "</div>",
        *_finalists(results),
        *_search_parts(results, settings["trial_epochs"]),
        _figure("Time", search_figures.cost({k: v for k, v in results["cost"].items() if k != "seconds"}), COST),
    ]
    parts += [
        "<h2>What the chosen augmentation does</h2>",
        f"<p>{escape(chosen_words(chosen))}</p>",
        f"<figure><img class='sheet' src='{data_url(sheet)}' alt='contact sheet: originals and nine random draws'>"
        "<figcaption>Left: the image as it is. Then nine draws each.</figcaption></figure>",
        "<h2>To repeat it</h2>",
        f"<pre>{escape(recipe_yaml)}</pre>",
        f"<pre>{escape(json.dumps({k: results[k] for k in ('settings', 'environment', 'cost')}, indent=2))}</pre>",
    ]
    return document(f"augkit: {settings['name']}", parts)


PARTS = {
    "other_fields": "the other fields alone",
    "augmentation": "augmentation, against the control that differs in nothing else",
    "both": "both, against the recipe as it stands without augmentation",
    "against_tuned_control": "both, against the best control found",
}


def _decomposition(parts: dict[str, InvarianceComparison]) -> list[str]:
    """What did what, by every variability; left out where no policy and no field differs."""
    rows = ""
    for key, title in PARTS.items():
        if key in parts:
            found = parts[key]
            cells = "".join(f"<td>{escape(_percent(found.by[metric]))}</td>" for metric in AGREEING)
            rows += f"<tr><th scope='row'>{escape(title)}</th>{cells}<td class='name'>{escape(found.verdict)}</td></tr>"
    titles = ["", *(METRICS[metric].brief for metric in AGREEING), "more invariant?"]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return [
        "<h2>What removed variability</h2>",
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>",
        "<p class='note'>Share of variability removed, %, on typical test images. ‘More’ and ‘less’ are said where all"
        " three have one sign; ‘disputed’ where they do not.</p>",
    ]


def _percent(estimate: Estimate) -> str:
    scaled = Estimate(*(100 * value for value in (estimate.value, estimate.low, estimate.high)))
    return format(scaled, ".1f")


def _carried(found: dict[str, CarryOver]) -> list[str]:
    """How much arrives elsewhere: the lines, and why there is none."""
    without = [f"{name}: undefined, {one.reason}." for name, one in found.items() if not one.slope.defined]
    parts = ["<h2>How much of the invariance arrives elsewhere</h2>"]
    if len(without) < len(found):
        words = (
            "Each point is a network of this run: controls, retrained trials, and the chosen policy at several"
            " strengths. The slope of the line is the share of the invariance gained on typical images that arrives:"
            " 1 (dotted) all of it, 0 none. Both scales are logarithmic."
        )
        parts.append(_figure("", carry_over(found), words))
    return parts + [f"<p class='note'>{escape(' '.join(without))}</p>"] * bool(without)


def _dose(points: list[dict[str, Any]]) -> list[str]:
    words = "The chosen policy at several strengths, one seed, validation split. Strength 0 is the control."
    return [_figure("Dose-response", figures.dose_response(points), words)] if points else []


def search_page(name: str, held: dict[str, Any]) -> str:
    """The report of a search alone, finished or not; ``held`` as `augkit.tune.results.outcome` gives it."""
    cost = held["search_cost"]
    parts = [
        f"<h1>{escape(name)}: the search so far</h1>",
        f"<p class='lead'>{cost['trials']} trials have finished, {cost['pruned']} of them pruned and"
        f" {cost['answered_from_the_study']} answered from the study; {cost['failed']} failed."
        f" {cost['epochs_run']} epochs were run and {cost['epochs_saved']} saved, in {cost['trial_seconds']:.0f} s of"
        " all workers together.</p>",
        *_search_parts(held, held["budget"]),
    ]
    return document(f"augkit: {name}", parts)


def _finalists(results: dict[str, Any]) -> list[str]:
    rows = ""
    for row in results["finalists"]:
        mark = " (chosen)" if row["chosen"] else ""
        learned = row["learned_invariance"]
        cells = [format(row["accuracy"], ".4f"), "–" if learned is None else format(learned, ".3f")]
        rows += f"<tr><th scope='row'>{escape(row['name'])}{mark}</th>"
        rows += "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    return [
        "<h2>Retrained at full length</h2>",
        "<div class='scroll'><table><thead><tr><th>recipe</th><th>accuracy</th><th>learned invariance</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>",
        f"<p class='note'>Validation split, {results['settings']['seeds']} seeds, value and 95 % interval. Chosen:"
        f" {escape(results['chosen']['rule'])}.</p>",
    ]


def _search_parts(held: dict[str, Any], budget: int) -> list[str]:
    """What a search found, as sections; those that would be empty are left out."""
    trials, objectives = held["trials"], held["objectives"]
    names = [name.replace("_", " ") for name in objectives]
    told = [t for t in trials if t["accuracy"] is not None]
    parts = ["<h2>The search</h2>", "<div class='two'>"]
    caption = "Validation split, short runs; accuracy against learned invariance."
    parts.append(_figure("Trials", figures.pareto(trials), caption))
    if len(objectives) > 1 and len(told) > 1:
        parts.append(
            _figure(
                "Hypervolume",
                search_figures.volume_over_trials(trials, [0.0] * len(objectives)),
                f"Share of the space of {' and '.join(names)} that the trials so far dominate; a flat end says that"
                " the search has found what it can.",
            )
        )
    if held["importance"]:
        words = "Which searched field explains the differences between trials. With few trials this is a hint, no more."
        parts.append(_figure("Importance", figures.importance(held["importance"]), words))
    if any(trial["curve"] for trial in trials):
        label = "validation accuracy" if objectives == ["accuracy"] else names[0]
        words = "A cross is where a trial was pruned."
        parts.append(_figure("Pruned curves", search_figures.learning_curves(trials, budget, label), words))
    parts.append("</div>")
    if told:
        words = "Each line is a trial, dark where the first objective is high; broken lines are the control and trials"
        figure = search_figures.parallel_coordinates(trials, held["space"], names)
        parts.append(_figure("Parallel coordinates", figure, words + " below a bound."))
    return parts


def _subtitle(results: dict[str, Any]) -> str:
    settings, cost = results["settings"], results["cost"]
    return (
        f"{settings['trials']} trials of {settings['trial_epochs']} epochs, then {settings['seeds']} seeds of"
        f" {settings['epochs']} epochs each for control and best; protocol {settings['protocol']}, kernel"
        f" {settings['kernel']}, shifts up to {settings['max_shift']:g} px; {cost['seconds']:.0f} s in all."
    )


def _figure(title: str, figure: Any, caption: str) -> str:
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return (
        f"<figure role='img' aria-label='{escape(title or caption, quote=True)}'>{heading}"
        f"{svg(figure)}<figcaption>{escape(caption)}</figcaption></figure>"
    )
