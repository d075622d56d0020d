"""Surgery: reduces or removes aliasing in existing networks, trained or not.

Blur pooling is Zhang 2019 (https://arxiv.org/abs/1904.11486), adaptive polyphase sampling (APS) Chaman & Dokmanic
2021 (https://arxiv.org/abs/2011.14214), learnable polyphase sampling (LPS) Rojas-Gomez et al. 2022
(https://arxiv.org/abs/2210.08001). Deviations:

- The sampling is at the strided layer, before its batch norm and activation. For polyphase sampling this changes only
  the criterion (pointwise layers commute with sampling); for blur pooling see `strided`.
- Branches that meet again must keep the same phase. All strided layers whose input has the same size share one
  choice, made by the one that runs first; the papers pass the phase of the main branch to the shortcut.
- The filter of a stride beyond 2 widens with the stride (`Blur2d`); Zhang factors AlexNet's stride of 4 instead.
- Kernels as large as their stride (the stem of ConvNeXt, the patches of transformers) are treated like all others.
  Dense evaluation costs ``stride**2`` times the layer, a small part of the network for the stem of ConvNeXt-T (5 %),
  several times the network for patches of 16 pixels in a small transformer. Blur pooling leaves steps beyond 4 alone.
- Polyphase sampling anchors the patches of a transformer to the image (Rojas-Gomez et al. 2024,
  https://arxiv.org/abs/2305.16316). Its positions and windows stay where they are: see ``placed`` in the report.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from augkit.architectures.antialiased_layer import METHODS, AntialiasOptions, change_padding, make_antialiased
from augkit.architectures.downsampling import PADDING_MODES
from augkit.architectures.modes import check_network, copied
from augkit.architectures.placed_parts import find_placed
from augkit.architectures.polyphase import ODD
from augkit.architectures.strided import AntialiasedLayer, PhaseSelector, PhaseUpsample
from augkit.architectures.strided_calls import Call, Site, Unchanged, describe, expose_pools, find_sites, trace
from augkit.core.errors import InputError, InputTypeError, check_whole, unknown_name

Grid = tuple[tuple[int, int], tuple[int, int]]  # size of the maps, stride


class Changed(NamedTuple):
    """A strided layer that was changed; ``decided_by`` names the layer whose phase it keeps, with aps and lps."""

    name: str
    layer: str
    decided_by: str | None


@dataclass(frozen=True)
class SurgeryReport:
    """The result of `antialias`: every strided layer is listed once, in ``changed`` or ``unchanged``.

    Attributes:
        method, padding_mode: arguments of `antialias`.
        changed: strided layers in the order in which they run.
        unchanged: strided layers and other subsampling that were not changed, with the reasons.
        padded: names of the layers whose padding is now ``padding_mode``.
        unpadded: layers that pad and could not be changed.
        placed: positions and windows of transformers, which depend on the place whatever is sampled; the first of each
            kind.
    """

    method: str
    padding_mode: str | None
    changed: tuple[Changed, ...]
    unchanged: tuple[Unchanged, ...]
    padded: tuple[str, ...]
    unpadded: tuple[Unchanged, ...]
    placed: tuple[Unchanged, ...] = ()

    def __str__(self) -> str:
        padding = f", padding {self.padding_mode} in {len(self.padded)} layers" if self.padding_mode else ""
        lines = [f"{self.method}: {len(self.changed)} strided layers changed, {len(self.unchanged)} not{padding}"]
        for name, layer, decided_by in self.changed:
            shared = f", phase of {decided_by}" if decided_by not in (None, name) else ""
            lines.append(f"  changed      {name}: {layer}{shared}")
        lines += [f"  not changed  {name}: {layer}: {reason}" for name, layer, reason in self.unchanged]
        lines += [f"  not padded   {name}: {layer}: {reason}" for name, layer, reason in self.unpadded]
        lines += [f"  by place     {name}: {layer}: {reason}" for name, layer, reason in self.placed]
        return "\n".join(lines)


def antialias(
    model: nn.Module,
    method: str = "blurpool",
    padding_mode: str | None = None,
    *,
    size: int = 4,
    odd: str = "warn",
    inplace: bool = False,
    input_size: int | tuple[int, int, int] | None = None,
) -> nn.Module:
    """Reduce or remove the aliasing of a network where it subsamples.

    It changes strided convolutions, maximum and average pools, including functional pools inside blocks, and with
    ``aps`` and ``lps`` the patches of transformers. Class,
    parameters, names, shapes and dtype stay the same, so state dicts of the original still load with ``strict=True``.
    ``lps`` adds the weights of its samplers, which keep their values when such a state dict is loaded.
    `surgery_report` lists the changed and the unchanged layers with reasons; `augkit.certify` names the first layer
    that still breaks invariance.

    Args:
        model: any network of torch layers that takes images ``(B, C, H, W)``, such as those of torchvision and timm.
        method: ``blurpool``, ``aps`` or ``lps``.
        padding_mode: ``zeros``, ``circular`` or ``reflect`` for every convolution, maximum pool and blur. When None,
            layers keep their padding, and a blur uses that of its convolution, with ``reflect`` for zeros. Exact
            invariance needs ``circular`` with ``aps`` or ``lps``.
        size: taps of the blur for stride 2 (4 is "BlurPool-4"); not used by ``aps`` and ``lps``.
        odd: behavior of aps and lps for circular maps whose sides are not multiples of the stride: ``warn``, ``raise``
            or ``allow``.
        inplace: change ``model`` itself instead of a copy.
        input_size: side of a square image, or (C, H, W), for the pass that finds where the network subsamples; by
            default the input size of a timm network, else 224. The result takes images of any size.

    Returns:
        The changed network, in the training or evaluation mode of ``model``.

    Raises:
        InputTypeError: ``model`` is not a module.
        InputError: the method, padding mode or ``odd`` is unknown; there is nothing to change (patches with
            ``blurpool``); or the network does not run at ``input_size`` or was changed by `antialias` before.

    >>> model = antialias(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.MaxPool2d(2)), "aps")
    >>> print(surgery_report(model))
    aps: 2 strided layers changed, 0 not
      changed      0: Conv2d 3x3 stride 2
      changed      1: MaxPool2d 2x2 stride 2
    """
    _check(model, method, padding_mode, size, odd)
    image, calls = _first_pass(model, input_size)
    polyphase = method != "blurpool"
    find_sites(model, calls, polyphase)  # raises before the model is changed
    model = model if inplace else copied(model)
    if _expose(model, calls, padding_mode):
        calls = trace(model, image)
    sites, unchanged = find_sites(model, calls, polyphase)
    like = next(model.parameters(), torch.empty(0))
    options = AntialiasOptions(method, padding_mode, size, odd, like.device, like.dtype)
    grids = _grids(model, sites, calls) if polyphase else {}
    selectors = {grid: PhaseSelector(users) for grid, users in grids.items()}
    changed = []
    for site in sites:
        selector = selectors.get((site.call.size, site.call.stride))
        changed.append(Changed(site.name, describe(site.layer), selector.layers[0] if selector else None))
        make_antialiased(site, options, selector)
    changed += _align_upsampling(model, grids, selectors)
    padded, unpadded = change_padding(model, calls, padding_mode) if padding_mode else ([], [])
    done = {name for name, _, _ in changed}
    # On the network itself, so that copies and pickles of it have it too.
    model.surgery_report = SurgeryReport(  # type: ignore[assignment]
        method,
        padding_mode,
        tuple(changed),
        tuple(entry for entry in unchanged if entry.name not in done),
        tuple(padded),
        tuple(unpadded),
        tuple(find_placed(model)),
    )
    return model


def surgery_report(model: nn.Module) -> SurgeryReport:
    """Return the report of `antialias` on a network.

    Raises:
        InputError: the network was not changed by `antialias`.
    """
    report = getattr(model, "surgery_report", None)
    if not isinstance(report, SurgeryReport):
        raise InputError(f"surgery_report: {type(model).__name__} does not come from augkit.antialias")
    return report


def _check(model: nn.Module, method: str, padding_mode: str | None, size: int, odd: str) -> None:
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"antialias: expected a torch.nn.Module, got {type(model).__name__}")
    check_network(model)
    for kind, value, known in (
        ("method", method, METHODS),
        ("padding mode", padding_mode or "zeros", PADDING_MODES),
        ("way with odd maps", odd, ODD),
    ):
        if value not in known:
            raise unknown_name(kind, value, known)
    check_whole("antialias: size of the blur", size, 2, optional=False)
    scripted = next((name for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None:
        what = f"'{scripted}'" if scripted else "the network"
        raise InputError(f"antialias: expected layers in Python, {what} is TorchScript; operate first, then script")
    if any(isinstance(module, AntialiasedLayer) for module in model.modules()):
        raise InputError(f"antialias: {type(model).__name__} was operated on before; start from the original")


def _first_pass(model: nn.Module, given: int | tuple[int, int, int] | None) -> tuple[tuple[int, int, int], list[Call]]:
    """Return the image size (C, H, W) of a pass, and the calls of that pass."""
    if isinstance(given, (tuple, list)):
        if len(given) != 3:
            raise InputError(f"input_size: expected the side of a square image, or (C, H, W), got {given!r:.80}")
        for side in given:
            check_whole("input_size", side, 1, optional=False)
        image = operator.index(given[0]), operator.index(given[1]), operator.index(given[2])
        return image, trace(model, image)
    check_whole("input_size", given, 1)
    config = getattr(model, "pretrained_cfg", None) or {}
    named, height, width = config.get("input_size") or (3, 224, 224)
    if given is not None:
        height = width = operator.index(given)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), named)
    try:
        return (channels, height, width), trace(model, (channels, height, width))
    except InputError:
        if channels == named:
            raise
    return (named, height, width), trace(model, (named, height, width))  # the first convolution may not run first


def _expose(model: nn.Module, calls: list[Call], padding_mode: str | None) -> bool:
    """Turn functional pools inside blocks into modules, where they subsample or where padding changes."""
    modules, exposed = dict(model.named_modules()), False
    for name in dict.fromkeys(call.name for call in calls):
        own = [c for c in calls if c.name == name and c.function in ("max_pool2d", "avg_pool2d")]
        is_pool = isinstance(modules[name], nn.MaxPool2d | nn.AvgPool2d)
        if name and own and not is_pool and any(max(c.stride) > 1 or (padding_mode and c.padded) for c in own):
            block = expose_pools(modules[name])
            if block is not None:
                parent, _, attribute = name.rpartition(".")
                setattr(modules[parent], attribute, block)
                exposed = True
    return exposed


def _grids(model: nn.Module, sites: list[Site], calls: list[Call]) -> dict[Grid, list[str]]:
    """Return the names of the layers that choose or use the phase of each grid, in the order in which they run.

    Layers whose inputs have the same size and that take the same stride are on one grid; so is a nearest
    upsampling that leads back to it.
    """
    names, modules = {site.name for site in sites}, dict(model.named_modules())
    grids: dict[Grid, list[str]] = {}
    for call in calls:
        if call.function == "interpolate":
            on = [grids[grid] for grid in _way_back(modules[call.name], call, grids)]
        else:
            on = [grids.setdefault((call.size, call.stride), [])] if call.name in names and max(call.stride) > 1 else []
        for users in on:
            users.extend([] if call.name in users else [call.name])
    return grids


def _way_back(layer: nn.Module, call: Call, grids: dict[Grid, list[str]]) -> list[Grid]:
    """Return the grids that an upsampling undoes, the coarsest first; an empty list if it leads back to no grid."""
    factor = getattr(layer, "scale_factor", None)
    if not isinstance(layer, nn.Upsample) or layer.mode != "nearest" or factor is None or factor != int(factor):
        return []
    size, way = (call.size[0] * int(factor), call.size[1] * int(factor)), list[Grid]()
    while size != call.size:
        found = [grid for grid in grids if grid[0] == size]
        if len(found) != 1:
            return []
        (height, width), (down, right) = found[0]
        way.insert(0, found[0])
        size = (-(-height // down), -(-width // right))
    return way


def _align_upsampling(
    model: nn.Module, grids: dict[Grid, list[str]], selectors: dict[Grid, PhaseSelector]
) -> list[Changed]:
    """Put a `PhaseUpsample` in place of each upsampling on the grids."""
    changed = []
    for name, layer in list(model.named_modules()):
        way = [grid for grid, users in reversed(grids.items()) if name in users]
        if isinstance(layer, nn.Upsample) and way:
            chosen = [selectors[grid] for grid in way]
            parent, _, attribute = name.rpartition(".")
            steps = [stride[0] for _, stride in way]
            setattr(model.get_submodule(parent), attribute, PhaseUpsample(layer, name, chosen, steps))
            deciders = ", ".join(selector.layers[0] for selector in chosen)
            changed.append(Changed(name, f"Upsample nearest by {layer.scale_factor:g}", deciders))
    return changed
