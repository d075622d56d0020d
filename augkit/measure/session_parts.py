"""What measurements of logits and of other outputs have in common: their network, and their analyses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from augkit.core.progress import Display
from augkit.invariance import Network, Plan
from augkit.invariance.protocols import Protocol
from augkit.measure.analyses import Analyses, AnalysisInput, analyze, chosen_analyses
from augkit.measure.fast_passes import contiguous
from augkit.measure.image_sets import ImageSet
from augkit.measure.settings import MeasureSettings
from augkit.measure.views import MAX_SHIFT
from augkit.train.build import choose_device
from augkit.train.load_model import LoadedModel

Normal = Sequence[float] | None


def normalization(settings: MeasureSettings, loaded: LoadedModel) -> tuple[Normal, Normal]:
    """Return mean and std per channel, of images in [0, 1]: those of the settings, else the network's own."""
    return settings.mean or loaded.mean, settings.std or loaded.std


def network_of(settings: MeasureSettings, loaded: LoadedModel) -> Network:
    """Return the network as the settings have it run.

    Raises:
        InputError: as `augkit.invariance.Network`.
    """
    mean, std = normalization(settings, loaded)
    return Network(
        loaded.model,
        mean=mean,
        std=std,
        precision=settings.precision,
        compiled=settings.compile,
        device=choose_device(settings.device),
    )


def batches_of(sets: Mapping[str, ImageSet], size: int) -> int:
    """Return the number of batches of at most ``size`` images in all image sets."""
    return sum(math.ceil(len(found) / size) for found in sets.values())


def repeated_note(channels: str) -> list[str]:
    """Return a note where gray images are repeated for the ``channels`` of the network."""
    return [f"gray images, {channels} channels for the network"] if "repeated" in channels else []


def analyses_of(
    settings: MeasureSettings,
    loaded: LoadedModel,
    network: Network,
    plan: Plan,
    found: ImageSet,
    protocol: Protocol,
    channels: str,
    display: Display,
    *,
    kind: str = "logits",
) -> Analyses | None:
    """Return the chosen analyses of a few images of a set; None where none is chosen."""
    chosen = chosen_analyses(settings)
    if not chosen:
        return None
    count = min(len(found), settings.probe_images)
    images = found.pixels(torch.linspace(0, len(found) - 1, count).long().tolist())
    mean, std = normalization(settings, loaded)
    given = AnalysisInput(
        network.model,
        images.expand(-1, 3, -1, -1) if "repeated" in channels else images,
        protocol,
        plan.pairs.reach if plan.axis == "shift" else MAX_SHIFT,
        mean,
        std,
        network.device,
        settings.seed,
        kind,
        settings.border,
    )
    with contiguous(network):
        return analyze(chosen, given, lambda name: display.stage(f"{name}, on {count} images"))
