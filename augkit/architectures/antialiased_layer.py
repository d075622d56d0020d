"""Replaces one strided layer of a network, and changes the padding of all layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from augkit.architectures.polyphase import AdaptivePolyphaseSampling, LearnablePolyphaseSampling
from augkit.architectures.strided import AntialiasedLayer, Blur2d, Geometry, PhaseSelector, antialiased_class, pair
from augkit.architectures.strided_calls import LAYERS, PLAIN, Call, Site, Unchanged, describe, is_known

METHODS = ("blurpool", "aps", "lps")
TORCH_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}
PADS: dict[str, Callable[..., nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "circular": nn.CircularPad2d,
    "reflect": nn.ReflectionPad2d,
}
PAD_LAYERS = (nn.ConstantPad2d, nn.CircularPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)


class AntialiasOptions(NamedTuple):
    """Options of one call of `augkit.antialias`, with the device and dtype of the network's weights."""

    method: str
    padding_mode: str | None
    size: int
    odd: str
    device: torch.device
    dtype: torch.dtype


def make_antialiased(site: Site, options: AntialiasOptions, selector: PhaseSelector | None) -> None:
    """Turn the layer, in place, into an `AntialiasedLayer` with a sampler."""
    layer: Any = site.layer
    geometry, blur = geometry_of(layer), options.method == "blurpool"
    step, mode = geometry.stride, _mode(layer, options.padding_mode)
    pointwise = geometry.kernel == (1, 1) and geometry.padding in (None, (0, 0))
    linear = not isinstance(layer, nn.MaxPool2d)
    place = "before" if pointwise or (blur and linear) else "after"
    sampler: nn.Module
    if blur:
        stride = step if pointwise or place == "after" else (1, 1)
        sampler = Blur2d(options.size, step, stride, _blur_mode(mode, options.padding_mode))
    else:
        assert selector is not None
        channels = layer.out_channels if place == "after" and isinstance(layer, nn.Conv2d) else site.call.channels
        sampler = _polyphase(options, channels, step[0], mode, decides=selector.layers[0] == site.name)
    if place == "after" or (options.padding_mode is not None and pads(layer) and not is_plain(layer)):
        _pad_instead(layer, geometry, mode)
    else:
        if is_plain(layer) and options.padding_mode is not None:
            layer.padding_mode = options.padding_mode
        _become(layer, None, mode)
    if pointwise or place == "after":
        layer.stride = (1, 1) if isinstance(layer, nn.Conv2d) else 1
    layer.place = place
    layer.sampler, layer.selector = sampler.to(options.device, options.dtype).train(layer.training), selector
    layer.decides = selector is not None and selector.layers[0] == site.name
    layer.releases = selector is not None and selector.layers[-1] == site.name


def _polyphase(options: AntialiasOptions, channels: int, stride: int, mode: str, decides: bool) -> nn.Module:
    odd = options.odd if mode == "circular" else "allow"  # other maps are padded to multiples
    if options.method == "aps" or not decides:
        return AdaptivePolyphaseSampling(stride, odd=odd)
    padding_mode = "circular" if mode == "circular" else "zeros"
    return LearnablePolyphaseSampling(channels, stride, padding_mode=padding_mode, odd=odd)


def geometry_of(layer: Any) -> Geometry:
    """Return the kernel, stride, padding and dilation of a convolution or a pool."""
    kernel, same = pair(layer.kernel_size), type(layer) is not nn.Conv2d and getattr(layer, "same_pad", False)
    dilation = pair(getattr(layer, "dilation", 1))
    padding: tuple[int, int] | None
    if same or type(layer).__name__ in PLAIN or layer.padding == "same":
        padding = None
    else:
        padding = (0, 0) if layer.padding == "valid" else pair(layer.padding)
    return Geometry(kernel, pair(layer.stride), padding, dilation, bool(getattr(layer, "ceil_mode", False)))


