"""What maps and images share: the output for one view, moved, against the output for the other, in the shared region.

Per image and pair, over the pixels of the region (`augkit.invariance.outputs.regions`):

- the *error* is the mean square of ``T f(x) - f(T x)``;
- the *signal* is the mean square of ``T f(x)`` about its mean, channel by channel;
- `equivariance_error` is the root of error / signal, averaged over images; images with a constant output are left out;
- ``decibels`` is ``10 log10`` of mean signal over mean error.

Both are also given by the *fraction of the stride*: how far the move is from a multiple of the network's own stride, in
parts of that stride, along the axis where it is farther. A network that only subsamples is exact at fraction 0. For
rescaled views they are given by the factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from augkit.augment.backends import installed
from augkit.core.errors import InputError, unknown_name
from augkit.invariance.accumulator import State
from augkit.invariance.metrics import Means, Metric
from augkit.invariance.outputs.base import (
    Compared,
    KindResults,
    OutputCurve,
    OutputMeasure,
    OutputSetting,
    SameShape,
    checked_tensor,
    tensor_in,
)
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, curve, decibels, estimates, ratio, ratio_of
from augkit.invariance.outputs.pictures import as_gray
from augkit.invariance.outputs.regions import default_kernel, moved, rectangles, shared, snapped, strides
from augkit.invariance.outputs.upsampling import UpsamplingWatch

if TYPE_CHECKING:
    from augkit.invariance.outputs.map_loop import Sums

RESOLUTION = 2.0**-23  # of outputs, in float32 at most
ROUNDING = 16 * RESOLUTION  # of a map's root mean square; a map that varies by less is constant
FRACTIONS = (0.0, 0.125, 0.25, 0.375, 0.5)  # upper ends of the ranges of fractions
FRACTION_NAMES = ("0", "to 1/8", "to 1/4", "to 3/8", "to 1/2")
FACTOR_PARTS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # ends of the ranges of factors, in parts of the logarithm of the largest
CHUNK = 1 << 20  # values compared at once
LOOP_FROM = 1 << 15  # least values of a map that the compiled loop compares
CAUSE = 0.5  # the upsampling is the cause if this share of the error exceeds that before it

ERROR_BEFORE = ratio_of(
    "error_before_upsampling", "equivariance error before the upsampling", ("before_relative", "before_varied"),
    "equivariance error of the map that the last upsampling enlarges, at that map's stride", unit="", high=math.inf,
)  # fmt: skip
DECIBELS = Metric(
    "decibels", "signal to error", "mean square of T f(x) about its mean by that of T f(x) - f(T x)",
    ("signal", "error"), lambda means: decibels(means, "signal", "error", RESOLUTION)[..., 0],
    unit="dB", higher_is_better=True, low=-math.inf, high=math.inf,
)  # fmt: skip


class Dense(NamedTuple):
    """A map ``(B, C, h, w)``, and the map before the upsampling that made it, with the kind of that upsampling."""

    whole: Tensor
    before: Tensor | None = None
    mode: str = ""


class Region(NamedTuple):
    """Maps of some images, compared pixel by pixel.

    Attributes:
        expected: ``T f(x)``, ``(B, C, h, w)``.
        found: ``f(T x)``, the same shape.
        mask: the pixels that are compared, ``(B, h, w)``, 0 or 1 in the dtype of the maps.
        pixels: their number, ``(B,)``.
    """

    expected: Tensor
    found: Tensor
    mask: Tensor
    pixels: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` ``(B, ..., h, w)`` over the region, ``(B, ...)``."""
        rows = values.to(self.mask.dtype).flatten(1, -3).flatten(-2) if values.ndim > 3 else values.flatten(1)[:, None]
        sums = torch.bmm(rows.to(self.mask.dtype), self.mask.flatten(1)[..., None])[..., 0]
        return (sums / self.pixels[:, None]).reshape(values.shape[:-2])

    def square_error(self) -> Tensor:
        """Return the mean square of the difference over channels and pixels, ``(B,)``."""
        return self.mean((self.expected - self.found).square_()).mean(-1)


