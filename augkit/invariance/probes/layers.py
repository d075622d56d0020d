"""Probes of layers: the equivariance error of a convolution, and the loss of equivariance along a network."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.augment.resample import check_images
from augkit.core.errors import InputError, unknown_name
from augkit.core.pixels import as_float
from augkit.core.precision import exactly
from augkit.core.random_streams import stream
from augkit.invariance.layers.equivariance import layerwise_equivariance
from augkit.invariance.layers.hooks import Call, Pass, Stride, Tracer
from augkit.invariance.network import evaluating
from augkit.invariance.probes.views import (
    BATCH,
    LAYERS,
    SHIFT,
    Device,
    Normal,
    check_room,
    logits_of,
    still_and_moved,
    whole_shifts,
)
from augkit.invariance.protocols import Protocol

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
GRIDS = ("any", "aligned", "unaligned")
Grid = Literal["any", "aligned", "unaligned"]


class LayerDecibels(NamedTuple):
    """Signal-to-error ratios of layers.

    Attributes:
        names: names of the L layers; for aligned and unaligned shifts those of the downsampling layers alone.
        decibels: ratio per image and layer, ``(N, L)`` in dB; NaN where a map is all 0.
        losses: by name of each downsampling layer, the dB of its input minus the dB of its output, ``(N,)``.
    """

    names: list[str]
    decibels: np.ndarray
    losses: dict[str, np.ndarray]


class Downsampling(NamedTuple):
    """A downsampling layer: the reported layer of its input, and pixels of the image per pixel of input and output."""

    source: str
    input_stride: Stride
    output_stride: Stride


class LayerVariability(NamedTuple):
    """Distances of pooled features per image and layer.

    Attributes:
        names: names of the L layers.
        moved: ``(N, L)``, mean distance to the features of the shifted image.
        apart: ``(N, L)``, mean distance to the features of other images.
    """

    names: list[str]
    moved: np.ndarray
    apart: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """``(L,)``, the mean distance moved over the mean distance apart; NaN where all features are equal."""
        moved, apart = self.moved.mean(0), self.apart.mean(0)
        return np.divide(moved, apart, out=np.full_like(moved, math.nan), where=apart > 0)


def convolution_error(
    padding_mode: str, images: Tensor, *, channels: int = 8, draws: int = 4, seed: int = 0
) -> np.ndarray:
    """Return the equivariance error of a random 3x3 convolution of stride 1 under whole shifts on the torus.

    It is ``|phi(T x) - T phi(x)| / |phi(x)|`` in float64, the mean over ``draws`` shifts other than 0, and 0 for a map
    that is all 0. With ``circular`` padding it is 0 up to rounding; with other padding it is the effect of the border.

    Args:
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        channels: output channels; weights are standard normal, without bias.
        draws: shifts per image.
        seed: seed of the weights and of the shifts.

    Returns:
        The error per image, ``(N,)``.
    """
    check_images(images)
    pixels = as_float(images).double()
    if padding_mode not in PADDING_MODES:
        raise unknown_name("padding mode", padding_mode, PADDING_MODES)
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal((channels, images.shape[1], 3, 3)))

    def layer(maps: Tensor) -> Tensor:
        return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode=PADDING_MODES[padding_mode]), weight)

    height, width = images.shape[-2:]
    errors = np.zeros(len(images))
    for n, image in enumerate(pixels.split(1)):
        still = layer(image)
        places = 1 + stream(seed, SHIFT, n).choice(height * width - 1, draws)
        for y, x in zip(*np.divmod(places, width), strict=True):
            error = layer(image.roll((y, x), (-2, -1))) - still.roll((y, x), (-2, -1))
            errors[n] += float(error.norm() / still.norm().clamp(min=torch.finfo(still.dtype).tiny)) / draws
    return errors


def layer_loss(
    model: nn.Module,
    images: Tensor,
    *,
    max_shift: float = 8.0,
    draws: int = 4,
    grid: Grid = "any",
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    seed: int = 0,
) -> LayerDecibels:
    """Return the signal-to-error ratio in dB of every layer under circular shifts, and the loss in downsampling layers.

    The layers are those of `augkit.invariance.layerwise_equivariance`, which runs once per image. A loss is reported
    for each innermost layer whose output has a larger stride than its input; it includes the maximum of an
    `augkit.architectures.DenseMaxPool2d` directly before. A layer that takes the image itself, which has no error, has
    no loss.

    Args:
        model: gives logits ``(B, K)``.
        images: ``(N, C, H, W)`` as the network sees them, uint8 or floating in [0, 1].
        max_shift: pixels; ``draws`` shifts per image, uniform in ``[-max_shift, max_shift]`` along each axis.
        draws: shifts per image.
        grid: ``aligned`` or ``unaligned`` replace these shifts by others for each downsampling layer. Aligned: by one
            or two of its strides along each axis, so that it samples the same places of the image. Unaligned: by a
            number of strides of its input that is no multiple of its own, so that it samples others, and the layers
            before it do not.
        mean, std, device: as in `augkit.measure_invariance`.
        seed: seed of the shifts.

    Raises:
        InputError: ``grid`` is unknown.
    """
    if grid not in GRIDS:
        raise unknown_name("grid", grid, GRIDS)
    with evaluating(model, images[:1], mean=mean, std=std, device=device) as network, Tracer(model) as tracer:
        given = _downsampling(tracer.run(network, network.load(images[:1])))

    def decibels(draw: Callable[[np.random.Generator], np.ndarray]) -> dict[str, np.ndarray]:
        rows, names = [], []
        for n, image in enumerate(images.split(1)):
            shifts = torch.from_numpy(draw(stream(seed, LAYERS, n)))
            found = layerwise_equivariance(model, image, shifts=shifts, shares=False, mean=mean, std=std, device=device)
            rows.append([layer.decibels.value for layer in found])
            names = [layer.name for layer in found]
        return dict(zip(names, np.array(rows).T, strict=True))

    if grid == "any":
        column = decibels(lambda random: random.uniform(-max_shift, max_shift, (draws, 2)))
        losses = {name: column[layer.source] - column[name] for name, layer in given.items()}
        return LayerDecibels(list(column), np.array(list(column.values())).T, losses)
    after, losses = {}, {}
    for name, layer in given.items():
        column = decibels(functools.partial(_grid_shifts, layer, grid, draws))
        after[name], losses[name] = column[name], column[layer.source] - column[name]
    return LayerDecibels(list(after), np.array(list(after.values())).T.reshape(len(images), -1), losses)


def _grid_shifts(layer: Downsampling, grid: Grid, draws: int, random: np.random.Generator) -> np.ndarray:
    """Draw shifts ``(draws, 2)`` in pixels."""
    if grid == "aligned":
        return random.choice([-2, -1, 1, 2], (draws, 2)) * np.array(layer.output_stride)
    factor = np.round(np.divide(layer.output_stride, layer.input_stride))
    turns = 1 + factor * random.integers(0, 2, (draws, 2))  # 1 more than a multiple of the factor
    return random.choice([-1, 1], (draws, 2)) * turns * np.array(layer.input_stride)


def layer_variability(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    max_shift: int = 8,
    draws: int = 4,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> LayerVariability:
    """Return how far a whole shift moves the features of each block of a network.

    Features are vectors, and maps averaged over their pixels. The distance ``|z(T x) - z(x)|`` is compared with the
    typical distance ``|z(x) - z(x')|`` to other images, as in `augkit.invariance.relative_invariance`. Blocks are the
    outermost modules other than a plain ``nn.Sequential``, in the order in which they run, without those that do not
    change an average over pixels (`AdaptiveAvgPool2d`, `Flatten`, `Identity`). The last block gives the logits.

    Args:
        max_shift: pixels; ``draws`` distinct shifts other than 0 per image within it, or all if there are fewer.
        model, images, protocol, mean, std, device, batch_size, seed: as in `exactness`; at least two images.
    """
    if len(images) < 2:
        raise InputError(f"layer_variability: expected at least 2 images, got {len(images)}")
    check_room(protocol, images, max_shift)
    moves = whole_shifts(len(images), draws, -max_shift, max_shift, [seed, LAYERS], still=False)
    views = still_and_moved(protocol, moves)
    with _Blocks(model) as blocks:
        logits_of(model, images, views, mean, std, device, batch_size, blocks.keep)
    features = {name: torch.cat(parts) for name, parts in blocks.kept.items()}
    moved = [(z[:, 1:] - z[:, :1]).norm(dim=-1).mean(1) for z in features.values()]
    apart = [_distance_apart(z[:, 0]) for z in features.values()]
    return LayerVariability(list(features), torch.stack(moved, 1).numpy(), torch.stack(apart, 1).numpy())


def _downsampling(record: Pass) -> dict[str, Downsampling]:
    """Map each innermost layer that makes a map coarser to the reported layer of that map, with both strides."""
    maker = {call.output: call for call in record.calls if call.output is not None}
    # Calls whose input no module made (the image, a padded map) are left out; its stride may be that of the padding.
    coarser = [(call, _strides(record, call)) for call in record.calls if _source(maker, call) is not None]
    holding = {id(call.inside) for call, strides in coarser if strides is not None}
    found = {}
    for call, strides in coarser:
        source = _source(maker, call)
        while source is not None and source.kind == "DenseMaxPool2d":
            source = _source(maker, source)
        if strides is not None and id(call) not in holding and source is not None:
            found[call.name] = Downsampling(source.name, *strides)
    return found


def _strides(record: Pass, call: Call) -> tuple[Stride, Stride] | None:
    """The strides of input and output of a call that makes a map coarser; None for the others."""
    if not call.inputs or call.output is None:
        return None
    before, after = (record.values[k] for k in (call.inputs[0], call.output))
    if before.stride is None or after.stride is None:
        return None
    # A global pool leaves no map in which a shift could be seen.
    coarser = after.stride > before.stride and max(after.tensor.shape[-2:]) > 1
    return (before.stride, after.stride) if coarser else None


def _source(maker: dict[int, Call], call: Call) -> Call | None:
    return maker.get(call.inputs[0]) if call.inputs else None


class _Blocks:
    """Context manager that pools the output of each block of a network; its hooks are removed on exit.

    ``kept`` holds features ``(B, V, C)`` per block, one tensor per batch of images.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept: dict[str, list[Tensor]] = {}
        self._seen: dict[str, Tensor] = {}
        self._hooks = [block.register_forward_hook(self._hook(name)) for name, block in _outermost(model)]

    def keep(self, view: int) -> None:
        """Store the features of the latest forward pass; view 0 begins a batch."""
        for name, pooled in self._seen.items():
            parts = self.kept.setdefault(name, [])
            if view == 0:
                parts.append(pooled[:, None])
            else:
                parts[-1] = torch.cat([parts[-1], pooled[:, None]], dim=1)
        self._seen = {}

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def pool(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs
            if isinstance(output, Tensor) and output.ndim in (2, 4):
                exact = exactly(output)
                self._seen[name] = (exact.flatten(2).mean(2) if exact.ndim == 4 else exact).cpu()

        return pool

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _outermost(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        if type(module) in (nn.Sequential, nn.ModuleList):
            yield from _outermost(module, f"{prefix}{name}.")
        elif not isinstance(module, (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity)):
            yield prefix + name, module


def _distance_apart(z: Tensor) -> Tensor:
    """Return ``(N,)``, the mean distance of features ``(N, C)`` to those of the other images; 0 if only rounding."""
    # Features come from a network in float32 or better; the squares are not expanded, which would cancel.
    parts = [torch.cdist(part, z, compute_mode="donot_use_mm_for_euclid_dist").sum(1) for part in z.split(BATCH)]
    apart = torch.cat(parts) / (len(z) - 1)
    return torch.where(apart > 10 * torch.finfo(torch.float32).eps * z.norm(dim=-1), apart, torch.zeros_like(apart))
