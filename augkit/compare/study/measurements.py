"""Measure a trained network for a study; keep one number per image, image set and statistic.

A column is named ``image set|statistic``, and ``image set|statistic@length`` on the response curve. Displacements are
drawn per image from a fixed seed, so that all arms and seeds are measured on the same images under the same
displacements, and differences between them are paired.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from augkit.compare.study.claims import TYPICAL, Part
from augkit.compare.study.column_table import MissingError
from augkit.compare.study.schema import NOISE, Measure
from augkit.core.errors import InputError, unknown_name
from augkit.core.pixels import as_float
from augkit.data import Dataset, Images, Stream, atypical
from augkit.data.atypical import Inverted, atypical_versions
from augkit.invariance import make_protocol, measure_invariance, probes
from augkit.invariance.flips import Flip
from augkit.invariance.gallery import FlipPicture, flip_pictures
from augkit.invariance.information import entropy, shift_bits
from augkit.invariance.metrics import KEPT, jensen_shannon, top1_change
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.probes import LayerVariability
from augkit.invariance.probes.outputs import rotation_probabilities
from augkit.train.distributed import Process
from augkit.train.evaluate import inference, labeled_batches, log_probabilities
from augkit.train.recipe import Recipe

Columns = dict[str, np.ndarray]
ANSWERS = "log_probabilities"  # (images, views, classes), float16; kept so that a new metric needs no forward pass
FLIPS, KEPT_FLIPS = "flips", 3  # changed predictions with the highest confidence, as JSON
LAYER_IMAGES = 32  # few, because they are measured one by one


def image_sets(dataset: Dataset, limit: int, names: Iterable[str]) -> dict[str, Images]:
    """At most ``limit`` test images, and their atypical versions, by name; this opens the test split."""
    typical = dataset.open_test(limit)
    if isinstance(typical, Stream):
        raise InputError(f"study: {len(typical)} test images do not fit in memory; set a lower 'images'")
    wanted, found = set(names), {TYPICAL: typical}
    if wanted & {"another hand", "upside down", "photographs"}:
        found |= atypical(typical, data=dataset.name)
    if "inverted" in wanted and "inverted" not in found:
        found |= {"inverted": typical.then(Inverted())}
    if lacking := wanted - set(found) - {"texture shuffle", "erased"}:
        raise InputError(f"study: '{min(lacking)}' images are made of digits only, not of {dataset.name}")
    if wanted & {"texture shuffle", "erased"}:
        found |= {name: images for name, images in atypical_versions(typical).items() if name not in found}
    return {name: images for name, images in found.items() if name in wanted}


def measure_network(
    model: nn.Module, recipe: Recipe, measure: Measure, sets: Mapping[str, Images], device: torch.device
) -> Columns:
    """Measure a network on all image sets of a measure.

    Raises:
        InputError: the images have no room for the displacements, or the network does not accept them.
        MissingError: this installation cannot compute the measure.
    """
    by_axis: dict[str, Callable[..., Columns]] = {"layers": _layers, "rotation": _rotation}
    out: Columns = {}
    for name in measure.images:
        found = by_axis.get(measure.axis, _displaced)(model, recipe, measure, sets[name], device)
        out |= {f"{name}|{key}": values for key, values in found.items()}
        if measure.noise:
            noisy = _displaced(model, recipe, measure, sets[name], device, noise=True)
            out |= {f"{name}{NOISE}|{key}": values for key, values in noisy.items()}
    return out


def measure_accuracy(model: nn.Module, recipe: Recipe, images: Images, device: torch.device) -> Columns:
    """For each test image, whether the network classifies it correctly; for networks with a task of their own."""
    hits = []
    with inference(model, recipe, device):
        for shown, labels in labeled_batches(images, recipe, device, Process()):
            hits.append(log_probabilities(model, as_float(shown), recipe).argmax(-1) == labels)
    return {f"{TYPICAL}|correct": torch.cat(hits).float().cpu().numpy()}


def plan_of(measure: Measure, recipe: Recipe) -> Plan:
    """The displacements of a measure with axis shift or scale, for a network of the recipe.

    Raises:
        InputError: the nearest displacement is beyond the reach.
    """
    if measure.axis == "scale":
        assert measure.reach is not None
        return Plan("scale", Pairs(measure.pairs, 1 / measure.reach, measure.reach))
    reach = recipe.invariance.max_shift if measure.reach is None else measure.reach
    high = reach - (max(map(abs, measure.step)) if measure.step else 0.0)
    low = -high if measure.nearest is None else measure.nearest
    if low > high:
        raise InputError(f"measure: expected nearest of at most {high:g} pixels, got {low:g}")
    pairs = Pairs(measure.pairs, low, high, 1.0 if measure.whole or measure.step else None, step=measure.step)
    return Plan(pairs=pairs, lengths=tuple(measure.lengths))


@dataclass(frozen=True)
class _ShiftOptions:
    """Arguments of `augkit.invariance.measure_invariance` that set how images are shifted."""

    protocol: str
    kernel: str | None
    input_size: int | None
    background: float | str


def _shift_options(measure: Measure, recipe: Recipe, images: Images) -> tuple[Images, _ShiftOptions]:
    """The images in the form that the protocol needs, and its options."""
    protocol = measure.protocol or recipe.invariance.protocol
    kernel = recipe.invariance.kernel if protocol == recipe.invariance.protocol else None
    side = recipe.data.canvas if protocol == "embed" else measure.window
    if protocol != "embed":
        images = images.put_on_canvas(recipe.data.canvas)
    return images, _ShiftOptions(protocol, kernel, side, images.background)


def pictures_of(
    flips: Sequence[Flip], measure: Measure, recipe: Recipe, images: Images, classes: list[str]
) -> list[FlipPicture]:
    """Images of changed predictions, as the network received them."""
    images, options = _shift_options(measure, recipe, images)
    size, plan = (int(images.images.shape[-2]), int(images.images.shape[-1])), plan_of(measure, recipe)
    protocol = make_protocol(
        options.protocol,
        size,
        max_shift=plan.max_shift,
        factors=plan.factors,
        kernel=options.kernel,
        input_size=options.input_size,
        background=options.background,
    )
    return flip_pictures(flips, images.images[[flip.image for flip in flips]], protocol, classes)


def _check_borders(measure: Measure, recipe: Recipe, images: Images) -> None:
    """Raise InputError if no shift reaches a border: on a uniform canvas the shift would equal a circular one."""
    if measure.protocol != "crop" or measure.axis != "shift":
        return
    content = min(images.shape[1:])
    reach = recipe.invariance.max_shift if measure.reach is None else measure.reach
    window = measure.window or (recipe.data.canvas or content) - 2 * math.ceil(reach)
    if content + 2 * reach <= window:
        raise InputError(
            f"measure: images of {content} px shifted by {reach:g} px do not leave windows of {window} px, so no border"
            " is seen; expected a smaller window"
        )


def _displaced(
    model: nn.Module, recipe: Recipe, measure: Measure, images: Images, device: torch.device, *, noise: bool = False
) -> Columns:
    _check_borders(measure, recipe, images)
    images, options = _shift_options(measure, recipe, images)
    report = measure_invariance(
        model,
        images.images,
        images.labels,
        plan=plan_of(measure, recipe),
        mean=recipe.data.mean,
        std=recipe.data.std,
        device=device,
        keep_probabilities=True,
        noise=noise,
        **asdict(options),
    )
    out = {name: report.statistics[name] for name in KEPT if name in report.statistics}
    out |= {f"{name}@{length:g}": values for length, run in report.curve.items() for name, values in run.items()}
    found: Columns = {name: _compact(values) for name, values in out.items()}
    assert report.log_probabilities is not None
    found[ANSWERS] = report.log_probabilities.numpy()
    return found | {FLIPS: np.array(json.dumps([flip.to_dict() for flip in report.flips[:KEPT_FLIPS]]))}


def _compact(values: torch.Tensor) -> np.ndarray:
    """Per-image numbers in float32: ``(N,)`` for one number per image, ``(N, F)`` for several."""
    whole = values.float().numpy()
    return whole[:, 0] if whole.shape[1] == 1 else whole


def _rotation(model: nn.Module, recipe: Recipe, measure: Measure, images: Images, device: torch.device) -> Columns:
    reach = measure.reach or 180.0
    if isinstance(images.background, str):
        raise InputError(f"measure: expected a canvas of one gray value with axis rotation, got {images.background}")
    p = rotation_probabilities(
        model,
        images.on_canvas(recipe.data.canvas),
        max_degrees=reach,
        draws=measure.pairs,
        background=images.background,
        mean=recipe.data.mean,
        std=recipe.data.std,
        device=device,
    )
    unturned = p[:, :1].expand_as(p[:, 1:])
    out = {"js": jensen_shannon(unturned, p[:, 1:]).mean(1), "changed": top1_change(unturned, p[:, 1:]).mean(1)}
    out |= {"shift_bits": shift_bits(p), "answer_bits": entropy(p).mean(1), "answer_mean": p.mean(1)}
    if images.labels is not None:
        out["correct"] = (p[:, 1:].argmax(-1) == images.labels[:, None].to(p.device)).double().mean(1)
    found: Columns = {name: values.float().cpu().numpy() for name, values in out.items()}
    return found | {ANSWERS: p.clamp_min(torch.finfo(p.dtype).tiny).log().to(torch.float16).numpy()}


def _layers(model: nn.Module, recipe: Recipe, measure: Measure, images: Images, device: torch.device) -> Columns:
    """``db`` and ``names`` of the layers (dB, mean over images); ``layer_loss`` per image (mean over downsamplings)."""
    few = images.take(torch.arange(min(len(images), LAYER_IMAGES)))
    found = probes.layer_loss(
        model,
        few.on_canvas(recipe.data.canvas),
        max_shift=measure.reach or recipe.invariance.max_shift,
        draws=measure.pairs,
        grid=measure.grid,
        mean=recipe.data.mean,
        std=recipe.data.std,
        device=device,
    )
    losses = list(found.losses.values()) or [np.full(len(few), math.nan)]
    decibels = np.where(np.isfinite(found.decibels), found.decibels, math.nan)
    return {
        "db": np.nanmean(decibels, axis=0),
        "names": np.array(found.names),
        "layer_loss": np.mean(losses, axis=0),
    }


def measure_probe(
    part: Part, model: nn.Module | None, recipe: Recipe, images: Images, device: torch.device, seed: int
) -> Columns:
    """Run a probe of `augkit.invariance.probes`; the probe receives those arguments that it has parameters for.

    Args:
        part: part of a claim with the name and options of the probe.
        model: network; None for a probe with a network of its own.
        recipe: recipe of the network.
        images: images of the test split.
        device: device of the network.
        seed: seed of the probe's random numbers.

    Returns:
        Columns: ``value`` for an array or a number; each field of a named tuple; for a dict in a field, ``field.key``
        for each key and their mean as ``field``.

    Raises:
        MissingError: there is no such probe.
        InputError: the probe does not have one of the options.
    """
    probe = probes.PROBES.get(str(part.probe))
    if probe is None:
        raise MissingError(str(unknown_name("probe", part.probe, probes.PROBES)))
    options = dict(part.options)
    takes = inspect.signature(probe).parameters
    protocol = options.pop("protocol", recipe.invariance.protocol)
    shown = images.put_on_canvas(recipe.data.canvas) if protocol != "embed" or "protocol" not in takes else images
    reach = options.get("max_shift", math.floor(recipe.invariance.max_shift))
    known: dict[str, object] = {
        "model": model,
        "images": shown.images,
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "device": device,
        "seed": seed,
        "background": images.background,
    }
    if "max_shift" in takes:
        known["max_shift"] = reach
    if "protocol" in takes:
        side = recipe.data.canvas if protocol == "embed" else None
        size = (int(shown.images.shape[-2]), int(shown.images.shape[-1]))
        known["protocol"] = make_protocol(
            protocol, size, max_shift=reach, input_size=side, background=images.background
        )
    wrong = [key for key in options if key not in takes]
    if wrong:
        raise InputError(f"probe {part.probe}: {unknown_name('option', wrong[0], takes)}")
    return _flat(probe(**{key: value for key, value in known.items() if key in takes} | options))


def _flat(found: Any) -> Columns:
    if isinstance(found, LayerVariability):
        # Scaled per image, so that the mean over images is the layer's ratio of means.
        apart = found.apart.mean(0)
        return {name: found.moved[:, k] / apart[k] for k, name in enumerate(found.names) if apart[k] > 0}
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if not isinstance(found, Mapping):
        return {"value": np.atleast_1d(np.asarray(found, dtype=np.float64))}
    out: Columns = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            inner = {f"{key}.{name}": np.atleast_1d(np.asarray(part)) for name, part in value.items()}
            out |= inner
            if inner:
                out[key] = np.mean(np.stack(list(inner.values())), axis=0)
        else:
            out[key] = np.atleast_1d(np.asarray(value))
    return out
