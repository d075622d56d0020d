"""A policy is augmentation as data: the ops, their ranges and probabilities, and the kernel.

>>> policy = Policy(shift={"max_pixels": 3.0}, rescale={"max_factor": 1.2, "p": 0.5})
>>> policy.augment((40, 40))(torch.rand(2, 1, 40, 40)).shape
torch.Size([2, 1, 40, 40])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
)
from torch import Tensor, nn

from augkit.augment.external_ops import Op, WorkerStep, device_op, worker_op
from augkit.augment.op_spec import Amount, OpSettings
from augkit.augment.op_strengths import KORNIA
from augkit.augment.ops import op_classes, op_specs
from augkit.augment.strength_schedule import ALL, WORKERS, Points, strength_at
from augkit.core import yaml_text
from augkit.core.class_names import class_mask
from augkit.core.errors import InputError, InputTypeError, brief, unknown_name
from augkit.core.schema import Data, parse_yaml, read_yaml, validate

if TYPE_CHECKING:
    import albumentations

    from augkit.augment.base import RandomGeometry
    from augkit.augment.compose import Augment

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos3", "sinc", "fourier"]
Padding = Literal["zeros", "border", "reflection", "circular"]


def _checked(build: Callable[[Op], Any]) -> AfterValidator:
    """Return a validator that checks each entry separately, so that an error names the entry."""

    def check(op: Op) -> Op:
        build(op)
        return op

    return AfterValidator(check)


if TYPE_CHECKING:

    class OpFields(Data):
        """One field for each spec of `augkit.augment.ops`, created at run time."""

        def __getattr__(self, name: str) -> Any: ...

else:
    OpFields = create_model(
        "OpFields",
        __base__=Data,
        __module__=__name__,
        **{s.name: (s.settings | None, Field(None, description=s.title)) for s in op_specs().values()},
    )


class Policy(OpFields):
    """Ops with their ranges: augkit's own in the order of their fields, then ``ops``.

    The geometry of augkit's own ops, including those in ``ops``, is composed and resampled once. Kornia's ops follow in
    order, and each that moves pixels resamples once more.
    """

    ops: list[Annotated[Op, _checked(device_op)]] = Field(
        [], description="further ops on the device: those of augkit, composed first, then those of kornia.augmentation"
    )
    worker_ops: list[Annotated[Op, _checked(worker_op)]] = Field(
        [], description="ops before all others, in the loading processes: albumentations"
    )
    strength: float = Field(1.0, ge=0, le=1, description="scales every range; 0 is the identity")
    kernel: Kernel = Field("lanczos3", description="interpolation kernel")
    padding: Padding = Field("zeros", description="pixels outside the image")
    schedule: dict[str, Points] | None = Field(
        None,
        description="strength over training, times 'strength', by the name of an op: points [epoch, strength] with"
        " straight lines between; 'ops', 'worker_ops' and 'all' (every op that is not named) are names too",
    )
    classes: list[int | str] | None = Field(
        None, min_length=1, description="augment images of these classes alone, by number or name; all when null"
    )
    share: float = Field(
        1.0, gt=0, le=1, description="augment this share of the images of every class, the same images in all epochs"
    )
    draws: Literal["random", "even"] = Field(
        "random", description="even: over the epochs those of an image are spread evenly over the ranges"
    )

    @classmethod
    def from_yaml(cls, source: str | Path) -> Policy:
        """Read a policy from a YAML file, or from YAML text.

        Raises:
            InputError, InputTypeError: the file is missing, or a key or a value is invalid.
        """
        if not isinstance(source, (str, Path)):
            raise InputTypeError(f"policy: expected a file or text, got {type(source).__name__}; use Policy(**fields)")
        if isinstance(source, Path) or str(source).endswith((".yaml", ".yml")):
            path = Path(source)
            if not path.is_file():
                raise InputError(f"policy: expected a file, '{path}' is none")
            return validate(cls, read_yaml(path, "policy"), str(path))
        return validate(cls, parse_yaml(source, "policy"), "policy")

    def to_yaml(self) -> str:
        """Return YAML text from which `from_yaml` reads an equal policy."""
        return yaml_text.dump(self.model_dump(exclude_none=True))

    @field_validator("schedule")
    @classmethod
    def _of_present_ops(cls, schedule: dict[str, Points] | None, info: ValidationInfo) -> dict[str, Points] | None:
        listed = [op.op for op in info.data.get("ops") or []]
        rows = {name: made.spec.name for name, made in op_classes().items() if made.spec is not None}
        present = [name for name in op_specs() if info.data.get(name) is not None]
        present += [rows.get(name, KORNIA) for name in listed]
        present += [WORKERS] if info.data.get(WORKERS) else []
        for name in schedule or {}:
            if name not in (ALL, *present):
                raise ValueError(f"ops that the policy has; {unknown_name('op', name, {ALL, *present})}")
        return schedule

    @model_serializer(mode="wrap")
    def _without_absent_ops(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Dump without absent later fields, so that these do not change the dumps and digests of existing policies."""
        tree: dict[str, object] = dump(self)
        absent = {name: None for name, spec in op_specs().items() if not spec.dumped_if_absent}
        absent |= {name: type(self).model_fields[name].default for name in ("schedule", "classes", "share", "draws")}
        return {key: value for key, value in tree.items() if key not in absent or value != absent[key]}

    def class_mask(self, names: Sequence[str]) -> Tensor | None:
        """Whether images of each class are augmented, ``(K,)`` bool; None where those of all are.

        Raises:
            InputError: ``classes`` has a name that is not among ``names``, or a number beyond them.
        """
        return class_mask(self.classes, names, "policy.classes")

    def strength_of(self, name: str, epoch: float) -> float:
        """The strength of one op, by a name of ``schedule``, after so many epochs of training."""
        points = (self.schedule or {}).get(name) or (self.schedule or {}).get(ALL)
        return self.strength if points is None else self.strength * strength_at(points, epoch)

    @property
    def own_ops(self) -> dict[str, OpSettings]:
        """The settings of augkit's own ops that are present, by name, in the order in which they apply."""
        found = {name: getattr(self, name) for name in op_specs()}
        return {name: settings for name, settings in found.items() if settings is not None}

    @property
    def is_identity(self) -> bool:
        """Whether no op is present or the strength is 0."""
        return self.strength == 0 or not any((self.own_ops, self.ops, self.worker_ops))

    def geometry(self, size: tuple[int, int] | None = None) -> list[RandomGeometry]:
        """Return augkit's own ops except those in ``ops``; a crop resizes to ``size`` (H, W), the input's when None."""
        return [op_specs()[name].make(settings, size) for name, settings in self.own_ops.items()]

    def augment(
        self,
        size: tuple[int, int] | None = None,
        normalize: tuple[Any, Any] | None = None,
        dtype: torch.dtype | None = None,
        *,
        fit: bool = False,
        mask_fill: float | None = None,
    ) -> Augment:
        """Return the device transform of this policy; arguments as in `Augment`.

        With ``fit`` images of any size are fitted to ``size`` before all ops, as in training on whole images; else a
        crop ends at ``size``, and a policy without one leaves the size as it is.

        It knows neither epochs nor labels: the training loop passes the effect of ``schedule``, ``classes``,
        ``share`` and ``draws`` with each call (`augkit.train.policy_in_training`).
        """
        from augkit.augment.base import RandomGeometry
        from augkit.augment.compose import Augment

        if fit and size is None:
            raise InputError("policy: expected a size (H, W) to fit images to, got None")
        own = self.geometry(None if fit else size)
        ops: list[nn.Module] = [] if self.is_identity else [*own, *map(device_op, self.ops)]
        ops.sort(key=lambda op: not isinstance(op, RandomGeometry))  # stable: geometry first, each in its order
        return Augment(
            *ops,
            kernel=self.kernel,
            padding=self.padding,
            normalize=normalize,
            dtype=dtype,
            strength=self.strength,
            mask_fill=mask_fill,
            size=size if fit else None,
        )

    def albumentations(
        self,
        size: tuple[int, int] | None = None,
        *,
        bbox_params: Any = None,
        keypoint_params: Any = None,
        backend: Literal["torch", "opencv"] = "torch",
        seed: int | None = None,
        fit: bool = False,
        mask_fill: float | None = None,
    ) -> albumentations.Compose:
        """Return the CPU twin: an ``albumentations.Compose`` with the same distribution, for DataLoader workers.

        ``worker_ops`` come first, as in training; Kornia's ops among ``ops`` run in the twin, one image at a time.
        ``size``, ``fit`` and ``mask_fill`` are those of `augment`, ``bbox_params`` and ``keypoint_params``
        albumentations' own; ``backend`` is explained in `augkit.adapters.albumentations`.

        >>> import numpy
        >>> twin = Policy(shift={"max_pixels": 2.0}).albumentations(seed=0)
        >>> twin(image=numpy.zeros((24, 32, 3), numpy.uint8))["image"].shape
        (24, 32, 3)
        """
        from albumentations import Sequential

        from augkit.augment.albumentations_twin import Compose, PolicyTransform, check_twin

        check_twin(self)
        before = [] if self.strength == 0 else [worker_op(op) for op in self.worker_ops]
        if before and self.strength < 1:  # all of them or none, as in `WorkerStep`
            before = [Sequential(before, p=self.strength)]
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0):
            raise InputError(f"seed: expected an integer of at least 0, got {brief(seed)}")
        seed = None if seed is None else int(seed)  # albumentations takes no integer of NumPy
        fields = self.model_dump(exclude_none=True, exclude={"worker_ops"})
        transform = PolicyTransform(fields, size, backend, fit=fit, mask_fill=mask_fill)
        return Compose([*before, transform], bbox_params=bbox_params, keypoint_params=keypoint_params, seed=seed)

    def worker_step(self, seed: int, epoch: int, chosen: Tensor | None = None) -> WorkerStep | None:
        """Return ``worker_ops`` as a step of the processes that load the data, at their strength when ``epoch`` begins.

        ``chosen`` is as in `WorkerStep`. None where there are no such ops.
        """
        if not self.worker_ops or self.strength == 0:
            return None
        return WorkerStep(tuple(self.worker_ops), self.strength_of(WORKERS, epoch), seed, epoch, chosen)

    def __str__(self) -> str:
        parts = [f"{name} ({settings})" for name, settings in self.own_ops.items()]
        parts += [str(op) for op in self.ops]
        parts += [f"{op} in workers" for op in self.worker_ops]
        if parts and self.classes is not None:
            parts.append(f"on classes {', '.join(map(str, self.classes))} alone")
        parts += [f"on {self.share:.0%} of the images of a class"] if parts and self.share < 1 else []
        parts += ["strength by schedule"] if parts and self.schedule else []
        parts += ["even draws"] if parts and self.draws == "even" else []
        return ", ".join(parts) or "no augmentation"


