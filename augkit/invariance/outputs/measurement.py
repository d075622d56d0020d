"""Measures how much any output of a network changes, beyond what it should, when its input is shifted.

For two displacements of an image the output for one is moved by their difference and compared with the output for the
other: ``T f(x)`` with ``f(T x)``. An embedding should not move, a map moves by pixels of its own stride, boxes and
keypoints move by pixels. `measure_invariance` is the measurement of logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError, check_number, unknown_name
from augkit.invariance.batch_stream import Pixels, batches
from augkit.invariance.network import Network
from augkit.invariance.outputs.base import OutputOptions
from augkit.invariance.outputs.report import OutputReport
from augkit.invariance.outputs.stream import NO_OPTIONS, OutputMeasurement
from augkit.invariance.plan import AXES, Pairs, Plan, check_factor
from augkit.invariance.protocols import ProtocolOptions


def measure_outputs(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Pixels | Iterable[Any],
    targets: Any = None,
    *,
    output: str | None = None,
    protocol: str = "crop",
    axis: str = "shift",
    max_shift: float = 8.0,
    max_scale: float = 1.25,
    quantum: float | None = 1.0,
    kernel: str | None = None,
    pairs: int = 4,
    plan: Plan | None = None,
    seed: int = 0,
    options: OutputOptions | None = None,
    input_size: tuple[int, int] | int | None = None,
    image_size: tuple[int, int] | int | None = None,
    background: float | str = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
    **kind_options: Any,
) -> OutputReport:
    """Measure how much an embedding, a map, an image or another output changes when the input is shifted or rescaled.

    The network processes each image without a shift, and once for each of ``pairs`` shifts uniform in ``[-max_shift,
    max_shift]`` along each axis; the outputs for both are compared where both see the same content. Shifts are whole
    pixels by default, which are copied, so every difference is the network's own. They are drawn per image from
    ``seed``, so the result does not depend on ``batch_size``. Maps are reduced to a few numbers per image at once.

    With axis ``scale`` images are rescaled about the center of the input by factors between ``1 / max_scale`` and
    ``max_scale`` (log-uniform). Then interpolation has a part in the differences: maps are rescaled by the kernel in
    the settings, and smoothed where they shrink, as images are.

    Args:
        model: in ``eval()`` during the measurement, then restored.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1]; or an iterable of batches, each a tensor or a pair of
            images and targets. Images of different sizes are an `augkit.Ragged`.
        targets: labels for the numbers that need them, in the form that the kind of output takes: class indices
            ``(N,)`` for embeddings. None for an iterable, whose batches contain their targets.
        output: kind of output, a key of `augkit.invariance.outputs.KINDS`; recognized from the output when None.
        protocol, kernel, input_size, background: see `augkit.invariance.protocols.make_protocol`.
        axis: ``shift`` or ``scale``.
        max_shift: pixels of the network's input.
        max_scale: the largest factor, above 1, of axis ``scale``.
        quantum: shifts are multiples of this many pixels along each axis; any fraction when None.
        pairs: comparisons per image.
        plan: displacements of every image; replaces ``axis``, ``max_shift``, ``max_scale``, ``quantum`` and ``pairs``.
        seed: seed of the shifts and of the bootstrap.
        options, kind_options: the fields of `augkit.invariance.outputs.OutputOptions`, as one object or as keywords.
        image_size: see `augkit.measure_invariance`.
        mean, std: per channel, applied to the moved images before the network sees them.
        batch_size: images per forward pass.
        device, precision, compiled: see `augkit.invariance.network.Network`.
        on_batch: called with the number of finished images and the number of all images.

    Returns:
        Every number with its 95 % interval over images, curves, worst cases and settings.

    Raises:
        InputError: a shape, name or number does not fit; the output is of no known kind, not finite, or changes its
            shape.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 3))
    >>> report = measure_outputs(net, torch.rand(6, 1, 10, 10), max_shift=1.0)
    >>> report.kind, -1 <= report.cosine.low <= report.cosine.value <= 1
    ('embedding', True)
    """
    if plan is not None and (axis, max_shift, max_scale, quantum, pairs) != ("shift", 8.0, 1.25, 1.0, 4):
        raise InputError("plan: it replaces axis, max_shift, max_scale, quantum and pairs; leave them out")
    if plan is None:
        if axis not in AXES:
            raise unknown_name("axis", axis, AXES)
        check_number("max_shift", max_shift)
        check_number("max_scale", max_scale)
        if quantum is not None:
            check_number("quantum", quantum)
        if axis == "scale" and (max_shift, quantum) != (8.0, 1.0):
            raise InputError("axis 'scale': max_shift and quantum belong to axis 'shift'; leave them out")
        if axis == "shift" and max_scale != 1.25:
            raise InputError("axis 'shift': max_scale belongs to axis 'scale'; leave it out")
        if axis == "shift" and quantum is not None and 0 < max_shift < quantum:  # all views would be the image itself
            raise InputError(
                f"max_shift: expected at least the quantum of {quantum:g} pixels, got {max_shift:g}; quantum=None for"
                " fractions"
            )
        plan = scale_plan(max_scale, pairs) if axis == "scale" else shift_plan(max_shift, quantum, pairs)
    measurement = OutputMeasurement(
        Network(model, mean=mean, std=std, precision=precision, compiled=compiled, device=device),
        plan,
        ProtocolOptions(protocol, kernel, input_size, background),
        output=output,
        seed=seed,
        options=merged_options(options, kind_options),
    )

    def progress(done: int) -> None:
        if on_batch is not None:
            on_batch(done, len(images) if isinstance(images, (Tensor, Ragged)) else done)

    stream = batches(images, targets, batch_size, image_size, check=check_targets)
    measurement.run(stream, progress)
    return measurement.report()


def shift_plan(max_shift: float, quantum: float | None, pairs: int) -> Plan:
    """Return the plan that compares the unshifted image with ``pairs`` shifts; arguments as in `measure_outputs`.

    >>> shift_plan(4.5, 1.0, 2).pairs.high
    4.0
    """
    if not 0 <= max_shift < math.inf:
        raise InputError(f"max_shift: expected pixels of at least 0, got {max_shift:g}")
    if quantum is not None and not quantum > 0:
        raise InputError(f"quantum: expected pixels above 0, or None, got {quantum:g}")
    most = max_shift if quantum is None else quantum * math.floor(max_shift / quantum + 1e-9)
    return Plan(pairs=Pairs(pairs, -most, most, quantum, anchored=True))


def scale_plan(max_scale: float, pairs: int) -> Plan:
    """Return the plan that compares the unmoved image with ``pairs`` rescaled ones; arguments as in `measure_outputs`.

    >>> scale_plan(1.25, 2).factors
    (0.8, 1.25)
    """
    check_factor(max_scale)
    return Plan("scale", Pairs(pairs, 1 / max_scale, max_scale, anchored=True))


def merged_options(options: OutputOptions | None, given: Mapping[str, Any]) -> OutputOptions:
    """Return ``options`` with the fields in ``given`` replaced.

    Raises:
        InputError: a name is not a field, or both are given.
    """
    if options is not None and given:
        raise InputError("options: expected either one object or keywords, got both")
    known = vars(NO_OPTIONS)
    for name in given:
        if name not in known:
            raise InputError(f"unknown option '{name}' (known: {', '.join(known)})")
    return replace(options or NO_OPTIONS, **given)


def check_targets(targets: Any, count: int) -> None:
    """Raise InputError unless there are as many targets as images."""
    if targets is None:
        return
    listed = hasattr(targets, "__getitem__") and getattr(targets, "ndim", 1) > 0
    if not listed or len(targets) != count:
        got = len(targets) if listed else type(targets).__name__
        raise InputError(f"targets: expected one for each of {count} images, got {got}")
