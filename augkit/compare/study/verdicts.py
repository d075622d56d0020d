"""Evaluate the claims of a study: verdict, effect, sentences and figure of each claim.

The primary part gives the verdict. Its p-value is corrected for the interim analyses that the study declared
(`augkit.compare.study.sequential`) and for the number of tested claims (Holm); the corrected level is 5 %. Checks are
not corrected. Each contrast on typical images is also reported at equal accuracy
(`augkit.compare.study.matched_accuracy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from augkit.compare.study.claim_results import (
    ClaimResult,
    Curve,
    LabeledEstimate,
    LinesFigure,
    PartCount,
    PartResult,
    PointsFigure,
    ScaledEffect,
)
from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Claim, Part
from augkit.compare.study.column_table import ColumnTable, MissingError
from augkit.compare.study.effects import AS_SHARES, CONTRASTS, NO_NETWORK, PartEffect, statistic
from augkit.compare.study.hypothesis_tests import (
    ALPHA,
    FAILS,
    HOLDS,
    NOT_RUN,
    PILOT,
    REPORTED,
    SUPPORTED,
    UNDETERMINED,
    Decision,
    holm,
    p_words,
    seeds_needed,
)
from augkit.compare.study.matched_accuracy import Path, log_ratio_at_equal_accuracy
from augkit.compare.study.planning import below_floor, planned_power
from augkit.compare.study.schema import Study
from augkit.compare.study.sequential import InterimAnalysis
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.learned import DEFAULT
from augkit.invariance.metrics import METRICS

COLLAPSED = 0.2  # share of the best accuracy above chance below which a network has collapsed
EASY = 0.99  # accuracy above which a task is too easy to distinguish arms


@dataclass(frozen=True)
class Evaluation:
    """A claim with the effects of its parts.

    Attributes:
        claim: the claim.
        view: columns of the seeds that are used.
        effects: one effect per part; empty if the claim was not run.
        missing: why the claim was not run; empty if it was.
        note: remarks on the arms.
        low: remarks on arms below the floor of accuracy; with any, the claim is a pilot.
    """

    claim: Claim
    view: ColumnTable
    effects: Sequence[PartEffect]
    missing: str = ""
    note: str = ""
    low: Sequence[str] = ()

    @property
    def decision(self) -> Decision | None:
        """Decision of the primary part; None if nothing was tested."""
        primary = self.claim.primary
        return None if self.missing or primary is None else self.effects[primary].decision

    @property
    def pairs(self) -> list[tuple[PartEffect, Part]]:
        """Pairs of a part and its effect."""
        return list(zip(self.effects, self.claim.parts, strict=True)) if self.effects else []


def evaluate_claims(
    study: Study,
    view: ColumnTable,
    accuracy: Mapping[tuple[str, int], float],
    chance: float = 0.0,
    *,
    interim: InterimAnalysis | None = None,
    paths: Mapping[tuple[str, int], Path] = MappingProxyType({}),
) -> list[ClaimResult]:
    """Evaluate all claims of a study, in the order of the study.

    Args:
        study: the study.
        view: all columns of all seeds.
        accuracy: accuracy of every run on typical images, in [0, 1], by arm and seed.
        chance: accuracy of guessing, one over the number of classes.
        interim: this analysis among the declared ones; None if it is the only one.
        paths: accuracy and variability along training, by arm and seed.
    """
    # A test at a level below 5 % is equivalent to a test at 5 % with a larger p-value.
    factor = ALPHA / interim.level if interim is not None else 1.0
    collapsed = collapses(study, accuracy, chance)
    evaluations = [_evaluate(claim, view, collapsed) for claim in study.claims]
    tested = sum(e.decision is not None for e in evaluations)
    evaluations = [
        replace(
            e,
            note=_notes(e, accuracy, planned_power(e.claim, len(e.view.seeds), tested, interim)),
            low=below_floor(study, e.claim, accuracy, e.view.seeds),
        )
        for e in evaluations
    ]
    p_values = {k: min(1.0, factor * e.decision.p) for k, e in enumerate(evaluations) if e.decision is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    exploratory = interim is not None and interim.exploratory
    return [_claim_result(e, corrected.get(k), paths, exploratory) for k, e in enumerate(evaluations)]


def _notes(evaluation: Evaluation, accuracy: Mapping[tuple[str, int], float], planned: str) -> str:
    """Remarks: the planned power, collapsed networks, and a task that is too easy to distinguish arms."""
    compared = {name for _, part in evaluation.pairs if part.statistic == "accuracy_difference" for name in part.names}
    scores = [accuracy.get((name, seed), 0.0) for name in compared for seed in evaluation.view.seeds]
    easy = min(scores, default=0.0) >= EASY
    easy_task = f"all of these networks answer at least {100 * EASY:.0f} % right, so the task hardly distinguishes them"
    return "; ".join(filter(None, (planned, evaluation.note, easy_task * easy)))


def collapses(study: Study, accuracy: Mapping[tuple[str, int], float], chance: float) -> set[tuple[str, int]]:
    """Collapsed runs, by arm and seed: they hardly learned, and a constant prediction is perfectly invariant.

    Their accuracy above chance is below the share `COLLAPSED` of that of the study's best run.
    """
    known = {run: value for run, value in accuracy.items() if run[0] in study.arms}
    own = {run: value for run, value in known.items() if study.arms[run[0]].task == "classify"}
    best = max(own.values(), default=chance)
    return {run for run, value in own.items() if value - chance < COLLAPSED * (best - chance)}


def _evaluate(claim: Claim, view: ColumnTable, collapsed: Set[tuple[str, int]]) -> Evaluation:
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
        return Evaluation(claim, own, [], f"not run: {note or f'no seed has all of {all_of}'}")
    try:
        return Evaluation(claim, own, [statistic(own, part) for part in claim.parts], note=note)
    except (MissingError, InputError) as error:
        return Evaluation(claim, own, [], f"not run: {error}")


def _claim_result(
    evaluation: Evaluation, corrected: float | None, paths: Mapping[tuple[str, int], Path], exploratory: bool
) -> ClaimResult:
    claim = evaluation.claim
    primary = claim.primary or 0
    missing = evaluation.missing
    result = ClaimResult(
        id=claim.id,
        name=claim.name,
        claim=claim.claim,
        source=claim.source,
        prediction=claim.prediction,
        unit=claim.parts[primary].of_unit,
        n_seeds=len(evaluation.view.seeds),
        check=claim.is_check,
        primary=primary,
        exploratory=exploratory,
        verdict=NOT_RUN,
        sentences=(f"{missing[:1].upper()}{missing[1:]}.",),
    )
    if missing:
        return result
    parts = tuple(_part_result(effect, part, evaluation.view, paths) for effect, part in evaluation.pairs)
    verdict = _verdict(evaluation, corrected, parts)
    counted = [part for part in parts if part.verdict != REPORTED]
    result = replace(
        result,
        verdict=verdict,
        effect=parts[primary].effect,
        p=corrected,
        # A number of a whole network, such as a loss in dB, is not a mean over images.
        n_images=min((e.effect.n_images for e in evaluation.effects if e.effect.n_images > 1), default=None),
        seeds_needed=_seeds_needed(evaluation, corrected) if verdict == UNDETERMINED else None,
        matched=parts[primary].matched,
        parts=parts,
        held=PartCount(sum(part.verdict in (SUPPORTED, HOLDS) for part in counted), len(counted)),
    )
    note = "; ".join(filter(None, ("; ".join(evaluation.low), evaluation.note)))
    return replace(result, sentences=_sentences(result, note), figure=_figure(evaluation))


def _verdict(evaluation: Evaluation, corrected: float | None, parts: Sequence[PartResult]) -> str:
    """Verdict of the primary part after correction; for a check, whether all its parts hold.

    Networks that are less accurate than their data allow decide nothing, so a claim about them is a pilot.
    """
    if evaluation.claim.is_check:
        return FAILS if any(part.verdict == FAILS for part in parts) else HOLDS
    if evaluation.low:
        return PILOT
    decision = evaluation.decision
    settled = decision is not None and corrected is not None and corrected < ALPHA
    return decision.verdict if settled and decision is not None else UNDETERMINED


def _part_result(found: PartEffect, part: Part, view: ColumnTable, paths: Mapping[tuple[str, int], Path]) -> PartResult:
    decision, verdict = found.decision, found.decision.verdict
    if part.prediction.sign == "describe":
        verdict = REPORTED
    elif part.check:  # an identity must hold for every network
        low, high = found.bounds
        values = np.atleast_1d(found.effect.per_seed)
        verdict = HOLDS if bool(((low <= values) & (values <= high)).all()) else FAILS
    error, freedom = found.effect.replicates.error()
    matched = at_equal_accuracy(view, part, paths)
    return PartResult(
        label=str(part),
        statistic=part.statistic,
        prediction=str(part.prediction),
        unit=part.of_unit,
        effect=found.shown,
        tested=ScaledEffect(found.effect.replicates.value, error, freedom),
        bounds=list(found.bounds),
        per_seed=[None if math.isnan(v) else v for v in np.atleast_1d(found.effect.per_seed).tolist()],
        p_for=decision.p_for,
        p_against=decision.p_against,
        verdict=verdict,
        dissent=list(found.dissent),
        reason=found.reason or None,
        matched=matched,
    )


def _seeds_needed(evaluation: Evaluation, corrected: float | None) -> int | None:
    """Number of seeds that would decide the primary part at the corrected level, with the same arms and images."""
    primary = evaluation.claim.primary
    if primary is None or evaluation.effects[primary].dissent:
        return None
    found, raw = evaluation.effects[primary], evaluation.effects[primary].decision.p
    level, known = ALPHA * min(1.0, raw / corrected) if corrected else ALPHA, found.effect.replicates
    if known.seeds < 2:
        return None
    count = seeds_needed(known.value, known.error_with, found.bounds, alpha=level)
    # A power of 80 % can be reached by chance with the present number, as it was not reached by these seeds.
    return None if count is None else max(count, len(evaluation.view.seeds) + 1)


def at_equal_accuracy(view: ColumnTable, part: Part, paths: Mapping[tuple[str, int], Path]) -> Estimate | None:
    """A contrast at equal accuracy of both networks; None for other statistics and for atypical images."""
    same = part.measure == DEFAULT_MEASURE and part.sets == [TYPICAL] and part.metric == DEFAULT
    if part.statistic not in CONTRASTS or part.arm is None or not same:
        return None
    found = log_ratio_at_equal_accuracy(paths, str(part.arm), str(part.control), view.seeds)
    if found is None or part.statistic not in AS_SHARES:
        return found
    return Estimate(*(1 - math.exp(bound) for bound in (found.value, found.high, found.low)))


def number(estimate: Estimate, unit: str) -> str:
    """Value, interval and unit as text, such as ``0.31 [0.25, 0.37] bits``."""
    if not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        return "undefined"
    return f"{estimate:.3g} {unit}"


def _sentences(result: ClaimResult, note: str) -> tuple[str, str]:
    marked = len(result.parts) > 1 and not result.check
    parts = [_part_words(part, marked and k == result.primary) for k, part in enumerate(result.parts)]
    first = "; ".join(parts)
    return first[0].upper() + first[1:] + ".", "; ".join(_facts(result, note)) + "."


def _facts(result: ClaimResult, note: str) -> list[str]:
    """Sentence on seeds, images, corrections and remarks."""
    seeds, images = result.n_seeds, result.n_images
    out = [f"{seeds} seed{'s' * (seeds != 1)}" + ("" if images is None else f", {images:,} images")]
    if result.held is not None and result.held.of > 1:
        out.append(f"{result.held.parts} of {result.held.of} parts hold")
    if result.p is not None:
        out.append(f"{p_words(result.p)} after correction for all claims")
    if result.matched is not None:
        out.append(f"at equal accuracy {number(result.matched, result.unit)}")
    if result.seeds_needed is not None:
        out.append(f"about {result.seeds_needed} seeds would decide it (power 80 %)")
    elif result.verdict == UNDETERMINED and seeds == 1:
        out.append("one seed does not show the spread between seeds")
    elif result.verdict == UNDETERMINED and _more_seeds_would_not_do(result):
        out.append("more seeds alone would not decide it, but other arms or more images might")
    if result.exploratory:
        out.append("exploratory, because an analysis was made that was not declared")
    return out + [note] * bool(note)


def _more_seeds_would_not_do(result: ClaimResult) -> bool:
    """Whether the primary part has an effect, and no number of seeds would decide it."""
    if result.primary is None:
        return False
    part = result.parts[result.primary]
    return not part.dissent and math.isfinite(part.effect.value)


def _part_words(part: PartResult, primary: bool) -> str:
    words = f"{part.label}{' (primary)' * primary}: {number(part.effect, part.unit)}"
    if part.reason:
        words += f" ({part.reason})"
    if part.dissent:
        words += f", disputed by {' and '.join(METRICS[name].brief for name in part.dissent)}"
    return words if part.verdict == REPORTED else f"{words}, predicted {part.prediction}: {part.verdict}"


def _figure(evaluation: Evaluation) -> PointsFigure | LinesFigure:
    """The response curves if a part is about them, else the effects of all parts as points with intervals."""
    claim = evaluation.claim
    first = claim.parts[claim.primary or 0]
    curves = [part for part in claim.parts if part.statistic in ("growth", "half_life")]
    if curves:
        series = _curves(evaluation.view, curves)
        return LinesFigure("lines", claim.name, "length of the shift (px)", "variability", series)
    rows = [
        LabeledEstimate(part.arm or part.names[0] if part.names else str(part.probe), str(part), found.shown)
        for found, part in evaluation.pairs
        if part.of_unit == first.of_unit
    ]
    return PointsFigure("points", claim.name, first.of_unit, rows, zero=0.0)


def _curves(view: ColumnTable, parts: Sequence[Part]) -> list[Curve]:
    series = []
    for part in {(part.arm, part.measure): part for part in parts}.values():
        lengths = view.lengths_of(part.measure)
        of_arm = (str(part.arm), part.measure, part.sets[0], part.metric)
        series.append(Curve(part.arm, lengths, [view.variability(*of_arm, at).estimate() for at in lengths]))
    return series
