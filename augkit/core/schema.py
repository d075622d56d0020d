"""Validates YAML data; every error names the file, the key, the expected and the given value."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from augkit.core import yaml_text
from augkit.core.errors import InputError, brief, unknown_name

Tree = dict[str, Any]  # a mapping from YAML, not yet checked
Model = TypeVar("Model", bound=BaseModel)
# Pydantic's descriptions of expected values, and their wording for recipes.
PLAIN = {
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "invalid_key": "text as a key",
    "int_parsing_size": "a whole number of fewer digits",
    "string_too_short": "text that is not empty",
}


class Data(BaseModel):
    """Base of recipes, policies and studies: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans for numbers; otherwise ``mixup: on`` would be an alpha of 1."""
        truth = any(isinstance(one, bool) for one in (value if isinstance(value, list) else [value]))
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if truth and kinds & {int, float} and bool not in kinds:
            raise ValueError("a number")
        return value


def parse_yaml(text: str, source: str) -> Tree:
    """Parse YAML text as a mapping; ``source`` names the text in messages.

    Raises:
        InputError: the text is not YAML (the message has the line) or not a mapping.
    """
    try:
        tree = yaml_text.load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InputError(f"{source}{where}: not valid YAML: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{source}: expected a mapping of keys to values, got {type(tree).__name__}")
    return tree


def read_yaml(path: Path, kind: str) -> Tree:
    """Read a YAML file as a mapping; ``kind`` is its kind in messages, such as ``recipe``.

    Raises:
        InputError: the file cannot be read as text, or as in `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{kind} '{path}': cannot be read (byte {error.start} is not UTF-8); save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"{kind} '{path}': cannot be read ({error})") from None
    return parse_yaml(text, str(path))


def parse_override(override: str) -> tuple[str, Any]:
    """Return key and value of ``dotted.key=value``; the value is YAML.

    Raises:
        InputError: there is no ``=`` or no key, or the value is not YAML.
    """
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise InputError(f"override '{override}': expected dotted.key=value, such as train.epochs=3")
    try:
        return dotted, yaml_text.load(text)
    except yaml.YAMLError:
        raise InputError(f"override '{override}': '{text}' is not valid YAML") from None


def validate(model: type[Model], tree: Tree, source: str) -> Model:
    """Validate ``tree`` as ``model``; ``source`` begins the message of an error.

    Raises:
        InputError: a value is invalid; the message describes the first problem and gives the number of the others.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, first["loc"][:-1])
            wrong = unknown_name("key", path, [*(".".join(map(str, (*first["loc"][:-1], k))) for k in known)])
            raise InputError(f"{source}: {wrong}{more}") from None
        if first["type"] == "missing":
            raise InputError(f"{source}: {path}: expected a value, the key is missing{more}") from None
        message = first["msg"]
        for start in ("Input should be ", "Value error, "):
            message = message.removeprefix(start)
        if first["type"] == "string_type":
            message = "text, in quotes where YAML would read something else"
        if first["type"] in PLAIN:
            message = PLAIN[first["type"]]
        if first["type"] == "string_pattern_mismatch":
            message = f"text that matches {first['ctx']['pattern']}"
        if first["type"] == "too_short":
            message = f"at least {first['ctx']['min_length']} of them"
        raise InputError(f"{source}: {path}: expected {message}, got {brief(first['input'])}{more}") from None


def apply_overrides(tree: Tree, overrides: list[str]) -> Tree:
    """Return a copy of ``tree`` with each ``dotted.key=value`` set; values are YAML, list indices are numbers.

    Raises:
        InputError: an override has no ``=``, or its path leads through a value that is not a mapping or a list.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        dotted, value = parse_override(override)
        _set(tree, dotted.split("."), value, override)
    return tree


def set_dotted(tree: Any, path: list[str], value: Any) -> None:
    """Set one value in a tree of mappings and lists, in place; missing mappings are created.

    Raises:
        InputError: the path leads through a value that is neither.
    """
    _set(tree, path, value, ".".join(path))


def _set(tree: Any, path: list[str], value: Any, override: str) -> None:
    *parents, last = path
    for part in parents:
        if isinstance(tree, dict) and tree.get(part) is None:
            tree[part] = {}
        tree = tree[_index(tree, part, override)]
    tree[_index(tree, last, override)] = value


def _index(tree: Any, part: str, override: str) -> Any:
    if isinstance(tree, dict):
        return part
    if isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
        return int(part)
    got = f"a list of {len(tree)}" if isinstance(tree, list) else repr(tree)
    raise InputError(f"override '{override}': there is no '{part}' in {got}")


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    current: type[BaseModel] = model
    for part in path:
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        current = next((a for a in options if isinstance(a, type) and issubclass(a, BaseModel)), current)
    return list(current.model_fields)


def dotted_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the fields of a model and of the models within it, dotted, without those that hold a model."""
    for name, field in model.model_fields.items():
        inner = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for kind in inner:
            yield from dotted_fields(kind, f"{prefix}{name}.")
        if not inner:
            yield prefix + name


def _kinds(annotation: Any) -> set[Any]:
    """Return all types in an annotation."""
    inner = get_args(annotation)
    kind = annotation if isinstance(annotation, type) else type(annotation)  # the type of a value of a Literal
    return {kind}.union(*map(_kinds, inner))
