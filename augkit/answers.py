"""Each claim of a study answered: verdict, number, sentences and figure, for JSON.

p-values are corrected for the number of claims that were tested (Holm); a verdict holds at 5 % after that. Beside each
number on variability stands the same at matched accuracy (`augkit.matching`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from augkit.claims import TYPICAL, Claim, Part
from augkit.decisions import ALPHA, NOT_RUN, UNDETERMINED, Decision, holm, join, seeds_needed
from augkit.errors import InputError
from augkit.invariance.intervals import Estimate
from augkit.matching import Matched
from augkit.statistics import NO_NETWORK, Found, MissingError, View, probe_measure, statistic
from augkit.studies import Study

# Those that compare variabilities, so that accuracy may stand behind the difference.
MATCHABLE = frozenset(
    {
        "log_variability_ratio",
        "learned_invariance",
        "architectural_invariance",
        "transfer_learned",
        "transfer_architectural",
        "interaction",
        "slope",
    }
)
COLLAPSED = 0.2  # of the best accuracy above chance
EASY = 0.99  # accuracy of all arms of a task that is no test
Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A claim with what was found of each part; ``missing`` says why nothing was."""

    claim: Claim
    view: View
    found: Sequence[Found]
    missing: str = ""
    note: str = ""

    @property
    def decision(self) -> Decision | None:
        """Of all parts that predict something; None where nothing was tested."""
        tested = [f.decision for f, part in self.pairs if part.prediction.sign != "describe"]
        return join(tested) if tested and not self.missing else None

    @property
    def pairs(self) -> list[tuple[Found, Part]]:
        """Each part with what was found."""
        return list(zip(self.found, self.claim.parts, strict=True)) if self.found else []


def answer_claims(
    study: Study, view: View, accuracy: Mapping[tuple[str, int], float], chance: float = 0.0
) -> list[Row]:
    """All claims of a study, in its order.

    Args:
        study: its claims.
        view: all columns, and all seeds.
        accuracy: of every run on typical images, by arm and seed.
        chance: accuracy of a network that guesses, one over the number of classes.
    """
    collapsed = collapses(study, accuracy, chance)
    answers = [_answer(claim, view, collapsed) for claim in study.claims]
    answers = [replace(answer, note=_notes(answer, accuracy)) for answer in answers]
    tested = [answer for answer in answers if answer.decision is not None]
    corrected = dict(zip([id(a) for a in tested], holm([a.decision.p for a in tested if a.decision]), strict=True))
    return [_row(answer, corrected.get(id(answer)), accuracy) for answer in answers]


def _notes(answer: Answer, accuracy: Mapping[tuple[str, int], float]) -> str:
    """What to know of the arms: that some collapsed, or that a task is too easy to tell them apart."""
    compared = {name for _, part in answer.pairs if part.statistic == "accuracy_difference" for name in part.names}
    scores = [accuracy.get((name, seed), 0.0) for name in compared for seed in answer.view.seeds]
    easy = min(scores, default=0.0) >= EASY
    said = f"all of these networks answer at least {100 * EASY:.0f} % right, so their task hardly tells them apart"
    return "; ".join([answer.note] * bool(answer.note) + [said] * easy)


def collapses(study: Study, accuracy: Mapping[tuple[str, int], float], chance: float) -> set[tuple[str, int]]:
    """Runs, by arm and seed, that hardly learned: a network that gives one answer is perfectly invariant.

    Their accuracy above chance is below `COLLAPSED` of that of the study's best run.
    """
    known = {run: value for run, value in accuracy.items() if run[0] in study.arms}
    own = {run: value for run, value in known.items() if study.arms[run[0]].task == "classify"}
    best = max(own.values(), default=chance)
    return {run for run, value in own.items() if value - chance < COLLAPSED * (best - chance)}


