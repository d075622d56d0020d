"""Random-effects meta-analysis: the mean effect of each part of a claim over studies on several data sets.

A claim that is supported on one data set and undetermined on another does not show that the data sets differ; that
takes a comparison of the effects. Effects are combined on the scale of the test, with a variance between data sets
(DerSimonian & Laird 1986, Meta-analysis in clinical trials) and the interval of Hartung & Knapp 2001 (A refined method
for the meta-analysis of controlled clinical trials), which holds for few data sets. Heterogeneity is given by
I squared, the share of the variance that lies between data sets (Higgins & Thompson 2002).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.compare.study.effects import AS_SHARES
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import LEVEL, UNDEFINED, Estimate


@dataclass(frozen=True)
class CombinedEffect:
    """The effect of one part of a claim over studies.

    Attributes:
        claim, part: id of the claim and label of its part.
        unit: of the effects.
        effects: by study.
        whole: mean effect over data sets.
        between: I squared, the share of the variance that lies between data sets, in [0, 1].
    """

    claim: str
    part: str
    unit: str
    effects: dict[str, Estimate]
    whole: Estimate
    between: float

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        effects = {name: effect.to_dict() for name, effect in self.effects.items()}
        numbers = {"whole": self.whole.to_dict(), "between": self.between if math.isfinite(self.between) else None}
        return {"claim": self.claim, "part": self.part, "unit": self.unit, "effects": effects, **numbers}


def combine_studies(studies: Mapping[str, Mapping[str, Any]]) -> list[CombinedEffect]:
    """Combine the effects of all parts that two or more studies have, in the order of the first study.

    Args:
        studies: content of ``results.json`` by the name of the study.

    Raises:
        InputError: studies measured with different variabilities, or without a common part.
    """
    measures = {name: results.get("measured_with", "js") for name, results in studies.items()}
    if len(set(measures.values())) > 1:
        listed = ", ".join(f"{name} with {metric}" for name, metric in measures.items())
        raise InputError(f"across: expected studies measured with the same variability, got {listed}")
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for name, results in studies.items():
        for claim in results["claims"]:
            for part in claim["parts"]:
                found.setdefault((str(claim["id"]), part["label"]), {})[name] = part
    lines = [_line(*key, parts) for key, parts in found.items() if len(parts) > 1]
    if not lines:
        raise InputError("across: expected results of two studies or more with parts of claims in common, got none")
    return lines


def load_results(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """``results.json`` of studies, or their folders, by the name of file or folder.

    Raises:
        InputError: a file that no study wrote; two studies of one name.
    """
    out: dict[str, dict[str, Any]] = {}
    for path in paths:
        file = path / "results.json" if path.is_dir() else path
        try:
            results = json.loads(file.read_text())
            known = all("parts" in claim for claim in results["claims"])
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise InputError(f"'{file}': expected results.json of a study")
        name = file.parent.name if file.name == "results.json" else file.stem
        if name in out:
            raise InputError(f"across: expected studies of different names, got '{name}' twice")
        out[name] = results
    return out


def pooled(values: Sequence[float], errors: Sequence[float]) -> tuple[Estimate, float]:
    """Random-effects mean of effects with their standard errors, and I squared; undefined for fewer than two.

    >>> mean, between = pooled([1.0, 1.0, 1.0], [0.1, 0.2, 0.1])
    >>> round(mean.value, 6), between
    (1.0, 0.0)
    """
    y, se = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    count = len(y)
    if count < 2:
        return UNDEFINED, math.nan
    # In units of the largest number, so that exact effects with rounding errors do not overflow.
    size = max(float(np.abs(y).max()), float(se.max())) or 1.0
    y, se = y / size, np.maximum(se / size, 1e-6)
    fixed = 1 / se**2
    q = float((fixed * (y - np.average(y, weights=fixed)) ** 2).sum())
    scale = float(fixed.sum() - (fixed**2).sum() / fixed.sum())
    tau2 = max(0.0, (q - (count - 1)) / scale)
    weight = 1 / (se**2 + tau2)
    mean = float(np.average(y, weights=weight))
    # Never narrower than the plain formula, as studies may agree by chance.
    spread = max(1.0, float((weight * (y - mean) ** 2).sum()) / (count - 1))
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * math.sqrt(spread / float(weight.sum()))
    between = max(0.0, (q - (count - 1)) / q) if q > 0 else 0.0
    return Estimate(*(size * bound for bound in (mean, mean - half, mean + half))), between


def _line(claim: str, label: str, parts: Mapping[str, Mapping[str, Any]]) -> CombinedEffect:
    first = next(iter(parts.values()))
    share = first["statistic"] in AS_SHARES
    tested = {name: _tested(part, share) for name, part in parts.items()}
    known = [pair for pair in tested.values() if pair is not None]
    whole, between = pooled([value for value, _ in known], [error for _, error in known])
    if share and whole.defined:
        whole = Estimate(*(1 - math.exp(-bound) for bound in (whole.value, whole.low, whole.high)))
    effects = {
        name: Estimate(*(math.nan if part["effect"][key] is None else part["effect"][key] for key in vars(UNDEFINED)))
        for name, part in parts.items()
    }
    return CombinedEffect(claim, label, first["unit"], effects, whole, between)


def _tested(part: Mapping[str, Any], share: bool) -> tuple[float, float] | None:
    """The effect and its standard error on the scale of the test; from the interval in results that lack them."""
    tested = part.get("tested")
    if tested is not None:
        known = tested["value"] is not None and tested["error"] is not None
        return (float(tested["value"]), float(tested["error"])) if known else None
    ends = [part["effect"][key] for key in ("value", "low", "high")]
    if any(end is None for end in ends) or (share and max(ends) >= 1):
        return None
    value, low, high = (-math.log(1 - end) if share else float(end) for end in ends)
    from scipy.stats import t

    seeds = sum(v is not None for v in part.get("per_seed") or ())
    return value, (high - low) / (2 * float(t.ppf((1 + LEVEL) / 2, max(1, seeds - 1))))


def in_words(lines: Sequence[CombinedEffect]) -> str:
    """Text for a terminal: one line per part, with the effect of every study below it."""
    out = []
    for line in lines:
        between = (
            "" if not math.isfinite(line.between) else f"; {100 * line.between:.0f} % of the variance between them"
        )
        out.append(f"{line.claim}. {line.part}: {line.whole:.3g} {line.unit}{between}")
        out += [f"     {name}: {effect:.3g}" for name, effect in line.effects.items()]
    return "\n".join(out)
