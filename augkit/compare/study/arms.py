"""The arms of a study: architectures with policies at strengths, as recipes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from augkit.augment.policy import changes_nothing
from augkit.core.errors import InputError, unknown_name
from augkit.core.schema import Data, apply_overrides, validate
from augkit.train.build import CELL
from augkit.train.constraint import check_beside_constraint
from augkit.train.recipe import Recipe

OFF = "none"  # name of the policy without augmentation
DottedFields = dict[str, Any]  # values of recipe fields by dotted key, such as model.downsample


class ArmSettings(Data):
    """One arm, or all combinations of architectures, policies and strengths."""

    architectures: list[str] = Field(min_length=1, description="names of the study's architectures")
    policies: list[str] = Field([OFF], min_length=1, description="names of the study's policies")
    strengths: list[float] = Field([1.0], min_length=1, description="strengths of the policies, in (0, 1]")
    task: Literal["classify", "locate"] = Field(
        "classify", description="locate: predict in which ninth of the canvas the image lies"
    )
    floor: bool = Field(
        True,
        description="whether the study's floor of accuracy holds for them; not for arms that know less by design",
    )

    @model_validator(mode="before")
    @classmethod
    def _single(cls, tree: Any) -> Any:
        """Accept ``architecture``, ``policy`` and ``strength`` for a single arm."""
        if not isinstance(tree, dict):
            return tree
        plural = {"architecture": "architectures", "policy": "policies", "strength": "strengths"}
        if twice := [f"{key} or {several}" for key, several in plural.items() if key in tree and several in tree]:
            raise ValueError(f"{twice[0]}, not both")
        return {plural.get(key, key): [value] if key in plural else value for key, value in tree.items()}

    @model_validator(mode="after")
    def _check(self) -> ArmSettings:
        if not all(0 < strength <= 1 for strength in self.strengths):
            raise ValueError(f"strengths above 0 and at most 1 (0 is the policy '{OFF}')")
        return self


@dataclass(frozen=True)
class StudyArm:
    """One arm: its recipe, and settings that a recipe cannot hold.

    Attributes:
        name: ``architecture+policy@strength``.
        architecture, policy, strength: its settings in the study file.
        recipe: its recipe.
        callable: the network, ``package.module:callable``, where the recipe does not name it.
        task: ``classify`` or ``locate``.
        floor: whether the floor of accuracy holds for it.
    """

    name: str
    architecture: str
    policy: str
    strength: float
    recipe: Recipe
    callable: str | None = None
    task: str = "classify"
    floor: bool = True

    @property
    def source(self) -> str | None:
        """Name of the arm whose trained weights it begins with; None without one."""
        weights = self.recipe.model.weights
        return weights.removeprefix(CELL) if weights is not None and weights.startswith(CELL) else None


@dataclass(frozen=True)
class ArmBuilder:
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
            at = 1.0 if policy == OFF else strength
            found.append(self.build(architecture, policy, at, entry.task, floor=entry.floor))
        return found

    def build(self, architecture: str, policy: str, strength: float, task: str, *, floor: bool = True) -> StudyArm:
        """Build one arm; ``cell:+POLICY`` in model.weights is the arm of the same architecture."""
        name = f"{architecture}+{policy}" + (f"@{strength:g}" if strength != 1 else "")
        name += "+locate" if task == "locate" else ""
        own = dict(self.architectures[architecture])
        module = own.pop("callable", None)
        fields = {**own, **self.policies[policy]}
        weights = fields.get("model.weights")
        if isinstance(weights, str) and weights.startswith(f"{CELL}+"):
            fields["model.weights"] = CELL + architecture + weights.removeprefix(CELL)
        self._check(architecture, module, fields)
        tree = self.recipe.model_dump(mode="json")
        tree["name"] = name.replace("+", "-").replace("@", "-")
        # The ops of the base recipe are dropped; its kernel, padding and draws are kept.
        base = self.recipe.policy
        tree["policy"] = {"kernel": base.kernel, "padding": base.padding, "draws": base.draws, "strength": strength}
        tree = apply_overrides(tree, as_words(fields))
        if task == "locate":
            tree["invariance"]["every"] = None  # images of this task fill the canvas and leave no room for shifts
        recipe = validate(Recipe, tree, f"{self.source}: arm {name}")
        self._check_policy(name, policy, strength, recipe)
        try:
            check_beside_constraint(recipe)
        except InputError as error:
            raise InputError(f"{self.source}: arm {name}: {error}") from None
        return StudyArm(name, architecture, policy, strength, recipe, module, task, floor)

    def _check_policy(self, name: str, policy: str, strength: float, recipe: Recipe) -> None:
        """Raise InputError if the recipe does not have the augmentation that the name of the arm says."""
        where, own = f"{self.source}: arm {name}", recipe.policy
        if own.strength != strength:
            raise InputError(
                f"{where}: expected its strength in 'arms', as 'strength', got policy.strength {own.strength:g} among"
                " its fields"
            )
        if policy == OFF and not changes_nothing(own):
            raise InputError(f"{where}: expected no augmentation, as '{OFF}' is the control, got some; name a policy")

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


def as_words(dotted: DottedFields) -> list[str]:
    """Fields as ``dotted.key=value``, with values as JSON, which is also YAML."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in dotted.items()]


def check_sources(arms: Mapping[str, StudyArm], source: str) -> None:
    """Raise InputError if an arm begins with weights of an arm that does not exist, or, via others, with its own.

    Args:
        arms: arms of the study by name.
        source: name of the study file for the message.
    """
    for arm in arms.values():
        chain, name = [arm.name], arm.source
        while name is not None:
            if name not in arms:
                raise InputError(f"{source}: arm {chain[-1]}: model.weights: {unknown_name('arm', name, arms)}")
            if name in chain:
                circle = " from ".join([*chain, name])
                raise InputError(f"{source}: arm {arm.name}: expected weights that begin anew somewhere, got {circle}")
            if arms[name].task != arms[chain[-1]].task and arms[chain[-1]].recipe.model.weights_of != "features":
                raise InputError(
                    f"{source}: arm {chain[-1]}: expected model.weights_of: features with weights of an arm of another"
                    f" task, got those of {name}"
                )
            chain.append(name)
            name = arms[name].source
