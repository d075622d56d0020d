"""A study: arms times seeds, what is measured of them, and the claims that the numbers are to answer; one YAML file.

An arm is an architecture with a policy at a strength, named ``architecture+policy@strength`` (``@1`` is left out). A
file holds several *sizes* of one study, which differ in recipe, seeds and, where need be, in arms and claims.

>>> Study.load("invariance", "quick").size
'quick'
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Claim, check_references
from augkit.compare.study.effects import NO_NETWORK
from augkit.compare.study.sequential import RULES, Rule
from augkit.core import yaml_text
from augkit.core.errors import InputError, unknown_name
from augkit.core.records import Record
from augkit.core.schema import Data, apply_overrides, parse_override, read_yaml, validate
from augkit.train.recipe import Recipe, find_recipe, recipe_folders

SIZES = ("quick", "standard", "full")
OFF = "none"  # the policy without augmentation
IMAGE_SETS = (TYPICAL, "another hand", "inverted", "upside down", "photographs", "texture shuffle", "erased")
AXES = ("shift", "scale", "rotation", "layers")


class Measure(Data):
    """What every image of some sets is seen under."""

    axis: Literal["shift", "scale", "rotation", "layers"] = Field(
        "shift", description="what is varied; layers: signal-to-error ratio of every map under circular shifts"
    )
    protocol: Literal["crop", "embed", "circular"] | None = Field(None, description="the recipe's when null")
    reach: float | None = Field(
        None,
        gt=0,
        description="largest shift (pixels), factor (above 1) or angle (degrees); the recipe's shift when null",
    )
    nearest: float | None = Field(
        None, description="of axis shift: displacements along each axis are at least this (pixels; -reach when null)"
    )
    step: tuple[float, float] | None = Field(
        None, description="of axis shift: pairs differ by just this (x, y; pixels)"
    )
    whole: bool = Field(False, description="of axis shift: whole pixels only")
    window: int | None = Field(
        None, ge=1, description="of protocol crop: side of what the network sees (pixels); what reach leaves when null"
    )
    pairs: int = Field(4, ge=1, description="pairs of displacements per image")
    lengths: list[float] = Field([], description="of axis shift: lengths of the response curve (pixels)")
    images: list[str] = Field([TYPICAL], min_length=1, description=", ".join(IMAGE_SETS))
    limit: int | None = Field(None, ge=2, description="at most this many test images; the study's when null")

    @model_validator(mode="after")
    def _check(self) -> Measure:
        wrong = [name for name in self.images if name not in IMAGE_SETS]
        if wrong:
            raise ValueError(f"image sets; {unknown_name('image set', wrong[0], IMAGE_SETS)}")
        if self.axis != "shift" and (self.nearest is not None or self.step or self.whole or self.lengths):
            raise ValueError("nearest, step, whole and lengths with axis shift only")
        if self.window is not None and self.protocol != "crop":
            raise ValueError("a window with protocol crop only")
        if self.axis in ("scale", "rotation") and self.reach is None:
            raise ValueError(f"a reach with axis {self.axis}")
        if self.axis == "scale" and self.reach is not None and self.reach <= 1:
            raise ValueError("a reach above 1 with axis scale, a factor")
        return self


class ArmSettings(Data):
    """One arm, or all combinations of architectures, policies and strengths."""

    architectures: list[str] = Field(min_length=1, description="names from the study's architectures")
    policies: list[str] = Field([OFF], min_length=1, description="names from the study's policies")
    strengths: list[float] = Field([1.0], min_length=1, description="of the policies, in (0, 1]")
    task: Literal["classify", "locate"] = Field("classify", description="locate: in which ninth of the canvas it lies")

    @model_validator(mode="before")
    @classmethod
    def _single(cls, tree: Any) -> Any:
        """``architecture``, ``policy`` and ``strength`` name one arm."""
        if not isinstance(tree, dict):
            return tree
        plural = {"architecture": "architectures", "policy": "policies", "strength": "strengths"}
        return {plural.get(key, key): [value] if key in plural else value for key, value in tree.items()}

    @model_validator(mode="after")
    def _check(self) -> ArmSettings:
        if not all(0 < strength <= 1 for strength in self.strengths):
            raise ValueError(f"strengths above 0 and at most 1 (0 is the policy '{OFF}')")
        return self


class Size(Data):
    """What one size changes; what is left out is the study's own."""

    recipe: str | None = Field(None, description="base recipe: a file or a shipped name")
    overrides: dict[str, Any] = Field({}, description="dotted keys of the recipe")
    seeds: int | None = Field(None, ge=1, description="training seeds per arm")
    looks: list[int] | None = Field(None, description="numbers of seeds at which the study is answered")
    images: int | None = Field(None, ge=2, description="test images at most")
    architectures: dict[str, dict[str, Any]] = Field({}, description="added, or put in the place of those so named")
    measures: dict[str, dict[str, Any]] = Field({}, description="fields of measures that differ")
    arms: list[ArmSettings] | None = Field(None, description="in place of the study's")
    claims: list[int | str] | None = Field(None, description="ids of the claims that this size can answer")


