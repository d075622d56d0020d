"""What measuring outputs other than logits costs beside the bare forward passes; a part of `measure_speed.py`.

Each network measures `IMAGES` random images under two pairs of shifts (three views) with `augkit.invariance.outputs`,
and runs the same forward passes, by turns in one process that keeps freed memory, with one thread: **measure** as the
command does, in the faster format and with batch norms folded where that is faster (`augkit.measure.fast_passes`);
**before**, contiguous and as it is; **bare**, passes alone of the network as it is, in the format of *measure*;
**folded**, passes alone as those of *measure*. The ratios are *measure* over the passes alone, and *before* over it.
Weights are random, as their values do not matter here. Times are those of the processor. What is done once whatever the
number of images (recognizing the output, the report) counts, and is the smaller a part the more images there are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from memory import peak, restart_peak
from torch import Tensor, nn

from augkit.architectures.folding import foldable_pairs, folded
from augkit.invariance import Network, Pairs, Plan
from augkit.invariance.network import MEMORY_FORMATS
from augkit.invariance.outputs import OutputMeasurement
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.fast_passes import choose_fast_passes
from augkit.measure.settings import BATCHES

SIDE, MARGIN, CLASSES, AIM = 224, 8, 21, 1.15
BATCH = BATCHES["cpu"]  # of the command
IMAGES = 2 * BATCH
PLAN = Plan(pairs=Pairs(2, -MARGIN, MARGIN, quantum=1.0, anchored=True))


class Segmenter(nn.Module):
    """The map of a segmenter of torchvision, without its dictionary."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model

        self.network = get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)["out"]
        return found


def embedder() -> nn.Module:
    """EfficientNet-Lite0 without its classifier."""
    import timm

    model: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    return model


CASES: dict[str, Callable[[], nn.Module]] = {
    "embeddings of tf_efficientnet_lite0": embedder,
    "maps of lraspp_mobilenet_v3_large": lambda: Segmenter("lraspp_mobilenet_v3_large"),
    "maps of deeplabv3_mobilenet_v3_large": lambda: Segmenter("deeplabv3_mobilenet_v3_large"),
}


def outputs(rounds: int, images: int = IMAGES) -> dict[str, Any]:
    """Seconds of both, their ratio over rounds (median, least, most), and peaks of memory."""
    found = {name: _case(make(), rounds, images) for name, make in CASES.items()}
    return {"images": images, "batch": BATCH, "aim": AIM, **found}


def _case(model: nn.Module, rounds: int, images: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = Network(model.eval())
    pixels = torch.randint(0, 256, (images, 3, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), dtype=torch.uint8)
    inputs = [part[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255 for part in pixels.split(BATCH)]

    def measure(times: int = 1) -> None:
        measurement = OutputMeasurement(network, PLAN, ProtocolOptions("crop", input_size=SIDE))
        measurement.begin(pixels[:1])
        measurement.run((part, None) for _ in range(times) for part in pixels.split(BATCH))
        measurement.report().to_dict()

    def before() -> None:
        kept = network.memory_format, network.folds
        network.use_memory_format("contiguous")
        network.use_folding(False)
        measure()
        network.use_memory_format(kept[0])
        network.use_folding(kept[1])

    def bare() -> None:
        layout = MEMORY_FORMATS[network.memory_format]
        with torch.inference_mode():
            network.model(inputs[0][:1].contiguous(memory_format=layout))  # as `begin` does
            for part in inputs:
                for _ in range(measured_views()):
                    network.model(part.contiguous(memory_format=layout))

    def without_norms() -> None:
        with folded(pairs if network.folds else []):
            bare()

    choose_fast_passes(network, lambda: inputs[0], 10_000, network.output)
    with torch.inference_mode():
        pairs = foldable_pairs(network.model, lambda: network.model(inputs[0]))
    runs = {"measure": measure, "before": before, "bare": bare, "folded": without_norms}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    measure()  # warms up
    for _ in range(rounds):
        for name in random.sample(list(runs), len(runs)):
            start = time.process_time()
            runs[name]()
            seconds[name].append(time.process_time() - start)
    peaks = []
    for times in (1, 4):
        before = restart_peak()
        measure(times)
        peaks.append(round(peak() - before, 1))
    return {
        "seconds": {name: round(float(np.median(found)), 3) for name, found in seconds.items()},
        "memory_format": network.memory_format,
        "folded": network.folds,
        "over_bare": (over := _ratio(seconds["measure"], seconds["bare"])),
        "over_folded": _ratio(seconds["measure"], seconds["folded"]),
        "gain": _ratio(seconds["before"], seconds["measure"]),
        "met": over[0] <= AIM,
        "rounds": rounds,
        "more_mib": {f"{times * images} images": mib for times, mib in zip((1, 4), peaks, strict=True)},
    }


def _ratio(one: list[float], other: list[float]) -> list[float]:
    """Median, least and most of the ratios of the rounds."""
    ratios = np.array(one) / np.array(other)
    return [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)]


def measured_views() -> int:
    """Views of an image."""
    return len({column for pair in PLAN.layout.pairs for column in pair})
