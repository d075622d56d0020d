"""A device ``mps`` on any machine: tensors of the CPU that claim to lie on Apple's GPU, which has no float64.

Real data lies on the CPU and all numbers are right. What is simulated is which tensors lie on the device, and what is
refused there: float64 and complex128, also as the dtype of a copy to the CPU in one step, tensors of two devices in one
operation, and `numpy`. Operations within one function of torch, and those of a backward pass, are not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

MPS, CPU = torch.device("mps:0"), torch.device("cpu")
WIDE = (torch.float64, torch.complex128)
# May take tensors of both devices: copies, and changes of what a tensor is.
MIXED = {"copy_", "to", "type_as", "__get__", "__set__", "__getitem__", "__setitem__", "index_put_"}
MIXED |= {"_has_compatible_shallow_copy_type", "is_same_size", "set_", "allclose", "_is_view", "isin"}


class AppleGPU(TorchFunctionMode):
    """Within this mode a tensor that was made on, or moved to, ``mps`` lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, StorageWeakRef] = {}

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on the device; its views do too."""
        with contextlib.suppress(NotImplementedError, RuntimeError):  # it has no storage
            return self._place(tensor) in self.storages
        return False

    def _place(self, tensor: Tensor) -> int:
        place: int = tensor.untyped_storage()._cdata
        return place

    def _hold(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.dtype in WIDE:
            raise TypeError(f"{name}: Cannot convert a MPS Tensor to {tensor.dtype}: MPS does not support it")
        with contextlib.suppress(NotImplementedError, RuntimeError):
            self.storages[self._place(tensor)] = StorageWeakRef(tensor.untyped_storage())  # keeps its address taken
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in ("_parse_to", "device"):  # which reads arguments of `Module.to`, and makes a `torch.device`
            return func(*args, **(kwargs or {}))
        leaves = list(_leaves((args, kwargs or {})))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        held = [self.holds(tensor) for tensor in given]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return MPS if held[0] else func(*args)
        if func == Tensor.is_mps.__get__:  # type: ignore[attr-defined]
            return held[0]
        if name in ("numpy", "__array__") and any(held):
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first")
        if name not in MIXED and any(held) and not all(held):
            others = [tensor for tensor, on in zip(given, held, strict=True) if not on and tensor.ndim]
            if others:
                raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found mps:0 and cpu")
        wanted = self._wanted(name, leaves, given, held)
        args, kwargs = _mapped(_on_the_cpu, (args, kwargs or {}))
        result = func(*args, **kwargs)
        if isinstance(result, torch.Generator | torch.Size) or name in ("__set__", "data_ptr"):
            return result
        return _mapped(lambda leaf: self._settle(leaf, name, given, held, wanted), result)

    def _wanted(self, name: str, leaves: list[Any], given: list[Tensor], held: list[bool]) -> torch.device | None:
        """The device that a call names for its result."""
        if name == "cpu":
            return CPU
        if name == "to" and len(given) == 2:
            return MPS if held[1] else CPU
        named = [_device(leaf) for leaf in leaves]
        return next((device for device in named if device is not None), None)

    def _settle(self, leaf: Any, name: str, given: list[Tensor], held: list[bool], wanted: torch.device | None) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if wanted == CPU:
            if self.holds(leaf):  # the same memory
                return leaf.clone()
            if any(held) and leaf.dtype in WIDE and not any(tensor.dtype in WIDE for tensor in given):
                raise TypeError(f"{name}: MPS cannot copy to the CPU and convert to {leaf.dtype} at once")
            return leaf
        if wanted == MPS:
            if any(leaf is tensor for tensor in given) and not self.holds(leaf):
                leaf = leaf.clone()
            return self._hold(leaf, name)
        in_place = name.endswith("_") and not name.endswith("__")
        if name in ("__getitem__", *MIXED) or in_place:  # the result lies where the first tensor does
            return self._hold(leaf, name) if held and held[0] else leaf
        return self._hold(leaf, name) if any(held) else leaf


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list) or isinstance(value, torch.Size):
        yield value
        return
    for part in value:
        yield from _leaves(part)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(function, part) for key, part in value.items()}
    if not isinstance(value, tuple | list) or isinstance(value, torch.Size):
        return function(value)
    parts = [_mapped(function, part) for part in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*parts)
    return type(value)(parts)


def _device(value: Any) -> torch.device | None:
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str) and value.partition(":")[0] in ("mps", "cpu"):
        return torch.device(value)
    return None


def _on_the_cpu(value: Any) -> Any:
    device = _device(value)
    return CPU if device is not None and device.type == "mps" else value


class _Generator(torch.Generator):
    """A generator of the device; draws of the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, CPU)
        made.place = torch.device(device)  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place  # type: ignore[attr-defined, no-any-return]


class _Module:
    """Stands in the place of `torch.mps`."""

    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)
    manual_seed = staticmethod(torch.default_generator.manual_seed)


@contextlib.contextmanager
def apple_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Context with a device ``mps``, which it yields."""
    module_of = torch.get_device_module
    with monkeypatch.context() as patch, AppleGPU():
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(
            torch, "get_device_module", lambda device: _Module if torch.device(device) == MPS else module_of(device)
        )
        yield MPS
