"""Outputs of networks: the logits in them, and the losses of auxiliary heads.

A network may give logits ``(B, K)`` alone, or among others: in a dict (``logits``, else ``out``, as the networks of
torchvision for segmentation name it), in an object with an attribute ``logits`` (GoogLeNet and Inception of torchvision
in training, the outputs of Hugging Face), or first in a tuple.

The auxiliary heads that such networks have in training add to the loss with the weights of their papers: 0.3 each of
GoogLeNet (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842), 0.4 of Inception v3 (as in torchvision), and 0.5 of
``aux`` in a dict (as in torchvision's references). What else an output holds is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.core.errors import AugkitError, InputError

AUXILIARY = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3, "aux": 0.5}
REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # dtypes of logits


def run_network(forward: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """Run a network on ``inputs`` ``(B, C, H, W)``: the logits in its output, unchecked.

    Raises:
        InputError: the network fails; running out of memory is raised as it is.
    """
    try:
        return logits_in(forward(inputs))
    except (AugkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the network's own code may raise anything
        raise InputError(f"model: it fails on images {tuple(inputs.shape)} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """The first line of an error, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def logits_in(output: Any) -> Any:
    """The logits in what a network gives; the output itself where there are none.

    >>> logits_in({"out": torch.zeros(2, 3), "aux": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        found = _field(output, name)
        if found is not None:
            return logits_in(found)
    if isinstance(output, (tuple, list)) and output:
        return logits_in(output[0])
    if isinstance(output, Mapping) and len(output) == 1:
        return logits_in(next(iter(output.values())))
    return output


def check_logits(logits: Any, batch: int, *, classes: int | None = None, least: int = 2) -> None:
    """Raise InputError unless ``logits`` is a real floating tensor ``(batch, K)``.

    Args:
        logits: what `logits_in` found.
        batch: number of images.
        classes: K, where it is known from before.
        least: the smallest K that will do.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != batch:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else _described(logits)
        remedy = "" if isinstance(logits, Tensor) else "; wrap it so that it gives its logits"
        raise InputError(f"model: expected logits ({batch}, K), got {got}{remedy}")
    if logits.dtype not in REAL or logits.layout != torch.strided or logits.is_meta:
        got = "without values (device meta)" if logits.is_meta else str(logits.dtype).removeprefix("torch.")
        got = got if logits.layout == torch.strided else f"sparse {got}"
        raise InputError(f"model: expected logits in floating point, got {got}; wrap it so that it gives these")
    if logits.shape[1] < least:
        few = f"for at least {least} class{'es' if least > 1 else ''}, got {logits.shape[1]}"
        raise InputError(f"model: expected logits {few}")
    if classes not in (None, logits.shape[1]):
        raise InputError(f"model: expected {classes} logits as before, got {logits.shape[1]}")


def classification_loss(
    output: Any, targets: Tensor, label_smoothing: float = 0.0, *, classes: int | None = None
) -> Tensor:
    """The cross entropy of what a network gives, with those of its auxiliary heads.

    Args:
        output: see the head of this file.
        targets: classes ``(B,)``, or probabilities ``(B, K)``.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        classes: how many the network answered with in evaluation.
    """
    logits = logits_in(output)
    check_logits(logits, len(targets), classes=classes)
    loss = _cross_entropy(logits, targets, label_smoothing)
    for name, weight in AUXILIARY.items():
        heard = _field(output, name)
        if isinstance(heard, Tensor) and heard.shape == logits.shape:
            loss = loss + weight * _cross_entropy(heard, targets, label_smoothing)
    return loss


def _cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    if targets.is_floating_point():
        common = torch.promote_types(logits.dtype, targets.dtype)
        logits, targets = logits.to(common), targets.to(common)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def _field(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(map(str, output)) or 'nothing'}"
    return type(output).__name__
