"""Strided layers of other people's networks that low-pass before they subsample, or choose where they subsample.

`make_antialiased` turns a strided convolution or pool, in place, into a subclass of its own class: the same
parameters under the same names, the same output shape. With maps of n pixels, a layer of stride s and M outputs:

- **polyphase** (APS, LPS): the layer is evaluated densely, at ``s * M`` places per axis, and one phase is kept.
- **blur, maximum pool**: evaluated densely, then blurred and subsampled (Zhang 2019, section 3.2).
- **blur, convolution or average pool**: the *input* is blurred, then the strided layer runs as it was. Both are
  linear and commute on a torus, so this equals "dense, blur, subsample" at ``1 / s**2`` of its cost. Zhang
  blurs behind the ReLU instead, which needs the dense convolution: his maps hold the blurred activations, ours the
  activations of blurred maps, whose harmonics above the new Nyquist frequency still alias.
- **1 x 1 convolution** (shortcuts): the input is sampled, then convolved; the same thing and cheapest.
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
    """Binomial low-pass, then every ``stride``-th pixel: ``(B, C, H, W)`` to ``(B, C, ceil(H / s), ceil(W / s))``.

    The taps sum to 1 exactly. Unlike `BlurPool2d` it need not know C, takes a stride per axis and maps of any size.

    Args:
        size: taps where the map will be halved, at least 2. The variance grows with the square of ``factor``, as the
            frequencies to be removed begin at ``0.5 / factor`` cycles per pixel: 13 taps for 4 where size is 4.
        factor: by which this layer and those behind it subsample, (y, x); an axis with 1 is not blurred.
        stride: by which this layer subsamples, (y, x): `factor`, or 1 where a strided layer follows.
        mode: of the padding, as torch names it: ``constant`` (zeros), ``circular``, ``reflect`` or ``replicate``.
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
    """Where a layer looks: kernel, stride, padding (``None`` is TensorFlow's "same") and dilation, each (y, x)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | None
    dilation: tuple[int, int]
    ceil_mode: bool

    def own_pads(self, side: int, axis: int) -> tuple[int, int]:
        """Pixels that the layer itself puts before and after ``side`` pixels."""
        if self.padding is not None:
            return self.padding[axis], self.padding[axis]
        steps = (-(-side // self.stride[axis]) - 1) * self.stride[axis]
        total = max(steps + self._reach(axis) + 1 - side, 0)
        return total // 2, total - total // 2

    def outputs(self, side: int, axis: int) -> int:
        """Pixels that the layer makes of ``side`` pixels."""
        before, after = self.own_pads(side, axis)
        room, stride = side + before + after - self._reach(axis) - 1, self.stride[axis]
        count = room // stride + 1
        if self.ceil_mode and room % stride and count * stride < side + before:  # windows start inside the map
            count += 1
        return count

    def pads(self, side: int, axis: int, dense: bool, closed: bool) -> tuple[int, int]:
        """Pixels to put around ``side`` pixels for the layer to run without padding of its own.

        Args:
            side: of the map.
            axis: 0 for y, 1 for x.
            dense: whether the layer runs at stride 1, at all ``stride * outputs`` places, or at its stride.
            closed: whether the map is a torus; a layer that keeps all of it then runs at its ``side`` places.
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
    """The phase that the strided layers on one grid keep, so that their outputs can be added or concatenated.

    The layer that runs first decides anew at every pass, the others read, the last one lets go. What it holds
    belongs to a pass under way: it is neither copied nor pickled. One pass at a time: threads need copies of the
    network.

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
    """What `make_antialiased` adds to the class of a layer, and what ``isinstance`` finds such layers by.

    Attributes:
        step: the stride (y, x) by which the layer subsamples; its own ``stride`` is 1 where it runs densely.
        place: where the sampler stands: ``before`` the layer, ``after`` it, or ``none`` (only the padding changed).
        sampler: `Blur2d`, `AdaptivePolyphaseSampling`, `LearnablePolyphaseSampling`, or None.
        selector: the `PhaseSelector` that the layer shares with those on its grid, or None.
        decides, releases: whether the layer runs first, and last, of those.
        mode: padding as torch names it; maximum pools take ``replicate`` for zeros, which leaves every maximum.
        geometry: how to pad in the layer's stead, or None where it pads by itself.
        extended: the class that the layer had.
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
        """1 where an average pool counts a pixel and 0 where it does not, ``(1, 1, H, W)`` with the padding."""
        (height, width), (left, right, top, bottom) = maps.shape[-2:], pads
        ones, more = maps.new_ones(1, 1, height, width), (0, 0, 0, 0)
        if geometry.padding is None or self.count_include_pad:
            more = (*geometry.own_pads(width, 1), *geometry.own_pads(height, 0))
        ones = F.pad(ones, more, value=1.0)
        return F.pad(ones, (left - more[0], right - more[1], top - more[2], bottom - more[3]))

    def _sample(self, maps: Tensor) -> Tensor:
        if self.sampler is None or self.selector is None:
            return maps if self.sampler is None else self.sampler(maps)
        if self.mode != "circular":  # the sampler continues a torus, and warns of odd sizes
            height, width = maps.shape[-2:]
            maps = pad(maps, (0, -width % self.step[1], 0, -height % self.step[0]), self.mode)
        given = None if self.decides else self.selector.phase
        out, phase = self.sampler(maps, given, return_phase=True)
        self.selector.phase = None if self.releases else phase
        return out

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The weights of the network that was operated on still load: its sampler keeps what it has. Torch's modules
        # override this method too; a hook, the public way, would be pickled along with every layer.
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
    """Nearest upsampling of maps that polyphase sampling made: every pixel is repeated from where it was taken.

    Without regard to the phase, the maps of a high-resolution branch and of a low one (HRNet) would be added askew.

    Args:
        layer: the upsampling to replace, by nearest pixels and a whole factor.
        name: under which the selectors know this layer.
        selectors: of the samplings to be undone, the last one first; the product of the steps is the factor.
        steps: stride of each of them.
    """

    def __init__(self, layer: nn.Upsample, name: str, selectors: Sequence[PhaseSelector], steps: Sequence[int]) -> None:
        super().__init__(layer.size, layer.scale_factor, layer.mode)
        self.name, self.selectors = name, tuple(selectors)
        self.steps = tuple(steps)
        self.places = nn.ModuleList(AdaptivePolyphaseUpsampling(step) for step in steps)

    def forward(self, maps: Tensor) -> Tensor:
        for selector, place, step in zip(self.selectors, self.places, self.steps, strict=True):
            phase = selector.phase
            if phase is None:  # called alone, without the layers that choose
                phase = maps.new_zeros(len(maps), dtype=torch.long)
            if selector.layers[-1] == self.name:
                selector.phase = None
            maps = pad(place(maps, phase), (step - 1, 0, step - 1, 0), "circular")
            maps = F.avg_pool2d(maps, step, 1, divisor_override=1)
        return maps


@functools.cache
def antialiased_class(base: type[nn.Module]) -> type[AntialiasedLayer]:
    """The subclass of a layer's class that `make_antialiased` turns the layer into."""
    return type(f"Antialiased{base.__name__}", (AntialiasedLayer, base), {"__module__": __name__, "extended": base})


def _blank(base: type[nn.Module]) -> AntialiasedLayer:
    kind = antialiased_class(base)  # type: ignore[arg-type]
    return kind.__new__(kind)


def pair(value: Any) -> tuple[int, int]:
    """One number or two, as (y, x)."""
    return (int(value[0]), int(value[-1])) if isinstance(value, tuple | list) else (int(value), int(value))
