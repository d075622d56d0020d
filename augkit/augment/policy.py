"""A policy is augmentation as data: which ops, how far each reaches, how often, and with what kernel.

>>> policy = Policy(shift={"max_pixels": 3.0}, rescale={"max_factor": 1.2, "p": 0.5})
>>> policy.augment((40, 40))(torch.rand(2, 1, 40, 40)).shape
torch.Size([2, 1, 40, 40])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import nn

from augkit.augment.external_ops import Op, WorkerStep, device_op, worker_op
from augkit.core import yaml_text
from augkit.core.errors import InputError
from augkit.core.schema import Data, parse_yaml, read_yaml, validate

if TYPE_CHECKING:
    import albumentations

    from augkit.augment.base import RandomGeometry
    from augkit.augment.compose import Augment

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos3", "sinc", "fourier"]
Padding = Literal["zeros", "border", "reflection", "circular"]


@dataclass(frozen=True)
class Search:
    """Where `augkit.tune` searches a field, and its unit; stands in the field, its only description."""

    low: float
    high: float
    unit: str


Probability = Annotated[float, Search(0.0, 1.0, "probability"), Field(ge=0, le=1)]
Pixels = Annotated[float, Search(0.0, 6.0, "pixels"), Field(ge=0)]
Factor = Annotated[float, Search(1.0, 1.5, "factor"), Field(ge=1, le=16)]
Area = Annotated[float, Search(0.4, 1.0, "fraction of area"), Field(gt=0, le=1)]


class Shift(Data):
    """Sub-pixel shift along x and along y."""

    max_pixels: Pixels = Field(0.0, description="largest displacement (pixels)")
    p: Probability = Field(1.0, description="share of samples (probability)")
    blur_only: bool = Field(False, description="control: blur as the shift would, but move nothing")


class Rescale(Data):
    """Scale about the centre, log-uniform."""

    max_factor: Factor = Field(1.0, description="largest factor, either way (factor)")
    p: Probability = Field(1.0, description="share of samples (probability)")


class Crop(Data):
    """Window of random area and aspect, resized to the whole."""

    min_area: Area = Field(1.0, description="smallest window (fraction of area)")
    max_ratio: float = Field(1.33, ge=1, le=16, description="largest aspect, either way round (factor)")
    p: Probability = Field(1.0, description="share of samples (probability)")


class Flip(Data):
    """Mirror left and right."""

    p: float = Field(0.5, ge=0, le=1, description="share of samples (probability)")


SEARCHED: dict[str, type[Data]] = {"shift": Shift, "rescale": Rescale, "crop": Crop}


def _checked(build: Callable[[Op], Any]) -> AfterValidator:
    """Each entry by itself, so that an error names the entry."""

    def check(op: Op) -> Op:
        build(op)
        return op

    return AfterValidator(check)


class Policy(Data):
    """Ops with their ranges, in the order in which they apply: shift, rescale, crop, flip, then ``ops``.

    The geometry of augkit's own ops, those among ``ops`` too, is composed and resampled once; Kornia's ops follow in
    their order, and those that move pixels resample once more each.
    """

    shift: Shift | None = Field(None, description="sub-pixel shift")
    rescale: Rescale | None = Field(None, description="scale about the centre")
    crop: Crop | None = Field(None, description="random window, resized")
    flip: Flip | None = Field(None, description="mirror left and right")
    ops: list[Annotated[Op, _checked(device_op)]] = Field(
        [], description="further ops on the device: those of augkit, composed first, then those of kornia.augmentation"
    )
    worker_ops: list[Annotated[Op, _checked(worker_op)]] = Field(
        [], description="ops before all others, in the loading processes: albumentations"
    )
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
            return validate(cls, read_yaml(path, "policy"), str(path))
        return validate(cls, parse_yaml(source, "policy"), "policy")

    def to_yaml(self) -> str:
        """YAML that `from_yaml` reads back to an equal policy."""
        return yaml_text.dump(self.model_dump(exclude_none=True))

    @property
    def is_identity(self) -> bool:
        """Whether no op is present or the strength is 0."""
        present = (self.shift, self.rescale, self.crop, self.flip, self.ops, self.worker_ops)
        return self.strength == 0 or not any(present)

    def geometry(self, size: tuple[int, int] | None = None) -> list[RandomGeometry]:
        """augkit's ops of the four fields; ``size`` ``(H, W)`` is that of a resized crop, the input's when None."""
        from augkit.augment import ops as transforms

        ops: list[RandomGeometry] = []
        if self.shift:
            op = transforms.RandomShiftBlur if self.shift.blur_only else transforms.RandomSubpixelShift
            ops.append(op(self.shift.max_pixels, self.shift.p))
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
        from augkit.augment.base import RandomGeometry
        from augkit.augment.compose import Augment

        ops: list[nn.Module] = [] if self.is_identity else [*self.geometry(size), *map(device_op, self.ops)]
        ops.sort(key=lambda op: not isinstance(op, RandomGeometry))  # stable: geometry first, each in its order
        return Augment(
            *ops,
            kernel=self.kernel,
            padding=self.padding,
            normalize=normalize,
            dtype=dtype,
            strength=self.strength,
        )

    def albumentations(
        self,
        size: tuple[int, int] | None = None,
        *,
        bbox_params: Any = None,
        keypoint_params: Any = None,
        backend: Literal["torch", "opencv"] = "torch",
        seed: int | None = None,
    ) -> albumentations.Compose:
        """The CPU twin: an ``albumentations.Compose`` with the same distribution, for DataLoader workers.

        ``worker_ops`` come first, as in training; Kornia's ops among ``ops`` run in the twin, one image at a time.
        ``bbox_params`` and ``keypoint_params`` are albumentations' own; ``backend`` is explained in
        `augkit.adapters.albumentations`.

        >>> import numpy
        >>> twin = Policy(shift={"max_pixels": 2.0}).albumentations(seed=0)
        >>> twin(image=numpy.zeros((24, 32, 3), numpy.uint8))["image"].shape
        (24, 32, 3)
        """
        from albumentations import Sequential

        from augkit.augment.albumentations_twin import Compose, PolicyTransform

        before = [] if self.strength == 0 else [worker_op(op) for op in self.worker_ops]
        if before and self.strength < 1:  # all of them or none, as in `WorkerStep`
            before = [Sequential(before, p=self.strength)]
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0):
            raise InputError(f"seed: expected an integer of at least 0, got {seed!r}")
        transform = PolicyTransform(self.model_dump(exclude_none=True, exclude={"worker_ops"}), size, backend)
        return Compose([*before, transform], bbox_params=bbox_params, keypoint_params=keypoint_params, seed=seed)

    def worker_step(self, seed: int, epoch: int) -> WorkerStep | None:
        """``worker_ops`` for the processes that load the data; None where there are none."""
        if not self.worker_ops or self.strength == 0:
            return None
        return WorkerStep(tuple(self.worker_ops), self.strength, seed, epoch)

    def __str__(self) -> str:
        parts = []
        for name in ("shift", "rescale", "crop", "flip"):
            op = getattr(self, name)
            if op is not None:
                fields = op.model_dump(exclude={"blur_only"}).items()
                values = ", ".join(f"{k} {v:.3g}" for k, v in fields)
                values += ", blur only" if getattr(op, "blur_only", False) else ""
                parts.append(f"{name} ({values})")
        parts += [str(op) for op in self.ops]
        parts += [f"{op} in workers" for op in self.worker_ops]
        return ", ".join(parts) or "no augmentation"


def search_space(policy: Policy) -> dict[str, tuple[float, float, str]]:
    """What `augkit.tune` searches: dotted field to ``(low, high, unit)``, for the ops that the policy has.

    A policy without ops is searched over shift, rescale and crop.
    """
    names = [name for name in SEARCHED if getattr(policy, name) is not None] or list(SEARCHED)
    return {
        f"{name}.{key}": (row.low, row.high, row.unit)
        for name in names
        for key, field in SEARCHED[name].model_fields.items()
        for row in field.metadata
        if isinstance(row, Search)
    }


def with_values(policy: Policy, values: dict[str, float]) -> Policy:
    """The policy with dotted fields replaced, e.g. ``{"shift.max_pixels": 3.0}``; ops that miss are added."""
    tree = policy.model_dump(exclude_none=True)
    for dotted, value in values.items():
        op, key = dotted.split(".")
        tree.setdefault(op, {})[key] = value
    return validate(Policy, tree, "policy")


def changes_nothing(policy: Policy) -> bool:
    """Whether a policy is the identity whatever is drawn."""
    if policy.strength == 0:
        return True
    if policy.ops or policy.worker_ops or (policy.flip and policy.flip.p):
        return False
    shift, rescale, crop = policy.shift, policy.rescale, policy.crop
    return (
        (shift is None or shift.p * shift.max_pixels == 0)
        and (rescale is None or rescale.p * (rescale.max_factor - 1) == 0)
        and (crop is None or crop.p == 0 or (crop.min_area == 1 and crop.max_ratio == 1))
    )
