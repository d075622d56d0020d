"""Folds batch norms into the convolutions before them, which saves a pass over each map in evaluation.

In evaluation a batch norm multiplies every channel by one number and adds another, and a convolution can do both
itself with other weights and another bias (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2). Outputs
change by rounding alone.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights, parametrize

from augkit.core.torch_private import has_forward_hooks


class FoldablePair(NamedTuple):
    """A convolution whose output is the input of a batch norm."""

    conv: nn.Conv2d
    norm: Any  # one of those that `_after_folding` knows, all with running statistics


def foldable_pairs(model: nn.Module, run: Callable[[], object]) -> list[FoldablePair]:
    """Find the batch norms of a network in evaluation that can be folded into the convolution before them.

    Both must run once in a pass, without hooks, and not in a network that `torch.compile` has compiled, which would not
    see the other weights. Whether another layer uses the output of such a convolution, too, is not seen, nor whether a
    convolution of the user's own changes its weights, so compare the outputs of a pass with those of `folded`.

    Args:
        model: network whose layers are in ``eval()``.
        run: runs it once.
    """
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        return []
    made: dict[int, tuple[nn.Conv2d, weakref.ref[Tensor]]] = {}
    calls: Counter[nn.Module] = Counter()
    pairs: list[FoldablePair] = []

    def after_conv(conv: nn.Module, inputs: object, output: object) -> None:
        calls[conv] += 1
        if isinstance(conv, nn.Conv2d) and isinstance(output, Tensor):
            made[id(output)] = conv, weakref.ref(output)  # the reference tells whether an id is that of a later tensor

    def before_norm(norm: nn.Module, inputs: tuple[object, ...]) -> None:
        calls[norm] += 1
        conv, output = made.get(id(inputs[0]), (None, None)) if inputs else (None, None)
        if conv is not None and output is not None and output() is inputs[0]:
            pairs.append(FoldablePair(conv, norm))

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            if has_forward_hooks(module) or parametrize.is_parametrized(module):
                continue
            if isinstance(module, nn.Conv2d):
                hooks.callback(module.register_forward_hook(after_conv).remove)
            elif _after_folding(module) is not None:
                hooks.callback(module.register_forward_pre_hook(before_norm).remove)
        run()
    return [pair for pair in pairs if calls[pair.conv] == calls[pair.norm] == 1]


@contextlib.contextmanager
def folded(pairs: Sequence[FoldablePair]) -> Iterator[None]:
    """Context in which batch norms are folded; afterwards the layers have the same weights as before, bit for bit.

    Do not move, train or save the network within it.
    """
    with contextlib.ExitStack() as undo:
        for conv, norm in pairs:
            undo.callback(_restore, conv, norm, conv.weight, conv.bias)
            statistics = norm.running_mean, norm.running_var, norm.eps
            conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
            norm.forward = _after_folding(norm)
        yield


def _restore(conv: nn.Conv2d, norm: nn.Module, weight: Any, bias: Any) -> None:
    conv.weight, conv.bias = weight, bias
    vars(norm).pop("forward", None)  # that of the class is back


def _after_folding(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What is left of a batch norm that was folded; None for layers that cannot be."""
    from torchvision.ops import FrozenBatchNorm2d  # takes a second, and a loop that never folds does not need it

    if "forward" in vars(module):  # replaced by the user
        return None
    if isinstance(module, FrozenBatchNorm2d):
        return _unchanged
    if not isinstance(module, nn.BatchNorm2d) or module.training or module.running_mean is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return _unchanged
    drop, act = getattr(module, "drop", None), getattr(module, "act", None)
    if type(module).__name__ == "BatchNormAct2d" and drop is not None and act is not None:  # of timm
        return lambda maps: act(drop(maps))
    return None


def _unchanged(maps: Tensor) -> Tensor:
    return maps
