"""Probes for a study of claims about shifts: what a run and its measured variability do not tell.

Each is one plain function. Where it can, it gives one number per image ``(N,)``, float64 on the CPU, so that images
and training seeds can be resampled afterwards. All that is drawn is drawn per image, from the seed and the number
of the image: the batch size does not matter. Shifts are ``(x, y)`` in pixels, x to the right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from augkit import geometry
from augkit.data import Dataset, Images, Stream, sample
from augkit.errors import InputError
from augkit.invariance import Network, Protocol, layerwise_equivariance
from augkit.invariance.metrics import jensen_shannon, top1_change
from augkit.invariance.probing import batches, check_finite, evaluating
from augkit.invariance.protocols import Scene
from augkit.invariance.tracing import Pass, Tracer
from augkit.resampling import check_images, resample

SHIFT, DIAGONAL, ANGLE, PHASE, LAYERS, CELL = range(6)  # what a stream of random numbers is for
BATCH = 250
Normal = Sequence[float] | None
Device = torch.device | str | None
# Images in [0, 1] on the device and their numbers to inputs of the network.
View = Callable[[Tensor, slice], Tensor]


class LayerDecibels(NamedTuple):
    """Signal-to-error ratio of the layers ``names`` per image, ``(N, L)`` in dB, NaN where a map is all 0.

    ``losses`` is what each downsampling layer loses, by its name: dB of what it is given less dB of what it gives,
    ``(N,)``.
    """

    names: list[str]
    decibels: np.ndarray
    losses: dict[str, np.ndarray]


class LayerVariability(NamedTuple):
    """Distances of pooled features per image and layer, both ``(N, L)``: to the shifted image's, to other images'."""

    names: list[str]
    moved: np.ndarray
    apart: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """``(L,)`` mean distance moved over mean distance apart; NaN where features do not tell images apart."""
        moved, apart = self.moved.mean(0), self.apart.mean(0)
        return np.divide(moved, apart, out=np.full_like(moved, math.nan), where=apart > 0)


def convolution_error(
    padding_mode: str, images: Tensor, *, channels: int = 8, draws: int = 4, seed: int = 0
) -> np.ndarray:
    """Equivariance error of a random 3x3 convolution of stride 1 under whole shifts on the torus.

    ``|phi(T x) - T phi(x)| / |phi(x)|`` in float64, mean over ``draws`` shifts that are not 0; of a map that is all 0
    it is 0. ``circular`` gives 0 to rounding, other padding what the border does.

    Args:
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``, of `torch.nn.Conv2d`.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        channels: of the output; weights are standard normal, without bias.

    Returns:
        ``(N,)``.
    """
    pixels = _unit(images).double()
    layer = nn.Conv2d(images.shape[1], channels, 3, padding=1, padding_mode=padding_mode, bias=False).double()  # type: ignore[arg-type]
    weight = np.random.default_rng(seed).standard_normal(layer.weight.shape)
    layer.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    height, width = images.shape[-2:]
    errors = np.zeros(len(images))
    for n, image in enumerate(pixels.split(1)):
        still = layer(image)
        places = 1 + _rng(seed, SHIFT, n).choice(height * width - 1, draws)
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
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    seed: int = 0,
) -> LayerDecibels:
    """Signal-to-error ratio in dB of every layer under circular shifts, and what each downsampling layer loses.

    The layers are those of `augkit.invariance.layerwise_equivariance`, which is asked image by image. The losses are
    those of the innermost layers that give a map of larger stride than they are given; the maximum of an
    `augkit.architectures.DenseMaxPool2d` right before belongs to them. A layer that is given the image itself, which
    has no error yet, has none.

    Args:
        model: gives logits ``(B, K)``.
        images: ``(N, C, H, W)`` as the network sees them, uint8 or floating in [0, 1].
        max_shift: pixels; ``draws`` shifts per image, uniform in ``[-max_shift, max_shift]`` along each axis.
        mean, std, device: as in `augkit.measure_invariance`.
        seed: of the shifts.
    """
    how: dict[str, Any] = {"mean": mean, "std": std, "device": device}
    rows, names = [], []
    for n, image in enumerate(images.split(1)):
        shifts = torch.from_numpy(_rng(seed, LAYERS, n).uniform(-max_shift, max_shift, (draws, 2)))
        found = layerwise_equivariance(model, image, shifts=shifts, shares=False, **how)
        rows.append([layer.decibels.value for layer in found])
        names = [layer.name for layer in found]
    decibels = np.array(rows)
    column = dict(zip(names, decibels.T, strict=True))
    with evaluating(model, images[:1], **how) as network, Tracer(model) as tracer:
        given = _downsampling(tracer.run(network, network.load(images[:1])))
    return LayerDecibels(names, decibels, {name: column[before] - column[name] for name, before in given.items()})


def exactness(
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    max_shift: int = 8,
    draws: int = 16,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """How far whole shifts move the logits: the largest change over the standard deviation of the logits.

    On the torus an exact network gives rounding errors; the same network under ``embed`` or ``crop`` shows what real
    borders do to that. Pixels are copied and not resampled. The standard deviation is over classes and all of the
    unshifted images. Where it is 0 the change is given as 0 or infinite.

    Args:
        model: gives logits ``(B, K)``; the precision is that of its weights.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        protocol: see `augkit.invariance.make_protocol`.
        max_shift: pixels; ``draws`` different shifts per image out of all but 0 within it, or all where they are fewer.
        mean, std, device, batch_size: as in `augkit.measure_invariance`.
        seed: of the shifts.

    Returns:
        ``(N,)``, the largest over shifts and classes.
    """
    _check_room(protocol, images, max_shift)
    moves = _whole_shifts(len(images), draws, -max_shift, max_shift, [seed, SHIFT], still=False)
    views = [_moving(protocol, shifts) for shifts in (0 * moves[:, 0], *moves.swapaxes(0, 1))]
    logits = _logits(model, images, views, mean, std, device, batch_size)
    change = (logits[:, 1:] - logits[:, :1]).abs().amax((1, 2)).numpy()
    scale = float(logits[:, 0].std(correction=0))
    return np.divide(change, scale, out=np.where(change > 0, math.inf, 0.0), where=scale > 0)


def diagonal_pixel(
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    max_shift: int = 8,
    placements: int = 8,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """How often one pixel along the diagonal, ``(x + 1, y + 1)``, changes the top-1 answer.

    P(top-1 change) of Azulay & Weiss 2019 (https://jmlr.org/papers/v20/19-519.html). Pixels are copied.

    Args:
        max_shift: pixels; both places of a pair lie within it.
        placements: different pairs per image, drawn from ``seed``; all where they are fewer.
        model, images, protocol, mean, std, device, batch_size: as in `exactness`.

    Returns:
        ``(N,)``, the share of the pairs.
    """
    _check_room(protocol, images, max_shift)
    moves = _whole_shifts(len(images), placements, -max_shift, max_shift - 1, [seed, DIAGONAL])
    views = [_moving(protocol, shifts + step) for shifts in moves.swapaxes(0, 1) for step in (0, 1)]
    logits = _logits(model, images, views, mean, std, device, batch_size)
    changed: np.ndarray = top1_change(logits[:, 0::2], logits[:, 1::2]).mean(1).numpy()
    return changed


def rotation_variability(
    model: nn.Module,
    images: Tensor,
    *,
    max_degrees: float = 180.0,
    draws: int = 4,
    background: float = 0.0,
    kernel: str = "lanczos3",
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """Jensen-Shannon divergence in bits of the answers to an image and to the image rotated about its centre.

    Outside the inscribed disc images are ``background`` first, so that no corner tells the angle; the disc ends
    within two pixels, as a sharp edge would ring.

    Args:
        max_degrees: ``draws`` angles per image are uniform in ``[-max_degrees, max_degrees]``.
        background: grey value in [0, 1].
        kernel: of the resampling, see `augkit.resample`.
        model, images, mean, std, device, batch_size, seed: as in `exactness`.

    Returns:
        ``(N,)``, means over angles.
    """
    check_images(images)
    size = (images.shape[-2], images.shape[-1])
    degrees = np.stack([_rng(seed, ANGLE, n).uniform(-max_degrees, max_degrees, draws) for n in range(len(images))])

    def view(k: int | None) -> View:
        def rotated(pixels: Tensor, part: slice) -> Tensor:
            masked = (pixels - background) * disc(size).to(pixels)
            if k is not None:
                # The angle in float64, and the matrix with it: float32 would add a rotation of its own.
                matrix = geometry.rotate(torch.from_numpy(degrees[part, k]).to(pixels.device), size)
                masked = resample(masked, matrix, kernel=kernel, padding="zeros")
            return masked + background

        return rotated

    views = [view(None), *(view(k) for k in range(draws))]
    p = _logits(model, images, views, mean, std, device, batch_size).softmax(-1)
    bits: np.ndarray = jensen_shannon(p[:, :1], p[:, 1:]).mean(1).numpy()
    return bits


def layer_variability(
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
    """Where along the layers a network stops to vary: how far a whole shift moves the features of each block.

    Features are maps averaged over their pixels, and vectors as they are. The distance ``|z(T x) - z(x)|`` is set
    against the typical ``|z(x) - z(x')|`` to other images, as in `augkit.invariance.relative_invariance`. Blocks are
    the outermost modules that are no plain ``nn.Sequential``, in the order in which they run, but for those that an
    average over pixels does not see (`AdaptiveAvgPool2d`, `Flatten`, `Identity`); the last one gives the logits.

    Args:
        max_shift: pixels; ``draws`` different shifts per image out of all but 0 within it, or all where they are fewer.
        model, images, protocol, mean, std, device, batch_size, seed: as in `exactness`; at least two images.
    """
    if len(images) < 2:
        raise InputError(f"layer_variability: expected at least 2 images, got {len(images)}")
    _check_room(protocol, images, max_shift)
    moves = _whole_shifts(len(images), draws, -max_shift, max_shift, [seed, LAYERS], still=False)
    views = [_moving(protocol, shifts) for shifts in (0 * moves[:, 0], *moves.swapaxes(0, 1))]
    with _Blocks(model) as blocks:
        _logits(model, images, views, mean, std, device, batch_size, blocks.keep)
    features = {name: torch.cat(parts) for name, parts in blocks.kept.items()}
    moved = [(z[:, 1:] - z[:, :1]).norm(dim=-1).mean(1) for z in features.values()]
    apart = [_distance_apart(z[:, 0]) for z in features.values()]
    return LayerVariability(list(features), torch.stack(moved, 1).numpy(), torch.stack(apart, 1).numpy())


def pixel_sharpness(images: Tensor, kernel: str, *, draws: int = 4, seed: int = 0) -> np.ndarray:
    """The share of high-frequency energy that a shift by a random fraction of a pixel leaves: 1 is as sharp as before.

    High is above half Nyquist, a quarter of a cycle per pixel, in any direction. On the torus, in float64, so that
    it is the blur of the kernel alone. An image without such energy loses none.

    Args:
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        kernel: see `augkit.resample`; ``fourier`` too.
        draws: shifts per image, uniform in [0, 1) along each axis.

    Returns:
        ``(N,)``, means over shifts.
    """
    pixels = _unit(images).double()
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in images.shape[-2:])
    high = torch.hypot(rows[:, None], columns) > 0.25
    left = np.ones((len(images), draws))
    for n, image in enumerate(pixels.split(1)):
        before = _energy(image, high)
        if before > torch.finfo(image.dtype).eps * float(image.square().sum()):
            shifts = torch.from_numpy(_rng(seed, PHASE, n).random((draws, 2)))
            moved = resample(image.expand(draws, -1, -1, -1), geometry.shift(shifts), kernel=kernel, padding="circular")
            left[n] = [_energy(each, high) / before for each in moved]
    return left.mean(1)


def half_life(
    lengths: Sequence[float] | np.ndarray,
    variability: np.ndarray,
    *,
    plateau: float | np.ndarray | None = None,
    tail: int = 3,
) -> np.ndarray:
    """The length of a shift at which a response curve first reaches half of its plateau, linear between points.

    A curve starts from 0 at length 0. It should have levelled off at its end: of one that still rises, half of what
    it has reached so far is taken.

    Args:
        lengths: ``(P,)`` pixels, rising.
        variability: ``(..., P)``, such as bootstrap replicates ``(R, P)``.
        plateau: ``(...)``; the mean of the last ``tail`` points when None.

    Returns:
        ``(...)`` pixels; NaN where half of the plateau is never reached, or the plateau is 0.

    >>> half_life([1, 2, 4, 8], np.array([0.1, 0.3, 0.4, 0.4]), tail=2).item()
    1.5
    """
    x, v = np.asarray(lengths, dtype=np.float64), np.asarray(variability, dtype=np.float64)
    if x.ndim != 1 or not len(x) or v.shape[-1:] != x.shape or x[0] < 0 or (np.diff(x) <= 0).any() or tail < 1:
        raise InputError(f"half_life: expected rising lengths (P,) and variability (..., P), got {x.shape}, {v.shape}")
    top = np.broadcast_to(v[..., -tail:].mean(-1) if plateau is None else plateau, v.shape[:-1])
    if x[0] > 0:
        x, v = np.append(0.0, x), np.concatenate([np.zeros((*v.shape[:-1], 1)), v], -1)
    half = top[..., None] / 2
    reached = (v >= half) & (half > 0)
    first = np.maximum(reached.argmax(-1), 1)[..., None]
    low, high = (np.take_along_axis(v, k, -1) for k in (first - 1, first))
    share = np.divide(half - low, high - low, out=np.zeros_like(low), where=high != low).clip(min=0)
    found = (x[first - 1] + share * (x[first] - x[first - 1]))[..., 0]
    return np.where(reached.any(-1), found, math.nan)


def locate(dataset: Dataset, *, canvas: int = 64, cells: int = 4, seed: int = 0) -> Dataset:
    """A task of localisation made of the same images: each somewhere on a canvas, its label where that is.

    The range that the centre of an image can take on the canvas is divided into ``cells`` by ``cells``; the label is
    the cell, row by row. Within each split, and within each class of the source as nearly as can be, every cell is
    taken equally often, and every place within a cell is as likely; so what is seen does not tell where it is.
    Splits are those of the source, whose test split is opened when that of the new dataset is. Train on it without
    shifts, crops and flips, which would move images away from their labels.

    Args:
        dataset: of which ``train``, ``validation`` and, when asked for, the test split are placed.
        canvas: side in pixels.
        cells: along each axis.
        seed: of cells and places.

    Raises:
        InputError: a canvas with fewer places along an axis than cells.

    >>> from augkit import load_dataset
    >>> task = locate(load_dataset("digits"), canvas=16)
    >>> task.train.images.shape[1:], task.classes[:5]
    (torch.Size([1, 16, 16]), ['row 0 column 0', 'row 0 column 1', 'row 0 column 2', 'row 0 column 3', 'row 1 column 0'])
    """
    height, width = dataset.train.shape[1:]
    if cells < 1 or canvas - max(height, width) + 1 < cells:
        raise InputError(
            f"locate: expected at least 1 cell and a canvas of {max(height, width) + cells - 1} pixels or more for"
            f" {cells} cells, got {canvas}"
        )
    return _Located(dataset, canvas, cells, seed)


class _Located(Dataset):
    """The dataset of `locate`: nothing is placed before it is asked for."""

    def __init__(self, source: Dataset, canvas: int, cells: int, seed: int) -> None:
        self.name = f"{source.name} located"
        self.classes = [f"row {row} column {column}" for row in range(cells) for column in range(cells)]
        self.skipped = source.skipped
        self._source, self._how = source, (canvas, cells)
        self._seed, self._placed = seed, dict[str, Images]()

    @property
    def train(self) -> Images:
        return self._once("train", 0, lambda: self._source.train)

    @property
    def validation(self) -> Images:
        return self._once("validation", 1, lambda: self._source.validation)

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        test = self._once("test", 2, self._source.open_test)
        return test if limit is None else sample(test, limit, seed=seed)

    def open_whole(self, limit: int | None = None, *, seed: int = 0) -> Images:
        whole = self._once("whole", 3, self._source.open_whole)
        return whole if limit is None else sample(whole, limit, seed=seed)

    def _once(self, name: str, number: int, images: Callable[[], Images]) -> Images:
        if name not in self._placed:
            self._placed[name] = _place(images(), *self._how, _rng(self._seed, CELL, number))
        return self._placed[name]


@dataclass(frozen=True)
class _Move:
    """The step that moves images on their canvas by whole pixels, a row ``(y, x)`` per number of an image."""

    moves: Tensor

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        moved = [
            image.roll((y, x), (-2, -1)) for image, (y, x) in zip(pixels, self.moves[numbers].tolist(), strict=True)
        ]
        return torch.stack(moved) if moved else pixels


def _place(images: Images, canvas: int, cells: int, rng: np.random.Generator) -> Images:
    count = len(images)
    chance = rng.random(count)
    classes = np.zeros(count) if images.labels is None else images.labels.numpy()
    cell = np.empty(count, dtype=np.int64)
    # Dealt out class by class, each class in a random order, and to cells in an order of chance.
    cell[np.lexsort((chance, classes))] = rng.permutation(cells**2)[np.arange(count) % cells**2]
    moves = []
    for side, index in zip(images.shape[1:], np.divmod(cell, cells), strict=True):
        places = canvas - side + 1
        start, stop = (-(-(index + k) * places // cells) for k in (0, 1))
        moves.append(rng.integers(start, stop) - (canvas - side) // 2)
    drawn = torch.from_numpy(np.stack(moves, axis=1))
    numbers = images.indices if isinstance(images, Stream) else torch.arange(count)
    table = torch.zeros(int(numbers.max()) + 1 if count else 0, 2, dtype=torch.int64)
    table[numbers] = drawn
    return replace(images.put_on_canvas(canvas).then(_Move(table)), labels=torch.from_numpy(cell))


def disc(size: geometry.Size) -> Tensor:
    """``(H, W)`` in float64: 1 within the disc inscribed in ``size``, 0 outside, a cosine over its last two pixels."""
    (y, x) = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in size)
    inside = (min(size) / 2 - torch.hypot(y[:, None], x)).clamp(0, 2) / 2
    return (1 - torch.cos(math.pi * inside)) / 2


class _Blocks:
    """Hooks that pool what each block of a network gives; a context, which removes them.

    ``kept`` holds per block features ``(B, V, C)``, one tensor per batch of images.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept: dict[str, list[Tensor]] = {}
        self._seen: dict[str, Tensor] = {}
        self._hooks = [block.register_forward_hook(self._hook(name)) for name, block in _outermost(model)]

    def keep(self, view: int) -> None:
        """Take in what the latest forward pass gave: that of view 0 begins a batch."""
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
                self._seen[name] = (output.double().flatten(2).mean(2) if output.ndim == 4 else output.double()).cpu()

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
    """``(N,)`` mean distance of ``z`` ``(N, C)`` to the other images'; 0 where it is of the order of rounding."""
    # Features come from a network in float32 or better; the squares are not expanded, which would cancel.
    parts = [torch.cdist(part, z, compute_mode="donot_use_mm_for_euclid_dist").sum(1) for part in z.split(BATCH)]
    apart = torch.cat(parts) / (len(z) - 1)
    return torch.where(apart > 10 * torch.finfo(torch.float32).eps * z.norm(dim=-1), apart, torch.zeros_like(apart))


def _downsampling(record: Pass) -> dict[str, str]:
    """Per innermost layer that makes a map coarser, the reported layer whose map it makes coarser."""
    maker = {call.output: call for call in record.calls if call.output is not None}
    coarser = {}
    for call in record.calls:
        if call.inputs and call.output is not None and record.values[call.output].stride is not None:
            before, after = record.values[call.inputs[0]].stride, record.values[call.output].stride
            if (
                before is not None
                and after is not None
                and max(after) > max(before)
                and min(record.values[call.output].tensor.shape[-2:]) > 1
            ):
                coarser[id(call)] = call
    holding = {id(call.inside) for call in coarser.values()}
    found = {}
    for call in coarser.values():
        source = maker.get(call.inputs[0]) if call.inputs else None
        while source is not None and source.kind == "DenseMaxPool2d" and source.inputs:
            source = maker.get(source.inputs[0])
        if id(call) not in holding and source is not None:
            found[call.name] = source.name
    return found


def _logits(  # noqa: PLR0913 (one place that asks the network)
    model: nn.Module,
    images: Tensor,
    views: Sequence[View],
    mean: Normal,
    std: Normal,
    device: Device,
    batch_size: int,
    after: Callable[[int], None] = lambda view: None,
) -> Tensor:
    """``(N, V, K)`` float64 on the CPU; ``after`` is called after each forward pass with the number of the view."""
    check_images(images)
    network = Network(model, mean=mean, std=std, device=device)
    network.fit_channels(images.shape[1])
    rows = []
    with network.measuring():
        for part in batches(len(images), batch_size, None):
            pixels = _unit(images[part]).to(network.device, network.dtype)
            seen = []
            for number, view in enumerate(views):
                seen.append(network(view(pixels, part)))
                after(number)
            rows.append(check_finite(torch.stack(seen, dim=1), "logits", part.start))
    if not rows:
        raise InputError("images: expected at least 1, got none")
    return torch.cat(rows)


def _moving(protocol: Protocol, shifts: np.ndarray) -> View:
    """The view of each image under its own whole shift, ``(N, 2)``: copies of pixels."""

    def moved(pixels: Tensor, part: slice) -> Tensor:
        each = zip(pixels.split(1), shifts[part].tolist(), strict=True)
        return torch.cat([Scene(protocol, image).shift_whole(x, y) for image, (x, y) in each])

    return moved


def _whole_shifts(
    count: int, draws: int, low: int, high: int, stream: Sequence[int], *, still: bool = True
) -> np.ndarray:
    """``(count, draws, 2)`` whole shifts, different ones per image, from ``low`` to ``high`` along each axis.

    Without (0, 0) unless ``still``; fewer than ``draws`` where there are no more.
    """
    axis = np.arange(low, high + 1)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    places = places if still else places[places.any(1)]
    if draws < 1 or not len(places):
        raise InputError(
            f"expected at least 1 draw and shifts of at least 1 pixel, got {draws} draws of {low} to {high}"
        )
    size = min(draws, len(places))
    chosen = [_rng(*stream, n).choice(len(places), size, replace=False) for n in range(count)]
    return places[np.array(chosen, dtype=np.int64).reshape(count, size)]


def _check_room(protocol: Protocol, images: Tensor, max_shift: int) -> None:
    check_images(images)
    if tuple(images.shape[-2:]) != protocol.image_size:
        raise InputError(f"protocol: made for images of {protocol.image_size} pixels, got {tuple(images.shape[-2:])}")
    if max_shift > protocol.margin:
        raise InputError(f"max_shift: the protocol has a margin of {protocol.margin:g} pixels, got {max_shift}")


def _unit(images: Tensor) -> Tensor:
    check_images(images)
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _energy(images: Tensor, frequencies: Tensor) -> float:
    return float((torch.fft.fft2(images).abs().square() * frequencies).sum() / frequencies.numel())


def _rng(*stream: int) -> np.random.Generator:
    return np.random.default_rng(list(stream))


PROBES: Mapping[str, Callable[..., Any]] = {
    probe.__name__: probe
    for probe in (
        convolution_error,
        layer_loss,
        exactness,
        half_life,
        diagonal_pixel,
        rotation_variability,
        locate,
        layer_variability,
        pixel_sharpness,
    )
}