class StudySettings(Data):
    """The file."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="of folders")
    title: str = Field("", description="of the report")
    lead: str = Field("", description="one paragraph: what is asked, and why")
    recipe: str = Field(description="base recipe: a file or a shipped name")
    overrides: dict[str, Any] = Field({}, description="dotted keys of the recipe")
    seeds: int = Field(3, ge=1, description="training seeds per arm")
    looks: list[int] | None = Field(
        None, description="numbers of seeds at which the study is answered, ascending; 'seeds' alone when null"
    )
    spending: Rule = Field("obrien-fleming", description=f"how looks share the 5 %: {', '.join(RULES)}")
    images: int = Field(1000, ge=2, description="test images at most, the same for all arms")
    sizes: dict[Literal["quick", "standard", "full"], Size] = Field({}, description="what each size changes")
    architectures: dict[str, dict[str, Any]] = Field(
        min_length=1, description="by name, dotted keys of the recipe, or callable: package.module:callable"
    )
    policies: dict[str, dict[str, Any]] = Field({}, description=f"by name, dotted keys; '{OFF}' is always there")
    arms: list[ArmSettings] = Field(min_length=1, description="arms, or products of architectures and policies")
    reference: str | None = Field(None, description="architecture that architectural invariance is measured against")
    measures: dict[str, Measure] = Field({}, description=f"by name; '{DEFAULT_MEASURE}' is what every arm gets")
    claims: list[Claim] = Field([], description="what the numbers are to answer")


@dataclass(frozen=True)
class StudyArm:
    """One arm: a recipe, and what a recipe cannot say (a network of your own, another task)."""

    name: str
    architecture: str
    policy: str
    strength: float
    recipe: Recipe
    callable: str | None = None
    task: str = "classify"


@dataclass(frozen=True)
class Study:
    """A study of one size, ready to run. ``settings`` is the file; all else is what the size makes of it."""

    settings: StudySettings
    size: str
    recipe: Recipe
    seeds: int
    images: int
    arms: dict[str, StudyArm]
    measures: dict[str, Measure]
    claims: list[Claim]
    reference: str
    looks: tuple[int, ...] = ()
    source: str = field(default="", compare=False)

    @classmethod
    def load(
        cls, source: str | Path, size: str = "quick", *, seeds: int | None = None, overrides: Sequence[str] = ()
    ) -> Study:
        """Load a study file, or one that ships with augkit by its name.

        Args:
            source: a path to a YAML file, or a name such as ``invariance``.
            size: ``quick``, ``standard`` or ``full``.
            seeds: in place of the size's.
            overrides: ``dotted.key=value`` of the base recipe, over those of file and size.

        Raises:
            InputError: missing file, unknown key or name (with the nearest), a claim about an arm that is not there.
        """
        path = find_study(source)
        settings = validate(StudySettings, read_yaml(path, "study"), str(path))
        if overrides:
            own = settings.sizes.get(size, Size())  # type: ignore[call-overload]
            changed = {**own.overrides, **dict(map(parse_override, overrides))}
            sizes: dict[Any, Size] = {**settings.sizes, size: own.model_copy(update={"overrides": changed})}
            settings = settings.model_copy(update={"sizes": sizes})
        return resolve(settings, size, str(path), seeds=seeds)

    def to_yaml(self) -> str:
        """The file."""
        return yaml_text.dump(self.settings.model_dump(exclude_defaults=True), width=100)


def resolve(settings: StudySettings, size: str, source: str, *, seeds: int | None = None) -> Study:
    """One size of a study; arguments and errors as in `Study.load`."""
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    if settings.sizes and size not in settings.sizes:
        raise InputError(f"{source}: expected a size that it has ({', '.join(settings.sizes)}), got '{size}'")
    chosen = settings.sizes.get(size, Size())  # type: ignore[call-overload]
    overrides = _as_words({**settings.overrides, **chosen.overrides})
    recipe = Recipe.load(find_recipe(chosen.recipe or settings.recipe), overrides)
    architectures = {**settings.architectures, **chosen.architectures}
    arms: dict[str, StudyArm] = {}
    for entry in chosen.arms or settings.arms:
        for arm in _expand(entry, architectures, settings.policies, recipe, source):
            arms.setdefault(arm.name, arm)
    measures = _measures(settings, chosen, source)
    claims = _claims(settings, chosen, source)
    known = {name: measure.images for name, measure in measures.items()}
    lengths = {name: measure.lengths for name, measure in measures.items()}
    check_references(claims, list(arms), known, source, lengths)
    reference = settings.reference or next(iter(architectures))
    if reference not in architectures:
        raise InputError(f"{source}: reference: {unknown_name('architecture', reference, architectures)}")
    count = seeds or chosen.seeds or settings.seeds
    images = chosen.images or settings.images
    looks = tuple(chosen.looks or settings.looks or [chosen.seeds or settings.seeds])
    if list(looks) != sorted(set(looks)) or looks[0] < 1:
        raise InputError(f"{source}: looks: expected ascending numbers of seeds, got {', '.join(map(str, looks))}")
    return Study(settings, size, recipe, count, images, arms, measures, claims, reference, looks, source)


def _expand(
    entry: ArmSettings,
    architectures: dict[str, dict[str, Any]],
    policies: dict[str, dict[str, Any]],
    recipe: Recipe,
    source: str,
) -> list[StudyArm]:
    found = []
    policies = {OFF: {}, **policies}
    for architecture, policy, strength in itertools.product(entry.architectures, entry.policies, entry.strengths):
        if architecture not in architectures:
            raise InputError(f"{source}: arms: {unknown_name('architecture', architecture, architectures)}")
        if policy not in policies:
            raise InputError(f"{source}: arms: {unknown_name('policy', policy, policies)}")
        if policy == OFF and strength != entry.strengths[-1]:
            continue  # no augmentation has no strength
        exact = 1.0 if policy == OFF else strength
        name = f"{architecture}+{policy}" + (f"@{exact:g}" if exact != 1 else "")
        name += "+locate" if entry.task == "locate" else ""
        found.append(_arm(name, architecture, policy, exact, entry.task, architectures, policies, recipe, source))
    return found


def _arm(
    name: str,
    architecture: str,
    policy: str,
    strength: float,
    task: str,
    architectures: dict[str, dict[str, Any]],
    policies: dict[str, dict[str, Any]],
    recipe: Recipe,
    source: str,
) -> StudyArm:
    tree = recipe.model_dump(mode="json")
    tree["name"] = name.replace("+", "-").replace("@", "-")
    # An arm has the augmentation of its policy and no other; kernel and padding stay.
    tree["policy"] = {"kernel": recipe.policy.kernel, "padding": recipe.policy.padding, "strength": strength}
    own = dict(architectures[architecture])
    module = own.pop("callable", None)
    if module is not None and (not isinstance(module, str) or ":" not in module):
        raise InputError(f"{source}: architecture {architecture}: expected callable: package.module:callable")
    for dotted, value in {**own, **policies[policy]}.items():
        if dotted == "model.name" and isinstance(value, str) and ":" in value and "." in value.partition(":")[0]:
            raise InputError(
                f"{source}: architecture {architecture}: expected the name of a network in model.name, got '{value}';"
                " a network of your own goes under callable:"
            )
    tree = apply_overrides(tree, _as_words({**own, **policies[policy]}))
    if task == "locate":
        tree["invariance"]["every"] = None  # its images fill the canvas, so that there is no room to shift them
    where = f"{source}: arm {name}"
    return StudyArm(name, architecture, policy, strength, validate(Recipe, tree, where), module, task)


def _as_words(dotted: dict[str, Any]) -> list[str]:
    """``dotted.key=value``, as on the command line; JSON is YAML."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in dotted.items()]


