"""Strided layers of existing networks, changed to low-pass before they subsample or to choose their phase.

`make_antialiased` turns a strided convolution or pool, in place, into a subclass of its own class: the same
parameters under the same names, the same output shape. With maps of n pixels, a layer of stride s and M outputs:

- **polyphase** (APS, LPS): the layer is evaluated densely, at ``s * M`` places per axis, and one phase is kept.
- **blur, maximum pool**: evaluated densely, then blurred and subsampled (Zhang 2019, section 3.2).
- **blur, convolution or average pool**: the *input* is blurred, then the strided layer runs as it was. Both are
  linear and commute on a torus, so this equals "dense, blur, subsample" at ``1 / s**2`` of its cost. Zhang
  blurs after the ReLU instead, which needs the dense convolution: his maps are blurred activations, these are the
  activations of blurred maps, whose harmonics above the new Nyquist frequency still alias.
- **1 x 1 convolution** (shortcuts): the input is sampled, then convolved, which is equivalent and cheapest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures.padding import pad
from augkit.architectures.polyphase import AdaptivePolyphaseUpsampling

ONE_PASS = 25  # taps of a filter that is faster in one pass over the map than in two on the CPU


class Blur2d(nn.Module):
    """Low-passes maps with a binomial filter, then keeps every ``stride``-th pixel of maps of any size and C.

    Maps ``(B, C, H, W)`` become ``(B, C, ceil(H / s), ceil(W / s))``. The taps sum to exactly 1.

    Args:
        size: taps for a factor of 2, at least 2. The variance grows with the square of ``factor``, as the frequencies
            to be removed begin at ``0.5 / factor`` cycles per pixel: 13 taps for a factor of 4 and size 4.
        factor: total subsampling by this layer and the strided layer after it, (y, x); an axis with 1 is not blurred.
        stride: subsampling by this layer, (y, x): ``factor``, or 1 before a strided layer.
        mode: torch's name of the padding: ``constant`` (zeros), ``circular``, ``reflect`` or ``replicate``.
    """

    taps_y: Tensor
    taps_x: Tensor

    def __init__(self, size: int, factor: tuple[int, int], stride: tuple[int, int], mode: str) -> None:
        super().__init__()
        self.size, self.factor, self.stride, self.mode = size, factor, stride, mode
        for axis, by in zip("yx", factor, strict=True):
            count = 1 if by == 1 else 1 + round((size - 1) * (by / 2) ** 2)
            self.register_buffer(f"taps_{axis}", _binomial(count), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        y, x = len(self.taps_y), len(self.taps_x)
        maps = pad(maps, ((x - 1) // 2, x // 2, (y - 1) // 2, y // 2), self.mode)
        C, (down, right) = maps.shape[1], self.stride
        row, column = self.taps_x.to(maps.dtype).view(1, 1, 1, x), self.taps_y.to(maps.dtype).view(1, 1, y, 1)
        if x * y <= ONE_PASS:
            return F.conv2d(maps, (column * row).expand(C, 1, y, x), stride=self.stride, groups=C)
        maps = F.conv2d(maps, row.expand(C, 1, 1, x), stride=(1, right), groups=C)
        return F.conv2d(maps, column.expand(C, 1, y, 1), stride=(down, 1), groups=C)

    def extra_repr(self) -> str:
        return f"size={self.size}, factor={self.factor}, stride={self.stride}, mode={self.mode!r}"


def _binomial(count: int) -> Tensor:
    row = torch.ones(1, dtype=torch.float64)
    for _ in range(count - 1):
        row = (F.pad(row, (0, 1)) + F.pad(row, (1, 0))) / 2
    return row.to(torch.get_default_dtype())


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding (``None`` is TensorFlow's "same") and dilation of a layer, each (y, x)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | None
    dilation: tuple[int, int]
    ceil_mode: bool

    def own_pads(self, side: int, axis: int) -> tuple[int, int]:
        """Return the pixels of padding that the layer itself adds before and after ``side`` pixels."""
        if self.padding is not None:
            return self.padding[axis], self.padding[axis]
        steps = (-(-side // self.stride[axis]) - 1) * self.stride[axis]
        total = max(steps + self._reach(axis) + 1 - side, 0)
        return total // 2, total - total // 2

    def outputs(self, side: int, axis: int) -> int:
        """Return the side of the layer's output for maps of ``side`` pixels."""
        before, after = self.own_pads(side, axis)
        room, stride = side + before + after - self._reach(axis) - 1, self.stride[axis]
        count = room // stride + 1
        if self.ceil_mode and room % stride and count * stride < side + before:  # windows start inside the map
            count += 1
        return count

    def pads(self, side: int, axis: int, dense: bool, closed: bool) -> tuple[int, int]:
        """Return the pixels of padding before and after a map, for the layer to run without its own padding.

        Args:
            side: side of the map in pixels.
            axis: 0 for y, 1 for x.
            dense: whether the layer runs at stride 1, at all ``stride * outputs`` positions, or at its stride.
            closed: whether the map is a torus; a layer that keeps its size then runs at its ``side`` positions.
        """
        count, stride = self.outputs(side, axis), self.stride[axis]
        places = (count - 1) * stride + 1
        if dense:
            places = side if closed and count == -(-side // stride) else count * stride
        before = self.own_pads(side, axis)[0]
        return before, max(places + self._reach(axis) - side - before, 0)

    def _reach(self, axis: int) -> int:
        return self.dilation[axis] * (self.kernel[axis] - 1)


class PhaseSelector:
    """The phase shared by the strided layers on one grid, so that their outputs can be added or concatenated.

    In every pass the first layer chooses the phase, the others read it, and the last one clears it. The phase belongs
    to the current pass and is neither copied nor pickled. Passes must not run at the same time: threads need copies of
    the network.

    Args:
        layers: names of the layers in the order in which they run; the first decides.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.phase: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "phase": None}

    def __repr__(self) -> str:
        return f"PhaseSelector({', '.join(self.layers)})"


class AntialiasedLayer(nn.Module):
    """Base class that `make_antialiased` adds to the class of a layer; ``isinstance`` recognizes such layers by it.

    Attributes:
        step: the stride (y, x) by which the layer subsamples; its own ``stride`` is 1 where it runs densely.
        place: position of the sampler: ``before`` or ``after`` the layer, or ``none`` (only the padding changed).
        sampler: `Blur2d`, `AdaptivePolyphaseSampling`, `LearnablePolyphaseSampling`, or None.
        selector: the `PhaseSelector` shared by the layers on one grid, or None.
        decides, releases: whether the layer is the first, and the last, of these layers to run.
        mode: torch's name of the padding; maximum pools use ``replicate`` for zeros, which changes no maximum.
        geometry: padding to apply instead of the layer's own, or None where the layer pads itself.
        extended: the original class of the layer.
    """

    extended: type[nn.Module]
    step: tuple[int, int]
    place: str
    sampler: nn.Module | None
    selector: PhaseSelector | None
    decides: bool
    releases: bool
    mode: str
    geometry: Geometry | None
    stride: Any

    def forward(self, maps: Tensor) -> Tensor:
        if self.place == "after":
            return self._sample(self._layer(maps))
        return self._layer(self._sample(maps) if self.place == "before" else maps)

    def _layer(self, maps: Tensor) -> Tensor:
        geometry = self.geometry
        if geometry is None:
            return super().forward(maps)
        (height, width), closed, dense = maps.shape[-2:], self.mode == "circular", self.place == "after"
        pads = (*geometry.pads(width, 1, dense, closed), *geometry.pads(height, 0, dense, closed))
        out: Tensor = super().forward(pad(maps, pads, self.mode))
        if isinstance(self, nn.AvgPool2d) and self.mode == "constant" and self.divisor_override is None:
            counted = self._counted(maps, geometry, pads)
            out = out / super().forward(counted).clamp_min(torch.finfo(out.dtype).tiny)
        return out

    def _counted(self, maps: Tensor, geometry: Geometry, pads: tuple[int, int, int, int]) -> Tensor:
        """Return 1 where an average pool counts a pixel and 0 elsewhere, ``(1, 1, H, W)`` including the padding."""
        (height, width), (left, right, top, bottom) = maps.shape[-2:], pads
        ones, more = maps.new_ones(1, 1, height, width), (0, 0, 0, 0)
        if geometry.padding is None or self.count_include_pad:
            more = (*geometry.own_pads(width, 1), *geometry.own_pads(height, 0))
        ones = F.pad(ones, more, value=1.0)
        return F.pad(ones, (left - more[0], right - more[1], top - more[2], bottom - more[3]))

    def _sample(self, maps: Tensor) -> Tensor:
        if self.sampler is None or self.selector is None:
            return maps if self.sampler is None else self.sampler(maps)
        if self.mode != "circular":  # the sampler continues maps periodically, and warns of odd sizes
            height, width = maps.shape[-2:]
            maps = pad(maps, (0, -width % self.step[1], 0, -height % self.step[0]), self.mode)
        given = None if self.decides else self.selector.phase
        out, phase = self.sampler(maps, given, return_phase=True)
        self.selector.phase = None if self.releases else phase
        return out

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights of the original network still load; the sampler then keeps its values. Torch's own modules override
        # this method too; a hook, the public way, would be pickled with every layer.
        inner = f"{prefix}sampler."
        if self.sampler is not None and not any(key.startswith(inner) for key in state_dict):
            state_dict.update({inner + key: value for key, value in self.sampler.state_dict().items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __reduce_ex__(self, protocol: Any) -> Any:  # copies and pickles find the class by the one it extends
        return _blank, (self.extended,), self.__getstate__()

    def extra_repr(self) -> str:
        own = super().extra_repr()
        return f"{own}, step={self.step}, place={self.place!r}, mode={self.mode!r}"


class PhaseUpsample(nn.Upsample):
    """Nearest upsampling after polyphase sampling: every pixel is repeated around the position of its sample.

    If the phase were ignored, maps of a high-resolution and a low-resolution branch (HRNet) would be added with an
    offset.

    Args:
        layer: the upsampling to replace, nearest with an integer factor.
        name: name of this layer in the selectors.
        selectors: selectors of the samplings to be undone, the last one first; the product of the steps is the factor.
        steps: stride of each of these samplings.
    """

    def __init__(self, layer: nn.Upsample, name: str, selectors: Sequence[PhaseSelector], steps: Sequence[int]) -> None:
        super().__init__(layer.size, layer.scale_factor, layer.mode)
        self.name, self.selectors = name, tuple(selectors)
        self.steps = tuple(steps)
        self.places = nn.ModuleList(AdaptivePolyphaseUpsampling(step) for step in steps)

    def forward(self, maps: Tensor) -> Tensor:
        for selector, place, step in zip(self.selectors, self.places, self.steps, strict=True):
            phase = selector.phase
            if phase is None:  # called without the layers that choose
                phase = maps.new_zeros(len(maps), dtype=torch.long)
            if selector.layers[-1] == self.name:
                selector.phase = None
            maps = pad(place(maps, phase), (step - 1, 0, step - 1, 0), "circular")
            maps = F.avg_pool2d(maps, step, 1, divisor_override=1)
        return maps


@functools.cache
def antialiased_class(base: type[nn.Module]) -> type[AntialiasedLayer]:
    """Return the subclass of ``base`` to which `make_antialiased` changes a layer."""
    return type(f"Antialiased{base.__name__}", (AntialiasedLayer, base), {"__module__": __name__, "extended": base})


def _blank(base: type[nn.Module]) -> AntialiasedLayer:
    kind = antialiased_class(base)  # type: ignore[arg-type]
    return kind.__new__(kind)


def pair(value: Any) -> tuple[int, int]:
    """Return one number or two as (y, x)."""
    return (int(value[0]), int(value[-1])) if isinstance(value, tuple | list) else (int(value), int(value))
