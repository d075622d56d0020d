"""HTML reports of `python -m augkit.tune`: of a finished tuning, and of a search alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from augkit.core.figures import Chart, chart
from augkit.core.html import Table, render
from augkit.core.images import data_url
from augkit.invariance import CarryOver, InvarianceComparison
from augkit.invariance.learned import AGREEING
from augkit.invariance.metrics import METRICS
from augkit.measure.figures import carry_over
from augkit.measure.tables import page_table
from augkit.tune import figures, search_figures
from augkit.tune.results import SearchResults, TuneResults
from augkit.tune.rung_report import shown
from augkit.tune.tables import chosen_words, percent
from augkit.tune.verified import VerifiedFront

PARTS = {
    "other_fields": "the other fields alone",
    "augmentation": "augmentation alone, against the control that differs in the policy alone",
    "both": "both, against the given recipe without augmentation",
    "against_tuned_control": "both, against the best control found",
}
TABLE_CAPTION = (
    "Test split, opened once; {seeds} training seeds that the search did not use. Value and 95 % interval (bootstrap"
    " over images and seeds). Shift information is the share of what the answers say that is about the shift and not"
    " about the image; learned invariance is 1 − that of the network / that of its control; transfer is its value on"
    " atypical images minus that on typical ones. JS also falls where answers are less certain. Images upside down keep"
    " their labels, although a person could read, for example, a 6 upside down as a 9."
)
PARTS_CAPTION = (
    "Share of variability removed, %, on typical test images. The verdict is ‘more’ or ‘less’ where all three agree in"
    " sign, and ‘disputed’ where they do not."
)
RESPONSE_CAPTION = (
    "Share of answers that differ from the answer to the unshifted image, against the length of a shift in a random"
    " direction; typical test images. Bands are 95 % intervals. The control differs from the best in its policy alone."
)
CARRY_CAPTION = (
    "Each point is a network of this run: controls, retrained trials, and the chosen policy at several strengths. The"
    " slope of the line is the share of the invariance gained on typical images that carries over: 1 (dotted) is all of"
    " it, 0 none. Both scales are logarithmic."
)
DOSE_CAPTION = "The chosen policy at several strengths, one seed, validation split. Strength 0 is the control."
COST_CAPTION = "Seconds of this process until this page was drawn. For a resumed study, only those of the last command."
VOLUME_CAPTION = (
    "Share of the space of {objectives} that the trials so far dominate. If the curve ends flat, later trials did not"
    " improve the Pareto front."
)
IMPORTANCE_CAPTION = (
    "Share of the differences between trials that each searched field explains; unreliable with few trials."
)
PARALLEL_CAPTION = (
    "Each line is a trial, dark where the first objective is high. The control is dashed, and trials below a bound"
    " are dotted."
)


RUNGS_CAPTION = (
    "Rank correlation (Spearman) of a rung with the top one, by objective, over the configurations that completed both;"
    " undetermined for fewer than 4. Only those that were promoted are compared, which are alike, so it would probably"
    " be higher over all. Below the top, few images are measured with one pair of views each."
)
REACHED = " Each configuration is shown on the highest rung that it completed; only the top rung has a front."
VERIFIED = (
    " Diamonds are retrained trials (filled: the verified front), mean and 95 % interval over fresh seeds at full"
    " length, each connected with what the search showed of it."
)


def tuning_page(results: TuneResults, recipe_yaml: str, sheet: Image.Image) -> str:
    """The report of `augkit.tune`."""
    settings = results.settings
    trials, wide = search_charts(results.search, settings.trial_epochs, results.verified)
    seconds = {phase: value for phase, value in results.cost.items() if phase != "seconds"}
    carried = results.carry_over
    return render(
        "tune/tuning.html",
        title=f"augkit: {settings.name}",
        results=results,
        subtitle=_subtitle(results),
        table=page_table(results.table, TABLE_CAPTION.format(seeds=settings.seeds)),
        decomposition=_decomposition(results.decomposition),
        carried=_carried_chart(carried),
        not_carried=[f"{name}: undefined, {one.reason}." for name, one in carried.items() if not one.slope.defined],
        responses=_responses(results),
        finalists=_finalists(results),
        search_charts=trials,
        search_wide=wide,
        rungs=_rungs(results.search),
        cost=chart("Time", search_figures.cost(seconds), COST_CAPTION),
        chosen=chosen_words(results.chosen),
        sheet=data_url(sheet),
        recipe_yaml=recipe_yaml,
        facts={"settings": settings.to_mapping(), "environment": results.environment, "cost": results.cost},
    )


def search_page(name: str, held: SearchResults) -> str:
    """The report of a search alone, finished or not."""
    trials, wide = search_charts(held, held.budget)
    return render(
        "tune/search.html",
        title=f"augkit: {name}",
        name=name,
        cost=held.search_cost,
        search_charts=trials,
        search_wide=wide,
        rungs=_rungs(held),
    )


def search_charts(
    held: SearchResults, budget: int, verified: VerifiedFront | None = None
) -> tuple[list[Chart], list[Chart]]:
    """Charts of a search; charts that would be empty are left out.

    Args:
        held: results of the search.
        budget: epochs of a trial that is not pruned.
        verified: the retrained trials, which are drawn among the others.

    Returns:
        The small charts, and the wide ones.
    """
    trials, objectives = held.configurations, held.objectives
    names = [name.replace("_", " ") for name in objectives]
    known = [trial for trial in trials if trial.accuracy is not None]
    caption = "Validation split, short runs; accuracy against learned invariance." + REACHED * bool(held.rungs)
    caption += VERIFIED * (verified is not None)
    charts = [chart("Trials", figures.pareto(trials, verified), caption)]
    if len(objectives) > 1 and len(known) > 1:
        figure = search_figures.volume_over_trials(held.comparable, [0.0] * len(objectives))
        charts.append(chart("Hypervolume", figure, VOLUME_CAPTION.format(objectives=" and ".join(names))))
    if held.importance:
        charts.append(chart("Importance", figures.importance(held.importance), IMPORTANCE_CAPTION))
    if any(trial.curve for trial in trials):
        label = "validation accuracy" if objectives == ["accuracy"] else names[0]
        figure = search_figures.learning_curves(trials, budget, label)
        charts.append(chart("Pruned curves", figure, "A cross marks where a trial was pruned."))
    if not known:
        return charts, []
    figure = search_figures.parallel_coordinates(trials, held.space, names)
    return charts, [chart("Parallel coordinates", figure, PARALLEL_CAPTION)]


def _rungs(held: SearchResults) -> Table | None:
    """What the rungs of Pareto halving are worth; None without rungs."""
    if not held.rungs:
        return None
    names = [name.replace("_", " ") for name in held.objectives]
    rows = [
        [
            f"{row.epochs} epoch{'s' * (row.epochs != 1)}",
            str(row.reached),
            str(row.compared),
            *map(shown, row.rank_correlation.values()),
        ]
        for row in held.rungs
    ]
    return Table(RUNGS_CAPTION, ["rung", "configurations", "compared", *names], rows)


def _responses(results: TuneResults) -> list[Chart]:
    charts = [chart("Response curve", figures.response(results.response), RESPONSE_CAPTION)]
    if results.dose_response:
        charts.append(chart("Dose-response", figures.dose_response(results.dose_response), DOSE_CAPTION))
    return charts


def _decomposition(parts: Mapping[str, InvarianceComparison]) -> Table:
    """Effects of augmentation and of other fields by all variabilities; no rows if nothing was changed."""
    rows = [
        [title, *(percent(parts[key].by[metric]) for metric in AGREEING), parts[key].verdict]
        for key, title in PARTS.items()
        if key in parts
    ]
    return Table(
        PARTS_CAPTION,
        ["what changed", *(METRICS[metric].brief for metric in AGREEING), "more invariant?"],
        rows,
        words=["more invariant?"],
    )


def _carried_chart(found: Mapping[str, CarryOver]) -> Chart | None:
    """Carry-over to atypical images; None if no slope is defined."""
    if not any(one.slope.defined for one in found.values()):
        return None
    return chart("", carry_over(dict(found)), CARRY_CAPTION, name="Carry-over of invariance to atypical images")


def _finalists(results: TuneResults) -> Table:
    points = {point.number: point for point in results.verified.points}
    rows: list[Sequence[str]] = []
    for row in results.finalists:
        point, learned = (None if row.number is None else points[row.number]), row.learned_invariance
        name = f"{row.name} (chosen)" if row.chosen else row.name
        searched = ["–", "–"]
        if point is not None:
            searched = [f"{100 * point.searched_accuracy:.1f}", f"{100 * point.searched_learned_invariance:.1f}"]
        values = [searched[0], percent(row.accuracy), searched[1], "–" if learned is None else percent(learned)]
        rows.append([name, *values, "–" if point is None else "yes" if point.front else "no"])
    seeds, rule = results.settings.seeds, results.chosen.rule
    caption = (
        f"Validation split, {seeds} fresh seed{'s' * (seeds != 1)}, %, value and 95 % interval, beside what the search"
        f" showed. Chosen: {rule}."
    )
    heads = ["accuracy in the search", "accuracy", "learned invariance in the search", "learned invariance"]
    return Table(caption, ["recipe", *heads, "verified front"], rows, words=["verified front"])


def _subtitle(results: TuneResults) -> str:
    settings, cost = results.settings, results.cost
    epochs = ", ".join(str(row.epochs) for row in results.search.rungs[:-1])
    rungs = f"{epochs} or " if epochs else ""
    fork = f", each from the control after epoch {settings.fork}" if settings.fork else ""
    return (
        f"{settings.trials} trials of {rungs}{settings.trial_epochs} epochs{fork}, then {settings.seeds} seeds"
        f" of {settings.epochs} epochs each for control and best; protocol {settings.protocol}, kernel"
        f" {settings.kernel}, shifts up to {settings.max_shift:g} px; {cost['seconds']:.0f} s in total."
    )
