"""What a measurement of outputs beyond logits takes from the settings of `measure`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augkit.architectures.outputs import logits_in
from augkit.core.errors import InputError, unknown_name
from augkit.core.safe_files import Unreadable, load_safely
from augkit.invariance import Plan
from augkit.invariance.outputs import KINDS, OutputOptions
from augkit.invariance.outputs.kinds import find_kind
from augkit.invariance.outputs.measurement import scale_plan, shift_plan
from augkit.invariance.plan import AXES, one_shift
from augkit.invariance.protocols import ProtocolOptions, Scene
from augkit.measure.image_sets import ImageSet
from augkit.measure.session_parts import network_of
from augkit.measure.settings import MeasureSettings, flag
from augkit.measure.views import MAX_SCALE, MAX_SHIFT, PAIRS, Operator, choose_operator
from augkit.train.load_model import LoadedModel

AUTO = "auto"
LOGITS = "logits"
# Fields for logits alone.
OF_LOGITS = ("preset", "grid", "certify", "layers", "lie", "relative", "labels")
# Fields that belong to one axis; ``shift`` is a single displacement.
OF_AXIS = {"shift": ("max_shift", "quantum", "shift"), "scale": ("max_scale",)}
# Analyses that make sense for a kind.
ANALYSES_OF = dict.fromkeys(("embedding", "map", "image"), ("certify", "layers", "lie"))
# Fields from which an option of a kind is read, and those that are options of kinds.
READ = ("gallery", "class_embeddings")
OPTIONS = ("map_kernel", "border", "neighbors", "box_score", "box_iou", "box_border", "keypoint_score")


def choose_kind(settings: MeasureSettings, loaded: LoadedModel, found: ImageSet) -> str:
    """Return the kind of output that is measured: the one of the settings, or one recognized from one image.

    An output ``(B, K)`` counts as logits. So does one that no kind recognizes, which their measurement then refuses.

    Raises:
        InputError: the name is unknown, a setting belongs to logits alone, or the output is tokens.
    """
    kind = settings.output_kind
    if kind == AUTO:
        kind = _recognized(settings, loaded, found)
    elif kind not in KINDS:
        raise unknown_name("output kind", kind, (AUTO, *KINDS))
    if kind != LOGITS:
        for name in OF_LOGITS:
            if name in settings.changed() and name not in ANALYSES_OF.get(kind, ()):
                if name == "lie":
                    raise InputError(f"--lie: outputs of kind '{kind}' have none; {KINDS[kind].no_derivative}")
                raise InputError(f"{flag(name)}: it belongs to logits, got outputs of kind '{kind}'; leave it out")
        _check_axis(settings)
    else:
        for name in (*OPTIONS, *READ, "quantum"):
            if name in settings.changed():
                raise InputError(f"{flag(name)}: it belongs to other outputs than logits; leave it out")
    return kind


def choose_pairs(settings: MeasureSettings, loaded: LoadedModel, size: tuple[int, int]) -> tuple[Plan, Operator]:
    """Return the displacements of every image ``(H, W)``, and the protocol.

    Shifts are whole pixels unless the settings say otherwise.
    """
    own = loaded.recipe.invariance if loaded.recipe is not None else None
    pairs = settings.pairs or (own.pairs if own else PAIRS)
    if settings.shift is not None:
        plan = one_shift(*settings.shift)
    elif settings.axis == "scale":
        plan = scale_plan(settings.max_scale or MAX_SCALE, pairs)
    else:
        quantum = {None: 1.0, 0.0: None}.get(settings.quantum, settings.quantum)
        plan = shift_plan(settings.max_shift or (own.max_shift if own else MAX_SHIFT), quantum, pairs)
    return plan, choose_operator(settings, loaded, plan, size)


def _check_axis(settings: MeasureSettings) -> None:
    axis = settings.axis or "shift"
    if axis not in AXES:
        raise unknown_name("axis", axis, AXES)
    for other in AXES:
        for name in OF_AXIS[other]:
            if other != axis and getattr(settings, name) is not None:
                raise InputError(f"{flag(name)}: it belongs to the other --axis, got --axis {axis}")
    if settings.shift is not None and settings.quantum is not None:
        raise InputError("--shift is one displacement against none: leave out --quantum")


def choose_options(settings: MeasureSettings, gallery: ImageSet | None) -> OutputOptions:
    """Return the options of kinds; the ``gallery`` with its labels is that of the settings.

    Raises:
        InputError: the file of class embeddings cannot be read.
    """
    given = {name: getattr(settings, name) for name in OPTIONS if name in settings.changed()}
    if gallery is not None:
        given["gallery"] = gallery.pixels(list(range(len(gallery))))
        if gallery.images.labels is not None:
            given["gallery_labels"] = gallery.images.labels
    if settings.class_embeddings is not None:
        given["class_embeddings"] = _read_tensor(settings.class_embeddings)
    return replace(OutputOptions(), **given)


def _read_tensor(path: Path) -> Tensor:
    try:
        found = torch.from_numpy(np.load(path, allow_pickle=False)) if path.suffix == ".npy" else load_safely(path)
    except (OSError, EOFError, TypeError, ValueError, Unreadable) as error:
        raise InputError(f"--class-embeddings: '{path}' cannot be read ({error})") from None
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        form = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"--class-embeddings: expected floats (K, D) in '{path}', got {form}")
    return found


def _recognized(settings: MeasureSettings, loaded: LoadedModel, found: ImageSet) -> str:
    """The kind of output for the first unshifted image."""
    image = found.pixels([0])
    size, output = (image.shape[-2], image.shape[-1]), None
    try:
        plan, operator = choose_pairs(settings, loaded, size)
        network = network_of(replace(settings, compile=False), loaded)
        options = ProtocolOptions(operator.protocol, operator.kernel, operator.input_size)
        protocol = options.make(size, max_shift=plan.max_shift, factors=plan.factors)
        channels = network.fit_channels(image.shape[1])
        inputs = Scene(protocol, network.load(image)).unshifted()
        with network.measuring():
            output = network.output(inputs)
        logits = logits_in(output)
        if isinstance(logits, Tensor) and logits.ndim == 2:
            return LOGITS
        return find_kind(None, output, inputs.expand(-1, 3, -1, -1) if "repeated" in channels else inputs).name
    except InputError:
        if isinstance(output, Tensor) and output.ndim == 3:
            raise  # what to do with tokens is said best there
        return LOGITS
