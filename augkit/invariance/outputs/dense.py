"""What maps and images share: the output for one view, moved, against the output for the other, in the shared region.

Per image and pair, over the pixels of the region (`augkit.invariance.outputs.regions`):

- the *error* is the mean square of ``T f(x) - f(T x)``;
- the *signal* is the mean square of ``T f(x)`` about its mean, channel by channel;
- `equivariance_error` is the root of error / signal, averaged over images; images with a constant output are left out;
- ``decibels`` is ``10 log10`` of the mean signal by the mean error.

Both also stand by the *fraction of the stride*: how far the move is from a multiple of the network's own stride, in
parts of that stride, along the axis where it is farther. A network that only subsamples is exact at fraction 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from augkit.core.errors import InputError, unknown_name
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
from augkit.invariance.outputs.regions import default_kernel, moved, shared, snapped, strides
from augkit.invariance.outputs.upsampling import UpsamplingWatch

RESOLUTION = 2.0**-23  # of outputs, in float32 at most
ROUNDING = 16 * RESOLUTION  # of a map's root mean square; a map that varies by less is constant
FRACTIONS = (0.0, 0.125, 0.25, 0.375, 0.5)  # upper ends of the ranges of fractions
FRACTION_NAMES = ("0", "to 1/8", "to 1/4", "to 3/8", "to 1/2")
CHUNK = 1 << 20  # values compared at once
CAUSE = 0.5  # an error that falls below this part before the upsampling is caused by it

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
        whole = self._same.check(checked_tensor(self._gridded(output, found, batch), batch, self.shape, 4))
        self.stride_of(whole)
        if upsampling is None:
            return Dense(whole)
        before = upsampling.before.to(torch.promote_types(upsampling.before.dtype, torch.float32))
        return Dense(whole, self._same_before.check(before), upsampling.mode)

    def add(self, first: Dense, second: Dense, compared: Compared) -> Tensor:
        """Compare two maps; the score is `score_of` the statistics."""
        gathered: dict[str, list[Tensor]] = {}
        for region in self._regions("map", first.whole, second.whole, compared.moves):
            for name, each in (energies(region) | self.compare(region)).items():
                gathered.setdefault(name, []).append(each.cpu())
        values = {name: torch.cat(parts) for name, parts in gathered.items()}
        values |= self._by_fraction(values, compared.moves.cpu())
        if first.before is not None and second.before is not None:
            values |= self._before(first.before, second.before, compared.moves)
            self._mode = first.mode
        self.tally.add(compared.start, values)
        return self.score_of(values)

    def compare(self, region: Region) -> dict[str, Tensor]:
        """Return further statistics ``(B,)`` or ``(B, F)`` of one region, per image."""
        del region
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
        expected, mask = self.moved(first, compared.moves)
        size = (expected[row] - second.whole[row]).square().mean(0).sqrt() * mask[row]
        largest = float(size.max())
        return [(as_gray(size, view.shape[-2:], 0.0, largest), f"difference, white is {largest:.2g}")]

    def results(self) -> KindResults:
        """Return the numbers, the curve by fraction of the stride, and what is known of the cause."""
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
        return KindResults(numbers, {"by_fraction": self._fraction_curve(statistics)}, settings, tuple(notes))

    def stride_of(self, whole: Tensor | None) -> tuple[float, float]:
        """Return the stride ``(y, x)`` of a map, or of the maps so far when None."""
        shape = self._same.shape if whole is None else whole.shape[1:]
        assert shape is not None
        return strides((shape[-2], shape[-1]), self.setting.protocol.input_size)

    def moved(self, first: Dense, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps moved by ``(B, 2)`` pixels of the input, and the pixels ``(B, h, w)`` that are compared."""
        return self._moved("map", first.whole, moves)

    def _gridded(self, output: Any, found: Any, batch: int) -> Any:
        """Return the output with a 3-D tensor laid out as a map: tokens on a grid, or a map without channels."""
        if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != batch:
            return output
        height, width = self.setting.protocol.input_size
        rows, columns = found.shape[1:]
        if height % rows == 0 and width % columns == 0 and height // rows == width // columns:
            return found[:, None]
        side = math.isqrt(rows * height // width)
        if side and rows % side == 0 and side * width == rows // side * height:
            return found.transpose(1, 2).unflatten(2, (side, rows // side))
        raise InputError(
            f"model: expected tokens on a grid of the input's {height} x {width} pixels, got {rows} of them; wrap it so"
            " that it leaves out class tokens, or gives its patches as (B, D, h, w)"
        )

    def _moved(self, name: str, maps: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        size, setting = (maps.shape[-2], maps.shape[-1]), self.setting
        y, x = strides(size, setting.protocol.input_size)
        if name not in self.kernels:
            chosen = default_kernel(size, (y, x), setting.most, circular=setting.circular, whole=setting.whole)
            self.kernels[name] = setting.options.map_kernel or chosen
        kernel = self.kernels[name]
        pixels = snapped(torch.stack([moves[:, 0] / x, moves[:, 1] / y], dim=-1))
        border = (setting.options.border / y, setting.options.border / x)
        if setting.circular:
            mask = torch.ones(len(maps), *size, dtype=torch.bool, device=maps.device)
        else:
            mask = shared(size, pixels, kernel, border)
        return moved(maps, pixels, kernel, circular=setting.circular), mask

    def _regions(self, name: str, first: Tensor, second: Tensor, moves: Tensor) -> Iterator[Region]:
        """Yield the comparison of maps in parts of a bounded size."""
        count = max(1, CHUNK // max(1, first[0].numel()))
        for a, b, move in zip(first.split(count), second.split(count), moves.split(count), strict=True):
            expected, mask = self._moved(name, a, move)
            pixels = mask.sum((-2, -1))
            if name == "map" and not bool((pixels > 0).all()):
                raise InputError(
                    f"max_shift: two views share no pixel of a map of {a.shape[-2]} x {a.shape[-1]} pixels that kernel"
                    f" '{self.kernels[name]}' can move; expected a smaller max_shift or border, a map_kernel of fewer"
                    " taps, or larger images"
                )
            yield Region(expected, b, mask.to(b.dtype), pixels.clamp_min(1))

    def _before(self, first: Tensor, second: Tensor, moves: Tensor) -> dict[str, Tensor]:
        try:
            strides((first.shape[-2], first.shape[-1]), self.setting.protocol.input_size)
        except InputError:
            return {}  # no stride, so nothing to compare
        parts = [energies(region) for region in self._regions("before", first, second, moves)]
        return {f"before_{name}": torch.cat([part[name].cpu() for part in parts]) for name in ("relative", "varied")}

    def _by_fraction(self, values: dict[str, Tensor], moves: Tensor) -> dict[str, Tensor]:
        parts = moves.double() / self.setting.stride
        fraction = (parts - parts.round()).abs().amax(-1)
        which = torch.bucketize((fraction - 1e-6).clamp_min(0), torch.tensor(FRACTIONS, dtype=torch.float64))
        inside = torch.nn.functional.one_hot(which, len(FRACTIONS)).double()
        names = ("signal", "error", "relative", "varied")
        return {f"fraction_{name}": values[name][:, None] * inside for name in names}

    def _fraction_curve(self, statistics: dict[str, Tensor]) -> OutputCurve:
        seen = statistics["fraction_varied"].sum(0) > 0
        chosen = {name: statistics[f"fraction_{name}"][:, seen] for name in ("signal", "error", "relative", "varied")}
        seed = self.setting.seed
        if not bool(seen.any()):
            return OutputCurve("fraction", "fraction of the stride", (), {})

        def in_decibels(means: Means) -> Tensor:
            return decibels(means, "signal", "error", RESOLUTION)

        numbers = {
            "decibels": curve(in_decibels, ("signal", "error"), chosen, seed=seed),
            "equivariance_error": curve(
                lambda means: ratio(means, "relative", "varied"), ("relative", "varied"), chosen, low=0.0, seed=seed
            ),
        }
        x = [name for name, found in zip(FRACTION_NAMES, seen.tolist(), strict=True) if found]
        return OutputCurve("fraction", "fraction of the stride", x, numbers)


def energies(region: Region) -> dict[str, Tensor]:
    """Return error, signal, relative error and whether the map varies, ``(B,)`` each; see the head of this file."""
    error, centered = region.square_error(), region.expected - region.mean(region.expected)[..., None, None]
    signal = region.mean(centered.square_()).mean(-1)
    size = signal + region.mean(region.expected).square().mean(-1)
    varied = (signal > ROUNDING**2 * size) & (region.pixels > 1)
    relative = torch.where(varied, (error / signal.clamp_min(1e-300)).sqrt(), 0.0)
    signal, error = torch.where(varied, signal, 0.0), torch.where(varied, error, 0.0)
    return {"relative": relative, "varied": varied.to(error.dtype), "signal": signal, "error": error}