class DenseMeasure(OutputMeasure):
    """Compares maps ``(B, C, h, w)`` of any stride."""

    rows: ClassVar[tuple[Metric, ...]] = (EQUIVARIANCE_ERROR, DECIBELS, ERROR_BEFORE)
    shape = "a map (B, C, h, w)"
    score_name = "relative error"

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        kernel, border = setting.options.map_kernel, setting.options.border
        known = ("fourier",) if setting.circular else ("sinc", "lanczos3", "bicubic", "bilinear", "nearest")
        if kernel is not None and kernel not in known:
            raise unknown_name("map_kernel", kernel, known)
        if not 0 <= border < math.inf:
            raise InputError(f"border: expected pixels of at least 0, got {border:g}")
        self._same, self._same_before = SameShape(), SameShape()
        self._watch = UpsamplingWatch()
        self.kernels: dict[str, str] = {}  # by the name of the map, chosen for the first one
        self._mode = ""

    def watching(self) -> AbstractContextManager[Any]:
        """Context of a forward pass, which notes the map before the last upsampling."""
        return self._watch

    def take(self, output: Any, batch: int) -> Dense:
        """Return the map with the one before the last upsampling, where there is one."""
        found = tensor_in(output)
        upsampling = self._watch.last_of(found) if isinstance(found, Tensor) else None
        whole = self._same.check(map_in(output, batch, self.setting.protocol.input_size, self.shape))
        self.stride_of(whole)
        if whole.is_inference() and _suits_loop(whole, whole):  # not where it is differentiated
            from augkit.invariance.outputs import map_loop  # numba takes a third of a second to import

            whole = map_loop.planar(whole)  # once, as a view may be in several pairs
        if upsampling is None:
            return Dense(whole)
        before = upsampling.before.to(torch.promote_types(upsampling.before.dtype, torch.float32))
        return Dense(whole, self._same_before.check(before), upsampling.mode)

    def add(self, first: Dense, second: Dense, compared: Compared) -> Tensor:
        """Compare two maps; the score is `score_of` the statistics."""
        values = self._statistics("map", first.whole, second.whole, compared)
        values |= self._by_range(values, compared)
        if first.before is not None and second.before is not None:
            values |= self._before(first.before, second.before, compared)
            self._mode = first.mode
        self.tally.add(compared.start, values)
        return self.score_of(values)

    def has_classes(self, channels: int) -> bool:
        """Whether the channels of a map are scores of classes, which are compared too."""
        del channels
        return False

    def class_changes(self, region: Region) -> dict[str, Tensor]:
        """Return the statistics of classes ``(B,)`` or ``(B, F)`` of one region, per image."""
        del region
        return {}

    def class_changes_of(self, sums: Sums) -> dict[str, Tensor]:
        """Return the same from what the compiled loop found."""
        del sums
        return {}

    def score_of(self, values: dict[str, Tensor]) -> Tensor:
        """Return how bad each image is, ``(B,)``."""
        return values["relative"]

    def draw(self, view: Tensor, output: Dense, row: int) -> Tensor:
        """Return the output in gray, or in color where it has three channels; the mean of its channels otherwise."""
        values = output.whole[row].float().cpu()
        if len(values) == 3:
            return values
        values = values.mean(0)
        return as_gray(values, view.shape[-2:], float(values.min()), float(values.max()))

    def draw_difference(
        self, view: Tensor, first: Dense, second: Dense, compared: Compared, row: int
    ) -> list[tuple[Tensor, str]]:
        """Return the size of the difference, white where it is largest; pixels that are not compared are black."""
        expected, mask = self.moved(first, compared)
        size = (expected[row] - second.whole[row]).square().mean(0).sqrt() * mask[row]
        largest = float(size.max())
        return [(as_gray(size, view.shape[-2:], 0.0, largest), f"difference, white is {largest:.2g}")]

    def results(self) -> KindResults:
        """Return the numbers, the curve by fraction of the stride or by factor, and what is known of the cause."""
        statistics, seed = self.tally.statistics(), self.setting.seed
        numbers = estimates(self.rows, statistics, seed)
        settings: dict[str, object] = {
            "shape": list(self._same.shape or ()),
            "stride": list(self.stride_of(None)),
            "network_stride": self.setting.stride,
            "map_kernel": self.kernels["map"],
            "border": self.setting.options.border,
        }
        notes = []
        if self._mode and "error_before_upsampling" in numbers:
            after, before = (numbers[name].value for name in ("equivariance_error", "error_before_upsampling"))
            sides = zip((self._same.shape or ())[1:], (self._same_before.shape or ())[1:], strict=True)
            factor = " x ".join(f"{after_it / before_it:g}" for after_it, before_it in sides)
            settings |= {"upsampling": self._mode, "upsampled_by": factor, "kernel_before": self.kernels["before"]}
            text = f"error {before:.3g} before the {self._mode} upsampling by {factor} at the end, {after:.3g} after it"
            verdict = "the upsampling is the cause" if before < CAUSE * after else "the layers before it are the cause"
            notes.append(f"{text}: {verdict}")
        by = self._curve(statistics)
        return KindResults(numbers, {f"by_{by.by}": by}, settings, tuple(notes))

    def state(self, images: int) -> State:
        """Beside the statistics, how maps are moved and what comes before their upsampling."""
        own = {"kernels": self.kernels, "mode": self._mode, "before": self._same_before.shape}
        return super().state(images) | own

    def restore(self, state: State, images: int) -> None:
        """Continue from a `state`."""
        super().restore(state, images)
        self.kernels, self._mode, self._same_before.shape = state["kernels"], state["mode"], state["before"]

    def stride_of(self, whole: Tensor | None) -> tuple[float, float]:
        """Return the stride ``(y, x)`` of a map, or of the maps so far when None."""
        shape = self._same.shape if whole is None else whole.shape[1:]
        assert shape is not None
        return strides((shape[-2], shape[-1]), self.setting.protocol.input_size)

    def moved(self, first: Dense, compared: Compared) -> tuple[Tensor, Tensor]:
        """Return the maps of the first views moved as the second views are, and the pixels ``(B, h, w)`` to compare."""
        pixels, mask = self._shared("map", first.whole, compared)
        return self._move("map", first.whole, pixels, compared.factor), mask

    def _move(self, name: str, maps: Tensor, pixels: Tensor, factor: Tensor | None) -> Tensor:
        return moved(maps, pixels, self.kernels[name], circular=self.setting.circular, factor=factor)

    def _shared(self, name: str, maps: Tensor, compared: Compared) -> tuple[Tensor, Tensor]:
        """Return by how many pixels of their own maps move, ``(B, 2)``, and the pixels ``(B, h, w)`` to compare."""
        size, setting, moves = (maps.shape[-2], maps.shape[-1]), self.setting, compared.moves
        y, x = strides(size, setting.protocol.input_size)
        if name not in self.kernels:
            how = {"circular": setting.circular, "whole": setting.whole}
            chosen = default_kernel(size, (y, x), setting.most, **how, smallest=setting.factors[0])
            self.kernels[name] = setting.options.map_kernel or chosen
        kernel = self.kernels[name]
        pixels = snapped(torch.stack([moves[:, 0] / x, moves[:, 1] / y], dim=-1))
        border = (setting.options.border / y, setting.options.border / x)
        if setting.circular:
            return pixels, torch.ones(len(maps), *size, dtype=torch.bool, device=maps.device)
        mask = shared(size, pixels, kernel, border, compared.factor)
        if name == "map" and not bool(mask.any(-1).any(-1).all()):
            most = "max_shift" if compared.factors is None else "max_scale"
            raise InputError(
                f"{most}: two views share no pixel of a map of {size[0]} x {size[1]} pixels that kernel '{kernel}'"
                f" can move; expected a smaller {most} or border, a map_kernel of fewer taps, or larger images"
            )
        return pixels, mask

    def _statistics(self, name: str, first: Tensor, second: Tensor, compared: Compared) -> dict[str, Tensor]:
        """Return the statistics of two maps, ``(B,)`` or ``(B, F)`` each, on the CPU."""
        if _suits_loop(first, second):
            return self._by_loop(name, first, second, compared)
        parts = []
        for region in self._regions(name, first, second, compared):
            found = energies(region)
            if name == "map" and self.has_classes(first.shape[1]):
                found |= self.class_changes(region)
            parts.append({key: values.cpu() for key, values in found.items()})
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _by_loop(self, name: str, first: Tensor, second: Tensor, compared: Compared) -> dict[str, Tensor]:
        from augkit.invariance.outputs import map_loop  # numba takes a third of a second to import

        classes = name == "map" and self.has_classes(first.shape[1])
        pixels, mask = self._shared(name, first, compared)
        offsets = pixels.flip(-1).long()
        copied = compared.factors is None and bool((pixels == offsets.flip(-1)).all())
        if self.setting.circular or not copied:
            first, offsets = self._move(name, first, pixels, compared.factor), offsets * 0
        sums = map_loop.compare(first, second, offsets, rectangles(mask), classes=classes)
        error, signal, offset = sums.energies.unbind(1)
        found = relative_energies(error, signal, offset, mask.sum((-2, -1)))
        return found | self.class_changes_of(sums) if classes else found

    def _regions(self, name: str, first: Tensor, second: Tensor, compared: Compared) -> Iterator[Region]:
        """Yield the comparison of maps in parts of a bounded size."""
        pixels, mask = self._shared(name, first, compared)
        count, factor = max(1, CHUNK // max(1, first[0].numel())), compared.factor
        for start in range(0, len(first), count):
            rows = slice(start, start + count)
            expected = self._move(name, first[rows], pixels[rows], None if factor is None else factor[rows])
            inside = mask[rows].to(second.dtype)
            yield Region(expected, second[rows], inside, mask[rows].sum((-2, -1)).clamp_min(1))

    def _before(self, first: Tensor, second: Tensor, compared: Compared) -> dict[str, Tensor]:
        try:
            strides((first.shape[-2], first.shape[-1]), self.setting.protocol.input_size)
        except InputError:
            return {}  # no stride, so nothing to compare
        found = self._statistics("before", first, second, compared)
        return {f"before_{name}": found[name] for name in ("relative", "varied")}

    def _by_range(self, values: dict[str, Tensor], compared: Compared) -> dict[str, Tensor]:
        """Return the statistics by ranges of the fraction of the stride, or of the factor, ``(B, F)`` each."""
        ends: Sequence[float] = FRACTIONS
        if compared.factors is None:
            parts = compared.moves.cpu().double() / self.setting.stride
            where = (parts - parts.round()).abs().amax(-1)
        else:
            part = torch.log(compared.factors[1].cpu().double() / compared.factors[0].cpu().double())
            where, ends = part / math.log(max(self.setting.factors[1], 1 + ROUNDING)), FACTOR_PARTS[1:]
        which = torch.bucketize(where - 1e-6, torch.tensor(ends, dtype=torch.float64)).clamp_max(len(ends) - 1)
        inside = torch.nn.functional.one_hot(which, len(ends)).double()
        return {f"range_{name}": values[name][:, None] * inside for name in ("signal", "error", "relative", "varied")}

    def _curve(self, statistics: dict[str, Tensor]) -> OutputCurve:
        seen = statistics["range_varied"].sum(0) > 0
        by, axis, names = "fraction", "fraction of the stride", list(FRACTION_NAMES)
        if len(seen) < len(FRACTIONS):
            ends = [f"{self.setting.factors[1] ** part:.3g}" for part in FACTOR_PARTS]
            by, axis, names = "factor", "factor", [f"{low} to {high}" for low, high in pairwise(ends)]
        chosen = {name: statistics[f"range_{name}"][:, seen] for name in ("signal", "error", "relative", "varied")}
        seed = self.setting.seed
        if not bool(seen.any()):
            return OutputCurve(by, axis, (), {})

        def in_decibels(means: Means) -> Tensor:
            return decibels(means, "signal", "error", RESOLUTION)

        numbers = {
            "decibels": curve(in_decibels, ("signal", "error"), chosen, seed=seed),
            "equivariance_error": curve(
                lambda means: ratio(means, "relative", "varied"), ("relative", "varied"), chosen, low=0.0, seed=seed
            ),
        }
        return OutputCurve(by, axis, [name for name, found in zip(names, seen.tolist(), strict=True) if found], numbers)


def map_in(output: Any, batch: int, input_size: tuple[int, int], shape: str = "a map (B, C, h, w)") -> Tensor:
    """Return the map ``(batch, C, h, w)`` in an output, at least in float32.

    A tensor of 3 dimensions is laid out as a map: tokens on a grid, or a map without channels.

    Raises:
        InputError: there is none, or tokens are on no grid of the input ``(H, W)``; ``shape`` is named.
    """
    found = tensor_in(output)
    if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != batch:
        return checked_tensor(output, batch, shape, 4)
    (height, width), (rows, columns) = input_size, found.shape[1:]
    if height % rows == 0 and width % columns == 0 and height // rows == width // columns:
        return checked_tensor(found[:, None], batch, shape, 4)
    side = math.isqrt(rows * height // width)
    if side and rows % side == 0 and side * width == rows // side * height:
        return checked_tensor(found.transpose(1, 2).unflatten(2, (side, rows // side)), batch, shape, 4)
    raise InputError(
        f"model: expected tokens on a grid of the input's {height} x {width} pixels, got {rows} of them; wrap it so"
        " that it leaves out class tokens, or gives its patches as (B, D, h, w)"
    )


def _suits_loop(first: Tensor, second: Tensor) -> bool:
    """Whether the compiled loop compares two maps; it takes seconds to compile once, which small maps do not repay."""
    maps = (first, second)
    fits = all(type(each) is Tensor and each.dtype == torch.float32 and each.device.type == "cpu" for each in maps)
    return fits and first[0].numel() >= LOOP_FROM and installed("numba")


def energies(region: Region) -> dict[str, Tensor]:
    """Return error, signal, relative error and whether the map varies, ``(B,)`` each; see the head of this file."""
    error, mean = region.square_error(), region.mean(region.expected)
    signal = region.mean((region.expected - mean[..., None, None]).square_()).mean(-1)
    return relative_energies(error, signal, mean.square().mean(-1), region.pixels)


def relative_energies(error: Tensor, signal: Tensor, offset: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """Return the same from the mean squares of the difference, of a map about its mean, and of that mean.

    ``square`` is the error of constant maps too.
    """
    varied = (signal > ROUNDING**2 * (signal + offset)) & (pixels > 1)
    relative = torch.where(varied, (error / signal.clamp_min(1e-300)).sqrt(), 0.0)
    found = {"relative": relative, "varied": varied.to(error.dtype), "square": error}
    return found | {"signal": torch.where(varied, signal, 0.0), "error": torch.where(varied, error, 0.0)}