def _mode(layer: Any, padding_mode: str | None) -> str:
    """Return the padding mode of the layer's maps, by torch's name."""
    mode = getattr(layer, "padding_mode", "zeros") if padding_mode is None else padding_mode
    # A window of a maximum pool that crosses the border also covers border pixels: repeating them changes no maximum.
    return "replicate" if mode == "zeros" and isinstance(layer, nn.MaxPool2d) else TORCH_MODES[mode]


def _blur_mode(mode: str, padding_mode: str | None) -> str:
    """Return the padding of a blur: the given one, else that of its layer, with ``reflect`` (as Zhang) for zeros."""
    if padding_mode is not None:
        return TORCH_MODES[padding_mode]
    return "reflect" if mode in ("constant", "replicate") else mode


def _become(layer: Any, geometry: Geometry | None, mode: str) -> None:
    """Change the layer's class to its subclass; with a geometry, `AntialiasedLayer` pads instead of the layer."""
    kind = type(layer)
    layer.__class__ = antialiased_class(kind if geometry is None else PLAIN.get(kind.__name__, kind))
    layer.geometry, layer.mode, layer.place, layer.step = geometry, mode, "none", pair(layer.stride)
    layer.sampler, layer.selector, layer.decides, layer.releases = None, None, False, False


def _pad_instead(layer: Any, geometry: Geometry, mode: str) -> None:
    _become(layer, geometry, mode)
    layer.padding = (0, 0) if isinstance(layer, nn.Conv2d) else 0
    if isinstance(layer, nn.Conv2d):
        layer.padding_mode = "zeros"
    else:
        layer.ceil_mode = False
    if hasattr(layer, "same_pad"):
        layer.same_pad = False


def change_padding(model: nn.Module, calls: list[Call], padding_mode: str) -> tuple[list[str], list[Unchanged]]:
    """Change the padding of all layers that pad, except `AntialiasedLayer`, whose padding is already set.

    Returns:
        The names of the changed layers, and the layers that could not be changed.
    """
    changed, left = list[str](), dict[str, Unchanged]()
    modules = dict(model.named_modules())
    samplers = [m.sampler for m in modules.values() if isinstance(m, AntialiasedLayer) and m.sampler is not None]
    added = {inner for sampler in samplers for inner in sampler.modules()}  # whose padding `make_antialiased` set
    for name, layer in modules.items():
        if layer in added:
            continue
        if isinstance(layer, PAD_LAYERS):
            parent, _, attribute = name.rpartition(".")
            setattr(modules[parent], attribute, PADS[padding_mode](layer.padding))
        elif isinstance(layer, AntialiasedLayer):
            if layer.geometry is not None and layer.geometry.padding == (0, 0):
                continue
        elif not isinstance(layer, LAYERS) or not is_known(layer) or not pads(layer):
            continue
        elif is_plain(layer) and not (padding_mode != "zeros" and _exceeds(layer, name, calls, padding_mode)):
            layer.padding_mode = padding_mode  # type: ignore[assignment]
        elif padding_mode != "zeros":  # the others have no other padding modes
            _pad_instead(layer, geometry_of(layer), TORCH_MODES[padding_mode])
        changed.append(name)
    for call in calls:
        layer = modules[call.name]
        if call.padded and not isinstance(layer, (*PAD_LAYERS, AntialiasedLayer)) and not is_known(layer):
            left[call.name] = Unchanged(call.name, describe(layer, call), f"{type(layer).__name__} pads by itself")
    return changed, list(left.values())


def _exceeds(layer: nn.Module, name: str, calls: list[Call], padding_mode: str) -> bool:
    """Whether a convolution pads a map by more than torch's own padding can take from it, as in atrous pyramids."""
    geometry, own = geometry_of(layer), int(padding_mode == "reflect")  # a reflection does not repeat the border pixel
    return any(
        max(geometry.own_pads(side, axis)) > side - own
        for call in calls
        if call.name == name
        for axis, side in enumerate(call.size)
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer convolves as `torch.nn.Conv2d` does, in any of its padding modes."""
    return isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward


def pads(layer: nn.Module) -> bool:
    """Whether a convolution or a pool pads its maps."""
    return geometry_of(layer).padding != (0, 0)
