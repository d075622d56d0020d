"""A policy is augmentation as data: which ops, how far each reaches, how often, and with what kernel.

>>> policy = Policy(shift={"max_pixels": 3.0}, rescale={"max_factor": 1.2, "p": 0.5})
>>> policy.augment((40, 40))(torch.rand(2, 1, 40, 40)).shape
torch.Size([2, 1, 40, 40])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field

from augkit.errors import InputError
from augkit.schema import parse_yaml, validate

if TYPE_CHECKING:
    from augkit.transforms import Augment, RandomGeometry

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos3", "sinc", "fourier"]
Padding = Literal["zeros", "border", "reflection", "circular"]
Probability = Annotated[float, Field(ge=0, le=1)]


class Data(BaseModel):
    """Base of all that a recipe holds: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def searched(low: float, high: float, unit: str) -> dict[str, Any]:
    """Where `augkit.tune` searches a field, and its unit; stands beside the field, its only description."""
    return {"search": [low, high], "unit": unit}


class Shift(Data):
    """Sub-pixel shift along x and along y."""

    max_pixels: float = Field(
        0.0, ge=0, description="largest displacement", json_schema_extra=searched(0.0, 6.0, "pixels")
    )
    p: Probability = Field(1.0, description="share of samples", json_schema_extra=searched(0.0, 1.0, "probability"))


class Rescale(Data):
    """Scale about the centre, log-uniform."""

    max_factor: float = Field(
        1.0, ge=1, le=16, description="largest factor", json_schema_extra=searched(1.0, 1.5, "factor")
    )
    p: Probability = Field(1.0, description="share of samples", json_schema_extra=searched(0.0, 1.0, "probability"))


class Crop(Data):
    """Window of random area and aspect, resized to the whole."""

    min_area: float = Field(
        1.0, gt=0, le=1, description="smallest window", json_schema_extra=searched(0.4, 1.0, "fraction of area")
    )
    max_ratio: float = Field(4 / 3, ge=1, le=16, description="largest aspect, either way round (factor)")
    p: Probability = Field(1.0, description="share of samples", json_schema_extra=searched(0.0, 1.0, "probability"))


class Flip(Data):
    """Mirror left and right."""

    p: Probability = Field(0.5, description="share of samples (probability)")


class Policy(Data):
    """Ops with their ranges, in the order in which they apply: shift, rescale, crop, flip."""

    shift: Shift | None = Field(None, description="sub-pixel shift")
    rescale: Rescale | None = Field(None, description="scale about the centre")
    crop: Crop | None = Field(None, description="random window, resized")
    flip: Flip | None = Field(None, description="mirror left and right")
    strength: float = Field(1.0, ge=0, le=1, description="scales every range; 0 is the identity")
    kernel: Kernel = Field("lanczos3", description="interpolation kernel")
    padding: Padding = Field("zeros", description="pixels outside the image")

    @classmethod
    def from_yaml(cls, source: str | Path) -> Policy:
        """Read a policy from a YAML file, or from YAML text.

        Raises:
            InputError: the file is missing, or a key or a value is not one of a policy.
        """
        if isinstance(source, Path) or str(source).endswith((".yaml", ".yml")):
            path = Path(source)
            if not path.is_file():
                raise InputError(f"policy: expected a file, '{path}' is none")
            return validate(cls, parse_yaml(path.read_text(), str(path)), str(path))
        return validate(cls, parse_yaml(source, "policy"), "policy")

    def to_yaml(self) -> str:
        """YAML that `from_yaml` reads back to an equal policy."""
        return yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False)

    @property
    def is_identity(self) -> bool:
        """Whether no op is present or the strength is 0."""
        return self.strength == 0 or not any((self.shift, self.rescale, self.crop, self.flip))

    def ops(self, size: tuple[int, int] | None = None) -> list[RandomGeometry]:
        """The device ops; ``size`` ``(H, W)`` is what a crop is resized to, the input's own when None."""
        from augkit import transforms

        ops: list[RandomGeometry] = []
        if self.shift:
            ops.append(transforms.RandomSubpixelShift(self.shift.max_pixels, self.shift.p))
        if self.rescale:
            ops.append(transforms.RandomRescale(self.rescale.max_factor, self.rescale.p))
        if self.crop:
            ratio = (1 / self.crop.max_ratio, self.crop.max_ratio)
            ops.append(transforms.RandomSubpixelCrop(size, (self.crop.min_area, 1.0), ratio, self.crop.p))
        if self.flip:
            ops.append(transforms.RandomHorizontalFlip(self.flip.p))
        return ops

    def augment(
        self,
        size: tuple[int, int] | None = None,
        normalize: tuple[Any, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Augment:
        """The device transform of this policy; arguments as in `Augment`."""
        from augkit.transforms import Augment

        return Augment(
            *([] if self.is_identity else self.ops(size)),
            kernel=self.kernel,
            padding=self.padding,
            normalize=normalize,
            dtype=dtype,
            strength=self.strength,
        )

    def __str__(self) -> str:
        parts = []
        for name in ("shift", "rescale", "crop", "flip"):
            op = getattr(self, name)
            if op is not None:
                values = ", ".join(f"{k} {v:.3g}" for k, v in op.model_dump().items())
                parts.append(f"{name} ({values})")
        return ", ".join(parts) or "no augmentation"


def search_space(policy: Policy) -> dict[str, tuple[float, float, str]]:
    """What `augkit.tune` searches: dotted field to ``(low, high, unit)``, for the ops that the policy has.

    A policy without ops is searched over shift, rescale and crop.
    """
    ops = [name for name in ("shift", "rescale", "crop") if getattr(policy, name) is not None]
    space = {}
    for name in ops or ["shift", "rescale", "crop"]:
        model = {"shift": Shift, "rescale": Rescale, "crop": Crop}[name]
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and isinstance(extra.get("search"), list):
                low, high = extra["search"]  # type: ignore[misc]
                space[f"{name}.{key}"] = (float(low), float(high), str(extra["unit"]))  # type: ignore[arg-type]
    return space


def with_values(policy: Policy, values: dict[str, float]) -> Policy:
    """The policy with dotted fields replaced, e.g. ``{"shift.max_pixels": 3.0}``; ops that miss are added."""
    tree = policy.model_dump(exclude_none=True)
    for dotted, value in values.items():
        op, key = dotted.split(".")
        tree.setdefault(op, {})[key] = value
    return validate(Policy, tree, "policy")
