"""A scientific claim as data: its source, its statistics, and its predictions.

A claim has one or more parts; a part is a statistic of some arms with a prediction. The primary part (the primary
endpoint) gives the claim its verdict; for the other parts, the number that hold is reported. A part that is a *check*
is an identity, which holds by construction: it is tested but does not affect a verdict. `STATISTICS` lists the
statistics with their units; `augkit.compare.study.effects` computes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkit.core.errors import InputError, unknown_name
from augkit.core.schema import Data
from augkit.invariance.learned import DEFAULT, VARIABILITIES
from augkit.invariance.metrics import METRICS

TYPICAL = "typical"
DEFAULT_MEASURE = "shift"
PAIR = ("arm", "control")
FOUR = ("arm", "control", "beside", "beside_control")


FROM = ("from_arms", "from_controls", "from_groups")


@dataclass(frozen=True)
class Statistic:
    """Unit of a statistic, and the fields that a part with this statistic must or may have."""

    unit: str
    needs: tuple[str, ...]
    allows: tuple[str, ...] = ()


_V = ("metric", "measure", "images")
STATISTICS: dict[str, Statistic] = {
    "variability": Statistic("share of what answers say", ("arm",), _V),
    "log_variability_ratio": Statistic("log ratio", PAIR, _V),
    "learned_invariance": Statistic("share of variability removed", PAIR, _V),
    "architectural_invariance": Statistic("share of variability removed", PAIR, _V),
    "transfer_learned": Statistic("difference of shares", PAIR, (*_V, "from_measure")),
    "transfer_architectural": Statistic("difference of shares", PAIR, (*_V, "from_measure")),
    "log_transfer": Statistic("difference of log ratios", PAIR, (*_V, "from_measure")),
    "interaction": Statistic("difference of log ratios", FOUR, _V),
    "slope": Statistic("share per unit of strength", ("arms", "control"), _V),
    "mean_log_ratio": Statistic("log ratio", ("arms", "controls"), (*_V, "groups", "answers")),
    "kept_share": Statistic("share of the log ratio", ("arms", "controls"), (*_V, "groups", "answers", *FROM)),
    "factor_share": Statistic("share of the log ratio", FOUR, _V),
    "family_offset": Statistic("log ratio", ("families", "family", "against"), _V),
    "growth": Statistic("log ratio, far to near", ("arm", "near", "far"), ("metric", "measure", "images")),
    "half_life": Statistic("px", ("arm",), ("metric", "measure", "images")),
    "top1_change": Statistic("share of pairs", ("arm",), ("control", "measure", "images")),
    "accuracy_difference": Statistic("share of images", PAIR, ("images", "measure")),
    "layer_loss": Statistic("dB per downsampling", ("arm",), ("control", "measure", "images")),
    "probe": Statistic("as the probe says", ("probe", "key"), ("arm", "control", "images", "options", "unit")),
}
ROLES = ("arm", "control", "beside", "beside_control")
SEVERAL = ("arms", "controls", "from_arms", "from_controls")  # fields of a part that name several arms


def selection(images: str, group: str, answers: str) -> str:
    """Name of the image set that has the images of a group of classes alone.

    >>> selection("typical", "A", "all"), selection("typical", "A", "group")
    ('typical of A', 'typical of A among A')
    """
    return f"{images} of {group}" + (f" among {group}" if answers == "group" else "")


class Prediction(Data):
    """A prediction of the value of a statistic.

    ``positive``: above the margin. ``negative``: below minus the margin. ``zero``: between minus the margin and the
    margin (two one-sided tests, Schuirmann 1987). ``above`` and ``below``: on that side of the margin, which may be
    negative, as in "not lower by more than". ``describe``: no prediction, the value is only reported.
    """

    sign: Literal["positive", "negative", "zero", "above", "below", "describe"] = Field(
        description="where the value lies"
    )
    margin: float = Field(0.0, description="margin in the unit of the statistic")

    @model_validator(mode="after")
    def _check(self) -> Prediction:
        if self.sign == "zero" and self.margin <= 0:
            raise ValueError("a margin above 0 with sign zero, which says how near to 0 is 'about 0'")
        if self.sign in ("positive", "negative") and self.margin < 0:
            raise ValueError("a margin of at least 0")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Interval in which the value is predicted to lie."""
        return {
            "positive": (self.margin, math.inf),
            "negative": (-math.inf, -self.margin),
            "zero": (-self.margin, self.margin),
            "above": (self.margin, math.inf),
            "below": (-math.inf, self.margin),
            "describe": (-math.inf, math.inf),
        }[self.sign]

    def __str__(self) -> str:
        return {
            "positive": f"above {self.margin:g}",
            "negative": f"below {-self.margin:g}" if self.margin else "below 0",
            "zero": f"within {self.margin:g} of 0",
            "above": f"above {self.margin:g}",
            "below": f"below {self.margin:g}",
            "describe": "reported only",
        }[self.sign]


