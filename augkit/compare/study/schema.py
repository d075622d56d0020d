"""The study file: arms, seeds, measures, and the claims that are tested.

An arm is an architecture with a policy at a strength, named ``architecture+policy@strength`` (``@1`` is left out). A
file holds several *sizes* of one study, which differ in recipe, seeds and, if needed, in arms and claims.

>>> Study.load("invariance", "quick").size
'quick'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from augkit.compare.study.arms import OFF, ArmBuilder, ArmSettings, DottedFields, StudyArm, as_words, check_sources
from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Claim, check_references
from augkit.compare.study.effects import NO_NETWORK
from augkit.compare.study.sequential import RULES, Rule
from augkit.core import yaml_text
from augkit.core.errors import InputError, unknown_name
from augkit.core.records import Record
from augkit.core.schema import Data, parse_override, read_yaml, validate
from augkit.data.load import DATASETS, one_name
from augkit.train.recipe import Recipe, find_recipe, recipe_folders

SIZES = ("quick", "standard", "full")
IMAGE_SETS = (TYPICAL, "another hand", "inverted", "upside down", "photographs", "texture shuffle", "erased")
NOISE = " with noise"  # after the name of an image set whose images are not displaced, but have noise added
AXES = ("shift", "scale", "rotation", "layers")
OTHER_DATA = "default"  # among the floors


def file_name(measure: str) -> str:
    """Name of the file in which a cell keeps a measure or a probe, without its suffix.

    >>> file_name("far shifts")
    'far-shifts'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", measure).strip("-")


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
    grid: Literal["any", "aligned", "unaligned"] = Field(
        "any",
        description="with axis layers: any shifts; aligned: by whole strides of each downsampling layer; unaligned: by"
        " whole strides of its input that are none of its own",
    )
    lengths: list[float] = Field([], description="with axis shift: lengths of the response curve (pixels)")
    images: list[str] = Field([TYPICAL], min_length=1, description=", ".join(IMAGE_SETS))
    limit: int | None = Field(None, ge=2, description="largest number among the study's test images; null: all of them")
    noise: bool = Field(
        False,
        description="measure also with noise in place of displacements, of the norm that each displacement changes its"
        f" image by; as image sets with '{NOISE}' after their names",
    )

    @model_validator(mode="after")
    def _check(self) -> Measure:
        wrong = [name for name in self.images if name not in IMAGE_SETS]
        if wrong:
            raise ValueError(f"image sets; {unknown_name('image set', wrong[0], IMAGE_SETS)}")
        if self.axis != "shift" and (self.nearest is not None or self.step or self.whole or self.lengths):
            raise ValueError("nearest, step, whole and lengths with axis shift only")
        if self.axis != "layers" and self.grid != "any":
            raise ValueError("a grid with axis layers only")
        if self.window is not None and self.protocol != "crop":
            raise ValueError("a window with protocol crop only")
        if self.axis in ("scale", "rotation") and self.reach is None:
            raise ValueError(f"a reach with axis {self.axis}")
        if self.axis == "scale" and self.reach is not None and self.reach <= 1:
            raise ValueError("a reach above 1 with axis scale, a factor")
        if self.noise and self.axis not in ("shift", "scale"):
            raise ValueError("noise with axis shift or scale only")
        return self

    @property
    def sets(self) -> list[str]:
        """Names of all image sets, those with noise last."""
        return [*self.images, *(f"{name}{NOISE}" for name in self.images if self.noise)]


