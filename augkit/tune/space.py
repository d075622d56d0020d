"""The search space: fields of a recipe that are written as ranges; without any, the strengths of its policy.

In a recipe, ``max_pixels: {search: [0, 8]}`` is a range; ``{search: [0.01, 1], log: true}`` is searched on a log scale,
``{search: [1, 5], int: true}`` over whole numbers, and ``{choice: [16, 32]}`` over the listed values. ``default`` is
the value in the recipe itself; it defaults to the field's own default if that lies in the range, else to the middle.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import optuna
from pydantic import Field

from augkit.augment.op_spec import Amount
from augkit.augment.policy import Policy, amount_of, changes_nothing, search_space
from augkit.core.errors import InputError, brief
from augkit.core.schema import Data, set_dotted, validate
from augkit.train.recipe import Recipe, find_ranges, find_recipe, flat, read_tree

Value = float | int | str | bool
FIXED = ("name", "data", "invariance", "seed")  # must be equal in all trials, so that trials can be compared
BUDGET = ("train.epochs", "train.steps", "train.evaluate_every", "train.patience")
CONTROLS = 32  # most architectures in one study; each needs a control


class Range(Data):
    """The values that one field may take: an interval or a list of choices."""

    kind: Literal["float", "int", "choice"] = "float"
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: list[Value] = Field([])
    default: Value
    unit: str = ""

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Let the sampler of a trial suggest a value.

        A trial that was enqueued with another distribution keeps its value. Optuna's warning about that is suppressed,
        because `Space.suggest` refuses values that do not fit.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Inconsistent parameter values", RuntimeWarning)
            return self._suggested(trial, name)

    def _suggested(self, trial: optuna.Trial, name: str) -> Value:
        if self.kind == "choice":
            return cast(Value, trial.suggest_categorical(name, self.choices))
        if self.kind == "int":
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def __contains__(self, value: Value) -> bool:
        return value in self.choices if self.kind == "choice" else self.low <= float(value) <= self.high

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"choice {self.choices}"
        words = [name for name, on in (("log", self.log), ("int", self.kind == "int")) if on]
        return " ".join([f"[{self.low:g}, {self.high:g}]", *words])


@dataclass(frozen=True)
class Space:
    """A recipe and, by dotted key, the ranges of the fields that are searched."""

    recipe: Recipe
    ranges: dict[str, Range]

    @classmethod
    def load(cls, source: str | Path, overrides: list[str] | None = None) -> Space:
        """Read a recipe whose fields may be ranges; without any range, the strengths of the policy's ops are searched.

        Raises:
            InputError: `Recipe.load` raises it, a range is malformed, a field cannot be searched, or a field does not
                accept all values of its range.
        """
        path = find_recipe(source)
        return cls.of(read_tree(path, overrides or []), str(path))

    @classmethod
    def of(cls, tree: dict[str, Any], source: str) -> Space:
        """Read a space from the mapping of a YAML file; errors name ``source``."""
        written = dict(find_ranges(tree))
        for dotted in written:
            if dotted.split(".")[0] in FIXED or dotted in BUDGET:
                raise InputError(f"{source}: {dotted}: cannot be searched, because all trials must share its value")
        ranges: dict[str, Range] = {}
        for dotted, node in written.items():
            ranges[dotted] = _parse(node, dotted, source)
            set_dotted(tree, dotted.split("."), ranges[dotted].default)
        recipe = validate(Recipe, tree, source)
        space = cls(recipe, ranges or policy_ranges(recipe.policy))
        for dotted, r in ranges.items():
            for value in r.choices or [rounded(r.low, r), rounded(r.high, r)]:
                space.with_values({dotted: value})  # raises InputError where the field does not accept it
        architectures = math.prod(len(r.choices) or math.inf for k, r in ranges.items() if k.startswith("model."))
        if architectures > CONTROLS:
            raise InputError(
                f"{source}: expected at most {CONTROLS} architectures, because each needs its own control; give the"
                " fields of model fewer choices"
            )
        return space

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data for JSON; `from_dict` reads it back."""
        return {"recipe": self.recipe.model_dump(), "ranges": {k: r.model_dump() for k, r in self.ranges.items()}}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Space:
        """Restore a space from the result of `to_dict`."""
        ranges = {key: validate(Range, value, f"range {key}") for key, value in saved["ranges"].items()}
        return cls(validate(Recipe, saved["recipe"], "recipe of the study"), ranges)

    def with_values(self, values: Mapping[str, Value]) -> Recipe:
        """The recipe with these values by dotted key.

        >>> from augkit.train.recipe import Recipe
        >>> space = Space(Recipe(name="x", data={"name": "digits"}), {})
        >>> space.with_values({"policy.shift.max_pixels": 2.0}).policy.shift.max_pixels
        2.0
        """
        tree = self.recipe.model_dump(exclude_none=True)
        for dotted, value in values.items():
            set_dotted(tree, dotted.split("."), value)
        return validate(Recipe, tree, f"recipe {self.recipe.name}")

    def suggest(self, trial: optuna.Trial) -> dict[str, Value]:
        """Suggest the values of a trial; numbers are rounded to three significant digits, which keeps recipes readable.

        Raises:
            InputError: the trial was enqueued or added with a value that does not fit the range of its field.
        """
        values: dict[str, Value] = {}
        for key, searched in self.ranges.items():
            try:
                values[key] = rounded(searched.suggest(trial, key), searched)
            except ValueError as error:
                reason = str(error).rstrip(".")
                raise InputError(
                    f"trial {trial.number}: '{key}' has a value that does not fit its range; it was enqueued or added"
                    f" without augkit ({reason}); repeat the command to skip it, or name another --study"
                ) from error
        return values

    def architecture(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values of ``model`` fields, by dotted key; trials with the same architecture share a control."""
        return {key: values[key] for key in self.ranges if key.startswith("model.")}

    def architectures(self) -> list[dict[str, Value]]:
        """All architectures of the space; one empty mapping if no ``model`` field is searched."""
        keys = [key for key in self.ranges if key.startswith("model.")]
        return [dict(zip(keys, row, strict=True)) for row in itertools.product(*(self.ranges[k].choices for k in keys))]

    def others(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values of all fields outside of the policy, by dotted key."""
        return {key: values[key] for key in self.ranges if key in values and not key.startswith("policy.")}

    def control(self, values: Mapping[str, Value]) -> Recipe:
        """The recipe with these values but without augmentation; it differs from the trial in the policy alone."""
        return self.with_values(self.others(values)).control()

    def without_policy(self) -> Space:
        """The search space of the control: the recipe without augmentation and the ranges outside of the policy."""
        return Space(self.recipe.control(), {k: r for k, r in self.ranges.items() if not k.startswith("policy.")})

    @property
    def searches_training(self) -> bool:
        """Whether the search covers both augmentation and fields that matter to the control, such as ``optim.lr``."""
        others = any(key.split(".")[0] not in ("policy", "model") for key in self.ranges)
        augmented = any(key.startswith("policy.") for key in self.ranges) or not changes_nothing(self.recipe.policy)
        return others and augmented

    def preset(self, strength: float) -> dict[str, Value]:
        """Default values, but policy fields moved the fraction ``strength`` of the way from weak to strong end."""
        out: dict[str, Value] = {}
        for dotted, r in self.ranges.items():
            out[dotted] = r.default
            if dotted.startswith("policy.") and r.kind != "choice":
                weak, strong = _weak_and_strong(dotted, r)
                here = weak * (strong / weak) ** strength if r.log else weak + (strong - weak) * strength
                out[dotted] = rounded(here, r)
        return out

    def current(self) -> dict[str, Value] | None:
        """The values of the recipe itself; None if one lies outside of its range."""
        values = {key: r.default for key, r in self.ranges.items()}
        return values if all(values[key] in r for key, r in self.ranges.items()) else None


def policy_ranges(policy: Policy) -> dict[str, Range]:
    """Ranges for the ops of a policy, by dotted key; for the ops searched by default if the policy has no ops."""
    out = {}
    for dotted, amount in search_space(policy).items():
        op, key = dotted.split(".")
        settings = policy.own_ops.get(op)
        default = amount.weak if settings is None else float(getattr(settings, key))
        out[f"policy.{dotted}"] = Range(low=amount.low, high=amount.high, default=default, unit=amount.unit)
    return out


def rounded(value: Any, r: Range) -> Value:
    """Round a float to three significant digits and clip it to its range; choices and integers stay as they are."""
    if r.kind != "float":
        return value if r.kind == "choice" else int(value)
    return min(max(float(f"{value:.3g}"), r.low), r.high)


def differences(mine: Space, other: Space) -> list[str]:
    """Differences between two spaces, one phrase for each: ``KEY was OLD, is NEW``, with ``other`` as the old one."""
    words = []
    for key in sorted({*mine.ranges, *other.ranges}):
        a, b = other.ranges.get(key), mine.ranges.get(key)
        if str(a) != str(b):
            words.append(f"{key} was {a or 'not searched'}, is {b or 'not searched'}")
    old, new = flat(other.recipe.model_dump()), flat(mine.recipe.model_dump())
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key) and key not in mine.ranges:
            words.append(f"{key} was {old.get(key)}, is {new.get(key)}")
    return words