def _answer(claim: Claim, view: View, collapsed: Set[tuple[str, int]]) -> Answer:
    arms = {name for part in claim.parts for name in (part.names or [NO_NETWORK])}
    have = {(arm, seed) for arm, seed, _ in view.columns}
    seeds = [seed for seed in view.seeds if all((arm, seed) in have for arm in arms)]
    fallen = sorted(run for run in collapsed if run[0] in arms and run[1] in seeds)
    seeds = [seed for seed in seeds if seed not in {run[1] for run in fallen}]
    own = replace(view, seeds=seeds, _cache={})
    words = ", ".join(f"{arm} (seed {seed})" for arm, seed in fallen)
    note = f"left out, as a network collapsed to guessing: {words}" if fallen else ""
    all_of = ", ".join(sorted(arms))
    if not seeds:
        return Answer(claim, own, [], f"not run: {note or f'no seed has all of {all_of}'}")
    try:
        return Answer(claim, own, [statistic(own, part) for part in claim.parts], note=note)
    except (MissingError, InputError) as error:
        return Answer(claim, own, [], f"not run: {error}")


def _row(answer: Answer, corrected: float | None, accuracy: Mapping[tuple[str, int], float]) -> Row:
    claim = answer.claim
    row: Row = {"id": claim.id, "name": claim.name, "claim": claim.claim, "source": claim.source}
    row |= {"prediction": claim.prediction, "unit": claim.parts[0].of_unit, "n_seeds": len(answer.view.seeds)}
    empty = {"effect": None, "p": None, "n_images": None, "seeds_needed": None, "matched": None, "figure": None}
    if answer.missing:
        return {
            **row,
            **empty,
            "verdict": NOT_RUN,
            "sentences": [answer.missing[0].upper() + answer.missing[1:] + "."],
            "parts": [],
        }
    decision = answer.decision
    settled = decision is not None and corrected is not None and corrected < ALPHA
    verdict = decision.verdict if settled and decision is not None else UNDETERMINED
    needed = _needed(answer, corrected) if verdict == UNDETERMINED else None
    matched = [matched_effect(answer.view, part, accuracy) for part in claim.parts]
    row |= {
        "verdict": verdict,
        "effect": answer.found[0].shown.to_dict(),
        "p": corrected,
        # A number of a whole network, such as decibels lost, is no mean over images.
        "n_images": min((found.effect.n_images for found in answer.found if found.effect.n_images > 1), default=None),
        "seeds_needed": needed,
        "matched": None if matched[0] is None else matched[0].to_dict(),
        "parts": [_part_row(found, part, other) for (found, part), other in zip(answer.pairs, matched, strict=True)],
    }
    return {**row, "sentences": _sentences(row, answer), "figure": _figure(answer)}


def _part_row(found: Found, part: Part, matched: Estimate | None) -> Row:
    decision = found.decision
    return {
        "label": str(part),
        "statistic": part.statistic,
        "prediction": str(part.prediction),
        "unit": part.of_unit,
        "effect": found.shown.to_dict(),
        "per_seed": [None if math.isnan(v) else v for v in np.atleast_1d(found.effect.per_seed).tolist()],
        "p_for": decision.p_for,
        "p_against": decision.p_against,
        "verdict": "reported" if part.prediction.sign == "describe" else decision.verdict,
        "matched": None if matched is None else matched.to_dict(),
    }


def _needed(answer: Answer, corrected: float | None) -> int | None:
    """Seeds that would decide all parts that are open, at the level that Holm's correction leaves."""
    raw = answer.decision.p if answer.decision else 1.0
    level = ALPHA * min(1.0, raw / corrected) if corrected else ALPHA
    found = []
    for part_found, part in answer.pairs:
        if part.prediction.sign == "describe" or part_found.decision.p_for < level:
            continue
        found.append(seeds_needed(np.atleast_1d(part_found.effect.per_seed).tolist(), part_found.bounds, alpha=level))
    known = [count for count in found if count is not None]
    if not known or len(known) < len(found):
        return None
    # Images add an error of their own, which seeds do not show; so never fewer than there are and one more.
    return max(*known, len(answer.view.seeds) + 1)