class Size(Data):
    """Fields that one size changes; the others are those of the study."""

    recipe: str | None = Field(None, description="base recipe: a file or a shipped name")
    overrides: DottedFields = Field({}, description="dotted keys of the recipe")
    seeds: int | None = Field(None, ge=1, description="training seeds per arm")
    looks: list[int] | None = Field(None, description="numbers of seeds at which the claims are tested")
    images: int | None = Field(None, ge=2, description="largest number of test images")
    architectures: dict[str, DottedFields] = Field({}, description="architectures to add or replace, by name")
    policies: dict[str, DottedFields] = Field({}, description="policies to add or replace, by name")
    measures: dict[str, DottedFields] = Field({}, description="changed fields of measures, by name")
    arms: list[ArmSettings] | None = Field(None, min_length=1, description="arms that replace the study's")
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
    groups: dict[str, list[int]] = Field(
        {}, description="groups of classes by name, as numbers of classes, for claims about the images of some classes"
    )
    floors: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description=f"least accuracy on typical images by name of the data, '{OTHER_DATA}' for all others; claims about"
        " arms below it are pilots, without a verdict",
    )
    claims: list[Claim] = Field([], description="claims to test")


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
    overrides = as_words({**settings.overrides, **chosen.overrides})
    recipe = Recipe.load(find_recipe(chosen.recipe or settings.recipe), overrides)
    architectures = {**settings.architectures, **chosen.architectures}
    arms: dict[str, StudyArm] = {}
    builder = ArmBuilder(recipe, architectures, {OFF: {}, **settings.policies, **chosen.policies}, source)
    for entry in chosen.arms or settings.arms:
        for arm in builder.expand(entry):
            if arms.setdefault(arm.name, arm) != arm:
                raise InputError(f"{source}: arms: expected arms of one name to be equal, those of {arm.name} differ")
    measures = _measures(settings, chosen, source)
    claims = _claims(settings, chosen, source)
    check_sources(arms, source)
    _check_floors(settings, source)
    known = {name: measure.sets for name, measure in measures.items()}
    lengths = {name: measure.lengths for name, measure in measures.items()}
    check_references(claims, list(arms), known, source, lengths, list(settings.groups))
    reference = settings.reference or next(iter(architectures))
    if reference not in architectures:
        raise InputError(f"{source}: reference: {unknown_name('architecture', reference, architectures)}")
    count = seeds or chosen.seeds or settings.seeds
    images = chosen.images or settings.images
    looks = tuple(chosen.looks or settings.looks or [chosen.seeds or settings.seeds])
    if list(looks) != sorted(set(looks)) or looks[0] < 1:
        raise InputError(f"{source}: looks: expected ascending numbers of seeds, got {', '.join(map(str, looks))}")
    return Study(settings, size, recipe, count, images, arms, measures, claims, reference, looks, source)


def _measures(settings: StudySettings, chosen: Size, source: str) -> dict[str, Measure]:
    found = {DEFAULT_MEASURE: Measure(), **settings.measures}
    for name, changes in chosen.measures.items():
        if name not in found:
            raise InputError(f"{source}: sizes: {unknown_name('measure', name, found)}")
        found[name] = validate(Measure, {**found[name].model_dump(), **changes}, f"{source}: measure {name}")
    files: dict[str, str] = {}
    for name in found:
        if (other := files.setdefault(file_name(name), name)) != name:
            raise InputError(
                f"{source}: measures: expected names that differ in letters or digits, got '{other}' and '{name}'"
            )
    return found


def _claims(settings: StudySettings, chosen: Size, source: str) -> list[Claim]:
    by_id = {str(claim.id): claim for claim in settings.claims}
    if len(by_id) != len(settings.claims):
        raise InputError(
            f"{source}: claims: expected every id once, got {', '.join(str(c.id) for c in settings.claims)}"
        )
    if chosen.claims is None:
        return settings.claims
    if len(set(map(str, chosen.claims))) != len(chosen.claims):
        raise InputError(f"{source}: sizes: claims: expected every id once, got {', '.join(map(str, chosen.claims))}")
    for name in chosen.claims:
        if str(name) not in by_id:
            raise InputError(f"{source}: sizes: {unknown_name('claim', name, by_id)}")
    return [by_id[str(name)] for name in chosen.claims]


def floor_of(settings: StudySettings, data: str) -> float:
    """Least accuracy of networks trained on these data, in any spelling of their name; 0 without a floor."""
    floors = {one_name(name) or name: least for name, least in settings.floors.items()}
    return floors.get(one_name(data) or data, floors.get(OTHER_DATA, 0.0))


def _check_floors(settings: StudySettings, source: str) -> None:
    names = set[str]()
    for name in settings.floors:
        one = name if name == OTHER_DATA else one_name(name)
        if one is None:
            raise InputError(f"{source}: floors: {unknown_name('dataset', name, [OTHER_DATA, *DATASETS])}")
        if one in names:
            raise InputError(f"{source}: floors: expected one floor for the data {one}, got two")
        names.add(one)


def shipped_studies() -> dict[str, Path]:
    """Return the files of the studies that ship with augkit, by name."""
    return {file.stem: file for folder in recipe_folders() for file in sorted((folder / "studies").glob("*.yaml"))}


def find_study(source: str | Path) -> Path:
    """Path of the study file that ``source`` names by its path or, if it ships with augkit, by its name."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    shipped = shipped_studies()
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
