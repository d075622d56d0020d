"""Finds the map before the upsampling that ends a network, and the network's own stride.

Many networks for dense outputs compute a coarse map and enlarge it by `torch.nn.functional.interpolate`. Where the
enlarged map does not move with the image, the coarse map may: then the interpolation is the cause, and not the layers
before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Upsampling:
    """One call of `torch.nn.functional.interpolate` that enlarged a map.

    Attributes:
        before: the map before it, ``(B, C, h, w)``.
        after: the map after it.
        mode: ``nearest``, ``bilinear``, ...
    """

    before: Tensor
    after: Tensor
    mode: str


class UpsamplingWatch(TorchFunctionMode):
    """Context that keeps the latest call of `torch.nn.functional.interpolate`, if it enlarged a map.

    A compiled network runs other code and shows none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latest: Upsampling | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, and keep it if it enlarges a map."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.interpolate and isinstance(out, Tensor) and out.ndim == 4:
            before = args[0] if args else kwargs["input"]
            mode = args[3] if len(args) > 3 else kwargs.get("mode", "nearest")
            if out.shape[-1] > before.shape[-1] and out.shape[-2] > before.shape[-2]:
                self.latest = Upsampling(before, out, str(mode))
        return out

    def last_of(self, found: Tensor) -> Upsampling | None:
        """Return the latest call if the output ``found`` is its result, and forget it."""
        latest, self.latest = self.latest, None
        same = latest is not None and latest.after.data_ptr() == found.data_ptr() and latest.after.shape == found.shape
        return latest if same else None


@contextmanager
def own_stride(model: nn.Module, input_size: tuple[int, int]) -> Iterator[list[int]]:
    """Context of a forward pass; after it the list holds the network's own stride, its largest within the network.

    That is the number of input pixels to a pixel of the coarsest map of any module, of those whose sides are at least 2
    pixels and shrank alike; 1 where there is none.
    """
    seen: list[int] = [1]

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            y, x = (round(whole / side) for whole, side in zip(input_size, output.shape[-2:], strict=True))
            seen[0] = max(seen[0], y) if y == x else seen[0]

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
