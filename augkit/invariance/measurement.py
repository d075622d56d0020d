"""Measure one network on one set of images: forward passes, per-image statistics, estimates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from augkit.errors import InputError, InputTypeError
from augkit.invariance.intervals import Estimate, replicates
from augkit.invariance.metrics import METRICS, NEEDS_LABELS, image_statistics, jensen_shannon, top1_change
from augkit.invariance.protocols import Protocol, make_protocol
from augkit.resampling import check_images


@dataclass(frozen=True)
class InvarianceReport:
    """What `measure_invariance` found. Every metric is an `Estimate` with ``value``, ``low`` and ``high``.

    Attributes:
        settings: protocol, kernel, shifts, sizes and seed: all that is needed to repeat it.
        statistics: per-image statistics ``(N, F)``, from which paired comparisons are made.
        curve: per length in pixels of a shift in a random direction, statistics ``js`` and ``changed`` ``(N, 1)``
            against the unshifted image.
        fingerprint: equal for reports on the same images and settings.
    """

    settings: dict[str, Any]
    statistics: dict[str, Tensor] = field(repr=False)
    curve: dict[float, dict[str, Tensor]] = field(repr=False)
    fingerprint: str = field(repr=False)
    metrics: dict[str, Estimate]

    def __getattr__(self, name: str) -> Estimate:
        try:
            return self.__dict__["metrics"][name]
        except KeyError:
            raise AttributeError(f"InvarianceReport has no metric '{name}'") from None

    def response(self, metric: str = "js") -> dict[float, Estimate]:
        """Variability (``js`` or ``top1_change``) against the length of the shift in pixels."""
        return {length: replicates(metric, [statistics]).estimate(0, 1) for length, statistics in self.curve.items()}

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings for JSON."""
        out: dict[str, Any] = {name: estimate.to_dict() for name, estimate in self.metrics.items()}
        if self.curve:
            out["response"] = [
                {"length": length, "js": js.to_dict(), "top1_change": change.to_dict()}
                for (length, js), change in zip(
                    self.response("js").items(), self.response("top1_change").values(), strict=True
                )
            ]
        return {**out, "settings": self.settings}