def _measures(settings: StudySettings, chosen: Size, source: str) -> dict[str, Measure]:
    found = {DEFAULT_MEASURE: Measure(), **settings.measures}
    for name, changes in chosen.measures.items():
        if name not in found:
            raise InputError(f"{source}: sizes: {unknown_name('measure', name, found)}")
        found[name] = validate(Measure, {**found[name].model_dump(), **changes}, f"{source}: measure {name}")
    return found


def _claims(settings: StudySettings, chosen: Size, source: str) -> list[Claim]:
    by_id = {str(claim.id): claim for claim in settings.claims}
    if len(by_id) != len(settings.claims):
        raise InputError(
            f"{source}: claims: expected every id once, got {', '.join(str(c.id) for c in settings.claims)}"
        )
    if chosen.claims is None:
        return settings.claims
    for name in chosen.claims:
        if str(name) not in by_id:
            raise InputError(f"{source}: sizes: {unknown_name('claim', name, by_id)}")
    return [by_id[str(name)] for name in chosen.claims]


def find_study(source: str | Path) -> Path:
    """The file that ``source`` names: a path, or the name of a study that ships with augkit."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    shipped = {file.stem: file for folder in recipe_folders() for file in sorted((folder / "studies").glob("*.yaml"))}
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"study '{source}': no such file (shipped by name: {', '.join(sorted(shipped))})")
    if path.name not in shipped:
        raise unknown_name("study", source, shipped)
    return shipped[path.name]


def is_study(source: str) -> bool:
    """Whether a word names a study: a YAML file with ``arms`` or ``claims``, or a study that ships with augkit."""
    path = Path(source).expanduser()
    if path.is_dir():
        return False
    if not path.is_file():
        return any((folder / "studies" / f"{source}.yaml").is_file() for folder in recipe_folders())
    try:
        tree = read_yaml(path, "study")
    except InputError:
        return False  # whoever loads it as a recipe says what is wrong
    return "arms" in tree or "claims" in tree


@dataclass(frozen=True)
class StudySummary(Record):
    """Settings of a study at one size, for its results; ``arms`` are digests of recipes by the name of the arm."""

    size: str
    seeds: int
    images: int
    recipe: str
    reference: str
    measures: dict[str, Measure]
    arms: dict[str, str]


def summarize(study: Study) -> StudySummary:
    """Settings of a study, for its results."""
    return StudySummary(
        size=study.size,
        seeds=study.seeds,
        images=study.images,
        recipe=study.recipe.name,
        reference=study.reference,
        measures=study.measures,
        arms={name: arm.recipe.digest() for name, arm in study.arms.items() if name != NO_NETWORK},
    )
