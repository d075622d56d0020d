"""The end of a search: one look at the test split, what augmentation did and what other fields did, and the words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augkit.core.files import environment
from augkit.invariance import CarryOver, Estimate, InvarianceComparison, compare_invariance, learned_invariance
from augkit.measure.comparison import (
    TYPICAL,
    Contrast,
    Reports,
    RunGroup,
    carried_over,
    closing_table,
    compared_words,
    conclusion,
    open_test_sets,
    response_curve,
)
from augkit.train.recipe import Recipe
from augkit.train.run import Run
from augkit.tune import optuna_study
from augkit.tune.finals import Chosen, Dose, Finalists, TuneContext, choose, dose_response, retrain
from augkit.tune.results import outcome

# Arms of the closing table beside ``best``.
PLAIN = "control"
OWN = "control with the chosen other fields"
TUNED = "best control found"


def finish(tuning: TuneContext) -> tuple[Recipe, dict[str, Any]]:
    """Retrain, choose, measure on the test split; the chosen recipe, and all that ``results.json`` holds."""
    finalists = retrain(tuning)
    chosen = choose(tuning, finalists)
    dose = dose_response(tuning, chosen)
    judged = _judge(tuning, finalists, chosen, dose)
    return chosen.recipe, _results(tuning, chosen, dose, judged)


@dataclass(frozen=True)
class Judged:
    """On the test split.

    Attributes:
        arms: of the closing table.
        carried: by image set, how much of the invariance of all networks arrives.
        curves: of the winner and its control, answers that change by the length of the shift.
    """

    arms: list[RunGroup]
    carried: dict[str, CarryOver]
    curves: dict[str, list[dict[str, Any]]]


def _judge(tuning: TuneContext, finalists: Finalists, chosen: Chosen, dose: Sequence[Dose]) -> Judged:
    started = time.monotonic()
    sets = open_test_sets(tuning.dataset)
    networks: list[tuple[str, Reports]] = []

    def look(name: str, run: Run) -> Reports:
        tuning.display.stage(f"test split: {name}, seed {run.seed}")
        networks.append((f"{name}, seed {run.seed}", {key: tuning.measure(run, sets[key]) for key in sets}))
        return networks[-1][1]

    def curve(name: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
        tuning.display.stage(f"test split: response curve of {name}")
        return response_curve(
            RunGroup(name, [{TYPICAL: tuning.measure(run, sets[TYPICAL], curve=True)} for run in runs])
        )

    found = {finalist.name: [look(finalist.name, run) for run in finalist.runs] for finalist in finalists.values()}
    for point in dose:
        if point.run is not None:
            look(f"{chosen.finalist.name} at strength {point.strength:g}", point.run)
    beside = chosen.own if chosen.augmented else chosen.plain
    curves = {PLAIN: curve(PLAIN, beside.runs), "best": curve("best", chosen.finalist.runs)}
    tuning.phases["test split"] = time.monotonic() - started
    own = [(OWN, chosen.own)] if chosen.augmented else []
    labels: dict[str, str] = {}
    for label, part in [(PLAIN, chosen.plain), *own, (TUNED, chosen.reference)]:
        labels.setdefault(part.name, label)  # one network may be several of them
    arms = [RunGroup(label, found[name]) for name, label in labels.items()]
    control = labels[chosen.own.name if chosen.augmented else chosen.plain.name]
    return Judged([*arms, RunGroup("best", found[chosen.finalist.name], control)], carried_over(networks), curves)


def _decomposition(judged: Judged, augmented: bool) -> dict[str, InvarianceComparison]:
    """What the other fields did, what augmentation did, and both, on typical test images."""
    by_name = {arm.name: arm.on(TYPICAL) for arm in judged.arms}
    best, plain, own = by_name["best"], by_name[PLAIN], by_name[judged.arms[-1].control]
    if not augmented:
        return {"other_fields": compare_invariance(best, plain)}
    parts = {"augmentation": (best, own)}
    if own is not plain:
        parts |= {"other_fields": (own, plain), "both": (best, plain)}
    if TUNED in by_name:
        parts["against_tuned_control"] = (best, by_name[TUNED])
    return {name: compare_invariance(*pair) for name, pair in parts.items()}


def _results(tuning: TuneContext, chosen: Chosen, dose: Sequence[Dose], judged: Judged) -> dict[str, Any]:
    recipe, trial = tuning.recipe, chosen.finalist.trial
    assert trial is not None
    table, parts = closing_table(judged.arms), _decomposition(judged, chosen.augmented)
    measured = judged.arms[0].on(TYPICAL)[0].settings
    final = {
        "conclusion": _conclusion(tuning, chosen, judged, table, parts),
        "chosen": {
            "number": trial.number,
            "rule": chosen.rule,
            "policy": str(chosen.recipe.policy) if chosen.augmented else "no augmentation",
            "fields": chosen.recipe.policy.model_dump(),
            "values": trial.user_attrs["values"],
            "others": tuning.space.others(trial.user_attrs["values"]),
            "control": tuning.terms.controls,
        },
        "finalists": chosen.table,
        "table": table,
        "decomposition": parts,
        "carry_over": judged.carried,
        "response": judged.curves,
        "dose_response": [_dose_row(point, dose[0]) for point in dose],
    }
    settings = {
        "name": recipe.name,
        "trials": len(optuna_study.finished(tuning.study)),
        "trial_epochs": tuning.terms.epochs,
        "goal": tuning.terms.goal.model_dump(),
        "sampler": tuning.terms.sampler,
        "epochs": recipe.train.epochs,
        "seeds": tuning.seeds,
        "search_seed": tuning.terms.seed,
        "final_seeds": tuning.final_seeds,
        **{key: measured[key] for key in ("protocol", "kernel", "max_shift", "pairs")},
        "device": str(tuning.device),
    }
    held = outcome(tuning.study, tuning.terms, trial.number)
    return {**final, **held, "settings": settings, "environment": environment()}


def _dose_row(point: Dose, control: Dose) -> dict[str, Any]:
    learned = Estimate(0.0, 0.0, 0.0) if point is control else learned_invariance(point.report, control.report)
    return {"strength": point.strength, "accuracy": point.report.accuracy, "learned_invariance": learned}


def _conclusion(
    tuning: TuneContext,
    chosen: Chosen,
    judged: Judged,
    table: Sequence[dict[str, Any]],
    parts: Mapping[str, InvarianceComparison],
) -> str:
    """What was chosen, what it did to invariance and whether that carries over, and what did it."""
    reach, plain = tuning.recipe.invariance.max_shift, chosen.plain.recipe
    changed = next(row for row in table if row["arm"] == "best" and row["images"] == TYPICAL)["top1_change"]
    whole = Contrast.between(chosen.recipe, plain)
    policy = str(chosen.recipe.policy) if chosen.augmented else "no augmentation"
    others = f", with {', '.join(whole.others)}" if whole.others else ""
    named = f"Chosen: {policy}{others}."
    sentences = [named]
    if not chosen.augmented and not whole.others:
        sentences.append("That is the recipe as it stands without augmentation; nothing that was tried is better.")
    else:
        shown = Contrast("augmentation") if chosen.augmented else whole
        sentences.append(conclusion(table, "best", reach, shown, judged.carried))
    for key, contrast in (("other_fields", Contrast("", whole.others)), ("both", whole)):
        if key in parts and chosen.augmented:
            words = compared_words(parts[key], contrast, changed)
            sentences.append(f"Against the recipe as it stands without augmentation, {words}")
    if "against_tuned_control" in parts:
        best = ", ".join(Contrast.between(chosen.reference.recipe, plain).others)
        words = compared_words(parts["against_tuned_control"], Contrast("the chosen recipe"), changed)
        sentences.append(f"Against the best network without augmentation that the search found ({best}), {words}")
    seeds = ", ".join(map(str, tuning.final_seeds))
    sentences.append(
        f"Trials were run with seed {tuning.terms.seed}; the choice was made on the validation split and judged on the"
        f" test split, both with seeds {seeds}."
    )
    return " ".join(sentences)
