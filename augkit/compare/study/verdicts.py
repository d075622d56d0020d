"""Each claim of a study answered: verdict, number, sentences and figure, for JSON.

The verdict is that of the primary part. p-values are corrected for the looks that the study declared
(`augkit.compare.study.sequential`) and for the number of claims that were tested (Holm); a verdict holds at 5 % after
that. Checks are outside of both. Beside each contrast on typical images stands the same at equal accuracy
(`augkit.compare.study.matched_accuracy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Claim, Part
from augkit.compare.study.effects import (
    AS_SHARES,
    CONTRASTS,
    NO_NETWORK,
    ColumnTable,
    Found,
    MissingError,
    probe_measure,
    statistic,
)
from augkit.compare.study.hypothesis_tests import (
    ALPHA,
    FAILS,
    HOLDS,
    NOT_RUN,
    SUPPORTED,
    UNDETERMINED,
    Decision,
    holm,
    p_words,
    seeds_needed,
)
from augkit.compare.study.matched_accuracy import Path, log_ratio_at_equal_accuracy
from augkit.compare.study.schema import Study
from augkit.compare.study.sequential import Look
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.learned import DEFAULT
from augkit.invariance.metrics import METRICS

COLLAPSED = 0.2  # of the best accuracy above chance
EASY = 0.99  # accuracy of all arms of a task that is no test
Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A claim with what was found of each part; ``missing`` says why nothing was."""

    claim: Claim
    view: ColumnTable
    found: Sequence[Found]
    missing: str = ""
    note: str = ""

    @property
    def decision(self) -> Decision | None:
        """Of the primary part; None where nothing was tested."""
        primary = self.claim.primary
        return None if self.missing or primary is None else self.found[primary].decision

    @property
    def pairs(self) -> list[tuple[Found, Part]]:
        """Each part with what was found."""
        return list(zip(self.found, self.claim.parts, strict=True)) if self.found else []


def answer_claims(
    study: Study,
    view: ColumnTable,
    accuracy: Mapping[tuple[str, int], float],
    chance: float = 0.0,
    *,
    look: Look | None = None,
    paths: Mapping[tuple[str, int], Path] = MappingProxyType({}),
) -> list[Row]:
    """All claims of a study, in its order.

    Args:
        study: its claims.
        view: all columns, and all seeds.
        accuracy: of every run on typical images, by arm and seed.
        chance: accuracy of a network that guesses, one over the number of classes.
        look: where the study stands among its declared looks; the only one when None.
        paths: accuracy and variability along training, by arm and seed.
    """
    # A level below 5 % is a larger p at 5 %.
    strict = ALPHA / look.level if look is not None else 1.0
    collapsed = collapses(study, accuracy, chance)
    answers = [_answer(claim, view, collapsed) for claim in study.claims]
    answers = [replace(answer, note=_notes(answer, accuracy)) for answer in answers]
    tested = [answer for answer in answers if answer.decision is not None]
    p_values = [min(1.0, strict * a.decision.p) for a in tested if a.decision]
    corrected = dict(zip([id(a) for a in tested], holm(p_values), strict=True))
    return [_row(answer, corrected.get(id(answer)), paths, look) for answer in answers]


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


def _answer(claim: Claim, view: ColumnTable, collapsed: Set[tuple[str, int]]) -> Answer:
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


def _row(answer: Answer, corrected: float | None, paths: Mapping[tuple[str, int], Path], look: Look | None) -> Row:
    claim = answer.claim
    primary = claim.primary or 0
    row: Row = {"id": claim.id, "name": claim.name, "claim": claim.claim, "source": claim.source}
    row |= {"prediction": claim.prediction, "unit": claim.parts[primary].of_unit, "n_seeds": len(answer.view.seeds)}
    row |= {"check": claim.is_check, "primary": primary, "exploratory": look is not None and look.exploratory}
    empty = {"effect": None, "p": None, "n_images": None, "seeds_needed": None, "matched": None, "figure": None}
    if answer.missing:
        said = [answer.missing[0].upper() + answer.missing[1:] + "."]
        return {**row, **empty, "verdict": NOT_RUN, "sentences": said, "parts": [], "held": None}
    parts = [_part_row(found, part, answer.view, paths) for found, part in answer.pairs]
    verdict = _verdict(answer, corrected, parts)
    counted = [part for part in parts if part["verdict"] != "reported"]
    row |= {
        "verdict": verdict,
        "effect": parts[primary]["effect"],
        "p": corrected,
        # A number of a whole network, such as decibels lost, is no mean over images.
        "n_images": min((found.effect.n_images for found in answer.found if found.effect.n_images > 1), default=None),
        "seeds_needed": _needed(answer, corrected) if verdict == UNDETERMINED else None,
        "matched": parts[primary]["matched"],
        "parts": parts,
        "held": {"parts": sum(p["verdict"] in (SUPPORTED, HOLDS) for p in counted), "of": len(counted)},
    }
    return {**row, "sentences": _sentences(row, answer), "figure": _figure(answer)}


def _verdict(answer: Answer, corrected: float | None, parts: Sequence[Row]) -> str:
    """That of the primary part after correction; of a check, whether all of it holds."""
    if answer.claim.is_check:
        return FAILS if any(part["verdict"] == FAILS for part in parts) else HOLDS
    decision = answer.decision
    settled = decision is not None and corrected is not None and corrected < ALPHA
    return decision.verdict if settled and decision is not None else UNDETERMINED


