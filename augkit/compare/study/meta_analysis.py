"""Random-effects meta-analysis: the mean effect of each part of a claim over studies on several data sets.

If a claim is supported on one data set and undetermined on another, this does not show that the data sets differ;
the effects must be compared. Effects are combined on the scale of the test, with a variance between data sets
(DerSimonian & Laird 1986, Meta-analysis in clinical trials) and the interval of Hartung & Knapp 2001 (A refined method
for the meta-analysis of controlled clinical trials), which holds for few data sets. Heterogeneity is given by
I squared, the share of the variance that lies between data sets (Higgins & Thompson 2002).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.compare.study.claim_results import ScaledEffect
from augkit.compare.study.effects import AS_SHARES
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import LEVEL, UNDEFINED, Estimate


@dataclass(frozen=True)
class FinishedPart:
    """Result of a finished study for one part of a claim.

    Attributes:
        claim, label: id of the claim and label of the part.
        statistic, unit: as in `augkit.compare.study.claim_results.PartResult`.
        effect: effect with its interval.
        tested: effect on the scale of the test; None in results of earlier versions.
        seeds: number of seeds with a defined effect.
    """

    claim: str
    label: str
    statistic: str
    unit: str
    effect: Estimate
    tested: ScaledEffect | None
    seeds: int


@dataclass(frozen=True)
class FinishedStudy:
    """The parts of a finished study, and the variability with which they were measured."""

    measured_with: str
    parts: tuple[FinishedPart, ...]

    @classmethod
    def from_json(cls, results: Mapping[str, Any]) -> FinishedStudy:
        """Read the content of ``results.json``, also that of earlier versions.

        Raises:
            KeyError, TypeError: the content is not that of a study.
        """
        parts = [_part(str(claim["id"]), part) for claim in results["claims"] for part in claim["parts"]]
        return cls(results.get("measured_with", "js"), tuple(parts))


def _part(claim: str, part: Mapping[str, Any]) -> FinishedPart:
    tested = part.get("tested")
    return FinishedPart(
        claim,
        part["label"],
        part["statistic"],
        part["unit"],
        Estimate(*(_number(part["effect"][key]) for key in ("value", "low", "high"))),
        None if tested is None else ScaledEffect(*(_number(tested[key]) for key in ("value", "error", "freedom"))),
        sum(value is not None for value in part.get("per_seed") or ()),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class CombinedEffect:
    """The effect of one part of a claim over studies.

    Attributes:
        claim, part: id of the claim and label of its part.
        unit: unit of the effects.
        effects: effect by study.
        whole: mean effect over data sets.
        between: I squared, the share of the variance that is between data sets, in [0, 1].
    """

    claim: str
    part: str
    unit: str
    effects: dict[str, Estimate]
    whole: Estimate
    between: float

    def to_dict(self) -> dict[str, object]:
        """The effect as plain data for JSON."""
        effects = {name: effect.to_dict() for name, effect in self.effects.items()}
        numbers = {"whole": self.whole.to_dict(), "between": self.between if math.isfinite(self.between) else None}
        return {"claim": self.claim, "part": self.part, "unit": self.unit, "effects": effects, **numbers}


def combine_studies(studies: Mapping[str, FinishedStudy]) -> list[CombinedEffect]:
    """Combine the effects of all parts that at least two studies have, in the order of the first study.

    Args:
        studies: finished studies by name, from `load_results`.

    Raises:
        InputError: the studies used different variabilities, or have no common part.
    """
    measures = {name: study.measured_with for name, study in studies.items()}
    if len(set(measures.values())) > 1:
        listed = ", ".join(f"{name} with {metric}" for name, metric in measures.items())
        raise InputError(f"across: expected studies measured with the same variability, got {listed}")
    found: dict[tuple[str, str, int], dict[str, FinishedPart]] = {}
    for name, study in studies.items():
        seen = Counter[tuple[str, str]]()
        for part in study.parts:
            label = part.claim, part.label
            # Parts without a label of their own may share one: the first is that of the other studies, and so on.
            found.setdefault((*label, seen[label]), {})[name] = part
            seen[label] += 1
    lines = [_line(parts) for parts in found.values() if len(parts) > 1]
    if not lines:
        raise InputError("across: expected results of two studies or more with parts of claims in common, got none")
    return lines


def load_results(paths: Sequence[Path]) -> dict[str, FinishedStudy]:
    """Load finished studies from folders or ``results.json`` files, by the name of folder or file.

    Raises:
        InputError: a file is missing or is not that of a study, or two studies have the same name.
    """
    out: dict[str, FinishedStudy] = {}
    for path in paths:
        file = path / "results.json" if path.is_dir() else path
        try:
            study = FinishedStudy.from_json(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            missing = "there is no such file" + ("; is the study finished?" if path.is_dir() else "")
            raise InputError(f"results '{file}': expected results.json of a study, {missing}") from None
        except OSError as error:
            raise InputError(f"results '{file}': cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"results '{file}': expected results.json of a study, got another file") from None
        name = file.parent.name if file.name == "results.json" else file.stem
        if name in out:
            raise InputError(f"across: expected studies of different names, got '{name}' twice")
        out[name] = study
    return out


def pooled(values: Sequence[float], errors: Sequence[float]) -> tuple[Estimate, float]:
    """Random-effects mean and I squared of effects with standard errors; undefined for fewer than two effects.

    >>> mean, between = pooled([1.0, 1.0, 1.0], [0.1, 0.2, 0.1])
    >>> round(mean.value, 6), between
    (1.0, 0.0)
    """
    y, se = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    count = len(y)
    if count < 2:
        return UNDEFINED, math.nan
    # In units of the largest number, to avoid overflow with exact effects that have rounding errors.
    size = max(float(np.abs(y).max()), float(se.max())) or 1.0
    y, se = y / size, np.maximum(se / size, 1e-6)
    fixed = 1 / se**2
    q = float((fixed * (y - np.average(y, weights=fixed)) ** 2).sum())
    scale = float(fixed.sum() - (fixed**2).sum() / fixed.sum())
    tau2 = max(0.0, (q - (count - 1)) / scale)
    weight = 1 / (se**2 + tau2)
    mean = float(np.average(y, weights=weight))
    # The error is at least that of the unadjusted formula, because studies may agree by chance.
    spread = max(1.0, float((weight * (y - mean) ** 2).sum()) / (count - 1))
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * math.sqrt(spread / float(weight.sum()))
    between = max(0.0, (q - (count - 1)) / q) if q > 0 else 0.0
    return Estimate(*(size * bound for bound in (mean, mean - half, mean + half))), between


def _line(parts: Mapping[str, FinishedPart]) -> CombinedEffect:
    first = next(iter(parts.values()))
    share = first.statistic in AS_SHARES
    tested = [_tested(part, share) for part in parts.values()]
    known = [pair for pair in tested if pair is not None]
    whole, between = pooled([value for value, _ in known], [error for _, error in known])
    if share and whole.defined:
        whole = Estimate(*(1 - math.exp(-bound) for bound in (whole.value, whole.low, whole.high)))
    effects = {name: part.effect for name, part in parts.items()}
    return CombinedEffect(first.claim, first.label, first.unit, effects, whole, between)


def _tested(part: FinishedPart, share: bool) -> tuple[float, float] | None:
    """Effect and standard error on the scale of the test; computed from the interval in results that lack them."""
    if part.tested is not None:
        known = math.isfinite(part.tested.value) and math.isfinite(part.tested.error)
        return (part.tested.value, part.tested.error) if known else None
    ends = (part.effect.value, part.effect.low, part.effect.high)
    if not all(map(math.isfinite, ends)) or (share and max(ends) >= 1):
        return None
    value, low, high = (-math.log(1 - end) if share else end for end in ends)
    from scipy.stats import t

    return value, (high - low) / (2 * float(t.ppf((1 + LEVEL) / 2, max(1, part.seeds - 1))))


def in_words(lines: Sequence[CombinedEffect]) -> str:
    """Text for the terminal: one line per part, followed by the effect of every study."""
    out = []
    for line in lines:
        between = (
            "" if not math.isfinite(line.between) else f"; {100 * line.between:.0f} % of the variance between them"
        )
        out.append(f"{line.claim}. {line.part}: {line.whole:.3g} {line.unit}{between}")
        out += [f"     {name}: {effect:.3g}" for name, effect in line.effects.items()]
    return "\n".join(out)
