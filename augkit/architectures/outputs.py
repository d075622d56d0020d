"""Outputs of networks: the logits in them, and the losses of auxiliary heads.

A network may return logits ``(B, K)`` directly, or as part of its output: in a dict (key ``logits``, else ``out``, as
in torchvision's networks for segmentation), in an object with an attribute ``logits`` (GoogLeNet and Inception of
torchvision in training, the outputs of Hugging Face), or first in a tuple.

The auxiliary heads of such networks in training add to the loss with published weights: 0.3 for each head of GoogLeNet
(Szegedy et al. 2014, https://arxiv.org/abs/1409.4842), 0.4 for Inception v3 (as in torchvision), and 0.5 for ``aux`` in
a dict (as in torchvision's references). Other parts of an output are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.core.errors import AugkitError, InputError

AUXILIARY = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3, "aux": 0.5}
LOGITS = ("logits", "out")  # keys or attributes of an output
REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # dtypes of logits


def run_network(forward: Callable[[Tensor], Any], inputs: Tensor, take: Callable[[Any], Any] | None = None) -> Any:
    """Run a network on ``inputs`` ``(B, C, H, W)`` and return ``take`` of its output, unchecked.

    ``take`` is `logits_in` when None.

    Raises:
        InputError: the network fails. `torch.OutOfMemoryError` is not converted.
    """
    try:
        return (take or logits_in)(forward(inputs))
    except (AugkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the network's own code may raise anything
        raise InputError(f"model: it fails on images {tuple(inputs.shape)} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def logits_in(output: Any, names: Sequence[str] = LOGITS) -> Any:
    """Return the logits in the output of a network, or the output itself where none are found.

    ``names`` are the keys or attributes under which another kind of tensor is looked for, the first one first. A proxy
    of `torch.fx`, which stands for a tensor in a trace, counts as one.

    >>> logits_in({"out": torch.zeros(2, 3), "aux": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(output, (Tensor, torch.fx.Proxy)):  # a proxy has every attribute, itself a proxy
        return output
    for name in names:
        found = _field(output, name)
        if found is not None:
            return logits_in(found, names)
    if isinstance(output, (tuple, list)) and output:
        return logits_in(output[0], names)
    if isinstance(output, Mapping) and len(output) == 1:
        return logits_in(next(iter(output.values())), names)
    return output


def check_logits(logits: Any, batch: int, *, classes: int | None = None, least: int = 2) -> None:
    """Raise InputError unless ``logits`` is a real floating tensor ``(batch, K)``.

    Args:
        logits: the result of `logits_in`.
        batch: number of images.
        classes: the expected K; None where it is not known.
        least: the smallest allowed K.
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
    """Return the cross entropy of a network's output, including its auxiliary heads.

    Args:
        output: see the head of this file.
        targets: classes ``(B,)``, or probabilities ``(B, K)``.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        classes: number of classes of the network in evaluation.
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
