"""The end of a tuning: measure on the test split, and separate the effects of augmentation and of other fields."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from augkit.core.files import environment
from augkit.invariance import CarryOver, Estimate, InvarianceComparison, compare_invariance, learned_invariance
from augkit.measure.comparison import (
    TYPICAL,
    ComparisonRow,
    Contrast,
    Reports,
    RunGroup,
    carried_over,
    closing_table,
    compared_words,
    conclusion,
    response_curve,
)
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study
from augkit.tune.finals import Choice, DosePoint, Finalists, TuneContext, choose, dose_jobs, dose_response, retrain
from augkit.tune.results import (
    ChosenRecipe,
    DoseRow,
    ResponsePoint,
    TuneResults,
    TuneSettings,
    cost_of,
    search_results,
)
from augkit.tune.team import VALIDATION, Team
from augkit.tune.verified import verified_front

# Names of the arms in the closing table; the winner is named ``best``.
PLAIN = "control"
OWN = "control with the chosen other fields"
TUNED = "best control found"


def conclude(tuning: TuneContext, team: Team, started: float) -> tuple[Recipe, TuneResults]:
    """Retrain, choose, and measure on the test split.

    Args:
        tuning: a tuning whose search is done.
        team: the processes that train and measure networks.
        started: `time.monotonic` at the start of the command, in seconds.

    Returns:
        The chosen recipe, and the results of the tuning.
    """
    finalists = retrain(tuning, team)
    chosen = choose(tuning, finalists)
    tested = _measure(tuning, team, finalists, chosen)
    return chosen.recipe, _results(tuning, chosen, tested, started)


@dataclass(frozen=True)
class FinalMeasurements:
    """Measurements on the test split.

    Attributes:
        arms: arms of the closing table.
        carried: carry-over of invariance by atypical image set, over all networks.
        curves: for the winner and its control, top-1 change by the length of the shift (pixels).
        dose: the chosen policy at several strengths, on the validation split.
    """

    arms: list[RunGroup]
    carried: dict[str, CarryOver]
    curves: dict[str, list[ResponsePoint]]
    dose: list[DosePoint]


def _measure(tuning: TuneContext, team: Team, finalists: Finalists, chosen: Choice) -> FinalMeasurements:
    """Open the test split, measure all networks on it, and train those of the dose-response."""
    started = time.monotonic()
    sets, lengths, doses = tuple(tuning.data.tests), tuple(tuning.lengths), dose_jobs(tuning, chosen)
    # Those that are still to be trained take longest and come first. All are measured alike, so with the curve, because
    # measurements with different settings cannot be compared.
    jobs = [replace(job, sets=(VALIDATION, *sets), lengths=lengths) for job in doses.values()]
    jobs += [replace(job, sets=sets, lengths=lengths) for one in finalists.values() for job in one.runs]
    reports = tuning.perform(jobs, team, "test split")
    between = {strength: found.pop(VALIDATION) for strength, found in zip(doses, reports, strict=False)}
    named = [(f"{job.name}, seed {job.seed}", found) for job, found in zip(jobs, reports, strict=True)]
    networks = named[len(doses) :] + named[: len(doses)]
    found: dict[str, list[Reports]] = {name: [] for name in finalists}
    for job, report in zip(jobs[len(doses) :], reports[len(doses) :], strict=True):
        found[job.name].append(report)

    def curve(name: str, of: str) -> list[ResponsePoint]:
        group = RunGroup(name, found[of])
        return [ResponsePoint(length, change) for length, change in response_curve(group).items()]

    beside = chosen.own if chosen.augmented else chosen.plain
    curves = {PLAIN: curve(PLAIN, beside.name), "best": curve("best", chosen.finalist.name)}
    tuning.phases["dose-response and test split"] = time.monotonic() - started
    own = [(OWN, chosen.own)] if chosen.augmented else []
    labels: dict[str, str] = {}
    for label, part in [(PLAIN, chosen.plain), *own, (TUNED, chosen.reference)]:
        labels.setdefault(part.name, label)  # one network may have several roles
    groups = [RunGroup(label, found[name]) for name, label in labels.items()]
    control = labels[chosen.own.name if chosen.augmented else chosen.plain.name]
    return FinalMeasurements(
        [*groups, RunGroup("best", found[chosen.finalist.name], control)],
        carried_over(networks),
        curves,
        dose_response(chosen, between),
    )


def _decomposition(tested: FinalMeasurements, augmented: bool) -> dict[str, InvarianceComparison]:
    """Effects of augmentation alone, of the other fields alone, and of both, on typical test images."""
    by_name = {arm.name: arm.on(TYPICAL) for arm in tested.arms}
    best, plain, own = by_name["best"], by_name[PLAIN], by_name[tested.arms[-1].control]
    if not augmented:
        return {"other_fields": compare_invariance(best, plain)}
    parts = {"augmentation": (best, own)}
    if own is not plain:
        parts |= {"other_fields": (own, plain), "both": (best, plain)}
    if TUNED in by_name:
        parts["against_tuned_control"] = (best, by_name[TUNED])
    return {name: compare_invariance(*pair) for name, pair in parts.items()}


def _results(tuning: TuneContext, chosen: Choice, tested: FinalMeasurements, started: float) -> TuneResults:
    trial = chosen.finalist.trial
    assert trial is not None
    values = trial.user_attrs["values"]
    table, parts = closing_table(tested.arms), _decomposition(tested, chosen.augmented)
    search = search_results(tuning.study, tuning.terms, trial.number)
    return TuneResults(
        conclusion=_conclusion(tuning, chosen, tested, table, parts),
        chosen=ChosenRecipe(
            number=trial.number,
            rule=chosen.rule,
            policy=_policy_words(chosen),
            fields=chosen.recipe.policy,
            values=values,
            others=tuning.space.others(values),
            control=tuning.terms.controls,
        ),
        finalists=chosen.table,
        verified=verified_front(
            chosen.table,
            search.trials,
            trial_epochs=tuning.terms.epochs,
            epochs=tuning.recipe.train.epochs,
            seeds=tuning.seeds,
            fork=bool(tuning.terms.fork),
        ),
        table=table,
        decomposition=parts,
        carry_over=tested.carried,
        response=tested.curves,
        dose_response=[_dose_row(point, tested.dose[0]) for point in tested.dose],
        search=search,
        settings=_settings(tuning, tested),
        environment=environment(),
        cost=cost_of(tuning.phases, time.monotonic() - started),
    )


def _settings(tuning: TuneContext, tested: FinalMeasurements) -> TuneSettings:
    recipe, terms = tuning.recipe, tuning.terms
    measured = tested.arms[0].on(TYPICAL)[0].settings
    return TuneSettings(
        name=recipe.name,
        trials=len(optuna_study.finished(tuning.study)),
        trial_epochs=terms.epochs,
        goal=terms.goal,
        sampler=terms.sampler,
        epochs=recipe.train.epochs,
        seeds=tuning.seeds,
        search_seed=terms.seed,
        final_seeds=tuning.final_seeds,
        protocol=measured.protocol,
        kernel=measured.kernel,
        max_shift=measured.max_shift,
        pairs=measured.pairs,
        device=str(tuning.device),
        fork=terms.fork,
    )


def _policy_words(chosen: Choice) -> str:
    return str(chosen.recipe.policy) if chosen.augmented else "no augmentation"


def _dose_row(point: DosePoint, control: DosePoint) -> DoseRow:
    learned = Estimate(0.0, 0.0, 0.0) if point is control else learned_invariance(point.report, control.report)
    return DoseRow(point.strength, point.report.accuracy, learned)


def _conclusion(
    tuning: TuneContext,
    chosen: Choice,
    tested: FinalMeasurements,
    table: Sequence[ComparisonRow],
    parts: Mapping[str, InvarianceComparison],
) -> str:
    """Describe the winner, its effect on invariance, the carry-over, and which fields caused the effect."""
    reach, plain = tuning.recipe.invariance.max_shift, chosen.plain.recipe
    changed = next(row for row in table if row["arm"] == "best" and row["images"] == TYPICAL)["top1_change"]
    whole = Contrast.between(chosen.recipe, plain)
    others = f", with {', '.join(whole.others)}" if whole.others else ""
    named = f"Chosen: {_policy_words(chosen)}{others}."
    sentences = [named]
    if not chosen.augmented and not whole.others:
        sentences.append("This is the given recipe without augmentation; no trial was better.")
    else:
        shown = Contrast("augmentation") if chosen.augmented else whole
        sentences.append(conclusion(table, "best", reach, shown, tested.carried))
    for key, contrast in (("other_fields", Contrast("", whole.others)), ("both", whole)):
        if key in parts and chosen.augmented:
            words = compared_words(parts[key], contrast, changed)
            sentences.append(f"Compared with the given recipe without augmentation, {words}")
    if "against_tuned_control" in parts:
        best = ", ".join(Contrast.between(chosen.reference.recipe, plain).others)
        words = compared_words(parts["against_tuned_control"], Contrast("the chosen recipe"), changed)
        sentences.append(f"Compared with the best network without augmentation that the search found ({best}), {words}")
    seeds = ", ".join(map(str, tuning.final_seeds))
    sentences.append(
        f"Trials used seed {tuning.terms.seed}. The winner was chosen on the validation split and measured on the"
        f" test split, both with seeds {seeds}."
    )
    return " ".join(sentences)
