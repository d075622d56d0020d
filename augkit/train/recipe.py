"""A recipe: data, model, policy and training in one frozen value and one YAML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from augkit.augment.policy import Policy
from augkit.core import yaml_text
from augkit.core.cli import split_recipe
from augkit.core.errors import MOST_SEED, InputError, unknown_name
from augkit.core.schema import Data, Tree, apply_overrides, read_yaml, validate
from augkit.train.recipe_sections import (
    ConstraintSettings,
    DataSettings,
    InvarianceSettings,
    ModelSettings,
    OptimSettings,
    ScheduleSettings,
    TrainSettings,
)


class Recipe(Data):
    """Settings of a run. The same recipe and seed give the same run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="name of run folders")
    data: DataSettings = Field(description="images")
    model: ModelSettings = Field(default_factory=ModelSettings, description="network")
    policy: Policy = Field(default_factory=Policy, description="augmentation")
    optim: OptimSettings = Field(default_factory=OptimSettings, description="optimizer")
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings, description="learning rate over time")
    train: TrainSettings = Field(default_factory=TrainSettings, description="training")
    invariance: InvarianceSettings = Field(default_factory=InvarianceSettings, description="measuring")
    constraint: ConstraintSettings | None = Field(None, description="least learned invariance; none when null")
    seed: int = Field(0, ge=0, le=MOST_SEED, description="of initial weights, data order and augmentation")

    @model_serializer(mode="wrap")
    def _without_constraint(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A recipe without a constraint has the digest that it had before there were constraints."""
        tree: dict[str, object] = dump(self)
        return {key: value for key, value in tree.items() if (key, value) != ("constraint", None)}

    @classmethod
    def load(cls, source: str | Path, overrides: list[str] | None = None) -> Recipe:
        """Load a recipe file, or one that ships with augkit by its name.

        Args:
            source: a path to a YAML file, or a name such as ``mnist5k``.
            overrides: ``dotted.key=value``, applied in order.

        Raises:
            InputError: the file is missing, a key is unknown (the message suggests the nearest), or a value has the
                wrong type or is out of range.
        """
        path = find_recipe(source)
        tree = read_tree(path, overrides or [])
        ranges = dict(find_ranges(tree))
        if ranges:
            name = next(iter(ranges))
            raise InputError(f"{path}: {name} is a range, for augkit.tune to search; here give a value: {name}=...")
        return validate(cls, tree, str(path))

    def to_yaml(self, header: str = "") -> str:
        """Return YAML text from which `load` reads an equal recipe; ``header`` becomes comment lines on top."""
        comment = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
        return comment + yaml_text.dump(self.model_dump(exclude_none=True))

    def control(self) -> Recipe:
        """Return the recipe without augmentation and constraint, which is the control of learned invariance."""
        plain = Policy(kernel=self.policy.kernel, padding=self.policy.padding)
        return self.replaced(name=f"{self.name}-control", policy=plain, constraint=None)

    def digest(self) -> str:
        """Return a short hash of all fields."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]

    def replaced(self, **sections: Any) -> Recipe:
        """Return a validated copy with whole sections replaced.

        >>> recipe = Recipe(name="x", data={"name": "digits"}).replaced(seed=3)
        >>> recipe.seed
        3
        """
        values = {key: (v.model_dump() if isinstance(v, Data) else v) for key, v in sections.items()}
        return validate(Recipe, {**self.model_dump(), **values}, f"recipe {self.name}")


def read_tree(path: Path, overrides: list[str]) -> Tree:
    """Return a recipe file with overrides applied, as unchecked plain data whose fields may be ranges."""
    tree = read_yaml(path, "recipe")
    tree.pop("augkit", None)  # versions, which a run folder adds
    return apply_overrides(tree, overrides)


def find_ranges(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tree]]:
    """Yield the fields with a range, ``{search: [...]}`` or ``{choice: [...]}``, by dotted name."""
    if isinstance(tree, dict) and ("search" in tree or "choice" in tree):
        yield ".".join(path), tree
        return
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from find_ranges(item, (*path, str(key)))


def recipe_folders() -> list[Path]:
    """Return the folders of the recipes that ship with augkit: in an installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    return [folder for folder in (here / "recipes", here.parent / "recipes") if folder.is_dir()]


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes that ship with augkit, by name."""
    return {file.stem: file for folder in recipe_folders() for file in sorted(folder.glob("*.yaml"))}


def find_recipe(source: str | Path, studies: Iterable[str] = ()) -> Path:
    """Return the file of ``source``, which is a path or the name of a recipe that ships with augkit.

    Where studies are accepted, an unknown name is also compared with theirs, ``studies``.
    """
    path = Path(source).expanduser()
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or str(source).endswith("/"):
        raise InputError(f"recipe '{source}': no such file (shipped by name: {', '.join(sorted(shipped))})")
    if path.name not in shipped:
        known = [*shipped, *studies]
        raise unknown_name("recipe" if len(known) == len(shipped) else "recipe or study", source, known)
    return shipped[path.name]


def one_recipe(words: Sequence[str], default: str | None) -> Recipe:
    """Load the recipe named by positional words, with their overrides."""
    recipes, overrides = split_recipe(words, default)
    if len(recipes) != 1:
        raise InputError(f"expected one recipe and dotted.key=value overrides, got {' '.join(words) or 'nothing'}")
    return Recipe.load(find_recipe(recipes[0]), overrides)


def flat(tree: Any, path: str = "") -> dict[str, object]:
    """Flatten nested mappings to one mapping by dotted name.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for key, item in tree.items() for k, v in flat(item, f"{path}.{key}".lstrip(".")).items()}
