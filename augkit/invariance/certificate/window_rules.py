"""Rules for convolution, pooling, padding, resizing and normalization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from augkit.invariance.certificate.call import pair
from augkit.invariance.certificate.state import (
    FIXED,
    Axis,
    Equivariant,
    Operand,
    Window,
    breaks,
    nonlinear,
    slid,
    unseen,
)

POLYPHASE = "stride 1 followed by AdaptivePolyphaseSampling({stride}), the shortcut sampled at the same phase"
BLUR = "AdaptivePolyphaseSampling({stride}) in the place of the stride: blurring only reduces the error"
POOL = "the maximum at stride 1 with circular padding, followed by AdaptivePolyphaseSampling({stride})"
CIRCULAR = {"zeros": "zero", "constant": "constant", "replicate": "replicate", "reflect": "reflect"}
GLOBAL = "global average pooling of the map"


def remedy_for_stride(text: str, strides: Iterable[int]) -> str:
    """Fill the advice ``text`` with the largest of the strides."""
    return text.format(stride=max(strides))


def convolved(
    x: Operand, kernel: Any, stride: Any, padding: Any, dilation: Any, mode: str, advice: str = POLYPHASE
) -> Equivariant:
    """A convolution over the last two dimensions; ``padding`` as in `torch.nn.Conv2d`."""
    _maps(x)
    sizes, strides, dilations = pair(kernel), pair(stride), pair(dilation)
    if isinstance(padding, str):
        pads = tuple(d * (k - 1) if padding == "same" else 0 for k, d in zip(sizes, dilations, strict=True))
    else:
        pads = tuple(2 * p for p in pair(padding))
    windows = {dim: Window(k, s, d, p) for dim, k, s, d, p in zip((2, 3), sizes, strides, dilations, pads, strict=True)}
    return slid(x, windows, CIRCULAR.get(mode, mode), remedy_for_stride(advice, strides))


def pooled(
    x: Operand, result: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, *, maximum: bool
) -> Equivariant:
    """Pooling over windows of the last two dimensions; a window of the size of the map turns it into a vector."""
    _maps(x)
    sizes, pads = pair(kernel), pair(padding)
    strides = sizes if stride in (None, (), []) else pair(stride)
    state = nonlinear(x.state, "a maximum") if maximum else x.state
    whole = {2 + k for k in (0, 1) if sizes[k] == x.shape[2 + k] and pads[k] == 0 and result.shape[2 + k] == 1}
    if whole and not any(len(state.at(d)) > 1 for d in whole):
        state = without(Operand(x.value, state), whole)
    windows = {
        2 + k: Window(sizes[k], strides[k], pair(dilation)[k], 2 * pads[k]) for k in (0, 1) if 2 + k not in whole
    }
    border = "padding of the maximum" if maximum else "zero"
    out = slid(Operand(x.value, state), windows, border, remedy_for_stride(POOL if maximum else BLUR, strides))
    for dim, window in windows.items():
        reach = window.dilation * (window.kernel - 1)
        whole_windows = (x.shape[dim] + window.pad - reach - 1) // window.stride + 1
        if state.at(dim) and result.shape[dim] != whole_windows:
            raise breaks("its last window is cut off at the border", "ceil_mode=False")
    return out


def adaptively_pooled(x: Operand, size: Any, *, maximum: bool) -> Equivariant:
    """Pooling to a given size: size 1 turns a map into a vector, its own size changes nothing."""
    _maps(x)
    sizes = [x.shape[2 + k] if s is None else s for k, s in enumerate(pair(size) if size is not None else (None,) * 2)]
    state = nonlinear(x.state, "a maximum") if maximum else x.state
    gone = {2 + k for k in (0, 1) if sizes[k] == 1}
    for k in (0, 1):
        if state.at(2 + k) and sizes[k] not in (1, x.shape[2 + k]):
            raise breaks(f"pools to {sizes[0]} x {sizes[1]} places that stay where they are", GLOBAL)
    return without(Operand(x.value, state), gone) if gone else state


def without(x: Operand, dims: set[int], keepdim: bool = True) -> Equivariant:
    """The state after a reduction over ``dims``, each of which must hold the whole torus once."""
    if 0 in dims:
        raise unseen("reduces over the batch, so the answer to an image depends on the others")
    moving = [axis for axis in x.state.axes if axis is not None]
    if x.bordered() and any(axis.dim in dims for axis in moving):
        raise breaks("reduces over a padded map, in which pixels at the border count twice", "reduce the map itself")
    left: list[Axis | None] = []
    for axis in x.state.axes:
        if axis is None or axis.dim in dims:
            left.append(None)
        else:
            left.append(axis if keepdim else replace(axis, dim=axis.dim - sum(d < axis.dim for d in dims)))
    return x.state.with_axes(left)


def padded(x: Operand, pads: list[int], mode: str) -> Equivariant:
    """`torch.nn.functional.pad`: pairs of (before, after), the last dimension first."""
    state = x.state
    axes = list(state.axes)
    for k in range(0, len(pads), 2):
        dim, total = x.value.ndim - 1 - k // 2, pads[k] + pads[k + 1]
        if dim == 0 and total:
            raise unseen("pads the batch")
        for axis in state.at(dim):
            if pads[k] == pads[k + 1] == 0:
                continue
            if mode != "circular" or min(pads[k], pads[k + 1]) < 0:
                border = CIRCULAR.get(mode, mode)
                raise breaks(f"{border} padding makes the border differ from the inside", "padding mode 'circular'")
            if x.shape[dim] != axis.period:
                raise breaks("circular padding of a map that is padded already repeats the wrong pixels", "pad once")
    return state.with_axes(axes)


def upsampled(x: Operand, factors: tuple[int, int], what: str) -> Equivariant:
    """Every pixel becomes a block of ``factors`` pixels: the map moves ``factors`` times as far."""
    _maps(x)
    if x.bordered():
        raise unseen("enlarges a padded map")
    why = f"{what} copies the spectrum to frequencies above that of the map"
    state = x.state.lowered(why, "ideal (Fourier) upsampling")
    axes = [
        None if axis is None else replace(axis, period=axis.period * f, unit=axis.unit * f)
        for axis, f in zip(state.axes, _by_axis(state, factors), strict=True)
    ]
    return state.with_axes(axes)


def _by_axis(state: Equivariant, factors: tuple[int, int]) -> list[int]:
    return [1 if axis is None else factors[axis.dim - 2] for axis in state.axes]


def resized(x: Operand, result: Tensor, mode: str) -> Equivariant:
    """`torch.nn.functional.interpolate`: copying pixels a whole number of times keeps integer shifts."""
    _maps(x)
    if not x.state.moves:
        raise unseen("enlarges a vector to a map")
    factors = (result.shape[2] // x.shape[2], result.shape[3] // x.shape[3])
    if any(result.shape[d] % x.shape[d] for d in (2, 3)):
        raise breaks(f"resizes {x.shape[2]} x {x.shape[3]} to {result.shape[2]} x {result.shape[3]} pixels")
    if mode not in ("nearest", "nearest-exact"):
        raise breaks(f"{mode} interpolation repeats the border instead of wrapping around", "mode='nearest'")
    if not torch.equal(result, x.value.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3)):
        raise breaks("repeats some pixels more often than others", "a whole scale factor")
    return upsampled(x, factors, "repeating pixels")


def normalized(x: Operand, dims: set[int], parameters: Iterable[Operand | None]) -> Equivariant:
    """Subtract a mean and divide by a deviation, both over ``dims``; parameters broadcast from the last dimension."""
    if 0 in dims:
        raise unseen("normalizes over the batch in evaluation mode, so the answer to an image depends on the others")
    state = x.state
    covered = {axis.dim for axis in state.axes if axis is not None}
    if covered & dims and x.bordered():
        raise breaks("normalizes a padded map, in which pixels at the border count twice", "normalize the map itself")
    for parameter in parameters:
        if parameter is not None and parameter.state is FIXED:
            _same_everywhere(x, parameter.value)
        elif parameter is not None and parameter.state.moves:
            raise unseen("normalizes with weights that move")
    if covered and covered <= dims:
        if state.clean:
            return state
        why = "its deviation counts the Nyquist frequency, whose energy changes with the fraction of a shift"
        return state.lowered(why, "an ideal low-pass before it, or odd sides")
    return nonlinear(state, "a norm of each place", "AliasFreeLayerNorm2d, which divides by one number per image")


def _same_everywhere(x: Operand, parameter: Tensor) -> None:
    for axis in x.state.axes:
        dim = -1 if axis is None else axis.dim - (x.value.ndim - parameter.ndim)
        if dim >= 0 and not bool((parameter == parameter.narrow(dim, 0, 1)).all()):
            raise breaks("its weights differ from place to place", "one weight per channel")


def _maps(x: Operand) -> None:
    if x.value.ndim != 4:
        raise unseen(f"expected maps (B, C, H, W), got {x.value.ndim} dimensions")
    if any(axis is not None and axis.dim not in (2, 3) for axis in x.state.axes):
        raise unseen("works along a dimension of channels or images that holds places")


def channels_mixed(x: Operand, dim: int, what: str) -> Equivariant:
    """A nonlinear function of all channels of a place, such as a softmax over dimension ``dim``, or of all places.

    What treats places as a set commutes with every permutation of them: a softmax, or a division by a norm.
    """
    dim = x.dim(dim)
    if dim == x.state.batch:
        raise unseen("mixes images of a batch")
    if x.state.at(dim):
        if x.bordered():
            raise breaks(f"{what} over a padded map, in which pixels at the border count twice", "the map itself")
        what += " over places"
    return nonlinear(x.state, what)