def amount_of(dotted: str) -> Amount | None:
    """Return the `Amount` of a dotted field such as ``shift.max_pixels``; None if it is not a field of an op."""
    name, _, key = dotted.partition(".")
    spec = op_specs().get(name)
    return None if spec is None else spec.settings.amounts().get(key)


def search_space(policy: Policy) -> dict[str, Amount]:
    """What `augkit.tune` searches, by dotted field: the ops that the policy has, else those searched by default.

    A field that holds a pair ``(x, y)`` keeps it.
    """
    chosen = [name for name in policy.own_ops if _searched(name)]
    chosen = chosen or [name for name, spec in op_specs().items() if spec.searched_by_default]
    found = {f"{name}.{key}": amount for name in chosen for key, amount in _searched(name).items()}
    pairs = {f"{name}.{key}" for name, own in policy.own_ops.items() for key, v in own if isinstance(v, tuple)}
    return {dotted: amount for dotted, amount in found.items() if dotted not in pairs}


def _searched(name: str) -> dict[str, Amount]:
    amounts = op_specs()[name].settings.amounts()
    return {key: amount for key, amount in amounts.items() if amount.searched}


def with_values(policy: Policy, values: dict[str, float]) -> Policy:
    """Return the policy with dotted fields replaced, e.g. ``{"shift.max_pixels": 3.0}``; missing ops are added."""
    tree = policy.model_dump(exclude_none=True)
    for dotted, value in values.items():
        op, key = dotted.split(".")
        tree.setdefault(op, {})[key] = value
    return validate(Policy, tree, "policy")


def changes_nothing(policy: Policy) -> bool:
    """Whether a policy is the identity for all draws."""
    if policy.strength == 0:
        return True
    others = policy.ops or policy.worker_ops
    return not others and all(settings.changes_nothing for settings in policy.own_ops.values())
