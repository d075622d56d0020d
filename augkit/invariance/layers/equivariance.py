"""Equivariance error of every layer: how far each feature map is from moving with the image.

For a map ``phi`` of stride r, ``phi(T_s x)`` is compared with ``T_{s/r} phi(x)``; both shifts are
`augkit.fourier_shift`, on a torus. The signal is the energy of ``phi(T_s x)``, the error that of the difference,
and their ratio in decibels is ``10 log10(sum signal / sum error)``, sums over images, shifts and units. Karras
et al. 2021 (https://arxiv.org/abs/2106.12423, section 4.1) do so for image generators, with the peak as the signal;
Zhang 2019 (https://arxiv.org/abs/1904.11486, figure 5) compares maps by cosine.

**Reported layers, in the order in which they finish:** every module that maps tensors to one map ``(B, C, H, W)``,
whether it has submodules (a residual block) or not. Omitted are ``nn.Sequential``, modules that do nothing in
``eval()`` (``nn.Identity``, dropout), the network itself, and maps in another order than ``(B, C, H, W)``: the output
of ``nn.Linear`` and ``nn.LayerNorm``, and outputs whose aspect ratio is not that of the image. A module that runs a
second time is reported again, as ``name#2``. The penultimate vector (the input of the last ``nn.Linear``) and the
logits come last.

**Stride.** Each map's side is compared with that of the map before it, and the ratio is rounded to a whole
factor: maps of 28, 26 (no padding), 13 and 6 pixels have strides 1, 1, 2 and 4.

**Shares.** An error in a map matters only if it reaches the logits. To first order an error ``e`` in a tensor
contributes ``<G, e>`` to the final error ``D = f(T_s x) - f(x)``, with ``G`` the gradient of ``<f, D>`` at
``T_s x``. The share of a module is the contribution of its output, minus the contribution of its inputs through this
module, minus the shares of its submodules. So an average that removes aliasing lowers the share of the layer that
caused it, parallel branches do not mix, and the shares sum to exactly ``|D|^2``. Functions outside of all reported
modules count toward the penultimate vector, and the last linear layer counts toward the logits.

**Rounding.** An error below the rounding of the network's dtype is replaced by that rounding, which limits the ratio
to 138 dB in float32 and 313 dB in float64. In float32 most exactly equivariant layers reach 120 or 130 dB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from augkit.augment.resample import check_images, fourier_shift_checked
from augkit.core.errors import InputError, InputTypeError, check_number, check_seed, check_whole
from augkit.core.precision import moved_to
from augkit.invariance.bootstrap import UNDEFINED, Estimate, means_with_replicates, percentile_interval
from augkit.invariance.layers.hooks import Call, Pass, Tracer, Value
from augkit.invariance.network import CheckedForward, batch_slices, check_finite, evaluating

NOISE = 100.0  # a final error below 100 roundings of the logits is not divided into shares


@dataclass(frozen=True)
class LayerEquivariance:
    """Equivariance of one layer: how closely its output moves with the image.

    Attributes:
        name: as in ``model.named_modules()``; ``penultimate`` and ``logits`` for the last two.
        kind: the class of the module; ``vector`` for the last two.
        shape: ``(C, H, W)`` of a map, ``(D,)`` of a vector.
        stride: pixels of the image per pixel of the map, along x and y; None for a vector.
        decibels: signal-to-error ratio; undefined where the features are all 0.
        share: the part of the squared final error that the layer itself adds; negative where it removes error. All
            defined shares sum to 1. Undefined where the final error is of the order of rounding, for
            ``shares=False``, and for a module whose inputs are not all maps or vectors.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    stride: tuple[float, float] | None
    decibels: Estimate
    share: Estimate

    def to_dict(self) -> dict[str, object]:
        """The attributes as plain values for JSON."""
        return {**vars(self), "decibels": self.decibels.to_dict(), "share": self.share.to_dict()}


