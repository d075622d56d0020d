"""The call of a layer that a rule judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx.node import map_aggregate

from augkit.core.errors import brief
from augkit.invariance.certificate.state import Operand, unseen

MISSING: Any = object()


@dataclass(frozen=True)
class Call:
    """The arguments of a layer, with an `Operand` for every tensor, and its result for the traced images.

    Attributes:
        order: number of the step in the trace.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    order: int = 0
    result: Any = None

    def get(self, position: int, name: str, default: Any = MISSING) -> Any:
        """Return an argument by position or name.

        Raises:
            Broken: the argument is not given and has no default.
        """
        if len(self.args) > position:
            return self.args[position]
        if name in self.kwargs:
            return self.kwargs[name]
        if default is MISSING:
            raise unseen(f"its argument '{name}' is not understood")
        return default

    def rest(self, position: int, *names: str) -> Any:
        """Return trailing numbers, given separately or as a tuple: ``x.permute(0, 2, 1)``, ``x.permute((0, 2, 1))``."""
        for name in names:
            if name in self.kwargs:
                return self.kwargs[name]
        values = self.args[position:]
        return values[0] if len(values) == 1 else values

    @property
    def x(self) -> Operand:
        """The first argument, which must be a tensor."""
        found = self.get(0, "input")
        if not isinstance(found, Operand):
            raise unseen("its first argument is not a tensor")
        return found

    @property
    def out(self) -> Tensor:
        """The result, which must be one tensor."""
        if not isinstance(self.result, Tensor):
            raise unseen("its result is not a tensor")
        return self.result

    def operands(self) -> Iterator[Operand]:
        """All tensors among the arguments."""
        found: list[Operand] = []

        def collect(item: Any) -> Any:
            if isinstance(item, Operand):
                found.append(item)
            return item

        map_aggregate((self.args, self.kwargs), collect)
        return iter(found)


def pair(value: Any) -> tuple[int, int]:
    """Return an int or a pair, both of which layers accept, as a pair."""
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[-1]) if len(values) in (1, 2) else _not_a_pair(value)


def _not_a_pair(value: Any) -> tuple[int, int]:
    raise unseen(f"expected one number or two, got {brief(value)}")
