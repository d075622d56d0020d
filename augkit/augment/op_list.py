"""The ops of a transform as a list that may change after construction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from torch import nn

from augkit.augment.base import RandomGeometry, Size
from augkit.augment.color import is_kornia
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.ops.random_subpixel_shift import RandomSubpixelShift
from augkit.core.errors import InputError, InputTypeError


class Rules(NamedTuple):
    """What the ops of a transform must fit: its kernel and padding, and the size of its output where it has one."""

    kernel: str
    padding: str
    size: Size | None


class OpList(nn.ModuleList):
    """The ops of a transform: replace, insert, append or delete them as in any ``nn.ModuleList``.

    A change takes effect from the next call on. One that does not fit the transform raises, and leaves the list as it
    was.

    Attributes:
        own: augkit's own ops. This list and ``later`` are changed in place, so that whoever holds them sees changes:
            a transform asks for its ops a dozen times a call, and the items of a ``ModuleList`` are slow to reach.
        later: Kornia's ops.
        same_on_batch: set on every op that joins; None keeps the value of each.

    Raises:
        InputError, InputTypeError: an op of another library, a color op before geometry, two blurs, ops that
            the kernel or the output size excludes.

    >>> import augkit
    >>> augment = augkit.Augment(augkit.RandomSubpixelShift(2.0), augkit.RandomRescale(1.2))
    >>> augment.ops[1] = augkit.RandomHorizontalFlip()
    >>> augment.op_names
    ['shift', 'flip']
    """

    def __init__(
        self, ops: Iterable[nn.Module] = (), rules: Rules | None = None, same_on_batch: bool | None = None
    ) -> None:
        super().__init__()
        self.own: list[RandomGeometry] = []
        self.later: list[nn.Module] = []
        self.rules, self.same_on_batch = rules, same_on_batch
        self._become(list(ops))

    def share(self, same: bool | None) -> None:
        """Set ``same_on_batch`` on every op, and on those to come; None leaves each as it is."""
        self.same_on_batch = same
        for op in self if same is not None else ():
            op.same_on_batch = same  # type: ignore[assignment]

    def insert(self, index: int, module: nn.Module) -> None:
        """Insert ``module`` before ``index``."""
        ops = list(self)
        ops.insert(index, module)
        self._become(ops)

    def append(self, module: nn.Module) -> Self:
        """Add ``module`` at the end."""
        return self.extend([module])

    def extend(self, modules: Iterable[nn.Module]) -> Self:
        """Add all ``modules`` at the end."""
        self._become([*self, *modules])
        return self

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Put ``module`` at the number ``name``, which is at most the length."""
        ops: list[Any] = list(self)
        ops[int(name) : int(name) + 1] = [module]
        self._become(ops)

    def __setitem__(self, idx: int, module: nn.Module) -> None:
        ops = list(self)
        ops[idx] = module
        self._become(ops)

    def __delitem__(self, idx: int | slice) -> None:
        ops = list(self)
        del ops[idx]
        self._become(ops)

    def __setattr__(self, name: str, value: Any) -> None:
        # How many libraries replace a layer: setattr(parent, "1", layer).
        if name.isdigit():
            self[int(name)] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name.isdigit():
            del self[int(name)]
        else:
            super().__delattr__(name)

    def _become(self, ops: list[nn.Module]) -> None:
        if self.rules is not None:
            check_ops(ops, self.rules)
        before = list(self)
        for k in reversed(range(len(ops), len(before))):
            super().__delattr__(str(k))
        for k, op in enumerate(ops):
            super().add_module(str(k), op)
            if self.same_on_batch is not None and not any(op is old for old in before):
                op.same_on_batch = self.same_on_batch  # type: ignore[assignment]
        self.own[:] = [op for op in ops if isinstance(op, RandomGeometry)]
        self.later[:] = [op for op in ops if not isinstance(op, RandomGeometry)]


def check_ops(ops: list[nn.Module], rules: Rules) -> None:
    """Raise unless a transform of these ``rules`` can have ``ops``, in this order."""
    moving = [op for op in ops if isinstance(op, RandomGeometry)]
    for op in ops:
        if not isinstance(op, RandomGeometry) and not is_kornia(op):
            raise InputTypeError(
                "Augment: expected augkit ops such as RandomSubpixelShift, then Kornia's ops such as "
                f"ColorJitter, got {type(op).__name__}"
            )
    if any(isinstance(op, RandomGeometry) for op in ops[len(moving) :]):
        raise InputError("Augment: expected all geometry before the first color op; put the color ops last")
    if sum(isinstance(op, RandomShiftBlur) for op in moving) > 1:
        raise InputError("Augment: expected one RandomShiftBlur at most, got several; blurs do not add up")
    shifts = all(isinstance(op, (RandomSubpixelShift, RandomShiftBlur)) and op.axis_aligned for op in moving)
    if rules.kernel == "fourier" and not (rules.padding == "circular" and shifts):
        raise InputError("kernel 'fourier' expects padding 'circular' and RandomSubpixelShift ops alone")
    if rules.size is not None:
        _check_size(moving, rules.size, rules.kernel)


def _check_size(ops: list[RandomGeometry], size: Size, kernel: str) -> None:
    after = size
    for op in ops:
        after = op.output_size(after)
        if after != size:
            raise InputError(
                f"size: expected the size of the output {size}, got a {type(op).__name__} that gives {after}; "
                "leave one of the two sizes out"
            )
    if kernel == "fourier":
        raise InputError("size: expected None with kernel 'fourier', which cannot resize; use 'lanczos3' or 'sinc'")
