"""Certifies that the map of a network moves exactly with its input on the torus, or names the layer that prevents it.

A strided network cannot follow every shift, and may follow those by multiples of its stride: then every layer sees its
own map moved by whole pixels. So the trace of `augkit.invariance.certificate` is made for shifts by one pixel, and
where a layer ends it, for shifts by multiples of the network's stride
(`augkit.invariance.outputs.upsampling.own_stride`). As there, the map itself is checked in float64; both must agree.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from augkit.architectures.outputs import reason
from augkit.augment.resample import fourier_shift
from augkit.core.errors import InputError, OddMapWarning
from augkit.core.records import Record
from augkit.invariance.certificate.certify import FRACTIONAL_SHIFTS, INTEGER_SHIFTS, checked_input, prepared
from augkit.invariance.certificate.state import Equivariant, Level, Limitation, Lost
from augkit.invariance.certificate.trace import Step, Trace, trace_states
from augkit.invariance.outputs.base import checked_tensor
from augkit.invariance.outputs.regions import strides
from augkit.invariance.outputs.upsampling import own_stride

Verdict = Literal["fractional", "integer", "stride", "none", "refused"]
IMAGES = 2  # random images of the check


@dataclass(frozen=True)
class MapCertificate(Record):
    """The verdict on a network that gives a map, in evaluation mode, at one input size, on the torus.

    Attributes:
        verdict: the map moves exactly with the input for ``fractional`` shifts, for ``integer`` ones (by whole pixels),
            for those by multiples of the ``stride``, or for ``none`` of these; ``refused``: it cannot be judged.
        step: pixels; shifts by multiples of it are exact. None for ``none`` and ``refused``.
        layer, type: qualified name and class of the first layer that ends the guarantee: for ``fractional`` none, for
            ``integer`` that of fractional shifts, for ``stride`` that of shifts by one pixel.
        reason: why the guarantee ends there, or why it holds.
        remedy: a change of the layer that would restore the guarantee; None where none is known.
        input_size, map_size: ``(H, W)``, ``(h, w)``.
        walk: the layers in the order of execution, for shifts by multiples of ``step``.
        error: the largest absolute difference between the moved map and the map of the moved image, over the shifts
            that the verdict allows (by multiples of the stride where it allows none), relative to the largest value.
        tolerance: the error up to which they count as equal.
        shifts: number of shifts.
    """

    verdict: Verdict
    step: int | None
    layer: str | None
    type: str | None
    reason: str
    remedy: str | None
    input_size: tuple[int, int]
    map_size: tuple[int, int]
    walk: tuple[Step, ...]
    error: float
    tolerance: float
    shifts: int

    @property
    def mend(self) -> str | None:
        """The former name of ``remedy``."""
        return self.remedy

    def to_mapping(self) -> dict[str, object]:
        """The fields for JSON, with the layers as objects."""
        return {**super().to_mapping(), "walk": [dataclasses.asdict(step) for step in self.walk]}

    def __str__(self) -> str:
        (height, width), (h, w) = self.input_size, self.map_size
        claim = {
            "fractional": "the map moves exactly with the image, by any fraction of a pixel",
            "integer": "the map moves exactly with the image by whole pixels, not by fractions",
            "stride": f"the map moves exactly with the image by multiples of {self.step} pixels, not by others",
            "none": "the map does not move exactly with the image",
            "refused": "cannot be judged",
        }[self.verdict]
        place = "" if self.layer is None else f"{self.layer} ({self.type}): "
        lines = [f"{self.verdict}: {claim} ({height} x {width} to {h} x {w} pixels, circular, evaluation mode)"]
        lines += [f"  {place}{self.reason}"] + ([] if self.remedy is None else [f"  remedy: {self.remedy}"])
        check = f"float64, {IMAGES} random images, {self.shifts} shifts"
        return "\n".join([*lines, f"  maps differ by {self.error:.1e} of the largest value ({check})"])


def certify_map(
    model: nn.Module,
    input_size: int | tuple[int, int],
    *,
    in_channels: int | None = None,
    tolerance: float = 1e-9,
    seed: int = 0,
) -> MapCertificate:
    """Decide whether the map of a network moves exactly with its input under circular shifts.

    The network is copied and judged in evaluation mode; it is not changed.

    Args:
        model: maps images ``(B, C, H, W)`` to a map ``(B, K, h, w)``, alone or as in `augkit.architectures.outputs`.
        input_size: side of the input in pixels, or ``(H, W)``.
        in_channels: C; taken from the first convolution when None.
        tolerance: largest difference, relative to the largest value of the map, that counts as rounding in float64.
        seed: seed of the random images.

    Raises:
        InputTypeError: the model is not a `torch.nn.Module`.
        InputError: the network does not accept the input size, its output is no map of a size that divides it, or C is
            unknown.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> certificate = certify_map(network, 16)
    >>> certificate.verdict, certificate.step, certificate.layer
    ('stride', 2, '0')
    """
    size, channels = checked_input(model, input_size, in_channels, IMAGES, tolerance)
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(IMAGES, channels, *size, generator=generator, dtype=torch.float64)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", OddMapWarning)
        network, batch = prepared(model, batch)
        with own_stride(network, size) as found:
            whole = _map(network, batch)
        stride = found[0]
        apart = strides((whole.shape[-2], whole.shape[-1]), size)
        single = _judged(network, batch, whole, 1, tolerance)
        trace, step = single, 1
        if isinstance(single.state, Lost) and stride > 1:
            trace, step = _judged(network, batch, whole, stride, tolerance), stride
        level = Level.FRACTIONAL if _level(trace) == Level.FRACTIONAL and step == 1 else Level.INTEGER
        shifts = FRACTIONAL_SHIFTS if level == Level.FRACTIONAL else _multiples(step)
        difference = max(_difference(network, batch, whole, shift, apart) for shift in shifts)
        largest = float(whole.abs().max())  # 0 where the last layer starts at zero
        error = difference / largest if largest > 0 else (math.inf if difference > 0 else 0.0)
    verdict, limitation = _verdict(single, trace, level, step, error <= tolerance)
    return MapCertificate(
        verdict,
        None if verdict in ("none", "refused") else step,
        limitation.layer,
        limitation.type,
        limitation.why,
        limitation.remedy,
        size,
        (whole.shape[-2], whole.shape[-1]),
        trace.steps,
        error,
        tolerance,
        len(shifts),
    )


def _map(network: nn.Module, batch: Tensor) -> Tensor:
    height, width = batch.shape[-2:]
    try:
        output = network(batch.clone())
    except Exception as error:  # the network's own code may raise anything
        raise InputError(
            f"input_size {height} x {width}, {batch.shape[1]} channels: the network cannot take it in float64"
            f" ({reason(error)})"
        ) from error
    found = checked_tensor(output, len(batch), "a map (B, C, h, w)", 4)
    if not bool(torch.isfinite(found).all()):
        raise InputError("model: expected a finite map of random images, got NaN or infinity")
    return found


def _judged(network: nn.Module, batch: Tensor, whole: Tensor, step: int, tolerance: float) -> Trace:
    """The trace for shifts by multiples of ``step``; lost where its output does not move as the map must."""
    traced = trace_states(network, batch.clone(), step)
    state, why = traced.state, None
    if isinstance(state, Lost):
        return traced
    output = traced.output
    if not isinstance(output, Tensor) or output.shape != whole.shape:
        why = "its trace gives another map than the network: its Python code takes another path"
    elif float((output - whole).abs().max()) > tolerance * float(whole.abs().max()):
        why = "its trace gives another map than the network: its Python code takes another path, or it is random"
    elif not isinstance(state, Equivariant) or not _moves_alike(state, batch, whole, step):
        why = "its output does not move by the stride of the map: it is invariant, or places lie in channels"
    return traced if why is None else Trace(traced.steps, Lost(Limitation(why, refused=True)), output)


def _moves_alike(state: Equivariant, batch: Tensor, whole: Tensor, step: int) -> bool:
    """Whether the axes of the output are those of a map, which moves ``step`` pixels of the input by its stride."""
    for dim, axis in zip((2, 3), state.axes, strict=True):
        pixels = Fraction(step * whole.shape[dim], batch.shape[dim])
        if whole.shape[dim] > 1 and (axis is None or axis.dim != dim or axis.unit != pixels):
            return False
    return state.frame == ()


def _level(traced: Trace) -> Level:
    return traced.state.level if isinstance(traced.state, Equivariant) else Level.INTEGER


def _multiples(step: int) -> tuple[tuple[float, float], ...]:
    return tuple((step * x, step * y) for x, y in INTEGER_SHIFTS)


def _difference(
    network: nn.Module, batch: Tensor, whole: Tensor, shift: tuple[float, float], apart: tuple[float, float]
) -> float:
    moves = torch.tensor([shift] * len(batch), dtype=torch.float64, device=batch.device)
    wanted = _moved(whole, moves / moves.new_tensor([apart[1], apart[0]]))
    return float((_map(network, _moved(batch, moves)) - wanted).abs().max())


def _moved(maps: Tensor, moves: Tensor) -> Tensor:
    if bool((moves == moves.round()).all()):
        return torch.stack(
            [one.roll((int(y), int(x)), (-2, -1)) for one, (x, y) in zip(maps, moves.tolist(), strict=True)]
        )
    return fourier_shift(maps, moves)


def _verdict(single: Trace, trace: Trace, level: Level, step: int, exact: bool) -> tuple[Verdict, Limitation]:
    if isinstance(trace.state, Lost):
        limitation = trace.state.limitation
        return ("refused" if limitation.refused else "none"), limitation
    assert isinstance(trace.state, Equivariant)  # as `_judged` gives no other
    if not exact:
        why = "every layer allows these shifts, yet the map does not move with them: a layer hides something"
        return "refused", Limitation(why, refused=True)
    if step > 1:
        assert isinstance(single.state, Lost)
        return "stride", single.state.limitation
    if level == Level.FRACTIONAL:
        return "fractional", Limitation("every layer commutes with fractional shifts")
    return "integer", trace.state.limit or Limitation("a layer commutes with integer shifts only")
