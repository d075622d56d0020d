"""Rules for modules, by class. A subclass or a module with hooks may compute something else, so it is traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from augkit.core.torch_private import has_forward_hooks
from augkit.invariance.certificate import attention_rules, function_rules, window_rules
from augkit.invariance.certificate.call import Call, pair
from augkit.invariance.certificate.state import (
    FIXED,
    Axis,
    Broken,
    Equivariant,
    Limitation,
    Operand,
    Phase,
    Window,
    breaks,
    nonlinear,
    slid,
    unseen,
)

ModuleRule = Callable[[Any, Call], Any]
TIE = 1e-10  # relative difference below which rounding in float64 may decide

POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
    nn.Tanhshrink, nn.Threshold, nn.RReLU,
)  # fmt: skip
IDENTITY = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def convolution(module: nn.Conv2d, call: Call) -> Equivariant:
    """`torch.nn.Conv2d`."""
    m = module
    return window_rules.convolved(call.x, m.kernel_size, m.stride, m.padding, m.dilation, m.padding_mode)


def transposed_convolution(module: nn.ConvTranspose2d, call: Call) -> Equivariant:
    """`torch.nn.ConvTranspose2d`: blocks that do not overlap, or overlaps that are cut at the border."""
    m = module
    blocks = m.kernel_size == m.stride and pair(m.dilation) == (1, 1)
    if not blocks or any(pair(m.padding)) or any(pair(m.output_padding)):
        raise breaks("its overlapping blocks are cut off at the border", "kernel_size equal to stride, without padding")
    return window_rules.upsampled(call.x, pair(m.stride), "spreading pixels")


def batch_norm(module: nn.BatchNorm2d, call: Call) -> Equivariant:
    """Batch norm: in evaluation mode a factor and a term per channel."""
    if module.running_mean is None:
        raise unseen("uses statistics of the batch in evaluation mode, so the answer to an image depends on the others")
    if call.x.state.at(1):
        raise breaks("gives each place of a map a weight of its own")
    return call.x.state


def instance_norm(module: nn.InstanceNorm2d, call: Call) -> Equivariant:
    """Instance norm: statistics of each map, or learned ones."""
    return call.x.state if module.running_mean is not None else function_rules.group_norm(call)


def layer_norm(module: nn.LayerNorm, call: Call) -> Equivariant:
    """Layer norm over the last dimensions."""
    ndim = call.x.value.ndim
    dims = set(range(ndim - len(module.normalized_shape), ndim))
    parameters = [None if p is None else Operand(p, FIXED) for p in (module.weight, module.bias)]
    return window_rules.normalized(call.x, dims, parameters)


def adaptive_pool(maximum: bool) -> ModuleRule:
    """Adaptive pooling to a size."""
    return lambda module, call: window_rules.adaptively_pooled(call.x, module.output_size, maximum=maximum)


def max_pool(module: nn.MaxPool2d, call: Call) -> Equivariant:
    """`torch.nn.MaxPool2d`."""
    m = module
    if m.return_indices:
        raise unseen("gives the place of an extremum")
    return window_rules.pooled(call.x, call.out, m.kernel_size, m.stride, m.padding, m.dilation, maximum=True)


def avg_pool(module: nn.AvgPool2d, call: Call) -> Equivariant:
    """`torch.nn.AvgPool2d`."""
    m = module
    return window_rules.pooled(call.x, call.out, m.kernel_size, m.stride, m.padding, maximum=False)


def constant_pad(mode: str) -> ModuleRule:
    """Padding modules."""
    return lambda module, call: window_rules.padded(call.x, list(module.padding), mode)


def over_channels(module: Any, call: Call) -> Equivariant:
    """Softmax, GLU and the like."""
    dim = getattr(module, "dim", 1)
    if dim is None:
        raise unseen("does not say over which dimension it works")
    return window_rules.channels_mixed(call.x, dim, f"a {type(module).__name__}")


def linear(module: nn.Linear, call: Call) -> Equivariant:
    """A linear map of the last dimension, which must hold channels."""
    return function_rules.linear(Call((call.x,), {}, call.order, call.result))


def unsubclassed(rule: Callable[[Call], Any]) -> ModuleRule:
    """A rule that needs nothing of the module."""
    return lambda module, call: rule(call)


def blur_pool(module: Any, call: Call) -> Equivariant:
    """`augkit.architectures.BlurPool2d`: a filter of ``size`` taps, padded to keep the size, then a stride."""
    return window_rules.convolved(
        call.x, module.size, module.stride, "same", 1, module.padding_mode, advice=window_rules.BLUR
    )


def dense_max_pool(module: Any, call: Call) -> Equivariant:
    """`DenseMaxPool2d`: the maximum of a window at every pixel."""
    state = nonlinear(call.x.state, "a maximum")
    size = module.kernel_size
    border = window_rules.CIRCULAR.get(module.padding_mode, module.padding_mode)
    window = Window(size, pad=size - 1)
    return slid(Operand(call.x.value, state), {2: window, 3: window}, border, "")


def polyphase(module: Any, call: Call) -> Any:
    """Polyphase sampling: an equivariant choice of the grid, or the grid that another sampling chose."""
    x, s = call.x, module.stride
    _check_grid(x, s)
    mode = getattr(module, "padding_mode", "circular")  # of the scores of learnable sampling
    if mode != "circular":
        raise breaks(
            f"chooses the grid by a convolution with {window_rules.CIRCULAR[mode]} padding",
            "padding_mode='circular' of the sampling",
        )
    state = x.state.lowered("sampling one of the grids folds high frequencies onto low ones", "ideal downsampling")
    source = (state.frame, state.axes)
    given = call.get(1, "phase", None)
    phase = Phase(source, call.order)
    if given is None:
        _check_choice(module, x)
    else:
        if not isinstance(given, Operand) or not isinstance(given.state, Phase) or given.state.source != source:
            raise breaks("samples at a phase that was chosen on another grid", "the phase of a map that moves alike")
        phase = given.state
    out = replace(state, frame=(phase,)).with_axes(_coarse(state.axes, s))
    return (out, phase) if call.get(2, "return_phase", False) else out


def _check_choice(module: Any, x: Operand) -> None:
    """Refuse grids that differ but have equal scores, as after a norm that makes all places alike: rounding decides."""
    from augkit.architectures.polyphase import component_norms, polyphase

    maps, s = x.value, module.stride
    scores = module.scores(maps) if hasattr(module, "scores") else component_norms(maps, s, module.norm)
    best, chosen = scores.max(1, keepdim=True)
    tied = best - scores <= TIE * best.abs()
    parts = polyphase(maps, s)
    kept = parts[torch.arange(len(maps)), chosen[:, 0]][:, None]
    differ = (parts - kept).abs().amax((2, 3, 4)) > TIE * maps.abs().amax((1, 2, 3))[:, None]
    if bool((tied & differ).any()):
        raise unseen("the grids that it chooses from have equal scores, so that rounding decides")


def _coarse(axes: tuple[Axis | None, Axis | None], stride: int) -> list[Axis | None]:
    return [None if a is None else Axis(a.dim, a.period // stride, Fraction(1)) for a in axes]


def _check_grid(x: Operand, stride: int) -> None:
    y, x_axis = x.state.axes
    if y is None or x_axis is None or (y.dim, x_axis.dim) != (2, 3):
        raise unseen("samples a map without two sides in the last dimensions")
    H, W = x.shape[2:]
    if x.bordered():
        raise breaks("samples a padded map", "sample the map itself")
    if H % stride or W % stride:
        raise Broken(
            Limitation(
                f"a {H} x {W} map does not divide into grids of stride {stride}, so no grid is periodic on the torus",
                needs_divisible=True,
            )
        )


def polyphase_upsampling(module: Any, call: Call) -> Equivariant:
    """The adjoint of polyphase sampling: it puts a map back on the grid of the phase."""
    x, phase = call.x, call.get(1, "phase")
    if not isinstance(phase, Operand) or not isinstance(phase.state, Phase):
        raise breaks("puts a map on a grid that does not move with it", "the phase of its sampling")
    frame, axes = phase.state.source
    sampled = x.state.frame == (phase.state,) and list(x.state.axes) == _coarse(axes, module.stride)
    if not sampled or tuple(call.out.shape[2:]) != tuple(a.period for a in axes):
        raise breaks("puts a map on a grid that was chosen for another map", "the phase of its own sampling")
    return replace(x.state, frame=frame).with_axes(axes)


def ideal_lowpass(module: Any, call: Call) -> Equivariant:
    """`IdealLowpass2d`: a circular convolution that removes the Nyquist frequency."""
    return replace(_unpadded(call.x), clean=True)


def ideal_downsample(module: Any, call: Call) -> Equivariant:
    """`AliasFreeDownsample2d`: the same periodic function on a coarser grid, so that a shift is fewer pixels."""
    state, shape = _unpadded(call.x), call.out.shape
    axes = [
        None if a is None else Axis(a.dim, shape[a.dim], a.unit * Fraction(shape[a.dim], a.period)) for a in state.axes
    ]
    return replace(state.with_axes(axes), clean=True)


def alias_free_activation(module: Any, call: Call) -> Equivariant:
    """`AliasFreeActivation`: polynomials commute with every shift, other functions with shifts of the finer grid."""
    state = _unpadded(call.x)
    if module.form != "polynomial" and state.moves:
        why = f"{module.form} makes infinitely many harmonics, and the finer grid removes only the largest"
        fine = [None if a is None else replace(a, unit=a.unit * module.factor) for a in state.axes]
        low = replace(state, axes=(fine[0], fine[1])).lowered(why, "form='polynomial'")
        state = replace(low, axes=state.axes)
    return replace(state, clean=True)


def alias_free_layer_norm(module: Any, call: Call) -> Equivariant:
    """`AliasFreeLayerNorm2d`: one deviation for all channels and places."""
    return window_rules.normalized(call.x, {1, 2, 3}, [])


def _unpadded(x: Operand) -> Equivariant:
    if any(axis is not None and axis.dim not in (2, 3) for axis in x.state.axes):
        raise unseen("works along a dimension of channels or images that holds places")
    if x.bordered():
        raise breaks("filters a padded map, which is not a torus", "filter the map itself")
    return x.state


MODULES: dict[type[nn.Module], ModuleRule] = {
    **{kind: unsubclassed(lambda call: nonlinear(call.x.state)) for kind in POINTWISE},
    **{kind: unsubclassed(function_rules.same) for kind in IDENTITY},
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), batch_norm),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin, nn.GLU), over_channels),
    nn.PReLU: unsubclassed(function_rules.prelu),
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.Linear: linear,
    nn.InstanceNorm2d: instance_norm,
    nn.GroupNorm: unsubclassed(function_rules.group_norm),
    nn.LayerNorm: layer_norm,
    nn.LocalResponseNorm: unsubclassed(lambda call: window_rules.channels_mixed(call.x, 1, "a norm of each place")),
    nn.MultiheadAttention: attention_rules.multihead,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: avg_pool,
    nn.AdaptiveAvgPool2d: adaptive_pool(False),
    nn.AdaptiveMaxPool2d: adaptive_pool(True),
    nn.CircularPad2d: constant_pad("circular"),
    nn.ZeroPad2d: constant_pad("zeros"),
    nn.ConstantPad2d: constant_pad("constant"),
    nn.ReflectionPad2d: constant_pad("reflect"),
    nn.ReplicationPad2d: constant_pad("replicate"),
    nn.Flatten: unsubclassed(function_rules.reshape),
    nn.Unflatten: unsubclassed(function_rules.reshape),
    nn.Upsample: lambda module, call: window_rules.resized(call.x, call.out, module.mode),
    nn.PixelShuffle: lambda module, call: window_rules.upsampled(
        call.x, pair(module.upscale_factor), "a pixel shuffle"
    ),
    nn.ChannelShuffle: unsubclassed(function_rules.same),
}

# By name, so that this file does not import the modules of the layers.
OWN = "augkit.architectures."
AUGKIT: dict[str, ModuleRule] = {
    OWN + "downsampling.BlurPool2d": blur_pool,
    OWN + "downsampling.DenseMaxPool2d": dense_max_pool,
    OWN + "polyphase.AdaptivePolyphaseSampling": polyphase,
    OWN + "polyphase.LearnablePolyphaseSampling": polyphase,
    OWN + "polyphase.AdaptivePolyphaseUpsampling": polyphase_upsampling,
    OWN + "aliasfree.IdealLowpass2d": ideal_lowpass,
    OWN + "aliasfree.AliasFreeDownsample2d": ideal_downsample,
    OWN + "aliasfree.AliasFreeActivation": alias_free_activation,
    OWN + "aliasfree.AliasFreeLayerNorm2d": alias_free_layer_norm,
    OWN + "attention.AliasFreeTokenNorm": lambda module, call: window_rules.normalized(call.x, {1, 2}, []),
}


def hooked(module: nn.Module) -> bool:
    """Whether hooks or a ``forward`` of its own may change what a module does."""
    return has_forward_hooks(module) or "forward" in vars(module)


def module_rule(module: nn.Module) -> ModuleRule | None:
    """Return the rule for a module; None where its class has none, or where hooks or a subclass may change it."""
    kind = type(module)
    return None if hooked(module) else MODULES.get(kind) or AUGKIT.get(f"{kind.__module__}.{kind.__qualname__}")
