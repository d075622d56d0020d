"""The inputs of `augkit.tune_policy`: validation images and the space of a policy, both checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augkit.augment.policy import Policy, changes_nothing
from augkit.core.errors import InputError, InputTypeError
from augkit.core.schema import Tree
from augkit.data import Images
from augkit.train.recipe import find_ranges
from augkit.tune.space import Space


@dataclass(frozen=True)
class HeldOut:
    """Validation images in the place of a dataset; ``name`` identifies them.

    A search does not know the training images of a function. Their number only sets the share of measuring in the
    progress bar, and the validation images stand in for them.
    """

    validation: Images
    name: str

    @property
    def listed_train(self) -> Images:
        """The validation images."""
        return self.validation


def policy_space(space: Policy | Mapping[str, Any], settings: Tree) -> Space:
    """The space of the policy's strengths, or of the ranges of a mapping.

    Args:
        space: the policy, or a mapping as under ``policy`` in a recipe.
        settings: the other sections of the recipe that holds it.

    Raises:
        InputError: there is nothing to search, or the mapping is not that of a policy.
    """
    if not isinstance(space, (Policy, Mapping)):
        raise InputTypeError(f"space: expected an augkit.Policy or a mapping, got {type(space).__name__}")
    tree = space.model_dump(exclude_none=True) if isinstance(space, Policy) else _copied(space)
    found = Space.of({**settings, "policy": tree}, "space")
    # A recipe without ops has some that are searched by default; for a space that was given, that would be a surprise.
    written = not isinstance(space, Policy) and any(find_ranges(dict(space)))
    added = not written and any(key.split(".")[1] not in found.recipe.policy.own_ops for key in found.ranges)
    if added or not found.ranges or changes_nothing(found.with_values(found.preset(1.0)).policy):
        raise InputError(
            f"space: expected an op whose strength can be searched, such as shift, got {found.recipe.policy}"
        )
    return found


def _copied(tree: Mapping[str, Any]) -> Tree:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