def matched_effect(view: View, part: Part, accuracy: Mapping[tuple[str, int], float]) -> Estimate | None:
    """The number at matched accuracy; None where it is no contrast of variabilities, or accuracies do not overlap."""
    if part.statistic not in MATCHABLE:
        return None
    names = {f"{images}|js" for images in (*part.sets, TYPICAL)}
    levels: dict[str, dict[tuple[str, int], float]] = {name: {} for name in names}
    for (arm, seed, measure), columns in view.columns.items():
        if measure == part.measure:
            for name in names & set(columns):
                levels[name][arm, seed] = float(np.mean(columns[name]))
    of_seeds = {run: value for run, value in accuracy.items() if run[1] in view.seeds}
    matched = Matched(of_seeds, levels, part.names)
    if not matched.possible:
        return None
    shown = statistic(replace(view, matching=matched, _cache={}), part).shown
    return shown if shown.defined else None


def number(estimate: Mapping[str, float | None], unit: str) -> str:
    """``0.31 [0.25, 0.37] bits``."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "undefined"
    return f"{value:.3g} [{low:.3g}, {high:.3g}] {unit}"


def _sentences(row: Row, answer: Answer) -> list[str]:
    parts = [
        f"{part['label']}: {number(part['effect'], part['unit'])}"
        + ("" if part["verdict"] == "reported" else f", predicted {part['prediction']}: {part['verdict']}")
        for part in row["parts"]
    ]
    first = "; ".join(parts) + "."
    seeds, images = row["n_seeds"], row["n_images"]
    second = f"{seeds} seed{'s' * (seeds != 1)}" + ("" if images is None else f", {images:,} images")
    second += "" if row["p"] is None else f"; p = {row['p']:.2g} after Holm's correction"
    if row["matched"] is not None:
        second += f"; at matched accuracy {number(row['matched'], row['unit'])}"
    elif any(part.statistic in MATCHABLE for part in answer.claim.parts[:1]):
        second += "; no comparison at matched accuracy, as the arms do not overlap in it"
    if row["seeds_needed"] is not None:
        second += f"; about {row['seeds_needed']} seeds would decide it (power 80 %)"
    elif row["verdict"] == UNDETERMINED and seeds == 1:
        second += "; one seed says nothing about others"
    second += f"; {answer.note}" if answer.note else ""
    return [first[0].upper() + first[1:], second + "."]


def _figure(answer: Answer) -> Row | None:
    """Curves where a claim is about curves, else its numbers as points with their intervals."""
    first = answer.claim.parts[0]
    curves = [part for part in answer.claim.parts if part.statistic in ("growth", "half_life")]
    if curves:
        return _curves(answer, curves)
    rows = [
        {
            "arm": part.arm or part.names[0] if part.names else str(part.probe),
            "label": str(part),
            "value": found.shown.to_dict(),
        }
        for found, part in answer.pairs
        if part.of_unit == first.of_unit
    ]
    return {"kind": "points", "title": answer.claim.name, "x_label": first.of_unit, "rows": rows, "zero": 0.0}


def _curves(answer: Answer, parts: Sequence[Part]) -> Row:
    series = []
    for part in {(part.arm, part.measure): part for part in parts}.values():
        lengths = [length for length in answer.view.lengths.get(part.measure, ()) if length > 0]
        means = [answer.view.mean(str(part.arm), part.measure, f"{part.sets[0]}|js@{at:g}") for at in lengths]
        series.append({"arm": part.arm, "x": lengths, "y": [mean.estimate().to_dict() for mean in means]})
    axes = {"x_label": "length of the shift (px)", "y_label": "variability (JS, bits)"}
    return {"kind": "lines", "title": answer.claim.name, **axes, "series": series}


__all__ = ["Answer", "answer_claims", "matched_effect", "number", "probe_measure"]
