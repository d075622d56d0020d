"""What a study states before it runs: the accuracy that networks must reach, and the effects it was planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.compare.study.claims import Claim
from augkit.compare.study.effects import log_share
from augkit.compare.study.hypothesis_tests import ALPHA, power
from augkit.compare.study.schema import Study, floor_of
from augkit.compare.study.sequential import InterimAnalysis, levels


def below_floor(
    study: Study, claim: Claim, accuracy: Mapping[tuple[str, int], float], seeds: Sequence[int]
) -> list[str]:
    """Remarks on the arms of a claim whose mean accuracy over ``seeds`` is below the study's floor.

    Checks hold for every network, trained or not, so they have no floor.

    Args:
        study: the study with its floors.
        claim: the claim.
        accuracy: accuracy of every run on typical images, in [0, 1], by arm and seed.
        seeds: the seeds that are compared.
    """
    found = []
    for name in [] if claim.is_check else dict.fromkeys(name for part in claim.parts for name in part.names):
        arm = study.arms[name]
        values = [accuracy[name, seed] for seed in seeds if (name, seed) in accuracy]
        floor = floor_of(study.settings, arm.recipe.data.name) if arm.floor and arm.task == "classify" else 0.0
        mean = sum(values) / len(values) if values else 1.0
        if mean < floor:
            # With as many digits as it takes to be seen below.
            digits = next((d for d in range(1, 6) if round(100 * mean, d) < 100 * floor), 6)
            found.append(f"{name} answers {mean:.{digits}%} right, below the floor of {floor:.0%}")
    return found


def planned_power(claim: Claim, seeds: int, tested: int, interim: InterimAnalysis | None = None) -> str:
    """Sentence on the power of the primary part for the effect that the study was planned for; empty without one.

    Args:
        claim: the claim.
        seeds: number of seeds of this analysis.
        tested: number of tested claims. The level is divided by it, as Holm's first step does, so the power is at
            least this.
        interim: this analysis among the declared ones; None if it is the only one. The last one's power is added.
    """
    part = None if claim.primary is None else claim.parts[claim.primary]
    if part is None or part.expected is None or seeds < 2:
        return ""
    looks = {seeds: ALPHA if interim is None else interim.level}
    if interim is not None and len(interim.declared) > 1 and seeds < interim.declared[-1]:
        looks[interim.declared[-1]] = levels(interim.declared, interim.rule)[-1]
    bounds = part.prediction.bounds
    if part.statistic in ("learned_invariance", "architectural_invariance"):
        bounds = (log_share(bounds[0]), log_share(bounds[1]))
    planned, found = part.expected, []
    for count, level in looks.items():
        share = power(planned.value, planned.spread, count, bounds, level / max(1, tested))
        found.append(f"{count} seeds have a power of {share:.0%}")
    effect = f"{planned.value:g} with a spread of {planned.spread:g} between seeds"
    return f"planned for {effect}, for which {' and '.join(found)}"
