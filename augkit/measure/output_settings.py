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
from augkit.invariance import Network, Plan
from augkit.invariance.outputs import KINDS, OutputOptions
from augkit.invariance.outputs.kinds import find_kind
from augkit.invariance.outputs.measurement import shift_plan
from augkit.invariance.protocols import ProtocolOptions, Scene
from augkit.measure.image_sets import ImageSet
from augkit.measure.settings import MeasureSettings, flag
from augkit.measure.views import MAX_SHIFT, PAIRS, Operator, choose_operator
from augkit.train.build import choose_device
from augkit.train.load_model import LoadedModel

AUTO = "auto"
LOGITS = "logits"
# Fields for logits alone.
OF_LOGITS = ("preset", "axis", "max_scale", "shift", "grid", "certify", "layers", "lie", "relative", "labels")
# Analyses that make sense for a kind.
ANALYSES_OF = {"embedding": ("certify", "layers", "lie"), "map": ("layers",), "image": ("layers",)}
# Fields that are options of kinds, by the name of the option.
# Fields from which an option is read.
READ = ("gallery", "class_embeddings")
OPTIONS = ("map_kernel", "border", "neighbors", "box_score", "box_iou", "box_border", "keypoint_score")


def choose_kind(settings: MeasureSettings, loaded: LoadedModel, found: ImageSet) -> str:
    """Return the kind of output that is measured: the one of the settings, or one recognized from one image.

    An output ``(B, K)`` counts as logits. So does one that no kind recognizes, which their measurement then refuses.

    Raises:
        InputError: the name is unknown, or a setting belongs to logits alone.
    """
    kind = settings.output_kind
    if kind == AUTO:
        kind = _recognized(settings, loaded, found)
    elif kind not in KINDS:
        raise unknown_name("output kind", kind, (AUTO, *KINDS))
    if kind != LOGITS:
        for name in OF_LOGITS:
            if name in settings.changed() and name not in ANALYSES_OF.get(kind, ()):
                raise InputError(f"{flag(name)}: it belongs to logits, got outputs of kind '{kind}'; leave it out")
    else:
        for name in (*OPTIONS, *READ, "quantum"):
            if name in settings.changed():
                raise InputError(f"{flag(name)}: it belongs to other outputs than logits; leave it out")
    return kind


def choose_shifts(settings: MeasureSettings, loaded: LoadedModel, size: tuple[int, int]) -> tuple[Plan, Operator]:
    """Return the shifts of every image ``(H, W)``, whole pixels unless the settings say otherwise, and the protocol."""
    own = loaded.recipe.invariance if loaded.recipe is not None else None
    most = settings.max_shift or (own.max_shift if own else MAX_SHIFT)
    quantum = {None: 1.0, 0.0: None}.get(settings.quantum, settings.quantum)
    plan = shift_plan(most, quantum, settings.pairs or (own.pairs if own else PAIRS))
    return plan, choose_operator(settings, loaded, plan, size)


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
    size = (image.shape[-2], image.shape[-1])
    try:
        plan, operator = choose_shifts(settings, loaded, size)
        network = Network(
            loaded.model,
            mean=settings.mean or loaded.mean,
            std=settings.std or loaded.std,
            device=choose_device(settings.device),
        )
        options = ProtocolOptions(operator.protocol, operator.kernel, operator.input_size)
        protocol = options.make(size, max_shift=plan.pairs.reach, factors=(1.0, 1.0))
        channels = network.fit_channels(image.shape[1])
        inputs = Scene(protocol, network.load(image)).unshifted()
        with network.measuring():
            output = network.output(inputs)
        logits = logits_in(output)
        if isinstance(logits, Tensor) and logits.ndim == 2:
            return LOGITS
        return find_kind(None, output, inputs.expand(-1, 3, -1, -1) if "repeated" in channels else inputs).name
    except InputError:
        return LOGITS
