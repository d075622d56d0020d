"""What the probes share: a network that is evaluated for a while, what its head sees, and intervals.

The probes are `lie_derivative`, `layerwise_equivariance` and `relative_invariance`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from augkit.architectures.modes import check_network, evaluated
from augkit.architectures.outputs import ask, check_logits
from augkit.augment.resample import check_images
from augkit.core.errors import InputError, unknown_name
from augkit.core.random_streams import MEASUREMENT, drawing
from augkit.invariance import bootstrap
from augkit.invariance.bootstrap import Estimate, Replicates

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """Images in [0, 1] to checked logits.

    Attributes:
        forward: from normalised images to logits, alone or as in `augkit.architectures.outputs`.
        device: where it computes.
        dtype: what ``forward`` takes.
        mean, std: per channel, applied before ``forward``.
    """

    forward: Forward
    device: torch.device
    dtype: torch.dtype
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def load(self, images: Tensor) -> Tensor:
        """Images on the device, uint8 scaled to [0, 1], in the network's dtype or float32 where that is narrower."""
        scaled = images.to(self.device)
        scaled = scaled.to(torch.float32) / 255 if images.dtype == torch.uint8 else scaled
        return scaled.to(torch.promote_types(self.dtype, torch.float32))

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)``, at least float32.

        Raises:
            InputError: the network fails, or gives something other than ``(B, K)``.
        """
        if self.mean is not None and self.std is not None:
            mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            images = (images - mean) / std
        # A copy, since networks may write into what they are given.
        logits: Tensor = ask(self.forward, images.to(self.dtype, copy=True))
        check_logits(logits, len(images), least=1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextlib.contextmanager
def evaluating(
    model: nn.Module,
    images: Tensor,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device | str | None,
) -> Iterator[Network]:
    """``model`` in ``eval()``, on ``device`` and without gradients; after that as it was, torch's random state too.

    Raises:
        InputTypeError, InputError: no module, no images, a mean and std that do not fit them, weights without values.
    """
    check_images(images)
    check_network(model)
    if len(images) < 1:
        raise InputError("images: expected at least 1, got none")
    _check_normalisation(mean, std, images.shape[1])
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    home = torch.device("cpu") if weight is None else weight.device
    place = home if device is None else torch.device(device)
    own = images.dtype if images.is_floating_point() else torch.float32
    with evaluated(model), drawing(place, 0, MEASUREMENT), torch.no_grad():
        try:
            if device is not None:
                model.to(place)
            yield Network(model, place, own if weight is None else weight.dtype, mean, std)
        finally:
            if device is not None:
                model.to(home)


def _check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise InputError("mean and std: expected both or neither")
    if len(mean) not in (1, channels) or len(mean) != len(std):
        raise InputError(f"mean and std: expected {channels} values each, got {len(mean)} and {len(std)}")
    if not min(std) > 0:
        raise InputError(f"std: expected values above 0, got {min(std):g}")


def batches(count: int, batch_size: int, on_batch: Callable[[int, int], None] | None) -> Iterator[slice]:
    """Slices of at most ``batch_size`` that cover ``count``; ``on_batch(done, count)`` after each was used."""
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        yield slice(start, stop)
        if on_batch is not None:
            on_batch(stop, count)


def check_finite(values: Tensor, what: str, start: int) -> Tensor:
    """``values`` on the CPU in float64; raise where they are not finite. One copy and one wait for the device."""
    values = values.to("cpu").double()
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"model: expected finite {what}, got NaN or infinity on images from {start} on")
    return values


class Penultimate:
    """Hooks that keep the features of the latest forward pass: what the last ``nn.Linear`` to run was given.

    With ``name``, what the module of that name gave instead. `features` flattens them to ``(B, D)``. Use it as
    a context, which removes the hooks.

    Raises:
        InputError: no module of that name.
    """

    def __init__(self, model: nn.Module, name: str | None = None) -> None:
        named = dict(model.named_modules())
        if name is not None and name not in named:
            raise unknown_name("module", name, named)
        self._name, self._answers = name, 0
        self._seen: Tensor | None = None
        self._hooks = (
            [named[name].register_forward_hook(self._keep_output)]
            if name is not None
            else [m.register_forward_hook(self._keep_input) for m in named.values() if isinstance(m, nn.Linear)]
        )

    def _keep_input(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        self._seen, self._answers = inputs[0], output.shape[-1]

    def _keep_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module, inputs
        self._seen = output

    def features(self, logits: Tensor) -> Tensor | None:
        """``(B, D)`` of the pass that gave ``logits`` ``(B, K)``.

        None where nothing was seen, or where the last linear layer does not answer with K numbers per image.
        """
        seen, self._seen = self._seen, None  # held no longer than needed
        if not isinstance(seen, Tensor) or len(seen) != len(logits):
            return None
        if self._name is None and (self._answers != logits.shape[-1] or seen.ndim != 2):
            return None
        return seen.flatten(1)

    def __enter__(self) -> Penultimate:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def resampled_means(values: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over images of ``values`` ``(N, F)``, and their bootstrap replicates; ``(F,)`` and ``(R, F)``, float64.

    The resamples of images are those of `augkit.invariance.bootstrap` for as many images and the same seed.
    """
    return values.double().cpu().mean(0).numpy(), bootstrap.resampled_means(values, seed).numpy()


def interval(value: float | np.ndarray, replicates: np.ndarray, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """The 95 % percentile interval of a statistic with replicates ``(R,)``, clipped to ``[low, high]``."""
    return Replicates(float(value), replicates, replicates, seeds=1).estimate(low, high)
