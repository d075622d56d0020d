"""The study file: arms, seeds, measures, and the claims that are tested.

An arm is an architecture with a policy at a strength, named ``architecture+policy@strength`` (``@1`` is left out). A
file holds several *sizes* of one study, which differ in recipe, seeds and, if needed, in arms and claims.

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
OFF = "none"  # name of the policy without augmentation
IMAGE_SETS = (TYPICAL, "another hand", "inverted", "upside down", "photographs", "texture shuffle", "erased")
AXES = ("shift", "scale", "rotation", "layers")
DottedFields = dict[str, Any]  # values of recipe fields by dotted key, such as model.downsample


class Measure(Data):
    """The image sets to measure, and the displacements of every image."""

    axis: Literal["shift", "scale", "rotation", "layers"] = Field(
        "shift", description="kind of displacement; layers: signal-to-error ratio of every map under circular shifts"
    )
    protocol: Literal["crop", "embed", "circular"] | None = Field(None, description="null: the recipe's protocol")
    reach: float | None = Field(
        None,
        gt=0,
        description="largest shift (pixels), factor (above 1) or angle (degrees); null: the recipe's largest shift",
    )
    nearest: float | None = Field(
        None, description="with axis shift: least displacement along each axis (pixels); null: -reach"
    )
    step: tuple[float, float] | None = Field(
        None, description="with axis shift: difference of all pairs (x, y; pixels)"
    )
    whole: bool = Field(False, description="with axis shift: whole pixels only")
    window: int | None = Field(
        None,
        ge=1,
        description="with protocol crop: side of the network's input (pixels); null: as large as reach allows",
    )
    pairs: int = Field(4, ge=1, description="pairs of displacements per image")
    lengths: list[float] = Field([], description="with axis shift: lengths of the response curve (pixels)")
    images: list[str] = Field([TYPICAL], min_length=1, description=", ".join(IMAGE_SETS))
    limit: int | None = Field(None, ge=2, description="largest number of test images; null: the study's")

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

    architectures: list[str] = Field(min_length=1, description="names of the study's architectures")
    policies: list[str] = Field([OFF], min_length=1, description="names of the study's policies")
    strengths: list[float] = Field([1.0], min_length=1, description="strengths of the policies, in (0, 1]")
    task: Literal["classify", "locate"] = Field(
        "classify", description="locate: predict in which ninth of the canvas the image lies"
    )

    @model_validator(mode="before")
    @classmethod
    def _single(cls, tree: Any) -> Any:
        """Accept ``architecture``, ``policy`` and ``strength`` for a single arm."""
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
    """Fields that one size changes; the others are those of the study."""

    recipe: str | None = Field(None, description="base recipe: a file or a shipped name")
    overrides: DottedFields = Field({}, description="dotted keys of the recipe")
    seeds: int | None = Field(None, ge=1, description="training seeds per arm")
    looks: list[int] | None = Field(None, description="numbers of seeds at which the claims are tested")
    images: int | None = Field(None, ge=2, description="largest number of test images")
    architectures: dict[str, DottedFields] = Field({}, description="measures to add or replace, by name")
    measures: dict[str, DottedFields] = Field({}, description="changed fields of measures, by name")
    arms: list[ArmSettings] | None = Field(None, description="arms that replace the study's")
    claims: list[int | str] | None = Field(
        None, description="ids of the claims that are tested at this size; null: all"
    )


class StudySettings(Data):
    """The content of a study file."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="name for folders")
    title: str = Field("", description="title of the report")
    lead: str = Field("", description="one paragraph: the questions and the reasons for them")
    recipe: str = Field(description="base recipe: a file or a shipped name")
    overrides: DottedFields = Field({}, description="dotted keys of the recipe")
    seeds: int = Field(3, ge=1, description="training seeds per arm")
    looks: list[int] | None = Field(
        None, description="numbers of seeds at which the claims are tested, ascending; null: only 'seeds'"
    )
    spending: Rule = Field("obrien-fleming", description=f"how interim analyses share the 5 %: {', '.join(RULES)}")
    images: int = Field(1000, ge=2, description="largest number of test images, the same for all arms")
    sizes: dict[Literal["quick", "standard", "full"], Size] = Field({}, description="changes of each size")
    architectures: dict[str, DottedFields] = Field(
        min_length=1, description="by name, values of recipe fields by dotted key, or callable: package.module:callable"
    )
    policies: dict[str, DottedFields] = Field(
        {}, description=f"by name, values of recipe fields by dotted key; '{OFF}' always exists"
    )
    arms: list[ArmSettings] = Field(min_length=1, description="arms, or products of architectures and policies")
    reference: str | None = Field(None, description="reference architecture of architectural invariance")
    measures: dict[str, Measure] = Field({}, description=f"measures by name; '{DEFAULT_MEASURE}' is taken of every arm")
    claims: list[Claim] = Field([], description="claims to test")


@dataclass(frozen=True)
class StudyArm:
    """One arm: its recipe, and settings that a recipe cannot hold (a network from a callable, another task)."""

    name: str
    architecture: str
    policy: str
    strength: float
    recipe: Recipe
    callable: str | None = None
    task: str = "classify"