def _weak_and_strong(dotted: str, r: Range) -> tuple[float, float]:
    amount = amount_of(dotted.removeprefix("policy."))
    falls = amount is not None and amount.weak > amount.strong  # such as the minimum area of a crop
    return (r.high, r.low) if falls else (r.low, r.high)


def _parse(node: dict[str, Any], dotted: str, source: str) -> Range:
    known = {"search", "log", "int", "choice", "default"}
    if not set(node) <= known or {"search", "choice"} <= set(node):
        raise InputError(
            f"{source}: {dotted}: expected {{search: [low, high]}} with log, int, default, or {{choice: []}}"
        )
    if "choice" in node:
        choices = node["choice"]
        plain = isinstance(choices, list) and all(isinstance(c, (int, float, str)) for c in choices)
        if not plain or len(set(choices)) < 2:
            raise InputError(f"{source}: {dotted}: expected a choice of two different values or more, got {choices}")
        chosen = node.get("default", choices[0])
        if chosen not in choices:
            raise InputError(f"{source}: {dotted}: expected one of {choices} as default, got {brief(chosen)}")
        return Range(kind="choice", choices=choices, default=chosen)
    ends = node["search"]
    numbers = isinstance(ends, list) and len(ends) == 2 and all(type(v) in (int, float) for v in ends)
    if not numbers or not -math.inf < ends[0] < ends[1] < math.inf:
        raise InputError(f"{source}: {dotted}: expected search: [low, high] with low below high, got {ends}")
    low, high, log, whole = ends[0], ends[1], bool(node.get("log")), bool(node.get("int"))
    if log and low <= 0:
        raise InputError(f"{source}: {dotted}: expected a log range above 0, got {ends}")
    if whole and not all(float(v).is_integer() for v in ends):
        raise InputError(f"{source}: {dotted}: expected whole ends of an int range, got {ends}")
    own, unit = _field(dotted)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    # A field's own default of 0 turns the field off, which is not a useful start where a range is given.
    fits = isinstance(own, (int, float)) and own and low <= own <= high
    start = float(own) if fits and own is not None else middle
    found = Range(kind="int" if whole else "float", low=low, high=high, log=log, default=0, unit=unit)
    default = node.get("default", rounded(round(start) if whole else start, found))
    # A policy's own strength may lie outside: presets move within the range, and leave the recipe itself out.
    if not dotted.startswith("policy.") and not (type(default) in (int, float) and default in found):
        raise InputError(f"{source}: {dotted}: expected a default within {found}, got {brief(default)}")
    return found.model_copy(update={"default": default})


def _field(dotted: str) -> tuple[Value | None, str]:
    """Default and unit of a recipe field; None and an empty string where it has none."""
    model: Any = Recipe
    field: Any = None
    for part in dotted.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return None, ""
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((option for option in options if hasattr(option, "model_fields")), None)
    unit = next((row.unit for row in field.metadata if isinstance(row, Amount)), "")
    return field.default, unit
