"""The spec of an op: its complete description for the rest of augkit, next to its class.

Policies, search spaces, previews and their captions, and the tests are derived from these specs, so that a new op is
one file in `augkit.augment.ops`. Two facts need no entry: masks, boxes and keypoints follow every op by its matrix, and
an op is axis-aligned if it defines ``axes`` (see `augkit.augment.base.RandomGeometry`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from augkit.core.schema import Data

if TYPE_CHECKING:
    from augkit.augment.base import RandomGeometry

Size = tuple[int, int]
Matrix = list[list[float]]


@dataclass(frozen=True)
class Amount:
    """The range of a numeric field of an op, as an annotation of the field in its `OpSettings`.

    Attributes:
        weak: the value at which the op changes nothing.
        strong: a value that changes typical images strongly. `augkit.tune` searches between the two.
        unit: the unit of both.
        searched: whether `augkit.tune` searches the field if the recipe has no range for it.
    """

    weak: float
    strong: float
    unit: str
    searched: bool = True

    @property
    def low(self) -> float:
        """The smaller of ``weak`` and ``strong``."""
        return min(self.weak, self.strong)

    @property
    def high(self) -> float:
        """The larger of ``weak`` and ``strong``."""
        return max(self.weak, self.strong)


Probability = Annotated[float, Amount(0.0, 1.0, "probability"), Field(ge=0, le=1)]


def per_axis(low: float, high: float | None = None) -> BeforeValidator:
    """A validator of a field for a number or a pair ``(x, y)``, with each number in ``[low, high]``."""
    number: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)])

    def check(value: Any) -> Any:
        pair = isinstance(value, (list, tuple))
        if pair and len(value) != 2:
            raise ValueError("a number or a pair [x, y]")
        try:
            checked = [number.validate_python(one) for one in (value if pair else [value])]
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Input should be ")) from None
        return tuple(checked) if pair else checked[0]

    return BeforeValidator(check)


class OpSettings(Data):
    """The fields of one op in a policy. Every op has a field ``p``, the share of samples that it changes."""

    # Fields that came after the op: where they have their defaults, dumps and digests stay as they were.
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        tree: dict[str, object] = dump(self)
        fields = type(self).model_fields
        return {key: value for key, value in tree.items() if key not in self.added or value != fields[key].default}

    @classmethod
    def amounts(cls) -> dict[str, Amount]:
        """Return the fields with an `Amount`, by name."""
        rows = {name: field.metadata for name, field in cls.model_fields.items()}
        return {name: row for name, found in rows.items() for row in found if isinstance(row, Amount)}

    @property
    def changes_nothing(self) -> bool:
        """Whether the op is the identity for all draws: never applied, or all its ranges empty."""
        amounts = self.amounts()
        ranges = amounts.keys() - {"p"}
        idle = {name for name, amount in amounts.items() if getattr(self, name) in (amount.weak, (amount.weak,) * 2)}
        return "p" in idle or bool(ranges and ranges <= idle)

    def __str__(self) -> str:
        fields = self.model_dump().items()
        values = [f"{name} {_written(value)}" for name, value in fields if not isinstance(value, bool)]
        return ", ".join([*values, *(name.replace("_", " ") for name, value in fields if value is True)])


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return " × ".join(f"{one:.3g}" for one in (value if isinstance(value, tuple) else (value,)))


S = TypeVar("S", bound=OpSettings)


@dataclass(frozen=True)
class OpSpec(Generic[S]):
    """The description of an op for policies, searches, previews and reports.

    Attributes:
        name: key of the op in a policy.
        title: a phrase that describes the effect.
        place: position in the order in which a policy applies its ops.
        settings: class of the op's fields in a policy, with their bounds and `Amount`.
        make: creates the op from its settings and the output size ``(H, W)``, None for the input's.
        describe: returns the range of settings as text, with the unit.
        caption: returns the effect of one matrix ``(3, 3)`` as text, with the unit.
        example: returns settings with a visible effect for images whose shorter side has the given pixels.
        searched_by_default: whether `augkit.tune` searches the op if a policy has no ops.
        dumped_if_absent: whether the dump of a policy without the op has a None for it. True only for the first four
            ops, so that digests of recipes, checkpoints and studies from before a later op existed stay the same.
    """

    name: str
    title: str
    place: int
    settings: type[S]
    make: Callable[[S, Size | None], RandomGeometry]
    describe: Callable[[S], str]
    caption: Callable[[Matrix], str]
    example: Callable[[int], S]
    searched_by_default: bool = False
    dumped_if_absent: bool = False