class Expected(Data):
    """The value of an effect and its standard deviation between seeds, on the scale of the test, that were planned for.

    They come from a pilot; the power of the study follows from them (`augkit.compare.study.hypothesis_tests.power`).
    """

    value: float = Field(description="mean over seeds")
    spread: float = Field(gt=0, description="standard deviation between seeds")


class Part(Data):
    """One statistic of one contrast, with a prediction."""

    label: str = Field("", description="label for tables")
    statistic: str = Field(description=", ".join(STATISTICS))
    arm: str | None = Field(None, description="the treated arm")
    control: str | None = Field(None, description="the control that it is compared with")
    beside: str | None = Field(
        None,
        description="with interaction: the treated arm of the second contrast; with factor_share: the arm that has the"
        " factor in question alone",
    )
    beside_control: str | None = Field(
        None,
        description="with interaction: the control of the second contrast; with factor_share: the arm that has the"
        " other factor alone",
    )
    arms: list[str] | None = Field(
        None, description="with slope: arms that differ in strength; with mean_log_ratio and kept_share: treated arms"
    )
    controls: list[str] | None = Field(None, description="the control of each of the arms")
    groups: list[str] | None = Field(
        None, description="for each of the arms, the group of classes whose images are looked at; null: all images"
    )
    from_arms: list[str] | None = Field(None, description="with kept_share: arms of the whole; null: the arms")
    from_controls: list[str] | None = Field(None, description="with kept_share: controls of these; null: the controls")
    from_groups: list[str] | None = Field(None, description="with kept_share: groups of the whole; null: the groups")
    families: dict[str, list[str]] | None = Field(
        None, description="with family_offset: arms by family; each family has a line of its own, all of one slope"
    )
    family: str | None = Field(None, description="with family_offset: the family whose offset is tested")
    against: str | None = Field(None, description="with family_offset: the family that it is compared with")
    answers: Literal["all", "group"] = Field(
        "all", description="group: answers are restricted to the classes of the image's group"
    )
    measure: str = Field(DEFAULT_MEASURE, description="name of a measure of the study")
    from_measure: str | None = Field(
        None, description="with transfers: measure of the typical images; null: the same measure"
    )
    images: str | list[str] = Field(TYPICAL, description="image set; for several, the mean over them")
    metric: str = Field(DEFAULT, description="the variability V")
    near: float | None = Field(None, description="with growth: length of the short shift (pixels)")
    far: float | None = Field(None, description="with growth: length of the long shift (pixels)")
    probe: str | None = Field(None, description="name of a probe of augkit.invariance.probes")
    key: str | None = Field(None, description="name of one of the probe's numbers")
    options: dict[str, Any] = Field({}, description="options of the probe")
    unit: str | None = Field(None, description="unit of the probe's number")
    primary: bool = Field(
        False, description="whether the part gives the verdict; by default the first part that is no check"
    )
    check: bool = Field(
        False, description="whether the part is an identity, which is tested but does not affect a verdict"
    )
    prediction: Prediction = Field(description="prediction of the value")
    expected: Expected | None = Field(None, description="what the study was planned for; gives its power")

    @field_validator("prediction", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return {"sign": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Part:
        if self.statistic not in STATISTICS:
            raise ValueError(f"a statistic; {unknown_name('statistic', self.statistic, STATISTICS)}")
        if self.metric not in VARIABILITIES:
            raise ValueError(f"a variability; {unknown_name('metric', self.metric, VARIABILITIES)}")
        known = STATISTICS[self.statistic]
        always = {"label", "statistic", "prediction", "primary", "check", "expected"}
        if self.primary and (self.check or self.prediction.sign == "describe"):
            raise ValueError("a primary part that predicts something and is no check")
        for field in self.model_fields_set - always:
            if field not in (*known.needs, *known.allows) and getattr(self, field) is not None:
                raise ValueError(
                    f"no '{field}' with {self.statistic}; it has {', '.join((*known.needs, *known.allows))}"
                )
        missing = [field for field in known.needs if not getattr(self, field)]
        if missing:
            raise ValueError(f"'{missing[0]}' with {self.statistic}, which needs {', '.join(known.needs)}")
        return self

    @model_validator(mode="after")
    def _check_lists(self) -> Part:
        if self.statistic == "kept_share" and not any(getattr(self, field) for field in FROM):
            raise ValueError(f"one of {', '.join(FROM)} with kept_share")
        for field in ("controls", "groups", *FROM):
            found = getattr(self, field)
            if found is not None and len(found) != len(self.arms or ()):
                raise ValueError(f"as many {field} as arms, {len(found)} and {len(self.arms or ())} came")
        for name in filter(None, (self.family, self.against)):
            if name not in (self.families or {}):
                raise ValueError(f"a family; {unknown_name('family', name, self.families or {})}")
        if self.families and len(self.sets) != 1:
            raise ValueError(f"one image set with families, {len(self.sets)} came")
        if self.answers == "group" and not (self.groups or self.from_groups):
            raise ValueError("groups with answers: group")
        if not self.sets:
            raise ValueError("one image set or several, none came")
        if self.near is not None and self.far is not None and not self.near < self.far:
            raise ValueError(f"near below far, {self.near:g} and {self.far:g} came")
        return self

    @property
    def sets(self) -> list[str]:
        """Names of the image sets."""
        return [self.images] if isinstance(self.images, str) else list(self.images)

    @property
    def names(self) -> list[str]:
        """Names of all arms of this part in order, without repetition."""
        found: list[str | None] = [getattr(self, role) for role in ROLES]
        several = [name for field in SEVERAL for name in getattr(self, field) or ()]
        several += [name for names in (self.families or {}).values() for name in names]
        return list(dict.fromkeys(name for name in (*found, *several) if name is not None))

    @property
    def selections(self) -> dict[str, tuple[str, str]]:
        """Image sets that are a group of classes, by their name: the image set and the group."""
        named = [*(self.groups or ()), *(self.from_groups or ())]
        return {selection(images, name, self.answers): (images, name) for images in self.sets for name in named}

    @property
    def of_unit(self) -> str:
        """Unit of the statistic."""
        if self.unit is not None:
            return self.unit
        if self.statistic == "variability" and self.metric != DEFAULT:
            return "bits" if METRICS[self.metric].unit == "bits" else self.metric
        return STATISTICS[self.statistic].unit

    def __str__(self) -> str:
        if self.label:
            return self.label
        others = self.names[1:]
        what = f"{self.statistic.replace('_', ' ')} of {self.names[0] if self.names else self.probe}"
        what += f" against {', '.join(others)}" if others else ""
        return what if self.sets == [TYPICAL] else f"{what} on {', '.join(self.sets)}"


class Claim(Data):
    """A claim from the literature, or one of your own."""

    id: int | str = Field(description="identifier for references and anchors")
    name: str = Field(min_length=1, description="short name")
    claim: str = Field(min_length=1, description="the sentence that is tested")
    source: str = Field(min_length=1, description="paper, section, address")
    parts: list[Part] = Field(min_length=1, description="parts of the claim; the primary one gives the verdict")

    @model_validator(mode="before")
    @classmethod
    def _single(cls, tree: Any) -> Any:
        """A claim of one part may be written without ``parts``."""
        if isinstance(tree, dict) and "statistic" in tree and "parts" not in tree:
            own = {key: value for key, value in tree.items() if key in ("id", "name", "claim", "source")}
            return {**own, "parts": [{key: value for key, value in tree.items() if key not in own}]}
        return tree

    @model_validator(mode="after")
    def _one_primary(self) -> Claim:
        if sum(part.primary for part in self.parts) > 1:
            raise ValueError("at most one primary part")
        return self

    @property
    def primary(self) -> int | None:
        """Index of the part that gives the verdict; None for a check or a claim without predictions."""
        named = [k for k, part in enumerate(self.parts) if part.primary]
        tested = [k for k, part in enumerate(self.parts) if not part.check and part.prediction.sign != "describe"]
        return next(iter(named + tested), None)

    @property
    def is_check(self) -> bool:
        """Whether all of its predictions are identities."""
        return self.primary is None and any(part.check for part in self.parts)

    @property
    def prediction(self) -> str:
        """The predictions of all parts as text."""
        return "; ".join(f"{part}: {part.prediction} ({part.of_unit})" for part in self.parts)


def check_references(
    claims: list[Claim],
    arms: list[str],
    measures: dict[str, list[str]],
    source: str,
    lengths: dict[str, list[float]],
    groups: list[str],
) -> None:
    """Raise InputError if a claim names an arm, a measure, an image set or a length that the study does not have.

    Args:
        claims: claims of the study.
        arms: names of the arms of the study.
        measures: image sets by measure.
        source: name of the study file for the message.
        lengths: lengths of the response curves (pixels), by measure.
        groups: names of the groups of classes of the study.
    """
    for claim in claims:
        where = f"{source}: claim {claim.id}"
        for part in claim.parts:
            for name in part.names:
                if name not in arms:
                    raise InputError(f"{where}: {unknown_name('arm', name, arms)}")
            for _, name in part.selections.values():
                if name not in groups:
                    raise InputError(f"{where}: {unknown_name('group', name, groups)}")
            _check_measures(part, where, measures, lengths)


def _check_measures(part: Part, where: str, measures: dict[str, list[str]], lengths: dict[str, list[float]]) -> None:
    if part.statistic == "probe":
        return
    for name in (part.measure, part.from_measure or part.measure):
        if name not in measures:
            raise InputError(f"{where}: {unknown_name('measure', name, measures)}")
    for images in part.sets:
        if images not in measures[part.measure]:
            known = measures[part.measure]
            raise InputError(f"{where}: measure '{part.measure}': {unknown_name('image set', images, known)}")
    for length in (part.near, part.far):
        if length is not None and length not in lengths[part.measure]:
            known_lengths = ", ".join(f"{v:g}" for v in lengths[part.measure]) or "none"
            raise InputError(
                f"{where}: expected a length of measure '{part.measure}' ({known_lengths}), got {length:g}"
            )
