"""Lie derivative of outputs beyond logits: the rate at which an output departs from its image as it begins to move.

For a direction with the flow ``T_t`` it is ``L = d/dt T_-t f(T_t x)`` at t = 0 (Gruver et al. 2023,
https://arxiv.org/abs/2210.02984), where ``T_-t`` acts on the output. A map or an image moves with its input, so L is
the derivative of the network along the velocity of the image, less the velocity of the map itself; an embedding should
not move, so nothing is taken off. L is 0 for an equivariant or invariant network.

Images and maps are tori and are interpolated by their trigonometric polynomials, as in
`augkit.invariance.layers.lie_derivative`. A map of stride r moves by r-th parts of the pixels by which its input does.
Both views see all of a torus; for log-scale and rotation content enters and leaves at its seam at full speed, and
``border`` leaves out the pixels near it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from augkit.augment.resample import check_images
from augkit.core.errors import InputError
from augkit.core.precision import on_cpu
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.layers.lie_derivative import (
    DIRECTIONS,
    check_names,
    differentiator,
    radius_of,
    spectral_derivative,
    tangents,
    velocities,
)
from augkit.invariance.network import batch_slices, evaluating
from augkit.invariance.outputs.base import checked_tensor
from augkit.invariance.outputs.dense import ROUNDING, map_in
from augkit.invariance.outputs.kinds import find_kind
from augkit.invariance.outputs.numbers import curve, ratio
from augkit.invariance.outputs.regions import rectangles, shared, strides
from augkit.invariance.protocols import make_protocol

AT_ONCE = 1 << 21  # values of an output; with their derivatives there are five times as many


@dataclass(frozen=True)
class OutputLieSettings:
    """Settings that reproduce `output_lie_derivative`; ``stride`` (y, x) is that of a map, None of an embedding.

    ``method`` is ``forward`` or ``central``, and ``input_size`` ``[H, W]`` that of the images.
    """

    stride: list[float] | None
    border: float
    protocol: str
    generator: str
    method: str
    images: int
    input_size: list[int]
    seed: int


@dataclass(frozen=True)
class OutputLieDerivative:
    """The result of `output_lie_derivative`, per direction.

    Attributes:
        kind: ``embedding``, ``map`` or ``image``.
        mean_square: ``E ||L||^2 / K``, the mean over images and over the K values of an output.
        relative: the same relative to the variance of the output: that over the pixels of a map, channel by channel,
            in each image; that of embeddings over the images. Undefined where outputs do not vary.
        radius: as in `augkit.invariance.LieDerivative`.
        settings: settings that reproduce the measurement.
        per_image: ``square`` ``(N, D)``, the mean square of L, and ``variance`` ``(N, 1)``.
    """

    kind: str
    mean_square: dict[str, Estimate]
    relative: dict[str, Estimate]
    radius: float
    settings: OutputLieSettings
    per_image: dict[str, Tensor] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """Estimates and settings for JSON."""
        estimates = {
            form: {name: found.to_dict() for name, found in getattr(self, form).items()}
            for form in ("mean_square", "relative")
        }
        return {"kind": self.kind, **estimates, "radius": self.radius, "settings": asdict(self.settings)}


def output_lie_derivative(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    output: str | None = None,
    directions: Sequence[str] = tuple(DIRECTIONS),
    border: float = 0.0,
    method: str = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> OutputLieDerivative:
    """Return the Lie derivative of an embedding, a map or an image, on the torus; see the head of this file.

    Args:
        model: gives the output, alone or as in `augkit.architectures.outputs`.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        output: ``embedding``, ``map`` or ``image``; recognized from the output when None.
        directions, method, mean, std, device, seed, on_batch: as in `augkit.invariance.lie_derivative`.
        border: pixels of the input that are left out at each side of a map.
        batch_size: images per pass at most; fewer where maps are large.

    Returns:
        The estimates per direction, with the values of every image and the settings.

    Raises:
        InputError: as in `augkit.invariance.lie_derivative`; or the output is of another kind, has no stride, or
            the border leaves nothing.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 2, 1))
    >>> found = output_lie_derivative(net, torch.rand(2, 1, 9, 9))
    >>> found.kind, found.relative["shift_x"].value < 1e-9, found.relative["log_scale"].value < 1e-9
    ('map', True, False)
    """
    check_images(images)
    check_names(directions, method)
    size = (images.shape[-2], images.shape[-1])
    protocol, flat = make_protocol("circular", size), _Flat(model, output, size)
    squares, signals = [], []
    with evaluating(flat, images, mean=mean, std=std, device=device) as network:
        differentiate, used = differentiator(flat, network, images[:1], protocol, directions, method)
        region = None if flat.stride is None else _region(flat.shape, flat.stride, border)
        at_once = max(1, min(batch_size, AT_ONCE // max(1, flat.shape.numel())))
        for part in batch_slices(len(images), at_once if batch_size > 0 else batch_size, on_batch):
            window, velocity = tangents(network.load(images[part]), protocol, directions)
            found, slopes = (each.unflatten(-1, flat.shape) for each in differentiate(window, velocity))
            if not bool(torch.isfinite(slopes.sum() + found.sum())):
                at = f"on images from {part.start} on"
                raise InputError(f"model: expected finite outputs and derivatives, got NaN or infinity {at}")
            if flat.stride is not None:
                slopes = (slopes - _own_velocities(found, flat.stride, directions, size))[region]
                found = found[region]
            squares.append(on_cpu(slopes.square().flatten(2).mean(-1).mT))
            signals.append(found if flat.stride is None else _spread(found))
    square = torch.cat(squares)
    variance = _between(torch.cat(signals)) if flat.stride is None else torch.cat(signals)
    absolute, relative = _numbers(square, variance, across=flat.stride is None, seed=seed)
    settings = OutputLieSettings(
        stride=None if flat.stride is None else list(flat.stride),
        border=border,
        protocol=protocol.name,
        generator="spectral",
        method=used,
        images=len(images),
        input_size=list(size),
        seed=seed,
    )
    return OutputLieDerivative(
        kind=flat.kind,
        mean_square=dict(zip(directions, absolute, strict=True)),
        relative=dict(zip(directions, relative, strict=True)),
        radius=radius_of(size),
        settings=settings,
        per_image={"square": square, "variance": variance},
    )


class _Flat(nn.Module):
    """A network whose output is one vector ``(B, K)``; it knows the kind, the shape and the stride of the output."""

    def __init__(self, network: nn.Module, output: str | None, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.kind = network, ""
        self._named, self._size = output, input_size
        self.shape = torch.Size()
        self.stride: tuple[float, float] | None = None

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(images)
        if not self.kind:  # the first pass is a plain one, of one image
            kind = find_kind(self._named, output, images)
            if kind.no_derivative:
                raise InputError(
                    f"model: its outputs of kind '{kind.name}' have no Lie derivative; {kind.no_derivative}"
                )
            self.kind = kind.name
        found = self._taken(output, len(images))
        self.shape = found.shape[1:]
        self.stride = None if self.kind == "embedding" else strides((found.shape[-2], found.shape[-1]), self._size)
        return found.flatten(1)

    def _taken(self, output: Any, batch: int) -> Tensor:
        if self.kind == "embedding":
            return checked_tensor(output, batch, "embeddings (B, D)", 2)
        return map_in(output, batch, self._size)


def _own_velocities(
    maps: Tensor, stride: tuple[float, float], directions: Sequence[str], input_size: tuple[int, int]
) -> Tensor:
    """Return how fast maps ``(B, C, h, w)`` change while their content moves with the input, ``(D, B, C, h, w)``."""
    along_x, along_y = spectral_derivative(maps, -1) / stride[1], spectral_derivative(maps, -2) / stride[0]
    return velocities(along_x, along_y, directions, input_size, stride)


def _region(shape: torch.Size, stride: tuple[float, float], border: float) -> tuple[Any, slice, slice]:
    """Return an index of the pixels of a map that are at least ``border`` pixels of the input from each side."""
    if not border >= 0:
        raise InputError(f"border: expected pixels of at least 0, got {border:g}")
    size = (shape[-2], shape[-1])
    mask = shared(size, torch.zeros(1, 2), "nearest", (border / stride[0], border / stride[1]))
    if not bool(mask.any()):
        raise InputError(f"border: {border:g} px leave nothing of a map of {size[0]} x {size[1]} pixels; lower it")
    top, bottom, left, right = rectangles(mask)[0].tolist()
    return ..., slice(top, bottom), slice(left, right)


def _spread(maps: Tensor) -> Tensor:
    """The variance of maps ``(B, C, h, w)`` over their pixels, mean over channels, ``(B, 1)``; 0 within rounding."""
    values = on_cpu(maps).flatten(2)
    variance, offset = values.var(-1, correction=0).mean(-1), values.mean(-1).square().mean(-1)
    return torch.where(variance > ROUNDING**2 * (variance + offset), variance, 0.0)[:, None]


def _between(embeddings: Tensor) -> Tensor:
    """The mean square distance of embeddings ``(N, D)`` from their mean, ``(N, 1)``; 0 within rounding."""
    values = on_cpu(embeddings)
    distance = (values - values.mean(0)).square().mean(-1, keepdim=True)
    return torch.where(distance > ROUNDING**2 * values.square().mean(), distance, 0.0)


def _numbers(square: Tensor, variance: Tensor, *, across: bool, seed: int) -> tuple[list[Estimate], list[Estimate]]:
    """The mean square, and that relative to the variance: ``across`` all images at once, or in each image."""
    varied = variance > 0
    parts = {"square": square, "one": torch.ones_like(square), "above": square, "below": variance.expand_as(square)}
    if not across:
        relative = torch.where(varied, square / variance.where(varied, torch.ones_like(variance)), 0.0)
        parts |= {"above": relative, "below": varied.double().expand_as(square)}

    def found(above: str, below: str) -> list[Estimate]:
        return curve(lambda means: ratio(means, above, below), (above, below), parts, low=0.0, seed=seed)

    return found("square", "one"), found("above", "below")