def measure_invariance(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    protocol: str = "crop",
    max_shift: float = 8.0,
    kernel: str | None = None,
    seed: int = 0,
    pairs: int = 4,
    lengths: Sequence[float] = (),
    input_size: tuple[int, int] | int | None = None,
    background: float = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> InvarianceReport:
    """How much the output of a network varies when its input is shifted.

    Each image is seen without a shift, under ``pairs`` pairs of shifts uniform in ``[-max_shift, max_shift]``
    along each axis, and once for each of ``lengths`` in a random direction; shifts are drawn per image from
    ``seed``, so the result does not depend on ``batch_size``.

    Args:
        model: gives logits ``(B, K)``; put in ``eval()`` for the measurement, then back.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        labels: ``(N,)`` class indices, for accuracy; left out when None.
        protocol, kernel, input_size, background: see `augkit.invariance.protocols.make_protocol`.
        max_shift: pixels of the network's input.
        lengths: lengths in pixels at which the response curve is taken.
        mean, std: per channel, applied to the shifted images before the network sees them.
        device: where to compute; the model's own when None.
        on_batch: called with images done and in all.

    Raises:
        InputError: shapes, names or numbers that do not fit; logits that are not ``(B, K)`` or not finite.
    """
    check_images(images)
    _check_labels(labels, len(images))
    if pairs < 1 or batch_size < 1 or len(images) < 1:
        raise InputError(f"expected images, pairs, batch_size of at least 1, got {len(images)}, {pairs}, {batch_size}")
    size = (images.shape[-2], images.shape[-1])
    longest = max([max_shift, *lengths])
    operator = make_protocol(
        protocol, size, max_shift=longest, kernel=kernel, input_size=input_size, background=background
    )
    shifts = _draw_shifts(len(images), pairs, max_shift, lengths, seed)
    settings = {
        "protocol": protocol,
        "kernel": operator.kernel,
        "max_shift": float(max_shift),
        "pairs": pairs,
        "seed": seed,
        "images": len(images),
        "image_size": list(size),
        "input_size": list(operator.input_size),
        "background": background,
        "lengths": [float(length) for length in lengths],
    }
    rows = []
    for probability, rows_done in _probabilities(
        model, images, shifts, operator, _Normalise(mean, std), batch_size, device
    ):
        start = rows_done - len(probability)
        rows.append(_batch_statistics(probability, pairs, lengths, labels, start))
        if on_batch is not None:
            on_batch(rows_done, len(images))
    whole = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    statistics = {name: values for (where, name), values in whole.items() if where is None}
    curve = {length: {name: values for (w, name), values in whole.items() if w == length} for length in lengths}
    names = [name for name in METRICS if labels is not None or name not in NEEDS_LABELS]
    bounds = {name: (-1.0 if name == "kappa" else 0.0, 1.0) for name in names}
    metrics = {name: replicates(name, [statistics]).estimate(*bounds[name]) for name in names}
    return InvarianceReport(settings, statistics, curve, _fingerprint(images, settings), metrics)


def _draw_shifts(count: int, pairs: int, max_shift: float, lengths: Sequence[float], seed: int) -> Tensor:
    """``(N, 1 + 2 * pairs + lengths, 2)``: none, the pairs (all s, then all t), the curve."""
    columns = 4 * pairs + len(lengths)
    uniform = torch.rand(count, columns, generator=torch.Generator().manual_seed(seed))
    paired = (2 * uniform[:, : 4 * pairs] - 1).unflatten(1, (2 * pairs, 2)) * max_shift
    angle = 2 * math.pi * uniform[:, 4 * pairs :]
    radius = torch.tensor([float(length) for length in lengths])
    along = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return torch.cat([torch.zeros(count, 1, 2), paired, along], dim=1)


def _probabilities(
    model: nn.Module,
    images: Tensor,
    shifts: Tensor,
    operator: Protocol,
    normalise: _Normalise,
    batch_size: int,
    device: torch.device | str | None,
) -> Iterator[tuple[Tensor, int]]:
    """Class probabilities ``(b, S, K)`` in float64 on the CPU, batch by batch, with the images done so far."""
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model = model.to(device).eval()
    try:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(device)
            batch = batch.to(torch.float32) / 255 if batch.dtype == torch.uint8 else batch
            offsets = shifts[start : start + batch_size].to(device)
            with torch.inference_mode():
                columns = [
                    _logits(model, normalise(operator.shift(batch, offsets[:, s]))) for s in range(shifts.shape[1])
                ]
                # On the device, one stack and one copy a batch; float64 on the CPU, where MPS has it too.
                logits = torch.stack(columns, dim=1).to("cpu", torch.float64)
            if not bool(torch.isfinite(logits).all()):
                raise InputError(f"model: expected finite logits, got NaN or infinity on images from {start} on")
            yield logits.softmax(-1), start + len(batch)
    finally:
        model.train(was_training)


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != inputs.shape[0]:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"model: expected logits ({inputs.shape[0]}, K), got {got}")
    if logits.shape[1] < 2:
        raise InputError("model: expected logits for at least 2 classes, got 1")
    return logits


def _batch_statistics(
    probability: Tensor, pairs: int, lengths: Sequence[float], labels: Tensor | None, start: int
) -> dict[tuple[float | None, str], Tensor]:
    unshifted = probability[:, 0]
    first, second = probability[:, 1 : 1 + pairs], probability[:, 1 + pairs : 1 + 2 * pairs]
    here = None if labels is None else labels[start : start + len(probability)].cpu()
    if here is not None and int(here.max()) >= probability.shape[-1]:
        raise InputError(f"labels: the model has {probability.shape[-1]} classes, got label {int(here.max())}")
    keyed: dict[tuple[float | None, str], Tensor] = {
        (None, name): values for name, values in image_statistics((first, second), unshifted, here).items()
    }
    for k, length in enumerate(lengths):
        moved = probability[:, 1 + 2 * pairs + k]
        keyed[length, "js"] = jensen_shannon(unshifted, moved)[:, None]
        keyed[length, "changed"] = top1_change(unshifted, moved)[:, None]
    return keyed


class _Normalise:
    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        if (mean is None) != (std is None):
            raise InputError("mean and std: expected both or neither")
        if std is not None and not min(std) > 0:
            raise InputError(f"std: expected values above 0, got {min(std):g}")
        self.mean, self.std = mean, std

    def __call__(self, images: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return images
        if len(self.mean) not in (1, images.shape[1]) or len(self.mean) != len(self.std):
            raise InputError(f"mean and std: expected {images.shape[1]} values each, got {len(self.mean)}")
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std


def _check_labels(labels: Tensor | None, count: int) -> None:
    if labels is None:
        return
    if labels.shape != (count,) or labels.is_floating_point():
        raise InputTypeError(f"labels: expected integers ({count},), got {labels.dtype} {tuple(labels.shape)}")
    if count and int(labels.min()) < 0:
        raise InputError(f"labels: expected class indices of at least 0, got {int(labels.min())}")


def _fingerprint(images: Tensor, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    digest.update(images.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