def layerwise_equivariance(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    max_shift: float = 8.0,
    draws: int = 4,
    shifts: Tensor | None = None,
    shares: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[LayerEquivariance]:
    """Return the signal-to-error ratio in dB of every layer under circular shifts, with intervals over images.

    One forward pass per image without a shift and one per shift cover all layers; shares need a backward pass per
    shift in addition. Memory holds all maps of a batch two to four times, as in training, and three numbers per image
    and layer. Lower ``batch_size`` if memory runs out.

    Args:
        model: gives logits ``(B, K)``; evaluated in ``eval()`` and put back in the mode it was in.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1]; computed in the dtype of the network's weights.
        max_shift: pixels; ``draws`` shifts per image are uniform in ``[-max_shift, max_shift]`` along each axis.
        draws: number of shifts per image.
        shifts: ``(S, 2)`` for all images or ``(N, S, 2)``, pixels as ``(x, y)``; replaces the drawn shifts.
        shares: also compute the share of each layer in the final error.
        mean, std: per channel, applied to the shifted images before the network sees them.
        batch_size: images per forward pass.
        device: device of the computation; that of the model when None.
        seed: seed of the shifts, drawn per image, and of the bootstrap over images.
        on_batch: called with the number of finished images and the number of all images.

    Returns:
        The layers in the order in which they finish, then ``penultimate`` (where there is one), then ``logits``.
        Apart from rounding they do not depend on ``batch_size``.

    Raises:
        InputError: shapes do not fit; the logits are not ``(B, K)`` or not finite; the network runs other layers when
            the image is shifted; or shares are wanted of a network that computes without gradients.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, padding_mode="circular"), nn.Flatten(), nn.Linear(64, 2))
    >>> [(layer.name, layer.shape) for layer in layerwise_equivariance(net, torch.rand(2, 1, 8, 8))]
    [('0', (4, 4, 4)), ('penultimate', (64,)), ('logits', (2,))]
    """
    check_images(images)
    moves = _checked_shifts(shifts, len(images)) if shifts is not None else _draw(len(images), draws, max_shift, seed)
    rows, plan = [], None
    with evaluating(model, images, mean=mean, std=std, device=device) as network, Tracer(model) as tracer:
        for part in batch_slices(len(images), batch_size, on_batch):
            table, still = _batch(network, tracer, images[part], moves[part], shares)
            rows.append(check_finite(table, "features", part.start))
            plan = still.plan if plan is None else plan
            if still.plan != plan:
                raise InputError("model: expected the same layers to run for every batch of images")
    whole, replicates = means_with_replicates(torch.cat(rows).flatten(1), seed)
    columns = len(rows[0][0])
    estimates = _estimates(
        whole.reshape(columns, 3), replicates.reshape(-1, columns, 3), torch.finfo(network.dtype).eps, shares
    )
    return [
        LayerEquivariance(*layer, decibels, share if shared else UNDEFINED)
        for (layer, shared), (decibels, share) in zip(_layers(still), estimates, strict=True)
    ]


def _draw(count: int, draws: int, max_shift: float, seed: int) -> Tensor:
    check_whole("draws", draws, 1, optional=False)
    check_seed(seed)
    check_number("max_shift", max_shift, 0.0)
    uniform = torch.rand(count, draws, 2, generator=torch.Generator().manual_seed(seed))
    return (2 * uniform - 1) * max_shift


def _checked_shifts(shifts: Tensor, count: int) -> Tensor:
    if not isinstance(shifts, Tensor):
        raise InputTypeError(f"shifts: expected a tensor (S, 2) or (N, S, 2), got {type(shifts).__name__}")
    if shifts.ndim == 2:
        shifts = shifts.expand(count, *shifts.shape)
    if shifts.ndim != 3 or len(shifts) != count or shifts.shape[1] < 1 or shifts.shape[2] != 2:
        raise InputError(f"shifts: expected (S, 2) or ({count}, S, 2) pixels as (x, y), got {tuple(shifts.shape)}")
    if not bool(torch.isfinite(shifts).all()):
        raise InputError("shifts: expected finite pixels, got NaN or infinity")
    return shifts.to(torch.promote_types(shifts.dtype, torch.float32))


def _batch(
    network: CheckedForward, tracer: Tracer, images: Tensor, shifts: Tensor, shares: bool
) -> tuple[Tensor, Pass]:
    """Return signal, error and added error per image and layer ``(B, L, 3)``, sums over shifts, and the still pass."""
    loaded, moves = network.load(images), moved_to(shifts, network.device)
    still = tracer.run(network, loaded)
    total = torch.zeros((), device=network.device)
    for shift in moves.unbind(1):
        with torch.set_grad_enabled(shares):
            # Where all weights are frozen the graph has to start at the images; the clone may be written into.
            moved = tracer.run(network, fourier_shift_checked(loaded, shift).requires_grad_(shares).clone())
        if moved.plan != still.plan:
            raise InputError("model: expected the same layers to run for shifted images as for unshifted ones")
        total = total + _compare(still, moved, shift, shares)
    return total, still


def _reported(record: Pass) -> list[tuple[Call, Value]]:
    values = [(call, record.values[call.output]) for call in record.calls if call.output is not None]
    return [(call, value) for call, value in values if value.stride is not None]


def _layers(record: Pass) -> list[tuple[tuple[str, str, tuple[int, ...], tuple[float, float] | None], bool]]:
    """Name, kind, shape and stride of each layer, and whether it can have a share."""
    maps = [
        ((call.name, call.kind, tuple(value.tensor.shape[1:]), value.stride), call.inputs is not None)
        for call, value in _reported(record)
    ]
    vectors = [("penultimate", record.penultimate), ("logits", record.logits)]
    return maps + [((name, "vector", tuple(v.shape[1:]), None), True) for name, v in vectors if v is not None]


@torch.no_grad()
def _compare(still: Pass, moved: Pass, shift: Tensor, shares: bool) -> Tensor:
    """``(B, L, 3)`` for one shift."""
    errors = [_error(a, b, shift) for a, b in zip(still.values, moved.values, strict=True)]
    rows = [(value.tensor, errors[call.output]) for call, value in _reported(moved) if call.output is not None]
    for before, after in ((still.penultimate, moved.penultimate), (still.logits, moved.logits)):
        if before is not None and after is not None:
            rows.append((after, after.float() - before.float() if after.dtype.itemsize < 4 else after - before))
    energy = torch.stack([torch.stack([_inner(a, a), _inner(e, e)], dim=1) for a, e in rows], dim=1)
    added = _added(moved, errors, [error for _, error in rows]) if shares else torch.zeros_like(energy[..., 0])
    return torch.cat([energy, added[..., None]], dim=2)


def _error(still: Value, moved: Value, shift: Tensor) -> Tensor:
    """Return the difference between ``moved`` and the shifted ``still``."""
    working = torch.promote_types(moved.tensor.dtype, torch.float32)
    expected = still.tensor.to(working)
    if moved.stride is not None:
        per_axis = torch.stack([pixels / r for pixels, r in zip(shift.unbind(1), moved.stride, strict=True)], dim=1)
        expected = fourier_shift_checked(expected, per_axis)
    return moved.tensor.to(working) - expected


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.to(b.dtype) * b).flatten(1).sum(1)


