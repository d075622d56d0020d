"""Relative invariance: the distance that a transform moves features, relative to the distance between two images.

Bouchacourt, Ibrahim & Morcos 2021, "Grounding inductive biases in natural images"
(https://arxiv.org/abs/2106.05121). With features ``z = phi(x)``, ``z_s = phi(T_s x)`` and ``z' = phi(T_s x')`` of
another image under the same transform, it is ``(d(z, z') - d(z, z_s)) / (d(z, z') + eps)``: 1 where the transform
does not move the features, 0 where it moves them as far as another image is away, and 0 for constant features.

Images are paired at random and the images of a pair share their transforms, so that each serves as the other's ``x'``
without a further forward pass (of an odd number, one is paired twice). The results of a pair are dependent, so
intervals resample pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from augkit.augment.resample import check_images
from augkit.core.errors import InputError, check_number, check_seed, check_whole, unknown_name
from augkit.invariance.bootstrap import Estimate, means_with_replicates, percentile_interval
from augkit.invariance.layers.features import Penultimate
from augkit.invariance.network import CheckedForward, batch_slices, check_finite, evaluating
from augkit.invariance.protocols import Protocol, Scene, make_protocol


class Distance(NamedTuple):
    """A distance between vectors, and the ``eps`` above: the error in it from a relative rounding error ``r``."""

    between: Callable[[Tensor, Tensor], Tensor]
    of_rounding: Callable[[Tensor, Tensor, float], Tensor | float]


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)


DISTANCES: dict[str, Distance] = {
    "euclidean": Distance(lambda a, b: (a - b).norm(dim=-1), lambda a, b, r: r * (a.norm(dim=-1) + b.norm(dim=-1)) / 2),
    # Half the squared distance of unit vectors is 1 - cosine, without cancellation.
    "cosine": Distance(lambda a, b: (_unit(a) - _unit(b)).square().sum(-1) / 2, lambda a, b, r: r * r / 2),
}
ROUNDING = 10.0  # units in the last place by which constant features may differ


@dataclass(frozen=True)
class RelativeSettings:
    """Settings that reproduce `relative_invariance`; ``input_size`` is (H, W)."""

    protocol: str
    kernel: str
    max_shift: float
    max_factor: float
    draws: int
    features: str
    distance: str
    images: int
    input_size: list[int]
    seed: int


@dataclass(frozen=True)
class RelativeInvariance:
    """The result of `relative_invariance`.

    Attributes:
        relative: relative invariance, at most 1, with its interval.
        moved: mean distance ``d(z, z_s)`` to the features under the transform.
        apart: mean distance ``d(z, z')`` to the features of another image.
        settings: settings that reproduce the measurement.
        per_image: relative invariance per image ``(N,)``, means over its transforms.
    """

    relative: Estimate
    moved: Estimate
    apart: Estimate
    settings: RelativeSettings
    per_image: Tensor = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """Estimates and settings for JSON."""
        estimates = {name: getattr(self, name).to_dict() for name in ("relative", "moved", "apart")}
        return {**estimates, "settings": asdict(self.settings)}


def relative_invariance(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    max_shift: float = 8.0,
    max_factor: float = 1.0,
    draws: int = 4,
    protocol: Protocol | None = None,
    features: str | None = None,
    distance: str = "euclidean",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> RelativeInvariance:
    """Return the relative invariance of a network's features to shift, to rescaling, or to both combined.

    Args:
        model: gives logits ``(B, K)``; evaluated in ``eval()`` and put back in the mode it was in.
        images: ``(N, C, H, W)``, at least two, uint8 or floating in [0, 1]; computed in the dtype of the weights.
        max_shift: pixels of the network's input; shifts are uniform in ``[-max_shift, max_shift]`` on each axis.
        max_factor: at least 1; scale factors are log-uniform in ``[1 / max_factor, max_factor]``. Content is
            scaled about the center, then shifted, and resampled once.
        draws: transforms per pair of images.
        protocol: the source of pixels beyond the border; a ``crop`` with the smallest sufficient margin when None.
        features: name of the module whose output is used; the input of the last ``nn.Linear`` when None.
        distance: ``euclidean`` or ``cosine`` (1 minus the cosine).
        mean, std: per channel, applied to the transformed images before the network sees them.
        batch_size: images per forward pass, rounded down to whole pairs, at least one pair.
        device: device of the computation; that of the model when None.
        seed: seed of the pairs, the transforms and the bootstrap.
        on_batch: called with the number of finished images and the number of all images.

    Returns:
        The estimates, with the values of every image and the settings.

    Raises:
        InputError: there are fewer than two images; a number, name or shape does not fit; a transform exceeds the
            margin of the protocol; or ``features`` is None and no ``nn.Linear`` gives the logits.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = relative_invariance(net, torch.rand(5, 1, 16, 16), max_shift=2.0)
    >>> found.relative.value <= 1, found.per_image.shape
    (True, torch.Size([5]))
    """
    check_images(images)
    if len(images) < 2:
        raise InputError(f"images: expected 2 or more, got {len(images)}")
    check_whole("draws", draws, 1, optional=False)
    check_whole("batch_size", batch_size, 1, optional=False)
    check_seed(seed)
    check_number("max_shift", max_shift, 0.0)
    check_number("max_factor", max_factor, 1.0)
    if distance not in DISTANCES:
        raise unknown_name("distance", distance, DISTANCES)
    protocol = _checked_protocol(protocol, (images.shape[-2], images.shape[-1]), max_shift, max_factor)
    pairs, transforms = _draw(len(images), draws, max_shift, max_factor, seed)
    rows = []
    with (
        evaluating(model, images, mean=mean, std=std, device=device) as network,
        Penultimate(model, features) as hook,
    ):
        for part in batch_slices(len(pairs), max(1, batch_size // 2), None):
            seen = _features(network, hook, protocol, images[pairs[part].flatten()], transforms[part], max_factor)
            rows.append(check_finite(_distances(seen, DISTANCES[distance]), "features", 2 * part.start))
            if on_batch is not None:
                on_batch(min(2 * part.stop, len(images)), len(images))
    settings = RelativeSettings(
        protocol=protocol.name,
        kernel=protocol.kernel,
        max_shift=float(max_shift),
        max_factor=float(max_factor),
        draws=draws,
        features=features or "penultimate",
        distance=distance,
        images=len(images),
        input_size=list(protocol.input_size),
        seed=seed,
    )
    return _result(torch.cat(rows), pairs, len(images), settings)


def _checked_protocol(
    protocol: Protocol | None, size: tuple[int, int], max_shift: float, max_factor: float
) -> Protocol:
    """Return a protocol whose margin covers the transforms."""
    if protocol is None:
        window = tuple(math.floor(side / max_factor) - 2 * math.ceil(max_shift) for side in size)
        if min(window) < 1:
            raise InputError(
                f"max_shift {max_shift:g} and max_factor {max_factor:g} leave no window in {size[0]} x {size[1]} pixels"
            )
        protocol = make_protocol("crop", size, max_shift=max_shift, input_size=(window[0], window[1]))
    if protocol.image_size != size:
        raise InputError(f"protocol: made for images of {protocol.image_size} pixels (H, W), got {size}")
    if max_factor > 1 and protocol.kernel == "fourier":
        raise InputError("kernel 'fourier' shifts only; make the protocol with kernel 'sinc' or 'lanczos3' to rescale")
    for image, window_side in zip(size, protocol.input_size, strict=True):
        inner, outer = sorted((image, window_side))
        # The largest distance from the center that the smaller of the two reaches in the frame of the larger.
        reach = (inner / 2 + max_shift) * max_factor if protocol.name == "crop" else inner / 2 * max_factor + max_shift
        if protocol.name != "circular" and reach > outer / 2 + 0.5 + 1e-6:
            raise InputError(
                f"protocol '{protocol.name}': {inner} pixels shifted by {max_shift:g} and scaled by {max_factor:g} need"
                f" {math.ceil(2 * reach)}, and there are {outer}; take larger images or smaller transforms"
            )
    return protocol


def _draw(count: int, draws: int, max_shift: float, max_factor: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw pairs of images ``(P, 2)``, and per pair and draw a shift and a log factor ``(P, S, 3)``.

    For an odd number of images, the first image is also the second of the last pair.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    pairs = torch.cat([order, order[: count % 2]]).view(-1, 2)
    uniform = 2 * torch.rand(len(pairs), draws, 3, generator=generator) - 1
    return pairs, uniform * torch.tensor([max_shift, max_shift, math.log(max_factor)])


def _features(
    network: CheckedForward,
    hook: Penultimate,
    protocol: Protocol,
    images: Tensor,
    transforms: Tensor,
    max_factor: float,
) -> Tensor:
    """Return features ``(P, 2, 1 + S, D)`` of images ``(2 P, ...)``: untransformed, then under each transform."""
    scene = Scene(protocol, network.load(images))
    amounts = transforms.repeat_interleave(2, dim=0).to(network.device)
    factors = amounts[..., 2].exp() if max_factor > 1 else None
    columns = []
    for s in range(-1, amounts.shape[1]):
        if s < 0:
            seen = scene.unshifted()
        elif factors is None:
            seen = scene.shift(amounts[:, s, :2])
        else:
            seen = scene.rescale(factors[:, s], 1 / max_factor, amounts[:, s, :2])
        vector = hook.features(network(seen))
        if vector is None:
            raise InputError(
                "model: expected a last nn.Linear that is given (B, D) and gives the logits; name a module by features="
            )
        columns.append(vector.to(torch.promote_types(vector.dtype, torch.float32)))
    return torch.stack(columns, dim=1).unflatten(0, (-1, 2))


def _distances(seen: Tensor, distance: Distance) -> Tensor:
    """Return relative invariance, distance moved and distance apart, means over transforms, ``(P, 2, 3)``."""
    still, moved = seen[:, :, :1], seen[:, :, 1:]
    other = moved.flip(1)
    near, far = distance.between(still, moved), distance.between(still, other)
    precision = torch.finfo(seen.dtype)
    eps = distance.of_rounding(still, other, ROUNDING * precision.eps) + precision.tiny
    return torch.stack([(far - near) / (far + eps), near, far], dim=-1).mean(2)


def _result(table: Tensor, pairs: Tensor, count: int, settings: RelativeSettings) -> RelativeInvariance:
    """Build the result from ``(P, 2, 3)`` in the order of ``pairs``; an image that is paired twice counts once."""
    weight = torch.ones(len(pairs), 2, 1, dtype=table.dtype)
    weight[-1, 1] = 1 - count % 2
    sums = torch.cat([(table * weight).sum(1), weight.sum(1)], dim=1)
    whole, replicates = means_with_replicates(sums, settings.seed)
    whole, replicates = whole[:3] / whole[3], replicates[:, :3] / replicates[:, 3:]
    per_image = torch.empty(count, dtype=table.dtype)
    valid = weight.flatten().bool()
    per_image[pairs.flatten()[valid]] = table[..., 0].flatten()[valid]
    relative, moved, apart = (
        percentile_interval(whole[k], replicates[:, k], *bounds)
        for k, bounds in enumerate(((-math.inf, 1.0), (0.0, math.inf), (0.0, math.inf)))
    )
    return RelativeInvariance(relative, moved, apart, settings, per_image)