@dataclass(frozen=True)
class Study:
    """A study resolved at one size, ready to run; ``settings`` is the content of the file."""

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
        """Load a study file, or a study that ships with augkit.

        Args:
            source: path of a YAML file, or name of a shipped study such as ``invariance``.
            size: ``quick``, ``standard`` or ``full``.
            seeds: number of training seeds per arm; None takes that of the size.
            overrides: ``dotted.key=value`` for the base recipe; they take precedence over those of file and size.

        Raises:
            InputError: the file is missing, a key or name is unknown, or a claim names an arm that does not exist.
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
        """Text of the study file."""
        return yaml_text.dump(self.settings.model_dump(exclude_defaults=True), width=100)


def resolve(settings: StudySettings, size: str, source: str, *, seeds: int | None = None) -> Study:
    """Resolve a study at one size; arguments and errors are those of `Study.load`."""
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    if settings.sizes and size not in settings.sizes:
        raise InputError(f"{source}: expected one of its sizes ({', '.join(settings.sizes)}), got '{size}'")
    chosen = settings.sizes.get(size, Size())  # type: ignore[call-overload]
    overrides = _as_words({**settings.overrides, **chosen.overrides})
    recipe = Recipe.load(find_recipe(chosen.recipe or settings.recipe), overrides)
    architectures = {**settings.architectures, **chosen.architectures}
    arms: dict[str, StudyArm] = {}
    builder = _ArmBuilder(recipe, architectures, {OFF: {}, **settings.policies}, source)
    for entry in chosen.arms or settings.arms:
        for arm in builder.expand(entry):
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


@dataclass(frozen=True)
class _ArmBuilder:
    """Builds arms from the base recipe and the fields of architectures and policies."""

    recipe: Recipe
    architectures: dict[str, DottedFields]
    policies: dict[str, DottedFields]
    source: str

    def expand(self, entry: ArmSettings) -> list[StudyArm]:
        """All arms of one entry of ``arms``."""
        found = []
        for architecture, policy, strength in itertools.product(entry.architectures, entry.policies, entry.strengths):
            if architecture not in self.architectures:
                known = unknown_name("architecture", architecture, self.architectures)
                raise InputError(f"{self.source}: arms: {known}")
            if policy not in self.policies:
                raise InputError(f"{self.source}: arms: {unknown_name('policy', policy, self.policies)}")
            if policy == OFF and strength != entry.strengths[-1]:
                continue  # without augmentation there is only one arm for all strengths
            found.append(self.build(architecture, policy, 1.0 if policy == OFF else strength, entry.task))
        return found

    def build(self, architecture: str, policy: str, strength: float, task: str) -> StudyArm:
        """Build one arm."""
        name = f"{architecture}+{policy}" + (f"@{strength:g}" if strength != 1 else "")
        name += "+locate" if task == "locate" else ""
        own = dict(self.architectures[architecture])
        module = own.pop("callable", None)
        fields = {**own, **self.policies[policy]}
        self._check(architecture, module, fields)
        tree = self.recipe.model_dump(mode="json")
        tree["name"] = name.replace("+", "-").replace("@", "-")
        # The ops of the base recipe are dropped; its kernel, padding and draws are kept.
        base = self.recipe.policy
        tree["policy"] = {"kernel": base.kernel, "padding": base.padding, "draws": base.draws, "strength": strength}
        tree = apply_overrides(tree, _as_words(fields))
        if task == "locate":
            tree["invariance"]["every"] = None  # images of this task fill the canvas and leave no room for shifts
        recipe = validate(Recipe, tree, f"{self.source}: arm {name}")
        return StudyArm(name, architecture, policy, strength, recipe, module, task)

    def _check(self, architecture: str, module: object, fields: DottedFields) -> None:
        where = f"{self.source}: architecture {architecture}"
        if module is not None and (not isinstance(module, str) or ":" not in module):
            raise InputError(f"{where}: expected callable: package.module:callable")
        network = fields.get("model.name")
        if isinstance(network, str) and ":" in network and "." in network.partition(":")[0]:
            raise InputError(
                f"{where}: expected the name of a network in model.name, got '{network}';"
                " give a network of your own under callable:"
            )


def _as_words(dotted: DottedFields) -> list[str]:
    """Fields as ``dotted.key=value``, with values as JSON, which is also YAML."""
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
    """Path of the study file that ``source`` names by its path or, if it ships with augkit, by its name."""
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
    """Whether an argument names a study: a YAML file with ``arms`` or ``claims``, or a shipped study."""
    path = Path(source).expanduser()
    if path.is_dir():
        return False
    if not path.is_file():
        return any((folder / "studies" / f"{source}.yaml").is_file() for folder in recipe_folders())
    try:
        tree = read_yaml(path, "study")
    except InputError:
        return False  # loading it as a recipe reports the error
    return "arms" in tree or "claims" in tree


@dataclass(frozen=True)
class StudySummary(Record):
    """Settings of a study at one size, stored with its results; ``arms`` has the recipe's digest by arm."""

    size: str
    seeds: int
    images: int
    recipe: str
    reference: str
    measures: dict[str, Measure]
    arms: dict[str, str]


def summarize(study: Study) -> StudySummary:
    """Settings of a study, to be stored with its results."""
    return StudySummary(
        size=study.size,
        seeds=study.seeds,
        images=study.images,
        recipe=study.recipe.name,
        reference=study.reference,
        measures=study.measures,
        arms={name: arm.recipe.digest() for name, arm in study.arms.items() if name != NO_NETWORK},
    )