def _part_row(found: Found, part: Part, view: ColumnTable, paths: Mapping[tuple[str, int], Path]) -> Row:
    decision, verdict = found.decision, found.decision.verdict
    if part.prediction.sign == "describe":
        verdict = "reported"
    elif part.check:  # an identity holds of every network
        low, high = found.bounds
        values = np.atleast_1d(found.effect.per_seed)
        verdict = HOLDS if bool(((low <= values) & (values <= high)).all()) else FAILS
    error, freedom = found.effect.replicates.error()
    matched = at_equal_accuracy(view, part, paths)
    return {
        "label": str(part),
        "statistic": part.statistic,
        "prediction": str(part.prediction),
        "unit": part.of_unit,
        "effect": found.shown.to_dict(),
        "tested": {"value": found.effect.replicates.value, "error": error, "freedom": freedom},
        "bounds": list(found.bounds),
        "per_seed": [None if math.isnan(v) else v for v in np.atleast_1d(found.effect.per_seed).tolist()],
        "p_for": decision.p_for,
        "p_against": decision.p_against,
        "verdict": verdict,
        "dissent": list(found.dissent),
        "reason": found.reason or None,
        "matched": None if matched is None else matched.to_dict(),
    }


def _needed(answer: Answer, corrected: float | None) -> int | None:
    """Seeds that would decide the primary part, at the level that the corrections leave."""
    primary = answer.claim.primary
    if primary is None or answer.found[primary].dissent:
        return None
    found, raw = answer.found[primary], answer.found[primary].decision.p
    level = ALPHA * min(1.0, raw / corrected) if corrected else ALPHA
    count = seeds_needed(np.atleast_1d(found.effect.per_seed).tolist(), found.bounds, alpha=level)
    # Images add an error of their own, which seeds do not show; so never fewer than there are and one more.
    return None if count is None else max(count, len(answer.view.seeds) + 1)


def at_equal_accuracy(view: ColumnTable, part: Part, paths: Mapping[tuple[str, int], Path]) -> Estimate | None:
    """A contrast on typical images where both networks are equally accurate; None where that says nothing."""
    same = part.measure == DEFAULT_MEASURE and part.sets == [TYPICAL] and part.metric == DEFAULT
    if part.statistic not in CONTRASTS or not same:
        return None
    found = log_ratio_at_equal_accuracy(paths, str(part.arm), str(part.control), view.seeds)
    if found is None or part.statistic not in AS_SHARES:
        return found
    return Estimate(*(1 - math.exp(bound) for bound in (found.value, found.high, found.low)))


def number(estimate: Mapping[str, float | None], unit: str) -> str:
    """``0.31 [0.25, 0.37] bits``."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "undefined"
    return f"{value:.3g} [{low:.3g}, {high:.3g}] {unit}"


def _sentences(row: Row, answer: Answer) -> list[str]:
    first = (
        "; ".join(
            _part_words(part, len(row["parts"]) > 1 and k == row["primary"] and not row["check"])
            for k, part in enumerate(row["parts"])
        )
        + "."
    )
    seeds, images = row["n_seeds"], row["n_images"]
    second = f"{seeds} seed{'s' * (seeds != 1)}" + ("" if images is None else f", {images:,} images")
    if row["held"]["of"] > 1:
        second += f"; {row['held']['parts']} of {row['held']['of']} parts hold"
    second += "" if row["p"] is None else f"; {p_words(row['p'])} after correction for all claims"
    if row["matched"] is not None:
        second += f"; at equal accuracy {number(row['matched'], row['unit'])}"
    if row["seeds_needed"] is not None:
        second += f"; about {row['seeds_needed']} seeds would decide it (power 80 %)"
    elif row["verdict"] == UNDETERMINED and seeds == 1:
        second += "; one seed says nothing about others"
    second += "; exploratory, as the study was looked at when that was not declared" if row["exploratory"] else ""
    second += f"; {answer.note}" if answer.note else ""
    return [first[0].upper() + first[1:], second + "."]


def _part_words(part: Row, primary: bool) -> str:
    words = f"{part['label']}{' (primary)' * primary}: {number(part['effect'], part['unit'])}"
    if part["reason"]:
        words += f" ({part['reason']})"
    if part["dissent"]:
        words += f", disputed by {' and '.join(METRICS[name].brief for name in part['dissent'])}"
    return words if part["verdict"] == "reported" else f"{words}, predicted {part['prediction']}: {part['verdict']}"


def _figure(answer: Answer) -> Row | None:
    """Curves where a claim is about curves, else its numbers as points with their intervals."""
    first = answer.claim.parts[answer.claim.primary or 0]
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
        of_arm = (str(part.arm), part.measure, part.sets[0], part.metric)
        means = [answer.view.variability(*of_arm, at) for at in lengths]
        series.append({"arm": part.arm, "x": lengths, "y": [mean.estimate().to_dict() for mean in means]})
    axes = {"x_label": "length of the shift (px)", "y_label": "variability"}
    return {"kind": "lines", "title": answer.claim.name, **axes, "series": series}


__all__ = ["Answer", "answer_claims", "at_equal_accuracy", "number", "probe_measure"]