def _added(moved: Pass, errors: list[Tensor], reported: list[Tensor]) -> Tensor:
    """Return the squared final error that each layer adds, ``(B, L)``; see the head of this file."""
    final = reported[-1]
    outputs = [value.tensor for value in moved.values]
    carried = _Carried(moved, final)
    inside: dict[int, Tensor] = {}
    columns, zero = [], torch.zeros_like(final[:, 0])
    for call in moved.calls:
        within = inside.get(id(call), zero)
        total = within
        if call.inputs is not None and call.output is not None:
            total = carried(outputs[call.output], errors[call.output])
            if len(call.given) < len(call.inputs):
                raise InputError(f"model: shares need gradients, '{call.name}' runs without; pass shares=False")
            for given, index in zip(call.given, call.inputs, strict=True):
                total = total - carried(given, errors[index])
        inside[id(call.inside)] = inside.get(id(call.inside), zero) + total
        if call.output is not None and moved.values[call.output].stride is not None:
            columns.append(total - within)
    sofar = torch.stack(columns, dim=1).sum(1) if columns else zero
    if moved.penultimate is not None:
        head = carried(moved.penultimate, reported[-2])
        columns.append(head - sofar)
        sofar = head
    return torch.stack([*columns, _inner(final, final) - sofar], dim=1)


class _Carried:
    """Contribution of an error in a recorded tensor to the squared final error, to first order, ``(B,)``."""

    def __init__(self, moved: Pass, final: Tensor) -> None:
        tensors = [value.tensor for value in moved.values] + [each for call in moved.calls for each in call.given]
        tensors += [] if moved.penultimate is None else [moved.penultimate]
        tensors = [tensor for tensor in tensors if tensor.requires_grad]
        self._gradient: dict[int, Tensor | None] = {}
        if tensors and moved.logits.requires_grad:
            with torch.enable_grad():
                objective = (moved.logits * final).sum()
            gradients = torch.autograd.grad(objective, tensors, allow_unused=True)
            self._gradient = {id(tensor): each for tensor, each in zip(tensors, gradients, strict=True)}

    def __call__(self, tensor: Tensor, error: Tensor) -> Tensor:
        gradient = self._gradient.get(id(tensor))
        return error.new_zeros(len(error)) if gradient is None else _inner(gradient, error)


def _estimates(
    whole: np.ndarray, replicates: np.ndarray, resolution: float, shares: bool
) -> list[tuple[Estimate, Estimate]]:
    """Return decibels and share per layer, from means ``(L, 3)`` and ``(R, L, 3)`` of signal, error and added error."""
    value, spread = (_decibels(each, resolution) for each in (whole, replicates))
    final, final_spread = whole[-1, 1], replicates[:, -1, 1]
    shared = shares and final > (NOISE * resolution) ** 2 * whole[-1, 0]
    results = []
    for k, (signal, _, added) in enumerate(whole):
        decibels = percentile_interval(value[k], spread[:, k]) if signal > 0 else UNDEFINED
        share = UNDEFINED
        if shared:
            # A resample in which no image moves has no final error to divide.
            parts = np.divide(
                replicates[:, k, 2], final_spread, out=np.zeros_like(final_spread), where=final_spread > 0
            )
            share = percentile_interval(added / final, parts)
        results.append((decibels, share))
    return results


def _decibels(energy: np.ndarray, resolution: float) -> np.ndarray:
    signal, error = energy[..., 0], energy[..., 1]
    ratio = np.divide(error, signal, out=np.zeros_like(error), where=signal > 0)
    return -10 * np.log10(np.maximum(ratio, resolution**2))
