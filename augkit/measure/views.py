"""Chooses the displacements of a measurement from the settings, the preset and the run's own recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from augkit.core.errors import InputError, unknown_name
from augkit.invariance import PROTOCOLS, Plan
from augkit.invariance.plan import AXES, Pairs, Place, check_factor, full_plan, one_shift, square_grid
from augkit.invariance.protocols import make_protocol
from augkit.measure.settings import MeasureSettings, flag
from augkit.train.load_model import LoadedModel
from augkit.train.recipe_sections import InvarianceSettings

MAX_SHIFT, MAX_SCALE, PAIRS = 8.0, 1.25, 4  # where neither the settings nor a recipe name others


@dataclass(frozen=True)
class Operator:
    """Arguments of `augkit.invariance.make_protocol`; None is the protocol's default."""

    protocol: str
    kernel: str | None
    background: float | str | None
    input_size: int | tuple[int, int] | None


def choose_protocol(settings: MeasureSettings, loaded: LoadedModel) -> str:
    """Return the protocol of the settings, else of the preset, else of the run, else ``crop``."""
    preset = settings.find_preset()
    own = loaded.recipe.invariance.protocol if loaded.recipe is not None else "crop"
    protocol = settings.protocol or (preset.protocol if preset else own)
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if settings.background is not None and protocol != "embed":
        raise InputError(f"--background: it belongs to --protocol embed, got '{protocol}'; leave it out")
    return protocol


def choose_views(settings: MeasureSettings, loaded: LoadedModel, size: tuple[int, int]) -> tuple[Plan, Operator]:
    """Return the displacements of every image, and the protocol that applies them.

    Args:
        settings: settings of the measurement.
        loaded: the network; if it is from a run, its recipe gives the settings that are None.
        size: ``(H, W)`` of the images.

    Raises:
        InputError: a name is unknown, or fields contradict each other.
    """
    preset, protocol = settings.find_preset(), choose_protocol(settings, loaded)
    own = loaded.recipe.invariance if loaded.recipe is not None else None
    kernel = _kernel(settings, loaded, protocol)
    plan = preset.plan if preset else _plan(settings, own, exact=protocol == "circular" and kernel in (None, "fourier"))
    if preset and settings.pairs:
        plan = replace(plan, pairs=replace(plan.pairs, count=settings.pairs))
    return plan, choose_operator(settings, loaded, plan, size)


def size_of_mixed_images(settings: MeasureSettings, loaded: LoadedModel, protocol: str) -> int | None:
    """Return the side to which images of several sizes are fitted; None where the network's input is unknown.

    It is that of the network's input; for ``crop`` the window has room for the largest displacement besides. ``embed``
    has none, because it is the canvas that has the size of the input.
    """
    side = settings.input_size or loaded.input_size
    if side is None or protocol == "embed":
        return None
    if protocol == "circular":
        return side
    preset, own = settings.find_preset(), loaded.recipe.invariance if loaded.recipe is not None else None
    plan = preset.plan if preset else _plan(settings, own, exact=False)
    return max(side + 2 * math.ceil(plan.max_shift), math.ceil(side / min(1.0, plan.factors[0])))


def choose_operator(settings: MeasureSettings, loaded: LoadedModel, plan: Plan, size: tuple[int, int]) -> Operator:
    """Return the protocol that applies the displacements of a plan to images of ``size`` ``(H, W)``."""
    preset, protocol = settings.find_preset(), choose_protocol(settings, loaded)
    background = settings.background
    if background is None and preset is not None:
        background = preset.background
    input_size = _input_size(settings, loaded, protocol, plan, size)
    return Operator(protocol, _kernel(settings, loaded, protocol), background, input_size)


def _kernel(settings: MeasureSettings, loaded: LoadedModel, protocol: str) -> str | None:
    preset, own = settings.find_preset(), loaded.recipe.invariance if loaded.recipe is not None else None
    if settings.kernel is not None or preset is not None:
        return settings.kernel or (preset.kernel if preset is not None else None)
    return own.kernel if own and protocol == own.protocol else None


def _plan(settings: MeasureSettings, own: InvarianceSettings | None, *, exact: bool) -> Plan:
    """Return the plan without a preset; ``exact`` shifts do not blur, so they need no control by blur."""
    if settings.shift is not None:
        return one_shift(*settings.shift)
    axis = settings.axis or "shift"
    if axis not in AXES:
        raise unknown_name("axis", axis, AXES)
    other = "max_scale" if axis == "shift" else "max_shift"
    if getattr(settings, other) is not None:
        raise InputError(f"{flag(other)}: it belongs to the other --axis, got --axis {axis}")
    if axis == "scale" and settings.grid is not None:
        raise InputError("--grid is in pixels; with --axis scale the grid is the factors of the curve")
    if axis == "shift":
        most = settings.max_shift or (own.max_shift if own else MAX_SHIFT)
    else:
        most = settings.max_scale or MAX_SCALE
        check_factor(most)
    pairs = settings.pairs or (own.pairs if own else PAIRS)
    grid = None if settings.grid is None else _grid(*settings.grid, *[most][len(settings.grid) - 1 :])
    if settings.curves:
        return full_plan(axis, most, pairs, grid=grid, blur=not exact)
    low = -most if axis == "shift" else 1 / most
    return Plan(axis, Pairs(pairs, low, most), grid=grid or ())


def _grid(step: float, extent: float) -> tuple[Place, ...]:
    """The displacements of a grid, of which one at least moves the image."""
    if 0 <= extent < step:
        raise InputError(f"--grid: expected STEP,EXTENT with an extent of at least the step, got {step:g},{extent:g}")
    return square_grid(step, extent)


def _input_size(
    settings: MeasureSettings, loaded: LoadedModel, protocol: str, plan: Plan, size: tuple[int, int]
) -> int | None:
    """Return the input side: that of the settings, else the network's own if the images are large enough, else None."""
    if settings.input_size is not None:
        return settings.input_size
    own = loaded.recipe.data.canvas if loaded.recipe is not None else loaded.input_size
    if own is None or protocol == "circular" or (loaded.recipe is not None and protocol != "embed"):
        return None
    try:
        make_protocol(protocol, size, max_shift=plan.max_shift, factors=plan.factors, input_size=own)
    except InputError:
        return own if loaded.recipe is not None else None
    return own
